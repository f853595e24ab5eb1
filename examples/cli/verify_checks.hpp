// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/coordination.hpp>
#include <dualsft/cwsd.hpp>
#include <dualsft/data_scores.hpp>
#include <dualsft/detail/ridge_sum.hpp>
#include <dualsft/games.hpp>
#include <dualsft/interaction.hpp>
#include <dualsft/model_shapley.hpp>
#include <dualsft/models/mlp_classifier.hpp>
#include <dualsft/preservation.hpp>
#include <dualsft/random.hpp>
#include <dualsft/shapley.hpp>
#include <dualsft/stability.hpp>
#include <dualsft/topk.hpp>
#include <dualsft/utility.hpp>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

/// The rows of `dualsft verify`. To add one, write a function from a random source to an outcome
/// and append it to verify_checks(); earlier rows keep their random numbers.
namespace dualsft::cli {

struct verify_outcome {
  double error = 0.0;    ///< of the statement, relative to the size of what it compares
  double altered = 0.0;  ///< of a wrong version of it, on the same instance
};

struct verify_check {
  std::string statement;
  double bound;
  std::function<verify_outcome(random_source&)> instance;
};

// ---- instances ----------------------------------------------------------------------------------

using numbers = std::vector<double>;

inline std::size_t at(index_t k) {
  return static_cast<std::size_t>(k);
}

inline numbers normals(index_t n, random_source& random, double scale = 1.0) {
  numbers x(at(n));
  for (double& value : x) value = scale * random.normal();
  return x;
}

struct instance_options {
  index_t most = 7;  ///< N and d are drawn from 1 .. most
  index_t least = 1;
  double off_diagonal = 1.0;  ///< size of H - D
};

/// A random local problem that owns its arrays.
struct instance {
  index_t n, d;
  double eta;
  numbers g, v, D, H;

  explicit instance(random_source& random, const instance_options& options = {}) {
    n = options.least + random.below(options.most - options.least + 1);
    d = options.least + random.below(options.most - options.least + 1);
    eta = 0.1 + 0.4 * random.uniform();
    g = normals(n * d, random);
    v = normals(d, random);
    H.resize(at(d * d));
    for (index_t j = 0; j < d; ++j) {
      D.push_back(0.5 + random.uniform());
      for (index_t k = 0; k <= j; ++k) {
        const double h = options.off_diagonal * random.normal();
        H[at(j * d + k)] = H[at(k * d + j)] = j == k ? D[at(j)] + h : h;
      }
    }
  }

  local_problem problem() const {
    return {
        .gradients = {g.data(), n, d}, .v = v, .D = D, .H = {H.data(), d, d}, .HG = {}, .eta = eta};
  }
};

/// max |a - b| / max(1, |b|): the games are of size one, so this is neither lax nor unfair.
inline double distance(const numbers& a, const numbers& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double error = 0.0;
  double scale = 1.0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    // Written so that NaN ends as infinity instead of vanishing in a comparison.
    const double e = std::abs(a[k] - b[k]);
    error = e >= 0.0 ? std::max(error, e) : std::numeric_limits<double>::infinity();
    scale = std::max(scale, std::abs(b[k]));
  }
  return error / scale;
}

/// By how much an inequality value <= limit is broken.
inline double excess(double value, double limit) {
  const double e = (value - limit) / std::max(1.0, std::abs(limit));
  return std::isnan(e) ? std::numeric_limits<double>::infinity() : std::max(0.0, e);
}

inline numbers joined(numbers a, const numbers& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline index_set best(const numbers& scores, index_t k) {
  return topk(exec::reference{}, vector_view<const double>(scores), {.k = k}).selected;
}

inline index_set random_set(index_t universe, random_source& random) {
  std::vector<index_t> members;
  for (index_t k = 0; k < universe; ++k)
    if (random.uniform() < 0.5) members.push_back(k);
  return {std::move(members), universe};
}

constexpr step_geometry both_geometries[] = {step_geometry::plain, step_geometry::adamw};
constexpr score_order one_sided_orders[] = {score_order::first, score_order::diagonal,
                                            score_order::full};

// ---- Shapley ------------------------------------------------------------------------------------

/// Theorem 1 on both sides. Wrong version: the scores of another order.
inline verify_outcome theorem_1(random_source& random, const surrogate& utility) {
  const instance drawn(random);
  const local_problem problem = drawn.problem();
  const numbers exact =
      joined(exact_shapley(surrogate_game(problem, player_side::parameters, utility)).values,
             exact_shapley(surrogate_game(problem, player_side::examples, utility)).values);
  const auto scores = [&](score_order order) {
    const interaction m = interaction_matrix(problem, {order, utility.step});
    return joined(m.parameter_scores, m.data_scores);
  };
  const score_order other =
      utility.order == score_order::diagonal ? score_order::full : score_order::diagonal;
  return {distance(scores(utility.order), exact), distance(scores(other), exact)};
}

/// The joint game. Wrong version: half of the one-sided scores, but at first order, where that is
/// right, the whole ones.
inline verify_outcome joint_game(random_source& random, const surrogate& utility) {
  const instance drawn(random, {.most = 4, .least = 2});  // with one example, half is right
  const local_problem problem = drawn.problem();
  const numbers exact = exact_shapley(surrogate_game(problem, player_side::both, utility)).values;
  const dual_values closed = joint_shapley(problem, utility);
  const interaction m = interaction_matrix(problem, utility);
  numbers wrong = joined(m.data_scores, m.parameter_scores);
  if (utility.order != score_order::first)
    for (double& x : wrong) x *= 0.5;
  return {distance(joined(closed.examples, closed.parameters), exact), distance(wrong, exact)};
}

/// (27) = (28): the subset formula against all orders of arrival. Wrong version: one order.
inline verify_outcome shapley_by_orders(random_source& random) {
  struct table_game {
    index_t n;
    numbers table;
    index_t players() const { return n; }
    double value(membership members) const {
      std::size_t set = 0;
      for (std::size_t k = 0; k < members.size(); ++k)
        if (members[k] != 0) set |= std::size_t{1} << k;
      return table[set];
    }
  };
  const index_t n = 2 + random.below(4);
  const table_game game{n, normals(index_t{1} << n, random)};
  std::vector<index_t> order(at(n));
  std::iota(order.begin(), order.end(), index_t{0});
  numbers sum(at(n), 0.0);
  numbers first;
  double count = 0.0;
  do {
    std::vector<std::uint8_t> members(at(n), 0);
    double before = game.value(members);
    for (const index_t k : order) {
      members[at(k)] = 1;
      const double after = game.value(members);
      sum[at(k)] += after - before;
      before = after;
    }
    count += 1.0;
    if (first.empty()) first = sum;
  } while (std::next_permutation(order.begin(), order.end()));
  for (double& x : sum) x /= count;
  const numbers values = exact_shapley(game).values;
  return {distance(values, sum), distance(values, first)};
}

/// Lemma 1. Wrong version: a third of each pair term instead of a half.
inline verify_outcome lemma_1(random_source& random) {
  const index_t n = 2 + random.below(7);
  numbers a(at(n * n), 0.0);
  numbers half(at(n), 0.0);
  for (index_t i = 0; i < n; ++i)
    for (index_t k = 0; k < i; ++k) {
      a[at(i * n + k)] = a[at(k * n + i)] = random.normal();
      half[at(i)] += a[at(i * n + k)] / 2;
      half[at(k)] += a[at(i * n + k)] / 2;
    }
  numbers third = half;
  for (double& x : third) x *= 2.0 / 3.0;
  const numbers values = exact_shapley(pair_game({a.data(), n, n})).values;
  return {distance(half, values), distance(third, values)};
}

/// Conservation at every order and geometry: rows = columns = U_o(everything); the joint scores
/// sum to U_o(everything). Wrong version: one example missing from the rows.
inline verify_outcome conservation(random_source& random) {
  const instance drawn(random);
  const local_problem problem = drawn.problem();
  const std::vector<std::uint8_t> everyone(at(drawn.n), 1);
  verify_outcome outcome;
  for (const step_geometry step : both_geometries)
    for (const score_order order : one_sided_orders) {
      const interaction m = interaction_matrix(problem, {order, step});
      const double everything = surrogate_utility(
          problem, order, local_step(problem, player_side::examples, everyone, step));
      const dual_values joint = joint_shapley(problem, {order, step});
      const auto total = [](const numbers& x) { return std::accumulate(x.begin(), x.end(), 0.0); };
      outcome.error =
          std::max({outcome.error, distance({total(m.data_scores)}, {everything}),
                    distance({total(m.parameter_scores)}, {everything}),
                    conservation_gap(m.data_scores, m.parameter_scores),
                    distance({total(joint.examples) + total(joint.parameters)}, {everything})});
      numbers incomplete = m.data_scores;
      incomplete.pop_back();
      outcome.altered = std::max(outcome.altered, distance({total(incomplete)}, {everything}));
    }
  return outcome;
}

// ---- bounds and certificates --------------------------------------------------------------------

/// Proposition 1. Wrong version: gaps supported on what was selected.
inline verify_outcome proposition_1(random_source& random) {
  const instance drawn(random, {.most = 8, .least = 2});
  const projected_interaction form{drawn.problem().gradients, drawn.v, drawn.eta};
  const index_set mask = random_set(drawn.d, random);
  const index_set subset = random_set(drawn.n, random);
  const interaction m = interaction_matrix(drawn.problem(), {.order = score_order::first});
  numbers data = m.data_scores;
  numbers parameters = m.parameter_scores;
  for (index_t i = 0; i < drawn.n; ++i)
    for (const index_t j : mask.indices()) data[at(i)] -= m.matrix()(i, j);
  for (index_t j = 0; j < drawn.d; ++j)
    for (const index_t i : subset.indices()) parameters[at(j)] -= m.matrix()(i, j);
  const coordination_gaps gaps = coordination_gap(form, mask, subset);
  return {distance(joined(gaps.data, gaps.parameters), joined(data, parameters)),
          distance(
              joined(mask_aware_data_scores(form, mask), data_aware_parameter_scores(form, subset)),
              joined(data, parameters))};
}

/// Alternating re-selection never lowers the bilinear objective. Wrong version: nor does taking the
/// lowest aware scores.
inline verify_outcome reselection_climbs(random_source& random) {
  const instance drawn(random, {.most = 10, .least = 4});
  const interaction m = interaction_matrix(drawn.problem());
  const projected_interaction form{drawn.problem().gradients, m.projection, drawn.eta};
  const index_t b = 1 + random.below(drawn.n - 1);
  const index_t k = 1 + random.below(drawn.d - 1);
  index_set subset = best(m.data_scores, b);
  index_set mask = best(m.parameter_scores, k);
  double objective = bilinear_objective(form, subset, mask);
  verify_outcome outcome;
  for (int half_round = 0; half_round < 6; ++half_round) {
    if (half_round % 2 == 0) {
      numbers aware = data_aware_parameter_scores(form, subset);
      mask = best(aware, k);
      for (double& x : aware) x = -x;
      outcome.altered =
          std::max(outcome.altered, excess(bilinear_objective(form, subset, mask),
                                           bilinear_objective(form, subset, best(aware, k))));
    } else {
      subset = best(mask_aware_data_scores(form, mask), b);
    }
    const double next = bilinear_objective(form, subset, mask);
    outcome.error = std::max(outcome.error, excess(objective, next));
    objective = next;
  }
  return outcome;
}

/// Proposition 2 on a smooth function with known constants, and on |x|^2 and |x|^3, which attain
/// it. Wrong version: 99 % of the bound.
inline verify_outcome proposition_2(random_source& random, score_order order) {
  const index_t d = 1 + random.below(6);
  const detail::ridge_sum f(1 + random.below(4), d, random);
  const numbers theta = normals(d, random);
  const numbers delta = normals(d, random, std::exp(-3.0 * random.uniform()));
  const numbers v = f.gradient(theta);
  const numbers h = f.hessian(theta);
  const double norm = euclidean_norm(delta);
  const double u = step_utility(f, theta, delta);
  const numbers zero(at(d), 0.0);
  const auto power = [&](double exponent) {
    return [exponent](std::span<const double> x) {
      return std::pow(euclidean_norm(vector_view<const double>(x)), exponent);
    };
  };
  verify_outcome outcome;
  if (order == score_order::first) {
    outcome.error = excess(std::abs(u - first_order_utility(v, delta)),
                           first_order_truncation_bound(f.gradient_lipschitz(), norm));
    const double attained = std::abs(step_utility(power(2.0), zero, delta));  // beta = 2
    const double bound = first_order_truncation_bound(2.0, norm);
    outcome.error = std::max(outcome.error, excess(attained, bound));
    outcome.altered = excess(attained / bound, 0.99);
  } else {
    const matrix_view<const double> hessian(h.data(), d, d);
    outcome.error = excess(std::abs(u - second_order_utility(v, matrix_operator(hessian), delta)),
                           second_order_truncation_bound(f.hessian_lipschitz(), norm));
    const double attained = std::abs(step_utility(power(3.0), zero, delta));  // rho = 6
    const double bound = second_order_truncation_bound(6.0, norm);
    outcome.error = std::max(outcome.error, excess(attained, bound));
    outcome.altered = excess(attained / bound, 0.99);
  }
  return outcome;
}

/// U = U_2 for a quadratic J, over the sets of the joint game. Wrong version: U = U_1.
inline verify_outcome quadratic_is_exact(random_source& random) {
  const instance drawn(random, {.least = 2});
  const local_problem problem = drawn.problem();
  const auto objective = [&](std::span<const double> x) {  // theta_w = 0: grad J = v
    double sum = 0.0;
    for (std::size_t j = 0; j < x.size(); ++j) {
      sum += problem.v[static_cast<index_t>(j)] * x[j];
      for (std::size_t k = 0; k < x.size(); ++k)
        sum += 0.5 * x[j] * x[k] * drawn.H[j * x.size() + k];
    }
    return sum;
  };
  const numbers origin(at(drawn.d), 0.0);
  std::vector<std::uint8_t> members(at(player_count(problem, player_side::both)));
  for (auto& m : members) m = random.uniform() < 0.7 ? 1 : 0;
  members.front() = members.back() = 1;
  verify_outcome outcome;
  for (const step_geometry step : both_geometries) {
    const numbers delta = local_step(problem, player_side::both, members, step);
    const double u = step_utility(objective, origin, delta);
    outcome.error = std::max(outcome.error,
                             distance({surrogate_utility(problem, score_order::full, delta)}, {u}));
    outcome.altered =
        std::max(outcome.altered, distance({first_order_utility(problem.v, delta)}, {u}));
  }
  return outcome;
}

/// Proposition 3, identities. Wrong version: the opposite sign.
inline verify_outcome proposition_3(random_source& random) {
  const instance drawn(random);
  verify_outcome outcome;
  for (const step_geometry step : both_geometries) {
    const interaction diagonal = interaction_matrix(drawn.problem(), {score_order::diagonal, step});
    const interaction full = interaction_matrix(drawn.problem(), {score_order::full, step});
    const score_perturbation exact = diagonal_proxy_perturbation(drawn.problem(), step);
    const numbers claimed = joined(exact.parameters, exact.examples);
    const numbers from = joined(diagonal.parameter_scores, diagonal.data_scores);
    const numbers to = joined(full.parameter_scores, full.data_scores);
    numbers forth = to;
    numbers back = to;
    for (std::size_t k = 0; k < to.size(); ++k) {
      forth[k] += claimed[k];
      back[k] -= claimed[k];
    }
    outcome.error = std::max(outcome.error, distance(forth, from));
    outcome.altered = std::max(outcome.altered, distance(back, from));
  }
  return outcome;
}

/// Proposition 3, norm bounds with ||H - D||_2 from Hessian products alone; and an aligned problem
/// that attains them. Wrong version: 99 % of the bound.
inline verify_outcome proposition_3_bounds(random_source& random) {
  const instance drawn(random);
  const local_problem problem = drawn.problem();
  const auto difference = [&](std::span<const double> x, std::span<double> out) {
    matrix_operator(problem.H)(x, out);
    for (std::size_t j = 0; j < x.size(); ++j) out[j] -= drawn.D[j] * x[j];
  };
  const double norm = spectral_norm(difference, drawn.d, random).upper;
  verify_outcome outcome;
  for (const step_geometry step : both_geometries) {
    const score_perturbation exact = diagonal_proxy_perturbation(problem, step);
    const perturbation_bounds bounds = diagonal_proxy_bounds(problem, norm, step);
    for (const double x : exact.parameters)
      outcome.error = std::max(outcome.error, excess(std::abs(x), bounds.parameters));
    for (const double x : exact.examples)
      outcome.error = std::max(outcome.error, excess(std::abs(x), bounds.examples));
  }
  // One gradient along one coordinate, and H - D = 3 there: the proof's inequalities are equalities.
  const numbers g{1.0 + random.uniform(), 0.0};
  const numbers one{1.0, 1.0};
  const numbers h{4.0, 0.0, 0.0, 1.0};
  const local_problem aligned{
      .gradients = {g.data(), 1, 2}, .v = one, .D = one, .H = {h.data(), 2, 2}, .HG = {}, .eta = 1};
  const score_perturbation attained = diagonal_proxy_perturbation(aligned);
  const perturbation_bounds bounds = diagonal_proxy_bounds(aligned, 3.0);
  outcome.error = std::max({outcome.error, excess(attained.parameters[0], bounds.parameters),
                            excess(attained.examples[0], bounds.examples)});
  outcome.altered = excess(attained.parameters[0] / bounds.parameters, 0.99);
  return outcome;
}

/// Corollaries 1 and 2. Error: the number of certified selections that changed, under the exact
/// diagonal-to-full perturbation, an adversary, and random moves within the bound, and of bounds
/// below half of the gap that were refused.
/// Wrong version: certifying up to the whole gap instead of half of it.
inline verify_outcome corollary(random_source& random, player_side side) {
  const instance drawn(random, {.most = 12, .least = 2, .off_diagonal = 0.03});
  const local_problem problem = drawn.problem();
  const bool parameters = side == player_side::parameters;
  const interaction diagonal = interaction_matrix(problem, {.order = score_order::diagonal});
  const interaction full = interaction_matrix(problem, {.order = score_order::full});
  const score_perturbation exact = diagonal_proxy_perturbation(problem);
  const numbers& scores = parameters ? diagonal.parameter_scores : diagonal.data_scores;
  const numbers& target = parameters ? full.parameter_scores : full.data_scores;
  const numbers& moves = parameters ? exact.parameters : exact.examples;
  const auto n = static_cast<index_t>(scores.size());
  const index_set selected = best(scores, 1 + random.below(n - 1));
  // What the identity claims, widened by the rounding of both scores.
  double bound = 0.0;
  numbers bounds;
  for (std::size_t k = 0; k < scores.size(); ++k) {
    bounds.push_back(std::abs(moves[k]) + 1e-13 * (1.0 + std::abs(scores[k])));
    bound = std::max(bound, bounds.back());
  }
  verify_outcome outcome;
  const bool uniform = selection_certified(scores, selected, bound);
  const bool each = selection_certified(scores, selected, bounds);
  if ((uniform || each) && !is_top_set(target, selected)) outcome.error += 1.0;
  // Moves every score; one that rounding would carry beyond the bound stays where it is.
  const auto moved = [&](double most, auto&& direction) {
    numbers to = scores;
    for (index_t k = 0; k < n; ++k) {
      const double x = to[at(k)] + most * direction(k);
      if (std::abs(x - to[at(k)]) <= most) to[at(k)] = x;
    }
    return to;
  };
  const auto adversary = [&](index_t k) { return selected.contains(k) ? -1.0 : 1.0; };
  const double gap = boundary_of(scores, selected).gap;
  for (const double share : {0.3, 0.49, 0.4999999}) {
    const auto anywhere = [&](index_t) { return 2.0 * random.uniform() - 1.0; };
    if (!selection_certified(scores, selected, share * gap) ||
        !is_top_set(moved(share * gap, adversary), selected) ||
        !is_top_set(moved(share * gap, anywhere), selected))
      outcome.error += 1.0;
  }
  // A tie at the boundary must be refused whatever the bound.
  numbers tied = scores;
  tied[at(selected.indices().front())] = boundary_of(scores, selected).best_outside;
  if (selection_certified(tied, best(tied, selected.size()), 0.0)) outcome.error += 1.0;
  numbers crossed = scores;
  for (index_t k = 0; k < n; ++k) crossed[at(k)] += 0.75 * gap * adversary(k);
  outcome.altered = is_top_set(crossed, selected) ? 0.0 : 1.0;
  return outcome;
}

/// Horizon decay (83)-(84) of first-order scores on smooth functions with known constants, and on a
/// pair of affine gradients that nearly attains it. Wrong version: 99 % of the bound.
inline verify_outcome horizon_decay(random_source& random) {
  const index_t d = 1 + random.below(6);
  const detail::ridge_sum loss(1 + random.below(3), d, random);
  const detail::ridge_sum validation(1 + random.below(3), d, random);
  const numbers from = normals(d, random);
  const numbers shift = normals(d, random, std::exp(-4.0 * random.uniform()));
  numbers to = from;
  for (std::size_t j = 0; j < to.size(); ++j) to[j] += shift[j];
  const double eta = 0.1 + random.uniform();
  const auto score = [&](const numbers& x) {
    const numbers g = loss.gradient(x);
    const numbers v = validation.gradient(x);
    return eta * std::inner_product(g.begin(), g.end(), v.begin(), 0.0);
  };
  const double bound = horizon_decay_bound(eta,
                                           {.validation_norm = validation.gradient_bound(),
                                            .validation_lipschitz = validation.gradient_lipschitz(),
                                            .gradient_norm = loss.gradient_bound(),
                                            .gradient_lipschitz = loss.gradient_lipschitz()},
                                           euclidean_norm(shift));
  verify_outcome outcome;
  outcome.error = excess(std::abs(score(to) - score(from)), bound);
  const double r = 1e-5;  // g(x) = 1 + 2 x, v(x) = 3 + 4 x on [0, r]
  const double drift = eta * ((1 + 2 * r) * (3 + 4 * r) - 3);
  const double limit = horizon_decay_bound(eta,
                                           {.validation_norm = 3 + 4 * r,
                                            .validation_lipschitz = 4,
                                            .gradient_norm = 1 + 2 * r,
                                            .gradient_lipschitz = 2},
                                           r);
  outcome.error = std::max(outcome.error, excess(drift / limit, 1.0));
  outcome.altered = excess(drift / limit, 0.99);
  return outcome;
}

/// Model Shapley contrast: the claimed step attains the opening value and steps beside it do not;
/// doubling D halves opening and doubles deleting. Wrong version: both values grow with D.
inline verify_outcome model_shapley_contrast(random_source& random) {
  const instance drawn(random);
  const numbers theta = normals(drawn.d, random);
  const numbers open = opening_values(drawn.v, drawn.D);
  const numbers del = deleting_values(drawn.D, theta);
  numbers best_gain;
  numbers half;
  numbers twice;
  numbers steeper = drawn.D;
  verify_outcome outcome;
  for (std::size_t j = 0; j < open.size(); ++j) {
    const auto gain = [&](double a) { return drawn.v[j] * a - drawn.D[j] * a * a / 2; };
    const double a = drawn.v[j] / drawn.D[j];
    best_gain.push_back(gain(a));
    for (const double beside : {0.5, 0.9, 1.1, 1.5})
      outcome.error = std::max(outcome.error, excess(gain(a * beside), open[j]));
    half.push_back(open[j] / 2);
    twice.push_back(del[j] * 2);
    steeper[j] *= 2;
  }
  outcome.error = std::max({outcome.error, distance(open, best_gain),
                            distance(opening_values(drawn.v, steeper), half),
                            distance(deleting_values(steeper, theta), twice)});
  for (double& x : half) x *= 4;
  outcome.altered = distance(opening_values(drawn.v, steeper), half);
  return outcome;
}

// ---- models -------------------------------------------------------------------------------------

/// The eighth-order central difference at 0: exact for polynomials of degree 8, so that a step of
/// h = 0.02 leaves rounding (1e-16 / h) and nothing else of functions of size one.
template <class F>
double derivative(F&& f, double h) {
  return (4.0 / 5 * (f(h) - f(-h)) - 1.0 / 5 * (f(2 * h) - f(-2 * h)) +
          4.0 / 105 * (f(3 * h) - f(-3 * h)) - 1.0 / 280 * (f(4 * h) - f(-4 * h))) /
         h;
}

/// A small classifier on data of its own.
inline mlp_classifier<double> random_classifier(random_source& random) {
  const auto data = random_labelled_data<double>({.examples = 6,
                                                  .features = 3,
                                                  .classes = 2 + random.below(3),
                                                  .separation = 1.0,
                                                  .seed = random.bits()});
  return mlp_classifier<double>(data, {.hidden = {4}, .seed = random.bits()});
}

/// CWSD's gradient, of logits and of a model's parameters, against differences of the loss that is
/// written out here. Wrong version: the gradient without the factor tau.
inline verify_outcome cwsd_gradient(random_source& random) {
  const index_t tokens = 1 + random.below(4);
  const index_t classes = 2 + random.below(5);
  const numbers teacher = normals(tokens * classes, random);
  const numbers student = normals(tokens * classes, random);
  const double tau = 1.0 + 2.0 * random.uniform();
  const matrix_view<const double> z_teacher(teacher.data(), tokens, classes);
  verify_outcome outcome;
  for (const confidence weight : {confidence::entropy, confidence::exp_entropy,
                                  confidence::max_probability, confidence::uniform}) {
    const auto loss = [&](const numbers& logits) {
      const auto soft = [&](const numbers& z, index_t t) {
        numbers p;
        for (index_t c = 0; c < classes; ++c) p.push_back(std::exp(z[at(t * classes + c)] / tau));
        const double sum = std::accumulate(p.begin(), p.end(), 0.0);
        for (double& x : p) x /= sum;
        return p;
      };
      double divergence = 0.0;
      double entropy = 0.0;
      double top = 0.0;
      for (index_t t = 0; t < tokens; ++t) {
        const numbers q = soft(teacher, t);
        const numbers p = soft(logits, t);
        for (std::size_t c = 0; c < q.size(); ++c) {
          divergence += q[c] * std::log(q[c] / p[c]) / static_cast<double>(tokens);
          entropy -= q[c] * std::log(q[c]) / static_cast<double>(tokens);
        }
        top += *std::max_element(q.begin(), q.end()) / static_cast<double>(tokens);
      }
      const double w = weight == confidence::entropy
                           ? 1.0 - entropy / std::log(static_cast<double>(classes))
                       : weight == confidence::exp_entropy     ? std::exp(-entropy)
                       : weight == confidence::max_probability ? top
                                                               : 1.0;
      return w * tau * tau * divergence;
    };
    numbers gradient(student.size());
    cwsd<double>({.tau = tau, .weight = weight}, z_teacher, {student.data(), tokens, classes},
                 {gradient.data(), tokens, classes});
    numbers differences;
    for (std::size_t k = 0; k < student.size(); ++k)
      differences.push_back(derivative(
          [&](double h) {
            numbers z = student;
            z[k] += h;
            return loss(z);
          },
          0.02));
    outcome.error = std::max(outcome.error, distance(gradient, differences));
    for (double& x : gradient) x /= tau;
    outcome.altered = std::max(outcome.altered, distance(gradient, differences));
  }

  // The way back through a model: one random direction of the parameter space.
  mlp_classifier<double> model = random_classifier(random);
  const mlp_classifier<double> frozen = model;
  std::vector<double> theta = parameter_values(model);
  for (double& x : theta) x += 0.3 * random.normal();
  assign_parameters(model, std::span<const double>(theta));
  const cwsd_preservation<mlp_classifier<double>> prior({0, 1, 2, 3}, model_teacher(frozen));
  numbers gradient(theta.size(), 0.0);
  prior.accumulate_gradient(exec::reference{}, model, 1.0, gradient);
  const numbers direction =
      normals(static_cast<index_t>(theta.size()), random, 1.0 / std::sqrt(theta.size()));
  const double along = derivative(
      [&](double h) {
        numbers moved = theta;
        for (std::size_t j = 0; j < moved.size(); ++j) moved[j] += h * direction[j];
        assign_parameters(model, std::span<const double>(moved));
        return prior.value(exec::reference{}, model);
      },
      0.01);
  const double claimed =
      std::inner_product(gradient.begin(), gradient.end(), direction.begin(), 0.0);
  outcome.error = std::max(outcome.error, distance({claimed}, {along}));
  return outcome;
}

/// The four ways to <g_i, p> on one model. The directional difference is taken at two lengths and
/// extrapolated, which leaves a truncation of fourth order, below rounding.
/// Wrong version: a projection with one coordinate off.
inline verify_outcome strategies_agree(random_source& random) {
  mlp_classifier<double> model = random_classifier(random);
  const index_t d = model.layout().size();
  projection<double> direction;
  direction.rule = {.order = score_order::first, .step = step_geometry::plain, .eta = 1.0};
  direction.p = normals(d, random, 1.0 / std::sqrt(static_cast<double>(d)));
  const std::vector<index_t> pool{0, 1, 2, 3, 4, 5};
  const auto scores = [&](score_strategy strategy, double length = 0.0) {
    return data_scores(exec::reference{}, model, pool, direction,
                       {.strategy = strategy, .batch_size = 4, .difference_length = length})
        .scores;
  };
  const numbers reference = scores(score_strategy::materialised);
  const numbers coarse = scores(score_strategy::directional_difference, 2e-3);
  numbers fine = scores(score_strategy::directional_difference, 1e-3);
  for (std::size_t i = 0; i < fine.size(); ++i) fine[i] = (4.0 * fine[i] - coarse[i]) / 3.0;
  verify_outcome outcome;
  outcome.error = std::max({distance(scores(score_strategy::ghost), reference),
                            distance(scores(score_strategy::forward_derivative), reference),
                            distance(fine, reference)});
  direction.p.back() += 0.1;
  outcome.altered = distance(scores(score_strategy::ghost), reference);
  return outcome;
}

// ---- the table ----------------------------------------------------------------------------------

inline std::vector<verify_check> verify_checks() {
  constexpr double tight = 1e-10;
  std::vector<verify_check> checks;
  const auto add = [&](std::string statement, auto instance_of) {
    checks.push_back({std::move(statement), tight, std::move(instance_of)});
  };
  const auto in = [](const surrogate& utility) {
    return std::string(name_of(utility.order)) + " order, " + std::string(name_of(utility.step)) +
           " step";
  };
  add("Shapley value: subsets (27) = orders (28)", shapley_by_orders);
  add("Lemma 1: pair terms split in half", lemma_1);
  for (const step_geometry step : both_geometries)
    for (const score_order order : one_sided_orders) {
      const surrogate utility{order, step};
      add("Theorem 1, both sides, " + in(utility),
          [utility](random_source& random) { return theorem_1(random, utility); });
    }
  for (const step_geometry step : both_geometries)
    for (const score_order order : one_sided_orders) {
      const surrogate utility{order, step};
      add("Joint game, " + in(utility),
          [utility](random_source& random) { return joint_game(random, utility); });
    }
  add("Conservation: rows = columns = U(everything)", conservation);
  add("Proposition 1: coordination gaps", proposition_1);
  add("Re-selection never lowers the objective", reselection_climbs);
  add("Proposition 2: |U - U_1| <= beta/2 |Delta|^2",
      [](random_source& random) { return proposition_2(random, score_order::first); });
  add("Proposition 2: |U - U_2| <= rho/6 |Delta|^3",
      [](random_source& random) { return proposition_2(random, score_order::full); });
  add("U = U_2 for quadratic J", quadratic_is_exact);
  add("Proposition 3: diagonal - full, exactly", proposition_3);
  add("Proposition 3: norm bounds", proposition_3_bounds);
  add("Corollary 1: certified masks do not change",
      [](random_source& random) { return corollary(random, player_side::parameters); });
  add("Corollary 2: certified subsets do not change",
      [](random_source& random) { return corollary(random, player_side::examples); });
  add("Horizon decay (83)-(84)", horizon_decay);
  add("Model Shapley contrast (75)-(78)", model_shapley_contrast);
  add("CWSD gradient", cwsd_gradient);
  add("Four data-score strategies agree", strategies_agree);
  return checks;
}

}  // namespace dualsft::cli
