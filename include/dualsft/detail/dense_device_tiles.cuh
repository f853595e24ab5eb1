// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <cub/block/block_reduce.cuh>
#include <dualsft/detail/dense_device.hpp>
#include <dualsft/detail/launch.cuh>

/// dense_scores on a device where columns need not wait for their sums: p is known (first, full order),
/// or the matrix is read twice. A block takes a tile of columns, 4 KiB of a row, times a chunk of rows;
/// a thread keeps the sums of its 16 bytes of columns, and the rows' sums go through the warp, 16 rows
/// at a time.
///
/// Cost on paper, first order in float at 4096 x 1e6: 16.4 GB are loaded, 66 MB of column sums and
/// 33 MB of row sums written and read again (1.2 %). An element costs one conversion, one fused
/// multiply-add and two additions in double: at 8.1 elements a nanosecond and multiprocessor that is
/// about a third of what Hopper converts (16 a clock) and a quarter of its arithmetic in double.
namespace dualsft::detail {

inline constexpr int dense_tile_threads = 256;
inline constexpr int dense_rows_at_once = 16;

enum class tile_work { both, sum, multiply };

/// 16 bytes of a row, as numbers.
template <class T>
struct alignas(16) row_vector {
  static constexpr int size = 16 / static_cast<int>(sizeof(T));
  T x[size];
};

/// The columns [first + e step], e < size, of a row; zeros where there are none.
/// \tparam Aligned  then step is 1 and `row + first` lies at a multiple of 16 bytes
template <bool Aligned, class T>
__device__ row_vector<T> load_row_vector(const T* row, index_t first, index_t step,
                                         index_t columns) {
  constexpr int size = row_vector<T>::size;
  row_vector<T> out;
  if constexpr (Aligned) {
    if (first + size <= columns) {
      const uint4 raw = __ldcs(reinterpret_cast<const uint4*>(row + first));
      std::memcpy(&out, &raw, sizeof(raw));
      return out;
    }
  }
#pragma unroll
  for (int e = 0; e < size; ++e)
    out.x[e] = first + e * step < columns ? __ldcs(row + first + e * step) : T{0};
  return out;
}

/// Half of the lanes go on with the first `Half` numbers and half with the others, each added to what
/// its partner has of them; so on until each lane has one.
template <int Half>
__device__ void fold_lanes(double (&numbers)[16], int lane) {
  const bool upper = (lane & 2 * Half) != 0;
#pragma unroll
  for (int i = 0; i < Half; ++i) {
    const double given = upper ? numbers[i] : numbers[i + Half];
    const double kept = upper ? numbers[i + Half] : numbers[i];
    numbers[i] = kept + __shfl_xor_sync(0xffffffffU, given, 2 * Half);
  }
  if constexpr (Half > 1) fold_lanes<Half / 2>(numbers, lane);
}

/// The sum over the warp of each of 16 numbers; lane l gets that of number l / 2.
__device__ inline double sum_over_lanes(double (&numbers)[16]) {
  fold_lanes<8>(numbers, static_cast<int>(threadIdx.x % 32));
  return numbers[0] + __shfl_xor_sync(0xffffffffU, numbers[0], 1);
}

/// a, b and weights of all columns, where they go through memory.
struct dense_factors {
  double* a = nullptr;
  double* b = nullptr;
  double* weights = nullptr;
};

/// \param column_parts  [1 or 2, chunks, d], written if columns are summed
/// \param row_parts     [tiles, N], written if rows are multiplied; terms [chunks, tiles] likewise
template <tile_work Work, bool Quadratic, bool Aligned, class T>
__global__ void __launch_bounds__(dense_tile_threads, 2)
    sweep_tiles(dense_rows<T> x, dense_vectors vectors, dense_factors factors, double* column_parts,
                double* row_parts, double* terms) {
  constexpr int size = row_vector<T>::size;
  constexpr int warps = dense_tile_threads / 32;
  constexpr bool sums = Work != tile_work::multiply;
  constexpr bool multiplies = Work != tile_work::sum;
  constexpr int at_once = dense_rows_at_once, loads = 8;
  constexpr index_t step = Aligned ? 1 : dense_tile_threads;
  const index_t first = index_t{blockIdx.x} * dense_tile_threads * size +
                        static_cast<index_t>(threadIdx.x) * (Aligned ? size : 1);
  const index_t begin = blockIdx.y * dense_plan::chunk_rows;
  const index_t end =
      begin + dense_plan::chunk_rows < x.rows ? begin + dense_plan::chunk_rows : x.rows;

  double a[size] = {}, b[size] = {}, weights[size] = {};
  if constexpr (multiplies) {
#pragma unroll
    for (int e = 0; e < size; ++e) {
      const index_t j = first + e * step;
      if (j >= x.columns) continue;
      if constexpr (Work == tile_work::both) {
        const projected at =
            project_coordinate(vectors.rule, vectors.v[j], 0, vectors.d[j], vectors.hg[j]);
        a[e] = at.p;
        weights[e] = weigh_terms(vectors.rule, at, 0).of_magnitudes;
      } else {
        a[e] = factors.a[j];
        if constexpr (Quadratic) b[e] = factors.b[j];
        weights[e] = factors.weights[j];
      }
    }
  }

  __shared__ double row_sums_of[warps][dense_plan::chunk_rows];
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  double g[size] = {}, q[size] = {}, magnitudes[size] = {};
  for (index_t i = begin; i < end; i += at_once) {
    double dots[at_once] = {};
#pragma unroll
    for (int part = 0; part < at_once; part += loads) {
      row_vector<T> loaded[loads];
#pragma unroll
      for (int r = 0; r < loads; ++r) {
        const index_t row = i + part + r;
        loaded[r] = {};
        if (row < end)
          loaded[r] = load_row_vector<Aligned>(x.data + row * x.stride, first, step, x.columns);
      }
#pragma unroll
      for (int r = 0; r < loads; ++r)
#pragma unroll
        for (int e = 0; e < size; ++e) {
          const auto value = static_cast<double>(loaded[r].x[e]);
          if constexpr (sums) g[e] += value;
          if constexpr (sums && Quadratic) q[e] += value * value;
          if constexpr (multiplies) {
            magnitudes[e] += fabs(value);
            dots[part + r] += value * (Quadratic ? a[e] + b[e] * value : a[e]);
          }
        }
    }
    if constexpr (multiplies) {
      const double dot = sum_over_lanes(dots);
      if (lane % 2 == 0) row_sums_of[warp][i - begin + lane / 2] = dot;
    }
  }

  if constexpr (sums) {
    double* const to = column_parts + blockIdx.y * x.columns;
#pragma unroll
    for (int e = 0; e < size; ++e) {
      const index_t j = first + e * step;
      if (j >= x.columns) continue;
      to[j] = g[e];
      if constexpr (Quadratic) to[gridDim.y * x.columns + j] = q[e];
    }
  }
  if constexpr (multiplies) {
    double term = 0;
#pragma unroll
    for (int e = 0; e < size; ++e) term += magnitudes[e] * weights[e];
    using reduction = cub::BlockReduce<double, dense_tile_threads>;
    __shared__ typename reduction::TempStorage storage;
    const double all = reduction(storage).Sum(term);
    if (threadIdx.x == 0) terms[index_t{blockIdx.y} * gridDim.x + blockIdx.x] = all;
    __syncthreads();
    for (index_t r = threadIdx.x; r < end - begin; r += dense_tile_threads) {
      double sum = 0;
#pragma unroll
      for (int w = 0; w < warps; ++w) sum += row_sums_of[w][r];
      row_parts[blockIdx.x * x.rows + begin + r] = sum;
    }
  }
}

struct add_sums {
  template <class Sums>
  __device__ Sums operator()(Sums a, const Sums& b) const {
    a.add(b);
    return a;
  }
};

/// The chunks' sums of a column become its score, and its factors where they are wanted.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    finish_columns_of_tiles(dense_vectors vectors, index_t columns, index_t chunks,
                            const double* column_parts, dense_factors factors, double* scores,
                            index_t scores_stride, column_sums* facts) {
  const index_t j = index_t{blockIdx.x} * Threads + threadIdx.x;
  column_sums mine;
  if (j < columns) {
    double g = 0, q = 0;
    for (index_t c = 0; c < chunks; ++c) g += column_parts[c * columns + j];
    if (vectors.rule.order == score_order::joint)
      for (index_t c = 0; c < chunks; ++c) q += column_parts[(chunks + c) * columns + j];
    const finished_column out = finish_device_column(vectors.rule, vectors.v[j], vectors.d[j],
                                                     vectors.hg[j], g, q, j, mine);
    scores[j * scores_stride] = out.score;
    if (factors.a != nullptr) {
      factors.a[j] = out.a;
      factors.b[j] = out.b;
      factors.weights[j] = out.weight;
    }
  }
  using reduction = cub::BlockReduce<column_sums, Threads>;
  __shared__ typename reduction::TempStorage storage;
  const column_sums all = reduction(storage).Reduce(mine, add_sums{});
  if (threadIdx.x == 0) facts[blockIdx.x] = all;
}

/// The parts' sums of a row become its score: a warp has 32 rows, and each of the block's warps every
/// 8th part.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    finish_rows(double eta, index_t rows, index_t parts, const double* row_parts, double* scores,
                index_t scores_stride, row_sums* facts) {
  constexpr int slices = Threads / dense_finish_rows;
  __shared__ double slice_sums[slices][dense_finish_rows];
  const int r = static_cast<int>(threadIdx.x % dense_finish_rows);
  const int slice = static_cast<int>(threadIdx.x / dense_finish_rows);
  const index_t i = index_t{blockIdx.x} * dense_finish_rows + r;
  double sum = 0;
  if (i < rows) {
#pragma unroll 8
    for (index_t part = slice; part < parts; part += slices) sum += row_parts[part * rows + i];
  }
  slice_sums[slice][r] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  row_sums all;
  for (int k = 0; k < dense_finish_rows; ++k) {
    const index_t row = index_t{blockIdx.x} * dense_finish_rows + k;
    if (row >= rows) break;
    double total = 0;
    for (int s = 0; s < slices; ++s) total += slice_sums[s][k];
    scores[row * scores_stride] = eta * total;
    all.add(eta * total, row);
  }
  facts[blockIdx.x] = all;
}

/// One block: all facts become one.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    finish_facts(const column_sums* columns, index_t column_count, const row_sums* rows,
                 index_t row_count, const double* terms, index_t term_count, dense_facts* out) {
  column_sums all_columns;
  for (index_t k = threadIdx.x; k < column_count; k += Threads) all_columns.add(columns[k]);
  for (index_t k = threadIdx.x; k < term_count; k += Threads) all_columns.terms += terms[k];
  row_sums all_rows;
  for (index_t k = threadIdx.x; k < row_count; k += Threads) all_rows.add(rows[k]);
  using column_reduction = cub::BlockReduce<column_sums, Threads>;
  using row_reduction = cub::BlockReduce<row_sums, Threads>;
  __shared__ typename column_reduction::TempStorage column_storage;
  __shared__ typename row_reduction::TempStorage row_storage;
  const column_sums c = column_reduction(column_storage).Reduce(all_columns, add_sums{});
  const row_sums r = row_reduction(row_storage).Reduce(all_rows, add_sums{});
  if (threadIdx.x == 0) *out = {c, r};
}

}  // namespace dualsft::detail
