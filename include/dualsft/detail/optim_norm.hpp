// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/optim/paged_index_set.hpp>
#include <span>
#include <vector>

/// Sums of squares whose order of addition depends on coordinates alone.
///
/// Coordinates are cut into chunks of 2^14; within a chunk coordinate c adds to lane c mod 32, the
/// lanes are added as a binary tree, and so are the chunks. Coordinates that are left out add
/// nothing, so a sum over selected coordinates has the bits of the sum over the whole array with
/// the others set to zero, for every number of threads and whatever the mask is stored as.
namespace dualsft::detail {

inline constexpr index_t norm_chunk = index_t{1} << 14;
inline constexpr index_t norm_lanes = 32;

using lane_sums = std::array<double, norm_lanes>;

/// Adds values[0, count) by halves; overwrites them.
DUALSFT_UNFUSED inline double tree_sum(double* values, std::size_t count) {
  if (count == 0) return 0;
  while (count > 1) {
    const std::size_t half = count / 2;
    for (std::size_t i = 0; i < half; ++i) values[i] = values[2 * i] + values[2 * i + 1];
    if (count % 2 != 0) values[half] = values[count - 1];
    count = half + count % 2;
  }
  return values[0];
}

/// lanes[c mod 32] += x_c^2 for c in [begin, end), where x_c = values[c - begin].
template <class Real>
DUALSFT_UNFUSED void add_squares(const Real* values, index_t begin, index_t end, lane_sums& lanes) {
  DUALSFT_UNFUSED_BODY
  double* const sums = lanes.data();
  const Real* x = values;
  index_t c = begin;
  for (; c < end && c % norm_lanes != 0; ++c, ++x)
    sums[c % norm_lanes] += static_cast<double>(*x) * static_cast<double>(*x);
  for (; c + norm_lanes <= end; c += norm_lanes, x += norm_lanes)
    for (index_t j = 0; j < norm_lanes; ++j)
      sums[j] += static_cast<double>(x[j]) * static_cast<double>(x[j]);
  for (; c < end; ++c, ++x)
    sums[c % norm_lanes] += static_cast<double>(*x) * static_cast<double>(*x);
}

/// The same over base + offsets[k] alone; value(rank + k, coordinate) is the gradient there.
template <class Offsets, class Value>
DUALSFT_UNFUSED void add_selected_squares(index_t rank, index_t base, const Offsets& offsets,
                                          const Value& value, lane_sums& lanes) {
  DUALSFT_UNFUSED_BODY
  for (const auto offset : offsets) {
    const index_t c = base + static_cast<index_t>(offset);
    const auto x = static_cast<double>(value(rank++, c));
    lanes[static_cast<std::size_t>(c % norm_lanes)] += x * x;
  }
}

/// Tree of the chunks of [0, d); body(begin, end, lanes) fills one chunk's lanes.
template <HostPolicy Policy, class Body>
double sum_over_chunks(const Policy& policy, index_t d, Body&& body) {
  const index_t chunks = (d + norm_chunk - 1) / norm_chunk;
  std::vector<double> sums(static_cast<std::size_t>(chunks));
  parallel_ranges(policy, chunks, 8, [&](int, const index_range& range) {
    for (index_t chunk = range.begin; chunk < range.end; ++chunk) {
      lane_sums lanes{};
      body(chunk * norm_chunk, std::min(d, (chunk + 1) * norm_chunk), lanes);
      sums[static_cast<std::size_t>(chunk)] = tree_sum(lanes.data(), lanes.size());
    }
  });
  return tree_sum(sums.data(), sums.size());
}

/// body(rank of the first, base, coordinates - base) for the members in [begin, end).
template <class Body>
void for_members(const index_set& selected, index_t begin, index_t end, Body&& body) {
  const auto members = selected.within(begin, end);
  body(static_cast<index_t>(members.data() - selected.indices().data()), index_t{0}, members);
}

template <class Body>
void for_members(const paged_index_set& selected, index_t begin, index_t end, Body&& body) {
  selected.for_each_run(selected.rank(begin), selected.rank(end), body);
}

/// Sum over the selected coordinates of value(rank, coordinate)^2; exec::reference adds by rank.
template <HostPolicy Policy, class Selected, class Value>
double selected_squares(const Policy& policy, const Selected& selected, const Value& value) {
  const index_t d = selected.universe();
  if constexpr (std::same_as<Policy, exec::reference>) {
    double sum = 0;
    for_members(selected, 0, d, [&](index_t rank, index_t base, const auto& offsets) {
      for (const auto offset : offsets) {
        const auto x = static_cast<double>(value(rank++, base + static_cast<index_t>(offset)));
        sum += x * x;
      }
    });
    return sum;
  } else {
    return sum_over_chunks(policy, d, [&](index_t begin, index_t end, lane_sums& lanes) {
      for_members(selected, begin, end, [&](index_t rank, index_t base, const auto& offsets) {
        add_selected_squares(rank, base, offsets, value, lanes);
      });
    });
  }
}

}  // namespace dualsft::detail
