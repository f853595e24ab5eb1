// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/config.hpp>

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
  static constexpr index_t height = 8;
  index_t tile_rows, tile_cols;

  struct place {
    index_t row, col;
  };

  DUALSFT_HOST_DEVICE index_t count() const { return tile_rows * tile_cols; }
  DUALSFT_HOST_DEVICE place at(index_t number) const {
    const index_t band = number / (height * tile_cols);
    const index_t within = number - band * height * tile_cols;
    const index_t left = tile_rows - band * height;
    const index_t tall = left < height ? left : height;
    return {band * height + within % tall, within / tall};
  }
};

DUALSFT_HOST_DEVICE constexpr index_t pieces_of(index_t n, index_t piece) {
  return (n + piece - 1) / piece;
}

/// The four lanes that hold one row of a product's tile add what they have.
__device__ inline float sum_of_four_lanes(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

}  // namespace dualsft::detail
