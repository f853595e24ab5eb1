// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What a run folder says, checked and in plain types: docs/run_folder.md in C++. An empty optional
/// is null in a file, or a file that is not there.
namespace dualsft::cli {

struct run_option {
  std::string name;  ///< "--order"
  std::optional<std::string> value;
};

struct run_input {
  std::string option, path, fingerprint;
  index_t bytes = 0;
};

struct run_model {
  std::string family, dtype;
  std::optional<index_t> parameters, layers, width, heads, vocabulary;
};

struct run_settings {
  std::string program;
  std::vector<run_option> options;
  std::vector<run_input> inputs;
  run_model model;

  /// The value of an option; empty where it has none.
  std::string option(std::string_view name) const {
    for (const run_option& each : options)
      if (each.name == name) return each.value.value_or("");
    return {};
  }
};

struct stage_cost {
  std::string name;
  std::optional<double> seconds, tokens_per_second;
  std::optional<index_t> tokens, peak_resident_bytes;
};

/// Scores on both sides of a selection's edge.
struct score_boundary {
  std::optional<double> last;  ///< of the worst that was selected
  std::optional<double> next;  ///< of the best that was not
};

struct certificate {
  std::string statement, side, text;
  std::optional<bool> holds;
  std::optional<double> gap, needed;
};

struct order_agreement {
  std::vector<std::string> orders;  ///< two
  std::optional<double> data_spearman, data_jaccard, parameter_spearman, parameter_jaccard;
};

struct utility_change {
  std::optional<double> predicted, realised;
  std::string selection;  ///< what was measured, in words
};

struct record_counts {
  std::optional<index_t> records, skipped, truncated, validation, anchors, warmup, pool;
};

struct run_summary {
  std::string order, step, strategy;
  std::optional<index_t> threads;
  index_t examples = 0, parameters = 0;           ///< N, d
  index_t data_budget = 0, parameter_budget = 0;  ///< B, K
  std::optional<double> eta, rows_total, columns_total, conservation_gap;
  std::optional<double> parameter_boundary_gap, data_boundary_gap, second_order_share, seconds;
  record_counts counts;
  score_boundary parameter_boundary, data_boundary;
  std::vector<certificate> certificates;
  std::optional<order_agreement> agreement;
  std::optional<utility_change> utility;
  std::optional<double> alignment, diversity;
  std::vector<stage_cost> stages;
  std::optional<double> epoch_seconds, selection_over_epoch;
};

struct training_step {
  index_t step = 0;
  std::optional<double> loss, learning_rate, gradient_norm;
};

struct training_curve {
  std::vector<training_step> steps;
  index_t total = 0;  ///< of the whole training, done or not
};

struct fine_tuning {
  index_t examples = 0, trained_parameters = 0;
  std::optional<index_t> optimizer_state_bytes, dense_optimizer_state_bytes;
  std::vector<stage_cost> stages;
  std::optional<double> validation_loss_before, validation_loss_after;
};

/// One tensor.
struct parameter_block {
  std::string name, module;
  index_t layer = -1;  ///< -1: outside of the layers
  index_t size = 0, selected = 0;
  std::optional<double> mean_magnitude, mean;  ///< of |phi_P|, of phi_P
};

struct binned_counts {
  std::vector<double> edges;    ///< [m + 1], ascending
  std::vector<index_t> counts;  ///< [m]
};

struct parameter_statistics {
  std::vector<parameter_block> blocks;
  std::optional<double> smallest, largest;  ///< of all scores
  binned_counts histogram;
};

struct scored_example {
  index_t record = 0, rank = 0;
  double score = 0;
  std::string prompt, response;
  std::optional<bool> selected;
};

struct example_lists {
  std::vector<scored_example> best, boundary, worst;
};

struct group_share {
  std::string group;
  index_t in_pool = 0, selected = 0;
  std::optional<double> enrichment;
};

/// data_scores.npy, and which of them were selected.
struct data_score_list {
  std::vector<double> scores;
  std::vector<char> selected;  ///< 0 or 1 for each score; empty where that is not known
};

struct recorded_run {
  run_settings settings;
  run_summary summary;
  std::optional<fine_tuning> finetune;
  std::optional<training_curve> warmup_losses, finetune_losses;
  std::optional<parameter_statistics> parameters;
  std::optional<example_lists> examples;
  std::optional<data_score_list> data_scores;
  std::optional<std::vector<group_share>> groups;
  std::vector<std::string> read;    ///< file names, in the order of docs/run_folder.md
  std::vector<std::string> absent;  ///< those that are not there
};

}  // namespace dualsft::cli
