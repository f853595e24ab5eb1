// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <span>

/// The two 16-bit floating-point formats as storage: no arithmetic, only conversion.
///
/// | type     | exponent bits | stored fraction bits | largest  | smallest positive |
/// | float16  | 5 | 10 | 65504    | 2^-24  | IEEE 754 binary16 |
/// | bfloat16 | 8 |  7 | ~3.39e38 | 2^-133 | the upper half of binary32 |
///
/// Widening is exact. Narrowing rounds to nearest, ties to even, once: also from double. What is
/// too large becomes infinity, what is too small a denormal or a zero of its sign; a NaN stays a
/// NaN, and keeps its upper payload bits, so that every pattern survives the way to float and back.
namespace dualsft {

struct float16 {
  std::uint16_t bits = 0;
  friend bool operator==(const float16&, const float16&) = default;  ///< of the bits
};

struct bfloat16 {
  std::uint16_t bits = 0;
  friend bool operator==(const bfloat16&, const bfloat16&) = default;  ///< of the bits
};

template <class T>
concept Storage16 = std::same_as<T, float16> || std::same_as<T, bfloat16>;

namespace detail {

/// The float next to `x` whose last bit is odd, unless x is a float: rounding that once more, to a
/// format at least two bits shorter, gives what rounding x itself would give.
DUALSFT_HOST_DEVICE inline float round_to_odd(double x) {
  const auto nearest = static_cast<float>(x);
  const auto back = static_cast<double>(nearest);
  if (back == x || x != x) return nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if ((bits & 1u) == 0) {
    const bool short_of_x = x < 0 ? back > x : back < x;
    bits = short_of_x ? bits + 1 : bits - 1;
  }
  return std::bit_cast<float>(bits);
}

}  // namespace detail

DUALSFT_HOST_DEVICE inline float to_float(bfloat16 x) {
  return std::bit_cast<float>(std::uint32_t{x.bits} << 16);
}

DUALSFT_HOST_DEVICE inline float to_float(float16 x) {
  const std::uint32_t sign = (x.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = x.bits & 0x7fffu;
  std::uint32_t bits;
  if (magnitude >= 0x7c00u)  // infinity, NaN
    bits = 0x7f800000u | ((magnitude & 0x3ffu) << 13);
  else if (magnitude >= 0x400u)  // normal: rebias the exponent from 15 to 127
    bits = (magnitude << 13) + (112u << 23);
  else  // denormal: an integer multiple of 2^-24
    bits = std::bit_cast<std::uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
  return std::bit_cast<float>(bits | sign);
}

DUALSFT_HOST_DEVICE inline bfloat16 to_bfloat16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    // A payload that lies in the lost half alone would turn NaN into infinity.
    const std::uint32_t kept = bits >> 16;
    return {static_cast<std::uint16_t>((kept & 0x7fu) != 0 ? kept : kept | 0x40u)};
  }
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

DUALSFT_HOST_DEVICE inline float16 to_float16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude > 0x7f800000u) {
    const std::uint32_t payload = (magnitude >> 13) & 0x3ffu;
    half = 0x7c00u | (payload != 0 ? payload : 0x200u);
  } else if (magnitude >= 0x47800000u) {  // 2^16 and above
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2^-14 and above: normal; a carry may reach infinity
    half = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  } else {
    // The last bit of a float in [1/2, 1) is worth 2^-24, the unit of the denormals: the addition
    // does the rounding.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    half = std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(0.5f);
  }
  return {static_cast<std::uint16_t>(half | sign)};
}

DUALSFT_HOST_DEVICE inline bfloat16 to_bfloat16(double x) {
  return to_bfloat16(detail::round_to_odd(x));
}
DUALSFT_HOST_DEVICE inline float16 to_float16(double x) {
  return to_float16(detail::round_to_odd(x));
}

/// Element by element, from any of float16, bfloat16, float, double to any of them.
/// Cost: a few integer operations each; compilers vectorise the spans' loop.
template <class To, class From>
DUALSFT_HOST_DEVICE To convert_float(From x) {
  if constexpr (std::same_as<To, From>) {
    return x;
  } else if constexpr (Storage16<From>) {
    return convert_float<To>(to_float(x));
  } else if constexpr (std::same_as<To, float16>) {
    return to_float16(x);
  } else if constexpr (std::same_as<To, bfloat16>) {
    return to_bfloat16(x);
  } else {
    static_assert(std::floating_point<To>, "dualsft::convert_float: not a floating-point type");
    return static_cast<To>(x);
  }
}

/// \throws invalid_argument  if the lengths differ
template <class From, class To>
void convert_floats(std::span<const From> from, std::span<To> to) {
  expects(from.size() == to.size(), "convert_floats", "both spans must have the same length",
          "from", from.size(), "to", to.size());
  std::transform(from.begin(), from.end(), to.begin(), [](From x) { return convert_float<To>(x); });
}

}  // namespace dualsft
