// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <dualsft/views.hpp>
#include <span>

/// What a model reveals of one backward pass so that <g_i, p> of every example comes out of it
/// without any g_i: for each use of each parameter, the factors whose products are the gradient.
///
/// T tokens (rows) of a batch of B examples; examples[t] in [0, B) is the position in the batch of
/// the example that row t belongs to; e_t is the gradient of that example's own loss l_i with
/// respect to the output of row t. All rows of one trace refer to one block. A parameter that is
/// used several times (a tied weight, a recurrent cell) gives one trace per use; their products
/// add. The views are valid until the sink returns.
///
/// Source: theory.md section 8, strategy 2; covers every parameter, not linear weights alone.
namespace dualsft {

/// y_t = W a_t (+ b), W stored [out, in]:   <g_i, P> = sum_{t in i} e_t^T P_W a_t + e_t . P_b.
/// For a weight stored [in, out], exchange inputs and output_gradients and leave the bias to a
/// dense_trace or to a scale_trace with inputs of one.
template <class S>
struct affine_trace {
  index_t weight = -1;                    ///< block number of W
  index_t bias = -1;                      ///< block number of b [out], or -1
  matrix_view<const S> inputs;            ///< a  [T, in]
  matrix_view<const S> output_gradients;  ///< e  [T, out]
  std::span<const index_t> examples;      ///< [T]
};

/// y_t = E[id_t, :], E stored [vocabulary, width]:   <g_i, P> = sum_{t in i} e_t . P_E[id_t, :].
template <class S>
struct embedding_trace {
  index_t weight = -1;
  std::span<const index_t> ids;           ///< [T], each in [0, vocabulary)
  matrix_view<const S> output_gradients;  ///< e  [T, width]
  std::span<const index_t> examples;      ///< [T]
};

/// y_tc = w_c * x_tc (norm weights):   <g_i, P> = sum_{t in i} sum_c e_tc x_tc P_c.
template <class S>
struct scale_trace {
  index_t weight = -1;
  matrix_view<const S> inputs;            ///< x  [T, c]
  matrix_view<const S> output_gradients;  ///< e  [T, c]
  std::span<const index_t> examples;      ///< [T]
};

/// Anything else: the rows of g_i themselves, restricted to one block.
template <class S>
struct dense_trace {
  index_t block = -1;
  matrix_view<const S> gradients;     ///< [T, size of the block]
  std::span<const index_t> examples;  ///< [T]
};

}  // namespace dualsft
