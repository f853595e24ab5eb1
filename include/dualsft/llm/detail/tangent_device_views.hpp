// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <dualsft/error.hpp>
#include <dualsft/float16.hpp>
#include <dualsft/views.hpp>
#include <limits>
#include <type_traits>

namespace dualsft::llm {

/// Elements of activations on a device; arithmetic is in float.
template <class T>
concept TangentScalar = std::same_as<T, float> || Storage16<T>;

/// Rows of values and of their derivatives along a direction, [T, n] each, a token per row.
/// Elements of a row are contiguous; rows may have any distance.
template <class T>
struct tangent_rows {
  matrix_view<T, device_space> values = {}, tangents = {};

  index_t rows() const { return values.rows(); }
  index_t cols() const { return values.cols(); }
  template <class U>
  requires(std::is_const_v<U>&& std::same_as<T, std::remove_const_t<U>>)
  // NOLINTNEXTLINE(google-explicit-constructor): as views do
  operator tangent_rows<U>() const {
    return {values, tangents};
  }
};

/// Of [2 T, n], the values above.
/// \throws invalid_argument  if the number of rows is odd
template <class T>
tangent_rows<T> stacked(const matrix_view<T, device_space>& m) {
  expects(m.rows() % 2 == 0, "stacked", "there must be as many tangents as values", "rows",
          m.rows());
  const index_t half = m.rows() / 2;
  return {m.middle_rows(0, half), m.middle_rows(half, half)};
}

/// Of [T, 2 n], the values on the left.
/// \throws invalid_argument  if the number of columns is odd
template <class T>
tangent_rows<T> side_by_side(const matrix_view<T, device_space>& m) {
  expects(m.cols() % 2 == 0, "side_by_side", "there must be as many tangents as values", "cols",
          m.cols());
  const index_t half = m.cols() / 2;
  return {{m.data(), m.rows(), half, m.row_stride(), m.col_stride()},
          {m.data() + half * m.col_stride(), m.rows(), half, m.row_stride(), m.col_stride()}};
}

namespace detail {

/// What a function reads: its element type follows from what it writes.
template <class T>
using read_rows = std::type_identity_t<tangent_rows<const T>>;

template <class T>
void expects_contiguous_rows(const char* function, const char* name,
                             const matrix_view<T, device_space>& m) {
  expects(m.cols() <= 1 || m.col_stride() == 1, function,
          "rows of device matrices must be contiguous", "matrix", name, "column stride",
          m.col_stride());
}
template <class T>
void expects_contiguous(const char* function, const char* name,
                        const vector_view<T, device_space>& v, index_t size) {
  expects(v.contiguous(), function, "device views must be contiguous", "vector", name, "stride",
          v.stride());
  expects(v.size() == size, function, "a vector has the wrong length", "vector", name, "size",
          v.size(), "expected", size);
}
template <class T>
void expects_shape(const char* function, const char* name, const tangent_rows<T>& m, index_t rows,
                   index_t cols) {
  const auto check = [&](const matrix_view<T, device_space>& part) {
    expects(part.rows() == rows && part.cols() == cols, function,
            "values and tangents must have the same shape as what they belong to", "matrix", name,
            "rows", part.rows(), "cols", part.cols(), "expected rows", rows, "expected cols", cols);
    expects_contiguous_rows(function, name, part);
  };
  check(m.values);
  check(m.tangents);
}
/// A grid has as many blocks as there are rows, or heads.
inline void expects_blocks(const char* function, const char* name, index_t count) {
  expects(count <= std::numeric_limits<int>::max(), function, "at most 2^31 - 1 fit", "what", name,
          "count", count);
}

}  // namespace detail
}  // namespace dualsft::llm
