// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <dualsft/conservation.hpp>
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

template <class T>
concept DenseScalar = std::same_as<T, float> || std::same_as<T, double>;

/// The vectors beside the matrix; an empty view where the rule does not need one.
template <DenseScalar V = double>
struct dense_inputs {
  vector_view<const V> validation = {};        ///< v [d]
  vector_view<const V> curvature = {};         ///< D [d]; > 0 for the AdamW step
  vector_view<const V> hessian_gradient = {};  ///< H G [d], or H (D^-1 G) for the AdamW step
};

/// Where NaN or infinity came out. A column is the finer witness: a data score is a sum over all
/// columns, so one bad coordinate of v spoils every row but only its own column.
struct non_finite_scores {
  index_t columns = 0;        ///< how many parameter scores
  index_t rows = 0;           ///< how many data scores
  index_t first_column = -1;  ///< -1: none
  index_t first_row = -1;
};

struct dense_result {
  std::vector<double> data_scores;       ///< phi_D [N]
  std::vector<double> parameter_scores;  ///< phi_P [d]; empty if they went to the caller's memory
  /// The law. The difference that it tolerates is what rounding alone can do: (N + d) eps
  /// sum_ij |terms|, and the smallest double per product where products underflow; `tolerance` is
  /// that over sum |phi_P|, as `gap` is.
  conservation_check conservation;
  double utility_of_everything = 0;  ///< U_2 (joint: U) of taking all examples and parameters
  double second_order_share = 0;     ///< ||(eta/2) C|| / ||v||; 0 if C is 0
  non_finite_scores non_finite;
};

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

template <class V>
void check_dense_inputs(const char* function, const dense_inputs<V>& inputs, const score_rule& rule,
                        index_t columns) {
  check_rule(function, rule);
  expects(inputs.validation.size() == columns, function, "v must have one value per column", "v",
          inputs.validation.size(), "columns", columns);
  expects(!needs_curvature(rule) || inputs.curvature.size() == columns, function,
          "this order and step need a curvature D with one value per column", "order",
          name_of(rule.order), "step", name_of(rule.step), "D", inputs.curvature.size(), "columns",
          columns);
  expects(!needs_hessian_gradient(rule) || inputs.hessian_gradient.size() == columns, function,
          "full order needs H G with one value per column", "HG", inputs.hessian_gradient.size(),
          "columns", columns);
}

/// Everything of the result that follows from the scores and the sums over columns.
inline void finish_dense(const score_rule& rule, index_t columns, const column_sums& sums,
                         dense_result& result) {
  score_totals rows;
  for (std::size_t i = 0; i < result.data_scores.size(); ++i) {
    const double score = result.data_scores[i];
    rows.total += score;
    rows.absolute += std::abs(score);
    if (std::isfinite(score)) continue;
    if (result.non_finite.rows++ == 0) result.non_finite.first_row = static_cast<index_t>(i);
  }
  result.non_finite.columns = sums.non_finite;
  result.non_finite.first_column = sums.first_non_finite;
  result.utility_of_everything = sums.everything;
  result.second_order_share =
      share_of_second_order(0.5 * rule.eta * std::sqrt(sums.c_squares), std::sqrt(sums.v_squares));

  conservation_check& law = result.conservation;
  law = check_totals(rule.order, sums.scores, rows.total, rows.absolute, sums.everything, 0);
  const auto rows_count = static_cast<index_t>(result.data_scores.size());
  const double allowed =
      allowed_roundings(rows_count, columns) * std::numeric_limits<double>::epsilon() * sums.terms +
      allowed_underflow(rule, rows_count, columns);
  law.tolerance = allowed / std::max(sums.scores.absolute, std::numeric_limits<double>::min());
  law.holds = law.gap <= law.tolerance;
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
