// SPDX-License-Identifier: Apache-2.0
// Curves of warmup and fine-tuning.
#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "chart.hpp"
#include "numbers.hpp"
#include "parts.hpp"
#include "sections.hpp"

namespace dualsft::cli {

namespace {

using points = std::vector<std::pair<double, double>>;

points values_of(const training_curve& curve, std::optional<double> training_step::*quantity) {
  points out;
  for (const training_step& step : curve.steps)
    if (step.*quantity) out.emplace_back(static_cast<double>(step.step), *(step.*quantity));
  return out;
}

/// The mean of the `window` points around each, fewer at the ends.
points running_mean(const points& of, std::size_t window) {
  points out;
  for (std::size_t i = 0; i < of.size(); ++i) {
    const std::size_t reach = std::min({window / 2, i, of.size() - 1 - i});
    double sum = 0;
    for (std::size_t k = i - reach; k <= i + reach; ++k)
      sum += of[k].second / static_cast<double>(2 * reach + 1);
    out.emplace_back(of[i].first, sum);
  }
  return out;
}

struct curve_text {
  std::string id, stage, quantity;
};

void put_curve(markup& page, const curve_text& text, const points& values, index_t steps) {
  if (values.empty()) return;
  std::vector<chart_line> lines{{.style = "line", .points = values}};
  std::string words;
  constexpr std::size_t few = 60;
  if (text.quantity == "loss" && values.size() > few) {
    const std::size_t window = std::min<std::size_t>(values.size() / 20 / 2 * 2 + 1, 201);
    lines.front().style = "line faint";
    lines.push_back({.style = "line", .points = running_mean(values, window)});
    words = "Thin: every step; thick: the mean of " + std::to_string(window) + ". ";
  }
  const auto [low, high] = std::ranges::minmax_element(
      values, [](const auto& a, const auto& b) { return a.second < b.second; });
  const std::string range = low->second == high->second
                                ? number_text(low->second) + " throughout."
                                : "From " + number_text(values.front().second) + " at step " +
                                      count_text(static_cast<index_t>(values.front().first)) +
                                      " to " + number_text(values.back().second) + " at step " +
                                      count_text(static_cast<index_t>(values.back().first)) +
                                      "; lowest " + number_text(low->second) + ", highest " +
                                      number_text(high->second) + ".";
  words += range;
  if (std::ssize(values) < steps)
    words +=
        " Computed in " + count_text(std::ssize(values)) + " of " + count_text(steps) + " steps.";
  const auto figure = page.open("figure");
  draw_lines(page,
             {.id = text.id,
              .title = "The " + text.quantity + " during " + text.stage,
              .description = range,
              .x_label = "step",
              .y_label = text.quantity},
             lines, text.quantity == "learning rate" ? value_scale::linear : value_scale::by_range);
  const auto caption = page.open("figcaption");
  page.put("b", static_cast<char>(text.quantity[0] - 'a' + 'A') + text.quantity.substr(1) + ".");
  page.text(" " + words);
}

void put_curves(markup& page, std::string_view title, const std::string& stage,
                const std::string& id, const std::optional<training_curve>& curve) {
  page.put("h3", title);
  if (!curve) {
    put_absent(page, "The folder holds no " + id + "_losses.json.");
    return;
  }
  const index_t steps = std::ssize(curve->steps);
  const bool ended = steps > 0 && curve->steps.back().step + 1 == curve->total;
  page.put("p", steps == curve->total
                    ? count_text(steps) + (steps == 1 ? " step." : " steps.")
                    : count_text(steps) + " of " + count_text(curve->total) +
                          (ended ? " steps, the last among them." : " steps are recorded."));
  const points losses = values_of(*curve, &training_step::loss);
  if (losses.empty()) put_absent(page, "No step recorded its loss.");
  const auto figures = page.open("div", {{"class", "figures"}});
  put_curve(page, {id + "-loss", stage, "loss"}, losses, steps);
  put_curve(page, {id + "-rate", stage, "learning rate"},
            values_of(*curve, &training_step::learning_rate), steps);
  put_curve(page, {id + "-norm", stage, "gradient norm"},
            values_of(*curve, &training_step::gradient_norm), steps);
}

}  // namespace

void put_training(markup& page, const recorded_run& run) {
  put_curves(page, "Warmup", "warmup", "warmup", run.warmup_losses);
  put_curves(page, "Fine-tuning", "fine-tuning", "finetune", run.finetune_losses);
}

}  // namespace dualsft::cli
