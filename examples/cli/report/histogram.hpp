// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

namespace dualsft::cli {

struct histogram {
  std::vector<double> edges;   ///< [m + 1], ascending
  std::vector<double> counts;  ///< [m]
  std::vector<double> marked;  ///< [m], how many of them are selected; empty where not known
};

/// Counts values in bins fit for a drawing: even ones, or ones that widen like sinh away from zero
/// where the values span magnitudes; around a single value where all are equal.
/// \param values    not empty, finite
/// \param selected  0 or 1 for each value, or empty
histogram bin_values(std::span<const double> values, std::span<const char> selected);

/// Joins neighbours until there are at most `most` bins.
histogram join_bins(histogram fine, std::size_t most);

}  // namespace dualsft::cli
