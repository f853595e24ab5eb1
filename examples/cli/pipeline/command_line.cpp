// SPDX-License-Identifier: Apache-2.0
#include "command_line.hpp"

#include <charconv>

#include "../natural_number.hpp"
#include "../usage_error.hpp"

namespace dualsft::cli {

namespace {

stage_set stages_of(pipeline_command command) {
  using enum stage;
  switch (command) {
    case pipeline_command::warmup:
      return data | warmup;
    case pipeline_command::select:
      return data | warmup | select;
    case pipeline_command::run:
    case pipeline_command::finetune:
      break;
  }
  return data | warmup | select | finetune;
}

/// Adds options that mean something to a command, and notes which of them were given.
class option_table {
 public:
  option_table(CLI::App* app, stage_set stages, std::shared_ptr<pipeline_options> options)
      : app_(app), stages_(stages), options_(std::move(options)) {}

  template <class T>
  CLI::Option* value(const std::string& name, T pipeline_options::*member,
                     const std::string& help) {
    if (!wanted(name)) return nullptr;
    return app_->add_option_function<T>(
        name,
        [options = options_, name, member](const T& given) {
          (*options).*member = given;
          options->given.insert(name);
        },
        help);
  }

  void flag(const std::string& name, bool pipeline_options::*member, const std::string& help) {
    if (!wanted(name)) return;
    app_->add_flag_callback(
        name,
        [options = options_, name, member] {
          (*options).*member = true;
          options->given.insert(name);
        },
        help);
  }

  /// \param parse  std::optional of the value from a text
  template <class T, class Parse>
  void choice(const std::string& name, T pipeline_options::*member, Parse parse,
              const std::string& expected, const std::string& help) {
    if (!wanted(name)) return;
    app_->add_option_function<std::string>(
            name,
            [options = options_, name, member, parse, expected](const std::string& text) {
              const auto parsed = parse(text);
              if (!parsed) throw usage_error(name + " " + text + ": expected " + expected);
              (*options).*member = *parsed;
              options->given.insert(name);
            },
            help)
        ->type_name("NAME");
  }

 private:
  bool wanted(const std::string& name) const {
    for (const setting& s : settings())
      if (s.name == name) return s.stages.meets(stages_);
    return true;
  }

  CLI::App* app_;
  stage_set stages_;
  std::shared_ptr<pipeline_options> options_;
};

std::optional<precision> precision_from(std::string_view name) {
  if (name == "float32") return precision::float32;
  if (name == "float64") return precision::float64;
  if (name == "bfloat16")
    throw usage_error(
        "--precision bfloat16: needs --device cuda; the processor computes in float32 "
        "(weights stored as bfloat16 are read and written as such)");
  return std::nullopt;
}

std::optional<std::optional<double>> eta_from(std::string_view text) {
  if (text == "auto") return std::optional<double>();
  double value = 0;
  const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || at != text.data() + text.size()) return std::nullopt;
  return std::optional<double>(value);
}

void limit(CLI::Option* option, index_t least, index_t most) {
  if (option != nullptr) option->check(CLI::Range(least, most));
}

}  // namespace

void add_pipeline_options(CLI::App* app, pipeline_command command,
                          const std::shared_ptr<pipeline_options>& options) {
  using o = pipeline_options;
  constexpr index_t large = index_t{1} << 40;
  option_table add(app, stages_of(command), options);
  app->add_option("--out", options->out, "folder of the run")->required();
  add.value("--model", &o::model, "checkpoint folder: theta_0");
  add.value("--train", &o::train, "records: JSONL, or a JSON array");
  add.value("--validation", &o::validation, "records of the objective (default: from --train)");
  limit(app->add_option_function<index_t>(
            "--validation-count",
            [options](index_t n) {
              options->validation_count = n;
              options->given.insert("--validation-count");
            },
            "records taken from --train for it (default 1024, at most a tenth)"),
        1, large);
  add.value("--anchors", &o::anchors, "records of self-distillation (default: from --train)");
  limit(app->add_option_function<index_t>(
            "--anchor-count",
            [options](index_t n) {
              options->anchor_count = n;
              options->given.insert("--anchor-count");
            },
            "records taken from --train for it (default 2048, at most a fifth)"),
        0, large);
  add.value("--warmup-fraction", &o::warmup_fraction,
            "of the candidates, for the warmup; they are not scored (default 0.1)");
  add.value("--template", &o::own_template, "file with {prompt}, {input}, {response}");
  limit(add.value("--max-length", &o::max_length, "tokens of a record; the rest is cut (1024)"), 2,
        index_t{1} << 24);
  add.flag("--train-on-prompt", &o::train_on_prompt, "loss on prompts too");
  add.flag("--skip-bad", &o::skip_bad, "count records that cannot be used, and go on");
  add.choice("--precision", &o::precision, precision_from, "float32, float64 or bfloat16",
             "float32 (default) or float64; bfloat16 with --device cuda");
  app->add_option_function<std::string>(
         "--device",
         [](const std::string& name) {
           if (name == "cuda")
             throw usage_error("--device cuda: this program was built without CUDA");
           if (name != "cpu") throw usage_error("--device " + name + ": expected cpu or cuda");
         },
         "cpu (default) or cuda")
      ->type_name("NAME");
  if (CLI::Option* seed = add.value("--seed", &o::seed, "of splits and orders (default 42)"))
    seed->check(natural_number);
  if (CLI::Option* threads = add.value("--threads", &o::threads, "0 (default): all of the machine"))
    threads->check(CLI::Range(0, 4096));

  limit(add.value("--warmup-epochs", &o::warmup_epochs, "over the warmup records (default 1)"), 0,
        large);
  limit(add.value("--epochs", &o::epochs, "of fine-tuning (default 3)"), 0, large);
  add.value("--learning-rate", &o::learning_rate, "peak of the cosine schedule (default 2e-5)");
  add.value("--final-learning-rate", &o::final_learning_rate, "its end (default 0)");
  limit(add.value("--batch-size", &o::batch_size, "examples per update (default 64)"), 1, large);
  limit(add.value("--micro-batch-size", &o::micro_batch_size,
                  "examples that go through the model together (default 8)"),
        1, index_t{1} << 20);

  add.value("--checkpoint", &o::checkpoint, "checkpoint folder that is theta_w: no warmup");
  add.value("--lambda", &o::lambda, "weight of self-distillation in the objective (default 0.2)");
  add.value("--tau", &o::tau, "temperature of self-distillation (default 2)");
  add.choice("--confidence", &o::confidence, confidence_from,
             "entropy, exp-entropy, max-prob or uniform",
             "weights of the anchors: entropy (default), exp-entropy, max-prob, uniform");
  add.choice("--order", &o::order, score_order_from, "first, diagonal, full or joint",
             "of the expansion: diagonal (default), first, full, joint");
  add.choice("--step", &o::step, step_geometry_from, "sgd or adamw",
             "the step that scores look ahead by: sgd (default), adamw");
  add.value("--curvature", &o::curvature,
            "rms (default), second-moment, none, or a safetensors file");
  add.choice("--strategy", &o::strategy, score_strategy_from,
             "automatic, ghost, jvp, materialised or difference",
             "how data scores are formed: ghost (automatic), jvp, materialised, difference");
  add.value("--data-budget", &o::data_budget,
            "examples kept: a count, a ratio in (0, 1), or 1 for all (default 0.10)");
  add.value("--parameter-budget", &o::parameter_budget, "parameters kept: likewise (default 0.05)");
  add.value("--layer-quota", &o::layer_quota, "share of the mask spread over layers (default 0)");
  add.value("--module-quota", &o::module_quota, "and over kinds of modules (default 0)");
  add.flag("--absolute", &o::absolute, "rank by |score|");
  add.choice("--eta", &o::eta, eta_from, "auto or a number",
             "local step size; auto (default): learning rate / pool size");
  add.flag("--compare-full", &o::compare_full,
           "also score at full order, and say whether the selection stands");
  add.flag("--save-parameter-scores", &o::save_parameter_scores, "write all parameter scores");

  app->add_flag("--resume", options->resume,
                command == pipeline_command::run
                    ? "go on with the run in --out"
                    : "accepted as with run; a stage goes on from what it finds in any case");
  app->add_option("--save-every", options->save_every,
                  "seconds between saves of an unfinished stage (default 60)")
      ->check(CLI::NonNegativeNumber);
  app->add_flag("--json", options->json, "print one JSON object");
}

}  // namespace dualsft::cli
