// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <dualsft/projection.hpp>
#include <span>
#include <vector>

/// phi_P[j], computed on the fly from the state of pass 1 and never stored: a score source that
/// top-k, quotas and heatmaps read any piece of, as often as they like, from any thread.
///
///     phi_P[j] = eta G_j p_j                                        first, diagonal, full
///     phi_P[j] = eta G_j (p_j + (eta/6) D'_j G_j) - (eta^2/12) D'_j Q_j                joint
///
/// With G summed over a subset S_D these are the data-aware scores phi_P[j | S_D] (one-sided
/// orders). Holds references: the sums and the projection must outlive it.
/// Cost: 2 reads per score (4 in joint order). Numerics: double, every operation rounded by itself,
/// so that all back ends give the same bits. Source: projection.hpp states the formulas.
namespace dualsft {

template <class Real>
class parameter_scores {
 public:
  /// \param gradient   G [d]
  /// \param direction  from project(), made with the same G or, for data-aware scores, another
  /// \param squares    Q [d], joint order only
  /// \throws invalid_argument  if a length differs, or joint order comes without Q
  parameter_scores(std::span<const double> gradient, const projection<Real>& direction,
                   std::span<const double> squares = {})
      : rule_(direction.rule),
        gradient_(gradient),
        p_(direction.p),
        curvature_(direction.curvature),
        squares_(squares) {
    expects(gradient.size() == p_.size(), "parameter_scores", "G and p must have one length", "G",
            gradient.size(), "p", p_.size());
    const bool joint = rule_.order == score_order::joint;
    expects(!joint || (squares_.size() == p_.size() && curvature_.size() == p_.size()),
            "parameter_scores",
            "joint order needs sum_i g_ij^2 and the curvature of its projection", "squares",
            squares_.size(), "curvature", curvature_.size(), "d", p_.size());
  }

  index_t size() const { return static_cast<index_t>(p_.size()); }

  /// out[k] = phi_P[offset + k]
  DUALSFT_UNFUSED void fill(index_t offset, std::span<double> out) const {
    DUALSFT_UNFUSED_BODY
    const double eta = rule_.eta;
    const double* g = gradient_.data() + offset;
    const Real* p = p_.data() + offset;
    if (rule_.order != score_order::joint) {
      for (std::size_t k = 0; k < out.size(); ++k) out[k] = eta * g[k] * static_cast<double>(p[k]);
      return;
    }
    const Real* w = curvature_.data() + offset;
    const double* q = squares_.data() + offset;
    for (std::size_t k = 0; k < out.size(); ++k) {
      const double dk = static_cast<double>(w[k]);
      out[k] = eta * g[k] * (static_cast<double>(p[k]) + eta / 6 * dk * g[k]) -
               eta * eta / 12 * dk * q[k];
    }
  }

 private:
  score_rule rule_;
  std::span<const double> gradient_;
  std::span<const Real> p_;
  std::span<const Real> curvature_;
  std::span<const double> squares_;
};

}  // namespace dualsft
