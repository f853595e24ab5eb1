// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/conservation_types.hpp>
#include <dualsft/projection.hpp>
#include <limits>

/// One column of the interaction matrix, once its sums are known: on the host and on a device.
namespace dualsft::detail {

/// What is added up over columns, beside the scores.
struct column_sums {
  score_totals scores;    ///< of phi_P
  double everything = 0;  ///< U(everything)
  double terms = 0;       ///< at most sum_ij |what was added|: the scale of rounding
  double v_squares = 0;
  double c_squares = 0;
  index_t non_finite = 0;
  index_t first_non_finite = -1;

  DUALSFT_HOST_DEVICE void add(const column_sums& other) {
    scores.total += other.scores.total;
    scores.absolute += other.scores.absolute;
    everything += other.everything;
    terms += other.terms;
    v_squares += other.v_squares;
    c_squares += other.c_squares;
    const bool earlier = first_non_finite < 0 ||
                         (other.first_non_finite >= 0 && other.first_non_finite < first_non_finite);
    if (earlier) first_non_finite = other.first_non_finite;
    non_finite += other.non_finite;
  }
};

/// phi_D[i] = eta sum_j g_ij (a_j + b_j g_ij)
struct column_factors {
  double a;
  double b;  ///< 0 unless joint
  double score;
};

/// The factors and the score of column j from its sum g and its squares q; its part of `sums`.
DUALSFT_HOST_DEVICE inline column_factors finish_column(const score_rule& rule, const projected& at,
                                                        double v, double g, double q, index_t j,
                                                        column_sums& sums) {
  const bool joint = rule.order == score_order::joint;
  const double eta = rule.eta;
  const double bend = eta * at.curvature;  // 0 unless joint
  const double score = joint ? eta * (g * (at.p + bend / 6 * g) - bend / 12 * q) : eta * g * at.p;
  sums.everything += joint ? eta * g * (2 * at.p + bend / 6 * g) : score;
  sums.scores.total += score;
  sums.scores.absolute += std::fabs(score);
  sums.v_squares += v * v;
  sums.c_squares += at.second_order * at.second_order;
  // A difference with itself is 0 unless it is NaN: a device has no std::isfinite of the host's.
  if (!(score - score == 0) && sums.non_finite++ == 0) sums.first_non_finite = j;
  return {at.p, bend / 12, score};
}

/// What bounds the terms of the law that come from column j:
///
///     sum_i |terms| <= of_magnitudes sum_i |g_ij| + of_squares sum_i g_ij^2
struct term_weights {
  double of_magnitudes;
  double of_squares;
};
DUALSFT_HOST_DEVICE inline term_weights weigh_terms(const score_rule& rule, const projected& at,
                                                    double g) {
  const double bend = std::fabs(rule.eta * at.curvature);
  return {2 * rule.eta * (std::fabs(at.p) + bend * std::fabs(g)), 2 * rule.eta * bend};
}

/// The largest difference between the two sides of the law that rounding explains, in units of
/// eps sum |terms|: one per addition along the longest chain, which no order of adding exceeds.
inline double allowed_roundings(index_t rows, index_t columns) {
  return static_cast<double>(rows) + static_cast<double>(columns);
}

/// What underflow adds to it: each of the products g_ij p_j, which eta then scales, and each score
/// may lose up to the smallest positive double, however small the terms are.
inline double allowed_underflow(const score_rule& rule, index_t rows, index_t columns) {
  const double n = static_cast<double>(rows);
  const double d = static_cast<double>(columns);
  return (n * d * std::max(1.0, rule.eta) + n + d) * std::numeric_limits<double>::denorm_min();
}

}  // namespace dualsft::detail
