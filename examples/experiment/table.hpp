// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cmath>
#include <cstdio>
#include <dualsft/execution.hpp>
#include <string>
#include <vector>

/// How experiments run over seeds and what they print of them.
namespace dualsft::experiment {

/// Runs jobs 0 .. count - 1 on all threads, each job whole on one of them.
template <class Job>
void side_by_side(int threads, index_t count, Job&& job) {
  std::atomic<index_t> next{0};
  detail::parallel_parts(threads, [&](int) {
    for (index_t k = next++; k < count; k = next++) job(k);
  });
}

struct summary {
  double mean = 0;
  double deviation = 0;
};

inline summary summarise(const std::vector<double>& values) {
  summary s;
  for (const double x : values) s.mean += x / static_cast<double>(values.size());
  double squares = 0;
  for (const double x : values) squares += (x - s.mean) * (x - s.mean);
  if (values.size() > 1) s.deviation = std::sqrt(squares / static_cast<double>(values.size() - 1));
  return s;
}

inline std::string cell(const summary& s, const char* format = "%.3f ± %.3f") {
  char text[64];
  std::snprintf(text, sizeof text, format, s.mean, s.deviation);
  return text;
}

}  // namespace dualsft::experiment
