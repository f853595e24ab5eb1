// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/ghost_device.cuh>
#include <dualsft/detail/launch.cuh>

/// From the parts of each token's dot to scores, in double and always in the same order: a warp adds a
/// token's runs, then a block adds an example's tokens. Tokens of an example lie as a rule next to each
/// other, but any order gives the right sum: the first step notes the first and the last token of each
/// example, the second looks at those between.
namespace dualsft::detail {

constexpr unsigned long long no_token = ~0ull;

/// One per example; between two uses {no_token, 0}.
struct token_range {
  unsigned long long first, end;
};

/// The least tokens whose id, or example, was out of range; no_token if none.
struct bad_tokens {
  unsigned long long id, example;
};

template <class Range>
__global__ void reset_ghost_ranges(Range* ranges, index_t batch, bad_tokens* bad) {
  const index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < batch) ranges[i] = {no_token, 0};
  if (i == 0) *bad = {no_token, no_token};
}

/// tokens[t] = the sum over runs of partial[run * rows + t], for `rows` tokens from `first` on.
template <class Part>
__global__ void __launch_bounds__(256)
    sum_runs_kernel(const Part* partial, index_t runs, index_t rows, index_t first,
                    const index_t* examples, index_t count, index_t batch, double* tokens,
                    token_range* ranges, bad_tokens* bad) {
  const index_t row = static_cast<index_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  if (row >= rows) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  double sum = 0;
  for (index_t run = lane; run < runs; run += 32)
    sum += static_cast<double>(partial[run * rows + row]);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (lane != 0) return;
  const index_t t = first + row, example = examples[t];
  tokens[t] = sum;
  if (example < 0 || example >= batch) {
    atomicMin(&bad->example, static_cast<unsigned long long>(t));
    return;
  }
  if (t == 0 || examples[t - 1] != example)
    atomicMin(&ranges[example].first, static_cast<unsigned long long>(t));
  if (t + 1 == count || examples[t + 1] != example)
    atomicMax(&ranges[example].end, static_cast<unsigned long long>(t + 1));
}

constexpr unsigned most_sum_threads = 1024;

/// Threads of a block that adds an example's tokens, 4 to a thread if there are as many as on average.
inline unsigned sum_threads(index_t tokens, index_t batch) {
  unsigned threads = 64;
  while (threads < most_sum_threads && index_t{threads} * 4 * batch < tokens) threads *= 2;
  return threads;
}

/// scores[i] += the sum of tokens[t] over the t of example i = blockIdx.x.
template <class Sum>
__global__ void __launch_bounds__(most_sum_threads)
    sum_tokens_kernel(const Sum* tokens, const index_t* examples, double* scores,
                      index_t scores_stride, token_range* ranges) {
  constexpr int together = 4;  // loads in flight
  __shared__ Sum sums[most_sum_threads];
  const index_t example = blockIdx.x;
  const token_range range = ranges[example];
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const auto end = static_cast<index_t>(range.end);  // 0 if there is no token
  Sum sum = 0;
  for (index_t t = end > 0 ? static_cast<index_t>(range.first) + thread : end; t < end;
       t += together * threads) {
    index_t of[together];
    Sum x[together];
#pragma unroll
    for (int i = 0; i < together; ++i) {
      const index_t at = t + i * threads;
      of[i] = at < end ? examples[at] : -1;
      x[i] = at < end ? tokens[at] : Sum{0};
    }
#pragma unroll
    for (int i = 0; i < together; ++i)
      if (of[i] == example) sum += x[i];
  }
  sums[thread] = sum;
  __syncthreads();
  for (int half = threads / 2; half > 0; half /= 2) {
    if (thread < half) sums[thread] += sums[thread + half];
    __syncthreads();
  }
  if (thread != 0 || end == 0) return;
  scores[example * scores_stride] += sums[0];
  ranges[example] = {no_token, 0};
}

}  // namespace dualsft::detail
