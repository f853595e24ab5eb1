// Proves: the interaction matrix, its projection, sums and totals at every order and geometry.
// Against: hand-computed numbers, the paper's entrywise formulas (6), and U_2 of the full step.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/interaction.hpp>
#include <dualsft/utility.hpp>
#include <limits>
#include <support/theory_problem.hpp>
#include <vector>

using namespace dualsft;
using test::owned_problem;

namespace {
// Sums of a few hundred terms of size 1: 1e-13 is about a thousand roundings.
constexpr double tolerance = 1e-13;
constexpr score_order orders[] = {score_order::first, score_order::diagonal, score_order::full};
constexpr step_geometry geometries[] = {step_geometry::plain, step_geometry::adamw};
}  // namespace

TEST_CASE("two examples, two parameters, by hand") {
  const std::vector<double> g{1, 2, 3, -1};  // G = (4, 1)
  const std::vector<double> v{2, 10}, D{1, 4}, H{1, 2, 2, 0};
  local_problem problem{
      .gradients = {g.data(), 2, 2}, .v = v, .D = D, .H = {H.data(), 2, 2}, .HG = {}, .eta = 0.5};
  const auto first = interaction_matrix(problem, {.order = score_order::first});
  CHECK(first.entries == std::vector<double>{1, 10, 3, -5});
  CHECK(first.data_scores == std::vector<double>{11, -2});
  CHECK(first.parameter_scores == std::vector<double>{4, 5});
  CHECK(first.total == 9);
  CHECK(first.second_order_share == 0);
  // p = v - 0.25 (4, 4) = (1, 9)
  const auto diagonal = interaction_matrix(problem);
  CHECK(diagonal.projection == std::vector<double>{1, 9});
  CHECK(diagonal.entries == std::vector<double>{0.5, 9, 1.5, -4.5});
  CHECK(diagonal.second_order_share == doctest::Approx(std::sqrt(2.0 / 104)).epsilon(1e-14));
  // H G = (6, 8), p = (0.5, 8)
  const auto full = interaction_matrix(problem, {.order = score_order::full});
  CHECK(full.projection == std::vector<double>{0.5, 8});
  // adamw, diagonal: D .* D^-1 G = G, p = ((2 - 1) / 1, (10 - 0.25) / 4)
  const auto adamw = interaction_matrix(problem, {.step = step_geometry::adamw});
  CHECK(adamw.projection == std::vector<double>{1, 2.4375});
  CHECK(full.matrix()(1, 0) == full.entries[2]);
}

TEST_CASE("entries, sums and the conservation law for random problems of every shape") {
  random_source random(11);
  for (const index_t n : {0, 1, 2, 3, 31, 33})
    for (const index_t d : {0, 1, 2, 5, 32}) {
      CAPTURE(n);
      CAPTURE(d);
      const owned_problem owned(n, d, random);
      const local_problem problem = owned.view();
      for (const auto order : orders)
        for (const auto step : geometries) {
          const auto m = interaction_matrix(problem, {order, step});
          const auto at = [](index_t k) { return static_cast<std::size_t>(k); };
          double worst = 0;
          std::vector<double> sums(at(d), 0.0);
          for (index_t j = 0; j < d; ++j) {
            const double pj = step == step_geometry::adamw ? problem.D[j] : 1.0;
            double c = 0;  // [C P^-1 G]_j, from the definition
            for (index_t i = 0; i < n; ++i)
              for (index_t k = 0; k < d; ++k) {
                const double h = order == score_order::full       ? problem.H(j, k)
                                 : order == score_order::diagonal ? (j == k ? problem.D[j] : 0.0)
                                                                  : 0.0;
                const double pk = step == step_geometry::adamw ? problem.D[k] : 1.0;
                c += h * problem.gradients(i, k) / pk;
              }
            for (index_t i = 0; i < n; ++i) {
              const double expected =
                  problem.eta * problem.gradients(i, j) / pj * (problem.v[j] - problem.eta / 2 * c);
              worst = std::max(worst, std::abs(expected - m.matrix()(i, j)));
              sums[at(j)] += expected;
            }
            worst = std::max(worst, std::abs(sums[at(j)] - m.parameter_scores[at(j)]));
          }
          CHECK(worst <= tolerance * 100);  // plain sums of up to 33 * 32 terms as the oracle
          CHECK(conservation_gap(m.data_scores, m.parameter_scores) <= 1e-15);
          const std::vector<std::uint8_t> everyone(at(n), 1);
          const double everything = surrogate_utility(
              problem, order, local_step(problem, player_side::examples, everyone, step));
          CHECK(std::abs(m.total - everything) <= tolerance * (1 + 100 * std::abs(everything)));
        }
    }
}

TEST_CASE("HG stands for H, and strided views are scored where they lie") {
  random_source random(12);
  const owned_problem owned(5, 4, random);
  for (const auto step : geometries) {
    local_problem with_product = owned.view();
    std::vector<double> product(4, 0.0);
    for (index_t j = 0; j < 4; ++j)
      for (index_t k = 0; k < 4; ++k)
        for (index_t i = 0; i < 5; ++i)
          product[static_cast<std::size_t>(j)] +=
              owned.view().H(j, k) * owned.view().gradients(i, k) /
              (step == step_geometry::adamw ? owned.view().D[k] : 1.0);
    with_product.H = {};
    with_product.HG = product;
    const surrogate full{score_order::full, step};
    const auto a = interaction_matrix(owned.view(), full);
    const auto b = interaction_matrix(with_product, full);
    for (std::size_t k = 0; k < a.entries.size(); ++k)
      CHECK(std::abs(a.entries[k] - b.entries[k]) <= tolerance);
  }
  // The same gradients, column-major with a padding of NaN between columns.
  std::vector<double> padded(7 * 4, std::numeric_limits<double>::quiet_NaN());
  for (index_t i = 0; i < 5; ++i)
    for (index_t j = 0; j < 4; ++j)
      padded[static_cast<std::size_t>(j * 7 + i + 1)] = owned.view().gradients(i, j);
  local_problem strided = owned.view();
  strided.gradients = {padded.data() + 1, 5, 4, 1, 7};
  CHECK(interaction_matrix(strided).entries == interaction_matrix(owned.view()).entries);
}

TEST_CASE("a broken law shows") {
  const std::vector<double> rows{1.0, 2.0}, columns{4.0, -0.5};
  CHECK(conservation_gap(rows, columns) == doctest::Approx(0.5 / 4.5).epsilon(1e-15));
  CHECK(std::isnan(conservation_gap(std::vector<double>{std::nan("")}, columns)));
  CHECK(conservation_gap(std::vector<double>{}, std::vector<double>{}) == 0.0);
}

TEST_CASE("what does not fit is refused with its numbers") {
  random_source random(13);
  const owned_problem owned(3, 2, random);
  local_problem bad = owned.view();
  CHECK_THROWS_AS(interaction_matrix(bad, {.order = score_order::joint}), invalid_argument);
  bad.eta = 0;
  CHECK_THROWS_AS(interaction_matrix(bad), invalid_argument);
  bad = owned.view();
  bad.v = bad.v.subview(0, 1);
  CHECK_THROWS_WITH_AS(
      interaction_matrix(bad),
      "interaction_matrix: v must have one entry per parameter (v.size = 1, d = 2)",
      invalid_argument);
  bad = owned.view();
  bad.D = {};
  CHECK_NOTHROW(interaction_matrix(bad, {.order = score_order::full}));
  CHECK_THROWS_AS(interaction_matrix(bad), invalid_argument);
  CHECK_THROWS_AS(interaction_matrix(bad, {score_order::first, step_geometry::adamw}),
                  invalid_argument);
  bad = owned.view();
  bad.HG = bad.v;
  CHECK_THROWS_AS(interaction_matrix(bad, {.order = score_order::full}), invalid_argument);
  bad.H = {};
  bad.HG = {};
  CHECK_THROWS_AS(interaction_matrix(bad, {.order = score_order::full}), invalid_argument);
  const std::vector<double> zero{1.0, 0.0};
  bad = owned.view();
  bad.D = zero;
  CHECK_NOTHROW(interaction_matrix(bad));
  CHECK_THROWS_AS(interaction_matrix(bad, {.step = step_geometry::adamw}), invalid_argument);
}
