// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <functional>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

/// Parameters that take numbers of either floating type where a model's own are wanted. Gradients,
/// products and Fisher values are doubles whatever the model is; without these a float model would
/// need a conversion by hand at every step.
namespace dualsft::detail {

/// Contiguous floats or doubles: a vector, an array, a span.
template <class R>
concept RealRange = std::ranges::contiguous_range<R> &&
    (std::same_as<std::ranges::range_value_t<R>, float> ||
     std::same_as<std::ranges::range_value_t<R>, double>);

template <class Real, class R>
std::vector<Real> converted(const R& values) {
  std::vector<Real> out;
  out.reserve(std::ranges::size(values));
  for (const auto x : values) out.push_back(static_cast<Real>(x));
  return out;
}

/// Numbers to be consumed. A temporary vector of the right type is moved, all else is copied.
template <class Real>
struct real_vector {
  std::vector<Real> values = {};

  real_vector() = default;
  template <class R>
  requires RealRange<std::remove_reference_t<R>>
  // NOLINTNEXTLINE(bugprone-forwarding-reference-overload): a real_vector is no range
  real_vector(R&& range)  // NOLINT(google-explicit-constructor)
      : values([&] {
          if constexpr (std::same_as<std::remove_cvref_t<R>, std::vector<Real>>)
            return std::vector<Real>(std::forward<R>(range));
          else
            return converted<Real>(range);
        }()) {}
};

/// Numbers to be read during a call: referred to if they have the right type, else copied.
template <class Real>
class real_span {
 public:
  real_span() = default;
  template <class R>
  requires RealRange<std::remove_reference_t<R>>
  // NOLINTNEXTLINE(bugprone-forwarding-reference-overload): a real_span is no range
  real_span(R&& range) {  // NOLINT(google-explicit-constructor)
    if constexpr (std::same_as<std::ranges::range_value_t<R>, Real>) {
      values_ = std::span<const Real>(std::ranges::data(range), std::ranges::size(range));
    } else {
      copy_ = converted<Real>(range);
      values_ = copy_;
    }
  }
  real_span(const real_span&) = delete;
  real_span& operator=(const real_span&) = delete;

  std::span<const Real> values() const noexcept { return values_; }

 private:
  std::vector<Real> copy_;
  std::span<const Real> values_;
};

/// x -> H x by any callable that takes std::span<const Real> and returns floats or doubles.
template <class Real>
struct real_product {
  std::function<std::vector<Real>(std::span<const Real>)> call = {};

  real_product() = default;
  template <class F>
  requires RealRange<std::invoke_result_t<F&, std::span<const Real>>>
  // NOLINTNEXTLINE(bugprone-forwarding-reference-overload): a real_product is no callable
  real_product(F f) {  // NOLINT(google-explicit-constructor)
    if constexpr (std::constructible_from<bool, F>)
      if (!static_cast<bool>(f)) return;  // an empty std::function stays one
    if constexpr (std::same_as<std::invoke_result_t<F&, std::span<const Real>>, std::vector<Real>>)
      call = std::move(f);
    else
      call = [f = std::move(f)](std::span<const Real> x) mutable { return converted<Real>(f(x)); };
  }
};

}  // namespace dualsft::detail
