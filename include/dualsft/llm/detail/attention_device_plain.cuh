// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/detail/launch.cuh>
#include <dualsft/llm/detail/attention_device_tile.cuh>

/// Attention in plain float arithmetic: for small models, and to compare with.
namespace dualsft::llm::detail {

/// A warp: one query of one head, key after key; a lane has every 32nd column. The sums are those of
/// attention_warp, with c = 0.
template <bool Tangent>
__global__ void __launch_bounds__(128) plain_attention(attention_arguments<float> a, index_t rows) {
  constexpr int each = 8;  // columns of a lane
  constexpr unsigned warp = 0xffffffffU;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const index_t task = static_cast<index_t>(blockIdx.x) * 4 + threadIdx.x / 32;
  const index_t row = task / a.heads, head = task % a.heads;
  if (row >= rows) return;
  const index_t s = last_not_above(a.sequences, row, [&](index_t at) { return a.starts[at]; });
  const index_t start = a.starts[s];
  const index_t query_at = head * a.head_size, key_at = head / a.group * a.head_size;
  const auto read = [&](float(&to)[each], const strided_rows<const float>& m, index_t i,
                        index_t at) {
    for (int n = 0; n < each; ++n)
      to[n] = lane + 32 * n < a.head_size ? m.row(i)[at + lane + 32 * n] : 0.0F;
  };
  const auto dot = [&](const float(&x)[each], const float(&y)[each]) {
    float sum = 0;
    for (int n = 0; n < each; ++n) sum = fmaf(x[n], y[n], sum);
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(warp, sum, step);
    return sum;
  };

  float q[each], rq[each], k[each], rk[each], v[each], rv[each], o[each] = {}, u[each] = {};
  float top = -INFINITY, l = 0, w = 0;
  read(q, a.q, row, query_at);
  if constexpr (Tangent) read(rq, a.tangent_q, row, query_at);
  const index_t window_start = a.window > 0 ? row - a.window + 1 : start;
  for (index_t j = window_start > start ? window_start : start; j <= row; ++j) {
    read(k, a.k, j, key_at);
    read(v, a.v, j, key_at);
    const float z = dot(q, k) * a.scale;
    const float next = fmaxf(top, z), zero = next == -INFINITY ? 0.0F : next;
    const float factor = expf(top - zero), e = expf(z - zero);
    top = next;
    l = fmaf(l, factor, e);
    float x = 0;
    if constexpr (Tangent) {
      read(rk, a.tangent_k, j, key_at);
      read(rv, a.tangent_v, j, key_at);
      x = e * (dot(rq, k) + dot(q, rk)) * a.scale;
      w = fmaf(w, factor, x);
    }
    for (int n = 0; n < each; ++n) {
      o[n] = fmaf(o[n], factor, e * v[n]);
      if constexpr (Tangent) u[n] = fmaf(u[n], factor, fmaf(x, v[n], e * rv[n]));
    }
  }
  for (int n = 0; n < each; ++n) {
    const index_t column = query_at + lane + 32 * n;
    if (lane + 32 * n >= a.head_size) continue;
    const float y = o[n] / l;
    a.o.row(row)[column] = y;
    if constexpr (Tangent) a.tangent_o.row(row)[column] = (u[n] - w * y) / l;
  }
}

template <bool Tangent>
void launch_plain_attention(const char* function, const exec::cuda& policy,
                            const attention_arguments<float>& a, index_t rows) {
  const index_t blocks = (rows * a.heads + 3) / 4;
  expects(blocks <= 0x7fffffff, function, "there can be 2^33 queries of all heads together",
          "queries", rows * a.heads);
  dualsft::detail::launch(function, policy, {dim3(static_cast<unsigned>(blocks)), dim3(128)},
                          plain_attention<Tangent>, a, rows);
}

}  // namespace dualsft::llm::detail
