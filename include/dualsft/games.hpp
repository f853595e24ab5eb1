// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/interaction.hpp>
#include <dualsft/utility.hpp>
#include <dualsft/views.hpp>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

/// The games whose Shapley values the scores are, and those values in closed form.
///
/// Each game meets SetGame (shapley.hpp): players() and value(members). Games hold views; what
/// they were made from must outlive them.
namespace dualsft {

/// (side, U_o): the surrogate utility of the step that the members take.
///
/// Source: DualSFT (25), (26) for one side; both sides together are the joint game (ours).
class surrogate_game {
 public:
  /// \param utility  .order first, diagonal or full (full needs H); joint counts as diagonal
  /// \throws invalid_argument  if an array is missing or has another shape
  surrogate_game(const local_problem& problem, player_side side, const surrogate& utility = {})
      : problem_(problem), side_(side), utility_(utility) {
    detail::check_problem(problem, utility, "surrogate_game");
    expects(utility.order != score_order::full || problem.H.rows() == problem.parameters(),
            "surrogate_game", "full order needs H of shape [d, d], HG is not enough", "H.rows",
            problem.H.rows(), "d", problem.parameters());
  }

  index_t players() const { return player_count(problem_, side_); }

  /// Cost: O(N d), O(N d + d^2) at full order.
  double value(membership members) const {
    return surrogate_utility(problem_, utility_.order,
                             local_step(problem_, side_, members, utility_.step));
  }

 private:
  local_problem problem_;
  player_side side_;
  surrogate utility_;
};

/// (side, U): the true utility J(theta_w) - J(theta_w + Delta(S)), without a truncation.
/// Source: DualSFT (4).
template <Objective J>
class localised_game {
 public:
  /// \param theta  [d], the checkpoint theta_w
  localised_game(J objective, vector_view<const double> theta, const local_problem& problem,
                 player_side side, step_geometry step = step_geometry::plain)
      : objective_(std::move(objective)),
        theta_(theta),
        problem_(problem),
        side_(side),
        step_(step) {
    detail::check_problem(problem, {score_order::first, step}, "localised_game");
    expects(theta.size() == problem.parameters(), "localised_game",
            "theta must have one entry per parameter", "theta.size", theta.size(), "d",
            problem.parameters());
  }

  index_t players() const { return player_count(problem_, side_); }
  double value(membership members) const {
    return step_utility(objective_, theta_, local_step(problem_, side_, members, step_));
  }

 private:
  J objective_;
  vector_view<const double> theta_;
  local_problem problem_;
  player_side side_;
  step_geometry step_;
};

/// U(S) = sum of a_ik over the pairs {i, k} inside S: what Lemma 1 is about.
/// Its Shapley values are (1/2) sum_{k != i} a_ik, each pair split in half.
/// Source: DualSFT Lemma 1, (29).
class pair_game {
 public:
  /// \param coefficients  a [n, n], symmetric; the diagonal is not read
  explicit pair_game(matrix_view<const double> coefficients) : coefficients_(coefficients) {
    expects(coefficients.rows() == coefficients.cols(), "pair_game",
            "the coefficients must be square", "rows", coefficients.rows(), "cols",
            coefficients.cols());
  }

  index_t players() const { return coefficients_.rows(); }
  double value(membership members) const {
    detail::compensated_sum sum;
    for (index_t i = 0; i < players(); ++i)
      for (index_t k = 0; k < i; ++k)
        if (members[detail::at(i)] != 0 && members[detail::at(k)] != 0)
          sum.add(coefficients_(i, k));
    return sum.value();
  }

 private:
  matrix_view<const double> coefficients_;
};

/// Closed-form Shapley values, one vector per kind of player.
struct dual_values {
  std::vector<double> parameters;  ///< phi_P [d]
  std::vector<double> examples;    ///< phi_D [N]
};

/// Shapley values of the two one-sided games: the column and the row sums of M.
///
/// \param utility  .order first, diagonal or full
/// \throws invalid_argument  as interaction_matrix
/// Cost: O(N d). Source: DualSFT Theorem 1.
inline dual_values one_sided_shapley(const local_problem& problem, const surrogate& utility = {}) {
  interaction m = interaction_matrix(problem, utility);
  return {std::move(m.parameter_scores), std::move(m.data_scores)};
}

/// Shapley values of the joint game, in which examples and parameters play together.
///
/// With w = P^-1 v, C = P^-1 (0 | diag D | H) P^-1, Q_jk = sum_i g_ij g_ik:
///
///     phi_P[j] = (eta/2) w_j G_j - (eta^2/4) C_jj Q_jj - (eta^2/6) C_jj (G_j^2 - Q_jj)
///                - eta^2 sum_{k != j} C_jk ( Q_jk / 3 + (G_j G_k - Q_jk) / 4 )
///     phi_D[i] = sum_j [ (eta/2) g_ij w_j - (eta^2/4) C_jj g_ij^2
///                        - (eta^2/3) C_jj g_ij (G_j - g_ij) ]
///                - (eta^2/2) sum_{j != k} C_jk ( g_ij g_ik / 3 + g_ij (G_k - g_ik) / 2 )
///
/// A term that needs r players is split into r equal shares: 2 for g_ij v_j, 3 or 4 for the
/// products. At first order this is half of the one-sided values. Conservation:
/// sum phi_P + sum phi_D = U_o(everything).
///
/// \param utility  .order first, diagonal (also called joint) or full (H, not HG)
/// \throws invalid_argument  if an array is missing or has another shape
/// Cost: O(N d), O(N d^2) at full order. Source: ours, theory section 3; checked exactly.
inline dual_values joint_shapley(const local_problem& problem, const surrogate& utility = {}) {
  using detail::at;
  detail::check_problem(problem, utility, "joint_shapley");
  const index_t n = problem.examples();
  const index_t d = problem.parameters();
  const bool full = utility.order == score_order::full;
  expects(!full || problem.H.rows() == d, "joint_shapley",
          "full order needs H of shape [d, d], HG is not enough", "H.rows", problem.H.rows(), "d",
          d);
  const double eta = problem.eta;
  const double eta2 = eta * eta;
  const auto& g = problem.gradients;
  const auto over_p = [&](index_t j, double x) {
    return detail::preconditioned(problem, utility.step, j, x);
  };
  const auto curvature = [&](index_t j, index_t k) {
    if (full) return over_p(j, over_p(k, problem.H(j, k)));
    return j == k && utility.order != score_order::first ? over_p(j, over_p(j, problem.D[j])) : 0.0;
  };
  const std::vector<double> G = detail::gradient_sum(problem);

  std::vector<detail::compensated_sum> examples(at(n));
  dual_values result;
  result.parameters.resize(at(d));
  for (index_t j = 0; j < d; ++j) {
    const double w = over_p(j, problem.v[j]);
    const double c = curvature(j, j);
    detail::compensated_sum q;
    for (index_t i = 0; i < n; ++i) {
      const double gij = g(i, j);
      q.add(gij * gij);
      examples[at(i)].add(eta / 2 * gij * w);
      examples[at(i)].add(-eta2 / 4 * c * gij * gij);
      examples[at(i)].add(-eta2 / 3 * c * gij * (G[at(j)] - gij));
    }
    detail::compensated_sum phi;
    phi.add(eta / 2 * w * G[at(j)]);
    phi.add(-eta2 / 4 * c * q.value());
    phi.add(-eta2 / 6 * c * (G[at(j)] * G[at(j)] - q.value()));
    for (index_t k = 0; full && k < d; ++k) {
      if (k == j) continue;
      const double cross = curvature(j, k);
      detail::compensated_sum both;  // Q_jk
      for (index_t i = 0; i < n; ++i) {
        both.add(g(i, j) * g(i, k));
        examples[at(i)].add(-eta2 / 2 * cross * g(i, j) * (g(i, k) / 3 + (G[at(k)] - g(i, k)) / 2));
      }
      phi.add(-eta2 * cross * (both.value() / 3 + (G[at(j)] * G[at(k)] - both.value()) / 4));
    }
    result.parameters[at(j)] = phi.value();
  }
  for (const auto& sum : examples) result.examples.push_back(sum.value());
  return result;
}

}  // namespace dualsft
