// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/error.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/order.hpp>
#include <dualsft/views.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// The one vector that turns gradients into scores.
///
/// With v = grad J, G = sum_i g_i, D the curvature proxy and eta the step size,
///
///     plain step    p = v - (eta/2) C(G)                    C(x) = 0 | D.*x | H x
///     AdamW step    p = P^-1 .* (v - (eta/2) C(P^-1 G))     P = D
///     parameter score   phi_P[j] = eta G_j p_j
///     data score        phi_D[i] = eta <g_i, p>
///
/// for orders first, diagonal, full. The joint order (players = examples and parameters together)
/// puts v' = v, D' = D for the plain step and v' = v ./ D, D' = 1 ./ D for the AdamW step, and
///
///     p = v'/2 - (eta/3) D'.*G
///     phi_P[j] = eta G_j (p_j + (eta/6) D'_j G_j) - (eta^2/12) D'_j Q_j       Q_j = sum_i g_ij^2
///     phi_D[i] = eta <g_i, p> + (eta^2/12) sum_j D'_j g_ij^2
///
/// which is theory.md section 3 with terms collected.
///
/// Shapes: v, G, D, H G, Q, p are [d]. Units: v and g in loss per parameter; eta D must be
/// dimensionless against 1, so eta carries the learning rate (eta = learning rate / N, N examples
/// summed in G). Cost: one pass over the inputs. Numerics: double per coordinate; p is stored in
/// the model's scalar, and both score sides use the stored p, so its rounding cannot break
/// conservation. Source: DualSFT equations (6), (7), (10), (11), Theorem 1; the AdamW geometry and
/// the joint game are this library's.
namespace dualsft {

struct score_rule {
  score_order order = score_order::diagonal;
  step_geometry step = step_geometry::plain;
  double eta = 0;  ///< local step size, > 0
};

/// What a rule reads besides v and G.
DUALSFT_HOST_DEVICE constexpr bool needs_curvature(const score_rule& rule) {
  return rule.order == score_order::diagonal || rule.order == score_order::joint ||
         rule.step == step_geometry::adamw;
}
DUALSFT_HOST_DEVICE constexpr bool needs_hessian_gradient(const score_rule& rule) {
  return rule.order == score_order::full;
}
DUALSFT_HOST_DEVICE constexpr bool needs_squares(const score_rule& rule) {
  return rule.order == score_order::joint;
}

namespace detail {

/// One coordinate of the rule: the projected value, C (to report its share) and D'.
struct projected {
  double p;
  double second_order;  ///< C_j, in the units of v
  double curvature;     ///< D'_j (joint order)
};

DUALSFT_HOST_DEVICE inline projected project_coordinate(const score_rule& rule, double v,
                                                        double gradient, double curvature,
                                                        double hessian_gradient) {
  const bool preconditioned = rule.step == step_geometry::adamw;
  const double inverse = preconditioned ? 1.0 / curvature : 1.0;
  switch (rule.order) {
    case score_order::first:
      return {inverse * v, 0, 0};
    case score_order::full:
      return {inverse * (v - 0.5 * rule.eta * hessian_gradient), hessian_gradient, 0};
    case score_order::joint: {
      const double effective = inverse * inverse * curvature;
      return {0.5 * inverse * v - rule.eta / 3 * effective * gradient,
              preconditioned ? gradient : curvature * gradient, effective};
    }
    case score_order::diagonal:
      break;
  }
  // D .* (P^-1 G) is G itself when P = D.
  const double c = preconditioned ? gradient : curvature * gradient;
  return {inverse * (v - 0.5 * rule.eta * c), c, 0};
}

inline void check_rule(const char* function, const score_rule& rule) {
  expects(std::isfinite(rule.eta) && rule.eta > 0, function, "eta must be positive and finite",
          "eta", rule.eta);
}

}  // namespace detail

template <class Real>
struct projection {
  score_rule rule;
  std::vector<Real> p;          ///< [d]
  std::vector<Real> curvature;  ///< D' [d], joint order only
  /// ||(eta/2) C|| / ||v||: how much of the score the second order can change; 0 where C is 0, +inf
  /// where v alone is.
  double second_order_share = 0;
};

/// The vectors that a rule may need; empty where it does not.
template <class Real>
struct curvature_inputs {
  std::span<const Real> curvature = {};         ///< D [d]; > 0 for the AdamW step
  std::span<const Real> hessian_gradient = {};  ///< H G [d], or H (D^-1 G) for the AdamW step
};

/// p of the rule; `v` is consumed (its storage becomes p).
///
/// \param gradient  G [d]; may be empty at first order, whose p does not depend on it
/// \throws invalid_argument  if eta is not positive, a needed vector is missing or has another
///                           length, or D is not positive where the AdamW step divides by it
/// \throws numerical_error   if v, G or a vector that is read is not finite, naming the coordinate;
///                           it comes before the question whether D is positive
template <HostPolicy Policy, class Real>
projection<Real> project(const Policy& policy, const score_rule& rule, std::vector<Real> v,
                         std::span<const double> gradient, const curvature_inputs<Real>& inputs) {
  detail::check_rule("project", rule);
  const std::size_t d = v.size();
  const bool known_beforehand = rule.order == score_order::first && gradient.empty();
  expects(gradient.size() == d || known_beforehand, "project", "v and G must have one length", "v",
          d, "G", gradient.size());
  const bool reads_curvature = needs_curvature(rule);
  const bool reads_product = needs_hessian_gradient(rule);
  expects(!reads_curvature || inputs.curvature.size() == d, "project",
          "this order and step need a curvature proxy D of length d", "order", name_of(rule.order),
          "step", name_of(rule.step), "D", inputs.curvature.size(), "d", d);
  expects(!reads_product || inputs.hessian_gradient.size() == d, "project",
          "full order needs the product H G of length d", "HG", inputs.hessian_gradient.size(), "d",
          d);

  projection<Real> result;
  result.rule = rule;
  if (rule.order == score_order::joint) result.curvature.resize(d);

  struct part_state {
    double v_squares = 0;
    double c_squares = 0;
    index_t not_finite = -1;
    index_t not_positive = -1;
  };
  std::vector<part_state> parts(static_cast<std::size_t>(detail::thread_count(policy)));
  detail::parallel_ranges(
      policy, static_cast<index_t>(d), index_t{1} << 15, [&](int part, detail::index_range range) {
        part_state state;
        for (index_t i = range.begin; i < range.end; ++i) {
          const auto j = static_cast<std::size_t>(i);
          const double vj = static_cast<double>(v[j]);
          const double dj = reads_curvature ? static_cast<double>(inputs.curvature[j]) : 1.0;
          const double hg = reads_product ? static_cast<double>(inputs.hessian_gradient[j]) : 0.0;
          const double gj = known_beforehand ? 0.0 : gradient[j];
          const detail::projected out = detail::project_coordinate(rule, vj, gj, dj, hg);
          const bool finite = std::isfinite(vj) && std::isfinite(gj) && std::isfinite(dj) &&
                              std::isfinite(hg);  // not of their sum, which may overflow
          if (!finite && state.not_finite < 0) state.not_finite = i;
          if (rule.step == step_geometry::adamw && dj <= 0 && state.not_positive < 0)
            state.not_positive = i;
          v[j] = static_cast<Real>(out.p);
          if (!result.curvature.empty()) result.curvature[j] = static_cast<Real>(out.curvature);
          state.v_squares += vj * vj;
          state.c_squares += out.second_order * out.second_order;
        }
        parts[static_cast<std::size_t>(part)] = state;
      });

  double v_squares = 0;
  double c_squares = 0;
  for (const part_state& state : parts)
    if (state.not_finite >= 0)
      throw numerical_error("project: v, G, D or H G is NaN or infinite at coordinate " +
                            std::to_string(state.not_finite));
  for (const part_state& state : parts) {
    expects(state.not_positive < 0, "project", "the AdamW step needs D > 0 everywhere",
            "coordinate", state.not_positive);
    v_squares += state.v_squares;
    c_squares += state.c_squares;
  }
  result.p = std::move(v);
  result.second_order_share =
      detail::share_of_second_order(0.5 * rule.eta * std::sqrt(c_squares), std::sqrt(v_squares));
  return result;
}

}  // namespace dualsft
