// SPDX-License-Identifier: Apache-2.0
#include "chart.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "axis.hpp"
#include "numbers.hpp"

namespace dualsft::cli {

namespace {

// The drawing in its own units; the style sheet scales it to its column.
constexpr double width = 420, height = 262;
constexpr double left = 50, right = 14, top = 42, bottom = 44;
constexpr double plot_width = width - left - right, plot_height = height - top - bottom;

double x_of(double place) {
  return left + place * plot_width;
}
double y_of(double place) {
  return top + (1 - place) * plot_height;
}

void put_line(markup& page, std::string_view style, double x1, double y1, double x2, double y2) {
  page.put_empty("line", {{"class", style},
                          {"x1", place_text(x1)},
                          {"y1", place_text(y1)},
                          {"x2", place_text(x2)},
                          {"y2", place_text(y2)}});
}

void put_text(markup& page, std::string_view anchor, double x, double y, std::string_view text,
              std::string_view style = "tick") {
  page.put("text", text,
           {{"class", style}, {"x", place_text(x)}, {"y", place_text(y)}, {"text-anchor", anchor}});
}

std::ptrdiff_t characters(std::string_view utf8) {
  return std::ranges::count_if(utf8, [](char c) { return (c & 0xC0) != 0x80; });
}

std::string with_unit(const std::string& label, const std::string& unit) {
  return unit.empty() ? label : label + " (\xC3\x97\xC2\xA0" + unit + ")";
}

/// An SVG with its two texts for screen readers, open until the end of the scope.
class drawing {
 public:
  drawing(markup& page, const chart_text& text)
      : svg_(page.open("svg", {{"class", "chart"},
                               {"viewBox", "0 0 " + place_text(width) + " " + place_text(height)},
                               {"role", "img"},
                               {"aria-labelledby", text.id + "-title " + text.id + "-desc"}})) {
    page.put("title", text.title, {{"id", text.id + "-title"}});
    page.put("desc", text.description, {{"id", text.id + "-desc"}});
  }

 private:
  markup::element svg_;
};

void draw_axes(markup& page, const chart_text& text, const chart_axis& x, const chart_axis& y) {
  for (const axis_tick& tick : y.ticks) {
    put_line(page, "grid", left, y_of(tick.place), width - right, y_of(tick.place));
    put_text(page, "end", left - 6, y_of(tick.place) + 4, tick.label);
  }
  put_line(page, "axis", left, y_of(0), width - right, y_of(0));
  for (const axis_tick& tick : x.ticks) {
    put_line(page, "axis", x_of(tick.place), y_of(0), x_of(tick.place), y_of(0) + 4);
    const double half = 3.6 * static_cast<double>(characters(tick.label));  // about so wide
    put_text(page, "middle", std::min(x_of(tick.place), width - half), y_of(0) + 17, tick.label);
  }
  put_text(page, "start", 2, 12, with_unit(text.y_label, y.unit), "label");
  put_text(page, "middle", left + plot_width / 2, height - 8, with_unit(text.x_label, x.unit),
           "label");
}

/// From the axis up to `to`, or from `from`; something is seen of what is not nothing.
void put_column(markup& page, std::string_view style, double x1, double x2, double from,
                double to) {
  const double tall = std::max(plot_height * (to - from), to > from ? 1.0 : 0.0);
  if (!(x2 > x1) || !(tall > 0)) return;
  page.put_empty("rect", {{"class", style},
                          {"x", place_text(x1)},
                          {"y", place_text(y_of(from) - tall)},
                          {"width", place_text(std::max(0.1, x2 - x1))},
                          {"height", place_text(tall)}});
}

/// The share of a bin that is selected, told from the threshold alone: where it begins and ends.
std::vector<std::pair<double, double>> selected_parts(const chart_axis& x,
                                                      const selection_edge& edge) {
  using side = selection_edge::side;
  if (edge.selected == side::above) return {{x.place(edge.last), 1.0}};
  if (edge.selected == side::outside)
    return {{0.0, x.place(-std::abs(edge.last))}, {x.place(std::abs(edge.last)), 1.0}};
  return {};
}

/// The lowest and highest point of each of `columns` runs, in order.
std::vector<std::pair<double, double>> thinned(const std::vector<std::pair<double, double>>& points,
                                               std::size_t columns) {
  if (points.size() <= 2 * columns) return points;
  std::vector<std::pair<double, double>> out{points.front()};
  for (std::size_t c = 0; c < columns; ++c) {
    const auto first = points.begin() + static_cast<std::ptrdiff_t>(points.size() * c / columns);
    const auto last =
        points.begin() + static_cast<std::ptrdiff_t>(points.size() * (c + 1) / columns);
    const auto [low, high] =
        std::minmax_element(first, last, [](auto a, auto b) { return a.second < b.second; });
    out.push_back(std::min(*low, *high));
    out.push_back(std::max(*low, *high));
  }
  out.push_back(points.back());
  return out;
}

}  // namespace

void draw_histogram(markup& page, const chart_text& text, const histogram& bins,
                    const selection_edge& edge) {
  const chart_axis x = binned_axis(bins.edges);
  double most = 1, least = most;
  for (const double count : bins.counts) most = std::max(most, count);
  least = most;
  for (const double count : bins.counts)
    if (count > 0) least = std::min(least, count);
  const bool logarithmic = bins.marked.empty() && most > 1000 * least;
  const chart_axis y = logarithmic ? count_axis(most)
                       : most < 5  ? step_axis(0, most, 5)
                                   : linear_axis(0, most, 5);
  const drawing svg(page, text);
  draw_axes(page, text, x, y);
  const auto parts = selected_parts(x, edge);
  const auto m = static_cast<double>(bins.counts.size());
  const double gap = plot_width / m > 4 ? 0.5 : 0;
  for (std::size_t i = 0; i < bins.counts.size(); ++i) {
    const double tall = y.place(bins.counts[i]);
    if (bins.counts[i] <= 0) continue;
    const double begin = static_cast<double>(i) / m, end = static_cast<double>(i + 1) / m;
    const auto group = page.open("g");
    std::string hint = "[" + number_text(bins.edges[i]) + ", " + number_text(bins.edges[i + 1]) +
                       "]: " + count_text(static_cast<index_t>(bins.counts[i]));
    if (!bins.marked.empty())
      hint += ", " + count_text(static_cast<index_t>(bins.marked[i])) + " selected";
    page.put("title", hint);
    put_column(page, "rest", x_of(begin) + gap, x_of(end) - gap, 0, tall);
    if (!bins.marked.empty()) {
      put_column(page, "selected", x_of(begin) + gap, x_of(end) - gap, 0, y.place(bins.marked[i]));
    } else {
      for (const auto& [from, to] : parts)
        put_column(page, "selected", std::max(x_of(begin) + gap, x_of(from)),
                   std::min(x_of(end) - gap, x_of(to)), 0, tall);
    }
  }
  for (const double value : edge.values) {
    const double at = x_of(x.place(value));
    put_line(page, "boundary", at, top - 6, at, y_of(0));
    const bool near_left = at<left + 45, near_right = at> width - 60;
    put_text(page,
             near_left    ? "start"
             : near_right ? "end"
                          : "middle",
             near_right ? std::max(at, width - 4) : at, top - 11, number_text(value),
             "boundary-label");
  }
}

void draw_lines(markup& page, const chart_text& text, std::span<const chart_line> lines,
                value_scale scale) {
  const auto first = lines.front().points.front();
  double x_low = first.first, x_high = x_low, y_low = first.second, y_high = y_low;
  for (const chart_line& line : lines)
    for (const auto& [x, y] : line.points) {
      x_low = std::min(x_low, x);
      x_high = std::max(x_high, x);
      y_low = std::min(y_low, y);
      y_high = std::max(y_high, y);
    }
  const chart_axis x = step_axis(x_low, x_high, 6);
  const bool logarithmic = scale == value_scale::by_range && y_low > 0 && y_high / 300 > y_low;
  // An axis that would nearly reach zero starts there.
  if (!logarithmic && y_low > 0 && y_low < 0.5 * y_high) y_low = 0;
  const chart_axis y =
      logarithmic ? logarithmic_axis(y_low, y_high) : linear_axis(y_low, y_high, 5);
  const drawing svg(page, text);
  draw_axes(page, text, x, y);
  for (const chart_line& line : lines) {
    constexpr std::size_t few = 40;
    const auto points = thinned(line.points, 300);
    std::string path;
    for (const auto& [step, value] : points)
      path += (path.empty() ? "" : " ") + place_text(x_of(x.place(step))) + "," +
              place_text(y_of(y.place(value)));
    page.put_empty("polyline", {{"class", line.style}, {"points", path}});
    if (points.size() > few) continue;
    for (const auto& [step, value] : points) {
      const auto dot = page.open("circle", {{"class", "dot"},
                                            {"cx", place_text(x_of(x.place(step)))},
                                            {"cy", place_text(y_of(y.place(value)))},
                                            {"r", "2.5"}});
      page.put("title",
               "step " + count_text(static_cast<index_t>(step)) + ": " + number_text(value));
    }
  }
}

namespace {

template <class More>
void bar(markup& page, double share, std::string_view style, More&& more) {
  const auto svg = page.open("svg", {{"class", "bar-cell"},
                                     {"viewBox", "0 0 100 10"},
                                     {"preserveAspectRatio", "none"},
                                     {"aria-hidden", "true"}});
  const double wide = std::isfinite(share) ? std::clamp(100 * share, 0.0, 100.0) : 0;
  page.put_empty("rect", {{"class", "track"}, {"width", "100"}, {"height", "10"}});
  page.put_empty("rect", {{"class", style}, {"width", place_text(wide)}, {"height", "10"}});
  more();
}

}  // namespace

void draw_bar(markup& page, double share, std::string_view style) {
  bar(page, share, style, [] {});
}

void draw_bar_against(markup& page, double share, double reference) {
  bar(page, share, "bar",
      [&] { put_line(page, "reference", 100 * reference, 0, 100 * reference, 10); });
}

}  // namespace dualsft::cli
