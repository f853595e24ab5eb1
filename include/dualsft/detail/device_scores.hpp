// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/detail/rounded.hpp>
#include <dualsft/projection.hpp>
#include <dualsft/topk_types.hpp>
#include <type_traits>

/// Scores as functions of the coordinate, for a device: pointers and numbers that a kernel takes by
/// value. Each is size() and operator(), and gives the bits of its counterpart on the host.
namespace dualsft::detail {

/// Scores that lie in memory.
template <class T>
struct stored_scores_at {
  const T* scores;
  index_t count;

  index_t size() const { return count; }
  DUALSFT_HOST_DEVICE double operator()(index_t j) const { return static_cast<double>(scores[j]); }
};

/// phi_P[j] of parameter_scores.hpp.
template <class Sum, class Real>
struct parameter_scores_at {
  score_rule rule;
  const Sum* gradient;
  const Real* p;
  const Real* curvature;  // joint order
  const Sum* squares;     // joint order
  index_t count;

  index_t size() const { return count; }

  DUALSFT_HOST_DEVICE double operator()(index_t j) const {
    const double eta = rule.eta, g = static_cast<double>(gradient[j]);
    const double scaled = rounded_product(eta, g);
    if (rule.order != score_order::joint) return rounded_product(scaled, static_cast<double>(p[j]));
    const double w = static_cast<double>(curvature[j]);
    const double inner =
        rounded_sum(static_cast<double>(p[j]), rounded_product(rounded_product(eta / 6, w), g));
    const double outer =
        rounded_product(rounded_product(eta * eta / 12, w), static_cast<double>(squares[j]));
    return rounded_sum(rounded_product(scaled, inner), -outer);
  }
};

/// The same as topk compares them.
template <class Scores>
struct compared_scores {
  Scores scores;
  topk_by by;

  index_t size() const { return scores.size(); }
  DUALSFT_HOST_DEVICE double operator()(index_t j) const {
    const double score = scores(j);
    return by == topk_by::magnitude ? std::fabs(score) : score;
  }
};

}  // namespace dualsft::detail
