// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/detail/launch.cuh>
#include <utility>
#include <vector>

#include "../support/device_inputs.cuh"

/// The K-th largest key by counting digits, the highest first: what the ladders of Top-K and of the
/// projection climb from.
namespace dualsft::ladder {

constexpr unsigned threads = 256;
constexpr int most_digit_bits = 12;

/// A float as a number in its order; not for NaN.
DUALSFT_HOST_DEVICE inline unsigned long long ordered_float(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
}
inline float float_of(unsigned long long key) {
  const auto bits = static_cast<std::uint32_t>(key);
  return std::bit_cast<float>((bits >> 31) != 0 ? bits & 0x7fffffffU : ~bits);
}
inline double double_of(unsigned long long key) {
  return std::bit_cast<double>((key >> 63) != 0 ? key & 0x7fffffffffffffffU : ~key);
}

/// The digit of `bits` bits above the lowest `shift`, of keys whose higher digits are `prefix`.
struct digit {
  unsigned long long prefix = 0;
  int shift = 0, bits = 0;

  DUALSFT_HOST_DEVICE bool holds(unsigned long long key) const {
    return shift + bits == 64 || key >> (shift + bits) == prefix;
  }
  DUALSFT_HOST_DEVICE unsigned of(unsigned long long key) const {
    return static_cast<unsigned>(key >> shift) & ((1U << bits) - 1);
  }
};

template <class Keys>
__global__ void count_in_memory(Keys keys, index_t n, digit at, unsigned long long* counts) {
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const unsigned long long key = keys(i);
    if (at.holds(key)) atomicAdd(&counts[at.of(key)], 1ULL);
  }
}

/// A block's counts, added to all of them at its end. Every thread of the block calls it.
__device__ inline void add_counts(const unsigned* mine, const digit& at,
                                  unsigned long long* counts) {
  __syncthreads();
  for (unsigned b = threadIdx.x; b < 1U << at.bits; b += blockDim.x)
    if (mine[b] > 0) atomicAdd(&counts[b], static_cast<unsigned long long>(mine[b]));
}
__device__ inline void clear_counts(unsigned* mine, const digit& at) {
  for (unsigned b = threadIdx.x; b < 1U << at.bits; b += blockDim.x) mine[b] = 0;
  __syncthreads();
}

template <class Keys>
__global__ void count_in_shared(Keys keys, index_t n, digit at, unsigned long long* counts) {
  __shared__ unsigned mine[1 << most_digit_bits];
  clear_counts(mine, at);
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const unsigned long long key = keys(i);
    if (at.holds(key)) atomicAdd(&mine[at.of(key)], 1U);
  }
  add_counts(mine, at, counts);
}

/// The search as the host sees it: which digit is next, and how many are wanted of its keys.
class radix_search {
 public:
  radix_search(const exec::cuda& policy, int key_bits, int digit_bits, index_t k)
      : policy_(policy),
        counts_(policy, index_t{1} << most_digit_bits),
        digit_bits_(digit_bits),
        left_(key_bits),
        wanted_(k) {}

  bool done() const { return left_ == 0; }
  digit next() {
    const int bits = left_ < digit_bits_ ? left_ : digit_bits_;
    counts_.fill_bytes(0);
    return {prefix_, left_ - bits, bits};
  }
  unsigned long long* counts() const { return counts_.data(); }

  /// After its counts are there. Waits for the stream.
  void choose(const digit& at) {
    const std::vector<unsigned long long> counts = counts_.to_host();
    std::size_t bucket = (std::size_t{1} << at.bits) - 1;
    while (static_cast<index_t>(counts[bucket]) < wanted_ && bucket > 0)
      wanted_ -= static_cast<index_t>(counts[bucket--]);
    prefix_ = prefix_ << at.bits | bucket;
    left_ = at.shift;
    in_bucket_ = static_cast<index_t>(counts[bucket]);
  }

  unsigned long long prefix() const { return prefix_; }  ///< when done: the K-th key
  index_t in_bucket() const { return in_bucket_; }

  template <class Keys>
  using kernel = void (*)(Keys, index_t, digit, unsigned long long*);

  template <class Keys>
  void pass(kernel<Keys> count, const Keys& keys, index_t n) {
    const digit at = next();
    detail::launch("ladder", policy_, {bench::blocks_for(n), threads}, count, keys, n, at,
                   counts());
    choose(at);
  }

 private:
  exec::cuda policy_;
  detail::device_array<unsigned long long> counts_;
  int digit_bits_, left_;
  index_t wanted_;
  unsigned long long prefix_ = 0;
  index_t in_bucket_ = 0;
};

}  // namespace dualsft::ladder
