// SPDX-License-Identifier: Apache-2.0
#include "cost.hpp"

#include <algorithm>
#include <fstream>

namespace dualsft::cli {

namespace {

/// The most memory that has been resident since the last reset, in bytes; 0 where unknown.
index_t peak_resident() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "VmHWM:") {
      index_t kibibytes = 0;
      status >> kibibytes;
      return kibibytes * 1024;
    }
  return 0;
}

}  // namespace

stage_clock::stage_clock(std::string name) : name_(std::move(name)) {
  std::ofstream("/proc/self/clear_refs") << "5";  // resets VmHWM
}

void stage_clock::continue_from(const nlohmann::ordered_json& header) {
  seconds_before_ = header.value("seconds", 0.0);
  peak_before_ = header.value("peak_resident_bytes", index_t{0});
  tokens_ = header.value("tokens", index_t{0});
}

void stage_clock::save(nlohmann::ordered_json& header) const {
  header["seconds"] = seconds();
  header["peak_resident_bytes"] = std::max(peak_before_, peak_resident());
  header["tokens"] = tokens_;
}

double stage_clock::seconds() const {
  return seconds_before_ +
         std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

nlohmann::ordered_json stage_clock::json() const {
  const double time = seconds();
  return {{"name", name_},
          {"seconds", time},
          {"tokens", tokens_},
          {"tokens_per_second", time > 0 ? static_cast<double>(tokens_) / time : 0},
          {"peak_resident_bytes", std::max(peak_before_, peak_resident())}};
}

}  // namespace dualsft::cli
