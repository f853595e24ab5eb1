// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <concepts>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/views.hpp>
#include <ranges>
#include <type_traits>

/// Eigen's arrays as views and back, without a copy in either direction.
///
///     Eigen::MatrixXf G(n, d);                         // or row-major, a Map, a Ref, a block
///     auto scores = dense_scores(exec::cpu{}, as_view(G), as_view(v), options);
///     Eigen::VectorXd phi = as_eigen(scores.data_scores);
///
/// as_view keeps strides and constness. A type with one row or column known at compile time becomes
/// a vector_view, every other a matrix_view. Views and maps hold no data: the array must outlive
/// them, so a temporary matrix is refused, and an expression such as 2 * G, which lies nowhere in
/// memory, is refused with a sentence (call .eval() and keep the result).
namespace dualsft {

namespace detail {

// By deduction, because a segment derives from a block, and a user may derive from a matrix.
template <class Derived>
void accept_dense(const Eigen::DenseBase<Derived>&);
template <class Derived>
void accept_owner(const Eigen::PlainObjectBase<Derived>&);

template <class X>
concept EigenDense = requires(const X& x) {
  accept_dense(x);
};

// Matrix and Array own their elements, and so may a Ref to const.
template <class X>
    struct owns_elements : std::bool_constant < requires(const X& x) {
  accept_owner(x);
} > {};
template <class X, int Options, class Stride>
struct owns_elements<Eigen::Ref<const X, Options, Stride>> : std::true_type {};

template <class X>
concept EigenTemporary = !std::is_lvalue_reference_v<X> && EigenDense<std::remove_cvref_t<X>> &&
                         owns_elements<std::remove_cvref_t<X>>::value;

template <class X>
concept EigenLasting = EigenDense<std::remove_cvref_t<X>> && !EigenTemporary<X>;

}  // namespace detail

/// \param x  a Matrix, Array, Map, Ref, block, row, column, diagonal or transpose
/// \return   vector_view if x is a vector at compile time, else matrix_view; of const elements if
///           x's cannot be written
template <detail::EigenLasting X>
auto as_view(X&& x) {
  using plain = std::remove_cvref_t<X>;
  constexpr bool in_memory = (plain::Flags & Eigen::DirectAccessBit) != 0;
  static_assert(in_memory,
                "dualsft::as_view: this Eigen expression is computed when read and lies nowhere in "
                "memory; store it in a Matrix first (auto stored = expression.eval();)");
  if constexpr (in_memory) {
    using element = std::remove_pointer_t<decltype(x.data())>;
    const index_t inner = x.innerStride();
    if constexpr (plain::IsVectorAtCompileTime) {
      return vector_view<element>(x.data(), x.size(), inner);
    } else {
      const index_t outer = x.outerStride();
      return plain::IsRowMajor ? matrix_view<element>(x.data(), x.rows(), x.cols(), outer, inner)
                               : matrix_view<element>(x.data(), x.rows(), x.cols(), inner, outer);
    }
  }
}

/// A temporary that owns its elements would leave a dangling view: name it first.
template <detail::EigenTemporary X>
auto as_view(X&& x) = delete;

namespace detail {

template <class T, int Rows, int Cols>
using eigen_array =
    std::conditional_t<std::is_const_v<T>, const Eigen::Matrix<std::remove_const_t<T>, Rows, Cols>,
                       Eigen::Matrix<T, Rows, Cols>>;

template <class T>
using eigen_vector_map =
    Eigen::Map<eigen_array<T, Eigen::Dynamic, 1>, Eigen::Unaligned, Eigen::InnerStride<>>;

template <class T>
using eigen_matrix_map =
    Eigen::Map<eigen_array<T, Eigen::Dynamic, Eigen::Dynamic>, Eigen::Unaligned,
               Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;

}  // namespace detail

/// A view as a column vector; assign it to a VectorXd to copy.
template <class T>
detail::eigen_vector_map<T> as_eigen(vector_view<T> x) {
  return {x.data(), x.size(), Eigen::InnerStride<>(x.stride())};
}

/// A contiguous container (a result's std::vector, say) as a column vector.
template <std::ranges::contiguous_range R>
requires std::is_lvalue_reference_v<R> || std::ranges::borrowed_range<R>
auto as_eigen(R&& x) {
  using element = std::remove_reference_t<std::ranges::range_reference_t<R>>;
  return Eigen::Map<detail::eigen_array<element, Eigen::Dynamic, 1>>(
      std::ranges::data(x), static_cast<Eigen::Index>(std::ranges::size(x)));
}

/// A view as a matrix, of either order.
template <class T>
detail::eigen_matrix_map<T> as_eigen(matrix_view<T> x) {
  return {x.data(), x.rows(), x.cols(), {x.col_stride(), x.row_stride()}};
}

/// Member i of the universe -> true at i: to multiply or select with.
inline Eigen::Array<bool, Eigen::Dynamic, 1> as_eigen_mask(const index_set& members) {
  Eigen::Array<bool, Eigen::Dynamic, 1> mask =
      Eigen::Array<bool, Eigen::Dynamic, 1>::Constant(members.universe(), false);
  for (const index_t i : members.indices()) mask[i] = true;
  return mask;
}

}  // namespace dualsft
