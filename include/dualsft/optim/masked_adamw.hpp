// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/optim/adamw.hpp>
#include <dualsft/optim/masked_optimizer.hpp>
#include <span>
#include <utility>
#include <vector>

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

  /// The optimizer that `steps` steps elsewhere (on a device) have left so.
  /// \param m, s  [K] by rank, before bias correction
  /// \throws invalid_argument  if steps < 0 or a length is not K
  masked_adamw(paged_index_set selected, const adamw_options& options, index_t steps,
               std::vector<Real> m, std::vector<Real> s)
      : masked_optimizer<adamw_rule<Real>>(std::move(selected), options) {
    std::vector<std::vector<Real>> state;
    state.push_back(std::move(m));
    state.push_back(std::move(s));
    this->adopt(steps, std::move(state));
  }

  /// m [K] by rank, before bias correction.
  std::span<const Real> first_moment() const { return this->state(0); }
  /// s [K] by rank, before bias correction.
  std::span<const Real> second_moment() const { return this->state(1); }
};

}  // namespace dualsft
