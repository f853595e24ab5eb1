// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/interaction.hpp>
#include <dualsft/random.hpp>
#include <dualsft/utility.hpp>
#include <dualsft/views.hpp>
#include <limits>
#include <numbers>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

/// How far scores can be from those of a better surrogate, and whether a selection survives it.
namespace dualsft {

// ---- the diagonal proxy -------------------------------------------------------------------------

struct score_perturbation {
  std::vector<double> parameters;  ///< phi_P - phiFull_P [d]
  std::vector<double> examples;    ///< phi_D - phiFull_D [N]
};

/// Diagonal-order minus full-order scores, exactly.
///
///     phi_P[j] - phiFull_P[j] = (eta^2/2) x_j [ (H - D) x ]_j
///     phi_D[i] - phiFull_D[i] = (eta^2/2) (P^-1 g_i) . (H - D) x       x = P^-1 G
///
/// \param problem  g [N, d], D [d], and H [d, d] or HG = H x [d]: one Hessian product is enough,
///                 no norm is needed
/// \param step     plain (P = 1, the paper) or adamw (P = D > 0)
/// \throws invalid_argument  if an array is missing or has another shape
/// Cost: O(N d), O(d^2) more with H. Source: DualSFT Proposition 3, (48); both geometries.
inline score_perturbation diagonal_proxy_perturbation(const local_problem& problem,
                                                      step_geometry step = step_geometry::plain) {
  constexpr std::string_view function = "diagonal_proxy_perturbation";
  detail::check_problem(problem, {score_order::diagonal, step}, function);
  detail::check_problem(problem, {score_order::full, step}, function);
  using detail::at;
  const index_t n = problem.examples();
  const index_t d = problem.parameters();
  std::vector<double> x = detail::gradient_sum(problem);
  for (index_t j = 0; j < d; ++j) x[at(j)] = detail::preconditioned(problem, step, j, x[at(j)]);
  const std::vector<double> hx = detail::curvature_times(problem, score_order::full, x);
  const double scale = 0.5 * problem.eta * problem.eta;
  score_perturbation result;
  std::vector<double> difference(at(d));  // P^-1 (H - D) x
  for (index_t j = 0; j < d; ++j) {
    const double r = hx[at(j)] - problem.D[j] * x[at(j)];
    result.parameters.push_back(scale * x[at(j)] * r);
    difference[at(j)] = detail::preconditioned(problem, step, j, r);
  }
  for (index_t i = 0; i < n; ++i) {
    detail::compensated_sum sum;
    for (index_t j = 0; j < d; ++j) sum.add(problem.gradients(i, j) * difference[at(j)]);
    result.examples.push_back(scale * sum.value());
  }
  return result;
}

struct perturbation_bounds {
  double parameters = 0.0;  ///< bounds every |phi_P[j] - phiFull_P[j]|
  double examples = 0.0;    ///< bounds every |phi_D[i] - phiFull_D[i]|
};

/// What Proposition 3 knows without the product H G: norms only.
///
///     |..P| <= (eta^2/2) ||x||_inf ||H - D||_2 ||x||_2                   x = P^-1 G
///     |..D| <= (eta^2/2) max_i ||P^-1 g_i||_2 ||H - D||_2 ||x||_2
///
/// \param norm  an upper bound of ||H - D||_2, >= 0; see spectral_norm
/// \throws invalid_argument  if an array is missing or has another shape, or norm < 0
/// Cost: O(N d). Source: DualSFT Proposition 3, (49).
inline perturbation_bounds diagonal_proxy_bounds(const local_problem& problem, double norm,
                                                 step_geometry step = step_geometry::plain) {
  constexpr std::string_view function = "diagonal_proxy_bounds";
  detail::check_problem(problem, {score_order::first, step}, function);
  expects(norm >= 0.0, function, "norm must not be negative", "norm", norm);
  using detail::at;
  std::vector<double> x = detail::gradient_sum(problem);
  double x_norm = 0.0;
  double x_largest = 0.0;
  for (index_t j = 0; j < problem.parameters(); ++j) {
    x[at(j)] = detail::preconditioned(problem, step, j, x[at(j)]);
    x_norm = std::hypot(x_norm, x[at(j)]);
    x_largest = std::max(x_largest, std::abs(x[at(j)]));
  }
  double g_norm = 0.0;
  for (index_t i = 0; i < problem.examples(); ++i) {
    double row = 0.0;
    for (index_t j = 0; j < problem.parameters(); ++j)
      row = std::hypot(row, detail::preconditioned(problem, step, j, problem.gradients(i, j)));
    g_norm = std::max(g_norm, row);
  }
  const double scale = 0.5 * problem.eta * problem.eta * norm * x_norm;
  return {scale * x_largest, scale * g_norm};
}

struct spectral_norm_options {
  index_t iterations = 100;           ///< >= 1 products with the operator
  double failure_probability = 1e-9;  ///< in (0, 1): how likely `upper` may be too small
};

struct spectral_norm_result {
  double lower = 0.0;  ///< <= ||A||_2 always (rounding apart)
  double upper = 0.0;  ///< >= ||A||_2 with probability >= 1 - failure_probability
};

/// ||A||_2 of a symmetric operator between two numbers, by power iteration.
///
///     lower = largest ||A x_t|| / ||x_t||,     upper = ( ||A^k x_0|| / delta )^(1/k)
///
/// where x_0 is standard normal and delta = failure_probability sqrt(pi/2). Why upper holds: with u
/// a unit eigenvector of the largest |eigenvalue|, ||A^k x_0|| >= ||A||^k |u . x_0|, and u . x_0 is
/// a standard normal number, whose modulus is below delta with probability < delta sqrt(2/pi).
///
/// \param op      out = A x, A symmetric (lambda and -lambda may both occur)
/// \param size    d >= 0
/// \param random  start vector; equal sources give equal results
/// \return        both ends; equal to 0 if A x_0 = 0
/// \throws invalid_argument  if an option is out of range
///
/// Cost: `iterations` products, 2 d numbers of memory. upper / lower tends to 1 as iterations grow:
/// about exp(25 / iterations) for moderate d with the defaults.
/// Source: ours; lets Proposition 3 be evaluated with Hessian products alone.
template <SymmetricOperator Operator>
spectral_norm_result spectral_norm(const Operator& op, index_t size, random_source& random,
                                   const spectral_norm_options& options = {}) {
  constexpr std::string_view function = "spectral_norm";
  expects(size >= 0, function, "size must not be negative", "size", size);
  expects(options.iterations >= 1, function, "iterations must be at least 1", "iterations",
          options.iterations);
  expects(options.failure_probability > 0.0 && options.failure_probability < 1.0, function,
          "failure_probability must lie in (0, 1)", "failure_probability",
          options.failure_probability);
  std::vector<double> x(detail::at(size));
  std::vector<double> product(x.size());
  double norm = 0.0;
  for (double& value : x) {
    value = random.normal();
    norm = std::hypot(norm, value);
  }
  double log_growth = std::log(norm);  // log ||A^t x_0||
  spectral_norm_result result;
  for (index_t t = 0; t < options.iterations; ++t) {
    if (norm == 0.0) return result;
    for (double& value : x) value /= norm;
    op(std::span<const double>(x), std::span<double>(product));
    norm = 0.0;
    for (const double value : product) norm = std::hypot(norm, value);
    result.lower = std::max(result.lower, norm);
    log_growth += std::log(norm);
    std::swap(x, product);
  }
  if (norm == 0.0) return result;
  const double delta = options.failure_probability * std::sqrt(std::numbers::pi / 2.0);
  result.upper = std::exp((log_growth - std::log(delta)) / static_cast<double>(options.iterations));
  return result;
}

// ---- certificates of a selection ----------------------------------------------------------------

namespace detail {

/// The smaller one; NaN if either is, so that a NaN member leaves nothing to certify.
inline double least_of(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<double>::quiet_NaN();
  return std::min(a, b);
}

}  // namespace detail

/// Where a selection ends: its last member, the best that was left out, and what lies between.
struct selection_boundary {
  double last_inside = std::numeric_limits<double>::infinity();    ///< phi_(K); +inf if K = 0
  double best_outside = -std::numeric_limits<double>::infinity();  ///< phi_(K+1); -inf if K = n
  double gap = std::numeric_limits<double>::infinity();            ///< 0 at a tie
};

/// The boundary gap of a Top-K set.
///
///     gap_K = phi_(K) - phi_(K+1)          +inf if K = 0 or K = n; NaN ranks last
///
/// \param scores    [n]
/// \param selected  the K best of them
/// \throws invalid_argument  if the universe is not n, or an unselected score is the larger
/// Cost: O(n), no sorting. Source: DualSFT (50), (53).
inline selection_boundary boundary_of(vector_view<const double> scores, const index_set& selected) {
  constexpr std::string_view function = "boundary_of";
  expects(selected.universe() == scores.size(), function,
          "selected must be a set of the scored items", "universe", selected.universe(), "scores",
          scores.size());
  selection_boundary boundary;
  auto member = selected.indices().begin();
  for (index_t k = 0; k < scores.size(); ++k) {
    if (member != selected.indices().end() && *member == k) {
      ++member;
      boundary.last_inside = detail::least_of(boundary.last_inside, scores[k]);
    } else if (scores[k] > boundary.best_outside) {
      boundary.best_outside = scores[k];
    }
  }
  if (selected.size() > 0 && selected.size() < scores.size())
    boundary.gap = boundary.last_inside == boundary.best_outside
                       ? 0.0
                       : boundary.last_inside - boundary.best_outside;
  expects(!(boundary.gap < 0.0), function, "selected must hold the largest scores", "last inside",
          boundary.last_inside, "best outside", boundary.best_outside);
  return boundary;
}

/// Whether a Top-K set survives when every score moves by at most `bound`.
///
///     certified  <=>  bound < gap_K / 2
///
/// \param scores    [n]
/// \param selected  the K best of them
/// \param bound     >= 0, with |new score - score| <= bound for every item
/// \return  true: the Top-K set of the moved scores is `selected`. false: not shown; always false
///          at a tie (gap 0) and where a NaN was selected
/// \throws invalid_argument  as boundary_of, or if bound is negative or NaN
/// Cost: O(n). Numerics: the gap is rounded down, so rounding never certifies.
/// Source: DualSFT Corollaries 1 and 2, (51), (54).
inline bool selection_certified(vector_view<const double> scores, const index_set& selected,
                                double bound) {
  expects(bound >= 0.0, "selection_certified", "bound must not be negative or NaN", "bound", bound);
  const double gap = boundary_of(scores, selected).gap;
  return bound < std::nextafter(gap, 0.0) / 2.0;
}

/// The same with a bound per score: sharper, since only scores near the boundary matter.
///
///     certified  <=>  min_{k in S} (phi_k - b_k)  >  max_{k not in S} (phi_k + b_k)
///
/// \param bounds  [n], each >= 0
/// \throws invalid_argument  as boundary_of, or if sizes differ or a bound is negative or NaN
/// Cost: O(n). Numerics: both sides are rounded against the certificate.
/// Source: ours; Corollaries 1 and 2 with b_k = bound.
inline bool selection_certified(vector_view<const double> scores, const index_set& selected,
                                vector_view<const double> bounds) {
  constexpr std::string_view function = "selection_certified";
  expects(bounds.size() == scores.size(), function, "there must be one bound per score",
          "bounds.size", bounds.size(), "scores.size", scores.size());
  for (index_t k = 0; k < bounds.size(); ++k)
    expects(bounds[k] >= 0.0, function, "bounds must not be negative or NaN", "k", k, "bounds[k]",
            bounds[k]);
  const double gap = boundary_of(scores, selected).gap;
  if (selected.size() == 0 || selected.size() == scores.size()) return gap > 0.0;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  double inside = infinity;
  double outside = -infinity;
  auto member = selected.indices().begin();
  for (index_t k = 0; k < scores.size(); ++k) {
    if (member != selected.indices().end() && *member == k) {
      ++member;
      const double least = std::nextafter(scores[k] - bounds[k], -infinity);
      inside = detail::least_of(inside, least);
    } else if (!std::isnan(scores[k])) {
      const double most = std::nextafter(scores[k] + bounds[k], infinity);
      outside = -detail::least_of(-outside, -most);
    }
  }
  return inside > outside;
}

/// Whether `selected` is exactly the Top-K set of these scores: larger first, equal scores by
/// lower index, NaN last. With the moved scores known, this is the exact form of Corollaries 1, 2.
///
/// \param scores    [n]
/// \param selected  a set within n
/// \throws invalid_argument  if the universe is not n
/// Cost: O(n).
inline bool is_top_set(vector_view<const double> scores, const index_set& selected) {
  expects(selected.universe() == scores.size(), "is_top_set",
          "selected must be a set of the scored items", "universe", selected.universe(), "scores",
          scores.size());
  const auto precedes = [&](index_t a, index_t b) {  // a ranks before b
    const bool a_nan = std::isnan(scores[a]);
    const bool b_nan = std::isnan(scores[b]);
    if (a_nan != b_nan) return b_nan;
    if (!a_nan && scores[a] != scores[b]) return scores[a] > scores[b];
    return a < b;
  };
  index_t worst_inside = -1;
  index_t best_outside = -1;
  auto member = selected.indices().begin();
  for (index_t k = 0; k < scores.size(); ++k) {
    if (member != selected.indices().end() && *member == k) {
      ++member;
      if (worst_inside < 0 || precedes(worst_inside, k)) worst_inside = k;
    } else if (best_outside < 0 || precedes(k, best_outside)) {
      best_outside = k;
    }
  }
  return worst_inside < 0 || best_outside < 0 || precedes(worst_inside, best_outside);
}

// ---- horizon decay ------------------------------------------------------------------------------

/// Constants on a convex region that holds theta_w and theta. For a parameter score of coordinate
/// j, read v_j for v and G_j for g_i.
struct drift_constants {
  double validation_norm = 0.0;       ///< B_v >= ||v||
  double validation_lipschitz = 0.0;  ///< L_v, of v
  double gradient_norm = 0.0;         ///< B_g >= ||g_i||
  double gradient_lipschitz = 0.0;    ///< L_g, of g_i
};

/// How much a first-order score can have drifted once training has moved away.
///
///     | phi[i](theta) - phi[i](theta_w) | <= eta (B_v L_g + B_g L_v) ||theta - theta_w||
///
/// \param distance  ||theta - theta_w|| >= 0
/// \throws invalid_argument  if an argument is negative or NaN
/// Source: DualSFT (83), (84). A bound below half the boundary gap certifies the selection.
inline double horizon_decay_bound(double eta, const drift_constants& constants, double distance) {
  constexpr std::string_view function = "horizon_decay_bound";
  expects(eta >= 0.0 && distance >= 0.0, function, "eta and distance must not be negative", "eta",
          eta, "distance", distance);
  expects(constants.validation_norm >= 0.0 && constants.validation_lipschitz >= 0.0 &&
              constants.gradient_norm >= 0.0 && constants.gradient_lipschitz >= 0.0,
          function, "constants must not be negative", "B_v", constants.validation_norm, "L_v",
          constants.validation_lipschitz, "B_g", constants.gradient_norm, "L_g",
          constants.gradient_lipschitz);
  return eta *
         (constants.validation_norm * constants.gradient_lipschitz +
          constants.gradient_norm * constants.validation_lipschitz) *
         distance;
}

}  // namespace dualsft
