// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/views.hpp>
#include <type_traits>

/// Thrust's device vectors and pointers as views in device_space, without a copy.
///
///     thrust::device_vector<float> G(d), theta(d);
///     accumulate(exec::cuda{stream}, as_device_view(gradient), as_device_view(G));
///     as_device_view(thrust::device_ptr<float>(p), n);          // and raw: vector_view<float, device_space>(p, n)
///
/// A const vector gives a view of const elements. Views hold no data: the vector must outlive them and
/// keep its size, so a temporary one is refused. Work that Thrust has begun on another stream is not
/// waited for.
///
/// Thrust itself is not included: any container whose data() is a pointer object with get(), as those of
/// device_vector and universal_vector, will do. Memory that the host alone reads has raw pointers, and is
/// refused.
namespace dualsft {

namespace detail {

/// thrust::device_ptr and its like.
template <class P>
concept DevicePointer = requires(const P& pointer) {
  { *pointer.get() } -> std::convertible_to<const std::remove_pointer_t<decltype(pointer.get())>&>;
  requires std::is_pointer_v<decltype(pointer.get())>;
};

template <class X>
concept DeviceVector = requires(X& x) {
  { x.data() } -> DevicePointer;
  { x.size() } -> std::convertible_to<std::size_t>;
};

template <class P>
using pointed_by = std::remove_pointer_t<decltype(std::declval<const P&>().get())>;

}  // namespace detail

/// All of a device vector.
template <class X>
requires detail::DeviceVector<X>
auto as_device_view(X& x) {
  using element = detail::pointed_by<decltype(x.data())>;
  return vector_view<element, device_space>(x.data().get(), static_cast<index_t>(x.size()));
}
template <class X>
requires(detail::DeviceVector<X> &&
         !std::is_lvalue_reference_v<X>) void as_device_view(X&&) = delete;

/// `size` elements from a pointer on.
template <detail::DevicePointer P>
auto as_device_view(const P& begin, index_t size) {
  return vector_view<detail::pointed_by<P>, device_space>(begin.get(), size);
}

/// A device vector as a dense row-major matrix.
/// \throws invalid_argument  if it has not rows * cols elements
template <class X>
requires detail::DeviceVector<X>
auto as_device_matrix_view(X& x, index_t rows, index_t cols) {
  using element = detail::pointed_by<decltype(x.data())>;
  const auto size = static_cast<index_t>(x.size());
  expects(
      rows >= 0 && cols >= 0 && (cols == 0 ? size == 0 : size / cols == rows && size % cols == 0),
      "as_device_matrix_view", "the vector must have rows * cols elements", "size", size, "rows",
      rows, "cols", cols);
  return matrix_view<element, device_space>(x.data().get(), rows, cols);
}

}  // namespace dualsft
