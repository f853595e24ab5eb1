// Proves: a seed gives the sequence that the generator's definition gives; ranges are kept.
// Against: xoshiro256++ written once more from its definition; counting.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/random.hpp>
#include <numeric>
#include <vector>

using namespace dualsft;

TEST_CASE("the state is splitmix64 of the seed, the steps are xoshiro256++") {
  std::uint64_t state[4];
  std::uint64_t x = 42 ^ 0x9e3779b97f4a7c15ULL;  // stream 0
  for (std::uint64_t& word : state) {
    std::uint64_t z = x += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    word = z ^ (z >> 31);
  }
  random_source random(42);
  for (int k = 0; k < 100; ++k) {
    const std::uint64_t sum = state[0] + state[3];
    CHECK(random.bits() == ((sum << 23) | (sum >> 41)) + state[0]);
    const std::uint64_t t = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= t;
    state[3] = (state[3] << 45) | (state[3] >> 19);
  }
}

TEST_CASE("below is even over its range and refuses an empty one") {
  random_source random(1);
  std::vector<int> counts(7, 0);
  for (int k = 0; k < 70000; ++k) ++counts.at(static_cast<std::size_t>(random.below(7)));
  // 10,000 expected each, deviation 93.
  for (const int count : counts) CHECK(std::abs(count - 10000) < 500);
  CHECK(random.below(1) == 0);
  CHECK_THROWS_WITH_AS(random.below(0), doctest::Contains("n = 0"), invalid_argument);
  CHECK_THROWS_AS(random.below(-3), invalid_argument);
}

TEST_CASE("a shuffle is a permutation") {
  std::vector<index_t> values(100);
  std::iota(values.begin(), values.end(), index_t{0});
  random_source(3).shuffle(std::span<index_t>(values));
  std::vector<int> seen(100, 0);
  for (const index_t v : values) ++seen.at(static_cast<std::size_t>(v));
  CHECK(seen == std::vector<int>(100, 1));
  CHECK(values[0] + values[1] + values[2] != 3);
}
