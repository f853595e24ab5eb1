// Proves: an index set holds what it was given and refuses what is no set of the universe.
// Against: hand-written sets.
#include <doctest/doctest.h>

#include <dualsft/index_set.hpp>
#include <vector>

using namespace dualsft;

TEST_CASE("members and ranges") {
  const index_set set({1, 4, 5, 9}, 10);
  CHECK(set.size() == 4);
  CHECK(set.contains(4));
  CHECK_FALSE(set.contains(6));
  const auto within = set.within(4, 9);
  CHECK(std::vector<index_t>(within.begin(), within.end()) == std::vector<index_t>{4, 5});
  CHECK(index_set::all(3) == index_set({0, 1, 2}, 3));
  CHECK(index_set::all(0).size() == 0);
}

TEST_CASE("what is no set is refused") {
  CHECK_THROWS_AS(index_set({1, 1}, 3), invalid_argument);
  CHECK_THROWS_AS(index_set({2, 1}, 3), invalid_argument);
  CHECK_THROWS_AS(index_set({3}, 3), invalid_argument);
  CHECK_THROWS_AS(index_set({}, -1), invalid_argument);
  CHECK_THROWS_WITH_AS(index_set::all(-1), doctest::Contains("universe = -1"), invalid_argument);
}
