// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <dualsft/io/npy.hpp>
#include <dualsft/llm/parameter_files.hpp>
#include <dualsft/llm/transformer.hpp>
#include <dualsft/optim/adamw.hpp>
#include <dualsft/optim/masked_adamw.hpp>
#include <dualsft/pipeline.hpp>
#include <map>

#include "stages.hpp"
#include "training_stage.hpp"

namespace dualsft::cli {

namespace {

/// Corpus numbers of the selected records, best first.
std::vector<index_t> selected_examples(const run_folder& folder, const run_data& data) {
  const std::string path = folder.file("selected_examples.npy");
  std::map<index_t, index_t> places;
  for (const index_t i : data.split.pool) places.emplace(data.number(i), i);
  std::vector<index_t> out;
  for (const index_t number : npy_read_vector<index_t>(path)) {
    const auto found = places.find(number);
    if (found == places.end())
      throw input_error(path, "record " + std::to_string(number), "no record of the pool",
                        "numbers of records that were scored");
    out.push_back(found->second);
  }
  return out;
}

template <class S>
void fine_tune_model(run_folder& folder, const run_data& data, const pipeline_options& options) {
  const exec::cpu policy{options.threads};
  stage_clock clock("finetune");
  auto model = data.folder.load<S>(data.corpus, {.threads = options.threads});
  const bool all_data = takes_all("--data-budget", options.data_budget);
  const bool all_parameters = takes_all("--parameter-budget", options.parameter_budget);
  const std::vector<index_t> examples =
      all_data ? candidates_of(data.split) : selected_examples(folder, data);
  const auto validation_loss = [&] {
    return data.split.validation.empty()
               ? std::numeric_limits<double>::quiet_NaN()
               : mean_loss(policy, std::as_const(model), data.split.validation,
                           options.micro_batch_size);
  };
  const double before = validation_loss();
  const training_options training{.epochs = options.epochs,
                                  .batch_size = options.batch_size,
                                  .micro_batch_size = options.micro_batch_size,
                                  .learning_rate = options.learning_rate,
                                  .final_learning_rate = options.final_learning_rate,
                                  .seed = options.seed};
  const index_t d = model.layout().size();
  index_t trained = d, state_bytes = 0;
  loss_curve curve;
  if (all_parameters) {
    adamw<S> optimizer(d);
    curve = train_stage(
        stage::finetune, folder, data, options, policy, model, optimizer, examples, training, clock,
        [&](state_writer& to) { to.values(std::span<const S>(model.parameters())); },
        [&](state_reader& from) { from.values(model.parameters()); });
    state_bytes = optimizer.memory_bytes();
  } else {
    const index_set mask =
        llm::read_parameter_mask(folder.file("parameter_mask.safetensors"), model.layout());
    masked_adamw<S> optimizer(mask);
    std::vector<S> values(static_cast<std::size_t>(mask.size()));
    curve = train_stage(
        stage::finetune, folder, data, options, policy, model, optimizer, examples, training, clock,
        [&](state_writer& to) {
          for (std::size_t k = 0; k < values.size(); ++k)
            values[k] = model.parameters()[static_cast<std::size_t>(mask.indices()[k])];
          to.values(std::span<const S>(values));
        },
        [&](state_reader& from) {
          from.values(std::span<S>(values));
          for (std::size_t k = 0; k < values.size(); ++k)
            model.parameters()[static_cast<std::size_t>(mask.indices()[k])] = values[k];
        });
    trained = mask.size();
    state_bytes = optimizer.memory_bytes();
  }
  const double after = validation_loss();

  const std::string out = folder.file("model");
  const safetensors_checkpoint base(options.model);
  std::vector<std::string> made{"model/model.safetensors", "model/config.json",
                                "finetune_losses.json"};
  for (const std::string& name :
       llm::copy_checkpoint_files(options.model, out, llm::config_file::leave))
    made.push_back("model/" + name);
  llm::write_checkpoint<S>(out, llm::read_config_text(options.model), model.layout(),
                           model.parameters(),
                           {.types = llm::weight_source(base, model.layout()).types(),
                            .shard_bytes = std::numeric_limits<index_t>::max()});
  folder.write("finetune_losses.json", curve.json());
  folder.write("finetune.json",
               {{"examples", examples.size()},
                {"trained_parameters", trained},
                {"steps", curve.total},
                {"optimizer_state_bytes", state_bytes},
                {"dense_optimizer_state_bytes", d * static_cast<index_t>(2 * sizeof(S))},
                {"validation_loss_before", before},
                {"validation_loss_after", after},
                {"stages", nlohmann::ordered_json::array({clock.json()})}});
  folder.finish(stage::finetune, made, {"finetune.json"});
  folder.remove_state("finetune");
}

}  // namespace

void finetune_stage(run_folder& folder, const run_data& data, const pipeline_options& options) {
  if (folder.is_done(stage::finetune)) {
    folder.remove_state("finetune");  // a killed process may have had no time to
    return;
  }
  if (options.precision == precision::float64)
    fine_tune_model<double>(folder, data, options);
  else
    fine_tune_model<float>(folder, data, options);
}

}  // namespace dualsft::cli
