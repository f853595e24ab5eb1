// Proves: Theorem 1 (scores are Shapley values) on both sides at each order and in both geometries,
// and the closed form of the joint game.   Against: exact Shapley values by the subset formula.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/detail/ridge_sum.hpp>
#include <dualsft/games.hpp>
#include <dualsft/shapley.hpp>
#include <support/theory_problem.hpp>
#include <vector>

using namespace dualsft;
using test::owned_problem;

namespace {

constexpr double tolerance = 1e-12;  // relative to the largest value; a few thousand roundings
constexpr score_order orders[] = {score_order::first, score_order::diagonal, score_order::full};
constexpr step_geometry geometries[] = {step_geometry::plain, step_geometry::adamw};

double relative(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double error = 0;
  double scale = 1;
  for (std::size_t k = 0; k < a.size(); ++k) {
    error = std::max(error, std::abs(a[k] - b[k]));
    scale = std::max(scale, std::abs(b[k]));
  }
  return error / scale;
}

}  // namespace

TEST_CASE("Theorem 1: column and row sums are the Shapley values of the one-sided games") {
  random_source random(31);
  for (int repeat = 0; repeat < 5; ++repeat)
    for (const index_t n : {1, 2, 6})
      for (const index_t d : {1, 3, 7}) {
        const owned_problem owned(n, d, random);
        const local_problem problem = owned.view();
        for (const auto order : orders)
          for (const auto step : geometries) {
            const surrogate utility{order, step};
            const dual_values closed = one_sided_shapley(problem, utility);
            const surrogate_game parameters(problem, player_side::parameters, utility);
            const surrogate_game examples(problem, player_side::examples, utility);
            CHECK(relative(exact_shapley(parameters).values, closed.parameters) <= tolerance);
            CHECK(relative(exact_shapley(examples).values, closed.examples) <= tolerance);
          }
      }
}

TEST_CASE("the joint game: closed form at first, diagonal and full order") {
  random_source random(32);
  for (int repeat = 0; repeat < 3; ++repeat)
    for (const index_t n : {1, 2, 5})
      for (const index_t d : {1, 2, 5}) {
        const owned_problem owned(n, d, random);
        const local_problem problem = owned.view();
        for (const auto order : orders)
          for (const auto step : geometries) {
            const dual_values closed = joint_shapley(problem, {order, step});
            const auto exact =
                exact_shapley(surrogate_game(problem, player_side::both, {order, step}));
            std::vector<double> all = closed.examples;
            all.insert(all.end(), closed.parameters.begin(), closed.parameters.end());
            CHECK(relative(exact.values, all) <= tolerance);
            double total = 0;
            for (const double phi : all) total += phi;
            CHECK(std::abs(total - exact.value_of_everybody) <=
                  tolerance * (1 + std::abs(exact.value_of_everybody)));
            if (order == score_order::first) {
              dual_values half = one_sided_shapley(problem, {order, step});
              for (double& x : half.parameters) x /= 2;
              for (double& x : half.examples) x /= 2;
              CHECK(relative(closed.parameters, half.parameters) <= tolerance);
              CHECK(relative(closed.examples, half.examples) <= tolerance);
            }
          }
        const surrogate joint{.order = score_order::joint};
        CHECK(joint_shapley(problem, joint).parameters == joint_shapley(problem).parameters);
      }
}

TEST_CASE("the joint game by the formula that needs only Q (theory section 3)") {
  random_source random(33);
  const owned_problem owned(4, 3, random);
  const auto p = owned.view();
  const auto closed = joint_shapley(p);
  const double eta = p.eta;
  for (index_t j = 0; j < 3; ++j) {
    double G = 0, Q = 0;
    for (index_t i = 0; i < 4; ++i) {
      G += p.gradients(i, j);
      Q += p.gradients(i, j) * p.gradients(i, j);
    }
    const double expected =
        eta / 2 * p.v[j] * G - eta * eta / 4 * p.D[j] * Q - eta * eta / 6 * p.D[j] * (G * G - Q);
    CHECK(closed.parameters[static_cast<std::size_t>(j)] ==
          doctest::Approx(expected).epsilon(1e-13));
  }
}

TEST_CASE("the localised game of a quadratic objective is the full-order game") {
  random_source random(34);
  const owned_problem owned(3, 4, random);
  const local_problem problem = owned.view();
  const std::vector<double> theta{0.3, -1.0, 2.0, 0.1};
  // J(x) = v.(x - theta) + (x - theta)^T H (x - theta) / 2
  const auto objective = [&](std::span<const double> x) {
    double sum = 0;
    for (index_t j = 0; j < 4; ++j) {
      const auto uj = static_cast<std::size_t>(j);
      sum += problem.v[j] * (x[uj] - theta[uj]);
      for (index_t k = 0; k < 4; ++k) {
        const auto uk = static_cast<std::size_t>(k);
        sum += 0.5 * (x[uj] - theta[uj]) * problem.H(j, k) * (x[uk] - theta[uk]);
      }
    }
    return sum;
  };
  for (const auto side : {player_side::parameters, player_side::examples, player_side::both})
    for (const auto step : geometries) {
      const localised_game game(objective, theta, problem, side, step);
      const surrogate_game truncated(problem, side, {score_order::full, step});
      CHECK(game.players() == truncated.players());
      CHECK(relative(exact_shapley(game).values, exact_shapley(truncated).values) <= tolerance);
    }
}

TEST_CASE("games check what they are given") {
  random_source random(35);
  const owned_problem owned(3, 2, random);
  local_problem problem = owned.view();
  problem.H = {};
  problem.HG = problem.v;  // enough for scores, not for the values of other sets
  CHECK_THROWS_AS(surrogate_game(problem, player_side::examples, {.order = score_order::full}),
                  invalid_argument);
  CHECK_THROWS_AS(joint_shapley(problem, {.order = score_order::full}), invalid_argument);
  const surrogate_game game(owned.view(), player_side::both);
  CHECK(game.players() == 5);
  CHECK_THROWS_AS(game.value(std::vector<std::uint8_t>(4, 1)), invalid_argument);
  CHECK_THROWS_AS(one_sided_shapley(owned.view(), {.order = score_order::joint}), invalid_argument);
  const std::vector<double> square(6);
  CHECK_THROWS_AS(pair_game(matrix_view<const double>(square.data(), 2, 3)), invalid_argument);
}
