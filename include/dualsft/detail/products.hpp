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
/// All operands are row-major with contiguous rows (col_stride 1). Products add to `out`.
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

/// out += a b^T        a [m, k], b [n, k], out [m, n]
template <class S>
void add_a_bt(read_only<S> a, read_only<S> b, matrix_view<S> out) {
  as_map(out).noalias() += as_map(a) * as_map(b).transpose();
}

/// out += a b          a [m, k], b [k, n], out [m, n]
template <class S>
void add_a_b(read_only<S> a, read_only<S> b, matrix_view<S> out) {
  as_map(out).noalias() += as_map(a) * as_map(b);
}

/// out += a^T b        a [k, m], b [k, n], out [m, n]
template <class S>
void add_at_b(read_only<S> a, read_only<S> b, matrix_view<S> out) {
  as_map(out).noalias() += as_map(a).transpose() * as_map(b);
}

}  // namespace dualsft::detail
