// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <dualsft/detail/device_scalars.cuh>
#include <dualsft/detail/launch.cuh>
#include <dualsft/float16.hpp>
#include <dualsft/llm/detail/tangent_device.hpp>

/// Rows as kernels see them, 16 bytes at a time.
namespace dualsft::llm::detail {

/// Where the rows of values and of their tangents lie; strides in elements.
template <class T>
struct rows_at {
  T* values = nullptr;
  T* tangents = nullptr;
  index_t value_stride = 0, tangent_stride = 0;

  DUALSFT_HOST_DEVICE T* value(index_t row, index_t col) const {
    return values + row * value_stride + col;
  }
  DUALSFT_HOST_DEVICE T* tangent(index_t row, index_t col) const {
    return tangents + row * tangent_stride + col;
  }
};

/// The row that a piece belongs to, of `heads` pieces each. A division of 32 bits takes a fifth of
/// one of 64.
DUALSFT_HOST_DEVICE inline index_t row_of_piece(index_t piece, index_t heads) {
  if (heads == 1) return piece;
  if (piece >> 32 == 0 && heads >> 32 == 0)
    return static_cast<std::uint32_t>(piece) / static_cast<std::uint32_t>(heads);
  return piece / heads;
}

/// Elements in 16 bytes.
template <class T>
inline constexpr int pack = static_cast<int>(16 / sizeof(T));

template <class T>
bool is_aligned(const T* data) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}
/// Whether every row begins at a multiple of 16 bytes.
template <class T>
bool is_aligned(const rows_at<T>& rows) {
  return is_aligned(rows.values) && is_aligned(rows.tangents) && rows.value_stride % pack<T> == 0 &&
         rows.tangent_stride % pack<T> == 0;
}

using dualsft::detail::narrowed;
using dualsft::detail::narrowed_pair;
using dualsft::detail::widened;

/// 16 bytes as they travel. They are widened where they are used: half the registers.
template <class T>
struct packed {
  uint4 words = {0, 0, 0, 0};

  /// Past the first-level cache, which is left to what many rows share.
  static __device__ packed load(const T* from) {
    return {__ldcg(reinterpret_cast<const uint4*>(from))};
  }
  /// What many rows share, and nothing writes.
  static __device__ packed load_shared(const T* from) {
    return {__ldg(reinterpret_cast<const uint4*>(from))};
  }
  __device__ void store(T* to) const { __stwb(reinterpret_cast<uint4*>(to), words); }

  __device__ unsigned word(int k) const {
    return k == 0 ? words.x : k == 1 ? words.y : k == 2 ? words.z : words.w;
  }
  __device__ void set_word(int k, unsigned to) {
    (k == 0 ? words.x : k == 1 ? words.y : k == 2 ? words.z : words.w) = to;
  }

  __device__ void widen(float (&out)[pack<T>]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if constexpr (std::same_as<T, float>) {
        out[k] = std::bit_cast<float>(word(k));
      } else {
        out[2 * k] = widened(T{static_cast<std::uint16_t>(word(k) & 0xffffU)});
        out[2 * k + 1] = widened(T{static_cast<std::uint16_t>(word(k) >> 16)});
      }
    }
  }
  static __device__ packed narrow(const float (&from)[pack<T>]) {
    packed out;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if constexpr (std::same_as<T, float>)
        out.set_word(k, std::bit_cast<unsigned>(from[k]));
      else
        out.set_word(k, narrowed_pair<T>(from[2 * k], from[2 * k + 1]));
    }
    return out;
  }
};

/// Count floats from a table that rows share.
template <int Count, class W>
__device__ inline void load_floats(const W* from, float (&out)[Count]) {
#pragma unroll
  for (int first = 0; first < Count; first += pack<W>) {
    float part[pack<W>];
    packed<W>::load_shared(from + first).widen(part);
#pragma unroll
    for (int e = 0; e < pack<W>; ++e) out[first + e] = part[e];
  }
}

// ---- reductions: fixed trees --------------------------------------------------------------------

/// Over groups of `lanes` (a power of two) neighbouring lanes; every lane of the warp takes part
/// and gets its group's.
__device__ inline norm_sums<float> sum_of_lanes(norm_sums<float> s, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    const float squares = __shfl_xor_sync(0xffffffffU, s.squares, offset);
    const float products = __shfl_xor_sync(0xffffffffU, s.products, offset);
    s.squares += squares;
    s.products += products;
  }
  return s;
}

/// Over the block, whose threads are whole warps; every thread gets it.
/// \param partial  shared, not yet used in this kernel
__device__ inline norm_sums<float> sum_of_block(norm_sums<float> s, float2 (&partial)[32]) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  s = sum_of_lanes(s, 32);
  if (lane == 0) partial[warp] = make_float2(s.squares, s.products);
  __syncthreads();
  const bool one = lane < static_cast<int>(blockDim.x) / 32;
  const float2 of_warp = one ? partial[lane] : make_float2(0, 0);
  return sum_of_lanes({of_warp.x, of_warp.y}, 32);
}

}  // namespace dualsft::llm::detail
