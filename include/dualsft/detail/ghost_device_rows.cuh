// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/detail/ghost_device.cuh>
#include <dualsft/detail/launch.cuh>
#include <dualsft/detail/tensor_core.cuh>
#include <dualsft/float16.hpp>
#include <type_traits>

/// Dots of rows, limited by memory: e_t . P[id_t] (embedding), e_t . (x_t P) (scale), g_t . P (dense).
/// A warp forms one run of one row: 16 bytes a lane where all rows begin at multiples of 16;
/// up to 32 products are summed in float, those sums in double.
namespace dualsft::detail {

template <class T>
struct row_dots {
  index_t rows = 0, cols = 0;
  index_t run_cols = 0;     ///< columns of a run; the last one may be shorter
  const T* left = nullptr;  ///< [rows, cols]
  index_t left_stride = 0;
  const T* factors = nullptr;  ///< [rows, cols], or nullptr
  index_t factors_stride = 0;
  const T* right = nullptr;      ///< [cols], or [choices, cols] of which row t takes ids[t]
  index_t right_stride = 0;      ///< of the latter
  const index_t* ids = nullptr;  ///< [rows], or nullptr
  index_t choices = 0;
  float* partial = nullptr;                 ///< [runs, rows]
  unsigned long long* first_bad = nullptr;  ///< least t whose id is no row of `right`
  index_t first_row = 0;                    ///< what t counts from
};

/// As many values as 16 bytes hold.
template <class T>
__device__ inline void load_piece(float (&to)[16 / sizeof(T)], const T* from) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const std::uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      to[i] = __uint_as_float(words[i]);
    } else {
      unpack_pair<T>(words[i], to[2 * i], to[2 * i + 1]);
    }
  }
}

/// Adds `Pieces` pieces of a row's dot, 32 lanes apart, to a sum in double.
template <int Pieces, class T>
__device__ inline void add_pieces(double& sum, const T* left, const T* factors, const T* right) {
  constexpr int values = 16 / sizeof(T);
  float x[Pieces][values], y[Pieces][values], part = 0;
#pragma unroll
  for (int i = 0; i < Pieces; ++i) load_piece(x[i], left + i * 32 * values);
#pragma unroll
  for (int i = 0; i < Pieces; ++i) load_piece(y[i], right + i * 32 * values);
  if (factors != nullptr)
#pragma unroll
    for (int i = 0; i < Pieces; ++i) {
      float f[values];
      load_piece(f, factors + i * 32 * values);
#pragma unroll
      for (int k = 0; k < values; ++k) y[i][k] *= f[k];
    }
#pragma unroll
  for (int i = 0; i < Pieces; ++i)
#pragma unroll
    for (int k = 0; k < values; ++k) part = fmaf(x[i][k], y[i][k], part);
  sum += static_cast<double>(part);
}

/// The lane's part of columns [begin, end) of one row.
template <class T, bool Wide>
__device__ inline double dot_of_lane(const T* left, const T* factors, const T* right, index_t begin,
                                     index_t end) {
  constexpr int values = Wide ? 16 / sizeof(T) : 1;
  constexpr int together = 4, step = 32 * values;
  const auto factors_at = [&](index_t col) { return factors != nullptr ? factors + col : nullptr; };
  double sum = 0;
  index_t col = begin + static_cast<int>(threadIdx.x % 32) * values;
  if constexpr (Wide) {
    for (; col + (together - 1) * step + values <= end; col += together * step)
      add_pieces<together>(sum, left + col, factors_at(col), right + col);
    for (; col + values <= end; col += step)
      add_pieces<1>(sum, left + col, factors_at(col), right + col);
  }
  for (; col < end; col += step)
    for (index_t k = col; k < end && k < col + values; ++k) {
      float y = convert_float<float>(right[k]);
      if (factors != nullptr) y *= convert_float<float>(factors[k]);
      sum += static_cast<double>(convert_float<float>(left[k]) * y);
    }
  return sum;
}

template <class T, bool Wide>
__global__ void __launch_bounds__(256) row_dots_kernel(const row_dots<T> work, index_t runs) {
  const index_t number = static_cast<index_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  if (number >= runs * work.rows) return;
  const index_t run = number / work.rows, row = number % work.rows;
  const index_t begin = run * work.run_cols;
  const index_t end = begin + work.run_cols < work.cols ? begin + work.run_cols : work.cols;
  const T* right = work.right;
  bool bad = false;
  if (work.ids != nullptr) {
    const index_t id = work.ids[row];
    bad = id < 0 || id >= work.choices;
    if (!bad) right += id * work.right_stride;
  }
  double sum = 0;
  if (!bad)
    sum = dot_of_lane<T, Wide>(
        work.left + row * work.left_stride,
        work.factors != nullptr ? work.factors + row * work.factors_stride : nullptr, right, begin,
        end);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x % 32 != 0) return;
  work.partial[number] = bad ? __int_as_float(0x7fffffff) : static_cast<float>(sum);
  if (bad) atomicMin(work.first_bad, static_cast<unsigned long long>(work.first_row + row));
}

/// How long runs are, so that `most_runs` of them suffice and a device has enough to do.
template <class T>
index_t run_length(index_t rows, index_t cols, index_t most_runs) {
  constexpr index_t warps = 1 << 14, least = 4096 / sizeof(T), unit = 1024 / sizeof(T);
  const index_t wanted = pieces_of(warps, rows < 1 ? 1 : rows);
  index_t runs = wanted < most_runs ? wanted : most_runs;
  if (runs > pieces_of(cols, least)) runs = pieces_of(cols, least);
  const index_t length = pieces_of(pieces_of(cols, runs < 1 ? 1 : runs), unit) * unit;
  return length > 0 ? length : unit;
}

template <class T>
void launch_row_dots(const char* function, const exec::cuda& policy, const row_dots<T>& work) {
  const index_t runs = pieces_of(work.cols, work.run_cols);
  if (runs == 0) return;
  const auto begins_at_16 = [](const T* data, index_t stride) {
    return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 &&
           stride * static_cast<index_t>(sizeof(T)) % 16 == 0;
  };
  const bool wide = begins_at_16(work.left, work.left_stride) &&
                    begins_at_16(work.factors, work.factors_stride) &&
                    begins_at_16(work.right, work.ids != nullptr ? work.right_stride : 0);
  launch(function, policy, {dim3(static_cast<unsigned>(pieces_of(runs * work.rows, 8))), dim3(256)},
         wide ? row_dots_kernel<T, true> : row_dots_kernel<T, false>, work, runs);
}

}  // namespace dualsft::detail
