// Proves: splits are disjoint, complete, of the sizes asked for and fixed by the seed; budgets
// round as documented. Against: set arithmetic on the results.
#include <doctest/doctest.h>

#include <algorithm>
#include <dualsft/splits.hpp>
#include <set>

using namespace dualsft;

TEST_CASE("every record has one role") {
  for (const index_t n : {10, 11, 100, 7473}) {
    const data_split split =
        split_records(n, {.validation = 4, .anchors = 3, .warmup_fraction = 0.1, .seed = 7});
    CHECK(split.validation.size() == 4);
    CHECK(split.anchors.size() == 3);
    CHECK(static_cast<index_t>(split.warmup.size()) == (n - 7 + 5) / 10);
    std::set<index_t> all;
    for (const auto* part : {&split.validation, &split.anchors, &split.warmup, &split.pool}) {
      CHECK(std::ranges::is_sorted(*part));
      all.insert(part->begin(), part->end());
    }
    CHECK(static_cast<index_t>(all.size()) == n);
    CHECK(*all.begin() == 0);
    CHECK(*all.rbegin() == n - 1);
    CHECK(split.candidates() == n - 7);
  }
}

TEST_CASE("the seed decides") {
  const split_options a{.validation = 10, .anchors = 10, .seed = 1};
  const split_options b{.validation = 10, .anchors = 10, .seed = 2};
  CHECK(split_records(100, a).pool == split_records(100, a).pool);
  CHECK(split_records(100, a).pool != split_records(100, b).pool);
}

TEST_CASE("the pool is never empty, and what cannot be split is refused") {
  const data_split tiny = split_records(3, {.validation = 1, .anchors = 1, .warmup_fraction = 0.9});
  CHECK(tiny.pool.size() == 1);
  CHECK(tiny.warmup.empty());
  CHECK_THROWS_WITH_AS(split_records(3, {.validation = 2, .anchors = 1}),
                       doctest::Contains("records = 3"), invalid_argument);
  CHECK_THROWS_AS(split_records(100, {.warmup_fraction = 1.0}), invalid_argument);
}

TEST_CASE("budgets") {
  CHECK(budget::ratio(0.05).of(1000) == 50);
  CHECK(budget::ratio(0.05).of(19) == 1);
  CHECK(budget::ratio(0.999).of(10) == 9);
  CHECK(budget::ratio(0.29).of(100) == 28);  // 0.29 * 100 < 29 in double
  CHECK(budget::ratio(1).of(10) == 10);
  CHECK(budget::count(0).of(10) == 0);
  CHECK(budget::count(10).of(10) == 10);
  CHECK_THROWS_AS(budget::count(11).of(10), invalid_argument);
  CHECK_THROWS_AS(budget::ratio(0), invalid_argument);
  CHECK_THROWS_AS(budget::ratio(1.5), invalid_argument);
}
