// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

/// From values to places along an axis, and where its ticks go.
namespace dualsft::cli {

struct axis_tick {
  double place = 0;  ///< in [0, 1]
  std::string label;
};

struct chart_axis {
  std::function<double(double)> place;  ///< value -> [0, 1]; beyond the ends: the nearer end
  std::vector<axis_tick> ticks;
  std::string unit;  ///< what the labels count in, such as "10⁻⁵"; empty for 1
};

/// Even steps over at least [low, high], ended by round numbers; one value gets room on both sides.
/// \param most_ticks  about so many, >= 2
chart_axis linear_axis(double low, double high, int most_ticks);

/// The same for whole numbers from `low` to `high` exactly: no tick lies between two of them.
chart_axis step_axis(double low, double high, int most_ticks);

/// Powers of ten around [low, high], 0 < low <= high.
chart_axis logarithmic_axis(double low, double high);

/// Counts from 0 to `high` >= 1, place ~ log(1 + count).
chart_axis count_axis(double high);

/// Bins side by side, all as wide as each other, whatever their edges; evenly spaced edges give an
/// ordinary axis, others get ticks at 0 and powers of ten.
/// \param edges  [m + 1], ascending, m >= 1
chart_axis binned_axis(std::span<const double> edges);

}  // namespace dualsft::cli
