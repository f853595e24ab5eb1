// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <dualsft/llm/detail/utf8.hpp>

#include "../usage_error.hpp"

namespace dualsft::cli {

namespace {

using nlohmann::json;

template <class T>
requires(!std::is_enum_v<T>) json json_of(const T& value) {
  return value;
}
template <class T>
json json_of(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}
json json_of(precision value) {
  return value == precision::float32 ? "float32" : "float64";
}
template <class Enum>
requires requires(Enum e) {
  dualsft::name_of(e);
}
json json_of(Enum value) {
  return dualsft::name_of(value);
}

template <class T>
void read(const json& from, T& to) {
  to = from.get<T>();
}
template <class T>
void read(const json& from, std::optional<T>& to) {
  to = from.is_null() ? std::optional<T>() : std::optional<T>(from.get<T>());
}
template <class Enum>
void read_name(const json& from, Enum& to, std::optional<Enum> (*parse)(std::string_view)) {
  const auto found = parse(from.get_ref<const std::string&>());
  if (!found) throw usage_error("settings.json: no such name: " + from.dump());
  to = *found;
}
void read(const json& from, precision& to) {
  const auto& name = from.get_ref<const std::string&>();
  if (name != "float32" && name != "float64")
    throw usage_error("settings.json: no such name: " + from.dump());
  to = name == "float64" ? precision::float64 : precision::float32;
}
void read(const json& from, confidence& to) {
  read_name(from, to, confidence_from);
}
void read(const json& from, score_order& to) {
  read_name(from, to, score_order_from);
}
void read(const json& from, step_geometry& to) {
  read_name(from, to, step_geometry_from);
}
void read(const json& from, score_strategy& to) {
  read_name(from, to, score_strategy_from);
}

template <auto Member>
constexpr setting make(std::string_view name, stage_set stages) {
  return {name, stages, [](const pipeline_options& o) { return json_of(o.*Member); },
          [](pipeline_options& o, const json& value) { read(value, o.*Member); }};
}

constexpr auto every_setting = [] {
  using o = pipeline_options;
  using enum stage;
  return std::array{
      make<&o::model>("--model", data),
      make<&o::train>("--train", data),
      make<&o::validation>("--validation", data),
      make<&o::validation_count>("--validation-count", data),
      make<&o::anchors>("--anchors", data),
      make<&o::anchor_count>("--anchor-count", data),
      make<&o::warmup_fraction>("--warmup-fraction", data),
      make<&o::own_template>("--template", data),
      make<&o::max_length>("--max-length", data),
      make<&o::train_on_prompt>("--train-on-prompt", data),
      make<&o::skip_bad>("--skip-bad", data),
      make<&o::precision>("--precision", data),
      make<&o::seed>("--seed", data),
      make<&o::threads>("--threads", data),
      make<&o::warmup_epochs>("--warmup-epochs", warmup),
      make<&o::epochs>("--epochs", finetune),
      make<&o::learning_rate>("--learning-rate", warmup | select | finetune),
      make<&o::final_learning_rate>("--final-learning-rate", warmup | finetune),
      make<&o::batch_size>("--batch-size", warmup | finetune),
      make<&o::micro_batch_size>("--micro-batch-size", warmup | select | finetune),
      make<&o::checkpoint>("--checkpoint", warmup | select),
      make<&o::lambda>("--lambda", select),
      make<&o::tau>("--tau", select),
      make<&o::confidence>("--confidence", select),
      make<&o::order>("--order", select),
      make<&o::step>("--step", select),
      make<&o::curvature>("--curvature", select),
      make<&o::strategy>("--strategy", select),
      make<&o::data_budget>("--data-budget", select | finetune),
      make<&o::parameter_budget>("--parameter-budget", select | finetune),
      make<&o::layer_quota>("--layer-quota", select),
      make<&o::module_quota>("--module-quota", select),
      make<&o::absolute>("--absolute", select),
      make<&o::eta>("--eta", select),
      make<&o::compare_full>("--compare-full", select),
      make<&o::save_parameter_scores>("--save-parameter-scores", select),
  };
}();

/// A count, or a ratio in (0, 1]; 1 is the ratio.
struct budget_text {
  index_t count = 0;
  double ratio = 0;
};

budget_text parse(std::string_view option, const std::string& text) {
  const auto refuse = [&](const char* rule) {
    throw usage_error(std::string(option) + " " + text + ": " + rule);
  };
  const char* const end = text.data() + text.size();
  budget_text out;
  if (const auto [at, error] = std::from_chars(text.data(), end, out.count); at == end) {
    if (error != std::errc{} || out.count < 1) refuse("a count must lie in [1, 2^63)");
    if (out.count == 1) return {0, 1};
    return out;
  }
  const auto [at, error] = std::from_chars(text.data(), end, out.ratio);
  if (error != std::errc{} || at != end || !(out.ratio > 0 && out.ratio <= 1))
    refuse("must be a count or a ratio in (0, 1]; 1 means all");
  out.count = 0;
  return out;
}

void require(bool holds, std::string_view option, const json& value, std::string_view rule) {
  if (holds) return;
  const bool number = value.is_number_float() && !std::isfinite(value.get<double>());
  throw usage_error(std::string(option) + " " +
                    (number ? std::to_string(value.get<double>()) : value.dump()) + ": " +
                    std::string(rule));
}

}  // namespace

std::string_view name_of(stage which) {
  switch (which) {
    case stage::data:
      return "data";
    case stage::warmup:
      return "warmup";
    case stage::select:
      return "select";
    case stage::finetune:
      break;
  }
  return "finetune";
}

std::span<const setting> settings() {
  return every_setting;
}

index_t budget_of(std::string_view option, const std::string& text, index_t total) {
  const budget_text parsed = parse(option, text);
  if (parsed.count == 0) return budget::ratio(parsed.ratio).of(total);
  if (parsed.count > total)
    throw usage_error(std::string(option) + " " + text + ": there are only " +
                      std::to_string(total));
  return parsed.count;
}

bool takes_all(std::string_view option, const std::string& text) {
  return parse(option, text).ratio == 1;
}

void check_options(const pipeline_options& options) {
  const auto finite_from_zero = [](double x) { return std::isfinite(x) && x >= 0; };
  require(options.warmup_fraction >= 0 && options.warmup_fraction < 1, "--warmup-fraction",
          options.warmup_fraction, "must lie in [0, 1)");
  for (const auto& [name, rate] : {std::pair{"--learning-rate", options.learning_rate},
                                   std::pair{"--final-learning-rate", options.final_learning_rate},
                                   std::pair{"--lambda", options.lambda}})
    require(finite_from_zero(rate), name, rate, "must be finite and not negative");
  require(options.tau > 0 && std::isfinite(options.tau), "--tau", options.tau, "must be positive");
  require(options.layer_quota >= 0 && options.layer_quota <= 1, "--layer-quota",
          options.layer_quota, "must lie in [0, 1]");
  require(options.module_quota >= 0 && options.layer_quota + options.module_quota <= 1,
          "--module-quota", options.module_quota, "must lie in [0, 1 - layer quota]");
  require(!options.eta || (std::isfinite(*options.eta) && *options.eta > 0), "--eta",
          options.eta.value_or(0), "must be positive, or auto");
  require(options.validation.empty() || !options.validation_count, "--validation-count",
          options.validation_count.value_or(0), "cannot be given with --validation");
  require(options.anchors.empty() || !options.anchor_count, "--anchor-count",
          options.anchor_count.value_or(0), "cannot be given with --anchors");
  require(options.step == step_geometry::plain || options.curvature != "none", "--step", "adamw",
          "divides by the curvature, so --curvature none cannot be");
  require(options.save_every >= 0 && std::isfinite(options.save_every), "--save-every",
          options.save_every, "must be finite and not negative");
  require(options.max_length >= 2, "--max-length", options.max_length, "must be at least 2");
  require(options.threads >= 0 && options.threads <= 4096, "--threads", options.threads,
          "must lie in [0, 4096]");
  require(options.micro_batch_size >= 1, "--micro-batch-size", options.micro_batch_size,
          "must be at least 1");
  require(options.batch_size >= 1, "--batch-size", options.batch_size, "must be at least 1");
  for (const auto& [name, epochs] :
       {std::pair{"--epochs", options.epochs}, std::pair{"--warmup-epochs", options.warmup_epochs}})
    require(epochs >= 0, name, epochs, "must not be negative");
  require(!options.compare_full || options.order == score_order::diagonal, "--compare-full",
          dualsft::name_of(options.order), "compares --order diagonal with full order only");
  for (const auto& [name, path] :
       {std::pair{"--model", &options.model}, std::pair{"--train", &options.train},
        std::pair{"--validation", &options.validation}, std::pair{"--anchors", &options.anchors},
        std::pair{"--template", &options.own_template},
        std::pair{"--checkpoint", &options.checkpoint},
        std::pair{"--curvature", &options.curvature}, std::pair{"--out", &options.out}})
    if (llm::detail::find_invalid_utf8(*path) != std::string::npos)
      throw usage_error(std::string(name) + " " + *path +
                        ": must be UTF-8, which the files of the run need");
  (void)parse("--data-budget", options.data_budget);
  (void)parse("--parameter-budget", options.parameter_budget);
}

}  // namespace dualsft::cli
