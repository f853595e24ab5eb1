// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/llm/detail/tangent_device_rows.cuh>
#include <limits>

/// The loss and its tangent, from one read of logits and their tangents; and means over examples.
namespace dualsft::llm::detail {

template <class T, class Label>
struct nll_task {
  rows_at<const T> z;
  const Label* labels = nullptr;
  index_t first = 0, vocabulary = 0;  ///< the columns' place in the vocabulary
  int cols = 0, packs = 0;            ///< packs: 0 where rows are not aligned
  nll_row* sums = nullptr;            ///< what was found in other columns, to be added to; or null:
  double* nll = nullptr;              ///< these are all
  double* rate = nullptr;
};

/// A block per row.
template <class T, class Label>
__global__ void __launch_bounds__(512, 3) nll_columns(nll_task<T, Label> task) {
  __shared__ float tops[32];
  __shared__ double2 parts[32];
  const index_t row = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int lane = thread % 32, warp = thread / 32, warps = threads / 32;
  const auto label = static_cast<index_t>(task.labels[row]);
  if (label < 0) {  // ignored, and not read
    if (thread == 0 && task.sums == nullptr) task.nll[row] = task.rate[row] = 0;
    return;
  }
  const T* z = task.z.value(row, 0);
  const T* dz = task.z.tangent(row, 0);
  nll_row known;
  if (thread == 0) {  // asked for here, so that nobody waits for it behind the loop
    if (task.sums != nullptr) known = task.sums[row];
    if (const index_t at = label - task.first; 0 <= at && at < task.cols) {
      known.label = widened(z[at]);
      known.label_rate = widened(dz[at]);
    }
    if (label >= task.vocabulary)
      known.label = known.label_rate = std::numeric_limits<float>::quiet_NaN();
  }

  softmax_sums<float> mine;
  constexpr int at_once = 2;  // pairs of loads in flight
  for (int p = thread; p < task.packs; p += at_once * threads) {
    packed<T> values[at_once], tangents[at_once];
#pragma unroll
    for (int u = 0; u < at_once; ++u)
      if (p + u * threads < task.packs) {
        values[u] = packed<T>::load(z + index_t{p + u * threads} * pack<T>);
        tangents[u] = packed<T>::load(dz + index_t{p + u * threads} * pack<T>);
      }
#pragma unroll
    for (int u = 0; u < at_once; ++u)
      if (p + u * threads < task.packs) {
        float x[pack<T>], dx[pack<T>];
        values[u].widen(x);
        tangents[u].widen(dx);
        float top = x[0];
#pragma unroll
        for (int e = 1; e < pack<T>; ++e) top = fmaxf(top, x[e]);
        if (top > mine.top) mine.raise(top);
#pragma unroll
        for (int e = 0; e < pack<T>; ++e) mine.add(x[e], dx[e]);
      }
  }
  for (int i = task.packs * pack<T> + thread; i < task.cols; i += threads) {
    const float x = widened(z[i]);
    if (x > mine.top) mine.raise(x);
    mine.add(x, widened(dz[i]));
  }

  float top = mine.top;
  for (int offset = 16; offset > 0; offset /= 2)
    top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, offset));
  if (lane == 0) tops[warp] = top;
  __syncthreads();
  for (int w = 0; w < warps; ++w) top = fmaxf(top, tops[w]);
  const auto shrink = static_cast<double>(std::exp(mine.top - top));
  double sum = shrink * static_cast<double>(mine.sum);
  double weighted = shrink * static_cast<double>(mine.weighted);
  for (int offset = 16; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(0xffffffffU, sum, offset);
    weighted += __shfl_xor_sync(0xffffffffU, weighted, offset);
  }
  if (lane == 0) parts[warp] = make_double2(sum, weighted);
  __syncthreads();
  if (thread > 0) return;
  for (int w = 1; w < warps; ++w) {
    sum += parts[w].x;
    weighted += parts[w].y;
  }
  known.add(top, sum, weighted);
  if (task.sums != nullptr) {
    task.sums[row] = known;
  } else {
    task.nll[row] = known.nll();
    task.rate[row] = known.rate();
  }
}

template <class T, class Label>
void launch_nll(const char* function, const exec::cuda& policy, index_t rows,
                nll_task<T, Label> task) {
  if (rows == 0) return;
  task.packs = is_aligned(task.z) ? task.cols / pack<T> : 0;
  const int units = task.packs > 0 ? task.packs : task.cols;
  const int threads = std::clamp((units / 2 + 31) / 32 * 32, 32, 512);
  dualsft::detail::launch(function, policy,
                          {static_cast<unsigned>(rows), static_cast<unsigned>(threads)},
                          nll_columns<T, Label>, task);
}

template <class Row>
__global__ void reset_rows(Row* sums, index_t rows) {
  const index_t row = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row < rows) sums[row] = {};
}

template <class Label>
__global__ void finish_nll_rows(const nll_row* sums, const Label* labels, index_t rows, double* nll,
                                double* rate) {
  const index_t row = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const bool used = labels[row] >= 0;
  nll[row] = used ? sums[row].nll() : 0;
  rate[row] = used ? sums[row].rate() : 0;
}

/// A warp per example.
template <class Label>
__global__ void mean_over_examples(const double* values, const Label* labels, const index_t* begins,
                                   index_t examples, double* means) {
  const index_t example = index_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
  if (example >= examples) return;  // whole warps
  double sum = 0, count = 0;
  for (index_t t = begins[example] + threadIdx.x % 32; t < begins[example + 1]; t += 32)
    if (labels[t] >= 0) {
      sum += values[t];
      count += 1;
    }
  for (int offset = 16; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(0xffffffffU, sum, offset);
    count += __shfl_xor_sync(0xffffffffU, count, offset);
  }
  if (threadIdx.x % 32 == 0) means[example] = sum / count;
}

}  // namespace dualsft::llm::detail
