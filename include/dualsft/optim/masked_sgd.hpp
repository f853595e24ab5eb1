// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/optim/masked_optimizer.hpp>
#include <dualsft/optim/sgd.hpp>
#include <span>

/// SGD on selected coordinates, with state for these alone.
namespace dualsft {

/// SGD over K selected coordinates; see masked_optimizer for how a step is driven.
///
/// Bit for bit what sgd does on the same coordinates when the gradient, the velocity and the
/// weight decay of all others are multiplied by zero; the others keep their bits.
///
/// Memory: 2 bytes per selected coordinate and, with momentum, K reals.
template <class Real>
class masked_sgd : public masked_optimizer<sgd_rule<Real>> {
 public:
  using masked_optimizer<sgd_rule<Real>>::masked_optimizer;

  /// b [K] by rank; empty without momentum.
  std::span<const Real> velocity() const { return this->state(0); }
};

}  // namespace dualsft
