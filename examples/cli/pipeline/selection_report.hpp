// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/conservation.hpp>
#include <dualsft/data_scores.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/overlap.hpp>
#include <dualsft/projection.hpp>
#include <dualsft/quota.hpp>
#include <dualsft/subset.hpp>
#include <dualsft/topk.hpp>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "data.hpp"
#include "folder.hpp"

/// What selection says of itself, beside the selection: summary.json, parameter_statistics.json,
/// examples.json, groups.json, selected.jsonl.
namespace dualsft::cli {

struct selection_facts {
  score_rule rule;
  data_score_result rows;
  conservation_check conservation;
  topk_result mask;
  example_selection subset;  ///< positions in the pool
  double second_order_share = 0;
  double predicted = 0, realised = 0, objective = 0;
  double alignment = 0, diversity = 0;
  nlohmann::ordered_json agreement = nullptr;  ///< with full order, when asked for
};

/// Data scores as selection compares them.
inline std::vector<double> ranked(std::vector<double> scores, const pipeline_options& options) {
  if (options.absolute)
    for (double& score : scores) score = std::abs(score);
  return scores;
}

/// {"blocks": [...], "histogram": {...}} of scores that are computed on the fly: two passes.
template <class Source>
void write_parameter_statistics(const run_folder& folder, const parameter_layout& layout,
                                const Source& scores, const index_set& mask) {
  using nlohmann::ordered_json;
  std::vector<double> buffer(1 << 14);
  const auto for_each_piece = [&](const parameter_block& block, auto&& body) {
    for (index_t first = 0; first < block.size();) {
      const auto count =
          std::min<index_t>(block.size() - first, static_cast<index_t>(buffer.size()));
      const std::span<double> piece(buffer.data(), static_cast<std::size_t>(count));
      scores.fill(block.offset + first, piece);
      body(piece);
      first += count;
    }
  };
  ordered_json blocks = ordered_json::array();
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const parameter_block& block : layout.blocks()) {
    double sum = 0, magnitude = 0;
    for_each_piece(block, [&](std::span<const double> piece) {
      for (const double s : piece) {
        sum += s;
        magnitude += std::abs(s);
        low = std::min(low, s);
        high = std::max(high, s);
      }
    });
    const double size = static_cast<double>(std::max<index_t>(1, block.size()));
    blocks.push_back({{"name", block.name},
                      {"layer", block.layer},
                      {"module", block.module},
                      {"size", block.size()},
                      {"selected", mask.within(block.offset, block.offset + block.size()).size()},
                      {"mean_magnitude", magnitude / size},
                      {"mean", sum / size}});
  }
  const double largest = std::max(std::abs(low), std::abs(high));
  // Scores span many decades on both sides of zero: four bins to a decade, down to a millionth of
  // the largest, and one for what is nearer to zero.
  constexpr int decades = 6, per_decade = 4, side = decades * per_decade;
  std::vector<double> edges;
  for (int i = 0; i <= side; ++i)
    edges.push_back(-largest * std::pow(10.0, -static_cast<double>(i) / per_decade));
  for (int i = side; i >= 0; --i) edges.push_back(-edges[static_cast<std::size_t>(i)]);
  std::vector<index_t> counts(edges.size() - 1);
  if (largest > 1e-290) {  // below, the innermost edges would not be normal numbers
    for (const parameter_block& block : layout.blocks())
      for_each_piece(block, [&](std::span<const double> piece) {
        for (const double s : piece) {
          const auto above = std::upper_bound(edges.begin(), edges.end(), s) - edges.begin();
          const auto bin = std::clamp<std::ptrdiff_t>(
              above - 1, 0, static_cast<std::ptrdiff_t>(counts.size()) - 1);
          ++counts[static_cast<std::size_t>(bin)];
        }
      });
  } else {
    edges = {-1, 1};
    counts = {layout.size()};
  }
  folder.write("parameter_statistics.json",
               {{"blocks", blocks},
                {"smallest", low},
                {"largest", high},
                {"histogram", {{"edges", edges}, {"counts", counts}}}});
}

/// How far full-order scores are from the ones that selected, and whether the selection stands.
template <class Policy, class Columns, class FullColumns>
nlohmann::ordered_json full_order_agreement(const Policy& policy, const parameter_layout& layout,
                                            const Columns& columns, const FullColumns& full,
                                            const selection_facts& facts,
                                            const std::vector<double>& full_rows,
                                            const pipeline_options& options) {
  double column_error = 0;
  constexpr index_t chunk = 1 << 14;
  std::vector<double> a(chunk), b(chunk);
  for (index_t first = 0; first < layout.size(); first += chunk) {
    const auto count = static_cast<std::size_t>(std::min(chunk, layout.size() - first));
    columns.fill(first, std::span(a).first(count));
    full.fill(first, std::span(b).first(count));
    for (std::size_t j = 0; j < count; ++j)
      column_error = std::max(column_error, std::abs(a[j] - b[j]));
  }
  double row_error = 0;
  for (std::size_t i = 0; i < full_rows.size(); ++i)
    row_error = std::max(row_error, std::abs(full_rows[i] - facts.rows.scores[i]));
  const topk_result mask =
      topk_with_quotas(policy, full, layout,
                       {.k = facts.mask.selected.size(),
                        .layer_share = options.layer_quota,
                        .module_share = options.module_quota,
                        .by = options.absolute ? topk_by::magnitude : topk_by::value})
          .selection;
  const auto rows = static_cast<index_t>(full_rows.size());
  const example_selection subset = select_examples(
      ranked(full_rows, options), {.budget = static_cast<index_t>(facts.subset.indices.size())});
  return {{"orders", {"diagonal", "full"}},
          {"data_spearman", spearman(vector_view<const double>(facts.rows.scores),
                                     vector_view<const double>(full_rows))},
          {"data_jaccard", jaccard(facts.subset.as_set(rows), subset.as_set(rows))},
          {"parameter_spearman", nullptr},
          {"parameter_jaccard", jaccard(facts.mask.selected, mask.selected)},
          {"largest_parameter_difference", column_error},
          {"largest_data_difference", row_error}};
}

/// All but the statistics; summary.json last.
void write_selection_report(const run_folder& folder, const run_data& data,
                            const pipeline_options& options, const parameter_layout& layout,
                            const selection_facts& facts, const nlohmann::ordered_json& stages);

}  // namespace dualsft::cli
