// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cub/block/block_reduce.cuh>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/detail/launch.cuh>
#include <dualsft/detail/topk_kernels.cuh>
#include <dualsft/execution.cuh>
#include <span>
#include <vector>

/// What becomes of a selection: the words of a mask, and how many of their bits are set.
namespace dualsft::detail {

/// A warp per word of 32 coordinates.
template <class Scores>
__global__ void __launch_bounds__(topk_threads, 4)
    write_mask_words(Scores scores, index_t n, selection_test test, index_t first,
                     std::uint32_t* words) {
  for_each_score(scores, n, [&](index_t i, const score_inputs<Scores>& loaded, bool there) {
    const bool chosen = there && test(score_of(scores, i, loaded), first + i);
    const std::uint32_t bits = __ballot_sync(0xffffffffU, chosen);
    if (there && i % 32 == 0) words[i / 32] = bits;
  });
}

template <class Scores>
void launch_write_mask(const exec::cuda& policy, const Scores& scores, const selection_test& test,
                       index_t first, std::uint32_t* words) {
  if (scores.size() == 0) return;
  launch("write_mask", policy, {blocks_for(scores.size()), topk_threads}, write_mask_words<Scores>,
         scores, scores.size(), test, first, words);
}

/// counts[r] += set bits in [begins[r], begins[r + 1]); blockIdx.y is r.
template <int Threads>
__global__ void count_set_bits(const std::uint32_t* words, const index_t* begins,
                               unsigned long long* counts) {
  const index_t begin = begins[blockIdx.y], end = begins[blockIdx.y + 1];
  if (begin == end) return;
  index_t mine = 0;
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t w = begin / 32 + index_t{blockIdx.x} * blockDim.x + threadIdx.x; w <= (end - 1) / 32;
       w += stride) {
    std::uint32_t word = words[w];
    if (w == begin / 32) word &= 0xffffffffU << (begin % 32);
    if (w == (end - 1) / 32) word &= 0xffffffffU >> (31 - (end - 1) % 32);
    mine += __popc(word);
  }
  using reduction = cub::BlockReduce<index_t, Threads>;
  __shared__ typename reduction::TempStorage storage;
  const index_t all = reduction(storage).Reduce(mine, add_counts{});
  if (threadIdx.x == 0 && all > 0)
    atomicAdd(&counts[blockIdx.y], static_cast<unsigned long long>(all));
}

/// A grid's second side has no room for more.
inline constexpr std::size_t most_counted_ranges = 65535;

/// counts[r] becomes the set bits of range r: of as many ranges as fit one grid.
/// \param begins  [ranges + 1], on the device as the rest
inline void launch_count_bits(const exec::cuda& policy, const std::uint32_t* words,
                              const index_t* begins, std::size_t ranges, index_t* counts) {
  static_assert(sizeof(unsigned long long) == sizeof(index_t));
  if (ranges == 0) return;
  // Blocks that share a range; of thousands of ranges each is small.
  const auto columns = static_cast<unsigned>(std::clamp<std::size_t>(16384 / ranges, 1, 64));
  cuda_check(cudaMemsetAsync(counts, 0, ranges * sizeof(index_t), policy.stream), "count_selected");
  launch("count_selected", policy, {dim3(columns, static_cast<unsigned>(ranges)), topk_threads},
         count_set_bits<topk_threads>, words, begins,
         reinterpret_cast<unsigned long long*>(counts));
}

/// Of the ranges between neighbouring begins, with memory of its own.
inline std::vector<index_t> count_bits(const exec::cuda& policy, const std::uint32_t* words,
                                       const std::vector<index_t>& begins) {
  const std::size_t ranges = begins.size() - 1;
  const device_array<index_t> counts(policy, static_cast<index_t>(ranges));
  const device_array<index_t> places(policy, std::span<const index_t>(begins));
  for (std::size_t first = 0; first < ranges; first += most_counted_ranges)
    launch_count_bits(policy, words, places.data() + first,
                      std::min(most_counted_ranges, ranges - first), counts.data() + first);
  return counts.to_host();
}

}  // namespace dualsft::detail
