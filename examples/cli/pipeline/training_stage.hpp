// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <dualsft/llm/transformer.hpp>
#include <dualsft/training.hpp>
#include <string>
#include <utility>

#include "../terminal.hpp"
#include "cost.hpp"
#include "data.hpp"
#include "folder.hpp"
#include "state_file.hpp"

/// Training that can be stopped at any moment and goes on bit for bit: what warmup and finetune
/// have in common.
namespace dualsft::cli {

/// {"steps": [...], "total": n}: what the report draws.
struct loss_curve {
  nlohmann::ordered_json steps = nlohmann::ordered_json::array();
  index_t total = 0;

  void add(const training_step& step) {
    steps.push_back({{"step", step.step},
                     {"loss", step.loss},
                     {"learning_rate", step.learning_rate},
                     {"gradient_norm", step.gradient_norm}});
    total = step.total;
  }
  nlohmann::ordered_json json() const { return {{"steps", steps}, {"total", total}}; }
};

/// Trains, saving every options.save_every seconds and when a signal asks to stop.
///
/// \param which  names its progress and its state file
/// \param save   save(state_writer&): what changes besides the optimizer
/// \param load   load(state_reader&): the same, back
/// \param clock  goes on from what was saved
/// \throws interrupted      after saving
/// \throws numerical_error  if a gradient, or a weight at the end, is not finite; what was saved
///                          stays
template <class Model, class Optimizer, class Save, class Load>
loss_curve train_stage(stage which, run_folder& folder, const run_data& data,
                       const pipeline_options& options, const exec::cpu& policy, Model& model,
                       Optimizer& optimizer, example_span examples, training_options training,
                       stage_clock& clock, Save&& save, Load&& load) {
  loss_curve curve;
  const index_t total = training_steps(static_cast<index_t>(examples.size()), training);
  const std::string name(name_of(which));
  const std::string state = folder.state_file(name), key = folder.key(which);
  if (folder.has("state/" + name)) {
    state_reader from(state, key);
    training.first_step = from.number("steps");
    if (training.first_step < 0 || training.first_step > total)
      throw input_error(state, "steps", std::to_string(training.first_step),
                        "at most the " + std::to_string(total) + " of this run");
    if (const auto steps = from.header().find("curve"); steps != from.header().end())
      curve.steps = *steps;
    clock.continue_from(from.header());
    load(from);
    from.optimizer(optimizer);
  }
  curve.total = total;
  training.loss_every = std::max<index_t>(1, total / 200);
  const index_t per_epoch = std::max<index_t>(1, total / std::max<index_t>(1, training.epochs));
  const index_t epoch_tokens = data.tokens(examples);

  progress bar(name, total, "steps", training.first_step);
  save_timer timer(options.save_every);
  const auto write_state = [&](index_t steps) {
    timer.begin();
    nlohmann::ordered_json header{{"steps", steps}, {"curve", curve.steps}};
    clock.save(header);
    state_writer to(state, key, std::move(header));
    save(to);
    to.optimizer(optimizer);
    to.commit();
    timer.end();
  };
  bool stopped = false;
  training.on_step = [&](const training_step& step) {
    if (!std::isnan(step.loss)) curve.add(step);
    bar.advance(1);
    const index_t done = step.step + 1;
    // Epochs are cut into the same batches of other examples: steps weigh equally on average.
    clock.set_tokens(epoch_tokens * done / per_epoch);
    stopped = interruption_requested();
    if (done < total && (stopped || timer.due())) write_state(done);
    return !stopped;
  };
  train(policy, model, optimizer, examples, training);
  if (stopped) throw interrupted();
  const auto weights = std::as_const(model).parameters();
  const auto bad = std::ranges::find_if(weights, [](auto x) { return !std::isfinite(x); });
  if (bad != weights.end())
    throw numerical_error(
        name + ": a weight is NaN or infinite behind the last step, at coordinate " +
        std::to_string(bad - weights.begin()) + "; a smaller --learning-rate may help");
  clock.set_tokens(epoch_tokens * training.epochs);
  return curve;
}

}  // namespace dualsft::cli
