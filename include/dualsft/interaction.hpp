// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/order.hpp>
#include <dualsft/views.hpp>
#include <limits>
#include <string_view>
#include <vector>

/// The interaction matrix of examples and parameters, written out: the definition that every
/// faster way to the same scores is held against.
///
/// The headers interaction, utility, games, shapley, coordination, stability and model_shapley
/// state the theory on explicit arrays in double precision. They are for small problems and for
/// checks; dense and streaming scores live in other headers and never form the matrix.
namespace dualsft {

/// A local scoring problem with every array explicit. Views: the arrays must outlive it.
///
/// Leave empty what the chosen order and geometry do not need.
struct local_problem {
  matrix_view<const double> gradients;  ///< g [N, d], row i is the gradient of example i
  vector_view<const double> v;          ///< [d], gradient of the validation objective
  vector_view<const double> D;   ///< [d], diagonal curvature; also the preconditioner of adamw
  matrix_view<const double> H;   ///< [d, d], symmetric Hessian of the validation objective
  vector_view<const double> HG;  ///< [d], H x with x = G (plain) or D^-1 G (adamw), instead of H
  double eta = 1.0;              ///< local step size, > 0

  index_t examples() const { return gradients.rows(); }
  index_t parameters() const { return gradients.cols(); }
};

/// Which utility is scored: the truncation of J and the step that is taken.
struct surrogate {
  score_order order = score_order::diagonal;
  step_geometry step = step_geometry::plain;
};

namespace detail {

inline std::size_t at(index_t i) {
  return static_cast<std::size_t>(i);
}

/// Neumaier's compensated sum: the theory is checked to 1e-10 and better over up to 2^20 terms.
class compensated_sum {
 public:
  void add(double x) {
    const double t = sum_ + x;
    lost_ += std::abs(sum_) >= std::abs(x) ? (sum_ - t) + x : (x - t) + sum_;
    sum_ = t;
  }
  double value() const { return sum_ + lost_; }

 private:
  double sum_ = 0.0;
  double lost_ = 0.0;
};

inline void check_problem(const local_problem& problem, const surrogate& utility,
                          std::string_view function) {
  const index_t d = problem.parameters();
  expects(std::isfinite(problem.eta) && problem.eta > 0.0, function,
          "eta must be finite and positive", "eta", problem.eta);
  expects(problem.v.size() == d, function, "v must have one entry per parameter", "v.size",
          problem.v.size(), "d", d);
  const bool preconditioned = utility.step == step_geometry::adamw;
  if (preconditioned || utility.order == score_order::diagonal ||
      utility.order == score_order::joint)
    expects(problem.D.size() == d, function,
            "this order and step need D with one entry per parameter", "D.size", problem.D.size(),
            "d", d);
  if (preconditioned)
    for (index_t j = 0; j < d; ++j)
      expects(problem.D[j] > 0.0, function, "the adamw step needs D > 0", "j", j, "D[j]",
              problem.D[j]);
  if (utility.order == score_order::full && d > 0) {
    const bool has_matrix = problem.H.rows() == d && problem.H.cols() == d;
    const bool has_product = problem.HG.size() == d;
    expects(has_matrix || has_product, function,
            "full order needs H of shape [d, d] or HG of length d", "H.rows", problem.H.rows(),
            "H.cols", problem.H.cols(), "HG.size", problem.HG.size(), "d", d);
    expects(!(has_matrix && has_product), function,
            "give H or HG, not both: they could contradict each other", "d", d);
  }
}

/// G = sum_i g_i
inline std::vector<double> gradient_sum(const local_problem& problem) {
  std::vector<double> sum(at(problem.parameters()));
  for (index_t j = 0; j < problem.parameters(); ++j) {
    compensated_sum column;
    for (index_t i = 0; i < problem.examples(); ++i) column.add(problem.gradients(i, j));
    sum[at(j)] = column.value();
  }
  return sum;
}

/// Entry j of P^-1 x given x_j.
inline double preconditioned(const local_problem& problem, step_geometry step, index_t j,
                             double x) {
  return step == step_geometry::adamw ? x / problem.D[j] : x;
}

/// C(x) of an order: 0, D .* x, or H x. HG stands for H x where H is not given.
inline std::vector<double> curvature_times(const local_problem& problem, score_order order,
                                           const std::vector<double>& x) {
  const index_t d = problem.parameters();
  std::vector<double> product(at(d), 0.0);
  for (index_t j = 0; j < d; ++j) {
    if (order == score_order::diagonal || order == score_order::joint) {
      product[at(j)] = problem.D[j] * x[at(j)];
    } else if (order == score_order::full && problem.H.rows() == d) {
      compensated_sum row;
      for (index_t k = 0; k < d; ++k) row.add(problem.H(j, k) * x[at(k)]);
      product[at(j)] = row.value();
    } else if (order == score_order::full) {
      product[at(j)] = problem.HG[j];
    }
  }
  return product;
}

}  // namespace detail

/// M with its projection and its sums.
struct interaction {
  index_t examples = 0;                  ///< N
  index_t parameters = 0;                ///< d
  std::vector<double> entries;           ///< M [N, d], row-major
  std::vector<double> projection;        ///< p [d], with M_ij = eta g_ij p_j
  std::vector<double> data_scores;       ///< phi_D [N], row sums of M
  std::vector<double> parameter_scores;  ///< phi_P [d], column sums of M
  double total = 0.0;                    ///< sum of all entries = U_o(everything)
  double second_order_share = 0.0;       ///< ||(eta/2) C|| / ||v||; 0 where C is

  matrix_view<const double> matrix() const { return {entries.data(), examples, parameters}; }
};

/// The interaction matrix M [N, d], the projection p that its entries share, and its sums.
///
///     p    = P^-1 .* ( v - (eta/2) C(P^-1 G) )     C(x) = 0 | D .* x | H x,  G = sum_i g_i
///     M_ij = eta g_ij p_j                          P = 1 (plain) or D (adamw)
///     phi_P[j] = sum_i M_ij,   phi_D[i] = sum_j M_ij
///
/// \param problem  g [N, d], v [d], eta > 0; D [d] for diagonal order and for adamw (then D > 0);
///                 H [d, d] or HG [d] for full order
/// \param utility  .order first, diagonal or full: the joint game has no single matrix
/// \throws invalid_argument  if an array is missing or has another shape
///
/// Cost: O(N d) time and memory (O(N d + d^2) time with H).
/// Numerics: double, compensated sums; data_scores and parameter_scores are sums of the very
/// entries returned, so their totals differ by rounding only.
/// Source: DualSFT (6), (7), (10), (11); the adamw geometry is ours (theory, "Step geometry").
inline interaction interaction_matrix(const local_problem& problem, const surrogate& utility = {}) {
  constexpr std::string_view function = "interaction_matrix";
  expects(utility.order != score_order::joint, function,
          "order must be first, diagonal or full; see joint_shapley", "order",
          name_of(utility.order));
  detail::check_problem(problem, utility, function);
  using detail::at;
  const index_t n = problem.examples();
  const index_t d = problem.parameters();
  interaction result;
  result.examples = n;
  result.parameters = d;

  std::vector<double> x = detail::gradient_sum(problem);
  for (index_t j = 0; j < d; ++j)
    x[at(j)] = detail::preconditioned(problem, utility.step, j, x[at(j)]);
  const std::vector<double> c = detail::curvature_times(problem, utility.order, x);
  result.projection.resize(at(d));
  double correction = 0.0;
  double slope = 0.0;
  for (index_t j = 0; j < d; ++j) {
    const double second = 0.5 * problem.eta * c[at(j)];
    result.projection[at(j)] =
        detail::preconditioned(problem, utility.step, j, problem.v[j] - second);
    correction = std::hypot(correction, second);
    slope = std::hypot(slope, problem.v[j]);
  }
  result.second_order_share = detail::share_of_second_order(correction, slope);

  result.entries.resize(at(n * d));
  result.data_scores.resize(at(n));
  result.parameter_scores.resize(at(d));
  std::vector<detail::compensated_sum> columns(at(d));
  detail::compensated_sum total;
  for (index_t i = 0; i < n; ++i) {
    detail::compensated_sum row;
    for (index_t j = 0; j < d; ++j) {
      const double m = problem.eta * problem.gradients(i, j) * result.projection[at(j)];
      result.entries[at(i * d + j)] = m;
      row.add(m);
      columns[at(j)].add(m);
      total.add(m);
    }
    result.data_scores[at(i)] = row.value();
  }
  for (index_t j = 0; j < d; ++j) result.parameter_scores[at(j)] = columns[at(j)].value();
  result.total = total.value();
  return result;
}

/// By how much the two views of the one matrix disagree, relative to what they add up.
///
///     | sum_i phi_D[i] - sum_j phi_P[j] | / max( sum_j |phi_P[j]|, smallest normal double )
///
/// \param data_scores       phi_D [N]
/// \param parameter_scores  phi_P [d]
/// \return  rounding (about 1e-16) if the law holds; NaN if a score is NaN
///
/// Source: conservation law, theory section 2: both totals are the utility of the full step.
inline double conservation_gap(vector_view<const double> data_scores,
                               vector_view<const double> parameter_scores) {
  detail::compensated_sum difference;
  detail::compensated_sum magnitude;
  for (index_t i = 0; i < data_scores.size(); ++i) difference.add(data_scores[i]);
  for (index_t j = 0; j < parameter_scores.size(); ++j) {
    difference.add(-parameter_scores[j]);
    magnitude.add(std::abs(parameter_scores[j]));
  }
  return std::abs(difference.value()) /
         std::max(magnitude.value(), std::numeric_limits<double>::min());
}

}  // namespace dualsft
