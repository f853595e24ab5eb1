// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/dense_scores_types.hpp>
#include <dualsft/detail/dense_column.hpp>
#include <dualsft/projection.hpp>
#include <utility>

/// dense_scores on a device: how the work is cut, and the arithmetic between the kernels' sums.
namespace dualsft::detail {

/// A matrix whose rows are contiguous.
template <class T>
struct dense_rows {
  const T* data;
  index_t rows;
  index_t columns;
  index_t stride;  ///< from row to row
};

/// A vector of floats or doubles as kernels read it; one that is not there has one value everywhere.
struct dense_vector {
  const void* data = nullptr;
  index_t stride = 1;
  bool is_double = false;
  double otherwise = 0;

  DUALSFT_HOST_DEVICE double operator[](index_t j) const {
    if (data == nullptr) return otherwise;
    return is_double ? static_cast<const double*>(data)[j * stride]
                     : static_cast<double>(static_cast<const float*>(data)[j * stride]);
  }
};

struct dense_vectors {
  score_rule rule;
  dense_vector v, d, hg;
};

/// What the rule reads of the inputs.
template <class V, class Space>
dense_vectors vectors_of(const score_rule& rule, const dense_inputs<V, Space>& inputs) {
  const auto of = [](const auto& view, bool needed, double otherwise) {
    return dense_vector{needed ? view.data() : nullptr, view.stride(), std::same_as<V, double>,
                        otherwise};
  };
  return {rule, of(inputs.validation, true, 0), of(inputs.curvature, needs_curvature(rule), 1),
          of(inputs.hessian_gradient, needs_hessian_gradient(rule), 0)};
}

/// What the rows of a column are multiplied with, its score, and what its terms weigh.
struct finished_column {
  double a = 0;
  double b = 0;  ///< 0 unless joint
  double weight = 0;
  double score = 0;
};

/// \param sums  of other columns; this one is added
DUALSFT_HOST_DEVICE inline finished_column finish_device_column(const score_rule& rule, double v,
                                                                double d, double hg, double g,
                                                                double q, index_t j,
                                                                column_sums& sums) {
  const projected at = project_coordinate(rule, v, g, d, hg);
  const column_factors factors = finish_column(rule, at, v, g, q, j, sums);
  const term_weights weights = weigh_terms(rule, at, g);
  if (rule.order == score_order::joint) sums.terms += weights.of_squares * q;
  return {factors.a, factors.b, weights.of_magnitudes, factors.score};
}

/// Of the device that the work is cut for.
struct dense_device_facts {
  /// How many clusters of 1, 2, 4, 8 blocks with a panel each run at once; 0: none can.
  int resident[4] = {};
};

/// How the work is cut: by sizes and by the device alone, so that two runs add in one order.
struct dense_plan {
  enum class way {
    known,     ///< p is known beforehand: one loaded element serves sum and product
    panels,    ///< columns wait in shared memory for their sum
    two_reads  ///< the matrix is summed, then read again
  };
  way how = way::known;

  // known, two_reads: tiles of columns by chunks of rows
  static constexpr index_t chunk_rows = 512;
  static constexpr index_t tile_bytes = 4096;  ///< of a row
  index_t tiles = 0;
  index_t chunks = 0;

  // panels: see dense_device_panels.cuh
  int cluster = 0;   ///< blocks that share a panel
  int vectors = 0;   ///< of 16 bytes in a row of a panel
  int clusters = 0;  ///< each takes every `clusters`-th panel
  index_t panels = 0;

  // what the parts are kept in, in this order; bytes
  index_t row_parts = 0;  ///< sums over a part of the columns [row_parts, N]
  index_t row_bytes = 0;
  index_t column_bytes = 0;  ///< sums over a chunk of rows [1 or 2 (with squares), chunks, d]
  index_t factor_bytes = 0;  ///< a, b, weights [3, d]
  index_t column_facts = 0, column_fact_bytes = 0;
  index_t row_facts = 0, row_fact_bytes = 0;
  index_t terms = 0, term_bytes = 0;
  index_t bytes() const {
    return row_bytes + column_bytes + factor_bytes + column_fact_bytes + row_fact_bytes +
           term_bytes;
  }
};

inline constexpr int dense_slots_per_panel = 16;  // a thread's rows of a panel
inline constexpr int dense_panel_threads = 512;
inline constexpr int dense_finish_threads = 256;
inline constexpr int dense_finish_rows = 32;

/// The narrowest rows of a panel are one DRAM burst of 64 bytes, so 16384 rows are the most.
inline bool choose_panels(const dense_device_facts& device, index_t rows, index_t columns,
                          index_t element_bytes, dense_plan& plan) {
  for (const auto& [cluster, vectors] : {std::pair{1, 16}, std::pair{2, 16}, std::pair{4, 16},
                                         std::pair{8, 16}, std::pair{8, 8}, std::pair{8, 4}}) {
    const index_t most = index_t{dense_slots_per_panel} * cluster * (dense_panel_threads / vectors);
    const int resident = device.resident[cluster == 8 ? 3 : cluster / 2];
    if (rows > most || resident == 0) continue;
    const index_t width = index_t{vectors} * 16 / element_bytes;
    plan.cluster = cluster;
    plan.vectors = vectors;
    plan.panels = (columns + width - 1) / width;
    plan.clusters = static_cast<int>(std::min<index_t>(resident, plan.panels));
    return true;
  }
  return false;
}

inline dense_plan plan_dense(const dense_device_facts& device, const score_rule& rule, index_t rows,
                             index_t columns, index_t element_bytes) {
  dense_plan plan;
  const auto ceil = [](index_t a, index_t b) { return (a + b - 1) / b; };
  const auto pad = [](index_t bytes) { return (bytes + 255) / 256 * 256; };
  constexpr auto word = static_cast<index_t>(sizeof(double));
  const bool waits = rule.order == score_order::diagonal || rule.order == score_order::joint;
  if (!waits)
    plan.how = dense_plan::way::known;
  else if (rows > 0 && columns > 0 && choose_panels(device, rows, columns, element_bytes, plan))
    plan.how = dense_plan::way::panels;
  else
    plan.how = dense_plan::way::two_reads;

  if (plan.how == dense_plan::way::panels) {
    plan.row_parts = plan.clusters;
    plan.column_facts = plan.clusters;
    plan.terms = index_t{plan.clusters} * plan.cluster;
  } else {
    plan.tiles = ceil(columns * element_bytes, dense_plan::tile_bytes);
    plan.chunks = ceil(rows, dense_plan::chunk_rows);
    plan.row_parts = plan.tiles;
    plan.column_facts = ceil(columns, dense_finish_threads);
    plan.terms = plan.tiles * plan.chunks;
    const index_t kinds = rule.order == score_order::joint ? 2 : 1;
    plan.column_bytes = pad(kinds * plan.chunks * columns * word);
    if (plan.how == dense_plan::way::two_reads) plan.factor_bytes = pad(3 * columns * word);
  }
  plan.row_facts = ceil(rows, dense_finish_rows);
  plan.row_bytes = pad(plan.row_parts * rows * word);
  plan.column_fact_bytes = pad(plan.column_facts * static_cast<index_t>(sizeof(column_sums)));
  plan.row_fact_bytes = pad(plan.row_facts * static_cast<index_t>(sizeof(row_sums)));
  plan.term_bytes = pad(plan.terms * word);
  return plan;
}

/// What the host is told in the end.
struct dense_facts {
  column_sums columns;
  row_sums rows;
};

}  // namespace dualsft::detail
