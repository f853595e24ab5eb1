// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <dualsft/config.hpp>
#include <dualsft/detail/rounded.hpp>
#include <dualsft/error.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/float16.hpp>
#include <dualsft/views.hpp>
#include <type_traits>

/// Pass 1 for those who have a gradient already: their training code's, in any of four types.
///
///     accumulate                 sum_j <- sum_j + g_j                        G is a sum, not a mean
///     accumulate_second_moment   s_j   <- beta2 s_j + (1 - beta2) g_j^2      AdamW's, for the rms proxy
///
/// Shapes: all [n], one block of the model or all of it. Gradients are float16, bfloat16, float or
/// double; sums float or double. On the device: accumulate.cuh.
/// Cost: one read of both, one write of the sum.
/// Numerics: the gradient is widened (exact, but for a double added to a float), then every operation
/// is rounded once in the sum's type, in the order written: (beta2 s) + ((gain2 g) g). Never in 16
/// bits. Every back end gives the same bits. NaN and infinities go where the arithmetic takes them.
/// Source: theory.md sections 1 and 5; the second moment is that of adamw_rule.
namespace dualsft {

template <class T>
concept GradientScalar = Storage16<T> || std::same_as<T, float> || std::same_as<T, double>;
template <class T>
concept SumScalar = std::same_as<T, float> || std::same_as<T, double>;

namespace detail {

// What a device does to one coordinate.

template <SumScalar Sum>
struct add_gradient {
  template <GradientScalar T>
  DUALSFT_HOST_DEVICE Sum operator()(Sum sum, T gradient) const {
    return sum + convert_float<Sum>(gradient);
  }
};

template <SumScalar Sum>
struct add_square {
  Sum beta2, gain2;

  explicit add_square(double beta)
      : beta2(static_cast<Sum>(beta)), gain2(static_cast<Sum>(1 - beta)) {}

  template <GradientScalar T>
  DUALSFT_HOST_DEVICE Sum operator()(Sum s, T gradient) const {
    const Sum g = convert_float<Sum>(gradient);
    return rounded_sum(rounded_product(beta2, s), rounded_product(rounded_product(gain2, g), g));
  }
};

template <class T, class Sum, class Space>
void check_accumulate(const char* function, const vector_view<T, Space>& gradient,
                      const vector_view<Sum, Space>& sum) {
  expects(gradient.size() == sum.size(), function, "gradient and sum must have one length",
          "gradient", gradient.size(), "sum", sum.size());
}

inline void check_beta2(double beta2) {
  expects(0 <= beta2 && beta2 < 1, "accumulate_second_moment", "beta2 must lie in [0, 1)", "beta2",
          beta2);
}

template <class T, class Sum>
void add_gradients_at(const vector_view<T>& gradient, const vector_view<Sum>& sum,
                      index_range range) {
  for (index_t j = range.begin; j < range.end; ++j) sum[j] += convert_float<Sum>(gradient[j]);
}

template <class T, class Sum>
DUALSFT_UNFUSED void add_squares_at(const add_square<Sum>& with, const vector_view<T>& gradient,
                                    const vector_view<Sum>& s, index_range range) {
  DUALSFT_UNFUSED_BODY
  for (index_t j = range.begin; j < range.end; ++j) {
    const Sum g = convert_float<Sum>(gradient[j]);
    s[j] = with.beta2 * s[j] + with.gain2 * g * g;
  }
}

inline constexpr index_t accumulate_grain = index_t{1} << 16;

}  // namespace detail

/// sum += gradient
/// \throws invalid_argument  if the lengths differ
template <HostPolicy Policy, class T, SumScalar Sum>
requires GradientScalar<std::remove_const_t<T>>
void accumulate(const Policy& policy, vector_view<T> gradient, vector_view<Sum> sum) {
  detail::check_accumulate("accumulate", gradient, sum);
  detail::parallel_ranges(
      policy, sum.size(), detail::accumulate_grain,
      [&](int, detail::index_range range) { detail::add_gradients_at(gradient, sum, range); });
}

/// s = beta2 s + (1 - beta2) gradient^2
/// \throws invalid_argument  if the lengths differ or beta2 is not in [0, 1)
template <HostPolicy Policy, class T, SumScalar Sum>
requires GradientScalar<std::remove_const_t<T>>
void accumulate_second_moment(const Policy& policy, vector_view<T> gradient, double beta2,
                              vector_view<Sum> s) {
  detail::check_accumulate("accumulate_second_moment", gradient, s);
  detail::check_beta2(beta2);
  const detail::add_square<Sum> with(beta2);
  detail::parallel_ranges(
      policy, s.size(), detail::accumulate_grain,
      [&](int, detail::index_range range) { detail::add_squares_at(with, gradient, s, range); });
}

}  // namespace dualsft
