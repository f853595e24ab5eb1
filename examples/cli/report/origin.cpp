// SPDX-License-Identifier: Apache-2.0
// Where the results come from: every option, the inputs, the model, the files that were read.
#include <string>

#include "parts.hpp"
#include "sections.hpp"

namespace dualsft::cli {

namespace {

void put_options(markup& page, const run_settings& settings) {
  page.put("h3", "Options");
  const table_part table(page, "Every option with the value in force", {"option", "value"});
  for (const run_option& option : settings.options) {
    const auto row = page.open("tr");
    put_row_head(page, option.name);
    const auto cell = page.open("td");
    page.put("code", option.value ? clipped(*option.value, 1000) : std::string(no_value));
  }
}

void put_inputs(markup& page, const run_settings& settings) {
  page.put("h3", "Inputs");
  if (settings.inputs.empty()) {
    put_absent(page, "None is recorded.");
    return;
  }
  const table_part table(page, "Files that the run has read",
                         {"option", "path", "#size", "fingerprint"});
  for (const run_input& input : settings.inputs) {
    const auto row = page.open("tr");
    put_row_head(page, input.option);
    {
      const auto cell = page.open("td");
      page.put("code", clipped(input.path, 1000));
    }
    put_bytes_cell(page, input.bytes);
    const auto cell = page.open("td");
    page.put("code", clipped(input.fingerprint, 200));
  }
}

void put_quantity(markup& page, std::string_view name, std::optional<index_t> x) {
  const auto row = page.open("tr");
  put_row_head(page, name);
  put_count_cell(page, x);
}

void put_model(markup& page, const run_model& model) {
  page.put("h3", "Model");
  const table_part table(page, "The base model", {"quantity", "#value"});
  for (const auto& [name, value] :
       {std::pair<std::string_view, const std::string&>{"family", model.family},
        {"type of the weights", model.dtype}}) {
    const auto row = page.open("tr");
    put_row_head(page, name);
    page.put("td", clipped(value, 100), {{"class", "number"}});
  }
  put_quantity(page, "parameters", model.parameters);
  put_quantity(page, "layers", model.layers);
  put_quantity(page, "width", model.width);
  put_quantity(page, "heads", model.heads);
  put_quantity(page, "vocabulary", model.vocabulary);
}

void put_records(markup& page, const record_counts& counts) {
  page.put("h3", "Records");
  const table_part table(page, "How many records went where", {"part", "#records"});
  put_quantity(page, "in the training file", counts.records);
  put_quantity(page, "skipped as unusable", counts.skipped);
  put_quantity(page, "truncated", counts.truncated);
  put_quantity(page, "validation", counts.validation);
  put_quantity(page, "anchors", counts.anchors);
  put_quantity(page, "warmup", counts.warmup);
  put_quantity(page, "pool", counts.pool);
}

void put_files(markup& page, const recorded_run& run) {
  page.put("h3", "Files of this report");
  const table_part table(page, "What the run folder holds", {"file", "state"});
  for (const std::string& name : run.read) {
    const auto row = page.open("tr");
    put_row_head(page, name);
    page.put("td", "read");
  }
  for (const std::string& name : run.absent) {
    const auto row = page.open("tr");
    put_row_head(page, name);
    page.put("td", "absent");
  }
}

}  // namespace

void put_settings(markup& page, const recorded_run& run) {
  put_options(page, run.settings);
  put_inputs(page, run.settings);
  const auto columns = page.open("div", {{"class", "columns"}});
  {
    const auto part = page.open("div");
    put_model(page, run.settings.model);
  }
  {
    const auto part = page.open("div");
    put_records(page, run.summary.counts);
  }
  const auto part = page.open("div");
  put_files(page, run);
}

}  // namespace dualsft::cli
