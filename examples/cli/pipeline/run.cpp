// SPDX-License-Identifier: Apache-2.0
#include "run.hpp"

#include <dualsft/execution.hpp>
#include <dualsft/llm/checkpoint.hpp>
#include <ostream>

#include "../score.hpp"
#include "data.hpp"
#include "folder.hpp"
#include "stages.hpp"

namespace dualsft::cli {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using inputs = std::vector<std::pair<std::string, std::string>>;

stage last_stage(pipeline_command command) {
  switch (command) {
    case pipeline_command::warmup:
      return stage::warmup;
    case pipeline_command::select:
      return stage::select;
    case pipeline_command::run:
    case pipeline_command::finetune:
      break;
  }
  return stage::finetune;
}

inputs data_files(const pipeline_options& options) {
  inputs files{{"--model", options.model}, {"--train", options.train}};
  if (!options.validation.empty()) files.emplace_back("--validation", options.validation);
  if (!options.anchors.empty()) files.emplace_back("--anchors", options.anchors);
  if (!options.own_template.empty()) files.emplace_back("--template", options.own_template);
  return files;
}

inputs selection_files(const pipeline_options& options) {
  inputs files;
  if (!options.checkpoint.empty()) files.emplace_back("--checkpoint", options.checkpoint);
  for (const char* name : {"rms", "second-moment", "none"})
    if (options.curvature == name) return files;
  files.emplace_back("--curvature", options.curvature);
  return files;
}

ordered_json model_facts(const run_data& data, const pipeline_options& options) {
  const llm::model_config& config = data.folder.config;
  const parameter_layout layout = llm::map_transformer(config).layout;
  const safetensors_checkpoint files(options.model);
  const llm::weight_source source(files, layout);
  return {{"family", llm::name_of(config.family)},
          {"parameters", layout.size()},
          {"layers", config.layers},
          {"width", config.width},
          {"heads", config.heads},
          {"vocabulary", config.vocabulary},
          {"dtype", detail::row_of(source.type(0)).name}};
}

void summarise(const run_folder& folder, const pipeline_options& options, std::ostream& out) {
  ordered_json all = ordered_json::object();
  for (const char* name : {"summary.json", "finetune.json"})
    if (folder.has(name))
      all[name == std::string("summary.json") ? "selection" : "finetune"] = folder.read(name);
  all["out"] = folder.path();
  if (options.json) {
    out << all.dump(2) << "\n";
    return;
  }
  if (all.contains("selection")) {
    const ordered_json& s = all["selection"];
    out << "scored " << s["examples"] << " examples x " << s["parameters"] << " parameters, order "
        << s["order"].get<std::string>() << ", step " << s["step"].get<std::string>() << ", by "
        << s["strategy"].get<std::string>() << ", in " << s["seconds"] << " s\n"
        << "conservation gap    " << s["conservation_gap"] << "\n"
        << "parameters          " << s["parameter_budget"] << " selected, boundary gap "
        << s["parameter_boundary_gap"] << "\n"
        << "examples            " << s["data_budget"] << " selected, boundary gap "
        << s["data_boundary_gap"] << "\n";
    if (!s["cost"]["selection_over_epoch"].is_null())
      out << "cost                " << s["cost"]["selection_over_epoch"]
          << " epochs over the pool, warmup included\n";
  }
  if (all.contains("finetune")) {
    const ordered_json& f = all["finetune"];
    out << "fine-tuned          " << f["trained_parameters"] << " parameters on " << f["examples"]
        << " examples, " << f["steps"] << " steps; validation loss " << f["validation_loss_before"]
        << " -> " << f["validation_loss_after"] << "\n";
  }
  out << "written to          " << folder.path() << "\n";
}

}  // namespace

bool is_done(const run_folder& folder, stage which) {
  switch (which) {
    case stage::warmup:
      return folder.has("warmup_losses.json");
    case stage::select:
      return folder.has("summary.json");
    case stage::finetune:
      return folder.has("finetune.json");
    case stage::data:
      break;
  }
  return false;
}

void run_pipeline(pipeline_command command, pipeline_options options, std::ostream& out) {
  const stage last = last_stage(command);
  run_folder folder(options.out, command == pipeline_command::run && !options.resume
                                     ? run_folder::start::fresh
                                     : run_folder::start::any);
  const auto told = [&](stage which) {
    pipeline_options completed = options;
    folder.complete(completed, which);
    completed.threads = detail::thread_count(exec::cpu{completed.threads});
    return completed;
  };
  const pipeline_options common = told(stage::data);
  if (common.model.empty()) throw usage_error("--model is required");
  if (common.train.empty()) throw usage_error("--train is required");
  check_options(told(last));
  folder.begin(stage::data, common, data_files(common));
  const run_data data = read_run_data(common);
  folder.describe_model(model_facts(data, common));

  const pipeline_options last_options = told(last);
  const bool plain = last == stage::finetune &&
                     takes_all("--data-budget", last_options.data_budget) &&
                     takes_all("--parameter-budget", last_options.parameter_budget);
  if (!plain) {
    const pipeline_options selecting = told(stage::select);
    check_options(selecting);
    if (command == pipeline_command::warmup || needs_warmup(data, selecting)) {
      pipeline_options warming = told(stage::warmup);
      // Whether theta moves, and what is read of it, is the selection's affair.
      warming.checkpoint = selecting.checkpoint;
      warming.order = selecting.order;
      warming.step = selecting.step;
      warming.curvature = selecting.curvature;
      folder.begin(stage::warmup, warming, {});
      warmup_stage(folder, data, warming);
    }
    if (last >= stage::select) {
      folder.begin(stage::select, selecting, selection_files(selecting));
      select_stage(folder, data, selecting);
    }
  }
  if (last == stage::finetune) {
    folder.begin(stage::finetune, last_options, {});
    finetune_stage(folder, data, last_options);
  }
  summarise(folder, options, out);
}

}  // namespace dualsft::cli
