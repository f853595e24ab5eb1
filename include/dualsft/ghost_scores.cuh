// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/ghost_device_workspace.cuh>
#include <dualsft/error.hpp>
#include <dualsft/execution.cuh>
#include <dualsft/views.hpp>
#include <limits>
#include <type_traits>

/// phi_D of traces (traces.hpp) on the device: <g_i, P> of every example of a batch out of what one
/// backward pass leaves behind, without any g_i and without the product A P^T, which is met with E
/// while it is in registers. A model calls add_ghost_scores once for each use of each parameter; a
/// tied head is two traces, whose scores add.
///
/// T is bfloat16, float16 or float, the same for trace and direction. Rows are contiguous and may be
/// any distance apart.
namespace dualsft {

/// As affine_trace: y_t = W a_t (+ b).
template <class T>
struct device_affine_trace {
  matrix_view<const T, device_space> inputs;            ///< a  [T, in]
  matrix_view<const T, device_space> output_gradients;  ///< e  [T, out]
  vector_view<const index_t, device_space> examples;    ///< [T], each in [0, batch)
};

/// As embedding_trace: y_t = E[id_t, :].
template <class T>
struct device_embedding_trace {
  vector_view<const index_t, device_space> ids;         ///< [T], each in [0, vocabulary)
  matrix_view<const T, device_space> output_gradients;  ///< e  [T, width]
  vector_view<const index_t, device_space> examples;    ///< [T], each in [0, batch)
};

/// As scale_trace: y_tc = w_c x_tc.
template <class T>
struct device_scale_trace {
  matrix_view<const T, device_space> inputs;            ///< x  [T, c]
  matrix_view<const T, device_space> output_gradients;  ///< e  [T, c]
  vector_view<const index_t, device_space> examples;    ///< [T], each in [0, batch)
};

/// As dense_trace: rows of g_i themselves.
template <class T>
struct device_dense_trace {
  matrix_view<const T, device_space> gradients;       ///< [T, size of the block]
  vector_view<const index_t, device_space> examples;  ///< [T], each in [0, batch)
};

/// Memory that the scores need on the way, taken once and used by one stream at a time: 8 bytes per
/// token, 16 per example, and 4 per 256 outputs of each of up to 16,384 tokens (at least 256 KiB). It is
/// taken and given back in the order of the stream it was made with: work on another has to be ordered
/// with that one by events. For the device that was current when it was made.
class ghost_workspace {
 public:
  /// \param tokens   the most rows of any trace
  /// \param outputs  the most outputs of any affine trace
  /// \param batch    the most examples, fewer than 2^31
  /// \throws invalid_argument  if one of them is negative, or batch too large
  /// \throws cuda_error        if there is too little memory
  ghost_workspace(const exec::cuda& policy, index_t tokens, index_t outputs, index_t batch)
      : device_(policy, checked(tokens, "tokens"), checked(outputs, "outputs"),
                checked(batch, "batch", 0x7fffffff)) {}

  index_t memory_bytes() const { return device_.memory_bytes(); }

  /// Waits for the stream, and looks whether all ids and examples since the last call were in range.
  /// A token with an id out of range has made its example's score NaN; one with an example out of
  /// range has been left out.
  /// \throws invalid_argument  naming the first such token of its trace
  void check(const exec::cuda& policy) {
    const detail::bad_tokens bad = device_.take_bad(policy);
    expects(bad.id == detail::no_token, "add_ghost_scores", "ids must lie in the vocabulary",
            "first token", bad.id);
    expects(bad.example == detail::no_token, "add_ghost_scores",
            "examples are positions in the batch", "first token", bad.example);
  }

  /// For the algorithms of this library.
  detail::ghost_device& device() { return device_; }

 private:
  static index_t checked(index_t n, const char* name,
                         index_t most = std::numeric_limits<index_t>::max()) {
    expects(n >= 0 && n <= most, "ghost_workspace", "sizes must not be negative, or too large",
            name, n, "most", most);
    return n;
  }

  detail::ghost_device device_;
};

namespace detail {

template <class T>
concept GhostScalar = std::same_as<T, float> || Storage16<T>;

template <class T>
using as_matrix = std::type_identity_t<matrix_view<const T, device_space>>;
template <class T>
using as_vector = std::type_identity_t<vector_view<const T, device_space>>;

template <class T>
bool has_contiguous_rows(const matrix_view<const T, device_space>& view) {
  return view.col_stride() == 1 || view.cols() <= 1;
}

template <class T>
void check_ghost(const matrix_view<const T, device_space>& left,
                 const matrix_view<const T, device_space>& right,
                 const vector_view<const index_t, device_space>& examples,
                 const vector_view<double, device_space>& scores, ghost_workspace& workspace) {
  const char* const function = "add_ghost_scores";
  expects(left.rows() == right.rows() && left.rows() == examples.size(), function,
          "a trace has one example per row", "rows", left.rows(), "gradient rows", right.rows(),
          "examples", examples.size());
  expects(has_contiguous_rows(left) && has_contiguous_rows(right) && examples.contiguous(),
          function, "rows and examples must be contiguous", "column stride", left.col_stride(),
          "gradient column stride", right.col_stride(), "example stride", examples.stride());
  expects(left.rows() <= workspace.device().tokens() && scores.size() <= workspace.device().batch(),
          function, "the workspace is for fewer tokens or examples", "tokens", left.rows(), "batch",
          scores.size());
}

}  // namespace detail

/// scores[i] += sum over the tokens t of example i of e_t . (P_W a_t + P_b)
///
/// \param weight  P_W [out, in]
/// \param bias    P_b [out], or of size 0
/// \param scores  [batch], added to
/// \throws invalid_argument  if shapes do not fit, rows are not contiguous, or the workspace is for less
/// \throws cuda_error        if a launch fails
///
/// Cost: 2 T in out operations of the tensor cores (float: of ordinary arithmetic); A, P and E are
/// read, 4 bytes per token and 256 outputs written. On sm_90a (16-bit types; rows and their
/// distances multiples of 16 bytes) copied and multiplied asynchronously; otherwise by instructions
/// of sm_80. Asynchronous.
/// Numerics: products and their sums over `in` in float, dots with E over 256 outputs in float, all
/// other sums in double.
/// Determinism: equal bits on equal devices, whatever the order of examples.
/// Source: theory.md section 8, strategy 2.
template <detail::GhostScalar T>
void add_ghost_scores(const exec::cuda& policy, const device_affine_trace<T>& trace,
                      detail::as_matrix<T> weight, detail::as_vector<T> bias,
                      vector_view<double, device_space> scores, ghost_workspace& workspace) {
  const char* const function = "add_ghost_scores";
  detail::check_ghost(trace.inputs, trace.output_gradients, trace.examples, scores, workspace);
  expects(weight.cols() == trace.inputs.cols() && weight.rows() == trace.output_gradients.cols(),
          function, "an affine trace must fit its weight [out, in]", "weight rows", weight.rows(),
          "weight columns", weight.cols(), "in", trace.inputs.cols(), "out",
          trace.output_gradients.cols());
  expects(bias.size() == 0 || bias.size() == weight.rows(), function,
          "a bias has one value per output", "bias", bias.size(), "out", weight.rows());
  expects(detail::has_contiguous_rows(weight) && bias.contiguous(), function,
          "rows of the direction must be contiguous", "weight column stride", weight.col_stride(),
          "bias stride", bias.stride());
  expects(workspace.device().takes_outputs(weight.rows()), function,
          "the workspace is for fewer outputs", "out", weight.rows());
  if (trace.inputs.rows() == 0 || weight.rows() == 0) return;
  workspace.device().add_affine(function, policy, trace.inputs, trace.output_gradients,
                                trace.examples, weight, bias.size() > 0 ? bias.data() : nullptr,
                                scores);
}

/// scores[i] += sum over the tokens t of example i of e_t . P[id_t, :]
/// \param table  P [vocabulary, width]
/// \throws as above; what is out of range is seen by ghost_workspace::check
/// Cost: limited by memory: two rows of `width` per token. Asynchronous.
/// Numerics: up to 32 products are summed in float, those sums in double; what a warp found of a row is
/// rounded to float. Determinism as above.
template <detail::GhostScalar T>
void add_ghost_scores(const exec::cuda& policy, const device_embedding_trace<T>& trace,
                      detail::as_matrix<T> table, vector_view<double, device_space> scores,
                      ghost_workspace& workspace) {
  const char* const function = "add_ghost_scores";
  const auto& errors = trace.output_gradients;
  detail::check_ghost(errors, errors, trace.examples, scores, workspace);
  expects(trace.ids.size() == errors.rows() && trace.ids.contiguous(), function,
          "an embedding trace has one id per row", "ids", trace.ids.size(), "rows", errors.rows());
  expects(table.cols() == errors.cols() && detail::has_contiguous_rows(table), function,
          "an embedding trace must fit its table", "table columns", table.cols(), "width",
          errors.cols());
  if (errors.rows() == 0) return;
  workspace.device().add_row_dots(function, policy,
                                  detail::row_dots<T>{.rows = errors.rows(),
                                                      .cols = errors.cols(),
                                                      .left = errors.data(),
                                                      .left_stride = errors.row_stride(),
                                                      .right = table.data(),
                                                      .right_stride = table.row_stride(),
                                                      .ids = trace.ids.data(),
                                                      .choices = table.rows()},
                                  trace.examples, scores);
}

/// scores[i] += sum over the tokens t of example i of sum_c e_tc x_tc P_c
/// \param weight  P [c]
/// \throws as above. Cost: limited by memory: two rows per token. The rest as for embeddings.
template <detail::GhostScalar T>
void add_ghost_scores(const exec::cuda& policy, const device_scale_trace<T>& trace,
                      detail::as_vector<T> weight, vector_view<double, device_space> scores,
                      ghost_workspace& workspace) {
  const char* const function = "add_ghost_scores";
  const auto& [inputs, errors, examples] = trace;
  detail::check_ghost(inputs, errors, examples, scores, workspace);
  expects(inputs.cols() == weight.size() && errors.cols() == weight.size() && weight.contiguous(),
          function, "a scale trace must fit its weight", "weight", weight.size(), "columns",
          inputs.cols(), "gradient columns", errors.cols());
  if (inputs.rows() == 0) return;
  workspace.device().add_row_dots(function, policy,
                                  detail::row_dots<T>{.rows = errors.rows(),
                                                      .cols = errors.cols(),
                                                      .left = errors.data(),
                                                      .left_stride = errors.row_stride(),
                                                      .factors = inputs.data(),
                                                      .factors_stride = inputs.row_stride(),
                                                      .right = weight.data()},
                                  examples, scores);
}

/// scores[i] += sum over the rows t of example i of g_t . P
/// \param block  P [size of the block]
/// \throws as above. Cost: limited by memory: a row per token. The rest as for embeddings.
template <detail::GhostScalar T>
void add_ghost_scores(const exec::cuda& policy, const device_dense_trace<T>& trace,
                      detail::as_vector<T> block, vector_view<double, device_space> scores,
                      ghost_workspace& workspace) {
  const char* const function = "add_ghost_scores";
  const auto& rows = trace.gradients;
  detail::check_ghost(rows, rows, trace.examples, scores, workspace);
  expects(rows.cols() == block.size() && block.contiguous(), function,
          "a dense trace must span its block", "block", block.size(), "columns", rows.cols());
  if (rows.rows() == 0) return;
  workspace.device().add_row_dots(function, policy,
                                  detail::row_dots<T>{.rows = rows.rows(),
                                                      .cols = rows.cols(),
                                                      .left = rows.data(),
                                                      .left_stride = rows.row_stride(),
                                                      .right = block.data()},
                                  trace.examples, scores);
}

}  // namespace dualsft
