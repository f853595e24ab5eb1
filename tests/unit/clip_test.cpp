// Proves: clipping by global norm, over all coordinates or selected ones, dense or compact.
// Against: PyTorch's formula, a plain sum in long double, and the masked dense gradient bit for bit.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/optim/clip.hpp>
#include <limits>
#include <string>
#include <support/optim.hpp>
#include <vector>

using namespace dualsft;
using namespace dualsft::testing;

TEST_CASE("clip_grad_norm_ of PyTorch") {
  // torch 2.15.0: clip_grad_norm_ of (3, -4, 12, 84) in float64 with max_norm 10: norm 85.
  const double expected[4] = {0.3529411723183392, -0.4705882297577856, 1.4117646892733569,
                              9.882352824913497};
  std::vector<double> gradient{3, -4, 12, 84};
  for (int k = 0; k < 2; ++k) {
    auto g = gradient;
    const auto result = k == 0 ? clip_gradient_norm(exec::reference{}, std::span(g), {10})
                               : clip_gradient_norm(exec::cpu{}, std::span(g), {10});
    CHECK(result.norm == 85);
    CHECK(result.scale == 10 / (85 + 1e-6));
    for (std::size_t i = 0; i < 4; ++i) CHECK(g[i] == doctest::Approx(expected[i]).epsilon(1e-15));
  }
  // Short enough: not touched.
  auto g = gradient;
  CHECK(clip_gradient_norm(exec::cpu{}, std::span(g), {86}).scale == 1);
  CHECK(g == gradient);
  CHECK(clip_gradient_norm(exec::cpu{}, std::span(g), {std::numeric_limits<double>::infinity()})
            .scale == 1);
  CHECK(g == gradient);
}

TEST_CASE_TEMPLATE("the norm is the root of the sum of squares", Real, float, double) {
  random_source random(29);
  for (const index_t n : {0, 1, 2, 3, 31, 32, 33, 255, 257, 1000, 16384, 16385, 300001}) {
    CAPTURE(n);
    std::vector<Real> gradient = heavy_values<Real>(n, random);
    long double sum = 0;
    for (const Real x : gradient) sum += static_cast<long double>(x) * static_cast<long double>(x);
    const std::span<const Real> g = gradient;
    // n additions in double of non-negative terms.
    const double tolerance = static_cast<double>(n + 2) * 2.3e-16;
    const auto expected = doctest::Approx(static_cast<double>(sum)).epsilon(tolerance + 1e-300);
    CHECK(sum_of_squares(exec::reference{}, g) == expected);
    const double one = sum_of_squares(exec::cpu{1}, g);
    CHECK(one == expected);
    for (const int threads : {2, 3, 7}) CHECK(sum_of_squares(exec::cpu{threads}, g) == one);
  }
}

TEST_CASE_TEMPLATE("clipping selected coordinates is clipping the masked gradient", Real, float,
                   double) {
  random_source random(31);
  for (const index_t d : {0, 1, 33, 1000, 16385, 200001})
    for (const double density : {0.0, 0.05, 1.0}) {
      CAPTURE(d);
      CAPTURE(density);
      const index_set selected = random_mask(d, density, random);
      const paged_index_set paged(selected);
      const std::vector<Real> gradient = heavy_values<Real>(d, random);
      std::vector<Real> masked(gradient.size(), Real{0}), picked, expected = gradient;
      for (const index_t i : selected.indices()) {
        masked[static_cast<std::size_t>(i)] = gradient[static_cast<std::size_t>(i)];
        picked.push_back(gradient[static_cast<std::size_t>(i)]);
      }
      // Unselected values must not even be looked at.
      std::vector<Real> by_set = gradient;
      for (std::size_t i = 0; i < by_set.size(); ++i)
        if (!selected.contains(static_cast<index_t>(i)))
          by_set[i] = expected[i] = std::numeric_limits<Real>::quiet_NaN();
      std::vector<Real> by_pages = by_set, plain = by_set, plain_masked = masked;
      std::vector<Real> compact = picked, plain_compact = picked;
      // The sum, because its root hides a difference in the last bit.
      const double sum = sum_of_squares(exec::cpu{1}, std::span<const Real>(masked));
      CHECK(bits(sum) ==
            bits(sum_of_squares(exec::cpu{2}, std::span<const Real>(by_set), selected)));
      CHECK(bits(sum) == bits(sum_of_squares(exec::cpu{3}, std::span<const Real>(by_set), paged)));
      CHECK(sum ==
            doctest::Approx(sum_of_squares(exec::reference{}, std::span<const Real>(by_set), paged))
                .epsilon(1e-10));
      const clip_options options{.max_norm = 0.75};
      const auto a = clip_gradient_norm(exec::cpu{2}, std::span(masked), options);
      const auto b = clip_gradient_norm(exec::cpu{3}, std::span(by_set), selected, options);
      const auto c = clip_gradient_norm(exec::cpu{1}, std::span(by_pages), paged, options);
      const auto e = clip_compact_gradient_norm(exec::cpu{2}, std::span(compact), paged, options);
      const auto f = clip_compact_gradient_norm(exec::cpu{2}, std::span(compact), selected,
                                                {std::numeric_limits<double>::infinity()});
      CHECK(bits(a.norm) == bits(b.norm));
      CHECK(bits(a.norm) == bits(c.norm));
      CHECK(bits(a.norm) == bits(e.norm));
      CHECK(bits(a.scale) == bits(b.scale));
      CHECK(f.norm <= 0.75 * (1 + 1e-5));
      std::size_t rank = 0;
      for (const index_t j : selected.indices()) {
        const auto i = static_cast<std::size_t>(j);
        expected[i] = masked[i];
        picked[rank++] = masked[i];
      }
      CHECK(first_difference(expected, by_set) == -1);
      CHECK(first_difference(expected, by_pages) == -1);
      CHECK(first_difference(picked, compact) == -1);
      // The plain loops add in another order: the norm may differ in the last bits, and with it
      // each value by a rounding of the factor.
      const auto g = clip_gradient_norm(exec::reference{}, std::span(plain), selected, options);
      const auto h =
          clip_compact_gradient_norm(exec::reference{}, std::span(plain_compact), paged, options);
      const auto k = clip_gradient_norm(exec::reference{}, std::span(plain_masked), options);
      CHECK(g.norm == doctest::Approx(a.norm).epsilon(1e-10));
      CHECK(bits(g.norm) == bits(h.norm));
      CHECK(bits(g.norm) == bits(k.norm));
    }
}

TEST_CASE("the order of addition follows coordinates") {
  // Another order gives the same bits more often than not; sixty sums do not.
  random_source random(47);
  for (int k = 0; k < 60; ++k) {
    const index_set selected = random_mask(3000, 0.5, random);
    const std::vector<double> gradient = heavy_values<double>(3000, random);
    std::vector<double> masked(gradient.size(), 0.0);
    for (const index_t i : selected.indices())
      masked[static_cast<std::size_t>(i)] = gradient[static_cast<std::size_t>(i)];
    CHECK(bits(sum_of_squares(exec::cpu{1}, std::span<const double>(masked))) ==
          bits(sum_of_squares(exec::cpu{1}, std::span<const double>(gradient), selected)));
  }
}

TEST_CASE("a norm that is not finite is named and nothing is scaled") {
  const double inf = std::numeric_limits<double>::infinity();
  for (const double bad : {std::nan(""), inf, -inf}) {
    std::vector<double> gradient(1000, 10.0);
    gradient[123] = bad;
    const auto before = gradient;
    const auto refuses = [&](auto&& call) {
      std::string text;
      try {
        call();
      } catch (const numerical_error& error) {
        text = error.what();
      }
      CHECK(text.find("123") != std::string::npos);
      CHECK(first_difference(before, gradient) == -1);
    };
    refuses([&] { clip_gradient_norm(exec::cpu{}, std::span(gradient)); });
    refuses([&] { clip_gradient_norm(exec::reference{}, std::span(gradient)); });
    refuses([&] { clip_gradient_norm(exec::cpu{}, std::span(gradient), index_set::all(1000)); });
    refuses([&] {
      clip_compact_gradient_norm(exec::cpu{}, std::span(gradient), index_set::all(1000));
    });
    // A bad value that is not selected is no concern.
    CHECK(clip_gradient_norm(exec::cpu{}, std::span(gradient), index_set({0, 5}, 1000)).norm ==
          doctest::Approx(std::sqrt(200.0)));
  }
  std::vector<double> huge(3, 1e300);  // finite, but its squares are not
  CHECK_THROWS_AS(clip_gradient_norm(exec::cpu{}, std::span(huge)), numerical_error);
  std::vector<float> large(3, 1e30f);  // squares overflow float, not double
  CHECK(clip_gradient_norm(exec::cpu{}, std::span(large)).norm ==
        doctest::Approx(std::sqrt(3.0) * 1e30));
}

TEST_CASE("misuse is refused") {
  std::vector<double> gradient(5, 1.0);
  const std::span<double> g(gradient);
  const double inf = std::numeric_limits<double>::infinity();
  CHECK_THROWS_AS(clip_gradient_norm(exec::cpu{}, g, {0}), invalid_argument);
  CHECK_THROWS_AS(clip_gradient_norm(exec::cpu{}, g, {-inf}), invalid_argument);
  CHECK_THROWS_AS(clip_gradient_norm(exec::cpu{}, g, {std::nan("")}), invalid_argument);
  CHECK_THROWS_AS(clip_gradient_norm(exec::cpu{}, g, index_set::all(4)), invalid_argument);
  CHECK_THROWS_AS(sum_of_squares(exec::cpu{}, std::span<const double>(g), index_set::all(4)),
                  invalid_argument);
  CHECK_THROWS_AS(clip_compact_gradient_norm(exec::cpu{}, g, index_set({1, 2}, 5)),
                  invalid_argument);
  CHECK(gradient == std::vector<double>(5, 1.0));
}
