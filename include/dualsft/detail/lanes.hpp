// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>

#if defined(__AVX__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

/// A few doubles side by side, loaded from float or double: what a reduction needs to be
/// vectorised, since the compiler may not reorder a sum of doubles by itself.
///
/// Objects are passed by reference only: vector types in signatures change the ABI with -march.

/// Before a short loop over registers: an array stays in registers only once its loop is unrolled. nvcc
/// would warn of what it hands on.
#if defined(__CUDACC__)
#define DUALSFT_UNROLL
#elif defined(__clang__)
#define DUALSFT_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define DUALSFT_UNROLL _Pragma("GCC unroll 8")
#else
#define DUALSFT_UNROLL
#endif

namespace dualsft::detail {

#if defined(__AVX512F__)
inline constexpr int lane_count = 8;
#else
inline constexpr int lane_count = 4;
#endif

#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDACC__)

using lane_vector = double __attribute__((vector_size(8 * lane_count)));
#define DUALSFT_INLINE inline __attribute__((always_inline))

DUALSFT_INLINE void load_lanes(lane_vector& to, const double* from) {
  __builtin_memcpy(&to, from, sizeof to);
}

DUALSFT_INLINE void load_lanes(lane_vector& to, const float* from) {
  // Spelled out because g++ 12 converts a generic vector in halves; with a mask of ones because its
  // unmasked form trips -Wmaybe-uninitialized.
#if defined(__AVX512F__)
  to = (lane_vector)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(from));
#elif defined(__AVX__)
  to = (lane_vector)_mm256_cvtps_pd(_mm_loadu_ps(from));
#else
  for (int l = 0; l < lane_count; ++l) to[l] = static_cast<double>(from[l]);
#endif
}

DUALSFT_INLINE void store_lanes(double* to, const lane_vector& from) {
  __builtin_memcpy(to, &from, sizeof from);
}

/// lane_count elements, unconverted.
template <class T>
DUALSFT_INLINE void copy_lanes(T* to, const T* from) {
  // NOLINTNEXTLINE(modernize-use-using): g++ ignores the attribute of a dependent alias
  typedef T block __attribute__((vector_size(sizeof(T) * lane_count)));
  block x;
  __builtin_memcpy(&x, from, sizeof x);
  __builtin_memcpy(to, &x, sizeof x);
}

DUALSFT_INLINE void clear_lanes(lane_vector& x) {
  x = lane_vector{};
}
DUALSFT_INLINE void fill_lanes(lane_vector& x, double value) {
  x = lane_vector{} + value;
}
DUALSFT_INLINE void add_lanes(lane_vector& sum, const lane_vector& x) {
  sum += x;
}
DUALSFT_INLINE void multiply_add(lane_vector& sum, const lane_vector& a, const lane_vector& b) {
  sum += a * b;
}

/// Into the second level of cache: the first has few slots for lines on their way from memory.
DUALSFT_INLINE void prefetch_line(const void* address) {
  __builtin_prefetch(address, 0, 2);
}

#else

struct lane_vector {
  double value[lane_count];
  double operator[](int l) const { return value[l]; }
};
#define DUALSFT_INLINE inline

template <class T>
inline void load_lanes(lane_vector& to, const T* from) {
  for (int l = 0; l < lane_count; ++l) to.value[l] = static_cast<double>(from[l]);
}
inline void store_lanes(double* to, const lane_vector& from) {
  for (int l = 0; l < lane_count; ++l) to[l] = from.value[l];
}
template <class T>
inline void copy_lanes(T* to, const T* from) {
  for (int l = 0; l < lane_count; ++l) to[l] = from[l];
}
inline void clear_lanes(lane_vector& x) {
  x = lane_vector{};
}
inline void fill_lanes(lane_vector& x, double value) {
  for (double& v : x.value) v = value;
}
inline void add_lanes(lane_vector& sum, const lane_vector& x) {
  for (int l = 0; l < lane_count; ++l) sum.value[l] += x.value[l];
}
inline void multiply_add(lane_vector& sum, const lane_vector& a, const lane_vector& b) {
  for (int l = 0; l < lane_count; ++l) sum.value[l] += a.value[l] * b.value[l];
}
inline void prefetch_line(const void*) {}

#endif

/// The lanes added as a tree.
DUALSFT_INLINE double sum_lanes(const lane_vector& x) {
  double part[lane_count];
  store_lanes(part, x);
  for (int half = lane_count / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) part[l] += part[l + half];
  return part[0];
}

}  // namespace dualsft::detail
