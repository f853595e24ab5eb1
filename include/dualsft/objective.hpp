// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/gradients.hpp>
#include <dualsft/hessian.hpp>
#include <dualsft/preservation.hpp>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

/// The validation objective that every score asks about.
///
///     J(theta) = L_val(theta) + lambda L_prior(theta)          L_val = mean loss over V
///     v = grad J = v_val + lambda v_prior                      v_val = mean gradient over V
///     H x = (hess J) x
///
/// Source: theory.md sections 1 and 6; DualSFT section 3. lambda = 0.2 is the paper's default.
namespace dualsft {

template <class Prior = no_preservation>
struct validation_objective {
  example_span examples;  ///< V
  Prior prior = {};
  double lambda = 0;  ///< >= 0
  index_t batch_size = 32;
};

validation_objective(example_span)->validation_objective<no_preservation>;
template <class Prior>
validation_objective(example_span, Prior, double) -> validation_objective<Prior>;
template <class Prior>
validation_objective(example_span, Prior, double, index_t) -> validation_objective<Prior>;

namespace detail {
template <class Prior>
void check_objective(std::string_view function, const validation_objective<Prior>& objective) {
  expects(!objective.examples.empty(), function, "V must not be empty");
  expects(objective.lambda >= 0, function, "lambda must not be negative", "lambda",
          objective.lambda);
}
}  // namespace detail

/// J(theta)
/// \throws invalid_argument  if V is empty or lambda is negative
template <HostPolicy Policy, GradientModel M, class Prior>
double objective_value(const Policy& policy, const M& model,
                       const validation_objective<Prior>& objective) {
  detail::check_objective("objective_value", objective);
  double value = mean_loss(policy, model, objective.examples, objective.batch_size);
  if (objective.lambda != 0) value += objective.lambda * objective.prior.value(policy, model);
  return value;
}

/// v and its two parts.
struct objective_gradient_result {
  std::vector<double> total;       ///< v [d]
  std::vector<double> validation;  ///< v_val [d]
};

/// \throws invalid_argument  if V is empty or lambda is negative
template <HostPolicy Policy, GradientModel M, class Prior>
objective_gradient_result objective_gradient(const Policy& policy, const M& model,
                                             const validation_objective<Prior>& objective) {
  detail::check_objective("objective_gradient", objective);
  objective_gradient_result result;
  result.validation =
      sum_gradients(policy, model, objective.examples, {.batch_size = objective.batch_size}).sum;
  for (double& x : result.validation) x /= static_cast<double>(objective.examples.size());
  result.total = result.validation;
  if (objective.lambda != 0)
    objective.prior.accumulate_gradient(policy, model, objective.lambda,
                                        std::span<double>(result.total));
  return result;
}

/// H x of the objective. The prior's product is its own where it has one, else a central difference
/// of its gradient (CWSD), which needs a mutable model with parameters.
template <HostPolicy Policy, class M, class Prior>
requires CurvatureModel<std::remove_const_t<M>> std::vector<double> objective_hessian_product(
    const Policy& policy, M& model, const validation_objective<Prior>& objective,
    std::span<const typename M::scalar_type> x, const hessian_options& options = {}) {
  using Model = std::remove_const_t<M>;
  std::vector<double> product = mean_hessian_product(policy, model, objective.examples, x, options);
  if (objective.lambda == 0) return product;
  if constexpr (requires(std::span<double> out) {
                  objective.prior.accumulate_hessian_product(policy, std::as_const(model), 1.0, x,
                                                             out);
                }) {
    objective.prior.accumulate_hessian_product(policy, std::as_const(model), objective.lambda, x,
                                               std::span<double>(product));
  } else if constexpr (TrainableModel<Model> && !std::is_const_v<M>) {
    const std::vector<double> prior =
        detail::difference_product(model, x, options.difference_length, [&] {
          std::vector<double> gradient(x.size(), 0.0);
          objective.prior.accumulate_gradient(policy, std::as_const(model), 1.0,
                                              std::span<double>(gradient));
          return gradient;
        });
    for (std::size_t j = 0; j < product.size(); ++j) product[j] += objective.lambda * prior[j];
  } else {
    expects(false, "objective_hessian_product",
            "this preservation term has no Hessian product: pass a mutable model with "
            "parameters(block) so that its gradient can be differenced");
  }
  return product;
}

}  // namespace dualsft
