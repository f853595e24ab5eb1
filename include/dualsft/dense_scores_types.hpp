// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <dualsft/conservation_types.hpp>
#include <dualsft/detail/dense_column.hpp>
#include <dualsft/error.hpp>
#include <dualsft/order.hpp>
#include <dualsft/projection.hpp>
#include <dualsft/views.hpp>
#include <limits>
#include <vector>

/// What goes into and comes out of dense_scores, on every back end.
namespace dualsft {

template <class T>
concept DenseScalar = std::same_as<T, float> || std::same_as<T, double>;

/// The vectors beside the matrix; an empty view where the rule does not need one.
template <DenseScalar V = double, MemorySpace Space = host_space>
struct dense_inputs {
  vector_view<const V, Space> validation = {};        ///< v [d]
  vector_view<const V, Space> curvature = {};         ///< D [d]; > 0 for the AdamW step
  vector_view<const V, Space> hessian_gradient = {};  ///< H G [d], or H (D^-1 G) for the AdamW step
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

namespace detail {

template <class V, class Space>
void check_dense_inputs(const char* function, const dense_inputs<V, Space>& inputs,
                        const score_rule& rule, index_t columns) {
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

/// What the data scores add up to.
struct row_sums {
  score_totals scores;
  index_t non_finite = 0;
  index_t first_non_finite = -1;

  DUALSFT_HOST_DEVICE void add(double score, index_t i) {
    scores.total += score;
    scores.absolute += std::fabs(score);
    if (score - score == 0) return;  // not so of NaN and infinity
    if (non_finite++ == 0) first_non_finite = i;
  }
  DUALSFT_HOST_DEVICE void add(const row_sums& other) {
    scores.total += other.scores.total;
    scores.absolute += other.scores.absolute;
    const bool earlier = first_non_finite < 0 ||
                         (other.first_non_finite >= 0 && other.first_non_finite < first_non_finite);
    if (earlier) first_non_finite = other.first_non_finite;
    non_finite += other.non_finite;
  }
};

/// Everything of the result that follows from the sums of the scores.
inline void finish_dense(const score_rule& rule, index_t rows, index_t columns,
                         const row_sums& row_scores, const column_sums& sums,
                         dense_result& result) {
  result.non_finite = {sums.non_finite, row_scores.non_finite, sums.first_non_finite,
                       row_scores.first_non_finite};
  result.utility_of_everything = sums.everything;
  result.second_order_share =
      share_of_second_order(0.5 * rule.eta * std::sqrt(sums.c_squares), std::sqrt(sums.v_squares));

  conservation_check& law = result.conservation;
  law = check_totals(rule.order, sums.scores, row_scores.scores.total, row_scores.scores.absolute,
                     sums.everything, 0);
  const double allowed =
      allowed_roundings(rows, columns) * std::numeric_limits<double>::epsilon() * sums.terms +
      allowed_underflow(rule, rows, columns);
  law.tolerance = allowed / std::max(sums.scores.absolute, std::numeric_limits<double>::min());
  law.holds = law.gap <= law.tolerance;
}

}  // namespace detail
}  // namespace dualsft
