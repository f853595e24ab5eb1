// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/conservation_types.hpp>
#include <dualsft/data_scores.hpp>
#include <dualsft/execution.hpp>
#include <limits>
#include <span>
#include <vector>

/// The conservation law: both sides of the interaction matrix sum to the same total.
///
///     sum_i phi_D[i] = sum_j phi_P[j] = U_2(everything)            first, diagonal, full
///     sum_i phi_D[i] + sum_j phi_P[j] = U(everything)              joint
///     gap = |difference| / max(sum_j |phi_P[j]|, tiny)
///
/// It holds whatever the model is, so a run can check itself at any scale: a parameter that the
/// ghost products missed, an underflow, a transposed weight or an example that was scored but not
/// summed all break it.
///
/// Tolerance: rounding is proportional to what was summed, not to what is left after cancellation,
/// so `holds` compares the difference with sqrt(eps) * max(sum |phi_P|, sum |phi_D|), eps of the
/// arithmetic that made the data scores: a loss of half of the digits is allowed. A missing tensor
/// is noticed if its scores add up to more than that share of the whole; one whose share is below
/// sqrt(eps), 3.5e-4 in float, is not. The directional difference is only good to eps^(2/3) of the losses themselves, and its
/// verdict is taken at eps^(1/4).
/// Cost: one pass over the parameter scores. Source: theory.md section 2 and 3.
namespace dualsft {

/// Sum and sum of magnitudes of a score source, streamed. Determinism: fixed parts of 2^16 scores,
/// added in order, so free of the thread count.
template <HostPolicy Policy, class Source>
score_totals total_of(const Policy& policy, const Source& source) {
  constexpr index_t chunk = index_t{1} << 16;
  const index_t chunks = (source.size() + chunk - 1) / chunk;
  std::vector<score_totals> partial(static_cast<std::size_t>(chunks));
  detail::parallel_ranges(policy, chunks, 1, [&](int, detail::index_range range) {
    std::vector<double> scores(static_cast<std::size_t>(std::min(chunk, source.size())));
    for (index_t c = range.begin; c < range.end; ++c) {
      const index_t first = c * chunk;
      const std::span<double> piece(
          scores.data(), static_cast<std::size_t>(std::min(chunk, source.size() - first)));
      source.fill(first, piece);
      score_totals sums;
      for (const double s : piece) {
        sums.total += s;
        sums.absolute += std::abs(s);
      }
      partial[static_cast<std::size_t>(c)] = sums;
    }
  });
  score_totals all;
  for (const score_totals& sums : partial) {
    all.total += sums.total;
    all.absolute += sums.absolute;
  }
  return all;
}

/// \param columns     parameter scores of the same projection and the same examples
/// \param rows        data scores over the examples that G was summed over
/// \param everything  U(everything) of the joint game (utility_of_everything); unused otherwise
template <class Real, HostPolicy Policy, class Source>
conservation_check check_conservation(const Policy& policy, const Source& columns,
                                      const data_score_result& rows, score_order order,
                                      double everything = 0) {
  const double epsilon = static_cast<double>(std::numeric_limits<Real>::epsilon());
  const double power = rows.strategy == score_strategy::directional_difference ? 0.25 : 0.5;
  return detail::check_totals(order, total_of(policy, columns), rows.total, rows.absolute_total,
                              everything, std::pow(epsilon, power));
}

/// U(everything) of the joint game, eta v'.G - (eta^2/2) sum_j D'_j G_j^2, from the projection
/// p = v'/2 - (eta/3) D'.*G.
template <class Real>
double utility_of_everything(std::span<const double> gradient, const projection<Real>& direction) {
  const double eta = direction.rule.eta;
  double total = 0;
  for (std::size_t j = 0; j < gradient.size(); ++j) {
    const double g = gradient[j];
    const double curved = static_cast<double>(direction.curvature[j]) * g;
    const double v = 2 * (static_cast<double>(direction.p[j]) + eta / 3 * curved);
    total += eta * g * (v - 0.5 * eta * curved);
  }
  return total;
}

}  // namespace dualsft
