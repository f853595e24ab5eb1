// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <ranges>
#include <span>
#include <type_traits>

/// Non-owning views of arrays, with the memory they live in as part of their type.
///
/// vector_view<T, Space>   n elements, element i at data + i * stride
/// matrix_view<T, Space>   rows x cols, element (i, j) at data + i * row_stride + j * col_stride
///
/// Row-major, column-major and strided sub-arrays are all matrix_views, so an Eigen matrix, an
/// xtensor array or a std::vector is scored where it lies. A view of const elements is made from a
/// view of mutable ones, never the other way; a device view never converts to a host view, and
/// element access exists for host views only, so mixing the two does not compile.
///
/// Sizes and strides count elements and are 64-bit. Strides may be negative or zero for reading.
namespace dualsft {

/// Memory that this processor reads and writes.
struct host_space {};
/// Memory of an accelerator; only code behind a device execution policy touches it.
struct device_space {};

template <class S>
concept MemorySpace = std::same_as<S, host_space> || std::same_as<S, device_space>;

namespace detail {

template <class T>
using array_of = T (*)[];

/// A contiguous range whose elements a view of T may refer to: no added mutability, no derived
/// classes, and no temporary that owns what a mutable view would outlive.
template <class R, class T>
concept ElementsOf = std::ranges::contiguous_range<R> &&
    std::is_convertible_v<array_of<std::remove_reference_t<std::ranges::range_reference_t<R>>>,
                          array_of<T>> &&
    (std::ranges::borrowed_range<R> || std::is_const_v<T> || std::is_lvalue_reference_v<R>);

}  // namespace detail

template <class T, MemorySpace Space = host_space>
class vector_view {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  using memory_space = Space;

  constexpr vector_view() = default;

  constexpr vector_view(T* data, index_t size, index_t stride = 1)
      : data_(data), size_(size), stride_(stride) {
    expects(size >= 0, "vector_view", "size must not be negative", "size", size);
  }

  /// From std::vector, std::array, std::span: anything contiguous whose elements fit.
  template <detail::ElementsOf<T> R>
  requires std::same_as<Space, host_space>
  // NOLINTNEXTLINE(bugprone-forwarding-reference-overload): a view is no contiguous range
  constexpr vector_view(R&& range)
      : data_(std::ranges::data(range)), size_(static_cast<index_t>(std::ranges::size(range))) {}

  /// From a view of mutable elements.
  template <class U>
  requires(std::is_const_v<T>&& std::same_as<U, std::remove_const_t<T>>) constexpr vector_view(
      const vector_view<U, Space>& other)  // NOLINT(google-explicit-constructor)
      : data_(other.data()), size_(other.size()), stride_(other.stride()) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr index_t size() const noexcept { return size_; }
  constexpr index_t stride() const noexcept { return stride_; }
  constexpr bool contiguous() const noexcept { return stride_ == 1 || size_ <= 1; }

  constexpr T& operator[](index_t i) const noexcept requires std::same_as<Space, host_space> {
    return data_[i * stride_];
  }

  /// Elements [offset, offset + count).
  constexpr vector_view subview(index_t offset, index_t count) const {
    expects(0 <= offset && 0 <= count && offset <= size_ - count, "vector_view::subview",
            "[offset, offset + count) must lie in [0, size)", "offset", offset, "count", count,
            "size", size_);
    return {data_ + offset * stride_, count, stride_};
  }

  constexpr std::span<T> span() const requires std::same_as<Space, host_space> {
    expects(contiguous(), "vector_view::span", "the view must be contiguous", "stride", stride_);
    return {data_, static_cast<std::size_t>(size_)};
  }

 private:
  T* data_ = nullptr;
  index_t size_ = 0;
  index_t stride_ = 1;
};

template <std::ranges::contiguous_range R>
vector_view(R&&) -> vector_view<std::remove_reference_t<std::ranges::range_reference_t<R>>>;

template <class T, MemorySpace Space = host_space>
class matrix_view {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  using memory_space = Space;

  constexpr matrix_view() = default;

  /// Row-major and dense.
  constexpr matrix_view(T* data, index_t rows, index_t cols)
      : matrix_view(data, rows, cols, cols, 1) {}

  constexpr matrix_view(T* data, index_t rows, index_t cols, index_t row_stride, index_t col_stride)
      : data_(data), rows_(rows), cols_(cols), row_stride_(row_stride), col_stride_(col_stride) {
    expects(rows >= 0 && cols >= 0, "matrix_view", "rows and cols must not be negative", "rows",
            rows, "cols", cols);
  }

  template <class U>
  requires(std::is_const_v<T>&& std::same_as<U, std::remove_const_t<T>>) constexpr matrix_view(
      const matrix_view<U, Space>& other)  // NOLINT(google-explicit-constructor)
      : data_(other.data()),
        rows_(other.rows()),
        cols_(other.cols()),
        row_stride_(other.row_stride()),
        col_stride_(other.col_stride()) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr index_t rows() const noexcept { return rows_; }
  constexpr index_t cols() const noexcept { return cols_; }
  constexpr index_t row_stride() const noexcept { return row_stride_; }
  constexpr index_t col_stride() const noexcept { return col_stride_; }

  constexpr T& operator()(index_t i,
                          index_t j) const noexcept requires std::same_as<Space, host_space> {
    return data_[i * row_stride_ + j * col_stride_];
  }

  constexpr vector_view<T, Space> row(index_t i) const {
    expects(0 <= i && i < rows_, "matrix_view::row", "i must lie in [0, rows)", "i", i, "rows",
            rows_);
    return {data_ + i * row_stride_, cols_, col_stride_};
  }

  constexpr vector_view<T, Space> col(index_t j) const {
    expects(0 <= j && j < cols_, "matrix_view::col", "j must lie in [0, cols)", "j", j, "cols",
            cols_);
    return {data_ + j * col_stride_, rows_, row_stride_};
  }

  /// Rows [first, first + count).
  constexpr matrix_view middle_rows(index_t first, index_t count) const {
    expects(0 <= first && 0 <= count && first <= rows_ - count, "matrix_view::middle_rows",
            "[first, first + count) must lie in [0, rows)", "first", first, "count", count, "rows",
            rows_);
    return {data_ + first * row_stride_, count, cols_, row_stride_, col_stride_};
  }

  constexpr matrix_view transposed() const {
    return {data_, cols_, rows_, col_stride_, row_stride_};
  }

 private:
  T* data_ = nullptr;
  index_t rows_ = 0;
  index_t cols_ = 0;
  index_t row_stride_ = 0;
  index_t col_stride_ = 1;
};

}  // namespace dualsft
