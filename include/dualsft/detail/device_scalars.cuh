// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <dualsft/float16.hpp>
#include <type_traits>

/// Instructions on single numbers that C++ has no name for.
namespace dualsft::detail {

/// 2^x to 2^-22 relative; results below 2^-126 are 0, 2^0 is 1.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// to_float and narrowing to nearest, in one instruction where there is one.
__device__ inline float widened(float x) {
  return x;
}
__device__ inline float widened(bfloat16 x) {
  return to_float(x);
}
__device__ inline float widened(float16 x) {
  return __half2float(__ushort_as_half(x.bits));
}

template <class T>
__device__ T narrowed(float x) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
  else if constexpr (std::is_same_v<T, float16>)
    return {__half_as_ushort(__float2half_rn(x))};
  else
    return x;
}

/// Two numbers in one word, the first in its lower half.
template <Storage16 T>
__device__ std::uint32_t narrowed_pair(float first, float second) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return reinterpret_cast<const std::uint32_t&>(pair);
  } else {
    const __half2 pair = __floats2half2_rn(first, second);
    return reinterpret_cast<const std::uint32_t&>(pair);
  }
}

}  // namespace dualsft::detail
