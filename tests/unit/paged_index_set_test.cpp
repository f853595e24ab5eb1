// Proves: paged_index_set holds the same members as the index_set it is made from.
// Against: the index_set itself, and counting.
#include <doctest/doctest.h>

#include <algorithm>
#include <dualsft/optim/paged_index_set.hpp>
#include <support/optim.hpp>
#include <vector>

using namespace dualsft;

TEST_CASE("members, ranks and runs") {
  random_source random(37);
  for (const index_t d : {0, 1, 65535, 65536, 65537, 300000})
    for (const double density : {0.0, 0.00002, 0.1, 1.0}) {
      CAPTURE(d);
      CAPTURE(density);
      const index_set set = testing::random_mask(d, density, random);
      const paged_index_set paged(set);
      CHECK(paged.size() == set.size());
      CHECK(paged.universe() == d);
      CHECK(paged.unpacked() == set);
      for (int k = 0; k < 50; ++k) {
        const index_t at = k == 0 ? d : random.below(d + 1);
        CHECK(paged.rank(at) == static_cast<index_t>(set.within(0, at).size()));
      }
      const index_t first = random.below(set.size() + 1);
      const index_t last = first + random.below(set.size() - first + 1);
      std::vector<index_t> seen;
      paged.for_each_run(first, last, [&](index_t rank, index_t base, auto offsets) {
        CHECK(rank == first + static_cast<index_t>(seen.size()));
        CHECK(base % paged_index_set::page_size == 0);
        CHECK_FALSE(offsets.empty());
        for (const auto o : offsets) seen.push_back(base + o);
      });
      const auto expected = set.indices().subspan(static_cast<std::size_t>(first),
                                                  static_cast<std::size_t>(last - first));
      CHECK(std::ranges::equal(seen, expected));
    }
}

TEST_CASE("coordinates beyond 2^32 and empty pages") {
  const index_t far = (index_t{1} << 33) + 12345;
  const index_set set({3, 65536, far}, far + 1);
  const paged_index_set paged(set);
  CHECK(paged.unpacked() == set);
  index_t runs = 0;
  paged.for_each_run(0, 3, [&](index_t, index_t, auto offsets) {
    ++runs;
    CHECK_FALSE(offsets.empty());
  });
  CHECK(runs == 3);
  CHECK(paged.rank(far) == 2);
  CHECK(paged.rank(far + 1) == 3);
  CHECK(paged.rank(65537) == 2);
}

TEST_CASE("what lies outside is refused") {
  const paged_index_set empty;
  CHECK(empty.rank(0) == 0);
  CHECK(empty.unpacked() == index_set());
  const paged_index_set paged(index_set({1, 3}, 5));
  CHECK_THROWS_AS(paged.rank(-1), invalid_argument);
  CHECK_THROWS_AS(paged.rank(6), invalid_argument);
  CHECK_THROWS_AS(paged.for_each_run(1, 3, [](auto...) {}), invalid_argument);
  CHECK_THROWS_AS(paged.for_each_run(2, 1, [](auto...) {}), invalid_argument);
}
