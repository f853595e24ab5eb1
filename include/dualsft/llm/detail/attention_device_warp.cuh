// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/llm/detail/attention_device_tile.cuh>

/// What one warp does in the device's attention: its query rows against one tile of keys after another.
namespace dualsft::llm::detail {

/// How a kernel is cut. A block has Warps * RowTiles * 16 query rows; their values come in parts of
/// Columns.
template <class T, int HeadSize, int Columns, int RowTiles, int Keys, int Warps, int Blocks,
          bool Tangent>
struct attention_plan {
  using value_type = T;
  static constexpr int head_size = HeadSize, columns = Columns;
  static constexpr int row_tiles = RowTiles, warp_rows = 16 * RowTiles;
  static constexpr int keys = Keys, threads = 32 * Warps;
  static constexpr int rows = Warps * warp_rows;
  static constexpr int blocks = Blocks;  ///< on a multiprocessor at a time
  static constexpr bool tangent = Tangent;

  // Shared memory, in bytes: q, its tangent; then two stages of k, v, their tangents.
  static constexpr int query_bytes = 2 * rows * head_size, key_bytes = 2 * keys * head_size;
  static constexpr int value_bytes = 2 * keys * columns;
  static constexpr int both = tangent ? 2 : 1;
  static constexpr int stages_at = both * query_bytes;
  static constexpr int stage_bytes = both * (key_bytes + value_bytes);
  static constexpr int shared_bytes = stages_at + 2 * stage_bytes;
};

/// Columns [begin, end) of a tile of scores.
struct seen_columns {
  int begin, end;
  __device__ bool has(int j) const { return begin <= j && j < end; }
};

/// Where a tile of scores lies in its sequence.
struct tile_place {
  int row, key, size, window;

  /// What this lane's row sees, `more` below its first one.
  __device__ seen_columns seen(int more) const {
    const int i = row + more + static_cast<int>(threadIdx.x % 32 / 4);
    const int end = i + 1 < size ? i + 1 : size;
    const int begin = window > 0 ? i - window + 1 : 0;
    return {begin - key, end - key};
  }
};

/// The largest (or the sum) over the four lanes that hold a row of an mma's result.
__device__ inline float row_largest(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffU, x, 2));
}
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffU, x, 1);
  return x + __shfl_xor_sync(0xffffffffU, x, 2);
}

/// Sums over the keys seen so far, for rows g and g + 8 of each 16 (lane = 4 g + t). With z the scores,
/// m their running maximum and c a number of the row's own:
///
///     e_j = exp(z_j - m)                  o = sum e_j v_j      l = sum e_j
///     x_j = e_j (R{z_j} - c)              u = sum x_j v_j + e_j R{v_j}        w = sum x_j
///
///     softmax(z) v = o / l                R{softmax(z) v} = (u - (w / l) o) / l
///
/// for every c, as sum_j R{P_j} = 0. c is the row's mean of R{z} over its first tile: keys have much in
/// common, and without it u and (w / l) o would be large and nearly cancel, after x was rounded to 16
/// bits.
template <class Plan>
struct attention_warp {
  using T = typename Plan::value_type;
  static constexpr int team_rows = Plan::warp_rows;  ///< of those who multiply together
  /// Whether a warp holds q in registers: shared memory is the narrowest place, and is spared a tenth
  /// of its loads.
  static constexpr bool keeps_q = Plan::tangent && Plan::row_tiles == 1 && Plan::head_size <= 128;
  static constexpr int M = Plan::row_tiles, N = Plan::keys / 8, C = Plan::columns / 8;
  static constexpr bool tangent = Plan::tangent;
  static constexpr int U = tangent ? M : 1;  // what only tangents have, small where there are none

  float o[M][C][4] = {}, u[U][C][4] = {};
  float top[M][2], l[M][2] = {}, w[U][2] = {}, c[U][2] = {};  // top: m log2(e)
  float z[M][N][4], rz[U][N][4];                              // scores, then e; R{scores}, then x
  std::uint32_t own_q[keeps_q ? Plan::head_size / 16 : 1][M][4];

  __device__ attention_warp() {
    for (auto& rows : top) rows[0] = rows[1] = -INFINITY;
  }

  /// After own copies are here, before the barrier that shows them to all.
  __device__ static void publish() {}

  /// The tile of queries is there, and stays.
  __device__ void read_queries(const unsigned char* queries) {
    if constexpr (keeps_q) {
      const unsigned char* const q = own_rows(queries);
      const int lane = static_cast<int>(threadIdx.x % 32);
      const operand_places<Plan::rows> places(q, lane % 16, lane / 16);
#pragma unroll
      for (int d = 0; d < Plan::head_size / 16; ++d)
#pragma unroll
        for (int m = 0; m < M; ++m)
          dualsft::detail::ldmatrix_x4(own_q[d][m], places.at(16 * m, 2 * d));
    }
  }

  /// z = q k^T, R{z} = R{q} k^T + q R{k}^T, unscaled; with nothing to work on where not `works`.
  __device__ void scores(bool works, const unsigned char* queries, const unsigned char* k) {
    using namespace dualsft::detail;
    if (!works) return;
    const unsigned char* const q = own_rows(queries);
    const int lane = static_cast<int>(threadIdx.x % 32);
    const operand_places<Plan::rows> q_places(q, lane % 16, lane / 16);
    const operand_places<Plan::keys> k_places(k, lane % 8 + lane / 16 * 8, lane / 8 % 2);
    clear(z);
    if constexpr (tangent) clear(rz);
#pragma unroll
    for (int d = 0; d < Plan::head_size / 16; ++d) {
      std::uint32_t a[M][4], ra[U][4];
#pragma unroll
      for (int m = 0; m < M; ++m) {
        const unsigned char* const at = q_places.at(16 * m, 2 * d);
        if constexpr (keeps_q)
          for (int i = 0; i < 4; ++i) a[m][i] = own_q[d][m][i];
        else
          ldmatrix_x4(a[m], at);
        if constexpr (tangent) ldmatrix_x4(ra[m], at + Plan::query_bytes);
      }
#pragma unroll
      for (int n = 0; n < N; n += 2) {
        const unsigned char* const at = k_places.at(8 * n, 2 * d);
        std::uint32_t b[4];
        ldmatrix_x4(b, at);
        multiply(z, a, b, n);
        if constexpr (tangent) {
          multiply(rz, ra, b, n);
          ldmatrix_x4(b, at + Plan::stage_bytes / 2);
          multiply(rz, a, b, n);
        }
      }
    }
  }

  /// -infinity where a row does not see a key.
  __device__ void hide(const tile_place& at) {
    const int t = static_cast<int>(threadIdx.x % 4);
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const seen_columns seen = at.seen(16 * m + 8 * h);
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            if (seen.has(8 * n + 2 * t + i)) continue;
            z[m][n][2 * h + i] = -INFINITY;
            if constexpr (tangent) rz[m][n][2 * h + i] = 0;
          }
      }
  }

  /// e, x from z, R{z}; what was summed is brought to the new maximum.
  __device__ void weigh(float scale) {
    const float scale_log2 = scale * 1.44269504088896340736F;
    float next[M][2];
    bool higher = false, first = false;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float largest = z[m][0][2 * h];
#pragma unroll
        for (int n = 0; n < N; ++n)
          largest = fmaxf(largest, fmaxf(z[m][n][2 * h], z[m][n][2 * h + 1]));
        next[m][h] = fmaxf(top[m][h], row_largest(largest) * scale_log2);
        higher = higher || next[m][h] > top[m][h];
        first = first || (next[m][h] > top[m][h] && top[m][h] == -INFINITY);
        const float zero = next[m][h] == -INFINITY ? 0.0F : next[m][h];  // of rows that saw nothing
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int i = 2 * h; i < 2 * h + 2; ++i)
            z[m][n][i] = dualsft::detail::exp2_or_zero(fmaf(z[m][n][i], scale_log2, -zero));
      }
    if (__any_sync(0xffffffffU, higher)) {  // rare after the first few tiles
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if (next[m][h] == -INFINITY) continue;
          const float factor = exp2f(top[m][h] - next[m][h]);
          l[m][h] *= factor;
          if constexpr (tangent) w[m][h] *= factor;
#pragma unroll
          for (int n = 0; n < C; ++n)
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; ++i) {
              o[m][n][i] *= factor;
              if constexpr (tangent) u[m][n][i] *= factor;
            }
        }
      if constexpr (tangent)
        if (__any_sync(0xffffffffU, first)) choose_c(next, scale);
    }
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        top[m][h] = next[m][h];
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int i = 2 * h; i < 2 * h + 2; ++i) {
            l[m][h] += z[m][n][i];
            if constexpr (tangent) {
              rz[m][n][i] = z[m][n][i] * fmaf(rz[m][n][i], scale, -c[m][h]);
              w[m][h] += rz[m][n][i];
            }
          }
      }
  }

  /// o += e v, u += x v + e R{v}
  __device__ void values(const unsigned char* v) {
    using namespace dualsft::detail;
    const int lane = static_cast<int>(threadIdx.x % 32);
    const operand_places<Plan::keys> places(v, lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
      std::uint32_t e[M][4], x[U][4];
      pack(e, z, k);
      if constexpr (tangent) pack(x, rz, k);
#pragma unroll
      for (int n = 0; n < C; n += 2) {
        const unsigned char* const at = places.at(16 * k, n);
        std::uint32_t b[4];
        ldmatrix_x4_transposed(b, at);
        multiply(o, e, b, n);
        if constexpr (tangent) {
          multiply(u, x, b, n);
          ldmatrix_x4_transposed(b, at + Plan::stage_bytes / 2);
          multiply(u, e, b, n);
        }
      }
    }
  }

  /// Values that are not finite, to the rows that see their key; `values` then finds zeros there, so
  /// that no other row multiplies them by a weight of zero.
  __device__ void add_not_finite(const tile_place& place, const unsigned char* v) {
    const int t = static_cast<int>(threadIdx.x % 4);
    const unsigned char* const tangent_v = v + Plan::stage_bytes / 2;
    for (int j = 0; j < Plan::keys; ++j)
#pragma unroll
      for (int n = 0; n < C; ++n) {
        const int at = tile_offset<Plan::keys>(j, n) + 4 * t;
        add_pair(place, v + at, j, n, o, tangent);
        if constexpr (tangent) add_pair(place, tangent_v + at, j, n, u, false);
      }
  }

  /// o, R{o} of rows [0, rows) and columns [0, columns).
  __device__ void write(const strided_rows<T>& out, const strided_rows<T>& tangent_out, int rows,
                        int columns) const {
    using namespace dualsft::detail;
    const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float sum = row_sum(l[m][h]), inverse = 1.0F / sum;
        const float mean = tangent ? row_sum(w[tangent ? m : 0][h]) * inverse : 0.0F;
        const int i = 16 * m + 8 * h + lane / 4;
        if (i >= rows) continue;
#pragma unroll
        for (int n = 0; n < C; ++n) {
          const int column = 8 * n + 2 * (lane % 4);
          if (column >= columns) continue;
          const float y0 = o[m][n][2 * h] * inverse, y1 = o[m][n][2 * h + 1] * inverse;
          *reinterpret_cast<std::uint32_t*>(out.row(i) + column) = pack_pair<T>(y0, y1);
          if constexpr (tangent)
            *reinterpret_cast<std::uint32_t*>(tangent_out.row(i) + column) =
                pack_pair<T>(fmaf(u[m][n][2 * h], inverse, -mean * y0),
                             fmaf(u[m][n][2 * h + 1], inverse, -mean * y1));
        }
      }
  }

 protected:
  __device__ static const unsigned char* own_rows(const unsigned char* queries) {
    return queries + threadIdx.x / 32 * (Plan::warp_rows * 128);
  }

  template <int Rows, int Count>
  __device__ static void clear(float (&x)[Rows][Count][4]) {
#pragma unroll
    for (int m = 0; m < Rows; ++m)
#pragma unroll
      for (int n = 0; n < Count; ++n) x[m][n][0] = x[m][n][1] = x[m][n][2] = x[m][n][3] = 0;
  }

  template <int Rows, int Count>
  __device__ static void multiply(float (&sum)[Rows][Count][4], const std::uint32_t (&a)[Rows][4],
                                  const std::uint32_t (&b)[4], int n) {
#pragma unroll
    for (int m = 0; m < Rows; ++m) {
      dualsft::detail::mma_m16n8k16<T>(sum[m][n], a[m], b[0], b[1]);
      dualsft::detail::mma_m16n8k16<T>(sum[m][n + 1], a[m], b[2], b[3]);
    }
  }

  /// Results of one product as the left operand of the next: keys [16 k, 16 k + 16).
  template <int Rows>
  __device__ static void pack(std::uint32_t (&a)[Rows][4], const float (&x)[Rows][N][4], int k) {
#pragma unroll
    for (int m = 0; m < Rows; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&from_tile)[4] = x[m][2 * k + i / 2];
        a[m][i] = dualsft::detail::pack_pair<T>(from_tile[2 * (i % 2)], from_tile[2 * (i % 2) + 1]);
      }
  }

  /// The weighted mean of R{z} over this tile, for rows that saw nothing before it.
  __device__ void choose_c(const float (&next)[M][2], float scale) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float weights = 0, sum = 0;
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int i = 2 * h; i < 2 * h + 2; ++i) {
            weights += z[m][n][i];
            sum += z[m][n][i] * rz[m][n][i];
          }
        weights = row_sum(weights);
        sum = row_sum(sum);
        if (top[m][h] == -INFINITY && next[m][h] > top[m][h]) c[m][h] = sum / weights * scale;
      }
  }

  template <int Rows>
  __device__ void add_pair(const tile_place& place, const unsigned char* at, int j, int n,
                           float (&sum)[Rows][C][4], bool spoils_tangent) {
    const std::uint32_t pair = *reinterpret_cast<const std::uint32_t*>(at);
    if (!has_not_finite<T>(pair)) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float x = to_float(T{static_cast<std::uint16_t>(pair >> (16 * i))});
      if (std::isfinite(x)) continue;
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if (!place.seen(16 * m + 8 * h).has(j)) continue;
          sum[m][n][2 * h + i] += x;
          if constexpr (tangent)
            if (spoils_tangent) u[m][n][2 * h + i] = NAN;
        }
    }
  }
};

}  // namespace dualsft::llm::detail
