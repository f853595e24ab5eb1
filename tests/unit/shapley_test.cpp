// Proves: exact and sampled Shapley values of set games; the four axioms; Lemma 1.
// Against: averages over all n! orders (n <= 7), hand-computed games, and the axioms themselves.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <dualsft/games.hpp>
#include <dualsft/shapley.hpp>
#include <limits>
#include <numeric>
#include <vector>

using namespace dualsft;

namespace {

std::size_t at(index_t k) {
  return static_cast<std::size_t>(k);
}

/// A game given by a table of all its values.
struct table_game {
  index_t n;
  std::vector<double> table;
  index_t players() const { return n; }
  double value(membership members) const {
    std::size_t set = 0;
    for (std::size_t k = 0; k < members.size(); ++k)
      if (members[k] != 0) set |= std::size_t{1} << k;
    return table[set];
  }
};
static_assert(SetGame<table_game> && SetGame<surrogate_game> && SetGame<pair_game>);

table_game random_game(index_t n, random_source& random) {
  table_game game{n, std::vector<double>(std::size_t{1} << n)};
  for (double& value : game.table) value = random.normal();
  return game;
}

template <class Game>
std::vector<double> by_permutations(const Game& game) {
  const index_t n = game.players();
  std::vector<index_t> order(at(n));
  std::iota(order.begin(), order.end(), index_t{0});
  std::vector<double> sum(at(n), 0.0);
  double count = 0;
  do {
    std::vector<std::uint8_t> members(at(n), 0);
    double before = game.value(members);
    for (const index_t k : order) {
      members[at(k)] = 1;
      const double after = game.value(members);
      sum[at(k)] += after - before;
      before = after;
    }
    count += 1;
  } while (std::next_permutation(order.begin(), order.end()));
  for (double& s : sum) s /= count;
  return sum;
}

double worst(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double error = 0;
  for (std::size_t k = 0; k < a.size(); ++k) error = std::max(error, std::abs(a[k] - b[k]));
  return error;
}

// Averages of at most 5040 marginals of size 1 in plain double: 1e-13 * a margin of 10.
constexpr double tolerance = 1e-12;

}  // namespace

TEST_CASE("three players by hand: the glove game") {
  // Player 0 has a left glove, 1 and 2 a right one; a pair is worth 1.
  const table_game gloves{3, {0, 0, 0, 1, 0, 1, 0, 1}};
  const auto result = exact_shapley(gloves);
  CHECK(result.values[0] == doctest::Approx(2.0 / 3).epsilon(1e-15));
  CHECK(result.values[1] == doctest::Approx(1.0 / 6).epsilon(1e-15));
  CHECK(result.values[2] == doctest::Approx(1.0 / 6).epsilon(1e-15));
  CHECK(result.value_of_everybody == 1);
  CHECK(result.efficiency_defect <= 1e-15);
}

TEST_CASE("the subset formula is the average over all orders") {
  random_source random(21);
  for (const index_t n : {0, 1, 2, 3, 4, 5, 6, 7}) {
    CAPTURE(n);
    const table_game game = random_game(n, random);
    const auto result = exact_shapley(game);
    CHECK(worst(result.values, by_permutations(game)) <= tolerance);
    CHECK(result.efficiency_defect <= tolerance);
    CHECK(result.value_of_nobody == game.table.front());
  }
}

TEST_CASE("axioms: symmetry, null player, additivity") {
  random_source random(22);
  const index_t n = 6;
  table_game game = random_game(n, random);
  const table_game other = random_game(n, random);

  table_game sum = game;
  for (std::size_t s = 0; s < sum.table.size(); ++s) sum.table[s] += other.table[s];
  auto added = exact_shapley(game).values;
  const auto second = exact_shapley(other).values;
  for (std::size_t k = 0; k < added.size(); ++k) added[k] += second[k];
  CHECK(worst(exact_shapley(sum).values, added) <= tolerance);

  table_game symmetric = game;  // players 0 and 1 exchangeable
  for (std::size_t s = 0; s < symmetric.table.size(); ++s)
    if ((s & 3U) == 2) symmetric.table[s] = symmetric.table[s - 1];
  const auto twins = exact_shapley(symmetric).values;
  CHECK(std::abs(twins[0] - twins[1]) <= tolerance);
  const auto strangers = exact_shapley(game).values;
  CHECK(std::abs(strangers[0] - strangers[1]) > 1e-3);

  table_game with_null = game;  // player 2 changes nothing
  for (std::size_t s = 0; s < with_null.table.size(); ++s)
    if ((s & 4U) != 0) with_null.table[s] = with_null.table[s & ~std::size_t{4}];
  CHECK(std::abs(exact_shapley(with_null).values[2]) <= tolerance);
}

TEST_CASE("Lemma 1: a pair term is split in half") {
  random_source random(23);
  for (const index_t n : {1, 2, 3, 5, 7}) {
    std::vector<double> a(at(n * n), 0.0);
    std::vector<double> half(at(n), 0.0);
    for (index_t i = 0; i < n; ++i) {
      a[at(i * n + i)] = std::numeric_limits<double>::quiet_NaN();  // the diagonal is not read
      for (index_t k = 0; k < i; ++k) {
        a[at(i * n + k)] = a[at(k * n + i)] = random.normal();
        half[at(i)] += a[at(i * n + k)] / 2;
        half[at(k)] += a[at(i * n + k)] / 2;
      }
    }
    const pair_game game(matrix_view<const double>(a.data(), n, n));
    CHECK(worst(exact_shapley(game).values, half) <= tolerance);
    CHECK(worst(by_permutations(game), half) <= tolerance);
    // A pair of opposite orders averages any pair term exactly.
    const auto sampled = sampled_shapley(game, random, {.permutations = 4});
    CHECK(worst(sampled.values, half) <= tolerance);
    for (const double error : sampled.standard_errors) CHECK(error <= tolerance);
  }
}

TEST_CASE("sampling is unbiased, its standard errors are honest, and antithetic draws help") {
  random_source random(24);
  const table_game game = random_game(8, random);
  const auto exact = exact_shapley(game).values;
  for (const auto draw : {permutation_draw::independent, permutation_draw::antithetic}) {
    // 200 estimates x 8 players: z = error / standard error has mean square near 1.
    double squares = 0;
    double bias = 0;
    const int runs = 200;
    for (int run = 0; run < runs; ++run) {
      const auto sampled = sampled_shapley(game, random, {.permutations = 200, .draw = draw});
      CHECK(sampled.efficiency_defect <= tolerance);
      CHECK(sampled.permutations == 200);
      for (std::size_t k = 0; k < exact.size(); ++k) {
        const double z = (sampled.values[k] - exact[k]) / sampled.standard_errors[k];
        squares += z * z / (runs * 8);
        bias += z / (runs * 8);
      }
    }
    // 1600 terms: standard deviation of the mean square is 0.035, of the mean 0.025.
    CHECK(squares > 0.8);
    CHECK(squares < 1.2);
    CHECK(std::abs(bias) < 0.15);
  }
  random_source a(5), b(5);
  CHECK(sampled_shapley(game, a).values == sampled_shapley(game, b).values);
}

TEST_CASE("20 players are exact, 21 are refused, broken games are reported") {
  // U(S) = |S|^2: by symmetry everybody gets n.
  struct square_game {
    index_t n;
    index_t players() const { return n; }
    double value(membership members) const {
      double size = 0;
      for (const auto m : members) size += m;
      return size * size;
    }
  };
  const auto result = exact_shapley(square_game{20});
  for (const double phi : result.values) CHECK(std::abs(phi - 20) <= 1e-12);
  CHECK(result.efficiency_defect <= 1e-12);
  CHECK_THROWS_AS(exact_shapley(square_game{21}), invalid_argument);
  random_source random(25);
  CHECK(std::abs(sampled_shapley(square_game{100}, random, {.permutations = 4}).values[7] - 100) <=
        1e-9);
  CHECK_THROWS_AS(sampled_shapley(square_game{3}, random, {.permutations = 5}), invalid_argument);
  CHECK_THROWS_AS(sampled_shapley(square_game{3}, random, {.permutations = 2}), invalid_argument);
  CHECK_THROWS_AS(sampled_shapley(square_game{3}, random,
                                  {.permutations = 1, .draw = permutation_draw::independent}),
                  invalid_argument);
  const table_game broken{1, {0, std::nan("")}};
  CHECK_THROWS_AS(exact_shapley(broken), numerical_error);
  CHECK_THROWS_AS(sampled_shapley(broken, random), numerical_error);
}
