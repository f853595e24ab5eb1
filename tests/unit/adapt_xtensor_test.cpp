// Proves: every xtensor object that lies in memory is viewed where it lies, and views come back.
// Against: the elements that xtensor itself gives, and writes seen through the other side.
#include <doctest/doctest.h>

#include <dualsft/adapt/xtensor.hpp>
#include <type_traits>
#include <utility>
#include <vector>

using namespace dualsft;

namespace {

template <class A>
A filled(std::size_t rows, std::size_t cols) {
  A x = A::from_shape({rows, cols});
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < cols; ++j)
      x(i, j) = static_cast<typename A::value_type>(100 * i + j);
  return x;
}

template <class View, class X>
void check_matrix(const View& view, X&& x) {
  REQUIRE(view.rows() == static_cast<index_t>(x.shape()[0]));
  REQUIRE(view.cols() == static_cast<index_t>(x.shape()[1]));
  for (index_t i = 0; i < view.rows(); ++i)
    for (index_t j = 0; j < view.cols(); ++j) REQUIRE(&view(i, j) == &x(i, j));
}

template <class View, class X>
void check_vector(const View& view, X&& x) {
  REQUIRE(view.size() == static_cast<index_t>(x.shape()[0]));
  for (index_t i = 0; i < view.size(); ++i) REQUIRE(&view[i] == &x(i));
}

template <class X>
concept Viewable = requires(X&& x) {
  as_view(std::forward<X>(x));
};
template <class X>
concept MatrixViewable = requires(X&& x) {
  as_matrix_view(std::forward<X>(x));
};

using tensor = xt::xtensor<double, 2>;
using array = xt::xarray<double>;
using column_array = xt::xarray<float, xt::layout_type::column_major>;
using column_tensor = xt::xtensor<float, 2, xt::layout_type::column_major>;

}  // namespace

TEST_CASE_TEMPLATE("arrays of both orders, views, strided views, transposes", A, array, tensor,
                   column_array, column_tensor) {
  using S = typename A::value_type;
  auto x = filled<A>(5, 7);
  const A& constant = x;
  static_assert(std::is_same_v<decltype(as_matrix_view(x)), matrix_view<S>>);
  static_assert(std::is_same_v<decltype(as_matrix_view(constant)), matrix_view<const S>>);
  check_matrix(as_matrix_view(x), x);
  check_matrix(as_matrix_view(constant), x);
  auto block = xt::view(x, xt::range(1, 4), xt::range(2, 7, 2));
  check_matrix(as_matrix_view(block), block);
  auto nested = xt::view(block, xt::range(1, 3), xt::all());
  check_matrix(as_matrix_view(nested), nested);
  check_matrix(as_matrix_view(xt::view(x, xt::range(1, 4), xt::all())),
               xt::view(x, xt::range(1, 4), xt::all()));
  const auto constant_block = xt::view(constant, xt::range(1, 4), xt::range(0, 3));
  static_assert(std::is_same_v<decltype(as_matrix_view(constant_block)), matrix_view<const S>>);
  check_matrix(as_matrix_view(constant_block), constant_block);
  auto transposed = xt::transpose(x);
  check_matrix(as_matrix_view(transposed), transposed);
  auto strided = xt::strided_view(x, {xt::range(0, 5, 2), xt::range(1, 6)});
  check_matrix(as_matrix_view(strided), strided);
  auto strided_again = xt::strided_view(strided, {xt::range(1, 3), xt::range(0, 4, 3)});
  check_matrix(as_matrix_view(strided_again), strided_again);
  auto row = xt::view(x, 2, xt::all());
  check_vector(as_vector_view(row), row);
  auto col = xt::view(x, xt::all(), 3);
  check_vector(as_vector_view(col), col);
  auto backwards = xt::view(x, xt::all(), xt::range(6, 0, -2));
  check_matrix(as_matrix_view(backwards), backwards);
  auto one_row = xt::view(x, xt::range(1, 2), xt::all());
  check_matrix(as_matrix_view(one_row), one_row);
  CHECK(as_matrix_view(one_row).col_stride() != 0);
  auto one_col = xt::view(x, xt::all(), xt::range(1, 2));
  check_matrix(as_matrix_view(one_col), one_col);
  auto none = xt::view(x, xt::range(1, 1), xt::all());
  CHECK(as_matrix_view(none).rows() == 0);

  as_matrix_view(x)(1, 1) = S(-5);  // no copy was made
  CHECK(x(1, 1) == S(-5));
}

TEST_CASE("ranks known at compile time choose the view, others throw") {
  auto x = filled<tensor>(2, 3);
  static_assert(std::is_same_v<decltype(as_view(x)), matrix_view<double>>);
  check_matrix(as_view(x), x);
  xt::xtensor<float, 1> v = xt::arange<float>(0, 5);
  static_assert(std::is_same_v<decltype(as_view(v)), vector_view<float>>);
  check_vector(as_view(v), v);
  check_vector(as_view(xt::view(x, 1, xt::all())), xt::view(x, 1, xt::all()));
  xt::xtensor_fixed<double, xt::xshape<2, 3>> fixed;
  check_matrix(as_view(fixed), fixed);
  auto cube = array::from_shape({2, 2, 2});
  CHECK_THROWS_WITH_AS(as_matrix_view(cube),
                       doctest::Contains("must have 2 dimensions (dimensions = 3)"),
                       invalid_argument);
  CHECK_THROWS_AS(as_vector_view(x), invalid_argument);
  CHECK_THROWS_AS(as_matrix_view(v), invalid_argument);
  auto scalar = array::from_shape({});
  CHECK_THROWS_AS(as_vector_view(scalar), invalid_argument);
}

TEST_CASE("adaptors over foreign memory") {
  std::vector<double> memory(24);
  for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<double>(i);
  auto over_vector = xt::adapt(memory, {4, 6});
  check_matrix(as_matrix_view(over_vector), over_vector);
  const std::vector<std::size_t> shape{3, 4};
  auto over_pointer = xt::adapt(memory.data(), 12, xt::no_ownership(), shape);
  check_matrix(as_matrix_view(over_pointer), over_pointer);
  CHECK(as_matrix_view(xt::adapt(memory.data(), 12, xt::no_ownership(), shape))(2, 3) == 11);
  const std::vector<double>& constant = memory;
  const auto over_constant = xt::adapt(constant, {4, 6});
  CHECK(as_matrix_view(over_constant)(3, 5) == 23);
}

TEST_CASE("views and results come back as adaptors") {
  std::vector<double> memory{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const matrix_view<double> rows(memory.data(), 3, 4), cols(memory.data(), 3, 4, 1, 3);
  check_matrix(rows, as_xtensor(rows));
  check_matrix(cols, as_xtensor(cols));
  check_matrix(rows.middle_rows(1, 1), as_xtensor(rows.middle_rows(1, 1)));
  CHECK(as_xtensor(matrix_view<const double>(cols))(2, 3) == 11);
  check_vector(rows.col(1), as_xtensor(rows.col(1)));
  const xt::xtensor<double, 1> copied_col = as_xtensor(rows.col(1));
  CHECK(copied_col == xt::xtensor<double, 1>{1, 5, 9});
  const tensor copied_cols = as_xtensor(cols);
  CHECK(copied_cols == tensor{{0, 3, 6, 9}, {1, 4, 7, 10}, {2, 5, 8, 11}});
  auto adapted = as_xtensor(rows);
  check_matrix(as_view(adapted), adapted);  // the round trip
  const xt::xtensor<double, 1> copy = as_xtensor(memory);
  CHECK(xt::sum(copy)() == 66);
  as_xtensor(memory)(1) = -1;
  CHECK(memory[1] == -1);
  const auto& constant = memory;
  CHECK(xt::sum(as_xtensor(constant))() == 64);
  // A dimension of length 1 broadcasts, whatever its stride was.
  const tensor sum = as_xtensor(rows.middle_rows(2, 1)) + xt::zeros<double>({2, 4});
  CHECK(sum(1, 3) == 11);
  CHECK(as_xtensor(vector_view<double>()).size() == 0);
  CHECK_THROWS_AS(as_xtensor(vector_view<double>(memory.data() + 3, 3, -1)), invalid_argument);
}

TEST_CASE("what would dangle does not compile") {
  static_assert(Viewable<tensor&> && Viewable<const tensor&> && MatrixViewable<array&>);
  static_assert(!Viewable<tensor> && !MatrixViewable<array> && !MatrixViewable<const array>);
  using view_of_lvalue = decltype(xt::view(std::declval<tensor&>(), xt::all(), xt::all()));
  using view_of_temporary = decltype(xt::view(std::declval<tensor>(), xt::all(), xt::all()));
  static_assert(Viewable<view_of_lvalue> && !Viewable<view_of_temporary>);
  using transpose_of_lvalue = decltype(xt::transpose(std::declval<tensor&>()));
  using transpose_of_temporary = decltype(xt::transpose(std::declval<tensor>()));
  static_assert(MatrixViewable<transpose_of_lvalue> && !MatrixViewable<transpose_of_temporary>);
  static_assert(!Viewable<int&> && !Viewable<std::vector<double>&>);
}
