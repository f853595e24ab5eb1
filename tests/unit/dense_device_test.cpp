// Proves: how dense_scores cuts its work for a device, and the arithmetic of one column there.
// Against: counts worked by hand, and the definitions (exec::reference) on matrices of one column.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/dense_scores.hpp>
#include <dualsft/detail/dense_device.hpp>
#include <limits>
#include <vector>

using namespace dualsft;
using way = detail::dense_plan::way;

namespace {

constexpr detail::dense_device_facts hopper{{132, 66, 33, 16}};
constexpr detail::dense_device_facts ampere{};

detail::dense_plan plan(const detail::dense_device_facts& device, score_order order, index_t rows,
                        index_t columns, index_t element_bytes = 4) {
  return detail::plan_dense(device, {order, step_geometry::plain, 1}, rows, columns, element_bytes);
}

}  // namespace

TEST_CASE("orders that know p read once everywhere, the others where there are clusters") {
  for (const score_order order : {score_order::first, score_order::full}) {
    CHECK(plan(hopper, order, 4096, 1'000'000).how == way::known);
    CHECK(plan(ampere, order, 4096, 1'000'000).how == way::known);
  }
  for (const score_order order : {score_order::diagonal, score_order::joint}) {
    CHECK(plan(hopper, order, 4096, 1'000'000).how == way::panels);
    CHECK(plan(hopper, order, 16384, 1'000'000).how == way::panels);
    CHECK(plan(hopper, order, 16385, 1'000'000).how == way::two_reads);
    CHECK(plan(ampere, order, 4096, 1'000'000).how == way::two_reads);
    CHECK(plan(hopper, order, 0, 10).how == way::two_reads);
  }
}

TEST_CASE("rows decide how many blocks share a panel, and how wide it is") {
  const auto shape = [](index_t rows) {
    const detail::dense_plan p = plan(hopper, score_order::diagonal, rows, 1'000'000);
    return std::vector<index_t>{p.cluster, p.vectors, p.clusters, p.panels};
  };
  // 16 vectors are 64 floats: 15625 panels.
  CHECK(shape(1) == std::vector<index_t>{1, 16, 132, 15625});
  CHECK(shape(512) == std::vector<index_t>{1, 16, 132, 15625});
  CHECK(shape(513) == std::vector<index_t>{2, 16, 66, 15625});
  CHECK(shape(2048) == std::vector<index_t>{4, 16, 33, 15625});
  CHECK(shape(4096) == std::vector<index_t>{8, 16, 16, 15625});
  CHECK(shape(4097) == std::vector<index_t>{8, 8, 16, 31250});
  CHECK(shape(8193) == std::vector<index_t>{8, 4, 16, 62500});
  // A device that runs no cluster of eight has two blocks for up to 1024 rows.
  constexpr detail::dense_device_facts small{{10, 5, 0, 0}};
  CHECK(plan(small, score_order::joint, 1024, 100).how == way::panels);
  CHECK(plan(small, score_order::joint, 1025, 100).how == way::two_reads);
  CHECK(plan(hopper, score_order::joint, 4096, 100).clusters == 2);
  CHECK(plan(hopper, score_order::joint, 4096, 100, 8).clusters == 4);
}

TEST_CASE("what the parts take") {
  const detail::dense_plan known = plan(hopper, score_order::first, 1000, 3000);
  CHECK(known.tiles == 3);
  CHECK(known.chunks == 2);
  CHECK(known.row_bytes == 24064);     // 3 x 1000 doubles, in whole 256 bytes
  CHECK(known.column_bytes == 48128);  // 2 x 3000
  CHECK(known.factor_bytes == 0);
  CHECK(known.row_facts == 32);
  CHECK(known.terms == 6);
  const detail::dense_plan twice = plan(ampere, score_order::joint, 1000, 3000, 8);
  CHECK(twice.tiles == 6);
  CHECK(twice.column_bytes == 96000);
  CHECK(twice.factor_bytes == 72192);
  const detail::dense_plan panels = plan(hopper, score_order::joint, 4096, 1'000'000);
  CHECK(panels.row_bytes == 16 * 4096 * 8);
  CHECK(panels.column_bytes == 0);
  CHECK(panels.terms == 128);
  CHECK(panels.bytes() < 1'000'000);
}

TEST_CASE("one column, finished as a device does, is the definition's") {
  const std::vector<double> g = {0.5, -2, 3, 0.25};
  for (const score_order order :
       {score_order::first, score_order::diagonal, score_order::full, score_order::joint})
    for (const step_geometry step : {step_geometry::plain, step_geometry::adamw}) {
      CAPTURE(name_of(order));
      CAPTURE(name_of(step));
      const score_rule rule{order, step, 0.3};
      const std::vector<double> v = {0.7}, d = {1.5}, hg = {-0.4};
      const dense_result expected =
          dense_scores(exec::reference{}, matrix_view<const double>(g.data(), 4, 1),
                       dense_inputs<double>{v, d, hg}, rule);
      const detail::dense_vectors vectors =
          detail::vectors_of(rule, dense_inputs<double>{v, d, hg});
      double sum = 0, squares = 0, magnitudes = 0;
      for (const double x : g) sum += x, squares += x * x, magnitudes += std::abs(x);
      detail::column_sums sums;
      const detail::finished_column out = detail::finish_device_column(
          rule, vectors.v[0], vectors.d[0], vectors.hg[0], sum, squares, 5, sums);
      CHECK(out.score == doctest::Approx(expected.parameter_scores[0]).epsilon(1e-14));
      double terms = 0;
      for (std::size_t i = 0; i < g.size(); ++i) {
        const double row = rule.eta * g[i] * (out.a + out.b * g[i]);
        CHECK(row == doctest::Approx(expected.data_scores[i]).epsilon(1e-14));
        terms += std::abs(row);
      }
      CHECK(sums.everything == doctest::Approx(expected.utility_of_everything).epsilon(1e-14));
      const double weighed = sums.terms + out.weight * magnitudes;
      CHECK(weighed >= terms);
      CHECK(weighed >= std::abs(out.score));
      CHECK(weighed >= std::abs(sums.everything));
      CHECK(sums.first_non_finite == -1);
    }
}

TEST_CASE("sums over columns and rows name the first that is not finite, in any order") {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  detail::row_sums early, late;
  early.add(1, 3);
  early.add(nan, 7);
  late.add(nan, 20);
  late.add(-2, 21);
  detail::row_sums one = early, other = late;
  one.add(late);
  other.add(early);
  CHECK(one.first_non_finite == 7);
  CHECK(other.first_non_finite == 7);
  CHECK(one.non_finite == 2);
  CHECK(other.non_finite == 2);
  detail::column_sums columns, none;
  columns.first_non_finite = 4;
  columns.non_finite = 1;
  none.add(columns);
  CHECK(none.first_non_finite == 4);
  columns.add(detail::column_sums{});
  CHECK(columns.first_non_finite == 4);
}

TEST_CASE("a vector that is not there has one value everywhere") {
  const std::vector<float> v = {1, 2, 3};
  const score_rule first{score_order::first, step_geometry::plain, 1};
  const detail::dense_vectors vectors =
      detail::vectors_of(first, dense_inputs<float>{{v.data() + 2, 3, -1}, v, v});
  CHECK(vectors.v[0] == 3);
  CHECK(vectors.v[2] == 1);
  CHECK(vectors.d[1] == 1);
  CHECK(vectors.hg[1] == 0);
}
