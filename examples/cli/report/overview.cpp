// SPDX-License-Identifier: Apache-2.0
// The first page: main numbers, and what the run cost.
#include <algorithm>
#include <string>
#include <vector>

#include "chart.hpp"
#include "numbers.hpp"
#include "parts.hpp"
#include "sections.hpp"

namespace dualsft::cli {

namespace {

/// A number with its name above and a remark below.
template <class Value, class Remark>
void put_tile(markup& page, std::string_view name, Value&& value, Remark&& remark) {
  const auto tile = page.open("div", {{"class", "tile"}});
  page.put("dt", name);
  {
    const auto big = page.open("dd", {{"class", "big"}});
    value();
  }
  const auto small = page.open("dd");
  remark();
}

void put_ratio(markup& page, double part, double whole, std::string_view of) {
  if (whole > 0) put_share(page, part / whole);
  page.text(of);
}

void put_budget_tile(markup& page, std::string_view name, index_t selected, index_t all) {
  put_tile(
      page, name,
      [&] {
        put_count(page, selected);
        page.text(" of ");
        put_count(page, all);
      },
      [&] { put_ratio(page, static_cast<double>(selected), static_cast<double>(all), ""); });
}

void put_number_tile(markup& page, std::string_view name, std::optional<double> x,
                     std::string_view remark) {
  put_tile(
      page, name, [&] { put_number(page, x); }, [&] { page.text(remark); });
}

std::string_view gap_remark(const std::optional<double>& gap, index_t selected, index_t all) {
  if (gap) return "score of the last selected less the first not selected";
  return selected == all ? "everything is selected" : "not recorded";
}

void put_cost_tile(markup& page, const run_summary& summary) {
  put_tile(
      page, "Cost of selection",
      [&] {
        put_number(page, summary.selection_over_epoch);
        if (summary.selection_over_epoch) page.text("\xC2\xA0\xC3\x97");
      },
      [&] {
        page.text("one epoch over the pool");
        if (!summary.epoch_seconds) return;
        page.text(", which takes ");
        put_seconds(page, summary.epoch_seconds);
      });
}

void put_fine_tuning_tiles(markup& page, const fine_tuning& tuning) {
  put_tile(
      page, "Optimizer state", [&] { put_bytes(page, tuning.optimizer_state_bytes); },
      [&] {
        if (!tuning.dense_optimizer_state_bytes) return;
        page.text("against ");
        put_bytes(page, tuning.dense_optimizer_state_bytes);
        page.text(" dense");
        if (!tuning.optimizer_state_bytes || *tuning.dense_optimizer_state_bytes == 0) return;
        page.text(" (");
        put_ratio(page, static_cast<double>(*tuning.optimizer_state_bytes),
                  static_cast<double>(*tuning.dense_optimizer_state_bytes), ")");
      });
  put_tile(
      page, "Validation loss",
      [&] {
        put_number(page, tuning.validation_loss_before);
        page.text(" \xE2\x86\x92 ");
        put_number(page, tuning.validation_loss_after);
      },
      [&] {
        page.text("before and after fine-tuning");
        if (!tuning.validation_loss_before || !tuning.validation_loss_after ||
            *tuning.validation_loss_before == 0)
          return;
        page.text(": ");
        const double change = *tuning.validation_loss_after / *tuning.validation_loss_before - 1;
        if (change > 0) page.text("+");
        put_share(page, change);
      });
}

}  // namespace

void put_summary(markup& page, const recorded_run& run) {
  const run_summary& summary = run.summary;
  {
    const auto tiles = page.open("dl", {{"class", "tiles"}});
    put_budget_tile(page, "Selected examples", summary.data_budget, summary.examples);
    put_budget_tile(page, "Selected parameters", summary.parameter_budget, summary.parameters);
    put_number_tile(page, "Boundary gap, examples", summary.data_boundary_gap,
                    gap_remark(summary.data_boundary_gap, summary.data_budget, summary.examples));
    put_number_tile(
        page, "Boundary gap, parameters", summary.parameter_boundary_gap,
        gap_remark(summary.parameter_boundary_gap, summary.parameter_budget, summary.parameters));
    put_number_tile(page, "Conservation gap", summary.conservation_gap,
                    "relative; 0 up to rounding where the law holds");
    put_cost_tile(page, summary);
    if (run.finetune) put_fine_tuning_tiles(page, *run.finetune);
  }
  if (!run.finetune)
    put_absent(page, "Fine-tuning has not been run: the folder holds no finetune.json.");
}

void put_resources(markup& page, const recorded_run& run) {
  std::vector<stage_cost> stages = run.summary.stages;
  if (run.finetune)
    stages.insert(stages.end(), run.finetune->stages.begin(), run.finetune->stages.end());
  if (stages.empty()) {
    put_absent(page, "No stage recorded what it cost.");
    return;
  }
  double total = 0, longest = 0;
  index_t peak = 0;
  for (const stage_cost& stage : stages) {
    total += stage.seconds.value_or(0);
    longest = std::max(longest, stage.seconds.value_or(0));
    peak = std::max(peak, stage.peak_resident_bytes.value_or(0));
  }
  const table_part table(
      page, "What each stage took, in the order in which they ran",
      {"stage", "#time", "share of the longest", "#tokens", "#tokens/s", "#peak memory"});
  for (const stage_cost& stage : stages) {
    const auto row = page.open("tr");
    put_row_head(page, stage.name);
    put_seconds_cell(page, stage.seconds);
    {
      const auto cell = page.open("td", {{"class", "bar-column"}});
      if (longest > 0) draw_bar(page, stage.seconds.value_or(0) / longest);
    }
    put_count_cell(page, stage.tokens);
    put_number_cell(page, stage.tokens_per_second);
    put_bytes_cell(page, stage.peak_resident_bytes);
  }
  const auto row = page.open("tr", {{"class", "total"}});
  put_row_head(page, "all stages");
  put_seconds_cell(page, total);
  page.put("td", "");
  page.put("td", "");
  page.put("td", "");
  put_bytes_cell(page, peak > 0 ? std::optional<index_t>(peak) : std::nullopt);
}

}  // namespace dualsft::cli
