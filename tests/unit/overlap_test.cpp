// Proves: set overlaps and rank agreements follow their definitions, ties and NaN included.
// Against: O(n^2) loops over pairs, the textbook formula, and hand-computed cases.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/overlap.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <vector>

using namespace dualsft;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double missing = std::numeric_limits<double>::quiet_NaN();

// -1, 0, +1; NaN is below every number and equal to NaN.
int order(double a, double b) {
  if (std::isnan(a) || std::isnan(b))
    return static_cast<int>(!std::isnan(a)) - static_cast<int>(!std::isnan(b));
  return a < b ? -1 : a > b ? 1 : 0;
}

// The average of the ranks that equal scores span, by counting.
std::vector<double> average_ranks(const std::vector<double>& scores) {
  std::vector<double> ranks;
  for (const double x : scores) {
    double below = 0;
    double equal = 0;
    for (const double y : scores) {
      below += order(y, x) < 0 ? 1 : 0;
      equal += order(y, x) == 0 ? 1 : 0;
    }
    ranks.push_back(below + 0.5 * (equal + 1));
  }
  return ranks;
}

double pearson(const std::vector<double>& x, const std::vector<double>& y) {
  double mx = 0;
  double my = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    mx += x[i] / static_cast<double>(x.size());
    my += y[i] / static_cast<double>(x.size());
  }
  double xx = 0;
  double yy = 0;
  double xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mx) * (x[i] - mx);
    yy += (y[i] - my) * (y[i] - my);
    xy += (x[i] - mx) * (y[i] - my);
  }
  return xy / std::sqrt(xx * yy);
}

double agreement(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  double pairs = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      sum += 0.5 + 0.5 * order(a[i], a[j]) * order(b[i], b[j]);
      ++pairs;
    }
  return sum / pairs;
}

std::vector<double> draw(index_t n, int kind, std::uint64_t seed) {
  random_source random(seed);
  std::vector<double> scores;
  for (index_t i = 0; i < n; ++i) {
    const double u = random.uniform();
    scores.push_back(kind == 0   ? random.normal()
                     : kind == 1 ? static_cast<double>(random.below(5)) * random.sign()
                                 : (u < 0.3   ? missing
                                    : u < 0.4 ? inf
                                    : u < 0.5 ? -inf
                                              : u));
  }
  return scores;
}

}  // namespace

TEST_CASE("set overlaps by hand") {
  const index_set a({1, 3, 5, 7}, 10);
  const index_set b({3, 4, 7}, 10);
  CHECK(intersection_size(a, b) == 2);
  CHECK(jaccard(a, b) == 2.0 / 5);
  CHECK(jaccard(a, a) == 1);
  CHECK(jaccard(a, index_set({}, 10)) == 0);
  CHECK(jaccard(index_set(), index_set()) == 1);
  const std::vector<index_t> x{7, 1, 3, 5, 7};
  const std::vector<index_t> y{4, 7, 3};
  CHECK(jaccard(x, y) == 2.0 / 5);
}

TEST_CASE("rankings by hand") {
  const std::vector<double> a{1, 2, 3, 4};
  const std::vector<double> b{1, 3, 2, 4};
  CHECK(spearman(a, b) == doctest::Approx(0.8).epsilon(1e-15));  // 1 - 6 * 2 / (4 * 15)
  CHECK(pairwise_agreement(a, b) == 5.0 / 6);
  const std::vector<double> reversed{4, 3, 2, 1};
  CHECK(spearman(a, reversed) == -1);
  CHECK(pairwise_agreement(a, reversed) == 0);
  const std::vector<double> flat{2, 2, 2, 2};
  CHECK(std::isnan(spearman(a, flat)));
  CHECK(pairwise_agreement(a, flat) == 0.5);
  CHECK(std::isnan(spearman(std::vector<double>{1}, std::vector<double>{2})));
  CHECK(std::isnan(pairwise_agreement(std::vector<double>{}, std::vector<double>{})));
}

TEST_CASE("every size against all pairs; monotone maps change nothing") {
  // Rounding: sums of n centred ranks, relative error <= n eps.
  for (const index_t n : {2, 3, 31, 32, 33, 255, 257, 1000})
    for (int kind_a = 0; kind_a < 3; ++kind_a)
      for (int kind_b = 0; kind_b < 3; ++kind_b) {
        CAPTURE(n);
        CAPTURE(kind_a);
        CAPTURE(kind_b);
        const auto a = draw(n, kind_a, 1);
        const auto b = draw(n, kind_b, 2);
        const double tolerance = static_cast<double>(n) * 4e-16;
        const double wanted = pearson(average_ranks(a), average_ranks(b));
        if (std::isfinite(wanted)) CHECK(std::fabs(spearman(a, b) - wanted) <= tolerance);
        CHECK(std::fabs(pairwise_agreement(a, b) - agreement(a, b)) <= tolerance);
        if (kind_a != 0) continue;
        std::vector<double> mapped;
        for (const double x : a) mapped.push_back(std::exp(x));
        CHECK(spearman(a, mapped) == 1);
        CHECK(pairwise_agreement(a, mapped) == 1);
        CHECK(spearman(mapped, b) == spearman(a, b));
      }
}

TEST_CASE("strided views") {
  const std::vector<double> wide{1, 9, 2, 8, 3, 7};
  const vector_view<const double> even(wide.data(), 3, 2);
  const vector_view<const double> odd(wide.data() + 1, 3, 2);
  CHECK(spearman(even, odd) == -1);
  CHECK(pairwise_agreement(even, odd) == 0);
}

TEST_CASE("top-k overlap") {
  const std::vector<double> a{5, 4, 3, 2, 1};
  const std::vector<double> b{5, 1, 4, 2, 3};
  CHECK(top_k_overlap(exec::cpu{}, a, b, {.k = 2}) == 0.5);
  CHECK(top_k_overlap(exec::reference{}, a, b, {.k = 3}) == 2.0 / 3);
  CHECK(top_k_overlap(exec::cpu{}, a, b, {.k = 0}) == 1);
  CHECK(top_k_overlap(exec::cpu{}, stored_scores(a), stored_scores(b), {.k = 5}) == 1);
  CHECK_THROWS_AS(top_k_overlap(exec::cpu{}, a, std::vector<double>{1}, {.k = 1}),
                  invalid_argument);
  CHECK_THROWS_AS(spearman(a, std::vector<double>{1}), invalid_argument);
  CHECK_THROWS_AS(pairwise_agreement(a, std::vector<double>{1}), invalid_argument);
}
