// Proves: the heap keeps exactly the first B of the defined order, whatever the order of arrival.
// Against: a full sort written here, and hand-computed cases.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <dualsft/random.hpp>
#include <dualsft/subset.hpp>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

using namespace dualsft;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double missing = std::numeric_limits<double>::quiet_NaN();

example_selection expected(const std::vector<double>& scores, index_t budget, selection_end end) {
  std::vector<std::pair<double, index_t>> numbers;  // ascending is the order of selection
  example_selection wanted;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores[i]))
      ++wanted.nan_count;
    else
      numbers.emplace_back(end == selection_end::best ? -scores[i] : scores[i],
                           static_cast<index_t>(i));
  }
  std::sort(numbers.begin(), numbers.end());
  const auto kept = std::min(static_cast<std::size_t>(budget), numbers.size());
  const auto score = [&](std::size_t r) {
    return scores[static_cast<std::size_t>(numbers[r].second)];
  };
  for (std::size_t r = 0; r < kept; ++r) {
    wanted.indices.push_back(numbers[r].second);
    wanted.scores.push_back(score(r));
  }
  if (kept > 0) wanted.kth = score(kept - 1);
  if (kept < numbers.size()) wanted.next = score(kept);
  if (wanted.kth && wanted.next)
    wanted.gap = *wanted.kth == *wanted.next ? 0 : std::fabs(*wanted.kth - *wanted.next);
  return wanted;
}

void check_same(const example_selection& found, const example_selection& wanted) {
  CHECK(found.indices == wanted.indices);
  CHECK(found.scores == wanted.scores);
  CHECK(found.kth == wanted.kth);
  CHECK(found.next == wanted.next);
  CHECK(found.gap == wanted.gap);
  CHECK(found.nan_count == wanted.nan_count);
}

std::vector<double> draw(index_t n, int kind, std::uint64_t seed) {
  random_source random(seed);
  std::vector<double> scores;
  for (index_t i = 0; i < n; ++i) {
    const double u = random.uniform();
    scores.push_back(kind == 0   ? random.normal()
                     : kind == 1 ? static_cast<double>(random.below(4))
                     : kind == 2 ? (u < 0.4   ? missing
                                    : u < 0.5 ? inf
                                    : u < 0.6 ? -inf
                                              : u)
                                 : 0.0 * random.sign());
  }
  return scores;
}

}  // namespace

TEST_CASE("hand-computed subsets") {
  const std::vector<double> scores{2, missing, 5, 2, -1};
  const auto best = select_examples(scores, {.budget = 2});
  CHECK(best.indices == std::vector<index_t>{2, 0});
  CHECK(best.scores == std::vector<double>{5, 2});
  CHECK(best.next == 2.0);
  CHECK(best.gap == 0);
  CHECK(best.nan_count == 1);

  const auto worst = select_examples(scores, {.budget = 1, .end = selection_end::worst});
  CHECK(worst.indices == std::vector<index_t>{4});
  CHECK(worst.gap == 3);
  CHECK(worst.next == 2.0);

  const auto none = select_examples(scores, {.budget = 0});
  CHECK(none.indices.empty());
  CHECK_FALSE(none.kth);
  CHECK(none.next == 5.0);
  CHECK(none.gap == inf);

  const auto all = select_examples(scores, {.budget = 5});
  CHECK(all.indices == std::vector<index_t>{2, 0, 3, 4});
  CHECK_FALSE(all.next);
  CHECK(all.gap == inf);
  CHECK(best.as_set(5) == index_set({0, 2}, 5));
}

TEST_CASE("every size, budget, end; any order of arrival; merged from parts") {
  for (const index_t n : {0, 1, 2, 3, 31, 32, 33, 255, 257, 1000})
    for (int kind = 0; kind < 4; ++kind)
      for (const auto end : {selection_end::best, selection_end::worst})
        for (const index_t budget : {index_t{0}, index_t{1}, n / 10, n - 1, n}) {
          if (budget < 0 || budget > n) continue;
          CAPTURE(n);
          CAPTURE(kind);
          CAPTURE(budget);
          const auto scores = draw(n, kind, 9);
          const auto wanted = expected(scores, budget, end);
          check_same(select_examples(scores, {budget, end}), wanted);

          std::vector<index_t> arrival(static_cast<std::size_t>(n));
          std::iota(arrival.begin(), arrival.end(), index_t{0});
          random_source(4).shuffle(std::span(arrival));
          std::vector<top_examples> parts(3, top_examples(budget, end));
          for (std::size_t a = 0; a < arrival.size(); ++a)
            parts[a % 3].push(arrival[a], scores[static_cast<std::size_t>(arrival[a])]);
          parts[1].merge(parts[2]);
          parts[0].merge(parts[1]);
          check_same(parts[0].result(), wanted);
        }
}

TEST_CASE("a strided view") {
  const std::vector<double> scores{1, 9, 2, 8, 3, 7};
  const auto odd =
      select_examples(vector_view<const double>(scores.data() + 1, 3, 2), {.budget = 1});
  CHECK(odd.indices == std::vector<index_t>{0});
  CHECK(odd.gap == 1);
}

TEST_CASE("preconditions") {
  const std::vector<double> scores{1, 2};
  CHECK_THROWS_WITH_AS(select_examples(scores, {.budget = 3}),
                       "select_examples: budget must lie in [0, n] (budget = 3, n = 2)",
                       invalid_argument);
  CHECK_THROWS_AS(top_examples(-1), invalid_argument);
  top_examples a(2);
  CHECK_THROWS_AS(a.merge(top_examples(3)), invalid_argument);
  CHECK_THROWS_AS(a.merge(top_examples(2, selection_end::worst)), invalid_argument);
}
