// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <dualsft/index_set.hpp>
#include <limits>
#include <optional>

/// What goes into and comes out of topk, on every back end.
namespace dualsft {

/// What "large" means.
enum class topk_by {
  value,      ///< the signed score, as in the paper
  magnitude,  ///< |score|, as in the authors' script
};

struct topk_options {
  /// K, in [0, n].
  index_t k = 0;
  topk_by by = topk_by::value;
};

/// The K largest scores, and how firmly they are separated from the rest.
///
/// Scores are |score| throughout when selected by magnitude; a zero is reported as +0.
struct topk_result {
  /// Ascending. Fewer than K members only when fewer than K scores are numbers: then it is all of
  /// those.
  index_set selected;
  /// The smallest selected score, phi_(K); absent when nothing is selected.
  std::optional<double> kth;
  /// The largest score outside, phi_(K+1); absent when nothing is outside, or only NaN
  /// (nan_count > 0 tells the two apart).
  std::optional<double> next;
  /// kth - next >= 0: the boundary gap of Corollaries 1 and 2. 0 when the two are equal (also as
  /// infinities), +inf when either is absent.
  double gap = std::numeric_limits<double>::infinity();
  /// Scores that are NaN: never selected.
  index_t nan_count = 0;
  /// Scores equal to kth, in all and among the selected. More in all than selected means that the
  /// lower index decided.
  index_t boundary_ties = 0;
  index_t boundary_ties_selected = 0;

  friend bool operator==(const topk_result&, const topk_result&) = default;
};

namespace detail {

inline double boundary_gap(const std::optional<double>& kth, const std::optional<double>& next) {
  if (!kth || !next) return std::numeric_limits<double>::infinity();
  return *kth == *next ? 0.0 : *kth - *next;
}

}  // namespace detail
}  // namespace dualsft
