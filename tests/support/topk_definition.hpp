#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/topk_types.hpp>
#include <utility>
#include <vector>

/// Top-K's definition, spelled out once more and independently of the library: for the host's test and the
/// device's.
namespace dualsft::testing {

struct ranking {
  ranking(const std::vector<double>& scores, topk_by by = topk_by::value)
      : n(static_cast<index_t>(scores.size())) {
    for (index_t i = 0; i < n; ++i) {
      double x = scores[static_cast<std::size_t>(i)];
      if (by == topk_by::magnitude) x = std::fabs(x);
      if (std::isnan(x))
        ++missing_count;
      else
        numbers.emplace_back(-x, i);
    }
    std::sort(numbers.begin(), numbers.end());
  }

  topk_result first(index_t k) const {
    topk_result result;
    result.nan_count = missing_count;
    const auto taken = std::min(static_cast<std::size_t>(k), numbers.size());
    std::vector<index_t> indices;
    for (std::size_t r = 0; r < taken; ++r) indices.push_back(numbers[r].second);
    std::sort(indices.begin(), indices.end());
    result.selected = index_set(indices, n);
    if (taken > 0) result.kth = 0.0 - numbers[taken - 1].first;
    if (taken < numbers.size()) result.next = 0.0 - numbers[taken].first;
    if (result.kth && result.next)
      result.gap = *result.kth == *result.next ? 0 : *result.kth - *result.next;
    for (std::size_t r = 0; r < numbers.size() && result.kth; ++r)
      if (-numbers[r].first == *result.kth) {
        ++result.boundary_ties;
        if (r < taken) ++result.boundary_ties_selected;
      }
    return result;
  }

  index_t n;
  index_t missing_count = 0;
  std::vector<std::pair<double, index_t>> numbers;  // (-score, index): ascending is best first
};

}  // namespace dualsft::testing
