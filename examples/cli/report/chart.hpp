// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "histogram.hpp"
#include "markup.hpp"

/// Charts as inline SVG; colours come from the classes of the style sheet.
namespace dualsft::cli {

struct chart_text {
  std::string id;  ///< unique in the page
  std::string title, description;
  std::string x_label, y_label;
};

/// What a histogram says about a selection besides the counts.
struct selection_edge {
  std::vector<double> values;  ///< marked by a line each
  /// Which scores are selected; asked only where the histogram does not know per bin.
  enum class side { unknown, above, outside } selected = side::unknown;
  double last = 0;  ///< `above`: scores >= last; `outside`: |score| >= |last|
};

/// Counts over more than three orders of magnitude are drawn on a logarithmic scale, unless they
/// consist of marked and unmarked ones.
void draw_histogram(markup& page, const chart_text& text, const histogram& bins,
                    const selection_edge& edge);

struct chart_line {
  std::string_view style;                         ///< "line" or "line faint"
  std::vector<std::pair<double, double>> points;  ///< finite, x ascending, not empty
};

/// `by_range`: logarithmic for positive values that span more than a factor of 300.
enum class value_scale { linear, by_range };

/// Few points are marked each; many are thinned to the extremes of each column of the drawing.
/// \param lines  at least one; later ones lie above earlier ones
void draw_lines(markup& page, const chart_text& text, std::span<const chart_line> lines,
                value_scale scale);

/// A bar of this share of its cell, 0 to 1; hidden from screen readers, to which the cell speaks.
void draw_bar(markup& page, double share, std::string_view style = "bar");

/// The same with a line across it at another share.
void draw_bar_against(markup& page, double share, double reference);

}  // namespace dualsft::cli
