// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/interaction.hpp>
#include <dualsft/views.hpp>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

/// What isolated scoring misses once both restrictions are on: scores that know the other side's
/// choice, the gap to those that do not, and the objective that re-selection climbs.
namespace dualsft {

/// The rank-one form of an interaction, M_ij = eta g_ij p_j. Views: the arrays must outlive it.
///
/// p = v is the first order, of which Proposition 1 speaks; p of a higher order gives the aware
/// scores of re-selection (theory section 9).
struct projected_interaction {
  matrix_view<const double> gradients;  ///< g [N, d]
  vector_view<const double> p;          ///< [d]
  double eta = 1.0;                     ///< > 0
};

namespace detail {

inline void check_projected(const projected_interaction& m, std::string_view function) {
  expects(m.p.size() == m.gradients.cols(), function, "p must have one entry per parameter",
          "p.size", m.p.size(), "d", m.gradients.cols());
  expects(std::isfinite(m.eta) && m.eta > 0.0, function, "eta must be finite and positive", "eta",
          m.eta);
}

inline void check_mask(const projected_interaction& m, const index_set& mask,
                       std::string_view function) {
  expects(mask.universe() == m.gradients.cols(), function,
          "the mask must be a set of the d parameters", "universe", mask.universe(), "d",
          m.gradients.cols());
}

inline void check_subset(const projected_interaction& m, const index_set& subset,
                         std::string_view function) {
  expects(subset.universe() == m.gradients.rows(), function,
          "the subset must be a set of the N examples", "universe", subset.universe(), "N",
          m.gradients.rows());
}

inline index_set complement(const index_set& set) {
  std::vector<index_t> rest;
  rest.reserve(at(set.universe() - set.size()));
  index_t next = 0;
  for (const index_t i : set.indices()) {
    for (; next < i; ++next) rest.push_back(next);
    next = i + 1;
  }
  for (; next < set.universe(); ++next) rest.push_back(next);
  return {std::move(rest), set.universe()};
}

}  // namespace detail

/// What each example is worth when only the parameters of the mask move.
///
///     phi_D[i | m] = eta sum_{j in S_P} g_ij p_j
///
/// \param mask  S_P, a set within the d parameters
/// \return      [N]
/// \throws invalid_argument  if a size does not fit
/// Cost: O(N |S_P|). Source: DualSFT Proposition 1, (8); sections 6.4, F.7 with p.
inline std::vector<double> mask_aware_data_scores(const projected_interaction& m,
                                                  const index_set& mask) {
  detail::check_projected(m, "mask_aware_data_scores");
  detail::check_mask(m, mask, "mask_aware_data_scores");
  std::vector<double> scores(detail::at(m.gradients.rows()));
  for (index_t i = 0; i < m.gradients.rows(); ++i) {
    detail::compensated_sum sum;
    for (const index_t j : mask.indices()) sum.add(m.gradients(i, j) * m.p[j]);
    scores[detail::at(i)] = m.eta * sum.value();
  }
  return scores;
}

/// What each parameter is worth when only the examples of the subset are trained on.
///
///     phi_P[j | S_D] = eta p_j sum_{i in S_D} g_ij
///
/// \param subset  S_D, a set within the N examples
/// \return        [d]
/// \throws invalid_argument  if a size does not fit
/// Cost: O(|S_D| d). Source: as mask_aware_data_scores.
inline std::vector<double> data_aware_parameter_scores(const projected_interaction& m,
                                                       const index_set& subset) {
  detail::check_projected(m, "data_aware_parameter_scores");
  detail::check_subset(m, subset, "data_aware_parameter_scores");
  std::vector<double> scores(detail::at(m.gradients.cols()));
  for (index_t j = 0; j < m.gradients.cols(); ++j) {
    detail::compensated_sum sum;
    for (const index_t i : subset.indices()) sum.add(m.gradients(i, j));
    scores[detail::at(j)] = m.eta * m.p[j] * sum.value();
  }
  return scores;
}

struct coordination_gaps {
  std::vector<double> data;        ///< phi_D[i] - phi_D[i | m]    [N]
  std::vector<double> parameters;  ///< phi_P[j] - phi_P[j | S_D]  [d]
};

/// Isolated minus aware scores, from what they are supported on.
///
///     phi_D[i] - phi_D[i | m]   = eta sum_{j not in S_P} g_ij p_j       frozen coordinates
///     phi_P[j] - phi_P[j | S_D] = eta p_j sum_{i not in S_D} g_ij       excluded examples
///
/// \throws invalid_argument  if a size does not fit
/// Cost: O(N d). Source: DualSFT Proposition 1, (9), (46), (47) with p = v.
inline coordination_gaps coordination_gap(const projected_interaction& m, const index_set& mask,
                                          const index_set& subset) {
  detail::check_projected(m, "coordination_gap");
  detail::check_mask(m, mask, "coordination_gap");
  detail::check_subset(m, subset, "coordination_gap");
  return {mask_aware_data_scores(m, detail::complement(mask)),
          data_aware_parameter_scores(m, detail::complement(subset))};
}

/// sum_{i in S_D, j in S_P} M_ij: the utility of both choices together.
///
/// Choosing the best B examples by phi_D[. | m], or the best K parameters by phi_P[. | S_D],
/// maximises it exactly over that side, so alternating re-selection never lowers it.
///
/// \throws invalid_argument  if a size does not fit
/// Cost: O(|S_D| |S_P|). Source: DualSFT (45); monotony: ours, theory section 9.
inline double bilinear_objective(const projected_interaction& m, const index_set& subset,
                                 const index_set& mask) {
  detail::check_projected(m, "bilinear_objective");
  detail::check_mask(m, mask, "bilinear_objective");
  detail::check_subset(m, subset, "bilinear_objective");
  detail::compensated_sum sum;
  for (const index_t i : subset.indices())
    for (const index_t j : mask.indices()) sum.add(m.eta * m.gradients(i, j) * m.p[j]);
  return sum.value();
}

struct selection_regret {
  double unaware_utility = 0.0;  ///< sum of aware scores over the set chosen without awareness
  double aware_utility = 0.0;    ///< sum of aware scores over the set chosen with it
  double regret = 0.0;           ///< 1 - unaware / aware; NaN unless the aware utility is > 0
};

/// The share of utility that a one-shot choice leaves behind.
///
///     regret = 1 - sum_{k in unaware} phi[k | other side] / sum_{k in aware} phi[k | other side]
///
/// \param aware_scores  [n], from mask_aware_data_scores or data_aware_parameter_scores
/// \param unaware       the set that isolated scores chose, within n
/// \param aware         the set of the same size that aware_scores chose, within n
/// \return              regret >= 0 (> 1 if the one-shot choice does harm)
/// \throws invalid_argument  if the sets do not fit the scores or differ in size
/// Cost: O(size). Source: DualSFT sections 6.4, F.7.
inline selection_regret one_shot_regret(vector_view<const double> aware_scores,
                                        const index_set& unaware, const index_set& aware) {
  constexpr std::string_view function = "one_shot_regret";
  expects(unaware.universe() == aware_scores.size() && aware.universe() == aware_scores.size(),
          function, "both sets must be sets of the scored items", "scores", aware_scores.size(),
          "unaware.universe", unaware.universe(), "aware.universe", aware.universe());
  expects(unaware.size() == aware.size(), function, "both sets must have the same size",
          "unaware.size", unaware.size(), "aware.size", aware.size());
  const auto utility_of = [&](const index_set& set) {
    detail::compensated_sum sum;
    for (const index_t k : set.indices()) sum.add(aware_scores[k]);
    return sum.value();
  };
  selection_regret result{utility_of(unaware), utility_of(aware), 0.0};
  result.regret = result.aware_utility > 0.0 ? 1.0 - result.unaware_utility / result.aware_utility
                                             : std::numeric_limits<double>::quiet_NaN();
  return result;
}

}  // namespace dualsft
