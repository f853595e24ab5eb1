// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <iosfwd>
#include <string>

/// `dualsft evaluate`: the loss of a checkpoint on records, and its answers.
namespace dualsft::cli {

struct evaluate_options {
  std::string model;  ///< checkpoint folder
  std::string data;   ///< JSONL or JSON
  std::string own_template;
  index_t max_length = 1024;
  index_t max_new_tokens = 256;
  index_t limit = 0;  ///< records looked at; 0: all
  int threads = 0;
  bool train_on_prompt = false;
  bool skip_bad = false;
  bool json = false;
  enum class generate_kind { none, exact_match } generate = generate_kind::none;
  enum class scalar { float32, float64 } precision = scalar::float32;
};

/// \throws input_error, numerical_error, interrupted
void run_evaluate(const evaluate_options& options, std::ostream& out);

}  // namespace dualsft::cli
