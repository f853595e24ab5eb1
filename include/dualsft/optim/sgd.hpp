// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/optim/dense_optimizer.hpp>
#include <span>
#include <string_view>
#include <utility>

/// Stochastic gradient descent with momentum and decoupled weight decay, dense.
namespace dualsft {

/// What the velocity b is used for.
enum class momentum_kind {
  heavy_ball,  ///< the step goes along b
  nesterov,    ///< the step goes along g + momentum b, a look ahead
};

struct sgd_options {
  double momentum = 0;  ///< [0, 1); 0 keeps no state at all
  momentum_kind kind = momentum_kind::heavy_ball;
  double weight_decay = 0;  ///< >= 0; theta shrinks by learning_rate * weight_decay per step
};

/// The update rule, shared by sgd and masked_sgd.
///
///     b <- momentum b + g           (b = 0 before the first step)
///     theta <- theta (1 - lr weight_decay) - lr * (b, or g + momentum b with nesterov)
///
/// In floating point the coefficients are rounded once to Real and every operation on its own,
/// none fused, in this order:
///
///     b' = (momentum * b) + g
///     theta' = (theta * decay) - (rate * b')                        or, with nesterov,
///     theta' = (theta * decay) - (rate * (g + (momentum * b')))     or, without momentum,
///     theta' = (theta * decay) - (rate * g)
///
/// Source: as torch.optim.SGD without dampening, except that the decay is decoupled as in AdamW
/// (PyTorch adds weight_decay * theta to the gradient, which then enters the velocity).
template <class Real>
struct sgd_rule {
  using scalar_type = Real;
  using options_type = sgd_options;
  static constexpr std::string_view name = "sgd";

  struct coefficients {
    Real momentum, rate, decay;  // decay = 1 - learning_rate * weight_decay
    momentum_kind kind;
  };

  static void check(const options_type& options) {
    expects(0 <= options.momentum && options.momentum < 1, name, "momentum must lie in [0, 1)",
            "momentum", options.momentum);
    expects(options.momentum > 0 || options.kind == momentum_kind::heavy_ball, name,
            "nesterov needs a momentum", "momentum", options.momentum);
    expects(options.weight_decay >= 0 && std::isfinite(options.weight_decay), name,
            "weight_decay must be finite and >= 0", "weight_decay", options.weight_decay);
  }

  static std::array<std::pair<std::string_view, double>, 3> fields(const options_type& options) {
    return {{{"momentum", options.momentum},
             {"nesterov", options.kind == momentum_kind::nesterov ? 1.0 : 0.0},
             {"weight_decay", options.weight_decay}}};
  }

  static std::span<const std::string_view> state_names(const options_type& options) {
    static constexpr std::array<std::string_view, 1> names{"velocity"};
    return std::span<const std::string_view>(names).first(options.momentum > 0 ? 1 : 0);
  }

  DUALSFT_UNFUSED static coefficients at(const options_type& options, index_t,
                                         double learning_rate) {
    DUALSFT_UNFUSED_BODY
    return {.momentum = static_cast<Real>(options.momentum),
            .rate = static_cast<Real>(learning_rate),
            .decay = static_cast<Real>(1 - learning_rate * options.weight_decay),
            .kind = options.kind};
  }

  DUALSFT_UNFUSED static void apply(const exec::reference&, const coefficients& c, index_t n,
                                    Real* theta, const detail::state_pointers<Real>& state,
                                    const Real* gradient) {
    DUALSFT_UNFUSED_BODY
    for (index_t i = 0; i < n; ++i) {
      Real direction = gradient[i];
      if (Real* const b = state[0]; b != nullptr) {
        b[i] = c.momentum * b[i] + gradient[i];
        direction = c.kind == momentum_kind::nesterov ? gradient[i] + c.momentum * b[i] : b[i];
      }
      theta[i] = theta[i] * c.decay - c.rate * direction;
    }
  }

  DUALSFT_UNFUSED static void apply(const exec::cpu&, const coefficients& coefficients, index_t n,
                                    Real* theta, const detail::state_pointers<Real>& state,
                                    const Real* gradient) {
    DUALSFT_UNFUSED_BODY
    const auto c = coefficients;
    Real* __restrict t = theta;
    Real* __restrict b = state[0];
    const Real* __restrict g = gradient;
    if (b == nullptr) {
      for (index_t i = 0; i < n; ++i) t[i] = t[i] * c.decay - c.rate * g[i];
    } else if (c.kind == momentum_kind::nesterov) {
      for (index_t i = 0; i < n; ++i) {
        b[i] = c.momentum * b[i] + g[i];
        t[i] = t[i] * c.decay - c.rate * (g[i] + c.momentum * b[i]);
      }
    } else {
      for (index_t i = 0; i < n; ++i) {
        b[i] = c.momentum * b[i] + g[i];
        t[i] = t[i] * c.decay - c.rate * b[i];
      }
    }
  }
};

/// SGD over all d coordinates of a model; see dense_optimizer for how a step is driven.
///
/// Memory: d reals with momentum, none without.
template <class Real>
class sgd : public dense_optimizer<sgd_rule<Real>> {
 public:
  using dense_optimizer<sgd_rule<Real>>::dense_optimizer;

  /// b [d]; empty without momentum.
  std::span<const Real> velocity() const { return this->state(0); }
};

}  // namespace dualsft
