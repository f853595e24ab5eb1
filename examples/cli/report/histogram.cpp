// SPDX-License-Identifier: Apache-2.0
#include "histogram.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <utility>

namespace dualsft::cli {

namespace {

/// The median of |x| over the values that are not zero; 0 if there are none.
double typical_magnitude(std::span<const double> values) {
  std::vector<double> magnitudes;
  for (const double x : values)
    if (x != 0) magnitudes.push_back(std::abs(x));
  if (magnitudes.empty()) return 0;
  const auto middle = magnitudes.begin() + std::ssize(magnitudes) / 2;
  std::nth_element(magnitudes.begin(), middle, magnitudes.end());
  return *middle;
}

std::vector<double> edges_for(std::span<const double> values) {
  const auto [least, most] = std::ranges::minmax_element(values);
  const double low = *least, high = *most, largest = std::max(std::abs(low), std::abs(high));
  if (!(high / 2 - low / 2 > 1e-12 * largest)) {  // equal, as far as bins can tell
    const double room = largest > 1e-300 ? largest / 2 : 1;
    std::vector<double> edges;  // the one bin that is not empty stands in the middle
    for (const double t : {-1.0, -0.6, -0.2, 0.2, 0.6, 1.0}) edges.push_back(low + t * room);
    return edges;
  }
  const auto bins = static_cast<std::size_t>(
      std::clamp(2 * std::cbrt(static_cast<double>(values.size())), 8.0, 48.0));
  const double unit = typical_magnitude(values);
  constexpr double heavy_tails = 50;  // far above what normal or exponential scores reach
  const bool bent = largest / heavy_tails > unit && largest / unit < 1e300;
  std::vector<double> edges{low};
  for (std::size_t i = 1; i < bins; ++i) {
    const double t = static_cast<double>(i) / static_cast<double>(bins);
    const double next =
        bent ? unit * std::sinh(std::lerp(std::asinh(low / unit), std::asinh(high / unit), t))
             : low * (1 - t) + high * t;
    if (next > edges.back() && next < high) edges.push_back(next);
  }
  edges.push_back(high);
  return edges;
}

}  // namespace

histogram bin_values(std::span<const double> values, std::span<const char> selected) {
  histogram out{.edges = edges_for(values), .counts = {}, .marked = {}};
  const std::size_t bins = out.edges.size() - 1;
  out.counts.assign(bins, 0);
  if (!selected.empty()) out.marked.assign(bins, 0);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto above = std::ranges::upper_bound(out.edges, values[i]) - out.edges.begin();
    const auto bin = std::clamp<std::size_t>(static_cast<std::size_t>(above), 1, bins) - 1;
    out.counts[bin] += 1;
    if (!selected.empty() && selected[i] != 0) out.marked[bin] += 1;
  }
  return out;
}

histogram join_bins(histogram fine, std::size_t most) {
  const std::size_t bins = fine.counts.size();
  if (bins <= most) return fine;
  const std::size_t together = (bins + most - 1) / most;
  histogram out;
  for (std::size_t first = 0; first < bins; first += together) {
    const std::size_t last = std::min(bins, first + together);
    out.edges.push_back(fine.edges[first]);
    double count = 0, marked = 0;
    for (std::size_t i = first; i < last; ++i) {
      count += fine.counts[i];
      if (!fine.marked.empty()) marked += fine.marked[i];
    }
    out.counts.push_back(count);
    if (!fine.marked.empty()) out.marked.push_back(marked);
  }
  out.edges.push_back(fine.edges.back());
  return out;
}

}  // namespace dualsft::cli
