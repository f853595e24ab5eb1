// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <dualsft/cwsd.hpp>
#include <dualsft/detail/cwsd_device.hpp>
#include <dualsft/detail/launch.cuh>

/// What is done per anchor before and after its rows of logits are read: a block of threads for each.
namespace dualsft::detail {

inline constexpr int anchor_threads = 128;

/// x of all threads added in a fixed order; barriers around it.
template <class Real>
__device__ Real sum_over_anchor(Real x, Real* shared) {
  __syncthreads();  // the sum before may still be read
  shared[threadIdx.x] = x;
  for (unsigned half = anchor_threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  __syncthreads();
  return shared[0];
}

/// Every row of an anchor gets factor / T_x, or is ignored.
/// \param labels  null: all rows count
template <class Label>
__global__ void __launch_bounds__(anchor_threads)
    give_tasks(const index_t* begins, const Label* labels, double factor, row_task* tasks) {
  __shared__ index_t shared[anchor_threads];
  const index_t begin = begins[blockIdx.x], end = begins[blockIdx.x + 1];
  const auto counts = [&](index_t row) {
    return labels == nullptr || labels[row] != static_cast<Label>(cwsd_ignored_label);
  };
  index_t counted = 0;
  for (index_t row = begin + threadIdx.x; row < end; row += anchor_threads)
    counted += counts(row) ? 1 : 0;
  counted = sum_over_anchor(counted, shared);
  for (index_t row = begin + threadIdx.x; row < end; row += anchor_threads)
    tasks[row] = counts(row)
                     ? row_task{static_cast<float>(factor / static_cast<double>(counted)), 1}
                     : row_task{0, 0};
}

struct anchor_inputs {
  const index_t* begins = nullptr;
  const row_record* records = nullptr;
  row_task* tasks = nullptr;
  cwsd_rule rule;
  index_t classes = 0;
};

/// The anchor of this block; all zeros where no row counts.
__device__ inline cwsd_anchor read_anchor(const anchor_inputs& in) {
  __shared__ double shared[anchor_threads];
  double counted = 0;
  row_statistics sum;
  for (index_t row = in.begins[blockIdx.x] + threadIdx.x; row < in.begins[blockIdx.x + 1];
       row += anchor_threads) {
    if (in.tasks[row].counted == 0) continue;
    const row_statistics found = statistics_of(in.records[row]);
    counted += 1;
    sum.divergence += found.divergence;
    sum.entropy += found.entropy;
    sum.top += found.top;
  }
  counted = sum_over_anchor(counted, shared);
  sum.divergence = sum_over_anchor(sum.divergence, shared);
  sum.entropy = sum_over_anchor(sum.entropy, shared);
  sum.top = sum_over_anchor(sum.top, shared);
  if (counted == 0) return {};
  cwsd_anchor anchor;
  anchor.divergence = sum.divergence / counted;
  anchor.weight = confidence_of(in.rule, sum.entropy / counted, sum.top / counted, in.classes);
  anchor.loss = anchor.weight * in.rule.tau * in.rule.tau * anchor.divergence;
  return anchor;
}

/// w(x) into the factors of its rows.
template <int threads>
__global__ void __launch_bounds__(threads) weigh_tasks(anchor_inputs in) {
  const auto weight = static_cast<float>(read_anchor(in).weight);
  for (index_t row = in.begins[blockIdx.x] + threadIdx.x; row < in.begins[blockIdx.x + 1];
       row += threads)
    in.tasks[row].factor *= weight;
}

/// \param row_scales  null, or w(x) for every row that counts and 0 for the others
template <int threads>
__global__ void __launch_bounds__(threads)
    finish_anchors(anchor_inputs in, cwsd_anchor* anchors, float* row_scales) {
  const cwsd_anchor anchor = read_anchor(in);
  if (threadIdx.x == 0) anchors[blockIdx.x] = anchor;
  if (row_scales == nullptr) return;
  for (index_t row = in.begins[blockIdx.x] + threadIdx.x; row < in.begins[blockIdx.x + 1];
       row += threads)
    row_scales[row] = in.tasks[row].counted != 0 ? static_cast<float>(anchor.weight) : 0;
}

}  // namespace dualsft::detail
