// Proves: the 16-bit formats convert exactly when widening and round once, to nearest even, when
// narrowing. Against: the formats' definitions with ldexp, over all patterns and all midpoints.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <dualsft/float16.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <vector>

using namespace dualsft;

namespace {

// The definition: sign, biased exponent, fraction.
template <class H>
double defined_value(H x) {
  constexpr int fraction_bits = std::is_same_v<H, float16> ? 10 : 7;
  constexpr int exponent_bits = 15 - fraction_bits;
  constexpr int bias = (1 << (exponent_bits - 1)) - 1;
  const int fraction = x.bits & ((1 << fraction_bits) - 1);
  const int exponent = (x.bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const double sign = (x.bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1)
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}

template <class H>
H of(unsigned bits) {
  return H{static_cast<std::uint16_t>(bits)};
}

template <class H>
constexpr unsigned infinity_bits = std::is_same_v<H, float16> ? 0x7c00u : 0x7f80u;

template <class H, class From>
unsigned narrowed(From x) {
  return convert_float<H>(x).bits;
}

}  // namespace

TEST_CASE_TEMPLATE("every pattern has its defined value and survives the way back", H, float16,
                   bfloat16) {
  for (unsigned bits = 0; bits < 0x10000u; ++bits) {
    CAPTURE(bits);
    const H x = of<H>(bits);
    const double expected = defined_value(x);
    const float got = to_float(x);
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(got));
    } else {
      REQUIRE(static_cast<double>(got) == expected);
      REQUIRE(std::signbit(got) == std::signbit(expected));
      REQUIRE(narrowed<H>(expected) == bits);
    }
    REQUIRE(narrowed<H>(got) == bits);
  }
}

TEST_CASE_TEMPLATE("between two neighbours the nearer one wins, at the middle the even one", H,
                   float16, bfloat16) {
  for (unsigned bits = 0; bits < infinity_bits<H>; ++bits) {
    CAPTURE(bits);
    const double low = defined_value(of<H>(bits));
    // Past the largest finite value the format rounds as if it went on: to the next power of two.
    const double high = bits + 1 < infinity_bits<H> ? defined_value(of<H>(bits + 1))
                                                    : 2 * low - defined_value(of<H>(bits - 1));
    const double middle = low + (high - low) / 2;  // exact in double, and in float unless denormal
    const unsigned even = (bits & 1u) == 0 ? bits : bits + 1;
    for (const double sign : {1.0, -1.0}) {
      const unsigned mark = sign < 0 ? 0x8000u : 0u;
      REQUIRE(narrowed<H>(sign * middle) == (even | mark));
      REQUIRE(narrowed<H>(sign * std::nextafter(middle, 0.0)) == (bits | mark));
      REQUIRE(narrowed<H>(sign * std::nextafter(middle, 1e300)) == ((bits + 1) | mark));
      const auto as_float = static_cast<float>(middle);
      if (static_cast<double>(as_float) == middle) {
        const auto signed_float = static_cast<float>(sign) * as_float;
        REQUIRE(narrowed<H>(signed_float) == (even | mark));
        REQUIRE(narrowed<H>(std::nextafter(signed_float, 0.0f)) == (bits | mark));
        REQUIRE(narrowed<H>(std::nextafter(
                    signed_float, static_cast<float>(sign) * std::numeric_limits<float>::max())) ==
                ((bits + 1) | mark));
      }
    }
  }
}

TEST_CASE_TEMPLATE("what is out of range becomes infinity, zero or NaN", H, float16, bfloat16) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (const double x : {1e300, infinity, std::numeric_limits<double>::max()}) {
    CHECK(narrowed<H>(x) == infinity_bits<H>);
    CHECK(narrowed<H>(-x) == (infinity_bits<H> | 0x8000u));
  }
  CHECK(narrowed<H>(1e-300) == 0u);
  CHECK(narrowed<H>(-1e-300) == 0x8000u);
  CHECK(narrowed<H>(std::numeric_limits<float>::denorm_min()) == 0u);
  // A NaN whose payload lies in the bits that are lost.
  const auto low_payload = std::bit_cast<float>(0x7f800001u);
  CHECK(std::isnan(to_float(convert_float<H>(low_payload))));
  CHECK(std::isnan(to_float(convert_float<H>(std::numeric_limits<double>::quiet_NaN()))));
}

TEST_CASE("float16 bounds are IEEE 754's") {
  CHECK(to_float(to_float16(65504.0f)) == 65504.0f);
  CHECK(to_float16(65519.996f).bits == 0x7bffu);
  CHECK(to_float16(65520.0f).bits == 0x7c00u);
  CHECK(to_float(of<float16>(1)) == 0x1p-24f);
  CHECK(to_float16(0x1p-25f).bits == 0u);
  CHECK(to_float16(0x1.000002p-25f).bits == 1u);
}

TEST_CASE("spans convert element by element, and lengths must agree") {
  random_source random(7);
  std::vector<double> from(257);
  for (double& x : from) x = random.normal();
  std::vector<bfloat16> stored(from.size());
  convert_floats(std::span<const double>(from), std::span(stored));
  std::vector<float> back(from.size());
  convert_floats(std::span<const bfloat16>(stored), std::span(back));
  for (std::size_t i = 0; i < from.size(); ++i)
    CHECK(std::abs(back[i] - from[i]) <= 0x1p-8 * std::abs(from[i]));  // half a unit of 8 bits
  CHECK_THROWS_AS(convert_floats(std::span<const double>(from), std::span(back).first(3)),
                  invalid_argument);
}
