// SPDX-License-Identifier: Apache-2.0
#include "selection_report.hpp"

#include <dualsft/diagnostics.hpp>
#include <dualsft/io/atomic_file.hpp>
#include <dualsft/llm/records.hpp>

namespace dualsft::cli {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

ordered_json gap_or_null(double gap) {
  return std::isfinite(gap) ? ordered_json(gap) : ordered_json(nullptr);
}

template <class T>
ordered_json or_null(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

/// The first bytes of a text, cut between characters.
std::string beginning(std::string text) {
  constexpr std::size_t most = 2000;
  if (text.size() <= most) return text;
  std::size_t at = most;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  text.resize(at);
  return text + " [...]";
}

/// What the model saw of a record: its tokens, decoded.
ordered_json example_of(const run_data& data, const selection_facts& facts, index_t position,
                        index_t rank, bool selected) {
  const index_t i = data.split.pool[static_cast<std::size_t>(position)];
  const llm::token_record& record = (*data.corpus)[i];
  std::vector<llm::token_id> prompt, response;
  for (std::size_t t = 0; t < record.ids.size(); ++t)
    (record.labels[t] == llm::ignored ? prompt : response).push_back(record.ids[t]);
  return {{"record", data.number(i)},
          {"rank", rank},
          {"score", facts.rows.scores[static_cast<std::size_t>(position)]},
          {"selected", selected},
          {"prompt", beginning(data.folder.tokenizer.decode(prompt))},
          {"response", beginning(data.folder.tokenizer.decode(response))}};
}

void write_examples(const run_folder& folder, const run_data& data, const selection_facts& facts,
                    const pipeline_options& options) {
  constexpr index_t most = 10, around = 5;
  const auto n = static_cast<index_t>(facts.rows.scores.size());
  const auto budget = static_cast<index_t>(facts.subset.indices.size());
  const std::vector<index_t> order =
      select_examples(ranked(facts.rows.scores, options), {.budget = n}).indices;
  const auto piece = [&](index_t first, index_t last) {
    ordered_json list = ordered_json::array();
    for (index_t r = std::max<index_t>(0, first); r < std::min(n, last); ++r)
      list.push_back(
          example_of(data, facts, order[static_cast<std::size_t>(r)], r + 1, r < budget));
    return list;
  };
  folder.write("examples.json", {{"best", piece(0, most)},
                                 {"boundary", piece(budget - around, budget + around)},
                                 {"worst", piece(std::max(most, n - most), n)}});
}

/// selected.jsonl, and groups.json where records name a group.
void write_records(const run_folder& folder, const run_data& data, const pipeline_options& options,
                   const selection_facts& facts) {
  folder.check_input("--train", options.train);
  const llm::record_file file(options.train);
  const auto line = [&](index_t position) {
    const auto& place =
        data.places[static_cast<std::size_t>(data.split.pool[static_cast<std::size_t>(position)])];
    llm::text_record record;
    record.offset = place.offset;
    record.size = place.size;
    return file.line_of(record);
  };
  atomic_file out(folder.file("selected.jsonl"));
  for (const index_t position : facts.subset.indices) {
    out.write(line(position));
    out.write("\n");
  }
  out.commit();

  std::vector<std::string> groups;
  bool named = false;
  for (index_t p = 0; p < static_cast<index_t>(data.split.pool.size()); ++p) {
    const std::string text = line(p);
    std::string group = "(none)";
    if (text.find("\"group\"") != std::string::npos) {
      const json record = json::parse(text, nullptr, false);
      if (const auto found = record.is_object() ? record.find("group") : record.end();
          record.is_object() && found != record.end() && found->is_string()) {
        group = found->get<std::string>();
        named = true;
      }
    }
    groups.push_back(std::move(group));
  }
  if (!named) return;
  ordered_json rows = ordered_json::array();
  for (const group_enrichment& row : enrichment(groups, facts.subset.indices))
    rows.push_back({{"group", row.group},
                    {"in_pool", row.in_pool},
                    {"selected", row.selected},
                    {"enrichment", row.enrichment}});
  folder.write("groups.json", {{"groups", rows}});
}

/// Corollaries 1 and 2: a gap of more than twice the largest difference keeps the selection.
ordered_json certificate(const char* statement, const char* side, double gap, bool by_quotas,
                         const ordered_json& agreement, const char* difference) {
  const std::string what = std::string(side) == "parameters" ? "mask" : "subset";
  ordered_json out{
      {"statement", statement},
      {"side", side},
      {"holds", nullptr},
      {"gap", gap_or_null(gap)},
      {"needed", nullptr},
      {"text", "The " + what +
                   " is that of full order if no score moves by half of the gap or more; "
                   "--compare-full tells."}};
  if (by_quotas) {
    out["text"] = "Quotas choose in stages, and the gap is that of the last: nothing is certified.";
    return out;
  }
  if (!agreement.is_object()) return out;
  const double moved = agreement[difference].get<double>();
  out["holds"] = 2 * moved < gap;
  out["needed"] = 2 * moved;
  out["text"] = "No score moves by more than " + json(moved).dump() +
                " under full order; a gap of more than twice as much certifies the " + what + ".";
  return out;
}

ordered_json cost_of(const run_data& data, const ordered_json& stages) {
  double seconds = 0;
  for (const auto& stage : stages) seconds += stage.at("seconds").get<double>();
  for (const auto& stage : stages) {
    if (stage.at("name") != "warmup" || stage.at("tokens_per_second").get<double>() <= 0) continue;
    const double epoch = static_cast<double>(data.tokens(data.split.pool)) /
                         stage.at("tokens_per_second").get<double>();
    return {{"epoch_seconds", epoch}, {"selection_over_epoch", seconds / epoch}};
  }
  return {{"epoch_seconds", nullptr}, {"selection_over_epoch", nullptr}};
}

}  // namespace

void write_selection_report(const run_folder& folder, const run_data& data,
                            const pipeline_options& options, const parameter_layout& layout,
                            const selection_facts& facts, const ordered_json& stages) {
  write_examples(folder, data, facts, options);
  write_records(folder, data, options, facts);

  ordered_json all = ordered_json::array();
  if (folder.has("warmup_losses.json")) {
    const ordered_json warmup = folder.read("warmup_losses.json");
    if (warmup.contains("cost")) all.push_back(warmup["cost"]);
  }
  for (const auto& stage : stages) all.push_back(stage);
  double seconds = 0;
  for (const auto& stage : all) seconds += stage.at("seconds").get<double>();

  const auto& split = data.split;
  folder.write("summary.json",
               {{"examples", split.pool.size()},
                {"parameters", layout.size()},
                {"order", dualsft::name_of(facts.rule.order)},
                {"step", dualsft::name_of(facts.rule.step)},
                {"eta", facts.rule.eta},
                {"strategy", dualsft::name_of(facts.rows.strategy)},
                {"threads", options.threads},
                {"rows_total", facts.conservation.rows_total},
                {"columns_total", facts.conservation.columns_total},
                {"conservation_gap", facts.conservation.gap},
                {"parameter_budget", facts.mask.selected.size()},
                {"parameter_boundary_gap", gap_or_null(facts.mask.gap)},
                {"parameter_boundary",
                 {{"last", or_null(facts.mask.kth)}, {"next", or_null(facts.mask.next)}}},
                {"data_budget", facts.subset.indices.size()},
                {"data_boundary_gap", gap_or_null(facts.subset.gap)},
                {"data_boundary",
                 {{"last", or_null(facts.subset.kth)}, {"next", or_null(facts.subset.next)}}},
                {"second_order_share", facts.second_order_share},
                {"counts",
                 {{"records", data.records},
                  {"skipped", data.skipped.count()},
                  {"truncated", data.cut_records},
                  {"truncated_tokens", data.cut_tokens},
                  {"validation", split.validation.size()},
                  {"anchors", split.anchors.size()},
                  {"warmup", split.warmup.size()},
                  {"pool", split.pool.size()}}},
                {"certificates",
                 {certificate("Corollary 1", "parameters", facts.mask.gap,
                              options.layer_quota + options.module_quota > 0, facts.agreement,
                              "largest_parameter_difference"),
                  certificate("Corollary 2", "examples", facts.subset.gap, false, facts.agreement,
                              "largest_data_difference")}},
                {"agreement", facts.agreement},
                {"utility",
                 {{"predicted", facts.predicted},
                  {"realised", facts.realised},
                  {"objective", facts.objective},
                  {"selection",
                   "fall of the validation objective when the selected examples' gradients move "
                   "the selected "
                   "parameters by one step of eta"}}},
                {"alignment", facts.alignment},
                {"diversity", facts.diversity},
                {"seconds", seconds},
                {"stages", all},
                {"cost", cost_of(data, all)}});
}

}  // namespace dualsft::cli
