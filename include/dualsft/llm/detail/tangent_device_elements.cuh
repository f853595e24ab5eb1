// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <dualsft/llm/detail/tangent_device_norm.cuh>
#include <limits>

/// What works on elements, or on pairs of a head: embedding rows, gates, rotations. Each thread
/// has all of its loads on their way before it uses one, and stores after the last, so results may
/// replace inputs.
namespace dualsft::llm::detail {

// ---- rows of units: packs, then what is left as single elements --------------------------------

/// A row of `width` elements as `packs` packs and then elements: all elements where rows are not
/// aligned.
struct row_units {
  index_t packs, elements, count;  ///< elements: where they begin

  row_units(index_t width, int per_pack, bool aligned)
      : packs(aligned ? width / per_pack : 0),
        elements(packs * per_pack),
        count(packs + width - elements) {}
};

/// A block per row, or several along y.
inline dualsft::detail::launch_shape shape_of(index_t rows, const row_units& units,
                                              index_t most_threads) {
  const index_t parts = std::min<index_t>((units.count + most_threads - 1) / most_threads, 65535);
  const index_t each = std::min((units.count + parts - 1) / parts, most_threads);
  return {dim3(static_cast<unsigned>(rows), static_cast<unsigned>(parts)),
          static_cast<unsigned>(32 * ((each + 31) / 32))};
}

// ---- embedding ---------------------------------------------------------------------------------

template <class T, class Id>
struct embed_task {
  rows_at<const T> from;
  rows_at<T> to;
  const Id* ids = nullptr;
  index_t known = 0;  ///< rows of `from`
  float scale = 1;
  row_units units;
};

template <class T, class Id>
__global__ void __launch_bounds__(512) embed_rows(embed_task<T, Id> task) {
  const index_t row = blockIdx.x;
  const auto id = static_cast<index_t>(task.ids[row]);
  const bool known = 0 <= id && id < task.known;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const index_t step = index_t{gridDim.y} * blockDim.x;
  for (index_t u = index_t{blockIdx.y} * blockDim.x + threadIdx.x; u < task.units.count;
       u += step) {
    if (u < task.units.packs) {
      const index_t col = u * pack<T>;
      packed<T> x, dx;
      if (known) {
        x = packed<T>::load(task.from.value(id, col));
        dx = packed<T>::load(task.from.tangent(id, col));
      }
      if (!known || task.scale != 1) {
        float value[pack<T>], tangent[pack<T>];
        x.widen(value);
        dx.widen(tangent);
#pragma unroll
        for (int e = 0; e < pack<T>; ++e) {
          value[e] = known ? task.scale * value[e] : nan;
          tangent[e] = known ? task.scale * tangent[e] : nan;
        }
        x = packed<T>::narrow(value);
        dx = packed<T>::narrow(tangent);
      }
      x.store(task.to.value(row, col));
      dx.store(task.to.tangent(row, col));
    } else {
      const index_t col = task.units.elements + (u - task.units.packs);
      const float x = known ? widened(*task.from.value(id, col)) : nan;
      const float dx = known ? widened(*task.from.tangent(id, col)) : nan;
      *task.to.value(row, col) = narrowed<T>(task.scale * x);
      *task.to.tangent(row, col) = narrowed<T>(task.scale * dx);
    }
  }
}

// ---- gates -------------------------------------------------------------------------------------

template <class T>
struct gate_task {
  rows_at<const T> g, u;
  rows_at<T> to;
  row_units units;
};

template <gate_activation Kind, class T>
__global__ void __launch_bounds__(256) gate_rows(gate_task<T> task) {
  const index_t row = blockIdx.x;
  const index_t step = index_t{gridDim.y} * blockDim.x;
  for (index_t at = index_t{blockIdx.y} * blockDim.x + threadIdx.x; at < task.units.count;
       at += step) {
    if (at < task.units.packs) {
      const index_t col = at * pack<T>;
      const packed<T> packed_g = packed<T>::load(task.g.value(row, col));
      const packed<T> packed_dg = packed<T>::load(task.g.tangent(row, col));
      const packed<T> packed_u = packed<T>::load(task.u.value(row, col));
      const packed<T> packed_du = packed<T>::load(task.u.tangent(row, col));
      float g[pack<T>], dg[pack<T>], u[pack<T>], du[pack<T>];
      packed_g.widen(g);
      packed_dg.widen(dg);
      packed_u.widen(u);
      packed_du.widen(du);
#pragma unroll
      for (int e = 0; e < pack<T>; ++e) {
        const value_tangent<float> m = gated(Kind, g[e], dg[e], u[e], du[e]);
        g[e] = m.value;
        dg[e] = m.tangent;
      }
      packed<T>::narrow(g).store(task.to.value(row, col));
      packed<T>::narrow(dg).store(task.to.tangent(row, col));
    } else {
      const index_t col = task.units.elements + (at - task.units.packs);
      const value_tangent<float> m =
          gated(Kind, widened(*task.g.value(row, col)), widened(*task.g.tangent(row, col)),
                widened(*task.u.value(row, col)), widened(*task.u.tangent(row, col)));
      *task.to.value(row, col) = narrowed<T>(m.value);
      *task.to.tangent(row, col) = narrowed<T>(m.tangent);
    }
  }
}

// ---- rotations ---------------------------------------------------------------------------------

enum class head_norm { none, first };

template <class T, class W, class Position>
struct turn_task {
  rows_at<const T> x;
  rows_at<T> y;
  norm_at<W> norm;  ///< over each head, before it turns; weights may be null
  const Position* positions = nullptr;
  const float* cosines = nullptr;
  const float* sines = nullptr;
  index_t cosine_stride = 0, sine_stride = 0, known = 0;  ///< known: rows of the table
  index_t pieces = 0, heads = 1, half = 0;

  bool in_packs() const {
    return half % pack<T> == 0 && is_aligned(x) && is_aligned(y) && is_aligned(norm.weight) &&
           is_aligned(norm.rate) && is_aligned(cosines) && is_aligned(sines) &&
           cosine_stride % 4 == 0 && sine_stride % 4 == 0;
  }
  /// A token's row of the table, or -1.
  __device__ index_t place(index_t row) const {
    const auto position = static_cast<index_t>(positions[row]);
    return 0 <= position && position < known ? position : -1;
  }
};

/// 2^lane_bits lanes hold a head: a pack of its first half each, and the pack it turns with.
template <head_norm Norm, class T, class W, class Position>
__global__ void __launch_bounds__(256) turn_heads(turn_task<T, W, Position> task, int lane_bits) {
  const int thread = static_cast<int>(threadIdx.x), lanes = 1 << lane_bits;
  const int k = (thread & (lanes - 1)) * pack<T>, half = static_cast<int>(task.half);
  const index_t piece = index_t{blockIdx.x} * (blockDim.x >> lane_bits) + (thread >> lane_bits);
  const index_t row = row_of_piece(piece, task.heads);
  const index_t begin = (piece - row * task.heads) * 2 * half + k;
  const bool mine = piece < task.pieces && k < half;
  packed<T> packed_a, packed_b, packed_da, packed_db;
  index_t place = -1;
  if (mine) {
    packed_a = packed<T>::load(task.x.value(row, begin));
    packed_b = packed<T>::load(task.x.value(row, begin + half));
    packed_da = packed<T>::load(task.x.tangent(row, begin));
    packed_db = packed<T>::load(task.x.tangent(row, begin + half));
    place = task.place(row);
  }
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  float a[pack<T>], b[pack<T>], da[pack<T>], db[pack<T>];
  packed_a.widen(a);
  packed_b.widen(b);
  packed_da.widen(da);
  packed_db.widen(db);
  if constexpr (Norm == head_norm::first) {
    norm_sums<float> sums;
#pragma unroll
    for (int e = 0; e < pack<T>; ++e) {
      sums.add(a[e], da[e]);
      sums.add(b[e], db[e]);
    }
    const norm_factors<float> factors(sum_of_lanes(sums, lanes), 2 * task.half, task.norm.epsilon);
    if (mine) {
      norm_pack<T, W>::load(task.norm, k).apply(factors, task.norm.offset, a, da);
      norm_pack<T, W>::load(task.norm, k + half).apply(factors, task.norm.offset, b, db);
    }
  }
  if (!mine) return;
  float c[pack<T>], s[pack<T>];
  if (place >= 0) {
    load_floats(task.cosines + place * task.cosine_stride + k, c);
    load_floats(task.sines + place * task.sine_stride + k, s);
  }
#pragma unroll
  for (int e = 0; e < pack<T>; ++e) {
    if (place < 0) c[e] = s[e] = nan;
    const turned<float> value(a[e], b[e], c[e], s[e]), tangent(da[e], db[e], c[e], s[e]);
    a[e] = value.a;
    b[e] = value.b;
    da[e] = tangent.a;
    db[e] = tangent.b;
  }
  packed<T>::narrow(a).store(task.y.value(row, begin));
  packed<T>::narrow(b).store(task.y.value(row, begin + half));
  packed<T>::narrow(da).store(task.y.tangent(row, begin));
  packed<T>::narrow(db).store(task.y.tangent(row, begin + half));
}

/// Any size and alignment: a block per head.
template <head_norm Norm, class T, class W, class Position>
__global__ void turn_any(turn_task<T, W, Position> task) {
  __shared__ float2 partial[32];
  const index_t piece = blockIdx.x, row = row_of_piece(piece, task.heads), half = task.half;
  const index_t begin = (piece - row * task.heads) * 2 * half;
  const T* x = task.x.value(row, begin);
  const T* dx = task.x.tangent(row, begin);
  norm_sums<float> sums;
  if constexpr (Norm == head_norm::first) {
    for (index_t i = threadIdx.x; i < 2 * half; i += blockDim.x)
      sums.add(widened(x[i]), widened(dx[i]));
    sums = sum_of_block(sums, partial);  // behind this, elements may be overwritten
  }
  const norm_factors<float> factors(sums, 2 * half, task.norm.epsilon);
  const auto at = [&](index_t i) {
    value_tangent<float> out{widened(x[i]), widened(dx[i])};
    if constexpr (Norm == head_norm::first)
      out = factors(out.value, out.tangent, widened(task.norm.weight[i]) + task.norm.offset,
                    widened(task.norm.rate[i]));
    return out;
  };
  const index_t place = task.place(row);
  for (index_t k = threadIdx.x; k < half; k += blockDim.x) {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    const float c = place < 0 ? nan : task.cosines[place * task.cosine_stride + k];
    const float s = place < 0 ? nan : task.sines[place * task.sine_stride + k];
    const value_tangent<float> a = at(k), b = at(half + k);
    const turned<float> value(a.value, b.value, c, s), tangent(a.tangent, b.tangent, c, s);
    *task.y.value(row, begin + k) = narrowed<T>(value.a);
    *task.y.value(row, begin + half + k) = narrowed<T>(value.b);
    *task.y.tangent(row, begin + k) = narrowed<T>(tangent.a);
    *task.y.tangent(row, begin + half + k) = narrowed<T>(tangent.b);
  }
}

template <head_norm Norm, class T, class W, class Position>
void launch_turn(const char* function, const exec::cuda& policy,
                 const turn_task<T, W, Position>& task) {
  using dualsft::detail::launch;
  if (task.pieces == 0 || task.half == 0) return;
  const index_t packs = task.half / pack<T>;
  if (task.in_packs() && packs <= 32) {
    const int lane_bits = std::bit_width(static_cast<unsigned>(packs) - 1);
    const index_t at_once = 256 >> lane_bits;
    const auto blocks = static_cast<unsigned>((task.pieces + at_once - 1) / at_once);
    launch(function, policy, {blocks, 256U}, turn_heads<Norm, T, W, Position>, task, lane_bits);
  } else {
    const index_t threads = std::min<index_t>(32 * ((task.half + 31) / 32), 256);
    launch(function, policy, {static_cast<unsigned>(task.pieces), static_cast<unsigned>(threads)},
           turn_any<Norm, T, W, Position>, task);
  }
}

}  // namespace dualsft::llm::detail
