// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <dualsft/dense_scores_types.hpp>
#include <dualsft/detail/dense_columns.hpp>
#include <dualsft/detail/dense_reference.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/projection.hpp>
#include <dualsft/views.hpp>
#include <type_traits>
#include <vector>

/// Both sides of the interaction matrix of an explicit N x d gradient matrix, read ONCE.
///
/// The second order needs G_j = sum_i g_ij before it can form p_j, and p_j before any row product,
/// so two matrix products would read the matrix twice. Here a tile of columns is summed and, while
/// it is still in cache, multiplied; at first and full order p is known beforehand and one loaded
/// value serves both sides. A matrix larger than memory goes through dense_stream.hpp.
namespace dualsft {

/// Data scores and parameter scores of an explicit gradient matrix.
///
///     phi_D[i] = sum_j M_ij ,  phi_P[j] = sum_i M_ij ,  M_ij = eta g_ij p_j ,  p of projection.hpp;
///     joint order: the Shapley values of the game of examples and parameters together
///
/// \param policy    exec::reference (the definition, entry by entry) or exec::cpu
/// \param gradients g [N, d], float or double, any strides; rows are examples
/// \param inputs    v, D, HG [d], float or double, any stride; not scanned for NaN
/// \param rule      order, step and eta > 0
/// \return          both score vectors, the conservation law, the share of the second order, and
///                  where scores are not finite (never an exception)
/// \throws invalid_argument  if eta is not positive or a vector the rule needs is not [d]
///
/// Cost (cpu): each element of `gradients` is loaded from memory once (twice if the scores cancel
/// to rounding, to learn the size of what cancelled); N d (4 to 8) flops;
/// 8 N + at most 2 MiB (for N beyond 8000: 256 bytes x N) of scratch per thread.
/// Numerics: float is widened when loaded; every sum is in double.
/// Determinism: bits depend on the thread count (row sums are added in the order of column parts).
/// Source: DualSFT equations (6), (7), (10), (11), Theorem 1; theory.md sections 2 and 3. The
/// paper materialises nothing; one read for both sides, the AdamW step and the joint game are ours.
template <HostPolicy Policy, class T, DenseScalar V = double>
requires DenseScalar<std::remove_const_t<T>> dense_result
dense_scores(const Policy& policy, matrix_view<T> gradients, const dense_inputs<V>& inputs,
             const score_rule& rule);

template <class Policy, class T, class V = double>
requires(!HostPolicy<Policy>) dense_result
    dense_scores(const Policy&, matrix_view<T>, const dense_inputs<V>&, const score_rule&) {
  static_assert(detail::unsupported<Policy>,
                "dualsft::dense_scores: no back end for this execution policy; exec::reference "
                "and exec::cpu run on the host, exec::cuda needs the .cuh header");
  return {};
}

namespace detail {

/// Everything of the result that follows from the scores and the sums over columns.
inline void finish_dense(const score_rule& rule, index_t columns, const column_sums& sums,
                         dense_result& result) {
  row_sums rows;
  for (std::size_t i = 0; i < result.data_scores.size(); ++i)
    rows.add(result.data_scores[i], static_cast<index_t>(i));
  finish_dense(rule, static_cast<index_t>(result.data_scores.size()), columns, rows, sums, result);
}

}  // namespace detail

template <HostPolicy Policy, class T, DenseScalar V>
requires DenseScalar<std::remove_const_t<T>> dense_result
dense_scores(const Policy& policy, matrix_view<T> gradients, const dense_inputs<V>& inputs,
             const score_rule& rule) {
  detail::check_dense_inputs("dense_scores", inputs, rule, gradients.cols());
  const matrix_view<const std::remove_const_t<T>> g = gradients;
  dense_result result;
  result.data_scores.assign(static_cast<std::size_t>(g.rows()), 0.0);
  result.parameter_scores.assign(static_cast<std::size_t>(g.cols()), 0.0);
  const vector_view<double> phi(result.parameter_scores);
  detail::column_sums sums;
  if constexpr (std::same_as<Policy, exec::reference>) {
    detail::reference::dense_scores(g, inputs, rule, result.data_scores, phi, sums);
  } else {
    detail::cpu::dense_columns(policy, g, inputs, rule, 0, result.data_scores, phi, sums);
  }
  detail::finish_dense(rule, g.cols(), sums, result);
  return result;
}

}  // namespace dualsft
