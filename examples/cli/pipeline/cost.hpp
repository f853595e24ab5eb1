// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <dualsft/config.hpp>
#include <nlohmann/json.hpp>
#include <string>

namespace dualsft::cli {

/// Seconds, tokens and peak memory of a stage, over all processes that worked at it.
class stage_clock {
 public:
  /// Starts the time, and a new peak where the system can forget the old one (Linux).
  explicit stage_clock(std::string name);

  /// From what save() put into a header.
  void continue_from(const nlohmann::json& header);
  void save(nlohmann::json& header) const;

  void set_tokens(index_t tokens) { tokens_ = tokens; }
  double seconds() const;

  /// {"name", "seconds", "tokens", "tokens_per_second", "peak_resident_bytes"}
  nlohmann::ordered_json json() const;

 private:
  std::string name_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double seconds_before_ = 0;
  index_t peak_before_ = 0;
  index_t tokens_ = 0;
};

}  // namespace dualsft::cli
