// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <dualsft/curvature.hpp>
#include <dualsft/dual_scores.hpp>
#include <dualsft/objective.hpp>
#include <dualsft/optim/adamw.hpp>
#include <dualsft/optim/masked_adamw.hpp>
#include <dualsft/parameters.hpp>
#include <dualsft/preservation.hpp>
#include <dualsft/quota.hpp>
#include <dualsft/splits.hpp>
#include <dualsft/subset.hpp>
#include <dualsft/topk.hpp>
#include <dualsft/training.hpp>
#include <optional>
#include <span>
#include <utility>
#include <variant>
#include <vector>

/// DualSFT from theta_0 to a fine-tuned model: the steps of the other headers in order, nothing
/// more.
///
///     warm_up        theta_0 -> theta_w, s_T          AdamW over the warmup subset
///     select         v, D, G, p -> mask, subset       two passes over the scoring pool at theta_w
///     fine_tune      theta_0 -> theta                 AdamW on the mask, over the subset
///
///     auto run = dual_sft(exec::cpu{}, model, split_records(n, {...}), {...});
///
/// Each stage can be called on its own, with theta_w or D from elsewhere.
/// Variants: DualSFT-Param restricts parameters and trains on all candidates (warmup and pool),
/// DualSFT-Data restricts examples and trains all parameters, DualSFT does both.
/// Errors: a stage that throws leaves the results of the stages before with the caller, and theta
/// as that stage found it or, in training, as its last whole step left it. Source: DualSFT
/// Algorithm 1; theory.md section 7, whose defaults are the defaults here.
namespace dualsft {

enum class preservation_kind { none, l2, fisher, cwsd };

namespace detail {
inline constexpr std::array<std::pair<std::string_view, preservation_kind>, 4>
    preservation_kind_names{{{"none", preservation_kind::none},
                             {"l2", preservation_kind::l2},
                             {"fisher", preservation_kind::fisher},
                             {"cwsd", preservation_kind::cwsd}}};
}  // namespace detail

constexpr std::string_view name_of(preservation_kind kind) {
  return detail::to_name(detail::preservation_kind_names, kind);
}
constexpr std::optional<preservation_kind> preservation_kind_from(std::string_view name) {
  return detail::from_name(detail::preservation_kind_names, name);
}

/// What fine-tuning is restricted to.
enum class restriction {
  none,        ///< plain full fine-tuning
  parameters,  ///< DualSFT-Param
  examples,    ///< DualSFT-Data
  both,        ///< DualSFT
};

struct selection_options {
  score_order order = score_order::diagonal;
  step_geometry step = step_geometry::plain;
  std::optional<double> eta = std::nullopt;  ///< absent: learning_rate / |pool|
  double learning_rate = 2e-5;               ///< of the fine-tuning that is to follow
  curvature_proxy curvature = curvature_proxy::rms;
  index_t hutchinson_probes = 16;
  preservation_kind preservation = preservation_kind::cwsd;
  cwsd_options cwsd = {};
  double lambda = 0.2;
  budget parameter_budget = budget::ratio(0.05);  ///< of d
  budget data_budget = budget::ratio(0.10);       ///< of the candidates (warmup and pool)
  topk_by by = topk_by::value;  ///< what ranks both the parameters and the examples
  double layer_share = 0;       ///< of the mask that is spread over layers, see quota.hpp
  double module_share = 0;      ///< and over module kinds
  data_score_options data = {};
  index_t batch_size = 32;
  std::uint64_t seed = 42;  ///< of Hutchinson's probes
};

template <class Real>
struct warmup_result {
  std::vector<Real> theta;          ///< theta_w [d]
  std::vector<Real> second_moment;  ///< s_T [d]
  double beta2 = 0.999;
  training_result training;
};

template <class Real>
struct selection_result {
  dual_score_result<Real> scores;  ///< G, p, phi_D over the pool, conservation
  std::vector<Real> curvature;     ///< D [d]; empty where nothing needed it
  std::vector<double> validation;  ///< v_val [d]
  topk_result mask;                ///< the mask, phi_(K), phi_(K+1) and their gap
  /// Positions in the pool, best first, and their gap. Scores are |phi_D| if magnitude ranked them.
  example_selection subset;
  std::vector<index_t> examples;  ///< the same as record numbers
};

/// AdamW over the warmup subset from where the model stands; leaves theta at theta_w.
template <HostPolicy Policy, TrainableModel M>
warmup_result<typename M::scalar_type> warm_up(const Policy& policy, M& model, example_span warmup,
                                               const training_options& options,
                                               const adamw_options& optimizer_options = {}) {
  using Real = typename M::scalar_type;
  adamw<Real> optimizer(model.layout().size(), optimizer_options);
  warmup_result<Real> result;
  result.training = train(policy, model, optimizer, warmup, options);
  result.theta = parameter_values(model);
  result.second_moment.assign(optimizer.second_moment().begin(), optimizer.second_moment().end());
  result.beta2 = optimizer_options.beta2;
  return result;
}

namespace detail {

struct selection_sizes {
  index_t parameters = 0;  ///< K
  index_t examples = 0;    ///< B, no more than the pool has
};

constexpr preservation_kind kind_of(const selection_options& options) {
  return options.lambda == 0 ? preservation_kind::none : options.preservation;
}

/// What the options ask for, before any work: K and B, or an exception if they cannot be had.
template <TrainableModel M>
selection_sizes check_selection(const char* function, const M& model, const data_split& split,
                                const selection_options& options) {
  expects(!split.pool.empty(), function, "the pool must not be empty");
  expects(!split.validation.empty(), function, "the validation set must not be empty");
  const preservation_kind kind = kind_of(options);
  expects(kind != preservation_kind::cwsd || LogitModel<M>, function,
          "CWSD needs a model with logits (classes, logit_rows, logits, "
          "accumulate_logit_gradient); choose another preservation term");
  expects((kind != preservation_kind::cwsd && kind != preservation_kind::fisher) ||
              !split.anchors.empty(),
          function, "this preservation term needs anchors", "preservation", name_of(kind));
  const index_t k = options.parameter_budget.of(model.layout().size());
  const index_t b = options.data_budget.of(split.candidates());
  return {k, std::min(b, static_cast<index_t>(split.pool.size()))};
}

/// D of the proxy asked for, at the model's theta.
template <HostPolicy Policy, TrainableModel M, class Objective>
std::vector<typename M::scalar_type> make_curvature(
    const Policy& policy, M& model, const Objective& objective,
    const warmup_result<typename M::scalar_type>& warmup, const data_split& split,
    const selection_options& options) {
  using Real = typename M::scalar_type;
  const auto product = [&](std::span<const Real> x) {
    return objective_hessian_product(policy, model, objective, x);
  };
  const index_t d = model.layout().size();
  std::vector<double> diagonal;
  switch (options.curvature) {
    case curvature_proxy::rms:
      return rms_curvature(std::span<const Real>(warmup.second_moment), warmup.training.steps,
                           {.beta2 = warmup.beta2});
    case curvature_proxy::second_moment:
      return warmup.second_moment;
    case curvature_proxy::exact_diagonal:
      diagonal = exact_diagonal<Real>(d, product);
      break;
    case curvature_proxy::hutchinson:
      diagonal =
          hutchinson_diagonal<Real>(d, product, options.hutchinson_probes, options.seed).diagonal;
      break;
    case curvature_proxy::empirical_fisher:
      diagonal = empirical_fisher(policy, std::as_const(model), split.pool);
      break;
    case curvature_proxy::none:
      diagonal.assign(static_cast<std::size_t>(d), 0.0);
      break;
  }
  return {diagonal.begin(), diagonal.end()};
}

template <HostPolicy Policy, TrainableModel M, class Prior>
selection_result<typename M::scalar_type> select_with(
    const Policy& policy, M& model, const Prior& prior,
    const warmup_result<typename M::scalar_type>& warmup, const data_split& split,
    const selection_options& options) {
  using Real = typename M::scalar_type;
  const validation_objective<preservation_reference<Prior>> objective{
      split.validation, {&prior}, options.lambda, options.batch_size};

  const score_rule rule{
      options.order, options.step,
      options.eta.value_or(options.learning_rate / static_cast<double>(split.pool.size()))};
  selection_result<Real> result;
  if (needs_curvature(rule))
    result.curvature = make_curvature(policy, model, objective, warmup, split, options);
  objective_gradient_result gradient = objective_gradient(policy, std::as_const(model), objective);
  result.validation = std::move(gradient.validation);
  const auto product = [&](std::span<const Real> x) {
    return objective_hessian_product(policy, model, objective, x);
  };
  result.scores =
      dual_scores(policy, model, split.pool, rule, std::move(gradient.total), result.curvature,
                  product, {.batch_size = options.batch_size, .data = options.data});
  const selection_sizes sizes = check_selection("select", std::as_const(model), split, options);
  result.mask = topk_with_quotas(policy, result.scores.parameters(), model.layout(),
                                 {.k = sizes.parameters,
                                  .layer_share = options.layer_share,
                                  .module_share = options.module_share,
                                  .by = options.by})
                    .selection;
  std::vector<double> magnitudes;
  if (options.by == topk_by::magnitude)
    for (const double score : result.scores.data.scores) magnitudes.push_back(std::abs(score));
  result.subset = select_examples(magnitudes.empty() ? result.scores.data.scores : magnitudes,
                                  {.budget = sizes.examples});
  for (const index_t i : result.subset.indices)
    result.examples.push_back(split.pool[static_cast<std::size_t>(i)]);
  return result;
}

}  // namespace detail

/// Scores and selects at the model's current theta (theta_w), which is left as it is.
///
/// \param theta_0  [d], for the preservation term
/// \param warmup   gives rms and second_moment their s_T; else may be empty
/// \throws invalid_argument  before any work, if CWSD is asked of a model without logits, a set
///                           that is needed is empty, or a budget exceeds what there is
/// \throws numerical_error   if v or G is not finite
template <HostPolicy Policy, TrainableModel M>
selection_result<typename M::scalar_type> select(
    const Policy& policy, M& model, std::span<const typename M::scalar_type> theta_0,
    const warmup_result<typename M::scalar_type>& warmup, const data_split& split,
    const selection_options& options = {}) {
  using Real = typename M::scalar_type;
  detail::check_selection("select", std::as_const(model), split, options);
  const auto run = [&](const auto& prior) {
    return detail::select_with(policy, model, prior, warmup, split, options);
  };
  switch (detail::kind_of(options)) {
    case preservation_kind::l2:
      return run(anchored_preservation<Real>({theta_0.begin(), theta_0.end()}));
    case preservation_kind::fisher: {
      std::vector<double> fisher;
      {
        parameter_guard<M> guard(model);
        assign_parameters(model, theta_0);
        fisher = empirical_fisher(policy, std::as_const(model), split.anchors);
      }
      return run(anchored_preservation<Real>({theta_0.begin(), theta_0.end()}, std::move(fisher)));
    }
    case preservation_kind::cwsd:
      if constexpr (LogitModel<M>) {
        if constexpr (std::copy_constructible<M>) {
          M teacher(model);
          assign_parameters(teacher, theta_0);
          return run(cwsd_preservation<M>(split.anchors, model_teacher(teacher), options.cwsd));
        } else {
          return run(cwsd_preservation<M>(
              split.anchors,
              swapping_teacher(model, std::vector<Real>(theta_0.begin(), theta_0.end())),
              options.cwsd));
        }
      }
      break;  // without logits: refused above
    case preservation_kind::none:
      break;
  }
  return run(no_preservation{});
}

/// Fine-tunes from theta_0, restricted as asked.
///
/// Unselected coordinates keep theta_0's bits: AdamW's moments and decoupled decay exist only for
/// the mask.
/// \param examples  what to train on: selected record numbers, or all candidates
/// \param mask      the trainable coordinates, or null for all
template <HostPolicy Policy, TrainableModel M>
training_result fine_tune(const Policy& policy, M& model,
                          std::span<const typename M::scalar_type> theta_0, example_span examples,
                          const index_set* mask, const training_options& options,
                          const adamw_options& optimizer_options = {}) {
  using Real = typename M::scalar_type;
  assign_parameters(model, theta_0);
  if (mask != nullptr) {
    masked_adamw<Real> optimizer(*mask, optimizer_options);
    return train(policy, model, optimizer, examples, options);
  }
  adamw<Real> optimizer(model.layout().size(), optimizer_options);
  return train(policy, model, optimizer, examples, options);
}

/// Warmup and pool together, ascending: what is trained on when examples are not restricted.
inline std::vector<index_t> candidates_of(const data_split& split) {
  std::vector<index_t> all = split.pool;
  all.insert(all.end(), split.warmup.begin(), split.warmup.end());
  std::ranges::sort(all);
  return all;
}

struct dual_sft_options {
  selection_options selection = {};  ///< its learning_rate is taken from `training`
  training_options warmup = {.epochs = 1};
  training_options training = {};
  adamw_options optimizer = {};
  restriction restrict_to = restriction::both;
};

template <class Real>
struct dual_sft_result {
  warmup_result<Real> warmup;
  selection_result<Real> selection;
  training_result training;
};

/// The whole of Algorithm 1; the model ends fine-tuned. Pre-trained parameters are the ones the
/// model comes with.
/// \throws invalid_argument  as select(), and before the warmup
template <HostPolicy Policy, TrainableModel M>
dual_sft_result<typename M::scalar_type> dual_sft(const Policy& policy, M& model,
                                                  const data_split& split,
                                                  const dual_sft_options& options = {}) {
  using Real = typename M::scalar_type;
  detail::check_selection("dual_sft", std::as_const(model), split, options.selection);
  const std::vector<Real> theta_0 = parameter_values(model);
  dual_sft_result<Real> result;
  result.warmup = warm_up(policy, model, split.warmup, options.warmup, options.optimizer);
  selection_options selection = options.selection;
  selection.learning_rate = options.training.learning_rate;
  result.selection =
      select(policy, model, std::span<const Real>(theta_0), result.warmup, split, selection);
  const bool by_mask =
      options.restrict_to == restriction::parameters || options.restrict_to == restriction::both;
  const bool by_subset =
      options.restrict_to == restriction::examples || options.restrict_to == restriction::both;
  result.training = fine_tune(policy, model, std::span<const Real>(theta_0),
                              by_subset ? result.selection.examples : candidates_of(split),
                              by_mask ? &result.selection.mask.selected : nullptr, options.training,
                              options.optimizer);
  return result;
}

/// Any other policy: an error that says so. A back end of your own is an overload on your policy.
template <class Policy, TrainableModel M>
requires(!HostPolicy<Policy>) dual_sft_result<typename M::scalar_type> dual_sft(
    const Policy&, M&, const data_split&, const dual_sft_options& = {}) {
  static_assert(detail::unsupported<Policy>,
                "dualsft::dual_sft: no back end for this execution policy; exec::reference and "
                "exec::cpu run on the host, exec::cuda needs the .cuh header");
  return {};
}

}  // namespace dualsft
