// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/interaction.hpp>
#include <dualsft/views.hpp>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

/// The localised utility U(S) = J(theta_w) - J(theta_w + Delta(S)), its truncations, and how far
/// those can be off.
namespace dualsft {

/// J(theta): a pure function of the parameters.
template <class F>
concept Objective = requires(const F& f, std::span<const double> theta) {
  { f(theta) } -> std::convertible_to<double>;
};

/// out = A x for a symmetric A, such as a Hessian-vector product. Overwrites out.
template <class F>
concept SymmetricOperator = requires(const F& f, std::span<const double> x, std::span<double> out) {
  f(x, out);
};

/// Who plays: what a set S restricts.
enum class player_side {
  parameters,  ///< d players: coordinates that the full gradient sum may move
  examples,    ///< N players: examples whose gradients are summed
  both,        ///< N + d players: examples 0 .. N - 1, then parameters N .. N + d - 1
};

using membership = std::span<const std::uint8_t>;

/// A symmetric matrix as an operator. The matrix must outlive it.
inline auto matrix_operator(matrix_view<const double> matrix) {
  expects(matrix.rows() == matrix.cols(), "matrix_operator", "the matrix must be square", "rows",
          matrix.rows(), "cols", matrix.cols());
  return [matrix](std::span<const double> x, std::span<double> out) {
    expects(static_cast<index_t>(x.size()) == matrix.rows() && x.size() == out.size(),
            "matrix_operator", "x and out must have one entry per row", "x.size", x.size(),
            "out.size", out.size(), "rows", matrix.rows());
    for (index_t i = 0; i < matrix.rows(); ++i) {
      detail::compensated_sum row;
      for (index_t k = 0; k < matrix.cols(); ++k) row.add(matrix(i, k) * x[detail::at(k)]);
      out[detail::at(i)] = row.value();
    }
  };
}

inline index_t player_count(const local_problem& problem, player_side side) {
  return (side != player_side::parameters ? problem.examples() : 0) +
         (side != player_side::examples ? problem.parameters() : 0);
}

/// Delta(S) [d]: the one step that the members of S take together.
///
///     Delta_j = -eta P_j^-1 z_j,   z_j = sum_{i in S_D} g_ij  for j in S_P,  0 elsewhere
///
/// The side that does not play is whole: S_D is everybody in the parameter game, S_P every
/// coordinate in the example game.
///
/// \param members  one entry per player, non-zero = in S
/// \throws invalid_argument  if members has another length, or adamw meets a D that is not > 0
/// Cost: O(N d). Source: DualSFT (3), (14), (15); joint restriction of section 4.3.
inline std::vector<double> local_step(const local_problem& problem, player_side side,
                                      membership members,
                                      step_geometry step = step_geometry::plain) {
  detail::check_problem(problem, {score_order::first, step}, "local_step");
  const index_t n = problem.examples();
  const index_t d = problem.parameters();
  expects(static_cast<index_t>(members.size()) == player_count(problem, side), "local_step",
          "members must have one entry per player", "members.size", members.size(), "players",
          player_count(problem, side));
  const index_t first_parameter = side == player_side::both ? n : 0;
  std::vector<double> delta(detail::at(d), 0.0);
  for (index_t j = 0; j < d; ++j) {
    if (side != player_side::examples && members[detail::at(first_parameter + j)] == 0) continue;
    detail::compensated_sum z;
    for (index_t i = 0; i < n; ++i)
      if (side == player_side::parameters || members[detail::at(i)] != 0)
        z.add(problem.gradients(i, j));
    delta[detail::at(j)] = -problem.eta * detail::preconditioned(problem, step, j, z.value());
  }
  return delta;
}

/// U = J(theta) - J(theta + delta), the utility of a step.
/// \param theta, delta  [d]
/// Source: DualSFT (4).
template <Objective J>
double step_utility(const J& objective, vector_view<const double> theta,
                    vector_view<const double> delta) {
  expects(theta.size() == delta.size(), "step_utility", "theta and delta must have equal lengths",
          "theta.size", theta.size(), "delta.size", delta.size());
  std::vector<double> point(detail::at(theta.size()));
  for (index_t j = 0; j < theta.size(); ++j) point[detail::at(j)] = theta[j];
  const double before = objective(std::span<const double>(point));
  for (index_t j = 0; j < theta.size(); ++j) point[detail::at(j)] = theta[j] + delta[j];
  return before - static_cast<double>(objective(std::span<const double>(point)));
}

/// U_1 = -v . delta, which is eta v . z.
/// \param v, delta  [d]
/// Source: DualSFT (17).
inline double first_order_utility(vector_view<const double> v, vector_view<const double> delta) {
  expects(v.size() == delta.size(), "first_order_utility", "v and delta must have equal lengths",
          "v.size", v.size(), "delta.size", delta.size());
  detail::compensated_sum sum;
  for (index_t j = 0; j < v.size(); ++j) sum.add(-v[j] * delta[j]);
  return sum.value();
}

/// U_2 = -v . delta - (1/2) delta^T H delta, which is eta v . z - (eta^2/2) z^T H z.
/// \param v, delta  [d]
/// \param hessian   out = H x; matrix_operator(H) or any Hessian-vector product; called once
/// Source: DualSFT (5), (19). Exact if J is quadratic.
template <SymmetricOperator Hessian>
double second_order_utility(vector_view<const double> v, const Hessian& hessian,
                            vector_view<const double> delta) {
  const double first = first_order_utility(v, delta);
  std::vector<double> x(detail::at(delta.size()));
  std::vector<double> product(x.size());
  for (index_t j = 0; j < delta.size(); ++j) x[detail::at(j)] = delta[j];
  hessian(std::span<const double>(x), std::span<double>(product));
  detail::compensated_sum sum;
  sum.add(first);
  for (std::size_t j = 0; j < x.size(); ++j) sum.add(-0.5 * x[j] * product[j]);
  return sum.value();
}

/// U_o(delta): the utility of a step at the order that a score keeps.
///
///     U_o = -v . delta - (1/2) delta . C(delta)        C(x) = 0 | D .* x | H x
///
/// \param order  full needs the matrix H, not HG: other steps than the full one occur;
///               joint counts as diagonal
/// \throws invalid_argument  if an array is missing or has another shape
/// Source: DualSFT (5), (25), (26).
inline double surrogate_utility(const local_problem& problem, score_order order,
                                vector_view<const double> delta) {
  constexpr std::string_view function = "surrogate_utility";
  detail::check_problem(problem, {order, step_geometry::plain}, function);
  expects(order != score_order::full || problem.H.rows() == problem.parameters(), function,
          "full order needs H of shape [d, d], HG is not enough", "H.rows", problem.H.rows(), "d",
          problem.parameters());
  return second_order_utility(
      problem.v,
      [&](std::span<const double> x, std::span<double> out) {
        const auto c = detail::curvature_times(problem, order, {x.begin(), x.end()});
        for (std::size_t j = 0; j < c.size(); ++j) out[j] = c[j];
      },
      delta);
}

inline double euclidean_norm(vector_view<const double> x) {
  double norm = 0.0;
  for (index_t j = 0; j < x.size(); ++j) norm = std::hypot(norm, x[j]);
  return norm;
}

/// |U - U_1| <= (beta/2) ||delta||^2 for a beta-smooth J.
/// \param beta  >= 0, Lipschitz constant of grad J on the segment from theta to theta + delta
/// Source: DualSFT Proposition 2, (18).
inline double first_order_truncation_bound(double beta, double step_norm) {
  expects(beta >= 0.0 && step_norm >= 0.0, "first_order_truncation_bound",
          "beta and the step's norm must not be negative", "beta", beta, "step_norm", step_norm);
  return 0.5 * beta * step_norm * step_norm;
}

/// |U - U_2| <= (rho/6) ||delta||^3 for a J whose Hessian is rho-Lipschitz.
/// \param rho  >= 0, on the segment from theta to theta + delta, in the spectral norm
/// Source: DualSFT Proposition 2, (20).
inline double second_order_truncation_bound(double rho, double step_norm) {
  expects(rho >= 0.0 && step_norm >= 0.0, "second_order_truncation_bound",
          "rho and the step's norm must not be negative", "rho", rho, "step_norm", step_norm);
  return rho / 6.0 * step_norm * step_norm * step_norm;
}

}  // namespace dualsft
