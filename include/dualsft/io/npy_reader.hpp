// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <dualsft/detail/npy_header.hpp>
#include <dualsft/io/mapped_file.hpp>
#include <dualsft/views.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace dualsft {

/// Throws unless every value is finite: for vectors whose infection would spread to all scores.
/// \param first  number of values[0] in the file, for the message
/// \throws input_error  naming the first value that is NaN or infinite
template <class T>
void require_finite(const std::string& file, vector_view<const T> values, index_t first = 0) {
  for (index_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i])) [[unlikely]]
      throw input_error(file, "value " + std::to_string(first + i),
                        std::isnan(values[i]) ? "nan"
                        : values[i] > 0       ? "inf"
                                              : "-inf",
                        "a finite number");
}

/// A mapped file seen as an array; see npy_reader::map.
template <NpyElement T>
class npy_mapping {
  static_assert(!std::same_as<T, bool>,
                "dualsft::npy_mapping: a byte of a file need not be a valid bool; use "
                "npy_reader::read");

 public:
  npy_mapping(const detail::file_handle& file, detail::npy_header header, access_pattern access)
      : map_(file, access), header_(std::move(header)) {
    const index_t size = header_.data_offset + header_.elements * index_t{sizeof(T)};
    if (static_cast<index_t>(map_.bytes().size()) != size)
      throw input_error(file.path(), "file size", std::to_string(map_.bytes().size()) + " bytes",
                        std::to_string(size) + " bytes, as when it was opened");
    const auto bytes = map_.bytes().subspan(static_cast<std::size_t>(header_.data_offset));
    // The format asks for alignment; a file that lacks it can still be read, not pointed into.
    if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) != 0)
      throw input_error(file.path(), "header length",
                        "data at byte " + std::to_string(header_.data_offset),
                        "a multiple of " + std::to_string(alignof(T)) + " (to map; or read it)");
    data_ = reinterpret_cast<const T*>(bytes.data());
  }

  /// All elements in the order of the file.
  vector_view<const T> elements() const { return {data_, header_.elements}; }

  /// Of a 2-dimensional array, C or Fortran; valid while this object lives.
  matrix_view<const T> matrix() const {
    expects(header_.shape.size() == 2, "npy_mapping::matrix", "the array must have 2 dimensions",
            "dimensions", header_.shape.size());
    const index_t rows = header_.shape[0], cols = header_.shape[1];
    return header_.order == array_order::c ? matrix_view<const T>(data_, rows, cols, cols, 1)
                                           : matrix_view<const T>(data_, rows, cols, 1, rows);
  }

 private:
  mapped_file map_;
  detail::npy_header header_;
  const T* data_ = nullptr;
};

/// An open .npy file. All reading members are const and thread-safe (no shared file position).
class npy_reader {
 public:
  /// \throws input_error  if the file is missing, not .npy, of another type, or of the wrong size
  explicit npy_reader(std::string path)
      : file_(detail::file_handle::open_existing(std::move(path))),
        header_(detail::read_npy_header(file_)) {}

  const std::string& path() const noexcept { return file_.path(); }
  npy_type type() const noexcept { return header_.type; }
  array_order order() const noexcept { return header_.order; }
  const std::vector<index_t>& shape() const noexcept { return header_.shape; }
  /// The number of elements.
  index_t size() const noexcept { return header_.elements; }

  /// Whether elements are stored as T, so that reading into T converts nothing.
  template <NpyElement T>
  bool holds() const noexcept {
    return header_.type == detail::npy_type_of<T>();
  }

  /// \throws input_error  unless the array has this shape; -1 stands for any length
  void require_shape(const std::vector<index_t>& wanted) const {
    bool same = wanted.size() == shape().size();
    for (std::size_t i = 0; same && i < wanted.size(); ++i)
      same = wanted[i] < 0 || wanted[i] == shape()[i];
    if (same) return;
    std::string text = detail::shape_text(wanted);
    for (auto at = text.find("-1"); at != std::string::npos; at = text.find("-1"))
      text.replace(at, 2, "any");
    throw input_error(path(), "shape", detail::shape_text(shape()), text);
  }

  /// Of a 2-dimensional array.
  /// \throws input_error  if it has another number of dimensions
  index_t rows() const { return dimension(0); }
  index_t cols() const { return dimension(1); }

  /// Elements [first, first + out.size()) in the order of the file.
  ///
  /// float32 widens and float64 narrows (to nearest) when the file holds the other of the two;
  /// nothing else converts.
  /// \throws invalid_argument  if the range leaves the array
  /// \throws input_error       if T cannot hold the file's type, or reading fails; then `out` holds
  ///                           unspecified values
  template <NpyElement T>
  void read(index_t first, std::span<T> out) const {
    const auto count = static_cast<index_t>(out.size());
    expects(0 <= first && first <= size() && count <= size() - first, "npy_reader::read",
            "the range must lie in the array", "first", first, "count", count, "size", size());
    read_run(first, vector_view<T>(out));
  }

  /// out(i, j) = element (row + i, col + j) of a 2-dimensional array, whatever its order.
  ///
  /// \param out  any strides; its shape is the rectangle's
  /// \throws as read; input_error also if the array has not 2 dimensions
  ///
  /// Cost: one system call per run of neighbours in the file: one for whole rows of a C array into
  /// a dense row-major `out` (whole columns of a Fortran array into a column-major one), otherwise
  /// one per row (column), through a buffer of 64 KiB where the type or a stride differs.
  template <NpyElement T>
  void read_rectangle(index_t row, index_t col, matrix_view<T> out) const {
    index_t lines = rows(), length = cols();
    expects(0 <= row && row <= lines && out.rows() <= lines - row && 0 <= col && col <= length &&
                out.cols() <= length - col,
            "npy_reader::read_rectangle", "the rectangle must lie in the array", "row", row, "col",
            col, "out.rows", out.rows(), "out.cols", out.cols(), "rows", lines, "cols", length);
    // A shape such as (2^60, 0) fits into any file: no line of it must be visited.
    if (out.rows() == 0 || out.cols() == 0) return;
    if (order() == array_order::fortran) {  // a C array of the transpose
      std::swap(lines, length);
      std::swap(row, col);
      out = out.transposed();
    }
    if (out.cols() == length && out.col_stride() == 1 && out.row_stride() == length) {
      read_run(row * length, vector_view<T>(out.data(), out.rows() * length));
      return;
    }
    for (index_t i = 0; i < out.rows(); ++i) read_run((row + i) * length + col, out.row(i));
  }

  /// The file as an array in the address space: no copy, and not counted as memory of this process.
  /// \throws input_error  unless the file holds T, aligned
  template <NpyElement T>
  npy_mapping<T> map(access_pattern access = access_pattern::sequential) const {
    if (!holds<T>()) refuse_type<T>();
    return {file_, header_, access};
  }

 private:
  static constexpr index_t buffer_bytes = index_t{1} << 16;

  template <NpyElement T>
  [[noreturn]] void refuse_type() const {
    throw input_error(path(), "descr", detail::in_quotes(detail::row_of(header_.type).descr),
                      detail::in_quotes(detail::row_of(detail::npy_type_of<T>()).descr));
  }

  index_t dimension(std::size_t axis) const {
    require_shape({-1, -1});
    return header_.shape[axis];
  }

  void read_bytes(index_t element, std::span<std::byte> out) const {
    file_.read_at(header_.data_offset + element * detail::row_of(header_.type).bytes, out);
  }

  // Neighbours in the file, strided in memory.
  template <NpyElement T>
  void read_run(index_t first, vector_view<T> out) const {
    if constexpr (std::same_as<T, bool>) {
      if (!holds<bool>()) refuse_type<bool>();
      read_through<std::uint8_t>(first, out);
    } else if (holds<T>()) {
      if (out.contiguous())
        read_bytes(first, std::as_writable_bytes(out.span()));
      else
        read_through<T>(first, out);
    } else if constexpr (std::same_as<T, double>) {
      if (!holds<float>()) refuse_type<T>();
      read_through<float>(first, out);
    } else if constexpr (std::same_as<T, float>) {
      if (!holds<double>()) refuse_type<T>();
      read_through<double>(first, out);
    } else {
      refuse_type<T>();
    }
  }

  template <class Stored, class T>
  void read_through(index_t first, vector_view<T> out) const {
    constexpr index_t most = buffer_bytes / static_cast<index_t>(sizeof(Stored));
    std::vector<Stored> buffer(static_cast<std::size_t>(std::min(most, out.size())));
    for (index_t done = 0; done < out.size(); done += most) {
      const index_t count = std::min(most, out.size() - done);
      const auto block = std::span(buffer).first(static_cast<std::size_t>(count));
      read_bytes(first + done, std::as_writable_bytes(block));
      for (index_t i = 0; i < count; ++i) {
        const Stored value = block[static_cast<std::size_t>(i)];
        if constexpr (std::same_as<T, bool>) {
          if (value > 1)
            throw input_error(path(), "element " + std::to_string(first + done + i),
                              "byte " + std::to_string(int{value}), "0 or 1");
          out[done + i] = value != 0;
        } else {
          out[done + i] = static_cast<T>(value);
        }
      }
    }
  }

  detail::file_handle file_;
  detail::npy_header header_;
};

/// What to do with NaN and infinity in a file.
enum class nonfinite_values { refuse, keep };

struct npy_vector_options {
  index_t length = -1;  ///< the length it must have; -1: any
  nonfinite_values nonfinite = nonfinite_values::refuse;
};

/// Reads a 1-dimensional array whole, as T.
/// \throws input_error  on any fault of the file, a wrong length, or a non-finite value
template <NpyElement T>
std::vector<T> npy_read_vector(const std::string& path, const npy_vector_options& options = {}) {
  static_assert(!std::same_as<T, bool>, "dualsft::npy_read_vector: std::vector<bool> is no array");
  const npy_reader reader(path);
  reader.require_shape({options.length});
  std::vector<T> out(static_cast<std::size_t>(reader.size()));
  reader.read(0, std::span(out));
  if constexpr (std::floating_point<T>)
    if (options.nonfinite == nonfinite_values::refuse)
      require_finite(path, vector_view<const T>(out));
  return out;
}

}  // namespace dualsft
