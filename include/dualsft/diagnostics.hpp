// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/concepts.hpp>
#include <dualsft/gradients.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/score_source.hpp>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// What a selection looks like from outside: numbers that a reader of a run wants to see.
///
///     alignment   cos(v_val, mean_{i in S} g_i)                                       (79)
///     diversity   1 - mean over pairs of cos(h_i, h_k), h_i the example's embedding   (80)
///     enrichment  (share of a group among the selected) / (its share in the pool)     (81)
///     heatmap     mean |phi_P| per layer x module, divided by the largest             (82)
///
/// fidelity.hpp compares predicted with realised utility, overlap.hpp has rank correlations.
/// Source: DualSFT Appendix F.8, F.10, F.11; theory.md section 10.
namespace dualsft {

/// Cosine of two vectors; NaN if one of them is zero.
template <class A, class B>
double cosine(std::span<const A> a, std::span<const B> b) {
  expects(a.size() == b.size(), "cosine", "both vectors must have one length", "a", a.size(), "b",
          b.size());
  double dot = 0;
  double aa = 0;
  double bb = 0;
  for (std::size_t j = 0; j < a.size(); ++j) {
    const double x = static_cast<double>(a[j]);
    const double y = static_cast<double>(b[j]);
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  return dot / std::sqrt(aa) / std::sqrt(bb);
}

/// Equation (79). The mean's scale does not matter, so the sum of gradients over S serves.
template <HostPolicy Policy, GradientModel M>
double gradient_alignment(const Policy& policy, const M& model, std::span<const double> validation,
                          example_span selected) {
  const gradient_sums sums = sum_gradients(policy, model, selected);
  return cosine<double, double>(validation, sums.sum);
}

/// Equation (80), over all pairs in O(n w):
///
///     sum over pairs of cosines = (||sum of unit vectors||^2 - n) / 2
///
/// Embeddings of length zero are left out.
/// \return  NaN with fewer than two usable embeddings
template <class M>
requires GradientModel<M> && HasEmbedding<M>
double diversity(const M& model, example_span examples, index_t batch_size = 64) {
  expects(batch_size >= 1, "diversity", "batch_size must be positive", "batch_size", batch_size);
  const index_t width = model.embedding_size();
  std::vector<double> sum(static_cast<std::size_t>(width), 0.0);
  std::vector<double> rows;
  double count = 0;
  const index_t batches = (static_cast<index_t>(examples.size()) + batch_size - 1) / batch_size;
  for (index_t b = 0; b < batches; ++b) {
    const example_span batch = detail::batch_of(examples, batch_size, b);
    rows.assign(batch.size() * sum.size(), 0.0);
    model.embed(batch, matrix_view<double>(rows.data(), static_cast<index_t>(batch.size()), width));
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const double* h = rows.data() + i * sum.size();
      double squares = 0;
      for (std::size_t c = 0; c < sum.size(); ++c) squares += h[c] * h[c];
      if (!(squares > 0)) continue;
      count += 1;
      for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += h[c] / std::sqrt(squares);
    }
  }
  if (count < 2) return std::numeric_limits<double>::quiet_NaN();
  double squares = 0;
  for (const double x : sum) squares += x * x;
  return 1 - (squares - count) / (count * (count - 1));
}

struct group_enrichment {
  std::string group;
  index_t in_pool = 0;
  index_t selected = 0;
  double enrichment = 0;  ///< NaN if nothing is selected at all
};

/// Equation (81) for every group label that occurs in the pool, in alphabetical order.
/// \param pool_groups      [N], label of each pool example
/// \param selected         positions in the pool
inline std::vector<group_enrichment> enrichment(std::span<const std::string> pool_groups,
                                                std::span<const index_t> selected) {
  std::map<std::string, group_enrichment> groups;
  for (const std::string& label : pool_groups) ++groups[label].in_pool;
  for (const index_t i : selected) {
    expects(0 <= i && i < static_cast<index_t>(pool_groups.size()), "enrichment",
            "selected positions must lie in the pool", "position", i, "pool", pool_groups.size());
    ++groups[pool_groups[static_cast<std::size_t>(i)]].selected;
  }
  std::vector<group_enrichment> rows;
  for (auto& [label, row] : groups) {
    row.group = label;
    row.enrichment = (static_cast<double>(row.selected) / static_cast<double>(selected.size())) /
                     (static_cast<double>(row.in_pool) / static_cast<double>(pool_groups.size()));
    rows.push_back(std::move(row));
  }
  return rows;
}

/// Equation (82): one cell per (layer, module) that the layout has.
struct heatmap_cell {
  int layer = -1;
  std::string module;
  index_t coordinates = 0;
  double mean_magnitude = 0;  ///< mean |phi_P|
  double relative = 0;        ///< divided by the largest cell; 0 if all are 0
};

/// Cells in the order of their first block. Cost: one pass over the scores.
template <ScoreSource Source>
std::vector<heatmap_cell> score_heatmap(const parameter_layout& layout, const Source& scores) {
  expects(scores.size() == layout.size(), "score_heatmap", "one score per coordinate", "scores",
          scores.size(), "d", layout.size());
  std::vector<heatmap_cell> cells;
  std::vector<double> buffer(4096);
  for (const parameter_block& block : layout.blocks()) {
    auto cell = std::ranges::find_if(cells, [&](const heatmap_cell& c) {
      return c.layer == block.layer && c.module == block.module;
    });
    if (cell == cells.end()) cell = cells.insert(cells.end(), {block.layer, block.module, 0, 0, 0});
    for (index_t first = 0; first < block.size();) {
      const index_t count = std::min<index_t>(block.size() - first, 4096);
      const std::span<double> piece(buffer.data(), static_cast<std::size_t>(count));
      scores.fill(block.offset + first, piece);
      for (const double s : piece) cell->mean_magnitude += std::abs(s);
      first += count;
    }
    cell->coordinates += block.size();
  }
  double largest = 0;
  for (heatmap_cell& cell : cells) {
    if (cell.coordinates > 0) cell.mean_magnitude /= static_cast<double>(cell.coordinates);
    largest = std::max(largest, cell.mean_magnitude);
  }
  for (heatmap_cell& cell : cells) cell.relative = largest > 0 ? cell.mean_magnitude / largest : 0;
  return cells;
}

}  // namespace dualsft
