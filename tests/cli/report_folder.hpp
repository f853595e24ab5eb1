// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/io/npy.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <support/scratch_folder.hpp>
#include <utility>
#include <vector>

/// A run folder in memory, small but complete, to change and to write.
struct report_folder {
  using json = nlohmann::json;

  static constexpr std::int64_t examples = 6, budget = 2, parameters = 110, selected = 11;

  json settings, summary, finetune, warmup, finetuning, statistics, lists, groups;
  std::vector<double> scores{0.5, -0.25, 0.125, 2.0, -1.0, 0.0625};
  std::vector<std::int64_t> pool{3, 4, 8, 10, 11, 20}, chosen{10, 3};

  report_folder() {
    settings = {{"version", 1},
                {"program", "dualsft 9.8.7"},
                {"options",
                 {{"--model", "/models/tiny-llama/"},
                  {"--train", "data/train.jsonl"},
                  {"--seed", 42},
                  {"--lambda", 0.2},
                  {"--absolute", false},
                  {"--final-learning-rate", nullptr}}},
                {"inputs",
                 {{{"option", "--train"},
                   {"path", "data/train.jsonl"},
                   {"bytes", 4096},
                   {"fingerprint", "00c0ffee"}}}},
                {"model",
                 {{"family", "llama"},
                  {"parameters", parameters},
                  {"layers", 2},
                  {"width", 8},
                  {"heads", 2},
                  {"vocabulary", 16},
                  {"dtype", "F32"}}}};
    summary = {{"examples", examples},
               {"parameters", parameters},
               {"order", "diagonal"},
               {"step", "sgd"},
               {"strategy", "ghost"},
               {"threads", 2},
               {"eta", 0.0009765625},
               {"rows_total", 1.4375},
               {"columns_total", 1.4374999999999},
               {"conservation_gap", 1.25e-14},
               {"parameter_budget", selected},
               {"parameter_boundary_gap", 0.0078125},
               {"data_budget", budget},
               {"data_boundary_gap", 0.375},
               {"second_order_share", -0.03125},
               {"seconds", 12.5},
               {"counts",
                {{"records", 21},
                 {"skipped", 1},
                 {"truncated", 2},
                 {"validation", 3},
                 {"anchors", 4},
                 {"warmup", 7},
                 {"pool", examples}}},
               {"parameter_boundary", {{"last", 0.03125}, {"next", 0.0234375}}},
               {"data_boundary", {{"last", 0.5}, {"next", 0.125}}},
               {"certificates",
                {{{"statement", "Corollary 1"},
                  {"side", "parameters"},
                  {"holds", true},
                  {"gap", 0.0078125},
                  {"needed", 0.001953125},
                  {"text", "The mask would stay."}},
                 {{"statement", "Corollary 2"},
                  {"side", "examples"},
                  {"holds", nullptr},
                  {"gap", 0.375},
                  {"needed", nullptr},
                  {"text", "Nobody asked."}}}},
               {"agreement",
                {{"orders", {"diagonal", "full"}},
                 {"data_spearman", 0.9375},
                 {"data_jaccard", 0.6875},
                 {"parameter_spearman", nullptr},
                 {"parameter_jaccard", 0.8125}}},
               {"utility",
                {{"predicted", 0.015625},
                 {"realised", 0.013671875},
                 {"selection", "the change by one step"}}},
               {"alignment", 0.71875},
               {"diversity", 0.40625},
               {"stages",
                {{{"name", "pool"},
                  {"seconds", 8.5},
                  {"tokens", 3000},
                  {"tokens_per_second", 352.9},
                  {"peak_resident_bytes", 1048576}},
                 {{"name", "selection"},
                  {"seconds", 0.25},
                  {"tokens", nullptr},
                  {"tokens_per_second", nullptr},
                  {"peak_resident_bytes", 2097152}}}},
               {"cost", {{"epoch_seconds", 9.0}, {"selection_over_epoch", 1.375}}}};
    finetune = {{"examples", budget},
                {"trained_parameters", selected},
                {"optimizer_state_bytes", 132},
                {"dense_optimizer_state_bytes", 880},
                {"stages",
                 {{{"name", "finetune"},
                   {"seconds", 3.25},
                   {"tokens", 900},
                   {"tokens_per_second", 276.9},
                   {"peak_resident_bytes", 524288}}}},
                {"validation_loss_before", 2.5},
                {"validation_loss_after", 2.125}};
    warmup = {{"total", 3}, {"steps", json::array({step(0, 3.5), step(1, nullptr), step(2, 2.5)})}};
    finetuning = {{"total", 2}, {"steps", json::array({step(0, 2.75), step(1, 2.25)})}};
    statistics = {
        {"blocks",
         {block("model.embed_tokens.weight", -1, "embedding", 50, 1, 0.001),
          block("model.layers.0.mlp.up_proj.weight", 0, "mlp.up", 30, 0, 0.002),
          block("model.layers.1.mlp.up_proj.weight", 1, "mlp.up", 30, 10, 0.004)}},
        {"smallest", -0.09},
        {"largest", 0.08},
        {"histogram", {{"edges", {-0.1, -0.01, 0.0, 0.01, 0.1}}, {"counts", {20, 30, 40, 20}}}}};
    lists = {{"best", {example(10, 1, 2.0), example(3, 2, 0.5)}},
             {"boundary", {example(3, 2, 0.5), example(8, 3, 0.125)}},
             {"worst", {example(11, 6, -1.0)}}};
    lists["boundary"][0]["selected"] = true;
    lists["boundary"][1]["selected"] = false;
    groups = {{"groups",
               {{{"group", "sums"}, {"in_pool", 4}, {"selected", 2}, {"enrichment", 1.5}},
                {{"group", "chat"}, {"in_pool", 2}, {"selected", 0}, {"enrichment", 0.0}}}}};
  }

  static json step(int number, const json& loss) {
    return {{"step", number}, {"loss", loss}, {"learning_rate", 2e-5}, {"gradient_norm", 1.5}};
  }
  static json block(const char* name, int layer, const char* module, int size, int chosen_of_it,
                    double magnitude) {
    return {{"name", name},         {"layer", layer},           {"module", module},
            {"size", size},         {"selected", chosen_of_it}, {"mean_magnitude", magnitude},
            {"mean", magnitude / 2}};
  }
  static json example(int record, int rank, double score) {
    return {{"record", record},
            {"rank", rank},
            {"score", score},
            {"prompt", "question " + std::to_string(record)},
            {"response", "answer " + std::to_string(record)}};
  }

  /// Only the two files without which there is no run.
  void write_least(const scratch_folder& to) const {
    to.put("settings.json", settings.dump());
    to.put("summary.json", summary.dump());
  }

  void write(const scratch_folder& to) const {
    write_least(to);
    for (const auto& [name, document] :
         {std::pair<const char*, const json&>{"finetune.json", finetune},
          {"warmup_losses.json", warmup},
          {"finetune_losses.json", finetuning},
          {"parameter_statistics.json", statistics},
          {"examples.json", lists},
          {"groups.json", groups}})
      to.put(name, document.dump());
    dualsft::npy_write(to / "data_scores.npy", scores, {std::ssize(scores)});
    dualsft::npy_write(to / "pool_indices.npy", pool, {std::ssize(pool)});
    dualsft::npy_write(to / "selected_examples.npy", chosen, {std::ssize(chosen)});
  }
};
