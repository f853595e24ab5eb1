// SPDX-License-Identifier: Apache-2.0
#include "run.hpp"

#include <dualsft/execution.hpp>
#include <dualsft/llm/checkpoint.hpp>
#include <dualsft/llm/parameter_files.hpp>
#include <filesystem>
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

inputs checkpoint_files(const pipeline_options& options) {
  if (options.checkpoint.empty()) return {};
  return {{"--checkpoint", options.checkpoint}};
}

inputs selection_files(const pipeline_options& options) {
  inputs files = checkpoint_files(options);
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
          {"dtype", dualsft::detail::row_of(source.type(0)).name}};
}

/// What would otherwise be found out behind hours of work.
void check_against_model(const run_data& data, const pipeline_options& options) {
  const parameter_layout layout = llm::map_transformer(data.folder.config).layout;
  const safetensors_checkpoint files(options.model);
  for (const tensor_type type : llm::weight_source(files, layout).types())
    if (type == tensor_type::f64 && options.precision == precision::float32)
      throw usage_error("--precision float32: " + options.model +
                        " stores F64, whose other bits would be lost; give --precision float64");
  if (!options.checkpoint.empty()) {
    const safetensors_checkpoint checkpoint(options.checkpoint);
    const llm::weight_source fits(checkpoint, layout);
  }
  for (const auto& [option, path] : selection_files(options))
    if (option == "--curvature") llm::check_parameter_values(path, layout);
  (void)budget_of("--parameter-budget", options.parameter_budget, layout.size());
  const index_t wanted = budget_of("--data-budget", options.data_budget, data.split.candidates());
  const auto pool = static_cast<index_t>(data.split.pool.size());
  if (wanted > pool && !takes_all("--data-budget", options.data_budget))
    throw usage_error("--data-budget " + options.data_budget + ": the pool has only " +
                      std::to_string(pool) + " examples, the warmup the others");
}

/// Who must be there for a selection.
void check_roles(const run_data& data, const pipeline_options& options) {
  if (data.split.validation.empty())
    throw usage_error("--validation-count 0: a selection needs validation records");
  if (data.split.anchors.empty() && options.lambda > 0)
    throw usage_error("--anchor-count 0: preservation needs anchors; or give --lambda 0");
}

/// Results must not be written over what they are made from.
void check_places(const pipeline_options& options) {
  std::error_code unknown;
  const auto real = [&](const std::string& path) {
    return std::filesystem::weakly_canonical(path, unknown);
  };
  for (const auto& [option, path] :
       {std::pair{"--model", &options.model}, std::pair{"--checkpoint", &options.checkpoint}})
    for (const char* part : {"", "/model", "/warmup"})
      if (!real(*path).empty() && real(*path) == real(options.out + part))
        throw usage_error("--out " + options.out + ": would be written over " + option + " " +
                          *path + "; take another folder");
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
    out << "scored " << s.at("examples") << " examples x " << s.at("parameters")
        << " parameters, order " << s.at("order").get<std::string>() << ", step "
        << s.at("step").get<std::string>() << ", by " << s.at("strategy").get<std::string>()
        << ", in " << s.at("seconds") << " s\n"
        << "conservation gap    " << s.at("conservation_gap") << "\n"
        << "parameters          " << s.at("parameter_budget") << " selected, boundary gap "
        << s.at("parameter_boundary_gap") << "\n"
        << "examples            " << s.at("data_budget") << " selected, boundary gap "
        << s.at("data_boundary_gap") << "\n";
    if (!s.at("cost").at("selection_over_epoch").is_null())
      out << "cost                " << s.at("cost").at("selection_over_epoch")
          << " epochs over the pool, warmup included\n";
  }
  if (all.contains("finetune")) {
    const ordered_json& f = all["finetune"];
    out << "fine-tuned          " << f.at("trained_parameters") << " parameters on "
        << f.at("examples") << " examples, " << f.at("steps") << " steps; validation loss "
        << f.at("validation_loss_before") << " -> " << f.at("validation_loss_after") << "\n";
  }
  out << "written to          " << folder.path() << "\n";
}

}  // namespace

void run_pipeline(pipeline_command command, pipeline_options options, std::ostream& out) {
  const stage last = last_stage(command);
  check_places(options);
  run_folder folder(options.out, command == pipeline_command::run && !options.resume
                                     ? run_folder::start::fresh
                                     : run_folder::start::any);
  const auto told = [&](stage which) {
    pipeline_options completed = options;
    folder.complete(completed, which);
    if (completed.threads == 0) completed.threads = dualsft::detail::thread_count(exec::cpu{});
    return completed;
  };
  const pipeline_options common = told(stage::data);
  check_places(common);
  if (common.model.empty()) throw usage_error("--model is required");
  if (common.train.empty()) throw usage_error("--train is required");
  const pipeline_options last_options = told(last);
  check_options(last_options);
  // Nothing is settled before it is known to be possible.
  const run_data data = read_run_data(common);
  check_against_model(data, last_options);
  const bool plain = last == stage::finetune && !folder.has_left(stage::select) &&
                     takes_all("--data-budget", last_options.data_budget) &&
                     takes_all("--parameter-budget", last_options.parameter_budget);
  const pipeline_options selecting = told(stage::select);
  if (!plain) {
    check_options(selecting);
    if (last >= stage::select) check_roles(data, selecting);
    (void)needs_warmup(data, selecting);
  }
  folder.begin(stage::data, common, data_files(common));
  folder.describe_model(model_facts(data, common));

  if (!plain) {
    pipeline_options warming = told(stage::warmup);
    // What is read of it is the selection's affair.
    warming.order = selecting.order;
    warming.step = selecting.step;
    warming.curvature = selecting.curvature;
    // Also where there is none: what theta_w is decides the selection.
    folder.begin(stage::warmup, warming, checkpoint_files(warming));
    if (command == pipeline_command::warmup || needs_warmup(data, selecting))
      warmup_stage(folder, data, warming);
    if (last >= stage::select) {
      folder.begin(stage::select, selecting, selection_files(selecting));
      select_stage(folder, data, selecting);
    }
  }
  if (last == stage::finetune) {
    folder.begin(stage::finetune, last_options, {});
    finetune_stage(folder, data, last_options);
  }
  try {
    summarise(folder, options, out);
  } catch (const json::exception& error) {
    throw input_error(folder.path(), "summary.json, finetune.json", error.what(),
                      "what this program wrote");
  }
}

}  // namespace dualsft::cli
