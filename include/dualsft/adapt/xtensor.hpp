// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/views.hpp>
#include <ranges>
#include <type_traits>
#include <utility>

#if __has_include(<xtensor/containers/xarray.hpp>)  // 0.26 sorted its headers into folders
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/containers/xarray.hpp>
#include <xtensor/containers/xtensor.hpp>
#include <xtensor/views/xstrided_view.hpp>
#include <xtensor/views/xview.hpp>
#elif __has_include(<xtensor/xarray.hpp>)
#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xstrided_view.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>
#else
#error "dualsft/adapt/xtensor.hpp needs the xtensor headers"
#endif

/// xtensor's arrays as views and back, without a copy in either direction.
///
///     xt::xtensor<float, 2> G = ...;                   // or xarray, xt::adapt, xt::view
///     auto scores = dense_scores(exec::cpu{}, as_view(G), as_view(v), options);
///     xt::xtensor<double, 1> phi = as_xtensor(scores.data_scores);
///
/// as_view is for ranks known at compile time. An xarray learns its rank when it runs: say
/// as_matrix_view or as_vector_view, which throw invalid_argument if it has another. Strides and
/// constness are kept, of row-major, column-major and dynamic layouts. Views hold no data: an array
/// must outlive them, so a temporary one is refused; an expression such as 2 * G, or a view that
/// picks scattered rows (xt::keep), lies nowhere in memory and is refused with a sentence.
namespace dualsft {

namespace detail {

template <class Derived>
void accept_xexpression(const xt::xexpression<Derived>&);

template <class X>
concept XtensorExpression = requires(const X& x) {
  accept_xexpression(x);
};

template <class X>
concept XtensorInMemory = requires(X& x) {
  { x.data() } -> std::convertible_to<const typename X::value_type*>;
  x.strides()[0];
  x.shape()[0];
  x.data_offset();
};

// Containers own their elements, and so does what was made from a container that was moved in.
template <class X>
struct owns_xtensor : std::true_type {};
template <class X>
struct owns_xtensor<X&> : std::false_type {};
template <class X, class... Slices>
struct owns_xtensor<xt::xview<X, Slices...>> : owns_xtensor<X> {};
template <class X, class Shape, xt::layout_type Layout, class Getter>
struct owns_xtensor<xt::xstrided_view<X, Shape, Layout, Getter>> : owns_xtensor<X> {};
template <class Pointer, class Allocator>
struct owns_xtensor<xt::xbuffer_adaptor<Pointer, xt::no_ownership, Allocator>> : std::false_type {};
template <class Store, xt::layout_type Layout, class Shape, class Tag>
struct owns_xtensor<xt::xarray_adaptor<Store, Layout, Shape, Tag>> : owns_xtensor<Store> {};
template <class Store, std::size_t Rank, xt::layout_type Layout, class Tag>
struct owns_xtensor<xt::xtensor_adaptor<Store, Rank, Layout, Tag>> : owns_xtensor<Store> {};

// What is not in memory at all is told so, temporary or not.
template <class X>
concept XtensorTemporary =
    !std::is_lvalue_reference_v<X> && XtensorExpression<std::remove_cvref_t<X>> &&
    XtensorInMemory<std::remove_cvref_t<X>> && owns_xtensor<std::remove_cvref_t<X>>::value;

template <class X>
concept XtensorLasting = XtensorExpression<std::remove_cvref_t<X>> && !XtensorTemporary<X>;

// A view tells its rank only through the length of its shape, an array; a fixed-size container only
// through `rank`, which others set to the largest number.
template <class Shape>
struct shape_rank : std::integral_constant<std::size_t, 0> {};
template <class Size, std::size_t Rank>
struct shape_rank<std::array<Size, Rank>> : std::integral_constant<std::size_t, Rank> {};

template <class X>
consteval std::size_t xtensor_rank() {
  constexpr std::size_t rank = shape_rank<typename X::shape_type>::value;
  if constexpr (rank == 0 && requires { std::integral_constant<std::size_t, X::rank>::value; })
    return X::rank;
  else
    return rank;
}

template <class X>
consteval bool check_xtensor() {
  static_assert(XtensorInMemory<X>,
                "dualsft::as_view: this xtensor expression is computed when read, or scattered, "
                "and has no strides in memory; evaluate it into an array first (xt::eval)");
  return XtensorInMemory<X>;
}

// xtensor gives dimensions of length 1 the stride 0; kernels ask for the one of a dense array.
template <class X>
auto xtensor_matrix(X& x) {
  using element = std::remove_pointer_t<decltype(x.data())>;
  const auto rows = static_cast<index_t>(x.shape()[0]);
  const auto cols = static_cast<index_t>(x.shape()[1]);
  auto row_stride = static_cast<index_t>(x.strides()[0]);
  auto col_stride = static_cast<index_t>(x.strides()[1]);
  if (cols <= 1) col_stride = 1;
  if (rows <= 1) row_stride = cols * col_stride;
  return matrix_view<element>(x.data() + x.data_offset(), rows, cols, row_stride, col_stride);
}

template <class X>
auto xtensor_vector(X& x) {
  using element = std::remove_pointer_t<decltype(x.data())>;
  const auto size = static_cast<index_t>(x.shape()[0]);
  const auto stride = size <= 1 ? index_t{1} : static_cast<index_t>(x.strides()[0]);
  return vector_view<element>(x.data() + x.data_offset(), size, stride);
}

}  // namespace detail

/// \throws invalid_argument  unless x has 2 dimensions
template <detail::XtensorLasting X>
auto as_matrix_view(X&& x) {
  if constexpr (detail::check_xtensor<std::remove_reference_t<X>>()) {
    expects(x.dimension() == 2, "as_matrix_view", "the array must have 2 dimensions", "dimensions",
            x.dimension());
    return detail::xtensor_matrix(x);
  }
}

/// \throws invalid_argument  unless x has 1 dimension
template <detail::XtensorLasting X>
auto as_vector_view(X&& x) {
  if constexpr (detail::check_xtensor<std::remove_reference_t<X>>()) {
    expects(x.dimension() == 1, "as_vector_view", "the array must have 1 dimension", "dimensions",
            x.dimension());
    return detail::xtensor_vector(x);
  }
}

/// \return  matrix_view for 2 dimensions, vector_view for 1; of const elements if x's cannot be
///          written
template <detail::XtensorLasting X>
auto as_view(X&& x) {
  if constexpr (detail::check_xtensor<std::remove_reference_t<X>>()) {
    constexpr std::size_t rank = detail::xtensor_rank<std::remove_cvref_t<X>>();
    static_assert(rank == 1 || rank == 2,
                  "dualsft::as_view: the array must have 1 or 2 dimensions at compile time; for an "
                  "xarray, whose rank is known at run time, say as_matrix_view or as_vector_view");
    if constexpr (rank == 2)
      return detail::xtensor_matrix(x);
    else if constexpr (rank == 1)
      return detail::xtensor_vector(x);
  }
}

/// Temporaries that own their elements would leave dangling views: name them first.
template <detail::XtensorTemporary X>
auto as_matrix_view(X&& x) = delete;
template <detail::XtensorTemporary X>
auto as_vector_view(X&& x) = delete;
template <detail::XtensorTemporary X>
auto as_view(X&& x) = delete;

/// A view as a 1-dimensional adaptor; assign it to an xtensor to copy.
/// \throws invalid_argument  if the stride is negative
template <class T>
auto as_xtensor(vector_view<T> x) {
  expects(x.stride() >= 0, "as_xtensor", "the stride must not be negative", "stride", x.stride());
  const std::array<std::size_t, 1> shape{static_cast<std::size_t>(x.size())};
  const std::array<std::ptrdiff_t, 1> strides{x.size() == 1 ? 0 : x.stride()};
  T* first = x.data();  // moved in, or the adaptor would keep a reference to this variable
  // xtensor asks for a buffer of as many elements as the shape has, however far apart they lie.
  return xt::adapt(std::move(first), shape[0], xt::no_ownership(), shape, strides);
}

/// A contiguous container (a result's std::vector, say) as a 1-dimensional adaptor.
template <std::ranges::contiguous_range R>
requires(!detail::XtensorExpression<std::remove_cvref_t<R>> &&
         (std::is_lvalue_reference_v<R> || std::ranges::borrowed_range<R>)) auto as_xtensor(R&& x) {
  using element = std::remove_reference_t<std::ranges::range_reference_t<R>>;
  return as_xtensor(
      vector_view<element>(std::ranges::data(x), static_cast<index_t>(std::ranges::size(x))));
}

/// A view as a 2-dimensional adaptor of either order.
/// \throws invalid_argument  if a stride is negative
template <class T>
auto as_xtensor(matrix_view<T> x) {
  expects(x.row_stride() >= 0 && x.col_stride() >= 0, "as_xtensor", "strides must not be negative",
          "row_stride", x.row_stride(), "col_stride", x.col_stride());
  const std::array<std::size_t, 2> shape{static_cast<std::size_t>(x.rows()),
                                         static_cast<std::size_t>(x.cols())};
  const std::array<std::ptrdiff_t, 2> strides{x.rows() == 1 ? 0 : x.row_stride(),
                                              x.cols() == 1 ? 0 : x.col_stride()};
  T* first = x.data();
  return xt::adapt(std::move(first), shape[0] * shape[1], xt::no_ownership(), shape, strides);
}

}  // namespace dualsft
