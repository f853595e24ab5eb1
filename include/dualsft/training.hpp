// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/gradients.hpp>
#include <dualsft/optim/clip.hpp>
#include <dualsft/optim/schedule.hpp>
#include <dualsft/random.hpp>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// Mini-batch training of a model by any optimizer of optim/, dense or masked.
///
///     for every epoch: shuffle the examples by (seed, epoch), cut them into batches of batch_size
///     (the last may be shorter), and step with the mean gradient of each batch
///
/// Steps are numbered 0 .. total - 1 over all epochs, total = epochs * ceil(n / batch_size), and
/// the learning rate of a step depends on its number alone. A run that stopped after step s
/// continues with first_step = s + 1, the saved theta and the saved optimizer, bit for bit.
///
/// Clipping measures the norm over what the optimizer updates: over the selected coordinates for a
/// masked one.
/// Errors: a NaN or infinite gradient throws numerical_error naming the step and leaves theta as it
/// was after the step before.
/// Determinism: equal bits for an equal thread count (sum_gradients).
/// Source: theory.md section 7, steps 2 and 7 (batch 64, cosine decay, warmup ratio 0.03).
namespace dualsft {

struct training_step {
  index_t step = 0;
  index_t total = 0;
  double learning_rate = 0;
  double gradient_norm = 0;  ///< before clipping
  /// Mean loss of the batch before the update; NaN in steps where it was not computed.
  double loss = std::numeric_limits<double>::quiet_NaN();
};

struct training_options {
  index_t epochs = 3;
  index_t batch_size = 64;
  index_t micro_batch_size = 64;  ///< examples per call of the model
  double learning_rate = 2e-5;
  schedule_kind schedule = schedule_kind::cosine;
  double warmup_ratio = 0.03;
  double final_learning_rate = 0;
  double max_gradient_norm = std::numeric_limits<double>::infinity();
  std::uint64_t seed = 42;
  index_t loss_every = 0;  ///< report the batch's loss every so many steps and in the last; costs
                           ///< one more forward pass, or nothing where the model has
                           ///< HasGradientLosses
  index_t first_step = 0;
  /// Called after every step; returning false stops the run.
  std::function<bool(const training_step&)> on_step = {};
};

struct training_result {
  index_t steps = 0;                 ///< made in this call
  index_t total_steps = 0;           ///< of the whole run
  std::vector<training_step> curve;  ///< the steps whose loss was computed
};

/// The number of steps of a run.
inline index_t training_steps(index_t examples, const training_options& options) {
  expects(options.epochs >= 0 && options.batch_size >= 1 && options.micro_batch_size >= 1,
          "training", "epochs must be >= 0, batch sizes >= 1", "epochs", options.epochs,
          "batch_size", options.batch_size, "micro_batch_size", options.micro_batch_size);
  return options.epochs * ((examples + options.batch_size - 1) / options.batch_size);
}

/// Trains in place; see above.
/// \param optimizer  adamw, sgd or their masked forms, for the model's scalar and d
template <HostPolicy Policy, TrainableModel M, class Optimizer>
training_result train(const Policy& policy, M& model, Optimizer& optimizer, example_span examples,
                      const training_options& options = {}) {
  using Real = typename M::scalar_type;
  static_assert(std::same_as<typename Optimizer::scalar_type, Real>,
                "dualsft::train: the optimizer's scalar type must be the model's");
  const index_t n = static_cast<index_t>(examples.size());
  const index_t total = training_steps(n, options);
  expects(0 <= options.first_step && options.first_step <= total, "train",
          "first_step must lie in [0, total]", "first_step", options.first_step, "total", total);
  const learning_rate_schedule schedule{.kind = options.schedule,
                                        .peak = options.learning_rate,
                                        .total_steps = total,
                                        .warmup_ratio = options.warmup_ratio,
                                        .final_rate = options.final_learning_rate};
  schedule.check();

  training_result result;
  result.total_steps = total;
  std::vector<index_t> order;
  index_t shuffled_epoch = -1;
  std::vector<Real> gradient(static_cast<std::size_t>(model.layout().size()));
  std::vector<double> losses;
  const index_t per_epoch = options.epochs > 0 ? total / options.epochs : 0;

  for (index_t step = options.first_step; step < total; ++step) {
    const index_t epoch = step / per_epoch;
    if (epoch != shuffled_epoch) {
      order.assign(examples.begin(), examples.end());
      random_source random(options.seed, static_cast<std::uint64_t>(epoch) + 1);
      random.shuffle(std::span<index_t>(order));
      shuffled_epoch = epoch;
    }
    const example_span batch = detail::batch_of(order, options.batch_size, step % per_epoch);
    const auto count = static_cast<double>(batch.size());

    training_step report{.step = step, .total = total, .learning_rate = schedule.rate(step)};
    const bool wants_loss =
        options.loss_every > 0 && (step % options.loss_every == 0 || step + 1 == total);
    losses.resize(wants_loss ? batch.size() : 0);
    const gradient_sums sums =
        sum_gradients(policy, std::as_const(model), batch,
                      {.batch_size = options.micro_batch_size, .losses = losses});
    if (wants_loss) report.loss = std::accumulate(losses.begin(), losses.end(), 0.0) / count;
    for (std::size_t j = 0; j < gradient.size(); ++j)
      gradient[j] = static_cast<Real>(sums.sum[j] / count);
    const clip_options clip{.max_norm = options.max_gradient_norm};
    try {
      if constexpr (requires { optimizer.selected(); })
        report.gradient_norm =
            clip_gradient_norm(policy, std::span<Real>(gradient), optimizer.selected(), clip).norm;
      else
        report.gradient_norm = clip_gradient_norm(policy, std::span<Real>(gradient), clip).norm;
    } catch (const numerical_error& error) {
      throw numerical_error("train: step " + std::to_string(step) + ": " + error.what());
    }
    optimizer.step(policy, model, std::span<const Real>(gradient), report.learning_rate);

    ++result.steps;
    if (!std::isnan(report.loss)) result.curve.push_back(report);
    if (options.on_step && !options.on_step(report)) break;
  }
  return result;
}

/// Any other policy: an error that says so. A back end of your own is an overload on your policy.
template <class Policy, TrainableModel M, class Optimizer>
requires(!HostPolicy<Policy>) training_result
    train(const Policy&, M&, Optimizer&, example_span, const training_options& = {}) {
  static_assert(detail::unsupported<Policy>,
                "dualsft::train: no back end for this execution policy; exec::reference and "
                "exec::cpu run on the host, exec::cuda needs the .cuh header");
  return {};
}

}  // namespace dualsft
