// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/views.hpp>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace dualsft::detail {

// ---- sets as ascending lists ------------------------------------------------------------------

inline index_t common_members(std::span<const index_t> a, std::span<const index_t> b) {
  index_t common = 0;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) ++common;
    const bool step_a = a[i] <= b[j];
    const bool step_b = b[j] <= a[i];
    i += step_a ? 1 : 0;
    j += step_b ? 1 : 0;
  }
  return common;
}

inline std::vector<index_t> sorted_members(std::span<const index_t> list) {
  std::vector<index_t> members(list.begin(), list.end());
  std::sort(members.begin(), members.end());
  members.erase(std::unique(members.begin(), members.end()), members.end());
  return members;
}

inline double jaccard(index_t size_a, index_t size_b, index_t common) {
  const index_t either = size_a + size_b - common;
  return either == 0 ? 1.0 : static_cast<double>(common) / static_cast<double>(either);
}

// ---- ranks ------------------------------------------------------------------------------------

/// Ascending, NaN first. A strict weak order: NaN are equivalent.
inline bool score_less(double a, double b) {
  return a < b || (a != a && b == b);
}

/// Calls visit(members) for every run of equal scores, ascending.
template <class Visit>
void for_tied_runs(vector_view<const double> scores, Visit&& visit) {
  std::vector<index_t> order(static_cast<std::size_t>(scores.size()));
  std::iota(order.begin(), order.end(), index_t{0});
  std::sort(order.begin(), order.end(),
            [&](index_t i, index_t j) { return score_less(scores[i], scores[j]); });
  for (auto begin = order.begin(); begin != order.end();) {
    const auto end = std::find_if(begin, order.end(),
                                  [&](index_t i) { return score_less(scores[*begin], scores[i]); });
    visit(std::span<const index_t>(begin, end));
    begin = end;
  }
}

/// Average rank minus the mean of all ranks.
inline std::vector<double> centred_ranks(vector_view<const double> scores) {
  std::vector<double> ranks(static_cast<std::size_t>(scores.size()));
  index_t below = 0;
  for_tied_runs(scores, [&](std::span<const index_t> run) {
    // Twice the average of below + 1 ... below + size, minus n + 1: an integer.
    const auto size = static_cast<index_t>(run.size());
    const auto twice = static_cast<double>(2 * below + size - scores.size());
    for (const index_t i : run) ranks[static_cast<std::size_t>(i)] = 0.5 * twice;
    below += size;
  });
  return ranks;
}

/// 0 for the lowest scores, 1 for the next higher, ...
inline std::vector<index_t> dense_ranks(vector_view<const double> scores) {
  std::vector<index_t> ranks(static_cast<std::size_t>(scores.size()));
  index_t rank = 0;
  for_tied_runs(scores, [&](std::span<const index_t> run) {
    for (const index_t i : run) ranks[static_cast<std::size_t>(i)] = rank;
    ++rank;
  });
  return ranks;
}

// ---- concordant pairs -------------------------------------------------------------------------

/// Sorts values; returns the number of pairs i < j with values[i] > values[j].
inline index_t count_inversions(std::vector<index_t>& values) {
  std::vector<index_t> merged(values.size());
  index_t inversions = 0;
  for (std::size_t width = 1; width < values.size(); width *= 2) {
    for (std::size_t begin = 0; begin < values.size(); begin += 2 * width) {
      const std::size_t middle = std::min(begin + width, values.size());
      const std::size_t end = std::min(begin + 2 * width, values.size());
      std::size_t left = begin;
      std::size_t right = middle;
      for (std::size_t out = begin; out < end; ++out) {
        if (right == end || (left < middle && values[left] <= values[right])) {
          merged[out] = values[left++];
        } else {
          inversions += static_cast<index_t>(middle - left);
          merged[out] = values[right++];
        }
      }
    }
    values.swap(merged);
  }
  return inversions;
}

struct pair_counts {
  index_t concordant = 0;
  index_t discordant = 0;  // the rest is tied in x, in y or in both
};

/// Sorted by x and then y, a pair is out of order in y exactly when it is discordant.
inline pair_counts count_pairs(const std::vector<index_t>& x, const std::vector<index_t>& y) {
  std::vector<std::pair<index_t, index_t>> points(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) points[i] = {x[i], y[i]};
  std::sort(points.begin(), points.end());

  const auto pairs = [](index_t n) { return n * (n - 1) / 2; };
  const auto tied_pairs = [&](auto same, index_t count) {
    index_t tied = 0;
    index_t run = 1;
    for (index_t i = 1; i <= count; ++i) {
      if (i < count && same(static_cast<std::size_t>(i))) {
        ++run;
        continue;
      }
      tied += pairs(run);
      run = 1;
    }
    return tied;
  };
  const auto n = static_cast<index_t>(points.size());
  const index_t tied_x =
      tied_pairs([&](std::size_t i) { return points[i].first == points[i - 1].first; }, n);
  const index_t tied_both =
      tied_pairs([&](std::size_t i) { return points[i] == points[i - 1]; }, n);

  std::vector<index_t> second(points.size());
  for (std::size_t i = 0; i < points.size(); ++i) second[i] = points[i].second;
  pair_counts counts;
  counts.discordant = count_inversions(second);
  const index_t tied_y = tied_pairs([&](std::size_t i) { return second[i] == second[i - 1]; }, n);
  counts.concordant = pairs(n) - tied_x - tied_y + tied_both - counts.discordant;
  return counts;
}

}  // namespace dualsft::detail
