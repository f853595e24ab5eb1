// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/conservation.hpp>
#include <dualsft/data_scores.hpp>
#include <dualsft/detail/real_values.hpp>
#include <dualsft/detail/trace_gradient.hpp>
#include <dualsft/gradients.hpp>
#include <dualsft/parameter_scores.hpp>
#include <dualsft/projection.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// Both sides of the interaction matrix of a pool, in two streaming passes.
///
///     pass 1   G = sum_i g_i                          p = project(v, G)
///     pass 2   phi_D[i] = eta <g_i, p>                phi_P[j] = eta G_j p_j, on demand
///
/// The N x d matrix never exists: the state is G, p (and D', Q in joint order), the answer N data
/// scores and a source of parameter scores; the conservation law is checked on the way out.
/// At first order p is known beforehand, so G and phi_D come out of ONE backward pass per batch
/// where the model has traces (its gradient and its products are made of the same factors), or per
/// example where scores are materialised; strategies that run no backward pass keep their second
/// pass.
///
/// Errors: gradients that are NaN or infinite throw numerical_error before pass 2 (behind the one
/// pass at first order); data scores that are, and a broken law, are reported in the result, because
/// what was computed is still there.
/// Source: DualSFT Algorithm 1, lines 4 to 6.
namespace dualsft {

template <class Real>
struct dual_score_result {
  gradient_sums pool;          ///< pass 1
  projection<Real> direction;  ///< what ties the two sides
  data_score_result data;      ///< pass 2
  conservation_check conservation;

  /// phi_P as a source; refers to this result.
  parameter_scores<Real> parameters() const& { return {pool.sum, direction, pool.squares}; }
  parameter_scores<Real> parameters() const&& = delete;
};

/// Both batch sizes are at least 1, whichever of them a run reads.
struct dual_score_options {
  index_t batch_size = 32;       ///< of pass 1, where it is a pass of its own
  data_score_options data = {};  ///< its batch_size: of pass 2, and of the one pass at first order
};

/// H (step of G) for a full-order rule: the vector whose Hessian product project() wants, which is
/// G for the plain step and G ./ D for the AdamW step.
template <class Real>
std::vector<Real> hessian_direction(const score_rule& rule, std::span<const double> gradient,
                                    std::span<const Real> curvature) {
  const bool preconditioned = rule.step == step_geometry::adamw;
  expects(!preconditioned || curvature.size() == gradient.size(), "hessian_direction",
          "the AdamW step needs D of length d", "D", curvature.size(), "d", gradient.size());
  std::vector<Real> x(gradient.size());
  for (std::size_t j = 0; j < x.size(); ++j)
    x[j] = static_cast<Real>(preconditioned ? gradient[j] / static_cast<double>(curvature[j])
                                            : gradient[j]);
  return x;
}

/// The one pass of first order: adds to G and writes <g_i, p>, from one backward pass per batch. For
/// lists cut at multiples of the batch size see add_gradients().
/// \param p         [d], known beforehand
/// \param strategy  ghost, for models with traces, or materialised
/// \param linear    [pool], overwritten with <g_i, p>
/// \param total     of earlier calls; empty before the first, and lost if the model throws
template <HostPolicy Policy, GradientModel M>
void add_gradients_and_products(const Policy& policy, const M& model, example_span pool,
                                std::span<const typename M::scalar_type> p, score_strategy strategy,
                                index_t batch_size, std::span<double> linear,
                                gradient_sums& total) {
  expects(strategy == score_strategy::materialised ||
              (strategy == score_strategy::ghost && HasTraces<M>),
          "add_gradients_and_products", "the strategy must be materialised, or ghost with traces",
          "strategy", name_of(strategy));
  expects(batch_size >= 1 && linear.size() == pool.size() &&
              static_cast<index_t>(p.size()) == model.layout().size(),
          "add_gradients_and_products", "p is [d], the products are one per example", "batch_size",
          batch_size, "products", linear.size(), "pool", pool.size(), "p", p.size());
  expects(total.sum.empty() || total.sum.size() == p.size(), "add_gradients_and_products",
          "the sums must have one value per coordinate", "sums", total.sum.size(), "d", p.size());
  using Real = typename M::scalar_type;
  const bool ghost = strategy == score_strategy::ghost;
  const index_t batch = ghost ? batch_size : 1;
  const auto d = p.size();
  std::ranges::fill(linear, 0.0);
  std::vector<std::vector<double>> partial(static_cast<std::size_t>(detail::thread_count(policy)));
  partial.front() = std::move(total.sum);
  detail::parallel_batches<M>(
      policy, static_cast<index_t>(pool.size()), batch, [&](int part, detail::index_range range) {
        std::vector<double>& sum = partial[static_cast<std::size_t>(part)];
        if (sum.empty()) sum.assign(d, 0.0);
        std::vector<Real> scratch;
        for (index_t b = range.begin; b < range.end; ++b) {
          const example_span examples = detail::batch_of(pool, batch, b);
          const std::span<double> out =
              linear.subspan(static_cast<std::size_t>(b * batch), examples.size());
          if (ghost) {
            if constexpr (HasTraces<M>) {
              const int threads = detail::sink_threads<M>(policy);
              detail::ghost_products<Real> products(model.layout(), p, out, threads);
              detail::trace_gradient<Real> gradient(model.layout(), sum, threads);
              detail::both_sinks<Real> sink{products, gradient};
              model.traces(examples, sink);
            }
            continue;
          }
          detail::visit_gradient(
              model, examples, scratch, [&](index_t offset, std::span<const Real> gradient) {
                double* sums = sum.data() + offset;
                const Real* direction = p.data() + offset;
                for (std::size_t j = 0; j < gradient.size(); ++j) {
                  sums[j] += static_cast<double>(gradient[j]);
                  out[0] += static_cast<double>(gradient[j]) * static_cast<double>(direction[j]);
                }
              });
        }
      });
  total.sum = std::move(partial.front());
  total.examples += static_cast<index_t>(pool.size());
  if (total.sum.empty()) total.sum.assign(d, 0.0);
  for (std::size_t part = 1; part < partial.size(); ++part)
    for (std::size_t j = 0; j < partial[part].size(); ++j) total.sum[j] += partial[part][j];
}

namespace detail {

/// \throws numerical_error  naming the first coordinate of G that is NaN or infinite
inline void check_gradient_sum(std::span<const double> sum) {
  for (std::size_t j = 0; j < sum.size(); ++j)
    if (!std::isfinite(sum[j]))
      throw numerical_error("dual_scores: G is NaN or infinite at coordinate " + std::to_string(j));
}

template <class Real, HostPolicy Policy>
void finish(const Policy& policy, dual_score_result<Real>& result) {
  const score_order order = result.direction.rule.order;
  const double everything = order == score_order::joint
                                ? utility_of_everything<Real>(result.pool.sum, result.direction)
                                : 0.0;
  const parameter_scores<Real> columns(result.pool.sum, result.direction, result.pool.squares);
  result.conservation = check_conservation<Real>(policy, columns, result.data, order, everything);
}

}  // namespace detail

/// \param pool               record numbers of the scoring pool
/// \param validation         v = grad J [d], consumed
/// \param curvature          D [d] for the orders and steps that need it, else empty
/// \param hessian_product    H x of the validation objective, called once in full order with
///                           std::span<const scalar_type> x; may be empty otherwise
///
/// v, D and H x may be float or double, in vectors or spans, whatever the model's scalar is; they are
/// stored as the model's.
///
/// \throws invalid_argument  as project() and data_scores() do, or if a batch size is below 1
/// \throws numerical_error   if G, v, D or H G is not finite
template <HostPolicy Policy, class M>
requires GradientModel<std::remove_const_t<M>> dual_score_result<typename M::scalar_type>
dual_scores(const Policy& policy, M& model, example_span pool, const score_rule& rule,
            detail::real_vector<typename M::scalar_type> validation,
            const detail::real_span<typename M::scalar_type>& curvature = {},
            const detail::real_product<typename M::scalar_type>& hessian_product = {},
            const dual_score_options& options = {}) {
  using Real = typename M::scalar_type;
  std::vector<Real> v = std::move(validation.values);
  const std::span<const Real> proxy = curvature.values();
  detail::check_rule("dual_scores", rule);
  expects(options.batch_size >= 1 && options.data.batch_size >= 1, "dual_scores",
          "batch sizes must be positive", "batch_size", options.batch_size, "data.batch_size",
          options.data.batch_size);
  expects(static_cast<index_t>(v.size()) == model.layout().size(), "dual_scores",
          "v must have one value per coordinate", "v", v.size(), "d", model.layout().size());
  expects(!needs_curvature(rule) || proxy.size() == v.size(), "dual_scores",
          "this order and step need a curvature proxy D of length d", "order", name_of(rule.order),
          "step", name_of(rule.step), "D", proxy.size(), "d", v.size());
  expects(!needs_hessian_gradient(rule) || static_cast<bool>(hessian_product.call), "dual_scores",
          "full order needs a Hessian product");

  dual_score_result<Real> result;
  using Model = std::remove_const_t<M>;
  const score_strategy strategy = detail::choose_strategy<Model>(options.data.strategy, rule.order);
  if (rule.order == score_order::first && offers<Model>(strategy) &&
      (strategy == score_strategy::ghost || strategy == score_strategy::materialised)) {
    result.direction = project<Policy, Real>(policy, rule, std::move(v), {}, {proxy, {}});
    result.data.strategy = strategy;
    result.data.scores.resize(pool.size());
    add_gradients_and_products(policy, std::as_const(model), pool,
                               std::span<const Real>(result.direction.p), strategy,
                               options.data.batch_size, result.data.scores, result.pool);
    detail::check_gradient_sum(result.pool.sum);
    detail::scale_scores(result.data, rule, {});
    detail::finish(policy, result);
    return result;
  }
  result.pool = sum_gradients(policy, std::as_const(model), pool,
                              {.batch_size = options.batch_size, .squares = needs_squares(rule)});
  std::vector<Real> product;
  if (needs_hessian_gradient(rule)) {
    const std::vector<Real> x = hessian_direction<Real>(rule, result.pool.sum, proxy);
    product = hessian_product.call(x);
  }
  result.direction =
      project<Policy, Real>(policy, rule, std::move(v), result.pool.sum, {proxy, product});
  result.data = data_scores(policy, model, pool, result.direction, options.data);
  detail::finish(policy, result);
  return result;
}

/// Any other policy: an error that says so. A back end of your own is an overload on your policy.
template <class Policy, class M>
requires(!HostPolicy<Policy> && GradientModel<std::remove_const_t<M>>)
    dual_score_result<typename M::scalar_type> dual_scores(
        const Policy&, M&, example_span, const score_rule&,
        detail::real_vector<typename M::scalar_type>,
        const detail::real_span<typename M::scalar_type>& = {},
        const detail::real_product<typename M::scalar_type>& = {}, const dual_score_options& = {}) {
  static_assert(detail::unsupported<Policy>,
                "dualsft::dual_scores: no back end for this execution policy; exec::reference and "
                "exec::cpu run on the host, exec::cuda needs the .cuh header");
  return {};
}

}  // namespace dualsft
