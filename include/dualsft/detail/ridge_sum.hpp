// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/random.hpp>
#include <span>
#include <vector>

/// A smooth function whose derivatives and smoothness constants are all known, for checking the
/// statements that have a remainder: F(x) = sum_k a_k log cosh(w_k . x + b_k).
namespace dualsft::detail {

class ridge_sum {
 public:
  ridge_sum(index_t terms, index_t size, random_source& random) : size_(size) {
    for (index_t k = 0; k < terms; ++k) {
      heights_.push_back(random.normal());
      offsets_.push_back(random.normal());
      for (index_t j = 0; j < size; ++j) slopes_.push_back(random.normal());
    }
  }

  double operator()(std::span<const double> x) const {
    double sum = 0.0;
    for (std::size_t k = 0; k < heights_.size(); ++k) {
      const double t = std::abs(argument(k, x));  // log cosh without overflow
      sum += heights_[k] * (t + std::log1p(std::exp(-2.0 * t)) - std::log(2.0));
    }
    return sum;
  }

  std::vector<double> gradient(std::span<const double> x) const {
    std::vector<double> g(x.size(), 0.0);
    for (std::size_t k = 0; k < heights_.size(); ++k) {
      const double c = heights_[k] * std::tanh(argument(k, x));
      for (std::size_t j = 0; j < g.size(); ++j) g[j] += c * slope(k, j);
    }
    return g;
  }

  /// [size, size], row-major
  std::vector<double> hessian(std::span<const double> x) const {
    const std::size_t d = x.size();
    std::vector<double> h(d * d, 0.0);
    for (std::size_t k = 0; k < heights_.size(); ++k) {
      const double t = std::tanh(argument(k, x));
      const double c = heights_[k] * (1.0 - t * t);
      for (std::size_t i = 0; i < d; ++i)
        for (std::size_t j = 0; j < d; ++j) h[i * d + j] += c * slope(k, i) * slope(k, j);
    }
    return h;
  }

  // |tanh| <= 1, |tanh'| <= 1, |tanh''| <= 4 / (3 sqrt 3), and each term contributes |w_k|^order.
  double gradient_bound() const { return constant(1); }
  double gradient_lipschitz() const { return constant(2); }
  double hessian_lipschitz() const { return 4.0 / (3.0 * std::sqrt(3.0)) * constant(3); }

 private:
  double slope(std::size_t k, std::size_t j) const {
    return slopes_[k * static_cast<std::size_t>(size_) + j];
  }
  double argument(std::size_t k, std::span<const double> x) const {
    double t = offsets_[k];
    for (std::size_t j = 0; j < x.size(); ++j) t += slope(k, j) * x[j];
    return t;
  }
  double constant(int power) const {
    double sum = 0.0;
    for (std::size_t k = 0; k < heights_.size(); ++k) {
      double squares = 0.0;
      for (std::size_t j = 0; j < static_cast<std::size_t>(size_); ++j)
        squares += slope(k, j) * slope(k, j);
      sum += std::abs(heights_[k]) * std::pow(std::sqrt(squares), power);
    }
    return sum;
  }

  index_t size_;
  std::vector<double> heights_, offsets_, slopes_;
};

}  // namespace dualsft::detail
