// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/ghost_device.cuh>
#include <dualsft/detail/launch.cuh>

/// e_t . (P a_t + p_b) in float, for small models and for tests: 64 tokens x 64 outputs per block,
/// 4 x 4 per thread, products and sums in float by ordinary arithmetic.
namespace dualsft::detail {

struct float_tile {
  static constexpr int rows = 64, cols = 64, depth = 16, threads = 256;
};

/// The step's part of a matrix, transposed: to[k][row]. Zeros beyond the matrix.
__device__ inline void load_float_rows(float (&to)[float_tile::depth][float_tile::rows + 4],
                                       const float* data, index_t rows, index_t cols,
                                       index_t row_stride, index_t first, index_t col) {
  for (int number = static_cast<int>(threadIdx.x); number < float_tile::rows * float_tile::depth;
       number += float_tile::threads) {
    const int row = number / float_tile::depth, k = number % float_tile::depth;
    const bool inside = first + row < rows && col + k < cols;
    to[k][row] = inside ? data[(first + row) * row_stride + col + k] : 0.0f;
  }
}

template <class T>
__global__ void __launch_bounds__(float_tile::threads)
    affine_float_kernel(const T* inputs, index_t inputs_stride, const T* weight,
                        index_t weight_stride, const T* errors, index_t errors_stride,
                        const affine_work<T> work, const tile_order order) {
  using tile = float_tile;
  __shared__ float a[tile::depth][tile::rows + 4], p[tile::depth][tile::cols + 4];
  const tile_order::place place = order.at(static_cast<int>(blockIdx.x));
  const index_t first_row = index_t{place.row} * tile::rows;
  const index_t first_col = index_t{place.col} * tile::cols;
  const int x = static_cast<int>(threadIdx.x % 16), y = static_cast<int>(threadIdx.x / 16);
  float c[4][4] = {};
  for (index_t k = 0; k < work.in; k += tile::depth) {
    load_float_rows(a, inputs, work.rows, work.in, inputs_stride, first_row, k);
    load_float_rows(p, weight, work.out, work.in, weight_stride, first_col, k);
    __syncthreads();
#pragma unroll
    for (int d = 0; d < tile::depth; ++d)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) c[i][j] = fmaf(a[d][y + 16 * i], p[d][x + 16 * j], c[i][j]);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const index_t row = first_row + y + 16 * i;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const index_t col = first_col + x + 16 * j;
      if (row >= work.rows || col >= work.out) continue;
      const float bias = work.bias != nullptr ? work.bias[col] : 0.0f;
      sum = fmaf(c[i][j] + bias, errors[row * errors_stride + col], sum);
    }
#pragma unroll
    for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (x == 0 && row < work.rows) work.partial[place.col * work.rows + row] = sum;
  }
}

template <class T>
void launch_affine_float(const char* function, const exec::cuda& policy, const T* inputs,
                         index_t inputs_stride, const T* weight, index_t weight_stride,
                         const T* errors, index_t errors_stride, const affine_work<T>& work) {
  const tile_order order = order_of_tiles(function, pieces_of(work.rows, float_tile::rows),
                                          pieces_of(work.out, float_tile::cols));
  launch(function, policy, {dim3(static_cast<unsigned>(order.count())), dim3(float_tile::threads)},
         affine_float_kernel<T>, inputs, inputs_stride, weight, weight_stride, errors,
         errors_stride, work, order);
}

}  // namespace dualsft::detail
