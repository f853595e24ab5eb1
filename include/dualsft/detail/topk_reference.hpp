// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <dualsft/score_source.hpp>
#include <dualsft/topk_types.hpp>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace dualsft::detail {

/// Scores are always evaluated in runs that start at multiples of this, by every back end, so that
/// a source whose rounding depends on the run still gives all of them the same bits. 32 KiB of
/// doubles: the run stays in the first-level cache.
inline constexpr index_t score_tile = 4096;

/// Overwrites out with the scores as topk compares them.
template <ScoreSource Source>
void fill_scores(const Source& source, topk_by by, index_t offset, std::span<double> out) {
  source.fill(offset, out);
  if (by == topk_by::magnitude)
    for (double& x : out) x = std::abs(x);
}

template <ScoreSource Source>
std::vector<double> all_scores(const Source& source, topk_by by) {
  const index_t n = source.size();
  std::vector<double> scores(static_cast<std::size_t>(n));
  for (index_t begin = 0; begin < n; begin += score_tile) {
    const auto count = static_cast<std::size_t>(std::min(score_tile, n - begin));
    fill_scores(source, by, begin,
                std::span(scores).subspan(static_cast<std::size_t>(begin), count));
  }
  return scores;
}

/// All indices, best score first: NaN behind all numbers, ties by index.
inline std::vector<index_t> descending_order(std::span<const double> scores) {
  std::vector<index_t> order(scores.size());
  std::iota(order.begin(), order.end(), index_t{0});
  std::stable_sort(order.begin(), order.end(), [&](index_t i, index_t j) {
    const double a = scores[static_cast<std::size_t>(i)];
    const double b = scores[static_cast<std::size_t>(j)];
    return a > b || (!std::isnan(a) && std::isnan(b));
  });
  return order;
}

/// Sorts everything, then reads the definition off.
template <ScoreSource Source>
topk_result topk_reference(const Source& source, const topk_options& options) {
  const std::vector<double> scores = all_scores(source, options.by);
  const std::vector<index_t> order = descending_order(scores);
  const auto score = [&](index_t rank) {
    return scores[static_cast<std::size_t>(order[static_cast<std::size_t>(rank)])];
  };

  topk_result result;
  for (const double x : scores) result.nan_count += std::isnan(x) ? 1 : 0;
  const index_t numbers = source.size() - result.nan_count;
  const index_t selected = std::min(options.k, numbers);
  if (selected > 0) result.kth = score(selected - 1) + 0.0;  // -0 becomes +0
  if (selected < numbers) result.next = score(selected) + 0.0;
  result.gap = boundary_gap(result.kth, result.next);
  for (index_t rank = 0; rank < numbers && result.kth; ++rank) {
    if (score(rank) != *result.kth) continue;
    ++result.boundary_ties;
    if (rank < selected) ++result.boundary_ties_selected;
  }

  std::vector<index_t> indices(order.begin(), order.begin() + selected);
  std::sort(indices.begin(), indices.end());
  result.selected = index_set(std::move(indices), source.size());
  return result;
}

}  // namespace dualsft::detail
