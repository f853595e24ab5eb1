// Proves: both score vectors of a dense matrix on a device, at every order, step, shape, stride and way
// of cutting the work, and what is found out about them. Against: the definitions (exec::reference).
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <dualsft/dense_scores.cuh>
#include <dualsft/dense_scores.hpp>
#include <limits>

#include "device_values.cuh"

using namespace dualsft;
using namespace dualsft::testing;

namespace {

constexpr score_order orders[] = {score_order::first, score_order::diagonal, score_order::full,
                                  score_order::joint};
constexpr step_geometry steps[] = {step_geometry::plain, step_geometry::adamw};
constexpr double epsilon = std::numeric_limits<double>::epsilon();

/// Where the elements lie: `lead` of them before the first, `gap` between the rows.
struct layout_of_rows {
  index_t lead;
  index_t gap;
};

/// A matrix with its vectors, on the host and on the device. What lies between is NaN; nothing lies
/// behind.
template <class T, class V>
struct problem {
  index_t rows, columns, lead, stride;
  std::vector<T> memory;
  std::vector<V> v, d, hg;

  problem(index_t n, index_t m, layout_of_rows how, spread kind, std::uint64_t seed = 1)
      : rows(n), columns(m), lead(how.lead), stride(m + how.gap) {
    const index_t size = n > 0 && m > 0 ? lead + (n - 1) * stride + m : lead;
    memory.assign(static_cast<std::size_t>(size), std::numeric_limits<T>::quiet_NaN());
    for (index_t i = 0; i < n; ++i) {
      const std::vector<T> row = numbers<T>(m, kind, seed + static_cast<std::uint64_t>(i) * 7919);
      std::copy(row.begin(), row.end(), memory.begin() + lead + i * stride);
    }
    v = numbers<V>(m, spread::normal, seed + 1);
    d = numbers<V>(m, spread::normal, seed + 2);
    hg = numbers<V>(m, spread::normal, seed + 3);
    for (V& x : d) x = V(0.05) + std::abs(x);
  }

  matrix_view<const T> host() const { return {memory.data() + lead, rows, columns, stride, 1}; }
  dense_inputs<V> host_inputs() const { return {v, d, hg}; }
};

template <class T, class V>
struct on_device {
  detail::device_array<T> memory;
  detail::device_array<V> v, d, hg;
  matrix_view<const T, device_space> g;

  on_device(const exec::cuda& policy, const problem<T, V>& p)
      : memory(policy, std::span<const T>(p.memory)),
        v(policy, std::span<const V>(p.v)),
        d(policy, std::span<const V>(p.d)),
        hg(policy, std::span<const V>(p.hg)),
        g(memory.data() + p.lead, p.rows, p.columns, p.stride, 1) {}

  dense_inputs<V, device_space> inputs() const { return {v.view(), d.view(), hg.view()}; }
};

/// What rounding may do, per score: one eps of the magnitudes per addition along the longest chain,
/// twice: once in each of the two results. A column's G enters p, so its magnitudes count at full
/// length in the rows as well.
struct scales {
  std::vector<double> rows, columns;
  double all = 0;

  template <class T, class V>
  scales(const problem<T, V>& p, const score_rule& rule)
      : rows(static_cast<std::size_t>(p.rows)), columns(static_cast<std::size_t>(p.columns)) {
    const auto g = p.host();
    for (index_t j = 0; j < p.columns; ++j) {
      const auto k = static_cast<std::size_t>(j);
      double magnitude = 0;
      for (index_t i = 0; i < p.rows; ++i) magnitude += std::abs(static_cast<double>(g(i, j)));
      const double divide = rule.step == step_geometry::adamw ? static_cast<double>(p.d[k]) : 1.0;
      const double bend = static_cast<double>(p.d[k]) / divide / divide;
      const double factor = rule.eta * ((std::abs(static_cast<double>(p.v[k])) +
                                         rule.eta * std::abs(static_cast<double>(p.hg[k]))) /
                                            divide +
                                        rule.eta * bend * magnitude);
      columns[k] = factor * magnitude;
      all += columns[k];
      for (index_t i = 0; i < p.rows; ++i)
        rows[static_cast<std::size_t>(i)] += factor * std::abs(static_cast<double>(g(i, j)));
    }
  }
};

/// -1, or the first that is too far off.
index_t first_wrong(const std::vector<double>& found, const std::vector<double>& expected,
                    const std::vector<double>& scale, double roundings) {
  if (found.size() != expected.size()) return 0;
  for (std::size_t i = 0; i < found.size(); ++i)
    if (!(std::abs(found[i] - expected[i]) <= 2 * roundings * epsilon * scale[i]))
      return static_cast<index_t>(i);
  return -1;
}

template <class T, class V>
void check_against_reference(index_t rows, index_t columns, layout_of_rows how, spread kind) {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const problem<T, V> given(rows, columns, how, kind);
  const on_device<T, V> there(policy, given);
  int turn = static_cast<int>(rows % 2);
  for (const score_order order : orders)
    for (const step_geometry step : steps) {
      // Played by a processor, a large shape takes one step, and only orders that wait for sums.
      const bool waits = order == score_order::diagonal || order == score_order::joint;
      const bool large = rows * columns > 40'000 || rows > 2000;
      if (is_small_run() && large && (!waits || ++turn % 2 == 0)) continue;
      CAPTURE(rows);
      CAPTURE(columns);
      CAPTURE(how.lead);
      CAPTURE(how.gap);
      CAPTURE(name_of(order));
      CAPTURE(name_of(step));
      const score_rule rule{order, step, 0.01};
      const dense_result found = dense_scores(policy, there.g, there.inputs(), rule);
      const dense_result expected =
          dense_scores(exec::reference{}, given.host(), given.host_inputs(), rule);
      const scales scale(given, rule);
      const auto roundings = static_cast<double>(rows + columns + 16);
      CHECK(first_wrong(found.data_scores, expected.data_scores, scale.rows, roundings) == -1);
      CHECK(first_wrong(found.parameter_scores, expected.parameter_scores, scale.columns,
                        roundings) == -1);
      CHECK(found.conservation.holds);
      // The tolerance is rounding's, with terms that are at most a few times the magnitudes.
      const double allowed = found.conservation.tolerance * found.conservation.columns_absolute;
      CHECK(allowed <= 5 * roundings * epsilon * scale.all + 1e-300);
      const double slack = 2 * roundings * epsilon * scale.all;
      CHECK(std::abs(found.utility_of_everything - expected.utility_of_everything) <= 4 * slack);
      CHECK(std::abs(found.conservation.rows_total - expected.conservation.rows_total) <= slack);
      CHECK(std::abs(found.conservation.columns_total - expected.conservation.columns_total) <=
            slack);
      CHECK(found.second_order_share == doctest::Approx(expected.second_order_share).epsilon(1e-9));
      CHECK(found.non_finite.columns == 0);
      CHECK(found.non_finite.first_row == -1);
    }
}

}  // namespace

TEST_CASE("every cut of the work gives the definition's scores") {
  // Rows decide how many blocks share a panel and how wide it is; 16 columns (8 in double) or more of
  // a panel, several panels per cluster, several tiles and chunks.
  const std::vector<std::array<index_t, 2>> shapes = {
      {1, 1},     {2, 3},      {31, 33},   {33, 31},   {256, 64},
      {257, 65},  {513, 1030}, {513, 40},  {1025, 67}, {2100, 70},
      {4096, 66}, {4100, 40},  {8193, 17}, {16385, 9}, {10, 2050}};
  constexpr layout_of_rows packed{0, 0}, odd{1, 3};
  for (const auto& [rows, columns] : shapes) {
    // A gap that makes rows begin at 16 bytes, whatever their length.
    const layout_of_rows aligned{0, (4 - columns % 4) % 4 + 4};
    check_against_reference<float, float>(rows, columns, aligned, spread::normal);
    check_against_reference<float, double>(rows, columns, odd, spread::normal);
  }
  check_against_reference<float, float>(600, 129, packed, spread::all_equal);
  check_against_reference<float, double>(600, 132, packed, spread::heavy_tailed);
  check_against_reference<double, double>(33, 31, odd, spread::normal);
  check_against_reference<double, double>(600, 530, packed, spread::heavy_tailed);
  check_against_reference<double, float>(600, 66, {0, 2}, spread::normal);
  check_against_reference<double, double>(4200, 34, packed, spread::normal);
  check_against_reference<double, double>(16385, 5, odd, spread::normal);
  if (is_small_run()) return;
  check_against_reference<float, float>(4096, 40'000, packed, spread::normal);
  check_against_reference<float, float>(9000, 5'003, odd, spread::heavy_tailed);
  check_against_reference<double, double>(3000, 10'001, odd, spread::normal);
}

TEST_CASE("a matrix without rows, or without columns") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  for (const score_order order : orders) {
    const score_rule rule{order, step_geometry::plain, 0.5};
    const problem<float, float> no_rows(0, 300, {0, 0}, spread::normal);
    const on_device<float, float> there(policy, no_rows);
    const dense_result found = dense_scores(policy, there.g, there.inputs(), rule);
    CHECK(found.parameter_scores == std::vector<double>(300, 0.0));
    CHECK(found.data_scores.empty());
    CHECK(found.conservation.holds);

    const matrix_view<const float, device_space> no_columns(nullptr, 300, 0);
    const dense_result rows =
        dense_scores(policy, no_columns, dense_inputs<float, device_space>{}, rule);
    CHECK(rows.data_scores == std::vector<double>(300, 0.0));
    CHECK(rows.conservation.holds);
    CHECK(rows.second_order_share == 0);
  }
}

TEST_CASE("what is not finite is found where the definition finds it") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  for (const index_t rows : {40, 900}) {
    problem<float, double> given(rows, 300, {0, 0}, spread::normal);
    given.memory[7 * 300 + 131] = std::numeric_limits<float>::infinity();
    given.memory[30 * 300 + 77] = std::numeric_limits<float>::quiet_NaN();
    given.v[200] = std::numeric_limits<double>::quiet_NaN();
    const on_device<float, double> there(policy, given);
    for (const score_order order : orders) {
      CAPTURE(name_of(order));
      const score_rule rule{order, step_geometry::plain, 0.1};
      const dense_result found = dense_scores(policy, there.g, there.inputs(), rule);
      const dense_result expected =
          dense_scores(exec::reference{}, given.host(), given.host_inputs(), rule);
      CHECK(found.non_finite.columns == expected.non_finite.columns);
      CHECK(found.non_finite.columns == 3);
      CHECK(found.non_finite.first_column == 77);
      CHECK(found.non_finite.rows == expected.non_finite.rows);
      CHECK(found.non_finite.first_row == expected.non_finite.first_row);
      CHECK(!found.conservation.holds);
    }
  }
}

TEST_CASE("a curvature of zero divides only the columns that have it") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  problem<float, float> given(70, 200, {0, 0}, spread::normal);
  given.d[150] = 0;
  const on_device<float, float> there(policy, given);
  const score_rule rule{score_order::diagonal, step_geometry::adamw, 0.1};
  const dense_result found = dense_scores(policy, there.g, there.inputs(), rule);
  CHECK(found.non_finite.columns == 1);
  CHECK(found.non_finite.first_column == 150);
  CHECK(found.non_finite.rows == 70);
}

TEST_CASE("strided scores and vectors, a matrix read backwards") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const problem<float, double> given(600, 70, {0, 2}, spread::normal);
  const on_device<float, double> there(policy, given);
  // Rows from the last to the first.
  const matrix_view<const float, device_space> backwards(there.g.data() + 599 * given.stride, 600,
                                                         70, -given.stride, 1);
  const matrix_view<const float> host(given.host().data() + 599 * given.stride, 600, 70,
                                      -given.stride, 1);
  std::vector<double> spaced(3 * 70);
  for (std::size_t j = 0; j < 70; ++j) spaced[3 * j] = given.v[j];
  const detail::device_array<double> v(policy, std::span<const double>(spaced));
  detail::device_array<double> to(policy, 2 * 600 + 4 * 70);
  to.fill_bytes(0);
  for (const score_order order : orders) {
    const score_rule rule{order, step_geometry::plain, 0.02};
    dense_workspace workspace(policy, 600, 70, rule);
    auto inputs = there.inputs();
    inputs.validation = {v.data(), 70, 3};
    dense_scores(policy, backwards, inputs, rule, {{to.data(), 600, 2}, {to.data() + 1200, 70, 4}},
                 workspace);
    const std::vector<double> all = to.to_host();
    const dense_result expected = dense_scores(exec::reference{}, host, given.host_inputs(), rule);
    std::vector<double> rows, columns;
    for (std::size_t i = 0; i < 600; ++i) rows.push_back(all[2 * i]);
    for (std::size_t j = 0; j < 70; ++j) columns.push_back(all[1200 + 4 * j]);
    scales scale(given, rule);
    std::reverse(scale.rows.begin(), scale.rows.end());
    CHECK(first_wrong(rows, expected.data_scores, scale.rows, 700) == -1);
    CHECK(first_wrong(columns, expected.parameter_scores, scale.columns, 700) == -1);
    CHECK(all[1] == 0);
    CHECK(all[1201] == 0);
  }
}

TEST_CASE("two runs give the same bits, and so does a graph") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const problem<float, float> given(1100, 201, {1, 0}, spread::heavy_tailed);
  const on_device<float, float> there(policy, given);
  const detail::device_array<double> rows(policy, 1100), columns(policy, 201);
  for (const score_order order : orders) {
    CAPTURE(name_of(order));
    const score_rule rule{order, step_geometry::adamw, 0.01};
    dense_workspace workspace(policy, 1100, 201, rule);
    CHECK(workspace.memory_bytes() > 0);
    const dense_outputs outputs{rows.view(), columns.view()};
    dense_scores(policy, there.g, there.inputs(), rule, outputs, workspace);
    const std::vector<double> first_rows = rows.to_host(), first_columns = columns.to_host();
    const dense_result first = workspace.summary(policy);

    const captured_graph graph(
        policy, [&] { dense_scores(policy, there.g, there.inputs(), rule, outputs, workspace); });
    REQUIRE(cudaMemsetAsync(rows.data(), 0, rows.bytes(), policy.stream) == cudaSuccess);
    graph.launch(policy);
    CHECK(first_difference(rows.to_host(), first_rows) == -1);
    CHECK(first_difference(columns.to_host(), first_columns) == -1);
    const dense_result again = workspace.summary(policy);
    CHECK(again.conservation.rows_total == first.conservation.rows_total);
    CHECK(again.conservation.tolerance == first.conservation.tolerance);
    CHECK(again.utility_of_everything == first.utility_of_everything);
  }
}

TEST_CASE("a workspace serves smaller matrices, and says so of larger ones") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const score_rule rule{score_order::first, step_geometry::plain, 0.1};
  const problem<float, float> small(10, 20, {0, 0}, spread::normal);
  const problem<float, float> large(2000, 2000, {0, 0}, spread::normal);
  const on_device<float, float> there(policy, small), far(policy, large);
  const detail::device_array<double> rows(policy, 2000), columns(policy, 2000);
  dense_workspace workspace(policy, 100, 200, rule);
  CHECK_THROWS_WITH_AS(workspace.summary(policy), doctest::Contains("must have been called"),
                       invalid_argument);
  dense_scores(policy, there.g, there.inputs(), rule,
               {rows.view().subview(0, 10), columns.view().subview(0, 20)}, workspace);
  CHECK(workspace.summary(policy).conservation.holds);
  CHECK_THROWS_WITH_AS(
      dense_scores(policy, far.g, far.inputs(), rule, {rows.view(), columns.view()}, workspace),
      doctest::Contains("smaller matrix"), invalid_argument);
}

TEST_CASE("arguments that do not fit are named before anything is written") {
  const exec::cuda policy;
  const problem<float, float> given(10, 20, {0, 0}, spread::normal);
  const on_device<float, float> there(policy, given);
  const detail::device_array<double> rows(policy, 10), columns(policy, 20);
  const score_rule rule{score_order::diagonal, step_geometry::plain, 0.1};
  dense_workspace workspace(policy, 10, 20, rule);
  const dense_outputs outputs{rows.view(), columns.view()};
  const auto run = [&](auto g, auto inputs, const score_rule& r, const dense_outputs& to) {
    dense_scores(policy, g, inputs, r, to, workspace);
  };
  CHECK_THROWS_WITH_AS(run(there.g, there.inputs(), {score_order::diagonal, {}, -1}, outputs),
                       doctest::Contains("eta = -1"), invalid_argument);
  auto inputs = there.inputs();
  inputs.curvature = inputs.curvature.subview(0, 19);
  CHECK_THROWS_WITH_AS(run(there.g, inputs, rule, outputs), doctest::Contains("D = 19"),
                       invalid_argument);
  const matrix_view<const float, device_space> by_columns(there.g.data(), 10, 20, 1, 10);
  CHECK_THROWS_WITH_AS(run(by_columns, there.inputs(), rule, outputs),
                       doctest::Contains("col_stride = 10"), invalid_argument);
  CHECK_THROWS_WITH_AS(run(there.g, there.inputs(), rule, {rows.view().subview(0, 9), {}}),
                       doctest::Contains("data_scores = 9"), invalid_argument);
  CHECK_THROWS_WITH_AS(run(there.g, there.inputs(), rule, {rows.view(), rows.view()}),
                       doctest::Contains("parameter_scores = 10"), invalid_argument);
  const matrix_view<const float, device_space> endless(nullptr, index_t{1} << 26, 0);
  CHECK_THROWS_WITH_AS(run(endless, dense_inputs<float, device_space>{}, rule, outputs),
                       doctest::Contains("rows = 67108864"), invalid_argument);
  CHECK_THROWS_AS(dense_workspace(policy, -1, 2, rule), invalid_argument);
}

TEST_CASE("more than 2^32 elements") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t rows = 1100, columns = 4'000'003;
  std::size_t free = 0, total = 0;
  REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
  if (is_small_run() ||
      free < static_cast<std::size_t>(rows * columns) * 4 + (std::size_t{3} << 30)) {
    MESSAGE("skipped: this takes 21 GB");
    return;
  }
  // All elements are 0 but one in each of a few columns: the scores are known.
  detail::device_array<float> g(policy, rows * columns), ones(policy, columns);
  g.fill_bytes(0);
  const std::vector<float> one(static_cast<std::size_t>(columns), 1.0F);
  ones = {policy, std::span<const float>(one)};
  const index_t at[][2] = {{0, 0}, {1099, columns - 1}, {1073, 2'964'077}, {1099, 7}};
  for (const auto& [i, j] : at)
    REQUIRE(cudaMemcpyAsync(g.data() + i * columns + j, one.data(), sizeof(float),
                            cudaMemcpyHostToDevice, policy.stream) == cudaSuccess);
  for (const score_order order : {score_order::first, score_order::diagonal, score_order::joint}) {
    const score_rule rule{order, step_geometry::plain, 0.5};
    const dense_result found =
        dense_scores(policy, matrix_view<const float, device_space>(g.data(), rows, columns),
                     dense_inputs<float, device_space>{ones.view(), ones.view(), {}}, rule);
    // g = 1 once in its column: M = eta (1 - eta / 2) and, in the joint game,
    // phi = eta / 2 - eta^2 / 4 on both sides.
    const double score = order == score_order::first      ? 0.5
                         : order == score_order::diagonal ? 0.5 * 0.75
                                                          : 0.25 - 0.0625;
    double left = 0;
    for (const double x : found.parameter_scores) left += x;
    for (const auto& [i, j] : at)
      CHECK(found.parameter_scores[static_cast<std::size_t>(j)] == doctest::Approx(score));
    CHECK(left == doctest::Approx(4 * score));
    CHECK(found.data_scores[0] == doctest::Approx(score));
    CHECK(found.data_scores[1073] == doctest::Approx(score));
    CHECK(found.data_scores[1099] == doctest::Approx(2 * score));
  }
}
