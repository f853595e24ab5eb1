// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>

/// What the kernels of ghost_scores.cuh share: how the product A P^T is cut, and where each one's part
/// of e_t . (P a_t) goes.
namespace dualsft::detail {

/// y_t = P a_t + p_b of `rows` tokens, met with e_t while it is in registers: partial[run * rows + t]
/// is the sum over the outputs of one run of columns.
template <class T>
struct affine_work {
  index_t rows, in, out;
  const T* bias;   ///< [out], or nullptr
  float* partial;  ///< [runs, rows]
};

/// Numbers the tiles of a product so that those worked on at one time share what they read: down a
/// band of `height` tiles, then to the next column, then to the next band.
struct tile_order {
  static constexpr int height = 8;
  int tile_rows, tile_cols;

  struct place {
    int row, col;
  };

  DUALSFT_HOST_DEVICE int count() const { return tile_rows * tile_cols; }
  DUALSFT_HOST_DEVICE place at(int number) const {
    const int band = number / (height * tile_cols);
    const int within = number - band * height * tile_cols;
    const int left = tile_rows - band * height;
    const int tall = left < height ? left : height;
    return {band * height + within % tall, within / tall};
  }
};

DUALSFT_HOST_DEVICE constexpr index_t pieces_of(index_t n, index_t piece) {
  return (n + piece - 1) / piece;
}

/// \throws invalid_argument  if there are more tiles than a launch can number
inline tile_order order_of_tiles(const char* function, index_t tile_rows, index_t tile_cols) {
  constexpr index_t most = 0x7fffffff / tile_order::height;  // its arithmetic is in 32 bits
  expects(tile_rows <= most && tile_cols <= most / (tile_rows < 1 ? 1 : tile_rows), function,
          "the product has too many tiles", "tile rows", tile_rows, "tile columns", tile_cols);
  return {static_cast<int>(tile_rows), static_cast<int>(tile_cols)};
}

/// The four lanes that hold one row of a product's tile add what they have.
__device__ inline float sum_of_four_lanes(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

}  // namespace dualsft::detail
