// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <dualsft/config.hpp>
#include <dualsft/views.hpp>
#include <type_traits>

/// The three matrix products that models and ghost scores are made of, each compiled once per
/// scalar: Eigen instantiates a whole blocked kernel for every pair of expression types, which made
/// up most of the compile time of anything with a network in it.
///
/// All operands are row-major with contiguous rows (col_stride 1). Products add to `out`, and give
/// the same bits for the same numbers wherever the operands lie in memory: Eigen's own sums do not,
/// because they treat the elements before the first aligned one apart.
namespace dualsft::detail {

template <class S>
using row_matrix = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class S>
using row_map = Eigen::Map<row_matrix<S>, 0, Eigen::OuterStride<>>;
template <class S>
using const_row_map = Eigen::Map<const row_matrix<S>, 0, Eigen::OuterStride<>>;

template <class S>
const_row_map<S> as_map(matrix_view<const S> m) {
  return {m.data(), m.rows(), m.cols(), Eigen::OuterStride<>(m.row_stride())};
}
template <class S>
row_map<S> as_map(matrix_view<S> m) {
  return {m.data(), m.rows(), m.cols(), Eigen::OuterStride<>(m.row_stride())};
}

template <class S>
matrix_view<const S> view_of(const row_matrix<S>& m) {
  return {m.data(), m.rows(), m.cols()};
}
template <class S>
matrix_view<S> view_of(row_matrix<S>& m) {
  return {m.data(), m.rows(), m.cols()};
}

/// An operand whose scalar follows from the result's, so that mutable views convert.
template <class S>
using read_only = std::type_identity_t<matrix_view<const S>>;

/// Below this sum of sizes Eigen multiplies coefficient by coefficient, in an order that depends on
/// how `out` is aligned; plain loops give the same bits wherever it lies.
inline constexpr index_t least_blocked = 32;

/// out(i, j) += sum over l of left(i, l) * right(l, j), in the order of l.
template <class S, class Left, class Right>
void add_plainly(index_t inner, matrix_view<S> out, Left&& left, Right&& right) {
  for (index_t i = 0; i < out.rows(); ++i)
    for (index_t j = 0; j < out.cols(); ++j) {
      S sum = 0;
      for (index_t l = 0; l < inner; ++l) sum += left(i, l) * right(l, j);
      out(i, j) += sum;
    }
}

/// out += a b^T        a [m, k], b [n, k], out [m, n]
template <class S>
void add_a_bt(read_only<S> a, read_only<S> b, matrix_view<S> out) {
  if (out.rows() + out.cols() + a.cols() < least_blocked)
    add_plainly(a.cols(), out, a, b.transposed());
  else
    as_map(out).noalias() += as_map(a) * as_map(b).transpose();
}

/// out += a b          a [m, k], b [k, n], out [m, n]
template <class S>
void add_a_b(read_only<S> a, read_only<S> b, matrix_view<S> out) {
  if (out.rows() + out.cols() + a.cols() < least_blocked)
    add_plainly(a.cols(), out, a, b);
  else
    as_map(out).noalias() += as_map(a) * as_map(b);
}

/// out += a^T b        a [k, m], b [k, n], out [m, n]
template <class S>
void add_at_b(read_only<S> a, read_only<S> b, matrix_view<S> out) {
  if (out.rows() + out.cols() + a.rows() < least_blocked)
    add_plainly(a.rows(), out, a.transposed(), b);
  else
    as_map(out).noalias() += as_map(a).transpose() * as_map(b);
}

/// out[c] += sum over rows of e(t, c), in the order of the rows.
template <class S, class Out>
void add_column_sums(matrix_view<const S> e, Out* out) {
  for (index_t t = 0; t < e.rows(); ++t)
    for (index_t c = 0; c < e.cols(); ++c) out[c] += static_cast<Out>(e(t, c));
}

/// out[c] += sum over rows of e(t, c) x(t, c), products rounded to S, in the order of the rows.
template <class S, class Out>
void add_column_dots(matrix_view<const S> e, matrix_view<const S> x, Out* out) {
  for (index_t t = 0; t < e.rows(); ++t)
    for (index_t c = 0; c < e.cols(); ++c) {
      const S product = e(t, c) * x(t, c);
      out[c] += static_cast<Out>(product);
    }
}

}  // namespace dualsft::detail
