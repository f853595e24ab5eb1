// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <dualsft/error.hpp>
#include <dualsft/float16.hpp>
#include <dualsft/views.hpp>
#include <type_traits>

/// What a product of two matrices on a device takes, whoever computes it.
namespace dualsft {

enum class product_into { overwrite, add };

struct product_options {
  float alpha = 1;
  product_into into = product_into::overwrite;
};

/// Operands of one type; sums of 16-bit operands may stay in float.
template <class A, class B, class C>
concept ProductTypes = std::same_as<std::remove_const_t<A>, std::remove_const_t<B>> &&
    (std::same_as<std::remove_const_t<A>, float> ||
     Storage16<std::remove_const_t<A>>)&&(std::same_as<C, float> ||
                                          std::same_as<C, std::remove_const_t<A>>);

namespace detail {

/// Which operand is read transposed: C [m, n] = A B^T, A B or A^T B.
enum class product_kind { a_bt, a_b, at_b };

struct product_shape {
  index_t m = 0, n = 0, k = 0;
};

/// Elements from one row to the next; of a single row that is never read, and any number will do.
template <class T>
index_t leading_dimension(const matrix_view<T, device_space>& matrix) {
  return matrix.rows() > 1 ? matrix.row_stride() : matrix.cols();
}

template <class A, class B, class C>
product_shape checked_product(const char* function, product_kind kind,
                              const matrix_view<A, device_space>& a,
                              const matrix_view<B, device_space>& b,
                              const matrix_view<C, device_space>& c) {
  const product_shape shape{c.rows(), c.cols(), kind == product_kind::at_b ? a.rows() : a.cols()};
  expects((kind == product_kind::at_b ? a.cols() : a.rows()) == shape.m &&
              (kind == product_kind::a_bt ? b.rows() : b.cols()) == shape.n &&
              (kind == product_kind::a_bt ? b.cols() : b.rows()) == shape.k,
          function, "the shapes of a product must fit", "A rows", a.rows(), "A cols", a.cols(),
          "B rows", b.rows(), "B cols", b.cols(), "C rows", c.rows(), "C cols", c.cols());
  const auto check = [&](const auto& matrix, const char* name) {
    expects(matrix.cols() <= 1 || matrix.col_stride() == 1, function,
            "rows of device matrices must be contiguous", "matrix", name, "column stride",
            matrix.col_stride());
    expects(leading_dimension(matrix) >= matrix.cols(), function,
            "rows of device matrices must not overlap", "matrix", name, "row stride",
            matrix.row_stride(), "cols", matrix.cols());
  };
  check(a, "A");
  check(b, "B");
  check(c, "C");
  return shape;
}

}  // namespace detail
}  // namespace dualsft
