// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/concepts.hpp>
#include <limits>
#include <span>
#include <vector>

/// theta as one flat vector, for models that keep it in blocks.
namespace dualsft {

/// A copy of theta [d].
template <TrainableModel M>
std::vector<typename M::scalar_type> parameter_values(const M& model) {
  const parameter_layout& layout = model.layout();
  std::vector<typename M::scalar_type> theta(static_cast<std::size_t>(layout.size()));
  for (index_t b = 0; b < layout.block_count(); ++b)
    std::ranges::copy(model.parameters(b), theta.begin() + layout.block(b).offset);
  return theta;
}

/// theta = values [d].
/// \throws invalid_argument  if the length is not d
template <TrainableModel M>
void assign_parameters(M& model, std::span<const typename M::scalar_type> values) {
  const parameter_layout& layout = model.layout();
  expects(static_cast<index_t>(values.size()) == layout.size(), "assign_parameters",
          "one value per coordinate", "values", values.size(), "d", layout.size());
  for (index_t b = 0; b < layout.block_count(); ++b) {
    const parameter_block& block = layout.block(b);
    std::ranges::copy(values.subspan(static_cast<std::size_t>(block.offset),
                                     static_cast<std::size_t>(block.size())),
                      model.parameters(b).begin());
  }
}

/// Puts a model's theta back, bit for bit, when it goes out of scope.
template <TrainableModel M>
class parameter_guard {
 public:
  using scalar_type = typename M::scalar_type;

  explicit parameter_guard(M& model) : model_(model), saved_(parameter_values(model)) {}
  parameter_guard(const parameter_guard&) = delete;
  parameter_guard& operator=(const parameter_guard&) = delete;
  ~parameter_guard() { restore(); }

  std::span<const scalar_type> saved() const { return saved_; }

  /// theta = saved + step * direction
  void displace(std::span<const scalar_type> direction, double step) {
    const parameter_layout& layout = model_.layout();
    for (index_t b = 0; b < layout.block_count(); ++b) {
      const auto offset = static_cast<std::size_t>(layout.block(b).offset);
      const std::span<scalar_type> theta = model_.parameters(b);
      for (std::size_t j = 0; j < theta.size(); ++j)
        theta[j] = static_cast<scalar_type>(static_cast<double>(saved_[offset + j]) +
                                            step * static_cast<double>(direction[offset + j]));
    }
  }

  void restore() { assign_parameters(model_, std::span<const scalar_type>(saved_)); }

 private:
  M& model_;
  std::vector<scalar_type> saved_;
};

namespace detail {

/// The factor e for which a displacement e * direction has length `length`, or the default length
/// cbrt(eps) * (1 + rms(theta)) when `length` is 0: truncation (e^2) and rounding (eps / e) errors
/// of a central difference are then of one size. Returns 0 for a direction of zeros.
template <class Real>
double difference_factor(std::span<const Real> theta, std::span<const Real> direction,
                         double length) {
  double theta_squares = 0;
  double squares = 0;
  for (const Real x : theta) theta_squares += static_cast<double>(x) * static_cast<double>(x);
  for (const Real x : direction) squares += static_cast<double>(x) * static_cast<double>(x);
  if (squares == 0) return 0;
  if (length == 0) {
    const double rms =
        theta.empty() ? 0 : std::sqrt(theta_squares / static_cast<double>(theta.size()));
    length = std::cbrt(static_cast<double>(std::numeric_limits<Real>::epsilon())) * (1 + rms);
  }
  return length / std::sqrt(squares);
}

}  // namespace detail
}  // namespace dualsft
