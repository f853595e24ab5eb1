// SPDX-License-Identifier: Apache-2.0
#include "reader.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <dualsft/error.hpp>
#include <dualsft/io/npy_reader.hpp>
#include <dualsft/llm/detail/json_document.hpp>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "../terminal.hpp"
#include "fields.hpp"

namespace dualsft::cli {

namespace {

using fields = report_fields;

// Far above what any run writes, and low enough that the page stays one that a browser opens.
constexpr index_t most_bytes = index_t{1} << 28;
constexpr index_t most_scores = index_t{1} << 27;
constexpr index_t most_options = 1000;
constexpr index_t most_entries = 1000;  // inputs, stages, certificates, examples of a kind
constexpr index_t most_groups = index_t{1} << 20;
constexpr index_t most_blocks = 20000;
constexpr index_t most_bins = 10000;
constexpr index_t most_steps = 1000000;

// ---- one function per object of the format ----------------------------------------------------

std::vector<stage_cost> stages_of(const fields& from) {
  std::vector<stage_cost> out;
  from.objects("stages", most_entries, [&](const fields& stage) {
    out.push_back({.name = stage.text("name"),
                   .seconds = stage.number_or_null("seconds", 0),
                   .tokens_per_second = stage.number_or_null("tokens_per_second", 0),
                   .tokens = stage.count_or_null("tokens"),
                   .peak_resident_bytes = stage.count_or_null("peak_resident_bytes")});
  });
  return out;
}

run_settings settings_of(const fields& from) {
  constexpr index_t version = 1;
  from.count("version", version, version);
  run_settings out;
  out.program = from.text("program");
  from.scalars("options", most_options,
               [&](const std::string& name, std::optional<std::string> value) {
                 out.options.push_back({name, std::move(value)});
               });
  from.objects("inputs", most_entries, [&](const fields& input) {
    out.inputs.push_back({.option = input.text("option"),
                          .path = input.text("path"),
                          .fingerprint = input.text_or_null("fingerprint"),
                          .bytes = input.count("bytes")});
  });
  const fields model = from.object("model");
  out.model = {.family = model.text("family"),
               .dtype = model.text_or_null("dtype"),
               .parameters = model.count_or_null("parameters"),
               .layers = model.count_or_null("layers"),
               .width = model.count_or_null("width"),
               .heads = model.count_or_null("heads"),
               .vocabulary = model.count_or_null("vocabulary")};
  return out;
}

score_boundary boundary_of(const fields& from, std::string_view name) {
  const auto boundary = from.object_or_null(name);
  if (!boundary) return {};
  return {boundary->number_or_null("last"), boundary->number_or_null("next")};
}

certificate certificate_of(const fields& from) {
  return {.statement = from.text("statement"),
          .side = from.text("side"),
          .text = from.text("text"),
          .holds = from.flag_or_null("holds"),
          .gap = from.number_or_null("gap"),
          .needed = from.number_or_null("needed")};
}

std::optional<order_agreement> agreement_of(const std::optional<fields>& from) {
  if (!from) return std::nullopt;
  order_agreement out{.orders = from->texts("orders", 2),
                      .data_spearman = from->number_or_null("data_spearman"),
                      .data_jaccard = from->number_or_null("data_jaccard"),
                      .parameter_spearman = from->number_or_null("parameter_spearman"),
                      .parameter_jaccard = from->number_or_null("parameter_jaccard")};
  if (out.orders.size() != 2)
    from->fail("orders", std::to_string(out.orders.size()) + " elements", "2 elements");
  return out;
}

std::optional<utility_change> utility_of(const std::optional<fields>& from) {
  if (!from) return std::nullopt;
  return utility_change{.predicted = from->number_or_null("predicted"),
                        .realised = from->number_or_null("realised"),
                        .selection = from->text_or_null("selection")};
}

run_summary summary_of(const fields& from) {
  run_summary out;
  out.order = from.text("order");
  out.step = from.text("step");
  out.strategy = from.text_or_null("strategy");
  out.threads = from.count_or_null("threads");
  out.examples = from.count("examples", 1);
  out.parameters = from.count("parameters", 1);
  out.data_budget = from.count("data_budget", 0, out.examples);
  out.parameter_budget = from.count("parameter_budget", 0, out.parameters);
  out.eta = from.number_or_null("eta", 0);
  out.rows_total = from.number_or_null("rows_total");
  out.columns_total = from.number_or_null("columns_total");
  out.conservation_gap = from.number_or_null("conservation_gap", 0);
  out.parameter_boundary_gap = from.number_or_null("parameter_boundary_gap", 0);
  out.data_boundary_gap = from.number_or_null("data_boundary_gap", 0);
  out.second_order_share = from.number_or_null("second_order_share");
  out.seconds = from.number_or_null("seconds", 0);
  const fields counts = from.object("counts");
  out.counts = {.records = counts.count_or_null("records"),
                .skipped = counts.count_or_null("skipped"),
                .truncated = counts.count_or_null("truncated"),
                .validation = counts.count_or_null("validation"),
                .anchors = counts.count_or_null("anchors"),
                .warmup = counts.count_or_null("warmup"),
                .pool = counts.count_or_null("pool")};
  out.parameter_boundary = boundary_of(from, "parameter_boundary");
  out.data_boundary = boundary_of(from, "data_boundary");
  from.objects("certificates", most_entries,
               [&](const fields& each) { out.certificates.push_back(certificate_of(each)); });
  out.agreement = agreement_of(from.object_or_null("agreement"));
  out.utility = utility_of(from.object_or_null("utility"));
  out.alignment = from.number_or_null("alignment");
  out.diversity = from.number_or_null("diversity");
  out.stages = stages_of(from);
  if (const auto cost = from.object_or_null("cost")) {
    out.epoch_seconds = cost->number_or_null("epoch_seconds", 0);
    out.selection_over_epoch = cost->number_or_null("selection_over_epoch", 0);
  }
  return out;
}

fine_tuning fine_tuning_of(const fields& from) {
  return {.examples = from.count("examples"),
          .trained_parameters = from.count("trained_parameters"),
          .optimizer_state_bytes = from.count_or_null("optimizer_state_bytes"),
          .dense_optimizer_state_bytes = from.count_or_null("dense_optimizer_state_bytes"),
          .stages = stages_of(from),
          .validation_loss_before = from.number_or_null("validation_loss_before"),
          .validation_loss_after = from.number_or_null("validation_loss_after")};
}

training_curve curve_of(const fields& from) {
  training_curve out;
  out.total = from.count("total");
  index_t least = 0;
  from.objects("steps", most_steps, [&](const fields& step) {
    out.steps.push_back({.step = step.count("step", least),
                         .loss = step.number_or_null("loss"),
                         .learning_rate = step.number_or_null("learning_rate", 0),
                         .gradient_norm = step.number_or_null("gradient_norm", 0)});
    least = out.steps.back().step + 1;
  });
  return out;
}

parameter_statistics parameters_of(const fields& from, const run_summary& summary) {
  parameter_statistics out;
  index_t size = 0, selected = 0;  // at most 2^53 in each of few terms: no overflow
  std::set<index_t> layers;
  std::set<std::string> modules;
  from.objects("blocks", most_blocks, [&](const fields& block) {
    const index_t coordinates = block.count("size", 0, summary.parameters);
    out.blocks.push_back({.name = block.text("name"),
                          .module = block.text("module"),
                          .layer = block.count("layer", -1),
                          .size = coordinates,
                          .selected = block.count("selected", 0, coordinates),
                          .mean_magnitude = block.number_or_null("mean_magnitude", 0),
                          .mean = block.number_or_null("mean")});
    const parameter_block& last = out.blocks.back();
    layers.insert(last.layer);
    modules.insert(last.module);
    size = std::min(fields::largest, size + last.size);
    selected = std::min(fields::largest, selected + last.selected);
  });
  if (static_cast<index_t>(layers.size() * modules.size()) > most_blocks)
    from.fail(
        "blocks",
        std::to_string(layers.size()) + " layers x " + std::to_string(modules.size()) + " modules",
        "at most " + std::to_string(most_blocks) + " cells");
  if (size != summary.parameters)
    from.fail("blocks", "sizes that add up to " + std::to_string(size),
              std::to_string(summary.parameters) + ", the parameters of summary.json");
  if (selected != summary.parameter_budget)
    from.fail("blocks", "selected counts that add up to " + std::to_string(selected),
              std::to_string(summary.parameter_budget) + ", the parameter_budget of summary.json");

  out.smallest = from.number_or_null("smallest");
  out.largest = from.number_or_null("largest");
  const fields histogram = from.object("histogram");
  out.histogram = {histogram.numbers("edges", most_bins + 1),
                   histogram.counts("counts", most_bins)};
  const auto& [edges, counts] = out.histogram;
  if (counts.empty()) histogram.fail("counts", "0 elements", "at least 1");
  if (edges.size() != counts.size() + 1)
    histogram.fail("edges", std::to_string(edges.size()) + " elements",
                   std::to_string(counts.size() + 1) + ", one more than counts");
  for (std::size_t i = 1; i < edges.size(); ++i)
    if (!(edges[i - 1] < edges[i]))
      histogram.fail("edges[" + std::to_string(i) + "]", "a value not above the one before it",
                     "ascending edges");
  index_t total = 0;
  for (const index_t count : counts) total = std::min(fields::largest, total + count);
  if (total != summary.parameters)
    histogram.fail("counts", "a total of " + std::to_string(total),
                   std::to_string(summary.parameters) + ", the parameters of summary.json");
  return out;
}

enum class side_of_boundary { told, not_told };

std::vector<scored_example> examples_in(const fields& from, std::string_view name,
                                        side_of_boundary side, const run_summary& summary) {
  std::vector<scored_example> out;
  from.objects(name, most_entries, [&](const fields& each) {
    out.push_back({.record = each.count("record"),
                   .rank = each.count("rank", 1, summary.examples),
                   .score = each.number("score"),
                   .prompt = each.text_or_null("prompt"),
                   .response = each.text_or_null("response"),
                   .selected = side == side_of_boundary::told
                                   ? std::optional<bool>(each.flag("selected"))
                                   : std::nullopt});
  });
  return out;
}

example_lists examples_of(const fields& from, const run_summary& summary) {
  return {.best = examples_in(from, "best", side_of_boundary::not_told, summary),
          .boundary = examples_in(from, "boundary", side_of_boundary::told, summary),
          .worst = examples_in(from, "worst", side_of_boundary::not_told, summary)};
}

std::vector<group_share> groups_of(const fields& from) {
  std::vector<group_share> out;
  from.objects("groups", most_groups, [&](const fields& each) {
    const index_t in_pool = each.count("in_pool");
    out.push_back({.group = each.text("group"),
                   .in_pool = in_pool,
                   .selected = each.count("selected", 0, in_pool),
                   .enrichment = each.number_or_null("enrichment", 0)});
  });
  return out;
}

// ---- the files --------------------------------------------------------------------------------

class reader {
 public:
  explicit reader(std::string folder) : folder_(std::move(folder)) {
    std::error_code unknown;
    if (!std::filesystem::is_directory(folder_, unknown))
      throw input_error(folder_, "folder", unknown ? unknown.message() : "no directory",
                        "the output folder of a run");
  }

  recorded_run read() {
    out_.settings = *json_file("settings.json", presence::required, settings_of);
    out_.summary = *json_file("summary.json", presence::required, summary_of);
    const run_summary& summary = out_.summary;
    out_.finetune = json_file("finetune.json", presence::optional, fine_tuning_of);
    out_.warmup_losses = json_file("warmup_losses.json", presence::optional, curve_of);
    out_.finetune_losses = json_file("finetune_losses.json", presence::optional, curve_of);
    out_.parameters = json_file("parameter_statistics.json", presence::optional,
                                [&](const fields& from) { return parameters_of(from, summary); });
    out_.examples = json_file("examples.json", presence::optional,
                              [&](const fields& from) { return examples_of(from, summary); });
    read_data_scores();
    out_.groups = json_file("groups.json", presence::optional, groups_of);
    return std::move(out_);
  }

 private:
  enum class presence { required, optional };

  std::string path(const std::string& name) const { return folder_ + "/" + name; }

  /// Notes the file as read or absent. A link that leads nowhere is there, and fails when opened.
  bool there_is(const std::string& name) {
    stop_if_interrupted();
    std::error_code unknown;
    const bool found = std::filesystem::symlink_status(path(name), unknown).type() !=
                       std::filesystem::file_type::not_found;
    (found ? out_.read : out_.absent).push_back(name);
    return found;
  }

  template <class Read>
  auto json_file(const std::string& name, presence wanted, Read&& read)
      -> std::optional<decltype(read(std::declval<const fields&>()))> {
    if (!there_is(name) && wanted == presence::optional) return std::nullopt;
    const std::string file = path(name);
    const nlohmann::json document =
        llm::detail::parse_document(file, "text", llm::detail::read_text_file(file, most_bytes));
    return read(fields(file, document));
  }

  /// A list of record numbers, checked to be distinct: (record, place in the file), by record.
  std::vector<std::pair<index_t, std::size_t>> records(const std::string& name, index_t length) {
    const auto values = npy_read_vector<std::int64_t>(path(name), {.length = length});
    std::vector<std::pair<index_t, std::size_t>> out;
    out.reserve(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (values[i] < 0)
        throw input_error(path(name), "value " + std::to_string(i), std::to_string(values[i]),
                          "a record number");
      out.emplace_back(values[i], i);
    }
    std::ranges::sort(out);
    for (std::size_t i = 1; i < out.size(); ++i)
      if (out[i].first == out[i - 1].first)
        throw input_error(path(name), "value " + std::to_string(out[i].second),
                          std::to_string(out[i].first) + " a second time", "each record once");
    return out;
  }

  void read_data_scores() {
    const std::string scores = "data_scores.npy", pool = "pool_indices.npy",
                      selected = "selected_examples.npy";
    const run_summary& summary = out_.summary;
    // All three, whatever is missing, so that the page can list them.
    const bool has_scores = there_is(scores), has_pool = there_is(pool),
               has_selected = there_is(selected);
    if (summary.examples > most_scores && (has_scores || has_pool))
      throw input_error(path("summary.json"), "examples", std::to_string(summary.examples),
                        "at most " + std::to_string(most_scores) + " to report on");
    if (has_scores)
      out_.data_scores.emplace().scores =
          npy_read_vector<double>(path(scores), {.length = summary.examples});
    if (!has_pool || !has_selected) return;
    const auto places = records(pool, summary.examples);
    std::vector<char> marks(places.size(), 0);
    for (const auto& [record, i] : records(selected, summary.data_budget)) {
      const auto at = std::ranges::lower_bound(places, std::pair{record, std::size_t{0}});
      if (at == places.end() || at->first != record)
        throw input_error(path(selected), "value " + std::to_string(i), std::to_string(record),
                          "a record of " + pool);
      marks[at->second] = 1;
    }
    if (out_.data_scores) out_.data_scores->selected = std::move(marks);
  }

  std::string folder_;
  recorded_run out_;
};

}  // namespace

recorded_run read_run_folder(const std::string& folder) {
  return reader(folder).read();
}

}  // namespace dualsft::cli
