// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/detail/launch.cuh>
#include <dualsft/topk.cuh>
#include <vector>

#include "device_inputs.cuh"

namespace dualsft::bench {

/// The bits of x as a number in x's order; not for NaN.
DUALSFT_HOST_DEVICE inline unsigned long long ordered(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  return (bits >> 63) != 0 ? ~bits : bits | 0x8000000000000000U;
}

/// counts: scores above kth; equal to it; the largest below, as ordered().
template <class Scores>
__global__ void count_around(Scores scores, index_t n, double kth, unsigned long long* counts) {
  unsigned long long above = 0, equal = 0, below = 0;
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const double score = scores(i);
    if (score > kth) ++above;
    if (score == kth) ++equal;
    if (score < kth && ordered(score) > below) below = ordered(score);
  }
  atomicAdd(&counts[0], above);
  atomicAdd(&counts[1], equal);
  atomicMax(&counts[2], below);
}

/// counts: bits set; bits that the definition has otherwise.
template <class Scores>
__global__ void compare_mask(Scores scores, index_t n, double kth, index_t last_tie,
                             const std::uint32_t* words, unsigned long long* counts) {
  unsigned long long set = 0, wrong = 0;
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const bool chosen = ((words[i / 32] >> (i % 32)) & 1U) != 0;
    const double score = scores(i);
    const bool right = score > kth || (score == kth && i <= last_tie);
    set += chosen ? 1 : 0;
    wrong += chosen != right ? 1 : 0;
  }
  atomicAdd(&counts[0], set);
  atomicAdd(&counts[1], wrong);
}

/// Scores above kth, equal to it, and the largest below as ordered().
template <class Scores>
std::vector<unsigned long long> around(const exec::cuda& policy, const Scores& scores, double kth) {
  detail::device_array<unsigned long long> counts(policy, 3);
  counts.fill_bytes(0);
  detail::launch("bench", policy, {blocks_for(scores.size()), 256}, count_around<Scores>, scores,
                 scores.size(), kth, counts.data());
  return counts.to_host();
}

/// Whether a mask has exactly `count` bits, those above kth and those equal to it up to last_tie.
template <class Scores>
bool is_right_mask(const exec::cuda& policy, const Scores& scores, index_t count, double kth,
                   index_t last_tie, const std::uint32_t* words) {
  detail::device_array<unsigned long long> counts(policy, 2);
  counts.fill_bytes(0);
  detail::launch("bench", policy, {blocks_for(scores.size()), 256}, compare_mask<Scores>, scores,
                 scores.size(), kth, last_tie, words, counts.data());
  const std::vector<unsigned long long> bits = counts.to_host();
  return static_cast<index_t>(bits[0]) == count && bits[1] == 0;
}

/// Whether a selection is what its definition says: as many above kth as may be, the next value right,
/// and exactly the lowest of those that tie.
/// \param scores  as they are compared
/// \param words   the mask, or null
template <class Scores>
bool is_right_selection(const exec::cuda& policy, const Scores& scores, index_t k,
                        const device_topk_result& found, const std::uint32_t* words = nullptr) {
  const index_t n = scores.size();
  if (found.selected != k || !found.summary.kth) return false;
  const double kth = *found.summary.kth;
  const std::vector<unsigned long long> counts = around(policy, scores, kth);
  const auto above = static_cast<index_t>(counts[0]), equal = static_cast<index_t>(counts[1]);
  if (above >= k || above + equal < k) return false;
  if (k < n && (!found.summary.next ||
                ordered(*found.summary.next) != (above + equal > k ? ordered(kth) : counts[2])))
    return false;
  return words == nullptr || is_right_mask(policy, scores, k, kth, found.test.last_tie, words);
}

}  // namespace dualsft::bench
