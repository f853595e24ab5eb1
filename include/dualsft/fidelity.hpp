// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/index_set.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/objective.hpp>
#include <dualsft/optim/adamw.hpp>
#include <dualsft/optim/masked_adamw.hpp>
#include <dualsft/overlap.hpp>
#include <dualsft/random.hpp>
#include <dualsft/training.hpp>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

/// Do scores predict what training does? Random diagnostic choices, their predicted utility (the
/// sum of their scores) and the realised one:
///
///     realised(choice) = J(theta_w) - J(theta_w after h AdamW steps restricted to the choice)
///
/// compared by rank over the choices. theta is put back bit for bit after every choice.
/// Source: DualSFT Appendix F.10; theory.md section 10 (64 subsets of 256 examples, 64 masks
/// stratified over blocks at the selection's budget, h = 10, 50, 200, 500, 1000).
namespace dualsft {

struct fidelity_options {
  index_t choices = 64;
  index_t subset_size = 256;
  index_t steps = 10;  ///< h
  index_t batch_size = 64;
  double learning_rate = 2e-5;
  std::uint64_t seed = 42;
};

struct fidelity_result {
  std::vector<double> predicted;  ///< [choices]
  std::vector<double> realised;   ///< [choices]
  double spearman = 0;
  double pairwise_agreement = 0;
};

namespace detail {

/// J before minus J after h steps of one optimizer over one list of examples.
template <HostPolicy Policy, TrainableModel M, class Objective, class Optimizer>
double realised_drop(const Policy& policy, M& model, const Objective& objective, double before,
                     Optimizer& optimizer, example_span examples, const fidelity_options& options) {
  parameter_guard<M> guard(model);
  const index_t per_epoch =
      (static_cast<index_t>(examples.size()) + options.batch_size - 1) / options.batch_size;
  training_options training{
      .epochs = (options.steps + per_epoch - 1) / per_epoch,
      .batch_size = options.batch_size,
      .learning_rate = options.learning_rate,
      .schedule = schedule_kind::constant,
      .warmup_ratio = 0,
      .seed = options.seed,
      .on_step = [&](const training_step& step) { return step.step + 1 < options.steps; }};
  train(policy, model, optimizer, examples, training);
  return before - objective_value(policy, std::as_const(model), objective);
}

inline void check_fidelity(const fidelity_options& options) {
  expects(options.choices >= 2 && options.subset_size >= 1 && options.steps >= 1 &&
              options.batch_size >= 1,
          "fidelity", "choices must be >= 2; subset_size, steps and batch_size >= 1", "choices",
          options.choices, "subset_size", options.subset_size, "steps", options.steps, "batch_size",
          options.batch_size);
}

inline void compare(fidelity_result& result) {
  result.spearman = dualsft::spearman(vector_view<const double>(result.predicted),
                                      vector_view<const double>(result.realised));
  result.pairwise_agreement = dualsft::pairwise_agreement(
      vector_view<const double>(result.predicted), vector_view<const double>(result.realised));
}

}  // namespace detail

/// Random subsets of the pool, all parameters trained.
/// \param pool         record numbers
/// \param data_scores  phi_D in the same order
template <HostPolicy Policy, TrainableModel M, class Objective>
fidelity_result data_score_fidelity(const Policy& policy, M& model, const Objective& objective,
                                    example_span pool, std::span<const double> data_scores,
                                    const fidelity_options& options = {}) {
  detail::check_fidelity(options);
  expects(
      pool.size() == data_scores.size() && options.subset_size <= static_cast<index_t>(pool.size()),
      "data_score_fidelity", "one score per pool example, and subset_size within the pool", "pool",
      pool.size(), "scores", data_scores.size(), "subset_size", options.subset_size);
  const double before = objective_value(policy, std::as_const(model), objective);
  fidelity_result result;
  std::vector<index_t> positions(pool.size());
  for (index_t c = 0; c < options.choices; ++c) {
    std::iota(positions.begin(), positions.end(), index_t{0});
    random_source random(options.seed, static_cast<std::uint64_t>(c) + 1);
    random.shuffle(std::span<index_t>(positions));
    double predicted = 0;
    std::vector<index_t> subset;
    for (index_t k = 0; k < options.subset_size; ++k) {
      const auto i = static_cast<std::size_t>(positions[static_cast<std::size_t>(k)]);
      predicted += data_scores[i];
      subset.push_back(pool[i]);
    }
    result.predicted.push_back(predicted);
    adamw<typename M::scalar_type> optimizer(model.layout().size());
    result.realised.push_back(
        detail::realised_drop(policy, model, objective, before, optimizer, subset, options));
  }
  detail::compare(result);
  return result;
}

/// A random mask of `size` coordinates, each block getting its share of it.
/// The shares are floor(size * block / d), the rest one each to the first blocks that have room.
inline index_set stratified_random_mask(const parameter_layout& layout, index_t size,
                                        random_source& random) {
  const index_t d = layout.size();
  expects(0 <= size && size <= d, "stratified_random_mask", "size must lie in [0, d]", "size", size,
          "d", d);
  std::vector<index_t> shares;
  index_t left = size;
  for (const parameter_block& block : layout.blocks()) {
    const auto share =
        static_cast<index_t>(static_cast<long double>(size) *
                             static_cast<long double>(block.size()) / static_cast<long double>(d));
    shares.push_back(std::min(share, block.size()));
    left -= shares.back();
  }
  while (left > 0)
    for (std::size_t b = 0; b < shares.size() && left > 0; ++b)
      if (shares[b] < layout.blocks()[b].size()) {
        ++shares[b];
        --left;
      }
  std::vector<index_t> indices;
  for (std::size_t b = 0; b < shares.size(); ++b) {
    // Selection sampling (Knuth's algorithm S): ascending, without a copy of the block.
    const parameter_block& block = layout.blocks()[b];
    index_t wanted = shares[b];
    for (index_t j = 0; j < block.size() && wanted > 0; ++j)
      if (random.below(block.size() - j) < wanted) {
        indices.push_back(block.offset + j);
        --wanted;
      }
  }
  return {std::move(indices), d};
}

/// Random block-stratified masks at the selection's budget, trained on the pool's examples.
/// \param parameter_scores  a score source over the d coordinates
template <HostPolicy Policy, TrainableModel M, class Objective, ScoreSource Source>
fidelity_result parameter_score_fidelity(const Policy& policy, M& model, const Objective& objective,
                                         example_span pool, const Source& parameter_scores,
                                         index_t mask_size, const fidelity_options& options = {}) {
  detail::check_fidelity(options);
  expects(!pool.empty(), "parameter_score_fidelity", "the pool must not be empty");
  expects(parameter_scores.size() == model.layout().size(), "parameter_score_fidelity",
          "one score per coordinate", "scores", parameter_scores.size(), "d",
          model.layout().size());
  const double before = objective_value(policy, std::as_const(model), objective);
  fidelity_result result;
  std::vector<double> buffer(4096);
  for (index_t c = 0; c < options.choices; ++c) {
    random_source random(options.seed, static_cast<std::uint64_t>(c) + 1);
    const index_set mask = stratified_random_mask(model.layout(), mask_size, random);
    double predicted = 0;
    for (index_t first = 0; first < parameter_scores.size(); first += 4096) {
      const index_t last = std::min<index_t>(first + 4096, parameter_scores.size());
      parameter_scores.fill(
          first, std::span<double>(buffer).first(static_cast<std::size_t>(last - first)));
      for (const index_t j : mask.within(first, last))
        predicted += buffer[static_cast<std::size_t>(j - first)];
    }
    result.predicted.push_back(predicted);
    masked_adamw<typename M::scalar_type> optimizer(mask);
    result.realised.push_back(
        detail::realised_drop(policy, model, objective, before, optimizer, pool, options));
  }
  detail::compare(result);
  return result;
}

}  // namespace dualsft
