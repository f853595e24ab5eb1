// Proves: the values of opening and of deleting a coordinate, and their opposite use of curvature.
// Against: maximisation over a grid of steps, and differences of the quadratic model.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <dualsft/model_shapley.hpp>
#include <dualsft/random.hpp>
#include <vector>

using namespace dualsft;

TEST_CASE("opening is the best step's gain, deleting the loss of a zeroed coordinate") {
  random_source random(71);
  for (const std::size_t d : {std::size_t{0}, std::size_t{1}, std::size_t{33}}) {
    std::vector<double> v(d), D(d), theta(d);
    for (std::size_t j = 0; j < d; ++j) {
      v[j] = random.normal();
      D[j] = 0.1 + random.uniform();
      theta[j] = random.normal();
    }
    const auto open = opening_values(v, D);
    const auto del = deleting_values(D, theta);
    REQUIRE(open.size() == d);
    REQUIRE(del.size() == d);
    for (std::size_t j = 0; j < d; ++j) {
      // 2001 steps around the optimum: the grid's best is within D (half a cell)^2 / 2 of it.
      const double width = std::abs(v[j]) / D[j];
      double best = 0;
      for (int k = -1000; k <= 1000; ++k) {
        const double a = width * k / 500.0;
        best = std::max(best, v[j] * a - D[j] * a * a / 2);
      }
      CHECK(best <= open[j] * (1 + 1e-14));
      CHECK(best >= open[j] - D[j] * width * width * 1e-6);
      const auto model = [&](double x) { return D[j] * (x - theta[j]) * (x - theta[j]) / 2; };
      CHECK(del[j] == doctest::Approx(model(0.0)).epsilon(1e-15));
    }
    std::vector<double> steeper = D;
    for (double& x : steeper) x *= 2;
    const auto open_steep = opening_values(v, steeper);
    const auto del_steep = deleting_values(steeper, theta);
    for (std::size_t j = 0; j < d; ++j) {
      CHECK(open_steep[j] == open[j] / 2);
      CHECK(del_steep[j] == del[j] * 2);
    }
  }
}

TEST_CASE("curvature must be positive and sizes equal") {
  const std::vector<double> two{1, 2}, bad{1, 0}, three{1, 2, 3}, undefined{1, std::nan("")};
  CHECK_THROWS_AS(opening_values(two, bad), invalid_argument);
  CHECK_THROWS_AS(opening_values(two, three), invalid_argument);
  CHECK_THROWS_AS(deleting_values(undefined, two), invalid_argument);
  CHECK_THROWS_WITH_AS(deleting_values(bad, two),
                       "deleting_values: D must be positive (j = 1, D[j] = 0)", invalid_argument);
}
