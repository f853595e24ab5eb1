// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cub/block/block_reduce.cuh>
#include <dualsft/detail/device_scores.hpp>
#include <dualsft/detail/device_topk.hpp>
#include <dualsft/execution.cuh>
#include <type_traits>

/// The primitives of device_topk.hpp as kernels.
namespace dualsft::detail {

inline constexpr int topk_threads = 256;
inline constexpr int topk_row = 4;  // neighbouring places of a thread: one address serves them all
inline constexpr index_t topk_share = index_t{topk_threads} * topk_row;

/// each(i, what was loaded, whether i < n) for i in [0, n) and, so that warps stay together, some beyond.
/// Shares of coordinates are dealt out to the blocks in turn. Loads come before what is done with them, so
/// that all are under way at once; narrow ones take two shares at a time: 32 bytes per thread, 32 KiB per
/// multiprocessor, are what keeps the memory busy.
template <class Scores, class Each>
__device__ void for_each_score(const Scores& scores, index_t n, const Each& each) {
  using inputs = score_inputs<Scores>;
  constexpr int shares = sizeof(inputs) <= 8 ? 2 : 1, at_once = shares * topk_row;
  const index_t stride = index_t{gridDim.x} * topk_share;
  for (index_t begin = blockIdx.x * topk_share; begin < n; begin += shares * stride) {
    int left[shares];  // of a share, from this thread's first place on
#pragma unroll
    for (int s = 0; s < shares; ++s) {
      const index_t all = n - begin - s * stride;
      left[s] = static_cast<int>(all < topk_share ? all > 0 ? all : 0 : topk_share) -
                static_cast<int>(threadIdx.x);
    }
    const auto place = [&](int u) {
      return begin + threadIdx.x + u / topk_row * stride + u % topk_row * topk_threads;
    };
    const auto is_there = [&](int u) { return u % topk_row * topk_threads < left[u / topk_row]; };
    inputs loaded[at_once];
#pragma unroll
    for (int u = 0; u < at_once; ++u)
      if (is_there(u)) loaded[u] = load_score(scores, place(u));
#pragma unroll
    for (int u = 0; u < at_once; ++u) each(place(u), loaded[u], is_there(u));
  }
}

/// Fixed by the size: what a block sees depends on no device. At most 2048, in which the four blocks that
/// a multiprocessor holds take 3.9 turns on 132 of them: the last turn is nearly full too.
inline unsigned blocks_for(index_t n) {
  return static_cast<unsigned>(std::clamp<index_t>((n + topk_share - 1) / topk_share, 1, 2048));
}

/// Where a sweep puts what lies in its bracket: a segment per block of threads.
struct near_segments {
  double* scores = nullptr;
  index_t* indices = nullptr;
  unsigned* filled = nullptr;  // [blocks]; more than the segment holds: the rest was lost
  unsigned segment = 0;        // 0: nothing is kept
};

/// Coordinates of scores that count from `begin`.
struct counted_indices {
  index_t begin;
  __device__ index_t operator()(index_t i) const { return begin + i; }
};
struct stored_indices {
  const index_t* indices;
  __device__ index_t operator()(index_t i) const { return indices[i]; }
};

inline constexpr std::size_t most_part_bytes = 128;

struct add_parts {
  template <class Facts>
  __device__ swept_part<Facts> operator()(swept_part<Facts> a, const swept_part<Facts>& b) const {
    a.add(b);
    return a;
  }
};
struct add_counts {
  __device__ index_t operator()(index_t a, index_t b) const { return a + b; }
};

template <class Scores, class Indices>
__global__ void __launch_bounds__(topk_threads, 4)
    sweep_scores(Scores scores, Indices index_of, index_t n, score_bracket range,
                 swept_part<facts_of<Scores>>* parts, near_segments to) {
  __shared__ unsigned filled;
  if (threadIdx.x == 0) filled = to.segment > 0 ? to.filled[blockIdx.x] : 0;
  __syncthreads();
  using part = swept_part<facts_of<Scores>>;
  part mine{};
  for_each_score(scores, n, [&](index_t i, const score_inputs<Scores>& loaded, bool there) {
    if (!there) return;
    double score;
    if constexpr (std::is_same_v<facts_of<Scores>, no_facts>)
      score = score_of(scores, i, loaded);
    else
      score = scores.form(i, loaded, mine.facts);
    if (!mine.tally.add(score, range) || to.segment == 0) return;
    const unsigned slot = atomicAdd(&filled, 1U);
    if (slot >= to.segment) return;
    const index_t at = index_t{blockIdx.x} * to.segment + slot;
    to.scores[at] = score;
    to.indices[at] = index_of(i);
  });
  using reduction = cub::BlockReduce<part, topk_threads>;
  __shared__ typename reduction::TempStorage storage;
  const part all = reduction(storage).Reduce(mine, add_parts{});
  __syncthreads();
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = all;
    if (to.segment > 0) to.filled[blockIdx.x] = filled;
  }
}

template <class Scores>
__global__ void read_scores(Scores scores, const index_t* places, index_t count, index_t run,
                            double* out) {
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t k = index_t{blockIdx.x} * blockDim.x + threadIdx.x; k < count * run; k += stride)
    out[k] = scores(places[k / run] + k % run);
}

/// A block of threads per chunk.
template <class Scores>
__global__ void count_equal_scores(Scores scores, index_t n, double x, index_t chunk,
                                   index_t* counts) {
  const index_t begin = blockIdx.x * chunk;
  const index_t end = begin + chunk < n ? begin + chunk : n;
  index_t mine = 0;
  for (index_t i = begin + threadIdx.x; i < end; i += blockDim.x) mine += scores(i) == x ? 1 : 0;
  using reduction = cub::BlockReduce<index_t, topk_threads>;
  __shared__ typename reduction::TempStorage storage;
  const index_t all = reduction(storage).Reduce(mine, add_counts{});
  if (threadIdx.x == 0) counts[blockIdx.x] = all;
}

inline constexpr int most_digit_bits = 12;

/// counts [2^bits] must be 0. Each block counts in shared memory: scores crowd in few digits.
template <class Scores>
__global__ void count_score_digits(Scores scores, index_t n, std::uint64_t prefix, int shift,
                                   int bits, unsigned long long* counts) {
  __shared__ unsigned mine[1 << most_digit_bits];
  const int buckets = 1 << bits;
  for (int b = static_cast<int>(threadIdx.x); b < buckets; b += topk_threads) mine[b] = 0;
  __syncthreads();
  for_each_score(scores, n, [&](index_t i, const score_inputs<Scores>& loaded, bool there) {
    const double score = there ? score_of(scores, i, loaded) : 0;
    if (!there || score != score) return;
    const std::uint64_t key = order_key(score) >> shift;
    if (bits + shift == 64 || key >> bits == prefix)
      atomicAdd(&mine[key & static_cast<std::uint64_t>(buckets - 1)], 1U);
  });
  __syncthreads();
  for (int b = static_cast<int>(threadIdx.x); b < buckets; b += topk_threads)
    if (mine[b] > 0) atomicAdd(&counts[b], static_cast<unsigned long long>(mine[b]));
}

/// What the segments hold, one behind the other: block b's from begins[b] on.
template <int Threads>
__global__ void gather_segments(near_segments from, const index_t* begins, placed_score* out) {
  const unsigned count = from.filled[blockIdx.x];
  for (unsigned i = threadIdx.x; i < count; i += Threads) {
    const index_t at = index_t{blockIdx.x} * from.segment + i;
    out[begins[blockIdx.x] + i] = {from.scores[at], from.indices[at]};
  }
}

}  // namespace dualsft::detail
