// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/detail/launch.cuh>
#include <dualsft/float16.hpp>
#include <vector>

/// Numbers that host and device make alike from their index, so that a check at billions of them needs
/// no copy. Every operation is exact.
namespace dualsft::bench {

enum class spread { normal, heavy_tailed, zeros, all_equal };

inline const char* name_of(spread how) {
  constexpr const char* names[] = {"normal", "heavy_tailed", "95%_zero", "all_equal"};
  return names[static_cast<int>(how)];
}

DUALSFT_HOST_DEVICE inline std::uint64_t hash_of(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

/// Number i of the series `seed`.
struct drawn {
  spread how = spread::normal;
  std::uint64_t seed = 1;
  float scale = 1;  ///< a power of two

  DUALSFT_HOST_DEVICE float operator()(index_t i) const {
    if (how == spread::all_equal) return scale * 0.5F;
    const std::uint64_t h = hash_of(hash_of(seed) ^ static_cast<std::uint64_t>(i));
    // Four uniform numbers have nearly a normal sum; its deviation is 2^16 / sqrt(3).
    std::int32_t sum = -131070;
    for (int part = 0; part < 4; ++part)
      sum += static_cast<std::int32_t>((h >> (16 * part)) & 0xffffU);
    const float z = static_cast<float>(sum) * 0x1p-15F * scale;
    if (how == spread::normal) return z;
    const std::uint64_t other = hash_of(h);
    if (how == spread::zeros) return other % 20 == 0 ? z : 0.0F;
    int power = 0;  // P(2^power or more) = 2^-power
    while (power < 40 && ((other >> power) & 1U) != 0) ++power;
    return z * std::bit_cast<float>(static_cast<std::uint32_t>(127 + power) << 23);
  }
};

template <class T>
__global__ void fill_drawn(T* out, index_t n, drawn numbers, bool absolute) {
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const float x = numbers(i);
    out[i] = convert_float<T>(absolute ? (x < 0 ? -x : x) + 0x1p-20F : x);
  }
}

inline unsigned blocks_for(index_t n) {
  return static_cast<unsigned>(std::min<index_t>(1024, (n + 255) / 256));
}

/// out[i] = numbers(i), rounded to T.
template <class T>
void fill(const exec::cuda& policy, vector_view<T, device_space> out, const drawn& numbers) {
  if (out.size() == 0) return;
  detail::launch("fill", policy, {blocks_for(out.size()), 256}, fill_drawn<T>, out.data(),
                 out.size(), numbers, false);
}
/// Positive ones: |numbers(i)| + 2^-20.
template <class T>
void fill_positive(const exec::cuda& policy, vector_view<T, device_space> out,
                   const drawn& numbers) {
  if (out.size() == 0) return;
  detail::launch("fill", policy, {blocks_for(out.size()), 256}, fill_drawn<T>, out.data(),
                 out.size(), numbers, true);
}

/// Coordinates of [0, n) to look at: the ends, the borders of 32-bit numbers, and a thousand others.
inline std::vector<index_t> places(index_t n) {
  std::vector<index_t> out;
  for (const index_t edge : {index_t{0}, index_t{1} << 31, index_t{1} << 32, n})
    for (index_t i = edge - 2; i < edge + 2; ++i)
      if (0 <= i && i < n) out.push_back(i);
  for (index_t k = 0; k < std::min<index_t>(n, 1000); ++k)
    out.push_back(static_cast<index_t>(hash_of(static_cast<std::uint64_t>(k)) %
                                       static_cast<std::uint64_t>(n)));
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

/// Up to `count` of [0, n), where looking at one costs more: the ends, and others between.
inline std::vector<index_t> few(index_t n, index_t count) {
  std::vector<index_t> out;
  for (index_t k = 0; k < std::min(n, count); ++k)
    out.push_back(k < 2 ? k * (n - 1)
                        : static_cast<index_t>(hash_of(static_cast<std::uint64_t>(k)) %
                                               static_cast<std::uint64_t>(n)));
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

/// One number of a device array.
template <class T>
T read_at(const exec::cuda& policy, const T* from, index_t i) {
  T out{};
  detail::cuda_check(
      cudaMemcpyAsync(&out, from + i, sizeof out, cudaMemcpyDeviceToHost, policy.stream),
      "read_at");
  detail::cuda_check(cudaStreamSynchronize(policy.stream), "read_at");
  return out;
}

}  // namespace dualsft::bench
