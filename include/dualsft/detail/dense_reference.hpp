// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/detail/dense_columns.hpp>
#include <dualsft/order.hpp>
#include <dualsft/projection.hpp>
#include <dualsft/views.hpp>
#include <span>

namespace dualsft::detail::reference {

/// The definitions of theory.md sections 2 and 3, column by column and entry by entry; shares no
/// arithmetic with the cpu back end.
template <class T, class Inputs>
void dense_scores(matrix_view<const T> g, const Inputs& inputs, const score_rule& rule,
                  std::span<double> data_scores, vector_view<double> phi, column_sums& sums) {
  const double eta = rule.eta;
  for (index_t j = 0; j < g.cols(); ++j) {
    double sum = 0, squares = 0, magnitudes = 0;
    for (index_t i = 0; i < g.rows(); ++i) {
      const auto x = static_cast<double>(g(i, j));
      sum += x;
      squares += x * x;
      magnitudes += std::abs(x);
    }
    // The AdamW step: P = D, and in the joint game P^-1 v for v, P^-2 D for D.
    const bool adamw = rule.step == step_geometry::adamw;
    const auto v = static_cast<double>(inputs.validation[j]);
    const double d = needs_curvature(rule) ? static_cast<double>(inputs.curvature[j]) : 0.0;
    const double precondition = adamw ? d : 1.0;
    double c = 0;
    if (rule.order == score_order::diagonal || rule.order == score_order::joint)
      c = d * (sum / precondition);
    if (rule.order == score_order::full) c = static_cast<double>(inputs.hessian_gradient[j]);
    const double p = (v - eta / 2 * c) / precondition;
    const double v_joint = v / precondition;
    const double d_joint = d / (precondition * precondition);

    double score = 0;
    for (index_t i = 0; i < g.rows(); ++i) {
      const auto x = static_cast<double>(g(i, j));
      double& row = data_scores[static_cast<std::size_t>(i)];
      if (rule.order == score_order::joint) {
        row += eta / 2 * x * v_joint - eta * eta / 4 * d_joint * x * x -
               eta * eta / 3 * d_joint * x * (sum - x);
      } else {
        score += eta * x * p;
        row += eta * x * p;
      }
    }
    if (rule.order == score_order::joint)
      score = eta / 2 * v_joint * sum - eta * eta / 4 * d_joint * squares -
              eta * eta / 6 * d_joint * (sum * sum - squares);
    phi[j] = score;

    const bool joint = rule.order == score_order::joint;
    sums.everything +=
        joint ? eta * v_joint * sum - eta * eta / 2 * d_joint * sum * sum : eta * sum * p;
    sums.terms +=
        joint ? eta * magnitudes * (std::abs(v_joint) + eta * std::abs(d_joint) * magnitudes)
              : eta * magnitudes * std::abs(p);
    sums.scores.total += score;
    sums.scores.absolute += std::abs(score);
    sums.v_squares += v * v;
    sums.c_squares += c * c;
    if (!std::isfinite(score) && sums.non_finite++ == 0) sums.first_non_finite = j;
  }
}

}  // namespace dualsft::detail::reference
