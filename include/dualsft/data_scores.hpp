// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <dualsft/detail/ghost.hpp>
#include <dualsft/gradients.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/parameters.hpp>
#include <dualsft/projection.hpp>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

/// Pass 2: phi_D[i] = eta <g_i, p>, one number per example, by whichever way the model offers.
///
/// | strategy             | needs                | per example                                  |
/// |----------------------|----------------------|----------------------------------------------|
/// | materialised         | nothing more         | one backward pass of its own; the reference  |
/// | ghost                | HasTraces            | a share of one batched backward pass         |
/// | forward_derivative   | HasForwardDerivative | a share of one forward pass with tangents    |
/// | directional_difference | HasParameters      | two plain forward passes                     |
///
/// `automatic` takes ghost, else forward_derivative, else materialised. The joint order adds
/// (eta^2/12) sum_j D'_j g_ij^2, which no product gives: it materialises one example's gradient at
/// a time (one block of it where the model has gradient_blocks); `automatic` is materialised then.
///
/// Numerics: materialised dots in double; ghost and forward derivative in the model's scalar with
/// sums over tokens in double; the directional difference is a central difference of losses, good
/// to about eps^(2/3) of the loss, eps the rounding of the model's scalar.
/// Determinism: batches are fixed by batch_size; a score does not depend on the thread count, unless
/// the model threads itself: then equal counts give equal bits.
/// Source: theory.md section 8; DualSFT equations (7), (11); strategies 3 and 4 are this library's.
namespace dualsft {

enum class score_strategy {
  automatic,
  materialised,
  ghost,
  forward_derivative,
  directional_difference,
};

namespace detail {
inline constexpr std::array<std::pair<std::string_view, score_strategy>, 5> score_strategy_names{
    {{"automatic", score_strategy::automatic},
     {"materialised", score_strategy::materialised},
     {"ghost", score_strategy::ghost},
     {"jvp", score_strategy::forward_derivative},
     {"difference", score_strategy::directional_difference}}};
}  // namespace detail

constexpr std::string_view name_of(score_strategy strategy) {
  return detail::to_name(detail::score_strategy_names, strategy);
}
constexpr std::optional<score_strategy> score_strategy_from(std::string_view name) {
  return detail::from_name(detail::score_strategy_names, name);
}

struct data_score_options {
  score_strategy strategy = score_strategy::automatic;
  index_t batch_size = 32;
  /// Length ||e p|| of the directional difference; 0 chooses cbrt(eps) (1 + rms(theta)).
  double difference_length = 0;
};

struct data_score_result {
  std::vector<double> scores;                           ///< [examples], in the order given
  score_strategy strategy = score_strategy::automatic;  ///< the one that was used
  double total = 0;                                     ///< sum over examples of phi_D
  double absolute_total = 0;                            ///< sum over examples of |phi_D|
  index_t not_finite = 0;                               ///< how many scores are NaN or infinite
  index_t first_not_finite = -1;                        ///< position of the first of them, or -1

  /// Sets what follows from the scores, in their order: for scores that were put together from
  /// several calls.
  void add_up() {
    total = absolute_total = 0;
    not_finite = 0;
    first_not_finite = -1;
    for (std::size_t i = 0; i < scores.size(); ++i) {
      total += scores[i];
      absolute_total += std::abs(scores[i]);
      if (std::isfinite(scores[i])) continue;
      if (not_finite++ == 0) first_not_finite = static_cast<index_t>(i);
    }
  }
};

/// Whether a model offers what a strategy needs.
template <GradientModel M>
constexpr bool offers(score_strategy strategy) {
  switch (strategy) {
    case score_strategy::ghost:
      return HasTraces<M>;
    case score_strategy::forward_derivative:
      return HasForwardDerivative<M>;
    case score_strategy::directional_difference:
      return HasParameters<M>;
    case score_strategy::automatic:
    case score_strategy::materialised:
      break;
  }
  return true;
}

namespace detail {

template <GradientModel M>
constexpr score_strategy choose_strategy(score_strategy wanted, score_order order) {
  if (wanted != score_strategy::automatic) return wanted;
  if (order == score_order::joint) return score_strategy::materialised;
  if (HasTraces<M>) return score_strategy::ghost;
  if (HasForwardDerivative<M>) return score_strategy::forward_derivative;
  return score_strategy::materialised;
}

/// linear[i] = <g_i, p> and, where wanted, squares[i] = sum_j D'_j g_ij^2, one gradient at a time.
template <HostPolicy Policy, GradientModel M>
void materialised_products(const Policy& policy, const M& model, example_span examples,
                           const projection<typename M::scalar_type>& direction,
                           std::span<double> linear, std::span<double> squares) {
  using Real = typename M::scalar_type;
  parallel_batches<M>(
      policy, static_cast<index_t>(examples.size()), 1, [&](int, index_range range) {
        std::vector<Real> scratch;
        for (index_t i = range.begin; i < range.end; ++i) {
          double dot = 0;
          double weighted = 0;
          visit_gradient(model, examples.subspan(static_cast<std::size_t>(i), 1), scratch,
                         [&](index_t offset, std::span<const Real> gradient) {
                           const Real* p = direction.p.data() + offset;
                           for (std::size_t j = 0; j < gradient.size(); ++j)
                             dot += static_cast<double>(gradient[j]) * static_cast<double>(p[j]);
                           if (squares.empty()) return;
                           const Real* w = direction.curvature.data() + offset;
                           for (std::size_t j = 0; j < gradient.size(); ++j) {
                             const double g = static_cast<double>(gradient[j]);
                             weighted += static_cast<double>(w[j]) * (g * g);
                           }
                         });
          if (!linear.empty()) linear[static_cast<std::size_t>(i)] = dot;
          if (!squares.empty()) squares[static_cast<std::size_t>(i)] = weighted;
        }
      });
}

/// Calls body(batch, its piece of out) for every batch, over the policy's threads.
template <HostPolicy Policy, GradientModel M, class Body>
void batched_products(const Policy& policy, const M&, example_span examples, index_t batch_size,
                      std::span<double> out, Body&& body) {
  parallel_batches<M>(
      policy, static_cast<index_t>(examples.size()), batch_size, [&](int, index_range range) {
        for (index_t b = range.begin; b < range.end; ++b) {
          const example_span batch = batch_of(examples, batch_size, b);
          body(batch, out.subspan(static_cast<std::size_t>(b * batch_size), batch.size()));
        }
      });
}

/// Turns the products <g_i, p> in result.scores into phi_D and adds them up.
inline void scale_scores(data_score_result& result, const score_rule& rule,
                         std::span<const double> squares) {
  const double eta = rule.eta;
  for (std::size_t i = 0; i < result.scores.size(); ++i) {
    double& score = result.scores[i];
    score *= eta;
    if (!squares.empty()) score += eta * eta / 12 * squares[i];
  }
  result.add_up();
}

}  // namespace detail

/// \param model      mutable only for the directional difference, which moves theta along p and
///                   puts it back bit for bit (also when a call throws)
/// \param examples   record numbers, normally those that were summed into G
/// \param direction  from project()
/// \throws invalid_argument  if the model does not offer the strategy asked for, or p is not [d]
template <HostPolicy Policy, class M>
requires GradientModel<std::remove_const_t<M>> data_score_result data_scores(
    const Policy& policy, M& model, example_span examples,
    const projection<typename M::scalar_type>& direction, const data_score_options& options = {}) {
  using Model = std::remove_const_t<M>;
  using Real = typename M::scalar_type;
  const bool joint = direction.rule.order == score_order::joint;
  const score_strategy strategy =
      detail::choose_strategy<Model>(options.strategy, direction.rule.order);
  const index_t d = model.layout().size();
  expects(static_cast<index_t>(direction.p.size()) == d, "data_scores",
          "p must have one value per coordinate", "p", direction.p.size(), "d", d);
  expects(!joint || static_cast<index_t>(direction.curvature.size()) == d, "data_scores",
          "joint order needs the curvature of its projection", "curvature",
          direction.curvature.size(), "d", d);
  expects(options.batch_size >= 1, "data_scores", "batch_size must be positive", "batch_size",
          options.batch_size);
  expects(offers<Model>(strategy), "data_scores",
          "the model must offer what the strategy needs (ghost: traces, jvp: forward_derivatives, "
          "difference: parameters)",
          "strategy", name_of(strategy));

  data_score_result result;
  result.strategy = strategy;
  result.scores.resize(examples.size());
  const std::span<double> linear(result.scores);
  std::vector<double> squares(joint ? examples.size() : 0);
  const std::span<const Real> p(direction.p);

  if (strategy == score_strategy::ghost) {
    if constexpr (HasTraces<Model>)
      detail::batched_products(policy, std::as_const(model), examples, options.batch_size, linear,
                               [&](example_span batch, std::span<double> out) {
                                 detail::ghost_products<Real> sink(
                                     model.layout(), p, out, detail::sink_threads<Model>(policy));
                                 std::as_const(model).traces(batch, sink);
                               });
  } else if (strategy == score_strategy::forward_derivative) {
    if constexpr (HasForwardDerivative<Model>)
      detail::batched_products(policy, std::as_const(model), examples, options.batch_size, linear,
                               [&](example_span batch, std::span<double> out) {
                                 std::as_const(model).forward_derivatives(batch, p, out);
                               });
  } else if (strategy == score_strategy::directional_difference) {
    if constexpr (TrainableModel<Model> && !std::is_const_v<M>) {
      parameter_guard<Model> guard(model);
      const double e = detail::difference_factor(guard.saved(), p, options.difference_length);
      if (e != 0) {
        guard.displace(p, e);
        const std::vector<double> ahead =
            losses_of(policy, std::as_const(model), examples, options.batch_size);
        guard.displace(p, -e);
        const std::vector<double> behind =
            losses_of(policy, std::as_const(model), examples, options.batch_size);
        for (std::size_t i = 0; i < linear.size(); ++i)
          linear[i] = (ahead[i] - behind[i]) / (2 * e);
      }
    } else {
      expects(false, "data_scores", "the directional difference moves theta: pass a mutable model");
    }
  }
  const bool materialise = strategy == score_strategy::materialised;
  if (materialise || joint)
    detail::materialised_products(policy, std::as_const(model), examples, direction,
                                  materialise ? linear : std::span<double>(), squares);

  detail::scale_scores(result, direction.rule, squares);
  return result;
}

/// Any other policy: an error that says so. A back end of your own is an overload on your policy.
template <class Policy, class M>
requires(!HostPolicy<Policy> && GradientModel<std::remove_const_t<M>>) data_score_result
    data_scores(const Policy&, M&, example_span, const projection<typename M::scalar_type>&,
                const data_score_options& = {}) {
  static_assert(detail::unsupported<Policy>,
                "dualsft::data_scores: no back end for this execution policy; exec::reference and "
                "exec::cpu run on the host, exec::cuda needs the .cuh header");
  return {};
}

/// The projection restricted to a mask: p is zero outside it, so that data_scores gives the
/// mask-aware scores phi_D[i | m] = eta sum_{j in S_P} g_ij p_j of the one-sided orders.
/// Source: theory.md sections 4 and 9.
template <class Real>
projection<Real> restricted(const projection<Real>& direction, const index_set& mask) {
  expects(mask.universe() == static_cast<index_t>(direction.p.size()), "restricted",
          "the mask must be over the coordinates of p", "mask", mask.universe(), "d",
          direction.p.size());
  expects(direction.rule.order != score_order::joint, "restricted",
          "mask-aware scores are defined for the one-sided orders", "order",
          name_of(direction.rule.order));
  projection<Real> result = direction;
  std::ranges::fill(result.p, Real{0});
  for (const index_t j : mask.indices())
    result.p[static_cast<std::size_t>(j)] = direction.p[static_cast<std::size_t>(j)];
  return result;
}

}  // namespace dualsft
