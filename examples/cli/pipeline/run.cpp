// SPDX-License-Identifier: Apache-2.0
#include "run.hpp"

#include <dualsft/execution.hpp>
#include <dualsft/llm/checkpoint.hpp>
#include <dualsft/llm/parameter_files.hpp>
#include <ostream>
#include <sstream>

#include "../usage_error.hpp"
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

/// What a selection needs.
void check_selection(const run_data& data, const pipeline_options& options) {
  if (!options.eta && options.learning_rate == 0)
    throw usage_error(
        "--eta auto: is learning rate / pool size, which needs a learning rate above 0");
  if (data.split.validation.empty())
    throw usage_error("--validation-count 0: a selection needs validation records");
  if (data.split.anchors.empty() && options.lambda > 0)
    throw usage_error("--anchor-count 0: preservation needs anchors; or give --lambda 0");
}

/// Results must not be written over what they are made from.
void check_places(const pipeline_options& options) {
  const auto check = [&](const std::string& option, const std::string& path) {
    if (!path.empty() && !result_at(options.out, path).empty())
      throw usage_error("--out " + options.out + ": " + option + " " + path +
                        " would be written over; take another folder");
  };
  for (const inputs& files : {data_files(options), selection_files(options)})
    for (const auto& [option, path] : files) check(option, path);
}

std::string selection_text(const ordered_json& s) {
  std::ostringstream out;
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
  return out.str();
}

std::string fine_tuning_text(const ordered_json& f) {
  std::ostringstream out;
  out << "fine-tuned          " << f.at("trained_parameters") << " parameters on "
      << f.at("examples") << " examples, " << f.at("steps") << " steps; validation loss "
      << f.at("validation_loss_before") << " -> " << f.at("validation_loss_after") << "\n";
  return out.str();
}

void summarise(const run_folder& folder, const pipeline_options& options, std::ostream& out) {
  struct part {
    const char *name, *file;
    std::string (*text)(const ordered_json&);
  };
  ordered_json all = ordered_json::object();
  std::string lines;
  for (const part& each : {part{"selection", "summary.json", selection_text},
                           part{"finetune", "finetune.json", fine_tuning_text}}) {
    if (!folder.has(each.file)) continue;
    all[each.name] = folder.read(each.file);
    try {
      lines += each.text(all[each.name]);
    } catch (const json::exception&) {
      throw input_error(folder.file(each.file), "contents", "other fields",
                        "what this program wrote");
    }
  }
  all["out"] = folder.path();
  if (options.json)
    out << all.dump(2) << "\n";
  else
    out << lines << "written to          " << folder.path() << "\n";
}

/// What fails in a stage leaves the stages before it, and what this one has saved.
template <class Stage>
void keeping(const run_folder& folder, Stage&& run) {
  const std::string kept =
      "; " + folder.path() + " keeps what was done, and --resume goes on from there";
  try {
    run();
  } catch (const input_error& error) {
    throw input_error(error.file(), error.field(), error.found(), error.expected() + kept);
  } catch (const numerical_error& error) {
    throw numerical_error(error.what() + kept);
  } catch (const json::exception&) {
    throw input_error(folder.file("state"), "contents", "other fields",
                      "what this program wrote (remove the folder to begin the stage anew)");
  }
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
    if (last >= stage::select) check_selection(data, selecting);
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
      keeping(folder, [&] { warmup_stage(folder, data, warming); });
    if (last >= stage::select) {
      folder.begin(stage::select, selecting, selection_files(selecting));
      keeping(folder, [&] { select_stage(folder, data, selecting); });
    }
  }
  if (last == stage::finetune) {
    folder.begin(stage::finetune, last_options, {});
    keeping(folder, [&] { finetune_stage(folder, data, last_options); });
  }
  summarise(folder, options, out);
}

}  // namespace dualsft::cli
