// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

/// `dualsft init`: a checkpoint with random weights.
namespace dualsft::cli {

struct init_options {
  std::string config;     ///< config.json
  std::string tokenizer;  ///< a tokenizer.json, or "bytes"
  std::uint64_t seed = 0;
  std::string out;
  int threads = 0;
  bool json = false;
};

/// Writes config.json, model.safetensors, tokenizer.json and tokenizer_config.json.
/// \throws input_error
void run_init(const init_options& options, std::ostream& out);

}  // namespace dualsft::cli
