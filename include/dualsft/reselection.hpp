// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/data_scores.hpp>
#include <dualsft/gradients.hpp>
#include <dualsft/parameter_scores.hpp>
#include <dualsft/projection.hpp>
#include <dualsft/subset.hpp>
#include <dualsft/topk.hpp>
#include <span>
#include <utility>
#include <vector>

/// Selecting one side again once the other is known.
///
///     D -> P   phi_P[j | S_D] = eta p_j sum_{i in S_D} g_ij     one gradient pass over S_D
///     P -> D   phi_D[i | m]   = eta sum_{j in S_P} g_ij p_j     one scoring pass over the pool
///
/// With p fixed both maximise the same bilinear objective
///
///     B(S_D, S_P) = sum_{i in S_D, j in S_P} M_ij
///
/// exactly over one side, so alternating rounds never decrease it (reselect() reports it after
/// every step). One-sided orders; the joint order's values are not a bilinear form.
/// coordination.hpp has the regret of a one-shot choice from two such selections.
/// Source: DualSFT sections 6.4, F.7, F.9; theory.md section 9.
namespace dualsft {

/// A subset of the pool and a mask.
struct dual_selection {
  std::vector<index_t> examples;  ///< record numbers, best first
  index_set mask;
};

struct parameter_reselection {
  topk_result mask;
  double objective = 0;  ///< B(S_D, the mask)
};

struct example_reselection {
  example_selection subset;       ///< positions in the pool, best first
  std::vector<index_t> examples;  ///< the same as record numbers
  double objective = 0;           ///< B(the subset, S_P)
};

namespace detail {

/// The sum of a source's scores at the members of a set.
template <ScoreSource Source>
double sum_at(const Source& source, const index_set& members) {
  constexpr index_t chunk = 4096;
  std::vector<double> buffer(static_cast<std::size_t>(chunk));
  double total = 0;
  std::span<const index_t> left = members.indices();
  while (!left.empty()) {
    const index_t first = left.front();
    const index_t last = std::min(first + chunk, source.size());
    const std::span<double> piece(buffer.data(), static_cast<std::size_t>(last - first));
    source.fill(first, piece);
    std::size_t used = 0;
    for (; used < left.size() && left[used] < last; ++used)
      total += piece[static_cast<std::size_t>(left[used] - first)];
    left = left.subspan(used);
  }
  return total;
}

}  // namespace detail

/// D -> P: the best mask of size k for these examples.
template <HostPolicy Policy, GradientModel M>
parameter_reselection reselect_parameters(const Policy& policy, const M& model,
                                          example_span examples,
                                          const projection<typename M::scalar_type>& direction,
                                          const topk_options& options) {
  expects(direction.rule.order != score_order::joint, "reselect_parameters",
          "data-aware scores are defined for the one-sided orders", "order",
          name_of(direction.rule.order));
  const gradient_sums sums = sum_gradients(policy, model, examples);
  const parameter_scores<typename M::scalar_type> aware(sums.sum, direction);
  parameter_reselection result;
  result.mask = topk(policy, aware, options);
  result.objective = detail::sum_at(aware, result.mask.selected);
  return result;
}

/// P -> D: the best subset of size b under this mask.
template <HostPolicy Policy, class M>
requires GradientModel<std::remove_const_t<M>> example_reselection
reselect_examples(const Policy& policy, M& model, example_span pool, const index_set& mask,
                  const projection<typename M::scalar_type>& direction, index_t b,
                  const data_score_options& options = {}) {
  const data_score_result aware =
      data_scores(policy, model, pool, restricted(direction, mask), options);
  example_reselection result;
  result.subset = select_examples(vector_view<const double>(aware.scores), {.budget = b});
  for (const index_t i : result.subset.indices) {
    result.examples.push_back(pool[static_cast<std::size_t>(i)]);
    result.objective += aware.scores[static_cast<std::size_t>(i)];
  }
  return result;
}

struct reselection_result {
  dual_selection selection;
  std::vector<double> objective;  ///< B at the start, then after every half round; never decreases
  index_t rounds = 0;             ///< rounds made; fewer than asked for once nothing changes
};

/// Alternates D -> P and P -> D from a one-shot selection until it stands still.
/// \param rounds  >= 0; a round re-selects the mask, then the examples
template <HostPolicy Policy, class M>
requires GradientModel<std::remove_const_t<M>> reselection_result
reselect(const Policy& policy, M& model, example_span pool,
         const projection<typename M::scalar_type>& direction, dual_selection start, index_t rounds,
         const data_score_options& options = {}) {
  expects(rounds >= 0, "reselect", "rounds must not be negative", "rounds", rounds);
  const auto b = static_cast<index_t>(start.examples.size());
  const index_t k = start.mask.size();
  reselection_result result;
  result.selection = std::move(start);
  {
    const gradient_sums sums =
        sum_gradients(policy, std::as_const(model), result.selection.examples);
    const parameter_scores<typename M::scalar_type> aware(sums.sum, direction);
    result.objective.push_back(detail::sum_at(aware, result.selection.mask));
  }
  for (index_t round = 0; round < rounds; ++round) {
    parameter_reselection mask = reselect_parameters(
        policy, std::as_const(model), result.selection.examples, direction, {.k = k});
    result.objective.push_back(mask.objective);
    example_reselection data =
        reselect_examples(policy, model, pool, mask.mask.selected, direction, b, options);
    result.objective.push_back(data.objective);
    ++result.rounds;
    const bool still =
        mask.mask.selected == result.selection.mask && data.examples == result.selection.examples;
    result.selection = {std::move(data.examples), std::move(mask.mask.selected)};
    if (still) break;
  }
  return result;
}

}  // namespace dualsft
