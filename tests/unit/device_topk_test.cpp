// Proves: the search that drives a device's Top-K selects what the definition selects, whatever the
// shape of the scores, in one piece or in shards, in whichever order the device collects them; and the
// functions that a device evaluates give the host's scores. Against: exec::reference, with the device's
// five primitives played by the host; parameter_scores.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <dualsft/detail/device_projection.hpp>
#include <dualsft/detail/device_scores.hpp>
#include <dualsft/detail/device_topk.hpp>
#include <dualsft/parameter_scores.hpp>
#include <dualsft/random.hpp>
#include <dualsft/topk.hpp>
#include <limits>
#include <numeric>
#include <vector>

using namespace dualsft;
using namespace dualsft::detail;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// The primitives in plain loops; lists come in a random order, as from threads that race.
class played_device {
 public:
  /// A segment per block of threads, empty slots scored NaN.
  struct list {
    std::vector<placed_score> members;
    std::vector<index_t> filled;
    index_t segment = 0;
  };

  played_device(index_t room, std::uint64_t seed) : room_(room), random_(seed) {}

  index_t passes = 0;  // over whole sources

  index_t room() const { return room_; }
  index_t slots(const list& of) const { return static_cast<index_t>(of.members.size()); }
  index_t size(const list& of) const {
    index_t all = 0;
    for (const index_t filled : of.filled) all += std::min(filled, of.segment);
    return all;
  }
  std::vector<placed_score> take(list& from) {
    std::erase_if(from.members, [](const placed_score& each) { return each.score != each.score; });
    return std::move(from.members);
  }

  template <class Source>
  std::vector<double> read(const Source& source, const std::vector<index_t>& places, index_t run) {
    std::vector<double> out;
    with_settled(source, [&](const auto& now) {
      for (const index_t place : places)
        for (index_t i = place; i < place + run; ++i) out.push_back(now(i));
    });
    return out;
  }
  std::vector<double> read(const list& from, const std::vector<index_t>& places, index_t run) {
    std::vector<double> out;
    for (const index_t place : places)
      for (index_t i = place; i < place + run; ++i)
        out.push_back(from.members[static_cast<std::size_t>(i)].score);
    return out;
  }

  template <class Source>
  score_tally sweep(const Source& source, index_t begin, const score_bracket& range) {
    return pass(source, range, [begin](double, index_t) { static_cast<void>(begin); });
  }
  template <class Source>
  score_tally sweep(const Source& source, index_t begin, const score_bracket& range, list& to) {
    if (to.filled.empty()) start(to, room_);
    return pass(source, range, [&](double score, index_t i) { put(to, i, {score, begin + i}); });
  }
  score_tally sweep(const list& from, const score_bracket& range, list& to) {
    if (to.filled.empty()) start(to, std::max<index_t>(64, room_ / 4));
    score_tally all;
    for (index_t i = 0; i < slots(from); ++i)
      if (const placed_score& each = from.members[static_cast<std::size_t>(i)];
          all.add(each.score, range))
        put(to, i, each);
    return all;
  }

  template <class Source>
  std::vector<index_t> count_equal(const Source& source, double x, index_t chunk) {
    ++passes;
    std::vector<index_t> out(static_cast<std::size_t>((source.size() + chunk - 1) / chunk), 0);
    with_settled(source, [&](const auto& now) {
      for (index_t i = 0; i < now.size(); ++i)
        out[static_cast<std::size_t>(i / chunk)] += now(i) == x ? 1 : 0;
    });
    return out;
  }

  template <class Source>
  std::vector<index_t> count_digits(const Source& source, std::uint64_t prefix, int shift,
                                    int bits) {
    ++passes;
    std::vector<index_t> out(std::size_t{1} << bits, 0);
    with_settled(source, [&](const auto& now) {
      for (index_t i = 0; i < now.size(); ++i) {
        const double score = now(i);
        if (score != score) continue;
        const std::uint64_t key = order_key(score) >> shift;
        if (bits + shift == 64 || key >> bits == prefix) ++out[key & (out.size() - 1)];
      }
    });
    return out;
  }

 private:
  template <class Source, class Take>
  score_tally pass(const Source& source, const score_bracket& range, Take&& take) {
    ++passes;
    return with_settled(source, [&](const auto& now) {
      using source_type = std::remove_cvref_t<decltype(now)>;
      score_tally all;
      facts_of<source_type> facts;
      for (index_t i = 0; i < now.size(); ++i) {
        double score;
        if constexpr (std::same_as<facts_of<source_type>, no_facts>)
          score = now(i);
        else
          score = now.form(i, now.load(i), facts);
        if (all.add(score, range)) take(score, i);
      }
      settle(now, facts);
      return all;
    });
  }

  void start(list& fresh, index_t room) const {
    fresh.segment = (room + room / 4) / blocks + threads;
    fresh.filled.assign(blocks, 0);
    fresh.members.assign(static_cast<std::size_t>(blocks * fresh.segment), {std::nan(""), -1});
  }

  /// From the thread that looks at place i of what is swept.
  void put(list& to, index_t i, const placed_score& each) {
    const index_t block = i / threads % blocks;
    const index_t slot = to.filled[static_cast<std::size_t>(block)]++;
    if (slot >= to.segment) return;
    const auto at = [&](index_t k) -> placed_score& {
      return to.members[static_cast<std::size_t>(block * to.segment + k)];
    };
    at(slot) = each;
    std::swap(at(slot), at(random_.below(slot + 1)));
  }

  static constexpr index_t blocks = 8, threads = 4;

  index_t room_;
  random_source random_;
};

using scores_at = compared_scores<stored_scores_at<double>>;

/// Compares with the definition, cut into shards at random places.
void check(const std::vector<double>& scores, index_t k, topk_by by,
           const device_topk_tuning& tuning, index_t room, int shards) {
  const auto n = static_cast<index_t>(scores.size());
  const topk_result expected = topk(exec::reference{}, vector_view<const double>(scores), {k, by});
  random_source random(static_cast<std::uint64_t>(n + k));
  std::vector<index_t> cuts{0, n};
  for (int s = 1; s < shards; ++s) cuts.push_back(random.below(n + 1));
  std::sort(cuts.begin(), cuts.end());
  std::vector<scores_at> pieces;
  for (std::size_t s = 0; s + 1 < cuts.size(); ++s)
    pieces.push_back({{scores.data() + cuts[s], cuts[s + 1] - cuts[s]}, by});
  played_device device(room, 7);
  device_topk_outcome found =
      device_topk_search<played_device, scores_at>(device, pieces, k, tuning).run();

  CAPTURE(n);
  CAPTURE(k);
  std::vector<index_t> members;
  const scores_at whole{{scores.data(), n}, by};
  for (index_t i = 0; i < n; ++i)
    if (found.selected > 0 && found.test(whole(i), i)) members.push_back(i);
  CHECK(static_cast<index_t>(members.size()) == found.selected);
  found.result.selected = index_set(std::move(members), n);
  CHECK(found.result == expected);
}

std::vector<std::vector<double>> shapes(index_t n, std::uint64_t seed) {
  random_source random(seed);
  const auto fill = [&](auto&& f) {
    std::vector<double> out(static_cast<std::size_t>(n));
    for (index_t i = 0; i < n; ++i) out[static_cast<std::size_t>(i)] = f(i);
    return out;
  };
  const double odd[] = {std::nan(""), infinity, -infinity, 0.0, -0.0, 1e-310};
  return {
      fill([&](index_t) { return random.normal(); }),
      fill([&](index_t) { return random.normal() * std::pow(10.0, 40 * random.uniform() - 20); }),
      fill([&](index_t) { return 0.25; }),
      fill([&](index_t) { return static_cast<double>(random.below(3)) - 1; }),
      fill([&](index_t i) { return static_cast<double>(i % 7 == 0 ? 1 : -i); }),
      fill([&](index_t i) { return static_cast<double>(i); }),
      fill([&](index_t i) { return i % 3 == 0 ? odd[(i / 3) % 6] : random.normal(); }),
      fill([&](index_t) { return std::nan(""); }),
      fill([&](index_t i) { return i < n / 50 ? 1000 + random.normal() : random.normal(); }),
      fill([&](index_t) { return random.uniform() < 0.5 ? 0.0 : -0.0; }),
  };
}

}  // namespace

TEST_CASE("every shape, budget, shard and buffer: the definition's selection") {
  for (const index_t n : {1, 2, 31, 32, 33, 1000, 20'000})
    for (const auto& scores : shapes(n, static_cast<std::uint64_t>(n)))
      for (const index_t k : {index_t{0}, index_t{1}, n / 20, n / 2, n - 1, n})
        for (const int shards : {1, 3}) {
          check(scores, k, topk_by::value, {.host_scores = 64, .sample = 64}, n, shards);
          check(scores, k, topk_by::magnitude, {.host_scores = 256, .sample = 128}, 300, shards);
          check(scores, k, topk_by::value, {.host_scores = 64, .sample = 64}, 40, shards);
        }
}

TEST_CASE("a right bracket costs one pass; equal scores three; the worst, eight") {
  const index_t n = 300'000, k = 15'000;
  const device_topk_tuning tuning{.host_scores = 1 << 12, .sample = 1 << 12};
  const auto passes = [&](const std::vector<double>& scores, index_t room) {
    const std::vector<scores_at> one{{{scores.data(), n}, topk_by::value}};
    played_device device(room, 3);
    (void)device_topk_search<played_device, scores_at>(device, one, k, tuning).run();
    return device.passes;
  };
  const auto all = shapes(n, 5);
  CHECK(passes(all[0], n / 20) == 1);
  CHECK(passes(all[1], n / 20) == 1);
  CHECK(passes(all[2], n / 20) == 2);  // all equal: their number, and where the last one lies
  CHECK(passes(all[0], tuning.host_scores) == 9);  // no room for the bracket: 1 + 6 digits + 2
}

TEST_CASE("what a device evaluates is what the host fills, to the bit") {
  random_source random(11);
  constexpr std::size_t d = 5000;
  for (const score_order order :
       {score_order::first, score_order::diagonal, score_order::full, score_order::joint}) {
    std::vector<float> g(d), q(d);
    projection<float> direction;
    direction.rule = {order, step_geometry::plain, 0.37};
    direction.p.resize(d);
    direction.curvature.resize(order == score_order::joint ? d : 0);
    for (std::size_t j = 0; j < d; ++j) {
      g[j] = static_cast<float>(random.normal());
      q[j] = g[j] * g[j];
      direction.p[j] = static_cast<float>(random.normal());
      if (order == score_order::joint)
        direction.curvature[j] = static_cast<float>(random.uniform());
    }
    const std::vector<double> wide(g.begin(), g.end()), squares(q.begin(), q.end());
    const parameter_scores<float> host(
        wide, direction,
        order == score_order::joint ? std::span<const double>(squares) : std::span<const double>());
    std::vector<double> filled(d);
    host.fill(0, filled);
    const parameter_scores_at<float, float> device{direction.rule,     g.data(),
                                                   direction.p.data(), direction.curvature.data(),
                                                   q.data(),           static_cast<index_t>(d)};
    index_t differ = 0;
    for (std::size_t j = 0; j < d; ++j)
      differ += std::bit_cast<std::uint64_t>(filled[j]) !=
                        std::bit_cast<std::uint64_t>(device(static_cast<index_t>(j)))
                    ? 1
                    : 0;
    CHECK(differ == 0);
  }
}

TEST_CASE("p is formed once, in the first pass, and the selection is that of its scores") {
  const index_t d = 20'000;
  for (const score_order order :
       {score_order::first, score_order::diagonal, score_order::full, score_order::joint})
    for (const step_geometry step : {step_geometry::plain, step_geometry::adamw})
      for (const index_t room : {d, index_t{200}}) {  // the second: not enough, so it takes passes
        CAPTURE(name_of(order));
        CAPTURE(name_of(step));
        CAPTURE(room);
        random_source random(17);
        const auto made = [&](auto&& f) {
          std::vector<float> out(static_cast<std::size_t>(d));
          for (float& x : out) x = static_cast<float>(f());
          return out;
        };
        const auto normal = [&] { return random.normal(); };
        std::vector<float> v = made(normal);
        const std::vector<float> before = v, g = made(normal), hg = made(normal);
        const std::vector<float> q = made([&] { return random.uniform(); });
        const std::vector<float> curvature = made([&] { return 0.1 + random.uniform(); });
        std::vector<float> effective(order == score_order::joint ? v.size() : 0);
        std::vector<bfloat16> rounded(v.size());
        const score_rule rule{order, step, 0.3};
        projection_facts found;
        bool formed = false;
        const projecting_scores scores{
            .rule = rule,
            .by = topk_by::value,
            .gradient = g.data(),
            .v = v.data(),
            .curvature = needs_curvature(rule) ? curvature.data() : nullptr,
            .hessian_gradient = needs_hessian_gradient(rule) ? hg.data() : nullptr,
            .squares = needs_squares(rule) ? q.data() : nullptr,
            .effective_curvature = effective.empty() ? nullptr : effective.data(),
            .rounded = rounded.data(),
            .count = d,
            .found = &found,
            .is_formed = &formed};
        played_device device(room, 3);
        const device_topk_outcome outcome =
            device_topk_search<played_device, projecting_scores>(
                device, std::span<const projecting_scores>(&scores, 1), d / 20,
                {.host_scores = 64, .sample = 1024})
                .run();
        REQUIRE(formed);

        const std::vector<double> wide(g.begin(), g.end()), squares(q.begin(), q.end());
        const projection<float> host = project<exec::cpu, float>(
            exec::cpu{1}, rule, before, wide,
            {needs_curvature(rule) ? std::span<const float>(curvature) : std::span<const float>(),
             needs_hessian_gradient(rule) ? std::span<const float>(hg) : std::span<const float>()});
        CHECK(found.not_finite >= d);
        CHECK(found.not_positive >= d);
        const double share = share_of_second_order(0.5 * rule.eta * std::sqrt(found.c_squares),
                                                   std::sqrt(found.v_squares));
        CHECK(share == doctest::Approx(host.second_order_share).epsilon(1e-12));
        index_t wrong = 0;
        for (std::size_t j = 0; j < v.size(); ++j) {
          // A host compiler may fuse; then p differs by a rounding of its largest term.
          const double largest =
              (std::abs(before[j]) + std::abs(hg[j]) + std::abs(g[j])) / 0.1 / 0.1;
          wrong += std::abs(v[j] - host.p[j]) > 1.2e-7 * largest ? 1 : 0;
          wrong += rounded[j] == to_bfloat16(v[j]) ? 0 : 1;
        }
        CHECK(wrong == 0);

        projection<float> stored;
        stored.rule = rule;
        stored.p = v;
        stored.curvature = effective;
        const parameter_scores<float> columns(
            wide, stored,
            needs_squares(rule) ? std::span<const double>(squares) : std::span<const double>());
        topk_result expected = topk(exec::cpu{1}, columns, {d / 20});
        std::vector<index_t> members;
        for (index_t j = 0; j < d; ++j)
          if (outcome.test(scores.settled()(j), j)) members.push_back(j);
        topk_result got = outcome.result;
        got.selected = index_set(std::move(members), d);
        CHECK(got == expected);
      }
}
