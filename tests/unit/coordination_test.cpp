// Proves: Proposition 1's gaps, aware scores with any p, regret, and the climb of re-selection.
// Against: sums over the written-out matrix, brute force over all sets of a size.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <dualsft/coordination.hpp>
#include <dualsft/stability.hpp>
#include <numeric>
#include <support/theory_problem.hpp>
#include <vector>

using namespace dualsft;
using test::owned_problem;

namespace {

constexpr double tolerance = 1e-13;

std::size_t at(index_t k) {
  return static_cast<std::size_t>(k);
}

index_set random_set(index_t universe, random_source& random) {
  std::vector<index_t> chosen;
  for (index_t k = 0; k < universe; ++k)
    if (random.uniform() < 0.5) chosen.push_back(k);
  return {std::move(chosen), universe};
}

index_set best(const std::vector<double>& scores, index_t k) {
  std::vector<index_t> order(scores.size());
  std::iota(order.begin(), order.end(), index_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](index_t a, index_t b) { return scores[at(a)] > scores[at(b)]; });
  order.resize(at(k));
  std::sort(order.begin(), order.end());
  return {std::move(order), static_cast<index_t>(scores.size())};
}

}  // namespace

TEST_CASE("Proposition 1: isolated minus aware scores are the gaps, for p = v and for any p") {
  random_source random(51);
  for (int repeat = 0; repeat < 50; ++repeat) {
    const index_t n = random.below(8);  // one draw per statement: arguments have no order
    const index_t d = random.below(8);
    const owned_problem owned(n, d, random);
    for (const auto order : {score_order::first, score_order::diagonal}) {
      const interaction m = interaction_matrix(owned.view(), {.order = order});
      const projected_interaction form{owned.view().gradients, m.projection, owned.eta};
      const index_set mask = random_set(owned.d, random);
      const index_set subset = random_set(owned.n, random);
      const auto data = mask_aware_data_scores(form, mask);
      const auto parameters = data_aware_parameter_scores(form, subset);
      const auto gaps = coordination_gap(form, mask, subset);
      double both = 0;
      for (index_t i = 0; i < owned.n; ++i) {
        double aware = 0;
        for (const index_t j : mask.indices()) aware += m.matrix()(i, j);
        CHECK(std::abs(aware - data[at(i)]) <= tolerance);
        CHECK(std::abs(m.data_scores[at(i)] - data[at(i)] - gaps.data[at(i)]) <= tolerance);
        if (subset.contains(i)) both += aware;
      }
      for (index_t j = 0; j < owned.d; ++j) {
        double aware = 0;
        for (const index_t i : subset.indices()) aware += m.matrix()(i, j);
        CHECK(std::abs(aware - parameters[at(j)]) <= tolerance);
        CHECK(std::abs(m.parameter_scores[at(j)] - parameters[at(j)] - gaps.parameters[at(j)]) <=
              tolerance);
      }
      CHECK(std::abs(both - bilinear_objective(form, subset, mask)) <= tolerance * 10);
    }
  }
}

TEST_CASE("no restriction, no gap; a total restriction, the whole score") {
  random_source random(52);
  const owned_problem owned(4, 3, random);
  const projected_interaction form{owned.view().gradients, owned.v, owned.eta};
  const auto none = coordination_gap(form, index_set::all(3), index_set::all(4));
  for (const double x : none.data) CHECK(x == 0.0);
  for (const double x : none.parameters) CHECK(x == 0.0);
  const auto m = interaction_matrix(owned.view(), {.order = score_order::first});
  const auto all = coordination_gap(form, index_set({}, 3), index_set({}, 4));
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(all.data[i] == doctest::Approx(m.data_scores[i]).epsilon(1e-13));
}

TEST_CASE("re-selection is the exact maximiser of one side and never lowers the objective") {
  random_source random(53);
  for (int repeat = 0; repeat < 100; ++repeat) {
    const index_t n = 3 + random.below(5), d = 3 + random.below(5);
    const owned_problem owned(n, d, random);
    const auto m = interaction_matrix(owned.view());
    const projected_interaction form{owned.view().gradients, m.projection, owned.eta};
    const index_t b = 1 + random.below(n), k = 1 + random.below(d);
    index_set subset = best(m.data_scores, b);
    index_set mask = best(m.parameter_scores, k);
    double objective = bilinear_objective(form, subset, mask);
    for (int round = 0; round < 4; ++round) {
      const auto aware_p = data_aware_parameter_scores(form, subset);
      const index_set new_mask = best(aware_p, k);
      const auto regret = one_shot_regret(aware_p, mask, new_mask);
      CHECK(std::abs(regret.aware_utility - bilinear_objective(form, subset, new_mask)) <= 1e-12);
      CHECK(std::abs(regret.unaware_utility - objective) <= 1e-12);
      if (regret.aware_utility > 0) {
        CHECK(regret.regret >= -1e-13);
      } else {
        CHECK(std::isnan(regret.regret));
      }
      // Brute force over every mask of this size.
      for (unsigned bits = 0; bits < (1U << d); ++bits) {
        std::vector<index_t> members;
        for (index_t j = 0; j < d; ++j)
          if (((bits >> j) & 1U) != 0) members.push_back(j);
        if (static_cast<index_t>(members.size()) != k) continue;
        CHECK(bilinear_objective(form, subset, index_set(members, d)) <=
              regret.aware_utility + 1e-12);
      }
      mask = new_mask;
      subset = best(mask_aware_data_scores(form, mask), b);
      const double next = bilinear_objective(form, subset, mask);
      CHECK(next >= objective - 1e-12);
      objective = next;
    }
  }
}

TEST_CASE("regret by hand, and what does not fit") {
  const std::vector<double> aware{5, 1, 4, -2};
  const auto regret = one_shot_regret(aware, index_set({0, 1}, 4), index_set({0, 2}, 4));
  CHECK(regret.unaware_utility == 6);
  CHECK(regret.aware_utility == 9);
  CHECK(regret.regret == doctest::Approx(1.0 / 3).epsilon(1e-15));
  CHECK_THROWS_AS(one_shot_regret(aware, index_set({0}, 4), index_set({0, 2}, 4)),
                  invalid_argument);
  CHECK_THROWS_AS(one_shot_regret(aware, index_set({0}, 3), index_set({0}, 3)), invalid_argument);
  const std::vector<double> g(6, 1.0), p{1, 2, 3};
  projected_interaction form{{g.data(), 2, 3}, p, 1.0};
  CHECK_THROWS_AS(mask_aware_data_scores(form, index_set({}, 2)), invalid_argument);
  CHECK_THROWS_AS(data_aware_parameter_scores(form, index_set({}, 3)), invalid_argument);
  CHECK_THROWS_AS(bilinear_objective(form, index_set({}, 3), index_set({}, 3)), invalid_argument);
  form.eta = -1;
  CHECK_THROWS_AS(coordination_gap(form, index_set({}, 3), index_set({}, 2)), invalid_argument);
  form.eta = 1;
  form.p = form.p.subview(0, 2);
  CHECK_THROWS_AS(mask_aware_data_scores(form, index_set({}, 3)), invalid_argument);
}
