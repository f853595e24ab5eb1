// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/optim/adamw.hpp>
#include <dualsft/optim/masked_optimizer.hpp>
#include <span>

/// AdamW on selected coordinates, with state for these alone.
namespace dualsft {

/// AdamW over K selected coordinates; see masked_optimizer for how a step is driven.
///
///     masked_adamw<float> optimizer(mask);                     // an index_set over [0, d)
///     optimizer.step(exec::cpu{}, model, gradient, schedule.rate(k));
///
/// Bit for bit what adamw does on the same coordinates when the gradient, both moments and the
/// weight decay of all others are multiplied by zero; the others keep their bits.
///
/// Memory: 2 K reals and 2 bytes per selected coordinate (float, K = 0.05 d: 6.3 % of adamw).
/// Source: Algorithm 1 of the DualSFT paper, restricted fine-tuning.
template <class Real>
class masked_adamw : public masked_optimizer<adamw_rule<Real>> {
 public:
  using masked_optimizer<adamw_rule<Real>>::masked_optimizer;

  /// m [K] by rank, before bias correction.
  std::span<const Real> first_moment() const { return this->state(0); }
  /// s [K] by rank, before bias correction.
  std::span<const Real> second_moment() const { return this->state(1); }
};

}  // namespace dualsft
