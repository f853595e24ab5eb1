// Proves: project_and_select forms the host's p up to one rounding, a rounded copy of it, and selects
// exactly what the host selects from the scores of that p; bad values are named. Against: project,
// parameter_scores, topk on the host.
#include <doctest/doctest.h>

#include <dualsft/parameter_scores.hpp>
#include <dualsft/projection.cuh>

#include "device_values.cuh"

using namespace dualsft;
using namespace dualsft::testing;

namespace {

struct problem {
  std::vector<float> v, g, curvature, hg, q;

  explicit problem(index_t d)
      : v(numbers<float>(d, spread::normal, 1)),
        g(numbers<float>(d, spread::heavy_tailed, 2)),
        curvature(numbers<float>(d, spread::normal, 3)),
        hg(numbers<float>(d, spread::normal, 4)),
        q(numbers<float>(d, spread::normal, 5)) {
    for (float& x : curvature) x = 0.1F + std::abs(x);
    for (float& x : q) x = x * x;
  }
};

}  // namespace

TEST_CASE("p, its copy and the selection, at every order and step") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  for (const index_t d : {1, 33, 2500, 100'000, 2'000'003})
    for (const score_order order :
         {score_order::first, score_order::diagonal, score_order::full, score_order::joint})
      for (const step_geometry step : {step_geometry::plain, step_geometry::adamw})
        for (const topk_by by : {topk_by::value, topk_by::magnitude}) {
          if (is_small_run() && d > 2500) continue;
          CAPTURE(d);
          CAPTURE(name_of(order));
          CAPTURE(name_of(step));
          const problem given(d);
          const score_rule rule{order, step, 0.3};
          const detail::device_array<float> v(policy, std::span<const float>(given.v)),
              g(policy, std::span<const float>(given.g)),
              curvature(policy, std::span<const float>(given.curvature)),
              hg(policy, std::span<const float>(given.hg)),
              q(policy, std::span<const float>(given.q)), effective(policy, d);
          const detail::device_array<bfloat16> rounded(policy, d);
          topk_workspace workspace(policy, d);
          const index_t k = (d + 19) / 20;
          const device_projection found = project_and_select(
              policy, rule,
              {.gradient = g.view(),
               .curvature = curvature.view(),
               .hessian_gradient = hg.view(),
               .squares = q.view()},
              v.view(), {.effective_curvature = effective.view(), .rounded = rounded.view()},
              {k, by}, workspace);

          const std::vector<double> wide(given.g.begin(), given.g.end());
          const std::vector<double> squares(given.q.begin(), given.q.end());
          const projection<float> host = project<exec::cpu, float>(exec::cpu{}, rule, given.v, wide,
                                                                   {given.curvature, given.hg});
          CHECK(found.second_order_share == doctest::Approx(host.second_order_share).epsilon(1e-9));
          projection<float> stored;
          stored.rule = rule;
          stored.p = v.to_host();
          if (order == score_order::joint) stored.curvature = effective.to_host();
          const std::vector<bfloat16> copy = rounded.to_host();
          index_t wrong = 0;
          for (std::size_t j = 0; j < stored.p.size(); ++j) {
            const double largest = (std::abs(given.v[j]) + std::abs(given.hg[j]) +
                                    std::abs(static_cast<double>(given.g[j]))) *
                                   100;
            wrong += std::abs(stored.p[j] - host.p[j]) > 1.2e-7 * largest ? 1 : 0;
            wrong += copy[j] == to_bfloat16(stored.p[j]) ? 0 : 1;
          }
          CHECK(wrong == 0);

          const parameter_scores<float> columns(
              wide, stored,
              needs_squares(rule) ? std::span<const double>(squares) : std::span<const double>());
          const topk_result expected = topk(exec::cpu{}, columns, {k, by});
          CHECK(found.selection.selected == expected.selected.size());
          CHECK(found.selection.summary.kth == expected.kth);
          CHECK(found.selection.summary.next == expected.next);
          CHECK(found.selection.summary.gap == expected.gap);
          CHECK(found.selection.summary.boundary_ties == expected.boundary_ties);
          std::vector<double> scores(static_cast<std::size_t>(d));
          columns.fill(0, scores);
          index_t differ = 0;
          for (index_t j = 0; j < d; ++j) {
            const double score = scores[static_cast<std::size_t>(j)];
            const bool chosen =
                found.selection.test(by == topk_by::magnitude ? std::abs(score) : score, j);
            differ += chosen != expected.selected.contains(j) ? 1 : 0;
          }
          CHECK(differ == 0);
        }
}

TEST_CASE("values that are not finite, and a curvature that cannot divide") {
  const exec::cuda policy;
  const index_t d = 1000;
  problem given(d);
  given.v[707] = std::numeric_limits<float>::infinity();
  given.curvature[33] = 0;
  topk_workspace workspace(policy, d);
  const auto run = [&](step_geometry step, const std::vector<float>& v) {
    const detail::device_array<float> there(policy, std::span<const float>(v)),
        g(policy, std::span<const float>(given.g)),
        curvature(policy, std::span<const float>(given.curvature));
    return project_and_select(policy, {score_order::diagonal, step, 0.1},
                              {.gradient = g.view(), .curvature = curvature.view()}, there.view(),
                              {}, {10}, workspace);
  };
  CHECK_THROWS_WITH_AS(run(step_geometry::plain, given.v), doctest::Contains("coordinate 707"),
                       numerical_error);
  given.v[707] = 1;
  CHECK_THROWS_WITH_AS(run(step_geometry::adamw, given.v),
                       doctest::Contains("D > 0 everywhere (coordinate = 33)"), invalid_argument);
  CHECK_NOTHROW(run(step_geometry::plain, given.v));
  CHECK_THROWS_WITH_AS(
      project_and_select(policy, {score_order::diagonal, step_geometry::plain, 0.1}, {}, {}, {},
                         {1}, workspace),
      doctest::Contains("k must satisfy"), invalid_argument);
}
