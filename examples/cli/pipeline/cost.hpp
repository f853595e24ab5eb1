// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
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
  void continue_from(const nlohmann::ordered_json& header);
  void save(nlohmann::ordered_json& header) const;

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

/// When to save: every so many seconds, but not so often that saving takes more than a twentieth of
/// the time.
class save_timer {
 public:
  explicit save_timer(double seconds) : seconds_(seconds), next_(clock::now() + in(seconds)) {}

  bool due() const { return clock::now() >= next_; }
  void begin() { begun_ = clock::now(); }
  void end() {
    const clock::time_point now = clock::now();
    next_ = now + in(seconds_);
    if (seconds_ > 0) next_ = std::max(next_, now + 20 * (now - begun_));
  }

 private:
  using clock = std::chrono::steady_clock;
  static clock::duration in(double seconds) {
    return std::chrono::duration_cast<clock::duration>(
        std::chrono::duration<double>(std::min(seconds, 1e9)));
  }

  double seconds_;
  clock::time_point next_, begun_;
};

}  // namespace dualsft::cli
