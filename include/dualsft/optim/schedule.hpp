// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/order.hpp>
#include <numbers>
#include <optional>
#include <string_view>
#include <utility>

/// The learning rate of each step of a run.
namespace dualsft {

/// How the rate falls after the warmup.
enum class schedule_kind {
  cosine,    ///< half a period of a cosine, from peak to final
  linear,    ///< a straight line from peak to final
  constant,  ///< stays at peak
};

namespace detail {
inline constexpr std::array<std::pair<std::string_view, schedule_kind>, 3> schedule_kind_names{
    {{"cosine", schedule_kind::cosine},
     {"linear", schedule_kind::linear},
     {"constant", schedule_kind::constant}}};
}  // namespace detail

/// The names that files and command lines use.
constexpr std::string_view name_of(schedule_kind kind) {
  return detail::to_name(detail::schedule_kind_names, kind);
}
constexpr std::optional<schedule_kind> schedule_kind_from(std::string_view name) {
  return detail::from_name(detail::schedule_kind_names, name);
}

/// A linear warmup from 0 to the peak rate, then the decay of `kind` to the final rate.
///
/// With T = total_steps, W = the warmup steps, and step = 0, 1, ..., T - 1 the number of updates
/// already made (the first update of a run asks for step 0):
///
///     step <  W   peak * step / W
///     step >= W   final + (peak - final) * f(x),   x = min(1, (step - W) / max(1, T - W))
///                 f(x) = (1 + cos(pi x)) / 2  |  1 - x  |  1
///
/// W is warmup_steps if given, else ceil(warmup_ratio * T). So with a warmup the first update has
/// rate 0, and `final` is what step T would have: the last update is one step short of it.
///
/// Source: with final_rate = 0, the schedules of Hugging Face transformers
/// (get_cosine_schedule_with_warmup, get_linear_..., get_constant_...) and its rule for W; there
/// the cosine rises again behind T, here every schedule stays at its end.
struct learning_rate_schedule {
  schedule_kind kind = schedule_kind::cosine;
  double peak = 2e-5;                                  ///< >= 0
  index_t total_steps = 0;                             ///< T >= 0
  double warmup_ratio = 0.03;                          ///< [0, 1]
  std::optional<index_t> warmup_steps = std::nullopt;  ///< >= 0; instead of the ratio
  double final_rate = 0;                               ///< >= 0

  /// W.
  index_t warmup() const {
    if (warmup_steps) return *warmup_steps;
    return static_cast<index_t>(std::ceil(warmup_ratio * static_cast<double>(total_steps)));
  }

  /// The rate of the update that `step` updates precede; step >= 0, also behind T.
  /// \throws invalid_argument  if the step or a member is out of range
  double rate(index_t step) const {
    expects(step >= 0, "learning_rate_schedule::rate", "step must not be negative", "step", step);
    check();
    const index_t w = warmup();
    if (step < w) return peak * (static_cast<double>(step) / static_cast<double>(w));
    const auto span = static_cast<double>(std::max<index_t>(1, total_steps - w));
    const double x = std::min(1.0, static_cast<double>(step - w) / span);
    switch (kind) {
      case schedule_kind::cosine:
        return final_rate + (peak - final_rate) * (0.5 * (1 + std::cos(std::numbers::pi * x)));
      case schedule_kind::linear:
        return final_rate + (peak - final_rate) * (1 - x);
      case schedule_kind::constant:
        break;
    }
    return peak;
  }

  /// \throws invalid_argument  if a member is out of range
  void check() const {
    const auto is_rate = [](double x) { return std::isfinite(x) && x >= 0; };
    expects(is_rate(peak) && is_rate(final_rate), "learning_rate_schedule",
            "rates must be finite and >= 0", "peak", peak, "final_rate", final_rate);
    expects(total_steps >= 0, "learning_rate_schedule", "total_steps must not be negative",
            "total_steps", total_steps);
    expects(0 <= warmup_ratio && warmup_ratio <= 1, "learning_rate_schedule",
            "warmup_ratio must lie in [0, 1]", "warmup_ratio", warmup_ratio);
    expects(warmup_steps.value_or(0) >= 0, "learning_rate_schedule",
            "warmup_steps must not be negative", "warmup_steps", warmup_steps.value_or(0));
  }
};

}  // namespace dualsft
