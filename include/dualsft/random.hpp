// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <numbers>
#include <span>
#include <utility>

/// Random numbers without the standard library's distributions, which differ from one library to the
/// next. bits, uniform, below, sign and shuffle give the same on every platform; normal goes through
/// the platform's log and cos, which may differ in the last bit.
namespace dualsft {

/// xoshiro256++ (Blackman and Vigna 2019), seeded by splitmix64. Copyable; equal seeds give equal
/// sequences. `stream` separates independent uses of one seed.
class random_source {
 public:
  explicit random_source(std::uint64_t seed, std::uint64_t stream = 0) {
    std::uint64_t x = seed ^ (stream * 0xd1342543de82ef95ULL + 0x9e3779b97f4a7c15ULL);
    for (auto& word : state_) {
      x += 0x9e3779b97f4a7c15ULL;
      std::uint64_t z = x;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
      word = z ^ (z >> 31);
    }
  }

  std::uint64_t bits() {
    const std::uint64_t result = std::rotl(state_[0] + state_[3], 23) + state_[0];
    const std::uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  /// Uniform in [0, 1), a multiple of 2^-53.
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

  /// Uniform in {0, ..., n - 1} without bias.
  /// \throws invalid_argument  if n < 1
  index_t below(index_t n) {
    expects(n > 0, "random_source::below", "n must be positive", "n", n);
    const auto range = static_cast<std::uint64_t>(n);
    const std::uint64_t rejected = (0 - range) % range;  // 2^64 mod range
    for (;;) {
      const std::uint64_t x = bits();
      if (x >= rejected) return static_cast<index_t>(x % range);
    }
  }

  /// Standard normal (Box-Muller). One of each pair is thrown away: if it were kept, the state would
  /// be more than state_.
  double normal() {
    const double u = 1.0 - uniform();  // (0, 1]
    const double v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
  }

  /// +1 or -1 with equal probability.
  double sign() { return (bits() >> 63) != 0 ? 1.0 : -1.0; }

  /// Fisher-Yates.
  template <class T>
  void shuffle(std::span<T> values) {
    for (auto i = static_cast<index_t>(values.size()); i > 1; --i)
      std::swap(values[static_cast<std::size_t>(i - 1)],
                values[static_cast<std::size_t>(below(i))]);
  }

 private:
  std::uint64_t state_[4];
};

}  // namespace dualsft
