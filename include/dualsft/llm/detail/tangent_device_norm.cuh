// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <dualsft/llm/detail/tangent_device_rows.cuh>

/// Norms with tangents. A block of threads holds a row in registers between its sums and its
/// result, or a few lanes of a warp a head, so that all is read once and written once.
namespace dualsft::llm::detail {

template <class W>
struct norm_at {
  const W* weight = nullptr;
  const W* rate = nullptr;
  float epsilon = 0, offset = 0;
};

enum class norm_form {
  plain,     ///< y = norm(x)
  residual,  ///< h += x;        y = norm(h)
  post,      ///< h += post(x);  y = norm(h)
};

template <class T, class W>
struct norm_task {
  rows_at<const T> x;
  rows_at<T> h, y;  ///< y.values may be null if there is h
  norm_at<W> norm, post;
  index_t pieces = 0, heads = 1, width = 0;  ///< a row has `heads` pieces of `width`

  bool in_packs() const {
    return width % pack<T> == 0 && is_aligned(x) && is_aligned(h) && is_aligned(y) &&
           is_aligned(norm.weight) && is_aligned(norm.rate) && is_aligned(post.weight) &&
           is_aligned(post.rate);
  }
};

/// The weights that belong to one packed<T>.
template <class T, class W>
struct norm_pack {
  static constexpr int packs = pack<T> / pack<W>;
  packed<W> weight[packs], rate[packs];

  static __device__ norm_pack load(const norm_at<W>& norm, index_t col) {
    norm_pack out;
#pragma unroll
    for (int k = 0; k < packs; ++k) {
      out.weight[k] = packed<W>::load_shared(norm.weight + col + k * pack<W>);
      out.rate[k] = packed<W>::load_shared(norm.rate + col + k * pack<W>);
    }
    return out;
  }

  /// x, dx become their norm.
  __device__ void apply(const norm_factors<float>& factors, float offset, float (&x)[pack<T>],
                        float (&dx)[pack<T>]) const {
#pragma unroll
    for (int k = 0; k < packs; ++k) {
      float w[pack<W>], r[pack<W>];
      weight[k].widen(w);
      rate[k].widen(r);
#pragma unroll
      for (int e = 0; e < pack<W>; ++e) {
        const int i = k * pack<W> + e;
        const value_tangent<float> y = factors(x[i], dx[i], w[e] + offset, r[e]);
        x[i] = y.value;
        dx[i] = y.tangent;
      }
    }
  }
};

template <class T>
__device__ inline void add_to(norm_sums<float>& sums, const packed<T>& x, const packed<T>& dx) {
  float value[pack<T>], tangent[pack<T>];
  x.widen(value);
  dx.widen(tangent);
#pragma unroll
  for (int e = 0; e < pack<T>; ++e) sums.add(value[e], tangent[e]);
}

/// x, dx += h, dh, rounded to T.
template <class T>
__device__ inline void add_rounded(const float (&x)[pack<T>], const float (&dx)[pack<T>],
                                   packed<T>& h, packed<T>& dh) {
  float value[pack<T>], tangent[pack<T>];
  h.widen(value);
  dh.widen(tangent);
#pragma unroll
  for (int e = 0; e < pack<T>; ++e) {
    value[e] += x[e];
    tangent[e] += dx[e];
  }
  h = packed<T>::narrow(value);
  dh = packed<T>::narrow(tangent);
}

inline constexpr int most_norm_threads = 512;

/// A block per piece, V packs per thread.
template <norm_form Form, int V, class T, class W>
__global__ void __launch_bounds__(most_norm_threads) norm_rows(norm_task<T, W> task) {
  __shared__ float2 partial[2][32];
  const index_t piece = blockIdx.x;
  const index_t row = row_of_piece(piece, task.heads);
  const index_t begin = (piece - row * task.heads) * task.width;
  const auto col = [&](int v) {
    return (v * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * pack<T>;
  };
  packed<T> x[V], dx[V];
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (col(v) < task.width) {
      x[v] = packed<T>::load(task.x.value(row, begin + col(v)));
      dx[v] = packed<T>::load(task.x.tangent(row, begin + col(v)));
    }
  if constexpr (Form != norm_form::plain) {
    packed<T> h[V], dh[V];
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (col(v) < task.width) {
        h[v] = packed<T>::load(task.h.value(row, col(v)));
        dh[v] = packed<T>::load(task.h.tangent(row, col(v)));
      }
    norm_sums<float> sums;
    if constexpr (Form == norm_form::post) {
#pragma unroll
      for (int v = 0; v < V; ++v) add_to(sums, x[v], dx[v]);
      sums = sum_of_block(sums, partial[1]);
    }
    const norm_factors<float> factors(sums, task.width, task.post.epsilon);
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (col(v) < task.width) {
        float value[pack<T>], tangent[pack<T>];
        x[v].widen(value);
        dx[v].widen(tangent);
        if constexpr (Form == norm_form::post)
          norm_pack<T, W>::load(task.post, col(v)).apply(factors, task.post.offset, value, tangent);
        add_rounded<T>(value, tangent, h[v], dh[v]);
        x[v] = h[v];
        dx[v] = dh[v];
        h[v].store(task.h.value(row, col(v)));
        dh[v].store(task.h.tangent(row, col(v)));
      }
    if (task.y.values == nullptr) return;
  }
  norm_pack<T, W> early;  // where a thread has the registers: on its way while the sums are formed
  if constexpr (V == 1)
    if (col(0) < task.width) early = norm_pack<T, W>::load(task.norm, col(0));
  norm_sums<float> sums;
#pragma unroll
  for (int v = 0; v < V; ++v) add_to(sums, x[v], dx[v]);
  const norm_factors<float> factors(sum_of_block(sums, partial[0]), task.width, task.norm.epsilon);
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (col(v) < task.width) {
      float value[pack<T>], tangent[pack<T>];
      x[v].widen(value);
      dx[v].widen(tangent);
      const norm_pack<T, W> weights = V == 1 ? early : norm_pack<T, W>::load(task.norm, col(v));
      weights.apply(factors, task.norm.offset, value, tangent);
      packed<T>::narrow(value).store(task.y.value(row, begin + col(v)));
      packed<T>::narrow(tangent).store(task.y.tangent(row, begin + col(v)));
    }
}

/// Short pieces: 2^lane_bits lanes hold one, a pack each.
template <class T, class W>
__global__ void __launch_bounds__(256) norm_heads(norm_task<T, W> task, int lane_bits) {
  const int thread = static_cast<int>(threadIdx.x), lanes = 1 << lane_bits;
  const int col = (thread & (lanes - 1)) * pack<T>;
  const index_t piece = index_t{blockIdx.x} * (blockDim.x >> lane_bits) + (thread >> lane_bits);
  const index_t row = row_of_piece(piece, task.heads);
  const index_t begin = (piece - row * task.heads) * task.width + col;
  const bool mine = piece < task.pieces && col < task.width;
  packed<T> x, dx;
  norm_pack<T, W> weights;
  if (mine) {
    x = packed<T>::load(task.x.value(row, begin));
    dx = packed<T>::load(task.x.tangent(row, begin));
    weights = norm_pack<T, W>::load(task.norm, col);
  }
  norm_sums<float> sums;
  add_to(sums, x, dx);
  const norm_factors<float> factors(sum_of_lanes(sums, lanes), task.width, task.norm.epsilon);
  if (!mine) return;
  float value[pack<T>], tangent[pack<T>];
  x.widen(value);
  dx.widen(tangent);
  weights.apply(factors, task.norm.offset, value, tangent);
  packed<T>::narrow(value).store(task.y.value(row, begin));
  packed<T>::narrow(tangent).store(task.y.tangent(row, begin));
}

/// Any width and alignment: a block per piece, which reads it again (from the cache, as a rule).
template <norm_form Form, class T, class W>
__global__ void norm_any(norm_task<T, W> task) {
  __shared__ float2 partial[2][32];
  const index_t piece = blockIdx.x, row = row_of_piece(piece, task.heads);
  const index_t begin = (piece - row * task.heads) * task.width;
  const T* x = task.x.value(row, begin);
  const T* dx = task.x.tangent(row, begin);
  if constexpr (Form != norm_form::plain) {
    norm_sums<float> sums;
    if constexpr (Form == norm_form::post) {
      for (index_t i = threadIdx.x; i < task.width; i += blockDim.x)
        sums.add(widened(x[i]), widened(dx[i]));
      sums = sum_of_block(sums, partial[1]);
    }
    const norm_factors<float> factors(sums, task.width, task.post.epsilon);
    T* h = task.h.value(row, 0);
    T* dh = task.h.tangent(row, 0);
    for (index_t i = threadIdx.x; i < task.width; i += blockDim.x) {
      value_tangent<float> add{widened(x[i]), widened(dx[i])};
      if constexpr (Form == norm_form::post)
        add = factors(add.value, add.tangent, widened(task.post.weight[i]) + task.post.offset,
                      widened(task.post.rate[i]));
      h[i] = narrowed<T>(widened(h[i]) + add.value);
      dh[i] = narrowed<T>(widened(dh[i]) + add.tangent);
    }
    x = h;
    dx = dh;
    if (task.y.values == nullptr) return;
  }
  norm_sums<float> sums;
  for (index_t i = threadIdx.x; i < task.width; i += blockDim.x)
    sums.add(widened(x[i]), widened(dx[i]));
  const norm_factors<float> factors(sum_of_block(sums, partial[0]), task.width, task.norm.epsilon);
  T* y = task.y.value(row, begin);
  T* dy = task.y.tangent(row, begin);
  for (index_t i = threadIdx.x; i < task.width; i += blockDim.x) {
    const value_tangent<float> out =
        factors(widened(x[i]), widened(dx[i]), widened(task.norm.weight[i]) + task.norm.offset,
                widened(task.norm.rate[i]));
    y[i] = narrowed<T>(out.value);
    dy[i] = narrowed<T>(out.tangent);
  }
}

template <norm_form Form, class T, class W>
void launch_norm(const char* function, const exec::cuda& policy, const norm_task<T, W>& task) {
  using dualsft::detail::launch;
  if (task.pieces == 0 || task.width == 0) return;
  const index_t packs = task.width / pack<T>;
  const auto whole_warps = [](index_t threads) {
    return static_cast<unsigned>(32 * ((threads + 31) / 32));
  };
  const auto blocks = static_cast<unsigned>(task.pieces);
  if (!task.in_packs() || packs > 4 * most_norm_threads) {
    const unsigned threads = whole_warps(std::min<index_t>(task.width, 512));
    launch(function, policy, {blocks, threads}, norm_any<Form, T, W>, task);
  } else if (Form == norm_form::plain && packs <= 32) {
    if constexpr (Form == norm_form::plain) {
      const int lane_bits = std::bit_width(static_cast<unsigned>(packs) - 1);
      const index_t pieces_at_once = 256 >> lane_bits;
      const index_t groups = (task.pieces + pieces_at_once - 1) / pieces_at_once;
      launch(function, policy, {static_cast<unsigned>(groups), 256U}, norm_heads<T, W>, task,
             lane_bits);
    }
  } else if (packs <= 256) {
    launch(function, policy, {blocks, whole_warps(packs)}, norm_rows<Form, 1, T, W>, task);
  } else if (packs <= 512) {
    launch(function, policy, {blocks, whole_warps((packs + 1) / 2)}, norm_rows<Form, 2, T, W>,
           task);
  } else {
    launch(function, policy, {blocks, whole_warps((packs + 3) / 4)}, norm_rows<Form, 4, T, W>,
           task);
  }
}

}  // namespace dualsft::llm::detail
