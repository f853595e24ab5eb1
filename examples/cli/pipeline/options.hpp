// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/cwsd.hpp>
#include <dualsft/data_scores.hpp>
#include <dualsft/order.hpp>
#include <dualsft/splits.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>

/// What `run` and its stages can be told, and which stage each option means something to.
namespace dualsft::cli {

enum class precision { float32, float64 };

/// The stages in the order in which they run. `data`, the reading of records and their division,
/// is common to all.
enum class stage : unsigned { data = 1, warmup = 2, select = 4, finetune = 8 };

class stage_set {
 public:
  constexpr stage_set(stage one) : bits_(static_cast<unsigned>(one)) {}  // NOLINT: a set of one
  constexpr bool has(stage one) const { return meets(one); }
  constexpr bool meets(stage_set other) const { return (bits_ & other.bits_) != 0; }
  constexpr stage_set operator|(stage one) const {
    stage_set out = *this;
    out.bits_ |= static_cast<unsigned>(one);
    return out;
  }

 private:
  unsigned bits_;
};
constexpr stage_set operator|(stage a, stage b) {
  return stage_set(a) | b;
}

std::string_view name_of(stage which);

struct pipeline_options {
  // data
  std::string model, train;
  std::string validation, anchors;  ///< files; empty: taken from `train`
  std::optional<index_t> validation_count, anchor_count;
  double warmup_fraction = 0.1;
  std::string own_template;
  index_t max_length = 1024;
  bool train_on_prompt = false;
  bool skip_bad = false;
  cli::precision precision = cli::precision::float32;
  std::uint64_t seed = 42;
  int threads = 0;  ///< resolved to what the machine has before anything is written
  // warmup and finetune
  index_t warmup_epochs = 1;
  index_t epochs = 3;
  double learning_rate = 2e-5;
  double final_learning_rate = 0;
  index_t batch_size = 64;
  index_t micro_batch_size = 8;
  // select
  std::string checkpoint;  ///< theta_w from here instead of a warmup
  double lambda = 0.2;
  double tau = 2;
  dualsft::confidence confidence = dualsft::confidence::entropy;
  score_order order = score_order::diagonal;
  step_geometry step = step_geometry::plain;
  std::string curvature = "rms";  ///< rms, second-moment, none, or a safetensors file
  score_strategy strategy = score_strategy::automatic;
  std::string data_budget = "0.10", parameter_budget = "0.05";
  double layer_quota = 0, module_quota = 0;
  bool absolute = false;
  std::optional<double> eta;  ///< absent: learning rate / |pool|
  bool compare_full = false;
  bool save_parameter_scores = false;

  // How to run, which no result depends on.
  std::string out;
  bool resume = false;
  bool json = false;
  double save_every = 60;  ///< seconds between saves of an unfinished stage

  /// "--epochs" and so on, of those that the command line gave.
  std::set<std::string, std::less<>> given;
};

/// One option that results depend on, by its name on the command line.
struct setting {
  std::string_view name;
  stage_set stages;  ///< where it means something
  nlohmann::json (*get)(const pipeline_options&);
  /// \throws nlohmann's type errors, usage_error
  void (*set)(pipeline_options&, const nlohmann::json&);
};

/// Every setting, in the order in which settings.json lists them.
std::span<const setting> settings();

/// A budget's text as a count of `total`: digits are a count, 1 and 1.0 mean all, anything else is
/// a ratio in (0, 1).
/// \throws usage_error  naming the option
index_t budget_of(std::string_view option, const std::string& text, index_t total);

/// Whether a budget's text means all; without a total.
bool takes_all(std::string_view option, const std::string& text);

/// Ranges and combinations that need no file.
/// \throws usage_error  naming the option, the value and the rule
void check_options(const pipeline_options& options);

}  // namespace dualsft::cli
