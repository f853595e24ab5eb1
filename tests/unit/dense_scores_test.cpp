// Proves: both score vectors of a dense matrix, for any order, step, strides, type and cut.
// Against: numbers worked by hand, the definitions (exec::reference), and the conservation law.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/dense_scores.hpp>
#include <dualsft/dense_stream.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <vector>

using namespace dualsft;

namespace {

constexpr score_order orders[] = {score_order::first, score_order::diagonal, score_order::full,
                                  score_order::joint};
constexpr step_geometry steps[] = {step_geometry::plain, step_geometry::adamw};
constexpr double infinity = std::numeric_limits<double>::infinity();

enum class storage { row_major, column_major, padded_rows, padded_columns, every_other, reversed };
constexpr storage storages[] = {storage::row_major,   storage::column_major,
                                storage::padded_rows, storage::padded_columns,
                                storage::every_other, storage::reversed};

/// A matrix with its vectors; what lies between the elements of a strided view is NaN.
template <class T>
struct problem {
  std::vector<T> memory;
  matrix_view<T> g;
  std::vector<double> v, d, hg;

  problem(index_t rows, index_t cols, storage how, std::uint64_t seed = 1) {
    memory.assign(static_cast<std::size_t>(2 * (rows + 3) * (cols + 5)),
                  std::numeric_limits<T>::quiet_NaN());
    T* base = memory.data();
    switch (how) {
      case storage::row_major:
        g = {base, rows, cols};
        break;
      case storage::column_major:
        g = {base, rows, cols, 1, rows};
        break;
      case storage::padded_rows:
        g = {base + 1, rows, cols, cols + 5, 1};
        break;
      case storage::padded_columns:
        g = {base + 1, rows, cols, 1, rows + 3};
        break;
      case storage::every_other:
        g = {base, rows, cols, 2 * cols, 2};
        break;
      case storage::reversed:
        g = {base + rows * cols, rows, cols, -cols, 1};
        break;
    }
    random_source random(seed);
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < cols; ++j) g(i, j) = static_cast<T>(random.normal());
    for (index_t j = 0; j < cols; ++j) {
      v.push_back(random.normal());
      d.push_back(0.05 + random.uniform());
      hg.push_back(random.normal());
    }
  }

  dense_inputs<double> inputs() const { return {v, d, hg}; }
};

/// |x - y| <= c eps sum |terms|, that sum bounded by `scale`.
void check_close(const std::vector<double>& x, const std::vector<double>& y, double scale) {
  REQUIRE(x.size() == y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(i);
    REQUIRE(std::abs(x[i] - y[i]) <= 64 * std::numeric_limits<double>::epsilon() * scale);
  }
}

template <class T>
void check_against_reference(problem<T>& p, const exec::cpu& policy, const score_rule& rule) {
  CAPTURE(p.g.rows());
  CAPTURE(p.g.cols());
  CAPTURE(policy.threads);
  CAPTURE(name_of(rule.order));
  CAPTURE(name_of(rule.step));
  const dense_result expected = dense_scores(exec::reference{}, p.g, p.inputs(), rule);
  const dense_result found = dense_scores(policy, p.g, p.inputs(), rule);
  // Sums of N (or d) normals times factors below about 100.
  const double column = 100 * rule.eta * (1 + static_cast<double>(p.g.rows()));
  const double row = 100 * rule.eta * (1 + static_cast<double>(p.g.cols()));
  check_close(found.parameter_scores, expected.parameter_scores, column);
  check_close(found.data_scores, expected.data_scores, row);
  check_close({found.conservation.rows_total, found.conservation.columns_total,
               found.conservation.columns_absolute, found.utility_of_everything},
              {expected.conservation.rows_total, expected.conservation.columns_total,
               expected.conservation.columns_absolute, expected.utility_of_everything},
              column * row / rule.eta);
  if (p.g.cols() > 0)
    CHECK(found.second_order_share == doctest::Approx(expected.second_order_share).epsilon(1e-11));
  CHECK(expected.conservation.holds);
  CHECK(found.conservation.holds);
  CHECK(found.conservation.gap < 1e-9);
  CHECK(found.non_finite.columns == 0);
  CHECK(found.non_finite.first_row == -1);
}

}  // namespace

TEST_CASE("scores of a 2 x 2 matrix worked by hand") {
  // g = [1 2; 3 -1], so G = (4, 1), Q = (10, 5); v = (1, 2), D = (2, 4), HG = (1, -1), eta = 1/2.
  const std::vector<double> g{1, 2, 3, -1}, v{1, 2}, d{2, 4}, hg{1, -1};
  const dense_inputs<double> inputs{v, d, hg};
  const matrix_view<const double> view(g.data(), 2, 2);
  struct row {
    score_order order;
    step_geometry step;
    std::vector<double> data, parameters;
    double share, everything;
  };
  // diagonal: p = v - (1/4)(8, 4) = (-1, 1); adamw: C = G, p = (0/2, 1.75/4) = (0, 0.4375).
  // joint: v/2 = (0.5, 1), D G = (8, 4); phi_P = (1 - 1.25 - 2*6/24, 0.5 - 1.25 + 4*4/24)
  //   phi_D = sum_j [g v/4 - D g^2/16 - D g (G - g)/12]
  const std::vector<row> table{
      {score_order::first, step_geometry::plain, {2.5, 0.5}, {2, 1}, 0, 3},
      {score_order::diagonal, step_geometry::plain, {0.5, -2}, {-2, 0.5}, 1, -1.5},
      {score_order::full,
       step_geometry::plain,
       {2.625, 0.0},
       {1.5, 1.125},
       0.25 * std::sqrt(2.0 / 5.0),
       2.625},
      {score_order::diagonal,
       step_geometry::adamw,
       {0.4375, -0.21875},
       {0, 0.21875},
       0.25 * std::sqrt(17.0 / 5.0),
       0.21875},
      {score_order::joint,
       step_geometry::plain,
       {0.25 + 1 - 0.125 - 1 - 0.5 + 4.0 * 2 / 12, 0.75 - 0.5 - 1.125 - 0.25 - 0.5 + 4.0 * 2 / 12},
       {1 - 1.25 - 0.5, 0.5 - 1.25 + 4.0 * 4 / 24},
       1,
       3 - 0.125 * (2 * 16 + 4)}};
  for (const row& expected : table) {
    CAPTURE(name_of(expected.order));
    const score_rule rule{expected.order, expected.step, 0.5};
    for (const dense_result& found : {dense_scores(exec::reference{}, view, inputs, rule),
                                      dense_scores(exec::cpu{2}, view, inputs, rule)}) {
      for (std::size_t i = 0; i < 2; ++i) {
        CHECK(found.data_scores[i] == doctest::Approx(expected.data[i]).epsilon(1e-14));
        CHECK(found.parameter_scores[i] == doctest::Approx(expected.parameters[i]).epsilon(1e-14));
      }
      CHECK(found.second_order_share == doctest::Approx(expected.share).epsilon(1e-14));
      CHECK(found.utility_of_everything == doctest::Approx(expected.everything).epsilon(1e-14));
      CHECK(found.conservation.gap <= 1e-15);
    }
  }
}

TEST_CASE_TEMPLATE("every order, step, storage and size agrees with the definition", T, float,
                   double) {
  const std::pair<index_t, index_t> sizes[] = {{0, 5},    {3, 0},    {1, 1},     {2, 3},
                                               {3, 31},   {5, 32},   {33, 33},   {31, 257},
                                               {7, 1000}, {257, 65}, {1000, 17}, {6, 2100}};
  for (const auto& [rows, cols] : sizes)
    for (const storage how : storages) {
      problem<T> p(rows, cols, how);
      CAPTURE(static_cast<int>(how));
      for (const score_order order : orders)
        for (const step_geometry step : steps)
          for (const int threads : {1, 3})
            check_against_reference(p, exec::cpu{threads}, {order, step, 0.3});
    }
}

TEST_CASE(
    "tiles of several widths, shared by teams: tall enough for one, wide enough for several") {
  for (const score_order order : {score_order::diagonal, score_order::joint}) {
    problem<float> tall(5003, 600, storage::row_major);
    for (const int threads : {1, 2, 3})
      check_against_reference(tall, exec::cpu{threads}, {order, step_geometry::plain, 1e-3});
    problem<double> square(701, 1203, storage::padded_rows);
    for (const int threads : {2, 3, 4, 7, 16}) {
      const score_rule rule{order, step_geometry::adamw, 1e-3};
      check_against_reference(square, exec::cpu{threads}, rule);
      const dense_result a = dense_scores(exec::cpu{threads}, square.g, square.inputs(), rule);
      const dense_result b = dense_scores(exec::cpu{threads}, square.g, square.inputs(), rule);
      CHECK(a.data_scores == b.data_scores);
      CHECK(a.parameter_scores == b.parameter_scores);
    }
    problem<float> wide(9, 9000, storage::padded_rows);
    check_against_reference(wide, exec::cpu{2}, {order, step_geometry::adamw, 1e-3});
  }
}

TEST_CASE("vectors may be float and strided") {
  problem<float> p(20, 50, storage::row_major);
  std::vector<float> interleaved;
  for (std::size_t j = 0; j < 50; ++j) {
    p.v[j] = static_cast<float>(p.v[j]);
    p.d[j] = static_cast<float>(p.d[j]);
    p.hg[j] = static_cast<float>(p.hg[j]);
    for (const double x : {p.v[j], p.d[j], p.hg[j]}) interleaved.push_back(static_cast<float>(x));
  }
  const auto column = [&](index_t which) {
    return vector_view<const float>(interleaved.data() + which, 50, 3);
  };
  for (const score_order order : orders) {
    const score_rule rule{order, step_geometry::adamw, 0.1};
    const dense_result a = dense_scores(exec::cpu{1}, p.g, p.inputs(), rule);
    const dense_inputs<float> strided{column(0), column(1), column(2)};
    const dense_result b = dense_scores(exec::cpu{1}, p.g, strided, rule);
    CHECK(a.data_scores == b.data_scores);
    CHECK(a.parameter_scores == b.parameter_scores);
  }
}

TEST_CASE("equal inputs and threads give equal bits") {
  problem<float> p(37, 3001, storage::row_major);
  for (const score_order order : orders)
    for (const int threads : {1, 2, 3, 7}) {
      const score_rule rule{order, step_geometry::plain, 0.1};
      const dense_result a = dense_scores(exec::cpu{threads}, p.g, p.inputs(), rule);
      const dense_result b = dense_scores(exec::cpu{threads}, p.g, p.inputs(), rule);
      CHECK(a.data_scores == b.data_scores);
      CHECK(a.parameter_scores == b.parameter_scores);
      CHECK(a.conservation.gap == b.conservation.gap);
    }
}

TEST_CASE("panels of any width make the scores of the whole") {
  for (const storage how : {storage::row_major, storage::column_major})
    for (const score_order order : orders)
      for (const index_t width : {1, 16, 100, 333}) {
        problem<double> p(23, 333, how);
        const score_rule rule{order, step_geometry::adamw, 0.2};
        const dense_result whole = dense_scores(exec::cpu{2}, p.g, p.inputs(), rule);
        dense_panels scoring(exec::cpu{2}, rule, 23, 333);
        std::vector<double> phi(333);
        while (scoring.next_column() < 333) {
          const index_t first = scoring.next_column();
          const index_t w = std::min<index_t>(width, 333 - first);
          const auto part = [&](const std::vector<double>& x) {
            return vector_view<const double>(x).subview(first, w);
          };
          scoring.add(p.g.transposed().middle_rows(first, w).transposed(),
                      dense_inputs<double>{part(p.v), part(p.d), part(p.hg)},
                      vector_view<double>(phi).subview(first, w));
        }
        const dense_result result = scoring.finish();
        check_close(phi, whole.parameter_scores, 1e3);
        check_close(result.data_scores, whole.data_scores, 1e4);
        CHECK(result.parameter_scores.empty());
        CHECK(result.conservation.holds);
        CHECK(result.second_order_share == doctest::Approx(whole.second_order_share));
      }
}

TEST_CASE("the law is judged by the size of its terms, not of what cancellation leaves") {
  // Every column sums to zero but for rounding: a ratio to sum |phi_P| alone would cry wolf.
  problem<double> p(64, 640, storage::row_major);
  for (index_t j = 0; j < 640; ++j)
    for (index_t i = 0; i < 32; ++i) p.g(63 - i, j) = -p.g(i, j) * (1 + 1e-15 * double(i % 3));
  const dense_result found =
      dense_scores(exec::cpu{2}, p.g, p.inputs(), {score_order::first, step_geometry::plain, 1});
  CHECK(found.conservation.holds);
  // Here the rows cancel too, so that only the terms themselves tell the scale.
  for (index_t j = 0; j < 320; ++j)
    for (index_t i = 0; i < 32; ++i) {
      p.g(i, 320 + j) = p.g(32 + i, j) = -p.g(i, j);
      p.g(32 + i, 320 + j) = p.g(i, j);
    }
  for (const score_order order : {score_order::first, score_order::joint}) {
    const std::vector<double> ones(640, 1.0);
    const dense_inputs<double> even{ones, ones, ones};
    const dense_result nothing =
        dense_scores(exec::cpu{2}, p.g, even, {order, step_geometry::plain, 1e-9});
    CHECK(nothing.conservation.gap > 0);
    CHECK(nothing.conservation.holds);
  }
  // A law that is really broken does not hold: move one coordinate's total by a millionth.
  detail::column_sums sums;
  std::vector<double> rows(64), phi(640);
  detail::cpu::dense_columns(exec::cpu{1}, matrix_view<const double>(p.g), p.inputs(),
                             {score_order::first, step_geometry::plain, 1}, 0, rows,
                             vector_view<double>(phi), sums);
  dense_result broken;
  broken.data_scores = rows;
  broken.data_scores[7] += 1e-6 * sums.terms;
  detail::finish_dense({score_order::first, step_geometry::plain, 1}, 640, sums, broken);
  CHECK_FALSE(broken.conservation.holds);
}

TEST_CASE("products below the smallest normal number are no broken law") {
  for (const storage how : {storage::row_major, storage::column_major})
    for (const double eta : {1.0, 100.0}) {
      problem<double> p(64, 640, how);
      for (double& v : p.v) v *= 1e-320 / eta;
      const dense_result found = dense_scores(exec::cpu{2}, p.g, p.inputs(),
                                              {score_order::first, step_geometry::plain, eta});
      CHECK(found.conservation.columns_absolute > 0);
      CHECK(found.conservation.gap > 0);
      CHECK(found.conservation.holds);
    }
}

TEST_CASE("NaN and infinity are reported where they are") {
  for (const storage how : storages)
    for (const score_order order : orders)
      for (const double bad : {infinity, -infinity, std::nan("")}) {
        problem<float> p(40, 300, how);
        p.g(17, 211) = static_cast<float>(bad);
        const score_rule rule{order, step_geometry::plain, 0.1};
        const dense_result found = dense_scores(exec::cpu{2}, p.g, p.inputs(), rule);
        const dense_result expected = dense_scores(exec::reference{}, p.g, p.inputs(), rule);
        CAPTURE(static_cast<int>(how));
        CAPTURE(name_of(order));
        CHECK(found.non_finite.columns == 1);
        CHECK(found.non_finite.first_column == 211);
        CHECK(found.non_finite.rows >= 1);
        CHECK_FALSE(found.conservation.holds);
        CHECK(expected.non_finite.first_column == 211);
      }
  problem<double> wide(4, 100, storage::row_major);
  wide.g(1, 77) = infinity;
  dense_panels scoring(exec::cpu{1}, {score_order::first, step_geometry::plain, 1}, 4, 100);
  std::vector<double> phi(50);
  for (const index_t first : {0, 50}) {
    CHECK(scoring.first_non_finite() == -1);
    scoring.add(wide.g.transposed().middle_rows(first, 50).transposed(),
                dense_inputs<double>{vector_view<const double>(wide.v).subview(first, 50), {}, {}},
                phi);
  }
  CHECK(scoring.first_non_finite() == 77);

  problem<double> p(4, 10, storage::row_major);
  p.v[3] = infinity;
  const dense_result found =
      dense_scores(exec::cpu{1}, p.g, p.inputs(), {score_order::first, step_geometry::plain, 1});
  CHECK(found.non_finite.first_column == 3);
  CHECK(found.non_finite.rows == 4);
}

TEST_CASE("broken preconditions throw before anything is computed") {
  problem<double> p(3, 4, storage::row_major);
  const auto run = [&](const dense_inputs<double>& inputs, const score_rule& rule) {
    (void)dense_scores(exec::cpu{1}, p.g, inputs, rule);
  };
  const score_rule first{score_order::first, step_geometry::plain, 1};
  CHECK_NOTHROW(run({p.v, {}, {}}, first));
  CHECK_THROWS_AS(run({}, first), invalid_argument);
  CHECK_THROWS_AS(run({p.v, {}, {}}, {score_order::first, step_geometry::plain, 0}),
                  invalid_argument);
  CHECK_THROWS_AS(run({p.v, {}, {}}, {score_order::first, step_geometry::plain, infinity}),
                  invalid_argument);
  CHECK_THROWS_AS(run({p.v, {}, {}}, {score_order::first, step_geometry::adamw, 1}),
                  invalid_argument);
  CHECK_THROWS_AS(run({p.v, {}, {}}, {score_order::diagonal, step_geometry::plain, 1}),
                  invalid_argument);
  CHECK_THROWS_AS(run({p.v, p.d, {}}, {score_order::full, step_geometry::plain, 1}),
                  invalid_argument);
  CHECK_THROWS_WITH_AS(run({p.v, vector_view<const double>(p.d).subview(0, 3), {}},
                           {score_order::joint, step_geometry::plain, 1}),
                       doctest::Contains("D = 3, columns = 4"), invalid_argument);

  dense_panels scoring(exec::cpu{1}, first, 3, 4);
  std::vector<double> phi(4);
  CHECK_THROWS_AS(scoring.finish(), invalid_argument);
  CHECK_THROWS_AS(scoring.add(p.g.middle_rows(0, 2), dense_inputs<double>{p.v, {}, {}}, phi),
                  invalid_argument);
  CHECK_THROWS_AS(
      scoring.add(p.g, dense_inputs<double>{p.v, {}, {}}, vector_view<double>(phi).subview(0, 3)),
      invalid_argument);
  CHECK(scoring.next_column() == 0);
  scoring.add(p.g, dense_inputs<double>{p.v, {}, {}}, phi);
  CHECK_THROWS_AS(scoring.add(p.g, dense_inputs<double>{p.v, {}, {}}, phi), invalid_argument);
  CHECK(scoring.finish().data_scores.size() == 3);
}
