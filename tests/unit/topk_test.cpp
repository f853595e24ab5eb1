// Proves: topk selects exactly the K first of the defined order, for any thread count and source.
// Against: the full sort of support/topk_definition.hpp, and hand-computed cases.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <dualsft/detail/gap_list.hpp>
#include <dualsft/random.hpp>
#include <dualsft/topk.hpp>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/topk_definition.hpp"

using namespace dualsft;
using dualsft::testing::ranking;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double missing = std::numeric_limits<double>::quiet_NaN();
constexpr double denormal = std::numeric_limits<double>::denorm_min();

bool same_bits(const std::optional<double>& a, const std::optional<double>& b) {
  return a.has_value() == b.has_value() &&
         (!a || std::bit_cast<std::uint64_t>(*a) == std::bit_cast<std::uint64_t>(*b));
}

bool same(const topk_result& a, const topk_result& b) {
  return a == b && same_bits(a.kth, b.kth) && same_bits(a.next, b.next);
}

void check_all(const std::string& name, const std::vector<double>& scores,
               const std::vector<index_t>& budgets, topk_by by = topk_by::value,
               const detail::topk_tuning& tuning = {}) {
  CAPTURE(name);
  CAPTURE(scores.size());
  const ranking ranks(scores, by);
  for (const index_t k : budgets) {
    CAPTURE(k);
    if (k < 0 || k > ranks.n) continue;
    const topk_result wanted = ranks.first(k);
    if (ranks.n <= 5000) CHECK(same(topk(exec::reference{}, scores, {k, by}), wanted));
    for (const int threads : {1, 2, 3, 7}) {
      CAPTURE(threads);
      const topk_result found =
          detail::topk_cpu(exec::cpu{threads}, stored_scores(scores), {k, by}, tuning);
      CHECK(found.kth == wanted.kth);
      CHECK(found.next == wanted.next);
      CHECK(same(found, wanted));
    }
  }
}

// A few hundred near scores, a sample of 256 and a thread per tile: every path with few scores.
constexpr detail::topk_tuning small_buffers{
    .near_scores = 300, .least_sample = 256, .most_sample = 512, .tiles_per_part = 1};

struct distribution {
  const char* name;
  double (*score)(random_source& random, double place);  // place in [0, 1)
};

const distribution distributions[] = {
    {"normal", [](random_source& r, double) { return r.normal(); }},
    {"product of normals, cubed",
     [](random_source& r, double) { return std::pow(r.normal() * r.normal(), 3); }},
    {"all equal", [](random_source&, double) { return 0.25; }},
    {"all zero, both signs", [](random_source& r, double) { return 0.0 * r.sign(); }},
    {"few values", [](random_source& r, double) { return static_cast<double>(r.below(5)) - 2; }},
    {"mostly zero",
     [](random_source& r, double) { return r.uniform() < 0.05 ? r.normal() : 0.0 * r.sign(); }},
    {"ascending", [](random_source&, double place) { return place - 0.5; }},
    {"descending", [](random_source&, double place) { return 0.5 - place; }},
    {"blocks of ties", [](random_source&, double place) { return std::floor(place * 37) / 8; }},
    {"layers of very different scale",
     [](random_source& r, double place) {
       return r.normal() * std::pow(10, std::floor(place * 8) * 3 - 12);
     }},
    {"best at the end",
     [](random_source& r, double place) { return r.uniform() + (place > 0.97 ? 1000 : 0); }},
    {"numbers and NaN",
     [](random_source& r, double) { return r.uniform() < 0.3 ? missing : r.normal(); }},
    {"NaN of both signs among few numbers",
     [](random_source& r, double) { return r.uniform() < 0.99 ? missing * r.sign() : r.normal(); }},
    {"NaN alone", [](random_source&, double) { return missing; }},
    {"infinities",
     [](random_source& r, double) {
       const double u = r.uniform();
       return u < 0.04 ? inf : u < 0.5 ? -inf : r.normal();
     }},
    {"denormals",
     [](random_source& r, double) { return denormal * static_cast<double>(r.below(2000) - 1000); }},
    {"close to the largest double",
     [](random_source& r, double) { return std::numeric_limits<double>::max() * r.sign(); }},
    {"one value next to the other",
     [](random_source& r, double) {
       return 1 + static_cast<double>(r.below(64)) * std::numeric_limits<double>::epsilon();
     }},
};

std::vector<double> draw(const distribution& from, index_t n, std::uint64_t seed) {
  random_source random(seed);
  std::vector<double> scores(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < scores.size(); ++i)
    scores[i] = from.score(random, static_cast<double>(i) / static_cast<double>(n));
  return scores;
}

}  // namespace

TEST_CASE("hand-computed selections") {
  for (const int threads : {1, 2}) {
    const exec::cpu cpu{threads};
    const auto r = topk(cpu, std::vector<double>{3, 1, 2, 3, 3, 0}, {.k = 2});
    CHECK(std::ranges::equal(r.selected.indices(), std::vector<index_t>{0, 3}));
    CHECK(r.kth == 3.0);
    CHECK(r.next == 3.0);
    CHECK(r.gap == 0);
    CHECK(r.boundary_ties == 3);
    CHECK(r.boundary_ties_selected == 2);

    const auto all = topk(cpu, std::vector<double>{-1, missing, inf}, {.k = 3});
    CHECK(std::ranges::equal(all.selected.indices(), std::vector<index_t>{0, 2}));
    CHECK(all.kth == -1.0);
    CHECK(all.nan_count == 1);
    CHECK_FALSE(all.next);
    CHECK(all.gap == inf);

    const auto none = topk(cpu, std::vector<double>{-1, missing, 4}, {.k = 0});
    CHECK(none.selected.size() == 0);
    CHECK(none.selected.universe() == 3);
    CHECK_FALSE(none.kth);
    CHECK(none.next == 4.0);
    CHECK(none.gap == inf);

    // The lower index wins between zeros whatever their signs.
    const auto zeros = topk(cpu, std::vector<double>{-0.0, 0.0, -0.0}, {.k = 1});
    CHECK(zeros.selected.contains(0));
    CHECK_FALSE(std::signbit(*zeros.kth));
    CHECK(zeros.boundary_ties == 3);

    const auto equal_infinities = topk(cpu, std::vector<double>{inf, inf, 0}, {.k = 1});
    CHECK(equal_infinities.gap == 0);
    CHECK(topk(cpu, std::vector<double>{inf, 0}, {.k = 1}).gap == inf);

    const auto magnitude =
        topk(cpu, std::vector<float>{-5, 4, 3}, {.k = 1, .by = topk_by::magnitude});
    CHECK(magnitude.selected.contains(0));
    CHECK(magnitude.gap == 1);
  }
}

TEST_CASE("every size, every distribution, K at both ends") {
  for (const index_t n : {0, 1, 2, 3, 31, 32, 33, 255, 257, 1000, 4095, 4097})
    for (const auto& from : distributions) {
      check_all(from.name, draw(from, n, 7), {0, 1, n / 20, n / 2, n - 1, n});
    }
}

TEST_CASE("sampled brackets, ties, digits: buffers too small for the scores") {
  for (const auto& from : distributions)
    for (const index_t n : {1000, 20000}) {
      check_all(from.name, draw(from, n, 11), {n / 20}, topk_by::magnitude, small_buffers);
      check_all(from.name, draw(from, n, 12), {0, 1, n / 1000, n / 20, n / 2, n - 1, n},
                topk_by::value, small_buffers);
    }
}

TEST_CASE("a sample that misleads costs passes, never exactness") {
  // Runs of 8 are the sample; this source lies there and only there.
  const auto check = [](const std::vector<double>& scores, index_t k) {
    const topk_result wanted = ranking(scores).first(k);
    for (const double lie : {-1e300, -1.0, 0.0, 1.0, 1e300, missing})
      for (const double spread : {0.0, 1e-3}) {
        const auto source = make_source(
            static_cast<index_t>(scores.size()), [&](index_t offset, std::span<double> out) {
              for (std::size_t i = 0; i < out.size(); ++i) {
                const auto at = static_cast<std::size_t>(offset) + i;
                out[i] = out.size() == 8 ? lie * (1 + spread * static_cast<double>(at % 1009))
                                         : scores[at];
              }
            });
        CAPTURE(lie);
        CAPTURE(spread);
        const exec::cpu cpu{spread == 0 ? 1 : 3};
        CHECK(same(detail::topk_cpu(cpu, source, {.k = k}, small_buffers), wanted));
      }
  };
  for (const auto& from : distributions) {
    CAPTURE(from.name);
    const auto scores = draw(from, 9000, 14);
    for (const index_t k : {1, 450, 8999, 9000}) check(scores, k);
  }
  // Denormals just below a great many zeros: the zeros' digits begin where those of the denormals
  // end, and -0 compares equal to the one while its bits are the other's.
  random_source random(15);
  std::vector<double> scores;
  for (int i = 0; i < 9000; ++i)
    scores.push_back(i % 30 == 7 ? -denormal * static_cast<double>(1 + random.below(1000))
                                 : 0.0 * random.sign());
  for (const index_t k : {8000, 8699, 8700, 8701, 8900, 9000}) check(scores, k);
}

TEST_CASE("the buffers of every day") {
  for (const auto& from : distributions) check_all(from.name, draw(from, 140000, 13), {7000});
}

TEST_CASE("K at the edge of a tied block, where the sample cannot tell") {
  const index_t n = 30000;
  std::vector<double> scores(static_cast<std::size_t>(n), -1.0);
  random_source random(5);
  std::vector<index_t> places(static_cast<std::size_t>(n));
  std::iota(places.begin(), places.end(), index_t{0});
  random.shuffle(std::span(places));
  for (std::size_t i = 0; i < 1500; ++i)
    scores[static_cast<std::size_t>(places[i])] = 1 + random.uniform();
  check_all("edge", scores, {1499, 1500, 1501});
  check_all("edge", scores, {1499, 1500, 1501}, topk_by::value, small_buffers);
}

TEST_CASE("scores that a regular sample would misjudge") {
  const index_t n = 1 << 15;
  std::vector<double> scores(static_cast<std::size_t>(n));
  random_source random(6);
  for (std::size_t i = 0; i < scores.size(); ++i)  // a run of 8 in 128, the strata's own period
    scores[i] = random.uniform() + (i % 128 < 8 ? 10 : 0);
  check_all("periodic", scores, {n / 16 - 1, n / 16, n / 20}, topk_by::value, small_buffers);
}

TEST_CASE("strided views, float views and generated sources agree") {
  std::vector<double> wide(3 * 5000, missing);
  std::vector<double> dense;
  std::vector<float> narrow;
  random_source random(3);
  for (std::size_t i = 0; i < 5000; ++i) {
    narrow.push_back(static_cast<float>(random.normal()));
    dense.push_back(static_cast<double>(narrow.back()));
    wide[3 * i + 1] = dense.back();
  }
  const topk_options options{.k = 250};
  const auto wanted = ranking(dense).first(options.k);
  const vector_view<const double> strided(wide.data() + 1, 5000, 3);
  CHECK(same(topk(exec::cpu{2}, strided, options), wanted));
  CHECK(same(topk(exec::cpu{2}, narrow, options), wanted));
  CHECK(same(topk(exec::reference{}, narrow, options), wanted));
  const auto one_by_one =
      make_source(5000, [&](index_t j) { return dense[static_cast<std::size_t>(j)]; });
  const auto by_run = make_source(5000, [&](index_t offset, std::span<double> out) {
    std::copy_n(dense.begin() + offset, out.size(), out.begin());
  });
  CHECK(same(topk(exec::cpu{2}, one_by_one, options), wanted));
  CHECK(same(topk(exec::cpu{2}, by_run, options), wanted));
  CHECK(same(topk(exec::cpu{2}, stored_scores(dense), options), wanted));

  const vector_view<const double> backwards(dense.data() + 4999, 5000, -1);
  const auto reversed = topk(exec::cpu{2}, backwards, options);
  CHECK(reversed.kth == wanted.kth);
}

TEST_CASE("a source whose rounding depends on the run still gives one answer") {
  // Scores differ in their last bits with the run's first index, as a vectorised loop's remainder
  // may; topk must evaluate the same runs whatever the thread count.
  const index_t n = 200000;
  const auto source = make_source(n, [&](index_t offset, std::span<double> out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      random_source random(1, static_cast<std::uint64_t>(offset) + i);
      out[i] = std::floor(random.uniform() * 4096) + static_cast<double>(offset) * 0x1p-40;
    }
  });
  const auto wanted = topk(exec::reference{}, source, {.k = 10000});
  for (const int threads : {1, 2, 3, 7})
    CHECK(same(topk(exec::cpu{threads}, source, {.k = 10000}), wanted));
}

TEST_CASE("preconditions and a throwing source") {
  const std::vector<double> scores{1, 2, 3};
  CHECK_THROWS_WITH_AS(topk(exec::cpu{1}, scores, {.k = 4}),
                       "topk: k must satisfy 0 <= k <= n (k = 4, n = 3)", invalid_argument);
  CHECK_THROWS_AS(topk(exec::reference{}, scores, {.k = -1}), invalid_argument);
  CHECK_THROWS_AS(make_source(-1, [](index_t) { return 0.0; }), invalid_argument);
  const auto broken = make_source(300000, [](index_t j) -> double {
    if (j == 250000) throw std::runtime_error("unreadable");
    return 0;
  });
  CHECK_THROWS_AS(topk(exec::cpu{3}, broken, {.k = 5}), std::runtime_error);
}

TEST_CASE("gap lists give back what went in, across segments and long gaps") {
  random_source random(8);
  detail::gap_list list(40);
  std::vector<index_t> kept;
  index_t at = 40;
  for (int i = 0; i < 30000; ++i) {
    kept.push_back(at);
    list.push_back(at);
    const index_t kind = random.below(1000);
    at += kind == 0 ? 1 + random.below(index_t{1} << 40) : kind < 4 ? 65533 + kind : 1 + kind % 9;
  }
  const std::vector<std::uint16_t> positions{3, 4, 900, 4095};
  list.append(at, positions);
  for (const auto p : positions) kept.push_back(at + p);
  CHECK(list.size() == static_cast<index_t>(kept.size()));
  detail::gap_list::reader reader(list);
  bool equal = true;
  for (const index_t index : kept) equal &= reader.next() == index;
  CHECK(equal);
  CHECK(reader.next() == detail::gap_list::reader::end);
}
