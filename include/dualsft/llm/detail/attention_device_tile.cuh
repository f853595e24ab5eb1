// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <dualsft/detail/tensor_core.cuh>
#include <dualsft/llm/detail/attention_device.hpp>

/// Pieces of the device's attention kernels: finding a tile's sequence, tiles in shared memory.
namespace dualsft::llm::detail {

/// The last s in [0, count) with key(s) <= value; key(0) <= value, key does not fall. A warp together:
/// 32 places are looked at in the time of one.
template <class Key>
__device__ inline index_t last_not_above(index_t count, index_t value, const Key& key) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  index_t low = 0, high = count;
  while (high - low > 1) {
    const index_t step = (high - low + 31) / 32;
    const index_t at = low + lane * step;
    const unsigned below = __ballot_sync(0xffffffffU, at < high && key(at) <= value);
    low += (__popc(below) - 1) * step;
    high = low + step < high ? low + step : high;
  }
  return low;
}

/// Where 16-byte piece `piece` of row `row` lies in a tile of `Rows` rows: 64 columns, 128 bytes of every
/// row, after another, pieces swapped so that eight rows at one piece, and eight pieces of one row, touch
/// each bank once. It is how products of four warps read shared memory.
template <int Rows>
__device__ inline int tile_offset(int row, int piece) {
  static_assert(Rows % 8 == 0);
  return piece / 8 * (128 * Rows) + row * 128 + ((piece % 8 ^ (row & 7)) << 4);
}

/// Where the lanes of a warp find what ldmatrix takes, in tiles of `Rows` rows: one address for each of the
/// eight pieces that swap places; all others are a constant away, which costs no instruction.
template <int Rows>
class operand_places {
 public:
  /// \param row, piece  this lane's, of four 8 x 8 matrices at the tile's beginning; piece is 0 or 1
  __device__ operand_places(const unsigned char* tile, int row, int piece) {
#pragma unroll
    for (int i = 0; i < 4; ++i) at_[i] = tile + tile_offset<Rows>(row, 2 * i + piece);
  }

  /// \param rows, pieces  how far on: multiples of 8 and of 2
  __device__ const unsigned char* at(int rows, int pieces) const {
    return at_[pieces % 8 / 2] + (rows * 128 + pieces / 8 * (128 * Rows));
  }

 private:
  const unsigned char* at_[4];
};

/// body(offset in the tile, row, piece) for the thread's share of a tile.
template <int Rows, int Columns, int Threads, class Body>
__device__ inline void for_own_pieces(const Body& body) {
  constexpr int pieces = Columns / 8;
  static_assert(Rows * pieces % Threads == 0);
#pragma unroll
  for (int i = 0; i < Rows * pieces / Threads; ++i) {
    const int at = i * Threads + static_cast<int>(threadIdx.x);
    const int row = at / pieces, piece = at % pieces;
    body(tile_offset<Rows>(row, piece), row, piece);
  }
}

/// Begins to copy a tile; zeros beyond `rows` and `columns`.
template <int Rows, int Columns, int Threads, class T>
__device__ inline void copy_tile(unsigned char* tile, const T* from, index_t stride, int rows,
                                 int columns) {
  constexpr int pieces = Columns / 8, rows_at_once = Threads / pieces;
  static_assert(Threads % pieces == 0 && Rows % rows_at_once == 0);
  const int first = static_cast<int>(threadIdx.x) / pieces;
  const int piece = static_cast<int>(threadIdx.x) % pieces;
  const bool inside = 8 * piece < columns;
  const T* at = from + first * stride + 8 * piece;
#pragma unroll
  for (int row = 0; row < Rows; row += rows_at_once) {
    dualsft::detail::cp_async_16(tile + tile_offset<Rows>(first + row, piece), at,
                                 inside && first + row < rows);
    at += rows_at_once * stride;
  }
}

/// The exponent's bits of a 16-bit number: all ones in infinities and NaNs.
template <Storage16 T>
inline constexpr std::uint32_t exponent_bits = std::is_same_v<T, bfloat16> ? 0x7f80U : 0x7c00U;

/// Whether one of two 16-bit numbers is not finite.
template <Storage16 T>
__device__ inline bool has_not_finite(std::uint32_t pair) {
  constexpr std::uint32_t both = exponent_bits<T> * 0x10001U;
  constexpr std::uint32_t one = (0x8000U - exponent_bits<T>)*0x10001U;
  return (((pair & both) + one) & 0x80008000U) != 0;
}

/// Whether the pieces that this thread copied have a number that is not finite.
template <Storage16 T, int Rows, int Columns, int Threads>
__device__ inline bool own_not_finite(const unsigned char* tile) {
  bool found = false;
  for_own_pieces<Rows, Columns, Threads>([&](int offset, int, int) {
    const uint4 x = *reinterpret_cast<const uint4*>(tile + offset);
    found = found || has_not_finite<T>(x.x) || has_not_finite<T>(x.y) || has_not_finite<T>(x.z) ||
            has_not_finite<T>(x.w);
  });
  return found;
}

template <Storage16 T>
__device__ inline std::uint32_t without_not_finite(std::uint32_t pair) {
  if ((pair & exponent_bits<T>) == exponent_bits<T>) pair &= 0xffff0000U;
  if ((pair >> 16 & exponent_bits<T>) == exponent_bits<T>) pair &= 0x0000ffffU;
  return pair;
}

/// Zeros in place of infinities and NaNs in the pieces that this thread copied.
template <Storage16 T, int Rows, int Columns, int Threads>
__device__ inline void clear_own_not_finite(unsigned char* tile) {
  for_own_pieces<Rows, Columns, Threads>([&](int offset, int, int) {
    uint4& x = *reinterpret_cast<uint4*>(tile + offset);
    x = make_uint4(without_not_finite<T>(x.x), without_not_finite<T>(x.y),
                   without_not_finite<T>(x.z), without_not_finite<T>(x.w));
  });
}

}  // namespace dualsft::llm::detail
