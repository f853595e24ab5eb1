// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <dualsft/float16.hpp>

/// The library's header of this name in plain C++. The powers of two are as inexact as a device's may
/// be, so that no test comes to need better ones.
namespace dualsft::detail {

inline float exp2_approx(float x) {
  if (x == 0) return 1;
  const float y = std::exp2(x);
  if (y < 0x1p-126F) return 0;
  return y * (x < 0 ? 1 + 0x1p-23F : 1 - 0x1p-23F);
}

inline float widened(float x) {
  return x;
}
template <Storage16 T>
float widened(T x) {
  return to_float(x);
}

template <class T>
T narrowed(float x) {
  return convert_float<T>(x);
}

template <Storage16 T>
std::uint32_t narrowed_pair(float first, float second) {
  return convert_float<T>(first).bits | static_cast<std::uint32_t>(convert_float<T>(second).bits)
                                            << 16;
}

}  // namespace dualsft::detail
