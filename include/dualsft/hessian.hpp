// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/gradients.hpp>
#include <dualsft/parameters.hpp>
#include <span>
#include <utility>
#include <vector>

/// The product of a loss's Hessian with one vector; the Hessian itself is never formed.
///
///     H x = mean over the examples of (hess l_i) x
///
/// by the model's own product where it has one (HasHessianProduct), else by the central difference
///
///     H x ~ [ grad L(theta + e x) - grad L(theta - e x) ] / (2 e)
///
/// at the cost of two gradients, with error O(e^2) + O(eps / e); e is chosen so that the
/// displacement has length cbrt(eps) (1 + rms(theta)), eps the rounding of the model's scalar. In
/// float such a product keeps about five digits of the largest entries: enough to rank, not to
/// certify. theta is put back bit for bit, also when a call throws.
/// Source: theory.md section 2, "Full order at scale".
namespace dualsft {

struct hessian_options {
  index_t batch_size = 32;
  /// Length of the displacement of the central difference; 0 chooses as stated above.
  double difference_length = 0;
  bool difference = false;  ///< take the difference even if the model has a product of its own
};

namespace detail {

/// [ g(theta + e x) - g(theta - e x) ] / (2 e) for any gradient that depends on the model's theta;
/// gradient() must return d doubles.
template <TrainableModel M, class Gradient>
std::vector<double> difference_product(M& model, std::span<const typename M::scalar_type> x,
                                       double length, Gradient&& gradient) {
  parameter_guard<M> guard(model);
  const double e = difference_factor(guard.saved(), x, length);
  std::vector<double> product(x.size(), 0.0);
  if (e == 0) return product;
  guard.displace(x, e);
  product = gradient();
  guard.displace(x, -e);
  const std::vector<double> behind = gradient();
  for (std::size_t j = 0; j < product.size(); ++j) product[j] = (product[j] - behind[j]) / (2 * e);
  return product;
}

}  // namespace detail

/// \param x   [d]
/// \return    H x [d]; zeros for an empty list of examples
/// \throws invalid_argument  if x is not [d], or a difference is asked of a const model or of one
///                           that does not give access to its parameters
template <HostPolicy Policy, class M>
requires CurvatureModel<std::remove_const_t<M>> std::vector<double> mean_hessian_product(
    const Policy& policy, M& model, example_span examples,
    std::span<const typename M::scalar_type> x, const hessian_options& options = {}) {
  using Model = std::remove_const_t<M>;
  using Real = typename M::scalar_type;
  expects(static_cast<index_t>(x.size()) == model.layout().size(), "mean_hessian_product",
          "x must have one value per coordinate", "x", x.size(), "d", model.layout().size());
  expects(options.batch_size >= 1, "mean_hessian_product", "batch_size must be positive",
          "batch_size", options.batch_size);
  const double weight = examples.empty() ? 0.0 : 1.0 / static_cast<double>(examples.size());
  std::vector<double> product;
  if (HasHessianProduct<Model> && !options.difference) {
    if constexpr (HasHessianProduct<Model>) {
      std::vector<std::vector<double>> partial(
          static_cast<std::size_t>(detail::thread_count(policy)));
      detail::parallel_batches<Model>(
          policy, static_cast<index_t>(examples.size()), options.batch_size,
          [&](int part, detail::index_range range) {
            std::vector<double>& sum = partial[static_cast<std::size_t>(part)];
            sum.assign(x.size(), 0.0);
            std::vector<Real> scratch;
            for (index_t b = range.begin; b < range.end; ++b) {
              scratch.assign(x.size(), Real{0});
              std::as_const(model).accumulate_hessian_product(
                  detail::batch_of(examples, options.batch_size, b), x, std::span<Real>(scratch));
              for (std::size_t j = 0; j < sum.size(); ++j)
                sum[j] += static_cast<double>(scratch[j]);
            }
          });
      product.assign(x.size(), 0.0);
      for (const std::vector<double>& sum : partial)
        for (std::size_t j = 0; j < sum.size(); ++j) product[j] += sum[j];
    }
  } else if constexpr (TrainableModel<Model> && !std::is_const_v<M>) {
    product = detail::difference_product(model, x, options.difference_length, [&] {
      return sum_gradients(policy, std::as_const(model), examples,
                           {.batch_size = options.batch_size})
          .sum;
    });
  } else {
    expects(false, "mean_hessian_product",
            "a difference of gradients moves theta: pass a mutable model with parameters(block)");
  }
  for (double& value : product) value *= weight;
  return product;
}

}  // namespace dualsft
