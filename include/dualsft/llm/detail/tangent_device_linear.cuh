// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/device_products.cuh>
#include <dualsft/llm/detail/tangent_device_elements.cuh>
#include <dualsft/llm/detail/tangent_device_tasks.cuh>
#include <optional>

/// The products of a linear map's values and tangents.
namespace dualsft::llm::detail {

using dualsft::product_into;

/// [2 T, n], if the tangents stand below the values.
template <class T>
std::optional<matrix_view<T, device_space>> as_stacked(const tangent_rows<T>& m) {
  const index_t stride = m.values.row_stride();
  if (m.rows() == 0 || m.tangents.row_stride() != stride ||
      m.tangents.data() != m.values.data() + m.rows() * stride)
    return {};
  return matrix_view<T, device_space>(m.values.data(), 2 * m.rows(), m.cols(), stride, 1);
}

/// [T, 2 n], if the tangents stand to the right of the values.
template <class T>
std::optional<matrix_view<T, device_space>> as_side_by_side(const tangent_rows<T>& m) {
  const index_t stride = m.values.row_stride();
  if (m.cols() == 0 || m.tangents.row_stride() != stride || stride < 2 * m.cols() ||
      m.tangents.data() != m.values.data() + m.cols())
    return {};
  return matrix_view<T, device_space>(m.values.data(), m.rows(), 2 * m.cols(), stride, 1);
}

template <class T, class Y>
struct bias_task {
  const T* bias;
  const T* rate;
  rows_at<Y> y;
  row_units units;  ///< packs only where Y is T
};

/// y = or += [b; p] in every row.
template <product_into How, class T, class Y>
__global__ void __launch_bounds__(512) bias_rows(bias_task<T, Y> task) {
  const index_t row = blockIdx.x;
  const index_t step = index_t{gridDim.y} * blockDim.x;
  for (index_t at = index_t{blockIdx.y} * blockDim.x + threadIdx.x; at < task.units.count;
       at += step) {
    if (at < task.units.packs) {
      if constexpr (std::same_as<Y, T>) {
        const index_t col = at * pack<T>;
        auto x = packed<T>::load_shared(task.bias + col);
        auto dx = packed<T>::load_shared(task.rate + col);
        if constexpr (How == product_into::add) {
          float value[pack<T>], tangent[pack<T>];
          x.widen(value);
          dx.widen(tangent);
          x = packed<T>::load(task.y.value(row, col));
          dx = packed<T>::load(task.y.tangent(row, col));
          add_rounded<T>(value, tangent, x, dx);
        }
        x.store(task.y.value(row, col));
        dx.store(task.y.tangent(row, col));
      }
    } else {
      const index_t col = task.units.elements + (at - task.units.packs);
      Y* y = task.y.value(row, col);
      Y* dy = task.y.tangent(row, col);
      const bool adds = How == product_into::add;
      *y = narrowed<Y>((adds ? widened(*y) : 0) + widened(task.bias[col]));
      *dy = narrowed<Y>((adds ? widened(*dy) : 0) + widened(task.rate[col]));
    }
  }
}

/// \param map  values: W, tangents: P
template <class T, class Y>
void linear_tangent_of(const char* function, const exec::cuda& policy,
                       dualsft::device_products& products, const tangent_rows<const T>& map,
                       const vector_view<const T, device_space>& bias,
                       const vector_view<const T, device_space>& bias_rate,
                       const tangent_rows<const T>& x, const tangent_rows<Y>& y, product_into how) {
  expects_shape(function, "map", map, y.cols(), x.cols());
  expects_shape(function, "x", x, y.rows(), x.cols());
  expects_shape(function, "y", y, y.rows(), y.cols());
  expects_blocks(function, "rows", y.rows());
  const bool biased = bias.size() > 0 || bias_rate.size() > 0;
  if (biased) {
    expects_contiguous(function, "bias", bias, y.cols());
    expects_contiguous(function, "bias_rate", bias_rate, y.cols());
  }
  if (y.rows() == 0 || y.cols() == 0) return;
  if (biased) {
    const rows_at<Y> to = rows_of(y);
    const bool aligned = std::same_as<Y, T> && is_aligned(to) && is_aligned(bias.data()) &&
                         is_aligned(bias_rate.data());
    const row_units units(y.cols(), pack<T>, aligned);
    dualsft::detail::launch(function, policy, shape_of(y.rows(), units, 512),
                            how == product_into::add ? bias_rows<product_into::add, T, Y>
                                                     : bias_rows<product_into::overwrite, T, Y>,
                            bias_task<T, Y>{bias.data(), bias_rate.data(), to, units});
    how = product_into::add;
  }
  const auto multiply = [&](const auto& a, const auto& b, const auto& c, product_into into) {
    products.a_bt(function, policy, a, b, c, {.into = into});
  };
  const auto both_x = as_side_by_side(x);
  const auto both_weights = as_side_by_side(tangent_rows<const T>{map.tangents, map.values});
  if (both_x && both_weights) {
    multiply(x.values, map.values, y.values, how);
    return multiply(*both_x, *both_weights, y.tangents, how);
  }
  const auto tall_x = as_stacked(x);
  const auto tall_y = as_stacked(y);
  if (tall_x && tall_y) {
    multiply(*tall_x, map.values, *tall_y, how);
  } else {
    multiply(x.values, map.values, y.values, how);
    multiply(x.tangents, map.values, y.tangents, how);
  }
  multiply(x.values, map.tangents, y.tangents, product_into::add);
}

}  // namespace dualsft::llm::detail
