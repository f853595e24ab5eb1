// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <dualsft/error.hpp>
#include <dualsft/gradients.hpp>
#include <dualsft/order.hpp>
#include <dualsft/random.hpp>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

/// Curvature proxies D [d]: diagonal stand-ins for the Hessian H of the validation objective.
///
/// | proxy           | D_j                                  | cost                              |
/// |-----------------|--------------------------------------|-----------------------------------|
/// | rms             | sqrt(s_j / (1 - beta2^T)) + epsilon  | none: AdamW's second moment s_T   |
/// | second_moment   | s_j                                  | none                              |
/// | exact_diagonal  | H_jj                                 | d Hessian products: small models  |
/// | hutchinson      | mean over probes of z_j (H z)_j      | one Hessian product per probe     |
/// | empirical_fisher| mean_i g_ij^2                        | one gradient per example          |
/// | none            | 0                                    |                                   |
///
/// rms is the paper's: a damped gradient scale in loss per parameter, not a Hessian diagonal in
/// loss per parameter squared; the units differ and so does the size of the second-order term,
/// which is why every result reports that term's share. s must be kept in at least 32 bits (in 16
/// most of it underflows). Source: theory.md section 5, DualSFT Appendix B; Hutchinson 1990, Bekas
/// et al. 2007 (diagonal).
namespace dualsft {

enum class curvature_proxy {
  rms,
  second_moment,
  exact_diagonal,
  hutchinson,
  empirical_fisher,
  none
};

namespace detail {
inline constexpr std::array<std::pair<std::string_view, curvature_proxy>, 6> curvature_names{
    {{"rms", curvature_proxy::rms},
     {"second-moment", curvature_proxy::second_moment},
     {"exact-diagonal", curvature_proxy::exact_diagonal},
     {"hutchinson", curvature_proxy::hutchinson},
     {"empirical-fisher", curvature_proxy::empirical_fisher},
     {"none", curvature_proxy::none}}};
}  // namespace detail

constexpr std::string_view name_of(curvature_proxy proxy) {
  return detail::to_name(detail::curvature_names, proxy);
}
constexpr std::optional<curvature_proxy> curvature_proxy_from(std::string_view name) {
  return detail::from_name(detail::curvature_names, name);
}

struct rms_options {
  double beta2 = 0.999;   ///< of the AdamW run that made s, in [0, 1)
  double epsilon = 1e-8;  ///< damping, >= 0
};

/// sqrt(s / (1 - beta2^steps)) + epsilon
/// \param second_moment  s_T [d], each >= 0
/// \param steps          T >= 1, the updates that made s
/// \throws invalid_argument  if an s is negative, or steps or an option out of its range
template <class Real>
std::vector<Real> rms_curvature(std::span<const Real> second_moment, index_t steps,
                                const rms_options& options = {}) {
  expects(steps >= 1, "rms_curvature", "steps must be at least 1", "steps", steps);
  expects(options.beta2 >= 0 && options.beta2 < 1, "rms_curvature", "beta2 must lie in [0, 1)",
          "beta2", options.beta2);
  expects(options.epsilon >= 0, "rms_curvature", "epsilon must not be negative", "epsilon",
          options.epsilon);
  const double correction = 1 - std::pow(options.beta2, static_cast<double>(steps));
  std::vector<Real> d(second_moment.size());
  for (std::size_t j = 0; j < d.size(); ++j) {
    expects(!(second_moment[j] < 0), "rms_curvature", "s must not be negative", "coordinate", j,
            "s", second_moment[j]);
    d[j] = static_cast<Real>(std::sqrt(static_cast<double>(second_moment[j]) / correction) +
                             options.epsilon);
  }
  return d;
}

namespace detail {
inline void check_product(std::string_view function, const std::vector<double>& product,
                          index_t d) {
  expects(static_cast<index_t>(product.size()) == d, function,
          "the product must have one value per coordinate", "product", product.size(), "d", d);
}
}  // namespace detail

/// H_jj for every j, by d products with unit vectors. For small models and tests.
/// \param product  std::vector<double>(std::span<const Real> x), H x
/// \throws invalid_argument  if what it returns is not [d]
template <class Real, class Product>
std::vector<double> exact_diagonal(index_t d, Product&& product) {
  std::vector<double> diagonal(static_cast<std::size_t>(d));
  std::vector<Real> unit(static_cast<std::size_t>(d), Real{0});
  for (std::size_t j = 0; j < diagonal.size(); ++j) {
    unit[j] = Real{1};
    const std::vector<double> column = product(std::span<const Real>(unit));
    detail::check_product("exact_diagonal", column, d);
    diagonal[j] = column[j];
    unit[j] = Real{0};
  }
  return diagonal;
}

struct hutchinson_result {
  std::vector<double> diagonal;        ///< [d], unbiased
  std::vector<double> standard_error;  ///< [d], of the mean over probes; NaN with one probe
};

/// Mean over `probes` of z .* (H z), z of independent signs.
///
///     Var of one probe = sum_{k != j} H_jk^2
///
/// \param product  as for exact_diagonal
/// \param probes   >= 1
/// \throws invalid_argument  if probes < 1, or what `product` returns is not [d]
template <class Real, class Product>
hutchinson_result hutchinson_diagonal(index_t d, Product&& product, index_t probes,
                                      std::uint64_t seed) {
  expects(probes >= 1, "hutchinson_diagonal", "probes must be at least 1", "probes", probes);
  random_source random(seed);
  hutchinson_result result;
  result.diagonal.assign(static_cast<std::size_t>(d), 0.0);
  std::vector<double> squares(static_cast<std::size_t>(d), 0.0);  // Welford
  std::vector<Real> z(static_cast<std::size_t>(d));
  for (index_t probe = 1; probe <= probes; ++probe) {
    for (Real& x : z) x = static_cast<Real>(random.sign());
    const std::vector<double> hz = product(std::span<const Real>(z));
    detail::check_product("hutchinson_diagonal", hz, d);
    for (std::size_t j = 0; j < z.size(); ++j) {
      const double sample = static_cast<double>(z[j]) * hz[j];
      const double delta = sample - result.diagonal[j];
      result.diagonal[j] += delta / static_cast<double>(probe);
      squares[j] += delta * (sample - result.diagonal[j]);
    }
  }
  result.standard_error.resize(squares.size());
  const double n = static_cast<double>(probes);
  for (std::size_t j = 0; j < squares.size(); ++j)
    result.standard_error[j] = std::sqrt(squares[j] / (n - 1) / n);
  return result;
}

/// mean_i g_ij^2 over the examples.
/// \throws invalid_argument  if the list is empty
template <HostPolicy Policy, GradientModel M>
std::vector<double> empirical_fisher(const Policy& policy, const M& model, example_span examples) {
  expects(!examples.empty(), "empirical_fisher", "the list of examples must not be empty");
  std::vector<double> fisher = sum_gradients(policy, model, examples, {.squares = true}).squares;
  for (double& f : fisher) f /= static_cast<double>(examples.size());
  return fisher;
}

}  // namespace dualsft
