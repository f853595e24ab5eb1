// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <dualsft/dense_scores_types.hpp>
#include <dualsft/detail/dense_device.cuh>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/execution.cuh>
#include <type_traits>

/// dense_scores.hpp on a device: both sides of the interaction matrix of an explicit N x d gradient
/// matrix, which is loaded from the device's memory once.
namespace dualsft {

/// Where the scores go; any stride that is not 0.
struct dense_outputs {
  vector_view<double, device_space> data_scores = {};       ///< phi_D [N]
  vector_view<double, device_space> parameter_scores = {};  ///< phi_P [d]
};

/// Memory that dense_scores needs beside the matrix and the scores, and the sums that it finds out
/// for the host. Made once for a shape and a rule, it serves calls one after another.
///
/// Memory: where columns wait for their sums and are read once, 8 N for each of up to 132 clusters of
/// blocks (0.6 MB at 4096 x 1e6); else N d / 32 bytes (joint order N d / 21) and 24 d (130 to 220 MB).
/// Taken and given back on the stream of construction: calls on another come after the one and before the
/// other.
class dense_workspace {
 public:
  /// \param rows, columns  N and d
  /// \throws invalid_argument  if a size is negative or eta is not positive
  /// \throws cuda_error        if there is too little memory
  dense_workspace(const exec::cuda& policy, index_t rows, index_t columns, const score_rule& rule)
      : state_{detail::look_at_device(), {}, {policy, 1}, {}} {
    detail::check_rule("dense_workspace", rule);
    expects(rows >= 0 && columns >= 0, "dense_workspace", "sizes must not be negative", "rows",
            rows, "columns", columns);
    const index_t bytes =
        std::max(detail::plan_dense(state_.device, rule, rows, columns, 4).bytes(),
                 detail::plan_dense(state_.device, rule, rows, columns, 8).bytes());
    state_.memory = {policy, bytes};
  }

  /// What the last dense_scores with this workspace found beside the scores: its conservation law, and
  /// where scores are not finite. The vectors of the result are empty. Waits for the stream.
  /// \throws invalid_argument  if there was none
  dense_result summary(const exec::cuda& policy) const {
    expects(state_.rows >= 0, "dense_workspace::summary", "dense_scores must have been called");
    detail::dense_facts facts;
    detail::cuda_check(cudaMemcpyAsync(&facts, state_.facts.data(), sizeof(facts),
                                       cudaMemcpyDeviceToHost, policy.stream),
                       "dense_workspace::summary");
    detail::cuda_check(cudaStreamSynchronize(policy.stream), "dense_workspace::summary");
    dense_result result;
    detail::finish_dense(state_.rule, state_.rows, state_.columns, facts.rows, facts.columns,
                         result);
    return result;
  }

  index_t memory_bytes() const {
    return static_cast<index_t>(state_.memory.bytes() + state_.facts.bytes());
  }

  /// For the algorithms of this library.
  detail::dense_state& state() { return state_; }

 private:
  detail::dense_state state_;
};

/// Data scores and parameter scores of an explicit gradient matrix on a device.
///
///     phi_D[i] = sum_j M_ij ,  phi_P[j] = sum_i M_ij ,  M_ij = eta g_ij p_j ,  p of projection.hpp;
///     joint order: the Shapley values of the game of examples and parameters together
///
/// \param gradients  g [N, d], float or double; rows are examples, contiguous, any distance apart
/// \param inputs     v, D, HG [d], float or double, any stride; not scanned for NaN
/// \param rule       order, step and eta > 0
/// \param outputs    [N] and [d], overwritten; not overlapping what is read
/// \param workspace  for this shape and order; its summary() has the conservation law, with every
///                   sum_ij |terms| taken (the host takes them only where it must)
/// \throws invalid_argument  if eta is not positive, a vector has another length, rows are not
///                           contiguous, the workspace is too small, or N > 33,553,920 or
///                           d > 2^38
/// \throws cuda_error        if a launch fails
///
/// Cost: limited by memory: every element is loaded once; so it is for diagonal and joint order if
/// the device has clusters of blocks (sm_90 and later) and N <= 16384, else they load it twice. Rows
/// of 16-byte multiples that begin at such are fastest. Asynchronous; allocates nothing.
/// Numerics: float is widened when loaded; every sum is in double.
/// Determinism: bits depend on sizes, on whether rows are aligned to 16 bytes, and on how many blocks
/// the device runs at once; not on the run.
/// Source: as dense_scores.hpp.
template <class T, DenseScalar V = double>
requires DenseScalar<std::remove_const_t<T>>
void dense_scores(const exec::cuda& policy, matrix_view<T, device_space> gradients,
                  const dense_inputs<V, device_space>& inputs, const score_rule& rule,
                  const dense_outputs& outputs, dense_workspace& workspace) {
  using element = std::remove_const_t<T>;
  constexpr const char* function = detail::dense_function;
  const index_t rows = gradients.rows(), columns = gradients.cols();
  detail::check_dense_inputs(function, inputs, rule, columns);
  expects(gradients.col_stride() == 1 || columns <= 1, function,
          "on a device the rows of the matrix must be contiguous", "col_stride",
          gradients.col_stride());
  expects(rows <= index_t{65535} * detail::dense_plan::chunk_rows && columns <= index_t{1} << 38,
          function, "at most 33553920 rows and 2^38 columns on a device", "rows", rows, "columns",
          columns);
  expects(outputs.data_scores.size() == rows, function, "one data score per row", "data_scores",
          outputs.data_scores.size(), "rows", rows);
  expects(outputs.parameter_scores.size() == columns, function, "one parameter score per column",
          "parameter_scores", outputs.parameter_scores.size(), "columns", columns);
  detail::dense_state& state = workspace.state();
  const detail::dense_plan plan =
      detail::plan_dense(state.device, rule, rows, columns, static_cast<index_t>(sizeof(element)));
  expects(plan.bytes() <= state.memory.size(), function,
          "the workspace is for a smaller matrix or another order", "needed", plan.bytes(),
          "workspace", state.memory.size());
  detail::dense_on_device<element>(
      policy, plan, {gradients.data(), rows, columns, gradients.row_stride()},
      detail::vectors_of(rule, inputs), detail::dense_parts(state.memory.data(), plan, columns),
      {outputs.data_scores.data(), outputs.data_scores.stride(), outputs.parameter_scores.data(),
       outputs.parameter_scores.stride(), state.facts.data()});
  state.rule = rule;
  state.rows = rows;
  state.columns = columns;
}

/// The same with memory of its own, and the scores on the host. Waits for the stream.
template <class T, DenseScalar V = double>
requires DenseScalar<std::remove_const_t<T>> dense_result
dense_scores(const exec::cuda& policy, matrix_view<T, device_space> gradients,
             const dense_inputs<V, device_space>& inputs, const score_rule& rule) {
  const detail::device_array<double> rows(policy, gradients.rows());
  const detail::device_array<double> columns(policy, gradients.cols());
  dense_workspace workspace(policy, gradients.rows(), gradients.cols(), rule);
  dense_scores(policy, gradients, inputs, rule, {rows.view(), columns.view()}, workspace);
  dense_result result = workspace.summary(policy);
  result.data_scores = rows.to_host();
  result.parameter_scores = columns.to_host();
  return result;
}

}  // namespace dualsft
