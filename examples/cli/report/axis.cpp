// SPDX-License-Identifier: Apache-2.0
#include "axis.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "numbers.hpp"

namespace dualsft::cli {

namespace {

/// (x - low) / (high - low), without overflow, in [0, 1].
double fraction(double x, double low, double high) {
  const double length = high / 2 - low / 2;
  if (!(length > 0)) return 0.5;
  return std::clamp((x / 2 - low / 2) / length, 0.0, 1.0);
}

int decade(double x) {
  return static_cast<int>(std::floor(std::log10(x)));
}

/// 1, 2 or 5 times a power of ten, at least x > 0.
double round_step(double x) {
  const double power = std::pow(10, decade(x));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= x * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

/// The power of ten that labels are counted in: 0 unless they would be long.
int label_exponent(double largest) {
  if (!(largest > 0) || (largest >= 0.01 && largest < 1e5)) return 0;
  return decade(largest);
}

/// Ticks at multiples of `step` within [low, high], labelled without superfluous digits.
void add_ticks(chart_axis& axis, double low, double high, double step) {
  const int exponent = label_exponent(std::max(std::abs(low), std::abs(high)));
  if (exponent != 0) axis.unit = power_text(exponent);
  const int decimals = std::max(0, exponent - decade(step * (1 + 1e-9)));
  const auto first = std::ceil(low / step - 1e-6), last = std::floor(high / step + 1e-6);
  for (double i = first; i <= last; ++i) {
    // Dividing by a power first keeps the product from overflowing or vanishing.
    const double shown = i * (step / std::pow(10, exponent));
    axis.ticks.push_back({axis.place(i * step), fixed_text(shown, std::min(decimals, 12))});
  }
}

}  // namespace

chart_axis linear_axis(double low, double high, int most_ticks) {
  const double size = std::max(std::abs(low), std::abs(high));
  if (!(high - low > 1e-9 * size) || size < 1e-300) {  // one value, as far as a drawing can tell
    const double room = size < 1e-300 ? 1 : size / 10;
    low -= room;
    high += room;
  }
  // Halves: high - low may overflow.
  const double step = round_step((high / 2 - low / 2) / most_ticks * 2);
  constexpr double end = std::numeric_limits<double>::max();  // rounding outwards may pass it
  low = std::max(-end, std::floor(low / step + 1e-9) * step);
  high = std::min(end, std::ceil(high / step - 1e-9) * step);
  chart_axis axis{
      .place = [low, high](double x) { return fraction(x, low, high); }, .ticks = {}, .unit = {}};
  add_ticks(axis, low, high, step);
  return axis;
}

chart_axis step_axis(double low, double high, int most_ticks) {
  if (!(high > low)) high = low + 1;
  chart_axis axis{
      .place = [low, high](double x) { return fraction(x, low, high); }, .ticks = {}, .unit = {}};
  add_ticks(axis, low, high, std::max(1.0, round_step((high - low) / most_ticks)));
  return axis;
}

chart_axis logarithmic_axis(double low, double high) {
  const int first = decade(low), last = std::max(first + 1, decade(high) + (decade(high) < 308));
  chart_axis axis{
      .place = [first,
                last](double x) { return x > 0 ? fraction(std::log10(x), first, last) : 0.0; },
      .ticks = {},
      .unit = {}};
  const int stride = 1 + (last - first) / 7;
  for (int e = first; e <= last; e += stride)
    axis.ticks.push_back({fraction(e, first, last), power_text(e)});
  return axis;
}

chart_axis count_axis(double high) {
  const double top = std::log1p(high);
  chart_axis axis{.place = [top](double x) { return fraction(std::log1p(x), 0, top); },
                  .ticks = {{0, "0"}},
                  .unit = {}};
  const int stride = 1 + decade(high) / 6;
  for (int e = 0; e <= decade(high); e += stride) {
    if (axis.place(std::pow(10, e)) < 0.07) continue;  // too close to 0
    axis.ticks.push_back(
        {axis.place(std::pow(10, e)), e < 3 ? fixed_text(std::pow(10, e), 0) : power_text(e)});
  }
  return axis;
}

chart_axis binned_axis(std::span<const double> edges) {
  const auto bins = static_cast<double>(edges.size() - 1);
  chart_axis axis;
  axis.place = [copy = std::vector<double>(edges.begin(), edges.end()), bins](double x) {
    const auto above = std::ranges::upper_bound(copy, x) - copy.begin();
    if (above == 0) return 0.0;
    if (above == std::ssize(copy)) return 1.0;
    const auto i = static_cast<std::size_t>(above - 1);
    return (static_cast<double>(i) + fraction(x, copy[i], copy[i + 1])) / bins;
  };

  const double low = edges.front(), high = edges.back();
  const double mean_half = high / 2 / bins - low / 2 / bins;
  bool even = true;
  for (std::size_t i = 1; i < edges.size(); ++i)
    even = even && std::abs((edges[i] / 2 - edges[i - 1] / 2) - mean_half) <= 0.01 * mean_half;
  if (even && mean_half > 1e-300 && std::abs(high) < 1e300 && std::abs(low) < 1e300) {
    add_ticks(axis, low, high, round_step(mean_half * bins / 5 * 2));
    return axis;
  }

  // The most telling first: 0, then the far ends, then inwards; each where there still is room.
  std::vector<std::pair<double, std::string>> candidates;
  if (low <= 0 && high >= 0) candidates.emplace_back(0.0, "0");
  const double largest = std::max(std::abs(low), std::abs(high));
  for (int e = largest > 0 ? decade(largest) : 0; e >= -308; --e) {
    const double power = std::pow(10, e);
    if (power <= high && power >= low) candidates.emplace_back(power, power_text(e));
    if (-power >= low && -power <= high)
      candidates.emplace_back(-power, "\xE2\x88\x92" + power_text(e));
  }
  if (candidates.size() < 2) candidates = {{low, number_text(low)}, {high, number_text(high)}};
  constexpr double room = 0.1;
  for (auto& [value, label] : candidates) {
    const double place = axis.place(value);
    const bool free = std::ranges::none_of(
        axis.ticks, [&](const axis_tick& t) { return std::abs(t.place - place) < room; });
    if (free) axis.ticks.push_back({place, std::move(label)});
  }
  std::ranges::sort(axis.ticks, {}, &axis_tick::place);
  return axis;
}

}  // namespace dualsft::cli
