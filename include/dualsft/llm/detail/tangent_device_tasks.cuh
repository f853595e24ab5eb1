// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/llm/detail/tangent_device_elements.cuh>
#include <dualsft/llm/detail/tangent_device_norm.cuh>
#include <dualsft/llm/detail/tangent_device_views.hpp>

/// From checked views to what kernels take.
namespace dualsft::llm {

template <class W>
struct tangent_norm;
template <class Position>
struct tangent_rotation;

namespace detail {

template <class T>
rows_at<T> rows_of(const tangent_rows<T>& m) {
  return {m.values.data(), m.tangents.data(), m.values.row_stride(), m.tangents.row_stride()};
}

template <class W>
norm_at<W> norm_of(const char* function, const char* name, const tangent_norm<W>& norm,
                   index_t width) {
  expects_contiguous(function, name, norm.weight, width);
  expects_contiguous(function, name, norm.rate, width);
  expects(norm.epsilon >= 0, function, "epsilon must not be negative", "norm", name, "epsilon",
          norm.epsilon);
  return {norm.weight.data(), norm.rate.data(), static_cast<float>(norm.epsilon),
          static_cast<float>(norm.offset)};
}

template <class T, class W>
norm_task<T, W> norm_task_of(const char* function, const tangent_norm<W>& norm,
                             const tangent_rows<const T>& x, const tangent_rows<T>& y) {
  static_assert(std::same_as<W, T> || std::same_as<W, float>,
                "dualsft::norm_tangent: a norm's weights are of the activations' type or float");
  expects_shape(function, "y", y, y.rows(), y.cols());
  expects_shape(function, "x", x, y.rows(), y.cols());
  const index_t width = norm.weight.size();
  expects(width > 0 ? y.cols() % width == 0 : y.cols() == 0, function,
          "the norm's width must divide the row", "width", width, "cols", y.cols());
  norm_task<T, W> task;
  task.x = rows_of(x);
  task.y = rows_of(y);
  task.norm = norm_of(function, "norm", norm, width);
  task.width = width;
  task.heads = width > 0 ? y.cols() / width : 1;
  task.pieces = y.rows() * task.heads;
  expects_blocks(function, "rows or heads", task.pieces);
  return task;
}

template <class T, class W>
void add_residual(const char* function, norm_task<T, W>& task, const tangent_rows<const T>& x,
                  const tangent_rows<T>& h) {
  expects_shape(function, "h", h, x.rows(), x.cols());
  expects(task.heads == 1 || x.rows() == 0, function,
          "a norm behind a residual connection takes whole rows", "width", task.width, "cols",
          x.cols());
  task.h = rows_of(h);
}

template <class T, class W, class Position>
turn_task<T, W, std::remove_const_t<Position>> turn_task_of(
    const char* function, const tangent_rotation<Position>& rotation,
    const tangent_rows<const T>& x, const tangent_rows<T>& y) {
  static_assert(std::same_as<W, T> || std::same_as<W, float>,
                "dualsft::turn_tangent: a norm's weights are of the activations' type or float");
  expects_shape(function, "y", y, y.rows(), y.cols());
  expects_shape(function, "x", x, y.rows(), y.cols());
  expects_contiguous(function, "positions", rotation.positions, y.rows());
  const auto& cosines = rotation.cosines;
  const auto& sines = rotation.sines;
  expects(cosines.rows() == sines.rows() && cosines.cols() == sines.cols(), function,
          "cosines and sines must have the same shape", "cosine rows", cosines.rows(), "cols",
          cosines.cols(), "sine rows", sines.rows(), "cols", sines.cols());
  expects_contiguous_rows(function, "cosines", cosines);
  expects_contiguous_rows(function, "sines", sines);
  const index_t head = 2 * cosines.cols();
  expects(head > 0 ? y.cols() % head == 0 : y.cols() == 0, function,
          "rows must consist of heads twice as wide as the tables", "cols", y.cols(), "head_size",
          head);
  turn_task<T, W, std::remove_const_t<Position>> task;
  task.x = rows_of(x);
  task.y = rows_of(y);
  task.positions = rotation.positions.data();
  task.cosines = cosines.data();
  task.sines = sines.data();
  task.cosine_stride = cosines.row_stride();
  task.sine_stride = sines.row_stride();
  task.known = cosines.rows();
  task.half = cosines.cols();
  task.heads = head > 0 ? y.cols() / head : 1;
  task.pieces = y.rows() * task.heads;
  expects_blocks(function, "heads", task.pieces);
  return task;
}

}  // namespace detail
}  // namespace dualsft::llm
