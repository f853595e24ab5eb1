// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/config.hpp>

/// Arithmetic in which every operation is rounded by itself, on the host and on a device: no compiler
/// makes one rounding of a product and a sum. For functions that have to give a device's bits on the
/// host too; loops of the host alone have DUALSFT_UNFUSED, which vectorises.
namespace dualsft::detail {

#if !defined(__CUDA_ARCH__)
/// The compiler cannot know that the value is unchanged.
template <class Real>
inline Real settled(Real x) {
  asm volatile("" : "+m"(x));
  return x;
}
#endif

DUALSFT_HOST_DEVICE inline float rounded_product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return settled(a * b);
#endif
}
DUALSFT_HOST_DEVICE inline double rounded_product(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return settled(a * b);
#endif
}

DUALSFT_HOST_DEVICE inline float rounded_sum(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return settled(a + b);
#endif
}
DUALSFT_HOST_DEVICE inline double rounded_sum(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dadd_rn(a, b);
#else
  return settled(a + b);
#endif
}

DUALSFT_HOST_DEVICE inline float rounded_quotient(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return settled(a / b);
#endif
}
DUALSFT_HOST_DEVICE inline double rounded_quotient(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __ddiv_rn(a, b);
#else
  return settled(a / b);
#endif
}

DUALSFT_HOST_DEVICE inline float rounded_root(float a) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(a);
#else
  return settled(std::sqrt(a));
#endif
}
DUALSFT_HOST_DEVICE inline double rounded_root(double a) {
#if defined(__CUDA_ARCH__)
  return __dsqrt_rn(a);
#else
  return settled(std::sqrt(a));
#endif
}

}  // namespace dualsft::detail
