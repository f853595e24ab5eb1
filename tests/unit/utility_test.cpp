// Proves: steps of sets, U, U_1, U_2 and the truncation bounds of Proposition 2 (which are not
// vacuous).   Against: steps by hand, a quadratic J, finite differences, functions that attain the
// bounds.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/detail/ridge_sum.hpp>
#include <dualsft/utility.hpp>
#include <support/theory_problem.hpp>
#include <vector>

using namespace dualsft;
using test::owned_problem;

namespace {

std::vector<double> random_vector(index_t n, random_source& random, double scale = 1.0) {
  std::vector<double> x(static_cast<std::size_t>(n));
  for (double& value : x) value = scale * random.normal();
  return x;
}

}  // namespace

TEST_CASE("steps by hand") {
  const std::vector<double> g{1, 2, 3, -1}, v{0, 0}, D{2, 4};
  const local_problem problem{
      .gradients = {g.data(), 2, 2}, .v = v, .D = D, .H = {}, .HG = {}, .eta = 0.5};
  using bits = std::vector<std::uint8_t>;
  using step = std::vector<double>;
  CHECK(local_step(problem, player_side::parameters, bits{1, 0}) == step{-2, 0});
  CHECK(local_step(problem, player_side::examples, bits{0, 1}) == step{-1.5, 0.5});
  CHECK(local_step(problem, player_side::both, bits{0, 1, 0, 1}) == step{0, 0.5});
  CHECK(local_step(problem, player_side::examples, bits{0, 1}, step_geometry::adamw) ==
        step{-0.75, 0.125});
  CHECK(local_step(problem, player_side::both, bits{0, 0, 1, 1}) == step{0, 0});
  CHECK_THROWS_AS(local_step(problem, player_side::both, bits{1, 1}), invalid_argument);
  CHECK(player_count(problem, player_side::both) == 4);
}

TEST_CASE("U_2 is exact on a quadratic J, U_1 on an affine one") {
  random_source random(41);
  for (const index_t d : {0, 1, 3, 10}) {
    const owned_problem owned(2, d, random);
    const auto theta = random_vector(d, random);
    const auto delta = random_vector(d, random);
    const auto affine = [&](std::span<const double> x) {
      double sum = 0.7;
      for (std::size_t j = 0; j < x.size(); ++j) sum += owned.v[j] * x[j];
      return sum;
    };
    const double u1 = first_order_utility(owned.v, delta);
    CHECK(std::abs(step_utility(affine, theta, delta) - u1) <= 1e-12);
    const auto quadratic = [&](std::span<const double> x) {
      double sum = affine(x);
      for (std::size_t j = 0; j < x.size(); ++j)
        for (std::size_t k = 0; k < x.size(); ++k)
          sum += 0.5 * x[j] * owned.H[j * x.size() + k] * x[k];
      return sum;
    };
    std::vector<double> slope = owned.v;  // gradient at theta
    for (std::size_t j = 0; j < slope.size(); ++j)
      for (std::size_t k = 0; k < slope.size(); ++k)
        slope[j] += owned.H[j * slope.size() + k] * theta[k];
    const double u2 = second_order_utility(
        slope, matrix_operator(matrix_view<const double>(owned.H.data(), d, d)), delta);
    // 100 products of size up to 10
    CHECK(std::abs(step_utility(quadratic, theta, delta) - u2) <= 1e-11);
    local_problem problem = owned.view();
    CHECK(std::abs(surrogate_utility(problem, score_order::first, delta) - u1) <= 1e-13);
    double diagonal = u1;
    for (std::size_t j = 0; j < delta.size(); ++j)
      diagonal -= 0.5 * owned.D[j] * delta[j] * delta[j];
    CHECK(std::abs(surrogate_utility(problem, score_order::diagonal, delta) - diagonal) <= 1e-12);
  }
}

TEST_CASE("the test function's derivatives, by finite differences") {
  random_source random(42);
  const index_t d = 6;
  const detail::ridge_sum f(5, d, random);
  const auto x = random_vector(d, random);
  const auto g = f.gradient(x);
  const auto h = f.hessian(x);
  const double e = 1e-5;  // central differences: e^2 truncation, eps/e rounding, both near 1e-10
  for (std::size_t j = 0; j < x.size(); ++j) {
    auto up = x, down = x;
    up[j] += e;
    down[j] -= e;
    CHECK(std::abs((f(up) - f(down)) / (2 * e) - g[j]) <= 1e-8);
    const auto gu = f.gradient(up), gd = f.gradient(down);
    for (std::size_t k = 0; k < x.size(); ++k)
      CHECK(std::abs((gu[k] - gd[k]) / (2 * e) - h[j * x.size() + k]) <= 1e-8);
  }
  CHECK(euclidean_norm(g) <= f.gradient_bound());
}

TEST_CASE("Proposition 2 holds on a nonlinear J, with the predicted orders of vanishing") {
  random_source random(43);
  double at_hundredth = 0;
  double at_thousandth = 0;
  for (int repeat = 0; repeat < 200; ++repeat) {
    const index_t d = 1 + random.below(6);
    const detail::ridge_sum f(1 + random.below(4), d, random);
    const auto theta = random_vector(d, random);
    const auto v = f.gradient(theta);
    const auto h = f.hessian(theta);
    const auto hessian = matrix_operator(matrix_view<const double>(h.data(), d, d));
    const auto direction = random_vector(d, random);
    for (const double scale : {2.0, 0.1, 0.01, 0.001}) {
      auto delta = direction;
      for (double& x : delta) x *= scale;
      const double norm = euclidean_norm(delta);
      const double u = step_utility(f, theta, delta);
      const double r1 = std::abs(u - first_order_utility(v, delta));
      const double r2 = std::abs(u - second_order_utility(v, hessian, delta));
      const double rounding = 1e-13;
      CHECK(r1 <= first_order_truncation_bound(f.gradient_lipschitz(), norm) + rounding);
      CHECK(r2 <= second_order_truncation_bound(f.hessian_lipschitz(), norm) + rounding);
      if (scale == 0.01) at_hundredth += r2;
      if (scale == 0.001) at_thousandth += r2;
    }
  }
  // Third order: a step ten times shorter leaves a thousandth. Summed over the functions, because
  // the third derivative along a single direction may happen to be tiny.
  CHECK(at_hundredth / at_thousandth > 900);
  CHECK(at_hundredth / at_thousandth < 1100);
}

TEST_CASE("Proposition 2 is attained: half of the bound would be wrong") {
  const std::vector<double> origin{0, 0, 0}, delta{0.3, -0.4, 1.2}, zero{0, 0, 0};
  const double norm = euclidean_norm(delta);
  CHECK(norm == doctest::Approx(1.3).epsilon(1e-15));
  const auto square = [](std::span<const double> x) {
    return 3.0 / 2 * (x[0] * x[0] + x[1] * x[1] + x[2] * x[2]);
  };
  CHECK(std::abs(step_utility(square, origin, delta) - first_order_utility(zero, delta)) ==
        doctest::Approx(first_order_truncation_bound(3.0, norm)).epsilon(1e-14));
  // |x|^3 has a Hessian with Lipschitz constant 6, attained along rays.
  const auto cube = [](std::span<const double> x) {
    return std::pow(x[0] * x[0] + x[1] * x[1] + x[2] * x[2], 1.5);
  };
  const std::vector<double> flat(9, 0.0);
  CHECK(std::abs(step_utility(cube, origin, delta) -
                 second_order_utility(
                     zero, matrix_operator(matrix_view<const double>(flat.data(), 3, 3)), delta)) ==
        doctest::Approx(second_order_truncation_bound(6.0, norm)).epsilon(1e-14));
}

TEST_CASE("preconditions") {
  const std::vector<double> two{1, 2}, three{1, 2, 3};
  CHECK_THROWS_AS(first_order_utility(two, three), invalid_argument);
  CHECK_THROWS_AS(step_utility([](std::span<const double>) { return 0.0; }, two, three),
                  invalid_argument);
  CHECK_THROWS_AS(matrix_operator(matrix_view<const double>(three.data(), 1, 3)), invalid_argument);
  CHECK_THROWS_AS(second_order_utility(
                      two, matrix_operator(matrix_view<const double>(three.data(), 1, 1)), two),
                  invalid_argument);
  CHECK_THROWS_AS(first_order_truncation_bound(-1, 1), invalid_argument);
  CHECK_THROWS_AS(second_order_truncation_bound(1, std::nan("")), invalid_argument);
}
