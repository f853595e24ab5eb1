// Proves: project_and_select forms the host's p up to one rounding, a rounded copy of it, and selects
// exactly what the host selects from the scores of that p, at every size, place in memory and family of
// numbers, on both sides of the sizes where it samples, beyond 2^31 and 2^32 coordinates, and twice the
// same; bad values are named. Against: project, parameter_scores, topk on the host.
#include <doctest/doctest.h>

#include <dualsft/parameter_scores.hpp>
#include <dualsft/projection.cuh>

#include "device_values.cuh"

using namespace dualsft;
using namespace dualsft::testing;
using detail::device_array;

namespace {

constexpr score_order orders[] = {score_order::first, score_order::diagonal, score_order::full,
                                  score_order::joint};
constexpr step_geometry steps[] = {step_geometry::plain, step_geometry::adamw};

struct problem {
  std::vector<float> v, g, curvature, hg, q;

  explicit problem(index_t d, spread of_v = spread::normal, spread of_g = spread::heavy_tailed)
      : v(numbers<float>(d, of_v, 1)),
        g(numbers<float>(d, of_g, 2)),
        curvature(numbers<float>(d, of_v, 3)),
        hg(numbers<float>(d, of_v, 4)),
        q(numbers<float>(d, of_v, 5)) {
    for (float& x : curvature) x = 0.1F + std::abs(x);
    for (float& x : q) x = x * x;
  }
  index_t size() const { return static_cast<index_t>(v.size()); }
  /// Three different coordinates over and over: every score has a third of all for ties.
  void repeat() {
    for (auto* each : {&v, &g, &curvature, &hg, &q})
      for (std::size_t j = 3; j < each->size(); ++j) (*each)[j] = (*each)[j - 3];
  }
};

/// Its vectors on a device, `skip` elements behind the beginning of their memory.
struct on_device {
  index_t d, skip;
  device_array<float> v, g, curvature, hg, q, effective;
  device_array<bfloat16> rounded;

  on_device(const exec::cuda& policy, const problem& given, index_t behind = 0)
      : d(given.size()),
        skip(behind),
        v(moved(policy, given.v)),
        g(moved(policy, given.g)),
        curvature(moved(policy, given.curvature)),
        hg(moved(policy, given.hg)),
        q(moved(policy, given.q)),
        effective(policy, d + skip),
        rounded(policy, d + skip) {}

  device_projection project(const exec::cuda& policy, const score_rule& rule,
                            const topk_options& options, topk_workspace& workspace) const {
    return project_and_select(
        policy, rule,
        {.gradient = behind(g),
         .curvature = behind(curvature),
         .hessian_gradient = behind(hg),
         .squares = behind(q)},
        behind(v), {.effective_curvature = behind(effective), .rounded = behind(rounded)}, options,
        workspace);
  }
  template <class T>
  std::vector<T> to_host(const device_array<T>& from) const {
    std::vector<T> out = from.to_host();
    out.erase(out.begin(), out.begin() + skip);
    return out;
  }

 private:
  device_array<float> moved(const exec::cuda& policy, std::vector<float> from) const {
    from.insert(from.begin(), static_cast<std::size_t>(skip), 7.0F);
    device_array<float> out(policy, std::span<const float>(from));
    detail::cuda_check(cudaStreamSynchronize(policy.stream), "test");
    return out;
  }
  template <class T>
  vector_view<T, device_space> behind(const device_array<T>& from) const {
    return from.view().subview(skip, d);
  }
};

void check(const exec::cuda& policy, const problem& given, const score_rule& rule, topk_by by,
           index_t skip = 0) {
  const index_t d = given.size(), k = (d + 19) / 20;
  CAPTURE(d);
  CAPTURE(skip);
  CAPTURE(name_of(rule.order));
  CAPTURE(name_of(rule.step));
  const on_device there(policy, given, skip);
  topk_workspace workspace(policy, d);
  device_projection found;
  CHECK(bytes_allocated(policy, [&] {
          found = there.project(policy, rule, {k, by}, workspace);
        }) == 0);

  const std::vector<double> wide(given.g.begin(), given.g.end());
  const std::vector<double> squares(given.q.begin(), given.q.end());
  const projection<float> host =
      project<exec::cpu, float>(exec::cpu{}, rule, given.v, wide, {given.curvature, given.hg});
  CHECK(found.second_order_share == doctest::Approx(host.second_order_share).epsilon(1e-9));
  projection<float> stored;
  stored.rule = rule;
  stored.p = there.to_host(there.v);
  if (rule.order == score_order::joint) stored.curvature = there.to_host(there.effective);
  const std::vector<bfloat16> copy = there.to_host(there.rounded);
  index_t wrong = 0;
  for (std::size_t j = 0; j < stored.p.size(); ++j) {
    // Some roundings in double of the rule's terms (eta <= 1), then one in float that may fall either way.
    const double c = given.curvature[j];
    const double terms =
        std::max(1.0, 1 / c) *
        (std::abs(static_cast<double>(given.v[j])) + std::abs(static_cast<double>(given.hg[j])) +
         std::max(1.0, c) * std::abs(static_cast<double>(given.g[j])));
    const double p = host.p[j];
    const double allowed = 0x1p-23 * std::abs(p) + 0x1p-49 * terms + 0x1p-149;
    wrong += std::abs(stored.p[j] - p) > allowed ? 1 : 0;
    wrong += copy[j] == to_bfloat16(stored.p[j]) ? 0 : 1;
  }
  CHECK(wrong == 0);
  if (skip > 0) CHECK(part_of(policy, there.v.data(), skip) == std::vector<float>(1, 7.0F));

  const parameter_scores<float> columns(
      wide, stored,
      needs_squares(rule) ? std::span<const double>(squares) : std::span<const double>());
  const topk_result expected = topk(exec::cpu{}, columns, {k, by});
  topk_result got = found.selection.summary;
  got.selected = expected.selected;
  CHECK(got == expected);
  CHECK(found.selection.selected == expected.selected.size());
  std::vector<double> scores(static_cast<std::size_t>(d));
  columns.fill(0, scores);
  index_t differ = 0;
  for (index_t j = 0; j < d; ++j) {
    const double score = scores[static_cast<std::size_t>(j)];
    const bool chosen = found.selection.test(by == topk_by::magnitude ? std::abs(score) : score, j);
    differ += chosen != expected.selected.contains(j) ? 1 : 0;
  }
  CHECK(differ == 0);
}

}  // namespace

TEST_CASE("p, its copy and the selection, at every order and step") {
  const own_stream stream;
  for (const index_t d : {0, 1, 31, 32, 33, 2500, 100'000, 2'000'003}) {
    if (is_small_run() && d > 2500) continue;
    const problem given(d);
    for (const score_order order : orders)
      for (const step_geometry step : steps)
        for (const topk_by by : {topk_by::value, topk_by::magnitude})
          check(stream.policy(), given, {order, step, 0.3}, by, by == topk_by::value ? 0 : 1);
  }
}

TEST_CASE("more coordinates than the host sorts: the search samples, sweeps and narrows") {
  const own_stream stream;
  topk_by by = topk_by::value;
  const problem given(70'001);
  for (const score_order order : orders)
    for (const step_geometry step : steps) {
      by = by == topk_by::value ? topk_by::magnitude : topk_by::value;
      check(stream.policy(), given, {order, step, 0.3}, by, step == step_geometry::plain ? 1 : 0);
    }
  check(stream.policy(), problem(200'003), {score_order::joint, step_geometry::adamw, 0.3},
        topk_by::value);
}

TEST_CASE("families of numbers: heavy tails, all equal, all scores tied") {
  const own_stream stream;
  for (const index_t d : {33, 1000, 70'001}) {
    if (d > 65'536) {  // one rule is enough: what differs is the search
      for (const auto& [v, g] : {std::pair{spread::all_equal, spread::all_equal},
                                 std::pair{spread::heavy_tailed, spread::normal}})
        check(stream.policy(), problem(d, v, g), {score_order::diagonal, step_geometry::adamw, 0.3},
              topk_by::value);
      problem tied(d);
      tied.repeat();
      check(stream.policy(), tied, {score_order::joint, step_geometry::plain, 0.3},
            topk_by::magnitude);
      continue;
    }
    for (const score_order order : orders)
      for (const step_geometry step : steps) {
        const score_rule rule{order, step, 0.3};
        check(stream.policy(), problem(d, spread::all_equal, spread::all_equal), rule,
              topk_by::value);
        check(stream.policy(), problem(d, spread::heavy_tailed, spread::normal), rule,
              topk_by::magnitude);
        problem tied(d);
        tied.repeat();
        check(stream.policy(), tied, rule, topk_by::magnitude, 1);
      }
  }
}

TEST_CASE("two runs give the same bits") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const problem given(70'001);
  const score_rule rule{score_order::joint, step_geometry::adamw, 0.3};
  topk_workspace workspace(policy, given.size());
  const on_device one(policy, given), two(policy, given);
  const device_projection first = one.project(policy, rule, {3500}, workspace),
                          second = two.project(policy, rule, {3500}, workspace);
  CHECK(first_difference(one.to_host(one.v), two.to_host(two.v)) == -1);
  CHECK(first_difference(one.to_host(one.effective), two.to_host(two.effective)) == -1);
  CHECK(first_difference(one.to_host(one.rounded), two.to_host(two.rounded)) == -1);
  CHECK(bits_of(first.second_order_share) == bits_of(second.second_order_share));
  CHECK(first.selection.summary == second.selection.summary);
  CHECK(first.selection.test.kth == second.selection.test.kth);
  CHECK(first.selection.test.last_tie == second.selection.test.last_tie);
}

TEST_CASE("values that are not finite are named where they are read; Q only ranks its own last") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  for (const index_t d : {1000, 70'001}) {
    const problem good(d);
    topk_workspace workspace(policy, d);
    for (const topk_by by : {topk_by::value, topk_by::magnitude})
      for (const float odd :
           {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        const auto run = [&](const score_rule& rule, std::vector<float> problem::*which) {
          problem bad = good;
          for (const index_t j : {d - 3, d - 1}) (bad.*which)[static_cast<std::size_t>(j)] = odd;
          return on_device(policy, bad).project(policy, rule, {d / 20, by}, workspace);
        };
        const auto refused = [&](score_order order, std::vector<float> problem::*which) {
          CHECK_THROWS_WITH_AS(
              run({order, step_geometry::plain, 0.1}, which),
              doctest::Contains(("at coordinate " + std::to_string(d - 3)).c_str()),
              numerical_error);
        };
        refused(score_order::first, &problem::v);
        refused(score_order::first, &problem::g);
        refused(score_order::diagonal, &problem::curvature);
        refused(score_order::full, &problem::hg);
        CHECK_NOTHROW(run({score_order::first, step_geometry::plain, 0.1}, &problem::curvature));
        CHECK_NOTHROW(run({score_order::diagonal, step_geometry::plain, 0.1}, &problem::hg));
        if (odd == odd) continue;
        const device_projection found =
            run({score_order::joint, step_geometry::plain, 0.1}, &problem::q);
        CHECK(found.selection.summary.nan_count == 2);
        CHECK(found.selection.selected == d / 20);
      }
  }
}

TEST_CASE("a curvature that cannot divide, and what callers get wrong") {
  const exec::cuda policy;
  problem given(1000);
  given.v[707] = std::numeric_limits<float>::infinity();
  given.curvature[33] = 0;
  topk_workspace workspace(policy, 1000);
  const auto run = [&](step_geometry step) {
    return on_device(policy, given)
        .project(policy, {score_order::diagonal, step, 0.1}, {10}, workspace);
  };
  CHECK_THROWS_WITH_AS(run(step_geometry::plain), doctest::Contains("coordinate 707"),
                       numerical_error);
  given.v[707] = 1;
  CHECK_THROWS_WITH_AS(run(step_geometry::adamw),
                       doctest::Contains("D > 0 everywhere (coordinate = 33)"), invalid_argument);
  CHECK_NOTHROW(run(step_geometry::plain));
  CHECK_THROWS_WITH_AS(
      project_and_select(policy, {score_order::diagonal, step_geometry::plain, 0.1}, {}, {}, {},
                         {1}, workspace),
      doctest::Contains("k must satisfy"), invalid_argument);
}

namespace {

/// All coordinates are alike but a few, whose G is theirs alone: the host needs one of each kind.
void check_few_kinds(const score_rule& rule, index_t d) {
  CAPTURE(d);
  const bool first = rule.order == score_order::first, joint = rule.order == score_order::joint;
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const std::vector<index_t> places{3, d / 2, d - 20, d - 2};
  const std::vector<float> special{2, -1, 3, 0.25F};

  problem kinds(5);
  const float usual = std::bit_cast<float>(0x3f3f3f3f);
  for (auto* each : {&kinds.v, &kinds.curvature, &kinds.hg, &kinds.q}) each->assign(5, usual);
  kinds.g = {0};
  kinds.g.insert(kinds.g.end(), special.begin(), special.end());
  const on_device few(policy, kinds);
  topk_workspace little(policy, 5);
  few.project(policy, rule, {1}, little);
  const std::vector<float> p = few.v.to_host(), effective = few.effective.to_host();
  std::vector<double> scores;  // of each kind, the usual first
  projection<float> stored;
  stored.rule = rule;
  stored.p = p;
  if (joint) stored.curvature = effective;
  const std::vector<double> wide(kinds.g.begin(), kinds.g.end()),
      squares(kinds.q.begin(), kinds.q.end());
  scores.resize(5);
  parameter_scores<float>(wide, stored,
                          joint ? std::span<const double>(squares) : std::span<const double>())
      .fill(0, scores);

  device_array<float> v(policy, d), g(policy, d), same(policy, first ? 0 : d),
      to(policy, joint ? d : 0);
  const device_array<bfloat16> rounded(policy, d);
  v.fill_bytes(0x3f);
  g.fill_bytes(0);
  same.fill_bytes(0x3f);
  for (std::size_t i = 0; i < places.size(); ++i)
    set_part(policy, g.data() + places[i], std::vector<float>{special[i]});
  topk_workspace workspace(policy, d);
  // The usual score ties, so that the last selected is the `rank`-th of the usual.
  const auto above = static_cast<index_t>(std::count_if(
      scores.begin() + 1, scores.end(), [&](double score) { return score > scores[0]; }));
  const index_t rank = d - 10;
  index_t last = rank - 1;
  for (const index_t place : places) last += place <= last ? 1 : 0;
  const device_projection found =
      project_and_select(policy, rule,
                         {.gradient = g.view(),
                          .curvature = same.view(),
                          .hessian_gradient = same.view(),
                          .squares = same.view()},
                         v.view(), {.effective_curvature = to.view(), .rounded = rounded.view()},
                         {above + rank}, workspace);
  CHECK(found.selection.selected == above + rank);
  CHECK(found.selection.summary.kth == scores[0]);
  CHECK(found.selection.summary.boundary_ties == d - 4);
  CHECK(found.selection.summary.boundary_ties_selected == rank);
  CHECK(found.selection.test.last_tie == last);
  for (std::size_t i = 0; i < places.size(); ++i) {
    CHECK(part_of(policy, v.data() + places[i], 1)[0] == p[i + 1]);
    CHECK(part_of(policy, v.data() + places[i] - 1, 1)[0] == p[0]);
    CHECK(part_of(policy, rounded.data() + places[i], 1)[0] == to_bfloat16(p[i + 1]));
    if (joint) CHECK(part_of(policy, to.data() + places[i], 1)[0] == effective[i + 1]);
  }
  const device_array<std::uint32_t> words(policy, (d + 31) / 32);
  write_mask(policy,
             device_parameter_scores(rule, g.view(), v.view(), to.view(),
                                     joint ? same.view() : vector_view<float, device_space>()),
             topk_by::value, found.selection, 0, words.view());
  parameter_layout layout;
  layout.add("to the last selected", last + 1, 1);
  layout.add("behind it", d - last - 1, 1);
  const std::vector<index_t> counts =
      count_selected(policy, vector_view<const std::uint32_t, device_space>(words.view()), layout);
  index_t before = rank, behind = 0;
  for (std::size_t i = 0; i < places.size(); ++i)
    if (scores[i + 1] > scores[0]) (places[i] <= last ? before : behind) += 1;
  CHECK(counts == std::vector<index_t>{before, behind});
}

/// Of `bytes` per coordinate, the search's with them.
void check_far(const score_rule& rule, index_t d, double bytes) {
  if (has_memory_for(static_cast<std::size_t>(bytes * static_cast<double>(d))))
    check_few_kinds(rule, d);
}

}  // namespace

TEST_CASE("coordinates of few kinds: what is known of them without a host's selection") {
  check_few_kinds({score_order::first, step_geometry::plain, 0.3}, 70'001);
  check_few_kinds({score_order::full, step_geometry::plain, 0.3}, 70'001);
  check_few_kinds({score_order::joint, step_geometry::adamw, 0.3}, 70'001);
}

TEST_CASE("more than 2^31 coordinates: all vectors of the joint rule, and of the full one") {
  check_far({score_order::joint, step_geometry::adamw, 0.3}, (index_t{1} << 31) + 33, 18.6);
  check_far({score_order::full, step_geometry::plain, 0.3}, (index_t{1} << 31) + 33, 14.6);
}

TEST_CASE("more than 2^32 coordinates") {
  check_far({score_order::first, step_geometry::plain, 0.3}, (index_t{1} << 32) + 33, 10.6);
}
