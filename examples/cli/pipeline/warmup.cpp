// SPDX-License-Identifier: Apache-2.0
#include <dualsft/llm/parameter_files.hpp>
#include <dualsft/llm/transformer.hpp>
#include <dualsft/optim/adamw.hpp>
#include <dualsft/projection.hpp>

#include "../usage_error.hpp"
#include "stages.hpp"
#include "training_stage.hpp"

namespace dualsft::cli {

namespace {

constexpr const char* moments_file = "warmup/second_moment.safetensors";
constexpr const char* curve_file = "warmup_losses.json";

template <class S>
void warm_up(run_folder& folder, const run_data& data, const pipeline_options& options) {
  const exec::cpu policy{options.threads};
  stage_clock clock("warmup");
  const bool moves = options.checkpoint.empty() && options.warmup_epochs > 0;
  auto model = data.folder.load<S>(data.corpus, {.threads = options.threads});
  if (!options.checkpoint.empty())
    llm::read_weights(safetensors_checkpoint(options.checkpoint), model.layout(),
                      model.parameters());
  const adamw_options rule;
  adamw<S> optimizer(model.layout().size(), rule);
  const training_options training{.epochs = moves ? options.warmup_epochs : 1,
                                  .batch_size = options.batch_size,
                                  .micro_batch_size = options.micro_batch_size,
                                  .learning_rate = moves ? options.learning_rate : 0,
                                  .final_learning_rate = moves ? options.final_learning_rate : 0,
                                  .seed = options.seed};
  const loss_curve curve = train_stage(
      stage::warmup, folder, data, options, policy, model, optimizer, data.split.warmup, training,
      clock, [&](state_writer& to) { to.values(std::span<const S>(model.parameters())); },
      [&](state_reader& from) { from.values(model.parameters()); });
  const index_t steps = curve.total;

  write_folder(folder.file("warmup"));
  llm::write_parameter_values(
      folder.file(moments_file), model.layout(), optimizer.second_moment(),
      {{"steps", std::to_string(steps)}, {"beta2", nlohmann::json(rule.beta2).dump()}});
  nlohmann::ordered_json losses = curve.json();
  losses["cost"] = clock.json();
  std::vector<std::string> made{moments_file};
  if (moves) {
    for (const std::string& name :
         llm::copy_checkpoint_files(options.model, folder.file("warmup"), llm::config_file::leave))
      made.push_back("warmup/" + name);
    llm::write_checkpoint<S>(folder.file("warmup"), llm::read_config_text(options.model),
                             model.layout(), model.parameters(),
                             {.type = std::same_as<S, float> ? tensor_type::f32 : tensor_type::f64,
                              .shard_bytes = std::numeric_limits<index_t>::max()});
  }
  folder.write(curve_file, losses);
  if (moves) made.insert(made.end(), {"warmup/model.safetensors", "warmup/config.json"});
  folder.finish(stage::warmup, made, {curve_file});
  folder.remove_state("warmup");
}

}  // namespace

void warmup_stage(run_folder& folder, const run_data& data, const pipeline_options& options) {
  if (!options.checkpoint.empty() && folder.has("warmup/config.json"))
    throw usage_error("--checkpoint " + options.checkpoint + ": " + folder.path() +
                      " has a warmup of its own; take another folder");
  if (folder.is_done(stage::warmup)) {
    folder.remove_state("warmup");  // a killed process may have had no time to
    return;
  }
  if (!needs_warmup(data, options)) return;
  if (options.precision == precision::float64)
    warm_up<double>(folder, data, options);
  else
    warm_up<float>(folder, data, options);
}

bool needs_warmup(const run_data& data, const pipeline_options& options) {
  const bool moves = options.checkpoint.empty() && options.warmup_epochs > 0;
  const bool reads_moments = needs_curvature({options.order, options.step, 1}) &&
                             (options.curvature == "rms" || options.curvature == "second-moment");
  if (!data.split.warmup.empty()) return moves || reads_moments;
  if (reads_moments)
    throw usage_error("--curvature " + options.curvature +
                      ": comes from the warmup records, and there are none; raise "
                      "--warmup-fraction, or give a file or none");
  return false;
}

}  // namespace dualsft::cli
