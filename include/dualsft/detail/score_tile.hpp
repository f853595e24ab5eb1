// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <dualsft/config.hpp>
#include <dualsft/detail/topk_reference.hpp>
#include <limits>
#include <span>

/// What selection does with one tile of scores while it is in the first-level cache.
namespace dualsft::detail {

// ---- the order of doubles as unsigned integers ------------------------------------------------

/// a < b as numbers exactly when key(a) < key(b); -0 and +0 share a key. Not for NaN.
DUALSFT_HOST_DEVICE inline std::uint64_t order_key(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x + 0.0);
  return bits ^ ((bits >> 63) != 0 ? ~std::uint64_t{0} : std::uint64_t{1} << 63);
}

DUALSFT_HOST_DEVICE inline double order_value(std::uint64_t key) {
  return std::bit_cast<double>(key ^
                               ((key >> 63) != 0 ? std::uint64_t{1} << 63 : ~std::uint64_t{0}));
}

// ---- one tile of scores, in the first-level cache ---------------------------------------------

using score_buffer = std::array<double, static_cast<std::size_t>(score_tile)>;
using offset_buffer = std::array<std::uint16_t, static_cast<std::size_t>(score_tile)>;

/// Writes the positions of scores >= low and returns how many. A branch per score would be
/// mispredicted once per selected score. Wide registers compare many scores at once and only the
/// hits are visited; without them the position is always written and the count alone depends on
/// the test.
inline index_t positions_at_least(std::span<const double> scores, double low,
                                  offset_buffer& positions) {
  std::size_t found = 0;
  std::size_t i = 0;
#if defined(__AVX2__)
  for (; i + 64 <= scores.size(); i += 64) {
    std::array<std::uint8_t, 64> hit;
    for (std::size_t j = 0; j < 64; ++j) hit[j] = scores[i + j] >= low ? 1 : 0;
    std::uint64_t hits = 0;
    for (std::size_t byte = 0; byte < 8; ++byte) {
      std::uint64_t flags;
      std::memcpy(&flags, hit.data() + 8 * byte, 8);
      // Flag f, at bit 8 f, is moved to bit 56 + f by one of the multiplier's eight bits.
      hits |= ((flags * 0x0102040810204080U) >> 56) << (8 * byte);
    }
    for (; hits != 0; hits &= hits - 1)
      positions[found++] = static_cast<std::uint16_t>(i + std::size_t(std::countr_zero(hits)));
  }
#endif
  for (; i < scores.size(); ++i) {
    positions[found] = static_cast<std::uint16_t>(i);
    found += scores[i] >= low ? 1u : 0u;
  }
  return static_cast<index_t>(found);
}

inline index_t count_nans(std::span<const double> scores) {
  index_t nans = 0;
  for (const double x : scores) nans += x != x ? 1 : 0;
  return nans;
}

/// The largest score <= bound; -inf where there is none.
inline double largest_at_most(std::span<const double> scores, double bound) {
  double best = -std::numeric_limits<double>::infinity();
  for (const double x : scores) best = (x <= bound && x > best) ? x : best;
  return best;
}

}  // namespace dualsft::detail
