// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <dualsft/detail/dense_device.hpp>
#include <dualsft/detail/dense_device_panels.cuh>
#include <dualsft/detail/dense_device_tiles.cuh>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/detail/launch.cuh>

/// dense_scores on a device: the kernels of a plan, one after another.
namespace dualsft::detail {

inline constexpr const char* dense_function = "dense_scores";

/// How many clusters with a panel each the current device runs at once, by their sizes.
inline dense_device_facts look_at_device() {
  dense_device_facts facts;
  for (int k = 0; k < 4; ++k)
    facts.resident[k] = resident_clusters(
        dense_function, sweep_panels<true, true, float>,
        {1, dense_panel_threads, std::max(panel_bytes<float>, panel_bytes<double>), 1U << k});
  return facts;
}

/// Parts of the results, carved out of one array as the plan says.
struct dense_parts {
  double* rows;
  double* columns;
  dense_factors factors;
  column_sums* column_facts;
  row_sums* row_facts;
  double* terms;

  dense_parts(std::byte* memory, const dense_plan& plan, index_t column_count) {
    const auto take = [&](index_t bytes) {
      std::byte* const at = memory;
      memory += bytes;
      return at;
    };
    rows = reinterpret_cast<double*>(take(plan.row_bytes));
    columns = reinterpret_cast<double*>(take(plan.column_bytes));
    auto* const factor = reinterpret_cast<double*>(take(plan.factor_bytes));
    if (plan.factor_bytes > 0) factors = {factor, factor + column_count, factor + 2 * column_count};
    column_facts = reinterpret_cast<column_sums*>(take(plan.column_fact_bytes));
    row_facts = reinterpret_cast<row_sums*>(take(plan.row_fact_bytes));
    terms = reinterpret_cast<double*>(take(plan.term_bytes));
  }
};

/// What a workspace holds.
struct dense_state {
  dense_device_facts device;
  device_array<std::byte> memory;
  device_array<dense_facts> facts;
  score_rule rule;                  ///< of the last call
  index_t rows = -1, columns = -1;  ///< likewise; -1: none yet
};

/// Where the results go.
struct dense_destination {
  double* data_scores;
  index_t data_stride;
  double* parameter_scores;
  index_t parameter_stride;
  dense_facts* facts;
};

/// One part of the work on a matrix of which the elements' type and alignment are known.
template <bool Aligned, class T>
struct dense_launches {
  const exec::cuda& policy;
  const dense_plan& plan;
  const dense_rows<T>& x;
  const dense_vectors& vectors;
  const dense_parts& parts;
  const dense_destination& to;

  template <tile_work Work, bool Quadratic>
  void tiles() const {
    if (plan.tiles == 0 || plan.chunks == 0) return;
    launch(dense_function, policy,
           {dim3(static_cast<unsigned>(plan.tiles), static_cast<unsigned>(plan.chunks)),
            dense_tile_threads},
           sweep_tiles<Work, Quadratic, Aligned, T>, x, vectors, parts.factors, parts.columns,
           parts.rows, parts.terms);
  }

  void columns_of_tiles() const {
    if (x.columns == 0) return;
    launch(dense_function, policy, {static_cast<unsigned>(plan.column_facts), dense_finish_threads},
           finish_columns_of_tiles<dense_finish_threads>, vectors, x.columns, plan.chunks,
           parts.columns, parts.factors, to.parameter_scores, to.parameter_stride,
           parts.column_facts);
  }

  template <bool Quadratic>
  void panels() const {
    const auto blocks = static_cast<unsigned>(plan.clusters * plan.cluster);
    launch(dense_function, policy,
           {blocks, dense_panel_threads, sizeof(panel_memory<T, Quadratic>),
            static_cast<unsigned>(plan.cluster)},
           sweep_panels<Quadratic, Aligned, T>, x, vectors,
           panel_walk{plan.panels, plan.vectors, plan.clusters, plan.cluster}, to.parameter_scores,
           to.parameter_stride, parts.rows, parts.column_facts, parts.terms);
  }

  template <bool Quadratic>
  void waiting() const {
    if (plan.how == dense_plan::way::panels) {
      panels<Quadratic>();
    } else {
      tiles<tile_work::sum, Quadratic>();
      columns_of_tiles();
      tiles<tile_work::multiply, Quadratic>();
    }
  }

  void run() const {
    if (plan.how == dense_plan::way::known) {
      tiles<tile_work::both, false>();
      columns_of_tiles();
    } else if (vectors.rule.order == score_order::joint) {
      waiting<true>();
    } else {
      waiting<false>();
    }
    // Where tiles have no rows, or no columns, nothing has written their terms.
    const index_t terms = x.rows == 0 || x.columns == 0 ? 0 : plan.terms;
    if (x.rows > 0)
      launch(dense_function, policy, {static_cast<unsigned>(plan.row_facts), dense_finish_threads},
             finish_rows<dense_finish_threads>, vectors.rule.eta, x.rows, plan.row_parts,
             parts.rows, to.data_scores, to.data_stride, parts.row_facts);
    launch(dense_function, policy, {1, dense_finish_threads}, finish_facts<dense_finish_threads>,
           parts.column_facts, plan.column_facts, parts.row_facts, plan.row_facts, parts.terms,
           terms, to.facts);
  }
};

template <class T>
void dense_on_device(const exec::cuda& policy, const dense_plan& plan, const dense_rows<T>& x,
                     const dense_vectors& vectors, const dense_parts& parts,
                     const dense_destination& to) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 &&
                       x.stride * static_cast<index_t>(sizeof(T)) % 16 == 0;
  if (aligned)
    dense_launches<true, T>{policy, plan, x, vectors, parts, to}.run();
  else
    dense_launches<false, T>{policy, plan, x, vectors, parts, to}.run();
}

}  // namespace dualsft::detail
