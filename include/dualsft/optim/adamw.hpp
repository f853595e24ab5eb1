// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/detail/optim_roots.hpp>
#include <dualsft/detail/rounded.hpp>
#include <dualsft/error.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/optim/dense_optimizer.hpp>
#include <span>
#include <string_view>
#include <utility>

/// AdamW: Adam with decoupled weight decay, dense.
namespace dualsft {

struct adamw_options {
  double beta1 = 0.9;       ///< [0, 1)
  double beta2 = 0.999;     ///< [0, 1)
  double epsilon = 1e-8;    ///< > 0, also once rounded to Real; added outside the root
  double weight_decay = 0;  ///< >= 0; theta shrinks by learning_rate * weight_decay per step
};

/// The update rule, shared by adamw and masked_adamw.
///
/// In exact arithmetic, with g the gradient at step t = 1, 2, ...:
///
///     m <- beta1 m + (1 - beta1) g            s <- beta2 s + (1 - beta2) g^2
///     theta <- theta (1 - lr weight_decay) - lr / (1 - beta1^t) * m
///                                            / ( sqrt(s) / sqrt(1 - beta2^t) + epsilon )
///
/// In floating point the coefficients below are computed in double and rounded once to Real; then
/// every operation is rounded on its own, none fused, in this order, on every back end:
///
///     m' = (beta1 * m) + (gain1 * g)
///     s' = (beta2 * s) + ((gain2 * g) * g)
///     theta' = (theta * decay) - ((rate * m') / ((sqrt(s') / root) + epsilon))
///
/// Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), algorithm
/// 2, with the decay taken first and the bias corrections placed as in PyTorch's torch.optim.AdamW;
/// PyTorch computes m by interpolation, which differs in the last bit.
template <class Real>
struct adamw_rule {
  using scalar_type = Real;
  using options_type = adamw_options;
  static constexpr std::string_view name = "adamw";

  struct coefficients {
    Real beta1, gain1;    // gain1 = 1 - beta1
    Real beta2, gain2;    // gain2 = 1 - beta2
    Real rate;            // learning_rate / (1 - beta1^t)
    Real root;            // sqrt(1 - beta2^t)
    Real epsilon, decay;  // decay = 1 - learning_rate * weight_decay
  };

  static void check(const options_type& options) {
    expects(0 <= options.beta1 && options.beta1 < 1, name, "beta1 must lie in [0, 1)", "beta1",
            options.beta1);
    expects(0 <= options.beta2 && options.beta2 < 1, name, "beta2 must lie in [0, 1)", "beta2",
            options.beta2);
    const auto epsilon = static_cast<Real>(options.epsilon);
    expects(epsilon > 0 && std::isfinite(epsilon), name,
            "epsilon must be positive and finite in the scalar type", "epsilon", options.epsilon);
    expects(options.weight_decay >= 0 && std::isfinite(options.weight_decay), name,
            "weight_decay must be finite and >= 0", "weight_decay", options.weight_decay);
  }

  static std::array<std::pair<std::string_view, double>, 4> fields(const options_type& options) {
    return {{{"beta1", options.beta1},
             {"beta2", options.beta2},
             {"epsilon", options.epsilon},
             {"weight_decay", options.weight_decay}}};
  }

  static std::span<const std::string_view> state_names(const options_type&) {
    static constexpr std::array<std::string_view, 2> names{"first moment", "second moment"};
    return names;
  }

  DUALSFT_UNFUSED static coefficients at(const options_type& options, index_t t,
                                         double learning_rate) {
    DUALSFT_UNFUSED_BODY
    const auto power = static_cast<double>(t);
    return {.beta1 = static_cast<Real>(options.beta1),
            .gain1 = static_cast<Real>(1 - options.beta1),
            .beta2 = static_cast<Real>(options.beta2),
            .gain2 = static_cast<Real>(1 - options.beta2),
            .rate = static_cast<Real>(learning_rate / (1 - std::pow(options.beta1, power))),
            .root = static_cast<Real>(std::sqrt(1 - std::pow(options.beta2, power))),
            .epsilon = static_cast<Real>(options.epsilon),
            .decay = static_cast<Real>(1 - learning_rate * options.weight_decay)};
  }

  /// One coordinate, as a device does it: m and s are updated, the new theta is returned.
  DUALSFT_HOST_DEVICE static Real moved(const coefficients& c, Real theta, Real& m, Real& s,
                                        Real gradient) {
    using namespace detail;
    m = rounded_sum(rounded_product(c.beta1, m), rounded_product(c.gain1, gradient));
    s = rounded_sum(rounded_product(c.beta2, s),
                    rounded_product(rounded_product(c.gain2, gradient), gradient));
    const Real scale = rounded_sum(rounded_quotient(rounded_root(s), c.root), c.epsilon);
    return rounded_sum(rounded_product(theta, c.decay),
                       -rounded_quotient(rounded_product(c.rate, m), scale));
  }

  DUALSFT_UNFUSED static void apply(const exec::reference&, const coefficients& c, index_t n,
                                    Real* theta, const detail::state_pointers<Real>& state,
                                    const Real* gradient) {
    DUALSFT_UNFUSED_BODY
    Real* const m = state[0];
    Real* const s = state[1];
    for (index_t i = 0; i < n; ++i) {
      m[i] = c.beta1 * m[i] + c.gain1 * gradient[i];
      s[i] = c.beta2 * s[i] + c.gain2 * gradient[i] * gradient[i];
      theta[i] = theta[i] * c.decay - c.rate * m[i] / (std::sqrt(s[i]) / c.root + c.epsilon);
    }
  }

  DUALSFT_UNFUSED static void apply(const exec::cpu&, const coefficients& coefficients, index_t n,
                                    Real* theta, const detail::state_pointers<Real>& state,
                                    const Real* gradient) {
    DUALSFT_UNFUSED_BODY
    // Blocks small enough for the roots to stay in the first-level cache. Everything is a local,
    // restricted or not, so that both compilers vectorise the two loops.
    constexpr index_t block = 256;
    alignas(64) Real roots[block];
    const auto c = coefficients;
    for (index_t begin = 0; begin < n; begin += block) {
      const index_t count = std::min(block, n - begin);
      Real* __restrict t = theta + begin;
      Real* __restrict m = state[0] + begin;
      Real* __restrict s = state[1] + begin;
      const Real* __restrict g = gradient + begin;
      for (index_t i = 0; i < count; ++i) {
        m[i] = c.beta1 * m[i] + c.gain1 * g[i];
        s[i] = c.beta2 * s[i] + c.gain2 * g[i] * g[i];
      }
      detail::square_roots(count, s, roots);
      for (index_t i = 0; i < count; ++i)
        t[i] = t[i] * c.decay - c.rate * m[i] / (roots[i] / c.root + c.epsilon);
    }
  }
};

/// AdamW over all d coordinates of a model; see dense_optimizer for how a step is driven.
///
///     adamw<float> optimizer(model.layout().size(), {.weight_decay = 0.01});
///     optimizer.step(exec::cpu{}, model, gradient, schedule.rate(k));
///
/// Memory: 2 d reals.
template <class Real>
class adamw : public dense_optimizer<adamw_rule<Real>> {
 public:
  using dense_optimizer<adamw_rule<Real>>::dense_optimizer;

  /// m [d], before bias correction.
  std::span<const Real> first_moment() const { return this->state(0); }
  /// s [d], before bias correction: what the curvature proxy is made of.
  std::span<const Real> second_moment() const { return this->state(1); }
};

}  // namespace dualsft
