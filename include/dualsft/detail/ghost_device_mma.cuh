// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/ghost_device.cuh>
#include <dualsft/detail/launch.cuh>
#include <dualsft/detail/tensor_core.cuh>

/// e_t . (P a_t + p_b) on every device since sm_80, in 16-bit types: a block forms one tile of 128
/// tokens x 256 outputs, 32 inputs at a time, four such steps under way; each of its 8 warps keeps
/// 64 x 64 of the product in registers and meets it with E at the end.
namespace dualsft::detail {

struct mma_tile {
  static constexpr int rows = 128, cols = 256, depth = 32;
  static constexpr int stages = 4, threads = 256;
  static constexpr int rows_bytes = rows * depth * 2, cols_bytes = cols * depth * 2;
  static constexpr int stage_bytes = rows_bytes + cols_bytes;
  static constexpr std::size_t shared_bytes = std::size_t{stages} * stage_bytes;
};

/// Where piece q (8 values) of a row of 32 values lies: the eight rows that a matrix is read from, two
/// to a line of 128 bytes, meet different banks.
__device__ inline int mma_piece(int row, int q) {
  return row * 64 + ((q ^ (row / 2 % 4)) * 16);
}

/// Rows [first, first + Rows) of a matrix, columns [col, col + 32), zeros beyond it.
/// \tparam Aligned  rows begin at multiples of 16 bytes
template <int Rows, bool Aligned, class T>
__device__ inline void load_mma_rows(unsigned char* shared, const T* data, index_t rows,
                                     index_t cols, index_t row_stride, index_t first, index_t col) {
#pragma unroll
  for (int i = 0; i < Rows * 4 / mma_tile::threads; ++i) {
    const int number = static_cast<int>(threadIdx.x) + i * mma_tile::threads;
    const int row = number / 4, q = number % 4;
    const index_t left = first + row < rows ? cols - (col + 8 * q) : 0;
    const int count = left >= 8 ? 8 : left > 0 ? static_cast<int>(left) : 0;
    const T* const from = count > 0 ? data + (first + row) * row_stride + col + 8 * q : data;
    unsigned char* const to = shared + mma_piece(row, q);
    if constexpr (Aligned) {
      cp_async_16(to, from, count * 2);
    } else {
      std::uint32_t pairs[4] = {};
#pragma unroll
      for (int k = 0; k < 8; ++k)
        if (k < count) pairs[k / 2] |= static_cast<std::uint32_t>(from[k].bits) << (k % 2 * 16);
      *reinterpret_cast<uint4*>(to) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
  }
}

/// C += A B^T of one step: 64 x 64 of the warp.
template <class T>
__device__ inline void multiply_mma_step(float (&c)[4][8][4], const unsigned char* a,
                                         const unsigned char* b, int warp_row, int warp_col) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    std::uint32_t of_a[4][4], of_b[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      ldmatrix_x4(of_a[i], a + mma_piece(warp_row + 16 * i + lane % 16, 2 * k + lane / 16));
#pragma unroll
    for (int j = 0; j < 4; ++j)
      ldmatrix_x4(of_b[j], b + mma_piece(warp_col + 16 * j + lane / 16 * 8 + lane % 8,
                                         2 * k + lane / 8 % 2));
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j)
        mma_m16n8k16<T>(c[i][j], of_a[i], of_b[j / 2][j % 2 * 2], of_b[j / 2][j % 2 * 2 + 1]);
  }
}

/// Two values of a row that has `left` more of them; zeros for those it has not.
template <bool Pairs, class T>
__device__ inline std::uint32_t pair_of_row(const T* from, int left) {
  std::uint32_t pair = 0;
  if constexpr (Pairs) {
    if (left > 1) pair = *reinterpret_cast<const std::uint32_t*>(from);
    if (left == 1) pair = from->bits;
  } else {
    if (left > 0) pair = from[0].bits;
    if (left > 1) pair |= static_cast<std::uint32_t>(from[1].bits) << 16;
  }
  return pair;
}

/// The thread's products with E, of 8 rows; sum[i] is of row 8 i + lane / 4 of the warp.
template <bool Pairs, class T>
__device__ inline void meet_errors(float (&sum)[8], const float (&c)[4][8][4], const T* errors,
                                   index_t errors_stride, index_t first_row, index_t first_col,
                                   const affine_work<T>& work) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const index_t row = first_row + lane / 4, col = first_col + 2 * (lane % 4);
  const int left = work.out - col < 64 ? static_cast<int>(work.out - col) : 64;
  float bias[8][2] = {};
  if (work.bias != nullptr)
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        if (8 * j + h < left) bias[j][h] = convert_float<float>(work.bias[col + 8 * j + h]);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    std::uint32_t pairs[4][8];  // all of them are under way before the first is used
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const index_t here = row + 8 * (4 * half + i);
      const T* const from = errors + here * errors_stride + col;
#pragma unroll
      for (int j = 0; j < 8; ++j)
        pairs[i][j] = pair_of_row<Pairs>(from + 8 * j, here < work.rows ? left - 8 * j : 0);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float total = 0;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        float e[2];
        unpack_pair<T>(pairs[i][j], e[0], e[1]);
#pragma unroll
        for (int h = 0; h < 2; ++h)
          if (8 * j + h < left)
            total += (c[2 * half + i / 2][j][i % 2 * 2 + h] + bias[j][h]) * e[h];
      }
      sum[4 * half + i] = total;
    }
  }
}

/// \tparam Aligned  the rows of A and P begin at multiples of 16 bytes
/// \tparam Pairs    those of E at multiples of 4
template <class T, bool Aligned, bool Pairs>
__global__ void __launch_bounds__(mma_tile::threads, 1)
    affine_mma_kernel(const T* inputs, index_t inputs_stride, const T* weight,
                      index_t weight_stride, const T* errors, index_t errors_stride,
                      const affine_work<T> work, const tile_order order) {
  using tile = mma_tile;
  unsigned char* const shared = dynamic_shared();
  const tile_order::place place = order.at(static_cast<int>(blockIdx.x));
  const index_t first_row = index_t{place.row} * tile::rows;
  const index_t first_col = index_t{place.col} * tile::cols;
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const int warp_row = warp / 4 * 64, warp_col = warp % 4 * 64;
  const index_t steps = pieces_of(work.in, tile::depth);
  const auto load = [&](index_t step) {
    if (step < steps) {
      unsigned char* const to = shared + step % tile::stages * tile::stage_bytes;
      load_mma_rows<tile::rows, Aligned>(to, inputs, work.rows, work.in, inputs_stride, first_row,
                                         step * tile::depth);
      load_mma_rows<tile::cols, Aligned>(to + tile::rows_bytes, weight, work.out, work.in,
                                         weight_stride, first_col, step * tile::depth);
    }
    cp_async_commit();
  };
  float c[4][8][4] = {};
  for (int s = 0; s < tile::stages - 1; ++s) load(s);
  for (index_t k = 0; k < steps; ++k) {
    cp_async_wait<tile::stages - 2>();
    __syncthreads();
    load(k + tile::stages - 1);
    const unsigned char* const from = shared + k % tile::stages * tile::stage_bytes;
    multiply_mma_step<T>(c, from, from + tile::rows_bytes, warp_row, warp_col);
  }
  cp_async_wait<0>();
  __syncthreads();  // the stages become the place where the warps put their sums

  float sum[8];
  meet_errors<Pairs>(sum, c, errors, errors_stride, first_row + warp_row, first_col + warp_col,
                     work);
  auto* const sums = reinterpret_cast<float*>(shared);  // [4, 128]
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float total = sum_of_four_lanes(sum[i]);
    if (lane % 4 == 0) sums[warp % 4 * tile::rows + warp_row + 8 * i + lane / 4] = total;
  }
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x);
  if (row < tile::rows && first_row + row < work.rows)
    work.partial[place.col * work.rows + first_row + row] =
        (sums[row] + sums[tile::rows + row]) +
        (sums[2 * tile::rows + row] + sums[3 * tile::rows + row]);
}

template <class T>
void launch_affine_mma(const char* function, const exec::cuda& policy, const T* inputs,
                       index_t inputs_stride, const T* weight, index_t weight_stride,
                       const T* errors, index_t errors_stride, const affine_work<T>& work) {
  using tile = mma_tile;
  const tile_order order =
      order_of_tiles(function, pieces_of(work.rows, tile::rows), pieces_of(work.out, tile::cols));
  const auto begins_at = [](const T* data, index_t stride, index_t values) {
    return reinterpret_cast<std::uintptr_t>(data) % (values * sizeof(T)) == 0 &&
           stride % values == 0;
  };
  const bool aligned = begins_at(inputs, inputs_stride, 8) && begins_at(weight, weight_stride, 8);
  const bool pairs = begins_at(errors, errors_stride, 2);
  const launch_shape shape{dim3(static_cast<unsigned>(order.count())), dim3(tile::threads),
                           tile::shared_bytes};
  const auto start = [&](auto* kernel) {
    launch(function, policy, shape, kernel, inputs, inputs_stride, weight, weight_stride, errors,
           errors_stride, work, order);
  };
  if (aligned && pairs)
    start(affine_mma_kernel<T, true, true>);
  else if (aligned)
    start(affine_mma_kernel<T, true, false>);
  else
    start(affine_mma_kernel<T, false, false>);
}

}  // namespace dualsft::detail
