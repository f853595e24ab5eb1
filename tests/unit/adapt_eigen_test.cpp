// Proves: every Eigen object that lies in memory is viewed where it lies, and views come back.
// Against: the elements that Eigen itself gives, and writes seen through the other side.
#include <doctest/doctest.h>

#include <dualsft/adapt/eigen.hpp>
#include <type_traits>
#include <vector>

using namespace dualsft;
using Eigen::Dynamic;

namespace {

using row_major = Eigen::Matrix<double, Dynamic, Dynamic, Eigen::RowMajor>;
using row_major_array = Eigen::Array<float, Dynamic, Dynamic, Eigen::RowMajor>;

template <class M>
M filled(Eigen::Index rows, Eigen::Index cols) {
  M x(rows, cols);
  for (Eigen::Index i = 0; i < rows; ++i)
    for (Eigen::Index j = 0; j < cols; ++j) x(i, j) = static_cast<typename M::Scalar>(100 * i + j);
  return x;
}

template <class View, class X>
void check_matrix(const View& view, const X& x) {
  REQUIRE(view.rows() == x.rows());
  REQUIRE(view.cols() == x.cols());
  for (index_t i = 0; i < x.rows(); ++i)
    for (index_t j = 0; j < x.cols(); ++j) {
      REQUIRE(view(i, j) == x(i, j));
      REQUIRE(&view(i, j) == &x.coeffRef(i, j));
    }
}

template <class View, class X>
void check_vector(const View& view, const X& x) {
  REQUIRE(view.size() == x.size());
  for (index_t i = 0; i < x.size(); ++i) REQUIRE(&view[i] == &x.coeffRef(i));
}

// What a caller can write; a deleted overload shows here.
template <class X>
concept Viewable = requires(X&& x) {
  as_view(std::forward<X>(x));
};

}  // namespace

TEST_CASE_TEMPLATE("matrices of both orders, blocks, transposes, maps and refs", M, Eigen::MatrixXd,
                   row_major, Eigen::MatrixXf, Eigen::ArrayXXd, row_major_array) {
  using S = typename M::Scalar;
  M x = filled<M>(5, 7);
  const M& constant = x;
  static_assert(std::is_same_v<decltype(as_view(x)), matrix_view<S>>);
  static_assert(std::is_same_v<decltype(as_view(constant)), matrix_view<const S>>);
  check_matrix(as_view(x), x);
  check_matrix(as_view(constant), x);
  check_matrix(as_view(x.block(1, 2, 3, 4)), x.block(1, 2, 3, 4));
  check_matrix(as_view(constant.block(1, 2, 3, 4)), x.block(1, 2, 3, 4));
  check_matrix(as_view(x.block(1, 2, 3, 4).block(1, 1, 2, 2)), x.block(2, 3, 2, 2));
  check_matrix(as_view(x.transpose()), x.transpose());
  check_matrix(as_view(x.middleRows(2, 0)), x.middleRows(2, 0));
  check_vector(as_view(x.row(2)), x.row(2));
  check_vector(as_view(x.col(3)), x.col(3));
  check_vector(as_view(x.matrix().diagonal()), x.matrix().diagonal());
  check_vector(as_view(x.row(2).tail(3)), x.row(2).tail(3));
  check_vector(as_view(x.transpose().col(2)), x.row(2));

  const Eigen::Map<M, 0, Eigen::OuterStride<>> outer(x.data(), 2, 3, Eigen::OuterStride<>(8));
  check_matrix(as_view(outer), outer);
  Eigen::Map<const M, 0, Eigen::Stride<Dynamic, Dynamic>> both(x.data(), 3, 2, {11, 2});
  static_assert(std::is_same_v<decltype(as_view(both)), matrix_view<const S>>);
  CHECK(as_view(both)(2, 1) == both(2, 1));
  CHECK(&as_view(both)(2, 1) == &both.coeffRef(2, 1));
  Eigen::Ref<M> reference(x);
  check_matrix(as_view(reference), x);
  const Eigen::Ref<const M> constant_reference(x);
  check_matrix(as_view(constant_reference), x);

  as_view(x)(1, 1) = S(-5);  // no copy was made
  CHECK(x(1, 1) == S(-5));
}

TEST_CASE("vectors, rows of fixed shape, empty arrays") {
  Eigen::VectorXd x = Eigen::VectorXd::LinSpaced(9, 0, 8);
  static_assert(std::is_same_v<decltype(as_view(x)), vector_view<double>>);
  check_vector(as_view(x), x);
  check_vector(as_view(x.segment(2, 5)), x.segment(2, 5));
  check_vector(as_view(x.transpose()), x);
  const Eigen::Map<const Eigen::VectorXd, 0, Eigen::InnerStride<>> every_second(
      x.data(), 4, Eigen::InnerStride<>(2));
  CHECK(as_view(every_second)[3] == 6);
  CHECK(as_view(every_second).stride() == 2);
  Eigen::Matrix<float, 1, 3> row(1, 2, 3);
  CHECK(as_view(row).size() == 3);
  Eigen::Matrix2d fixed;
  fixed << 1, 2, 3, 4;
  CHECK(as_view(fixed)(1, 0) == 3);
  Eigen::MatrixXd none(0, 4);
  CHECK(as_view(none).cols() == 4);
  Eigen::VectorXd empty;
  CHECK(as_view(empty).size() == 0);
}

TEST_CASE("views and results come back as maps") {
  std::vector<double> memory{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const matrix_view<double> rows(memory.data(), 3, 4), cols(memory.data(), 3, 4, 1, 3);
  check_matrix(rows, as_eigen(rows));
  check_matrix(cols, as_eigen(cols));
  check_matrix(rows, as_eigen(matrix_view<const double>(rows)));
  check_matrix(as_view(as_eigen(rows)), as_eigen(rows));  // the round trip
  check_vector(rows.col(1), as_eigen(rows.col(1)));
  const Eigen::VectorXd copy = as_eigen(memory);
  CHECK(copy.sum() == 66);
  as_eigen(memory).head(2).setConstant(-1);
  CHECK(memory[1] == -1);
  as_eigen(rows).row(2).setZero();
  CHECK(memory[11] == 0);
  const auto& constant = memory;
  static_assert(std::is_const_v<std::remove_pointer_t<decltype(as_eigen(constant).data())>>);
  CHECK((as_eigen(rows) * Eigen::Vector4d::Ones()).size() == 3);

  const auto mask = as_eigen_mask(index_set({1, 3}, 5));
  CHECK(mask.count() == 2);
  CHECK((mask[1] && mask[3] && !mask[4]));
  CHECK(as_eigen_mask(index_set({}, 0)).size() == 0);
}

TEST_CASE("what would dangle does not compile") {
  static_assert(Viewable<Eigen::MatrixXd&> && Viewable<const Eigen::MatrixXd&>);
  static_assert(!Viewable<Eigen::MatrixXd> && !Viewable<const Eigen::MatrixXd>);
  static_assert(!Viewable<Eigen::ArrayXf> && !Viewable<Eigen::Vector3d>);
  static_assert(!Viewable<Eigen::Ref<const Eigen::MatrixXd>>);  // may own a copy
  static_assert(Viewable<Eigen::Ref<Eigen::MatrixXd>>);
  static_assert(Viewable<Eigen::Map<Eigen::MatrixXd>>);
  static_assert(Viewable<Eigen::Block<Eigen::MatrixXd>>);
  static_assert(!Viewable<int&> && !Viewable<std::vector<double>&>);
}
