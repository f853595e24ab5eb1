// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/order.hpp>
#include <iosfwd>
#include <string>

/// `dualsft score`: dual scores from arrays.
namespace dualsft::cli {

struct score_options {
  std::string gradients;   ///< G.npy
  std::string validation;  ///< v.npy
  std::string curvature;   ///< D.npy; empty: none
  std::string hessian_gradient;
  score_order order = score_order::diagonal;
  step_geometry step = step_geometry::plain;
  double eta = 0;
  std::string parameter_budget;  ///< a count, or a ratio in (0, 1)
  std::string data_budget;
  std::string out;
  /// Bounds the buffers that grow with the arrays; what does not (some MiB) comes on top.
  std::uint64_t memory_limit = std::uint64_t{1} << 30;
  int threads = 0;
  enum class rank_by { value, magnitude } rank = rank_by::value;
  enum class report_as { text, json } report = report_as::text;
};

/// Scores, selects, writes the files, and reports to `out`.
/// \throws usage_error, input_error, numerical_error, interrupted
void run_score(const score_options& options, std::ostream& out);

}  // namespace dualsft::cli
