// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/detail/ranks.hpp>
#include <dualsft/error.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/score_source.hpp>
#include <dualsft/topk.hpp>
#include <dualsft/views.hpp>
#include <limits>
#include <span>
#include <utility>
#include <vector>

/// How much two selections, or two rankings, have in common.
namespace dualsft {

/// |A and B|. Cost: O(|A| + |B|).
inline index_t intersection_size(const index_set& a, const index_set& b) {
  return detail::common_members(a.indices(), b.indices());
}

/// Jaccard overlap |A and B| / |A or B|, in [0, 1]; 1 for two empty sets.
/// Cost: O(|A| + |B|). Source: Section 6.4, the overlap of conditional re-selection.
inline double jaccard(const index_set& a, const index_set& b) {
  return detail::jaccard(a.size(), b.size(), intersection_size(a, b));
}

/// The same of lists in any order, such as selected examples; a repeated index counts once.
/// Cost: O(n log n), and a copy of both.
inline double jaccard(std::span<const index_t> a, std::span<const index_t> b) {
  const std::vector<index_t> x = detail::sorted_members(a);
  const std::vector<index_t> y = detail::sorted_members(b);
  return detail::jaccard(static_cast<index_t>(x.size()), static_cast<index_t>(y.size()),
                         detail::common_members(x, y));
}

/// Spearman's rank correlation of two scorings of the same n things.
///
/// The Pearson correlation of the ranks, where equal scores share the average of the ranks they
/// span. NaN ranks below every number, and NaN are equal among themselves.
///
/// \param a, b  [n], any stride
/// \return      in [-1, 1]; NaN where it is undefined: n < 2, or all scores of one side are equal
/// \throws invalid_argument  if the sizes differ
///
/// Cost: O(n log n), 24 n bytes. Numerics: centred ranks are exact in double up to n = 2^52;
/// identical rankings give exactly 1.
/// Source: F.8 and F.11; Spearman 1904.
inline double spearman(vector_view<const double> a, vector_view<const double> b) {
  expects(a.size() == b.size(), "spearman", "both scorings must have the same size", "a", a.size(),
          "b", b.size());
  const std::vector<double> x = detail::centred_ranks(a);
  const std::vector<double> y = detail::centred_ranks(b);
  double xx = 0;
  double yy = 0;
  double xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += x[i] * x[i];
    yy += y[i] * y[i];
    xy += x[i] * y[i];
  }
  if (xx == 0 || yy == 0) return std::numeric_limits<double>::quiet_NaN();
  return std::clamp(xy / std::sqrt(xx * yy), -1.0, 1.0);
}

/// The share of pairs that two scorings order alike.
///
/// Over the n (n - 1) / 2 pairs {i, j}: 1 for a pair ordered the same way by both, 0 for one
/// ordered oppositely, 1/2 for one that either scoring ties. So chance gives 1/2, and the value is
/// (1 + tau_a) / 2 with Kendall's tau_a. A scoring with ties does not fully agree with itself.
/// NaN ranks below every number, and NaN are equal among themselves.
///
/// \param a, b  [n], any stride
/// \return      in [0, 1]; NaN if n < 2
/// \throws invalid_argument  if the sizes differ
///
/// Cost: O(n log n) by counting inversions in a merge sort, 40 n bytes. Numerics: pairs are
/// counted in 64-bit integers, so n may reach 3e9; one rounding at the end.
/// Source: F.8 and F.11; the counting is Knight's (1966).
inline double pairwise_agreement(vector_view<const double> a, vector_view<const double> b) {
  expects(a.size() == b.size(), "pairwise_agreement", "both scorings must have the same size", "a",
          a.size(), "b", b.size());
  const index_t n = a.size();
  if (n < 2) return std::numeric_limits<double>::quiet_NaN();
  const detail::pair_counts pairs =
      detail::count_pairs(detail::dense_ranks(a), detail::dense_ranks(b));
  const index_t all = n * (n - 1) / 2;
  const index_t tied = all - pairs.concordant - pairs.discordant;
  return (static_cast<double>(pairs.concordant) + 0.5 * static_cast<double>(tied)) /
         static_cast<double>(all);
}

/// The share of one Top-K that the other contains: |TopK(a) and TopK(b)| / K.
///
/// \param a, b     n scores each
/// \param options  .k in [0, n]; .by
/// \return         in [0, 1]; 1 for K = 0. NaN scores may leave a set short of K: the larger of the
///                 two sets then stands for K
/// \throws invalid_argument  if the sizes differ or k is outside [0, n]
/// Cost: two topk. Source: the Top-5 % overlap of F.11.
template <ExecutionPolicy Policy, ScoreSource A, ScoreSource B>
double top_k_overlap(const Policy& policy, const A& a, const B& b, const topk_options& options) {
  const index_t size_a = a.size();
  const index_t size_b = b.size();
  expects(size_a == size_b, "top_k_overlap", "both scorings must have the same size", "a", size_a,
          "b", size_b);
  const index_set x = topk(policy, a, options).selected;
  const index_set y = topk(policy, b, options).selected;
  const index_t larger = std::max(x.size(), y.size());
  return larger == 0 ? 1.0
                     : static_cast<double>(intersection_size(x, y)) / static_cast<double>(larger);
}
template <ExecutionPolicy Policy>
double top_k_overlap(const Policy& policy, vector_view<const double> a, vector_view<const double> b,
                     const topk_options& options) {
  return top_k_overlap(policy, stored_scores<double>(a), stored_scores<double>(b), options);
}

}  // namespace dualsft
