// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <dualsft/detail/npy_header.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/io/atomic_file.hpp>
#include <dualsft/views.hpp>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace dualsft {

/// Writes an array in blocks of any size; the file appears, complete, with finish().
template <NpyElement T>
class npy_writer {
 public:
  /// \param shape  each dimension >= 0; elements arrive in the given order of axes
  /// \throws input_error  (field "output") if the place cannot be written
  npy_writer(std::string path, const std::vector<index_t>& shape,
             array_order order = array_order::c)
      : remaining_(count(shape)), file_(std::move(path)) {
    file_.write(detail::npy_header_bytes(detail::npy_type_of<T>(), order, shape));
  }

  /// \throws invalid_argument  if there are more elements than the shape has
  void append(vector_view<const T> values) {
    expects(values.size() <= remaining_, "npy_writer::append",
            "no more elements than the shape has", "appended", values.size(), "room", remaining_);
    if (values.contiguous()) {
      file_.write(std::as_bytes(values.span()));
    } else {
      for (index_t i = 0; i < values.size(); ++i)
        file_.write(std::as_bytes(std::span(&values[i], 1)));
    }
    remaining_ -= values.size();
  }

  /// \throws invalid_argument  if elements are missing; then no file appears
  void finish() {
    expects(remaining_ == 0, "npy_writer::finish", "every element must have been appended",
            "missing", remaining_);
    file_.commit();
  }

 private:
  static index_t count(const std::vector<index_t>& shape) {
    for (const index_t n : shape)
      expects(n >= 0, "npy_writer", "dimensions must not be negative", "dimension", n);
    const auto elements = detail::element_count(shape, static_cast<index_t>(sizeof(T)));
    expects(elements.has_value(), "npy_writer", "the array must have fewer than 2^62 bytes",
            "shape", detail::shape_text(shape));
    return *elements;
  }

  index_t remaining_;
  atomic_file file_;
};

/// Writes a whole array.
/// \param values  contiguous, as many as the shape has, in C order
template <std::ranges::contiguous_range R>
requires NpyElement<std::ranges::range_value_t<R>>
void npy_write(const std::string& path, const R& values, const std::vector<index_t>& shape) {
  npy_writer<std::ranges::range_value_t<R>> writer(path, shape);
  writer.append(values);
  writer.finish();
}

/// Writes a matrix of any strides, in C order.
template <class T>
requires NpyElement<std::remove_const_t<T>>
void npy_write(const std::string& path, matrix_view<T> values) {
  npy_writer<std::remove_const_t<T>> writer(path, {values.rows(), values.cols()});
  for (index_t i = 0; i < values.rows(); ++i) writer.append(values.row(i));
  writer.finish();
}

/// Writes a set as a bool array [universe]: true at its members.
inline void npy_write_mask(const std::string& path, const index_set& members) {
  constexpr index_t block = index_t{1} << 16;
  npy_writer<bool> writer(path, {members.universe()});
  const auto mask = std::make_unique<bool[]>(static_cast<std::size_t>(block));
  for (index_t first = 0; first < members.universe(); first += block) {
    const index_t count = std::min(block, members.universe() - first);
    std::fill_n(mask.get(), count, false);
    for (const index_t i : members.within(first, first + count)) mask.get()[i - first] = true;
    writer.append(vector_view<const bool>(mask.get(), count));
  }
  writer.finish();
}

}  // namespace dualsft
