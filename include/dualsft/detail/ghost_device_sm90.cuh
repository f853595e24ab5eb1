// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/ghost_device.cuh>
#include <dualsft/detail/launch.cuh>
#include <dualsft/detail/tensor_core_sm90.cuh>

/// e_t . (P a_t + p_b) on sm_90a. A block stays on its multiprocessor and works on one tile of 128
/// tokens x 256 outputs after another: one thread asks for boxes of 64 columns of A and P, four stages
/// ahead; two groups of four warps multiply them, 64 tokens each, and keep the product in registers.
/// The tile of E comes through the same stages, as two more steps behind the last of A and P, so that
/// it is there when the product is. Blocks of a cluster share P: each asks for its part for all.
///
/// Limit: the tensor cores; a tile of 3,072 inputs is some 49,000 cycles of products and 1,000 of
/// products with E. What leaves the chip is 4 bytes per token and 256 outputs.
namespace dualsft::detail {

struct wgmma_tile {
  static constexpr int rows = 128, cols = 256, depth = 64;
  static constexpr int stages = 4, threads = 384;
  static constexpr unsigned rows_bytes = rows * depth * 2;  // a box of A, or of E
  static constexpr unsigned cols_bytes = cols * depth * 2;
  static constexpr unsigned stage_bytes = rows_bytes + cols_bytes;
  static constexpr int error_steps = 2;  // of two boxes: 128 columns of E
  static constexpr int consumer_warps = 8;
  static constexpr std::size_t shared_bytes =
      stages * (std::size_t{stage_bytes} + 2 * sizeof(phase_barrier));
};

/// Where in the ring of stages one is, and the parity of the phase that is over when it is full.
struct ring_place {
  int stage = 0;
  unsigned parity = 0;

  __device__ void advance() {
    if (++stage == wgmma_tile::stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

#if defined(DUALSFT_HAS_WGMMA)

/// Half of the tile of E, 128 columns in two boxes, times the same half of the product.
/// \param c     the thread's part of the product: rows `row` and `row` + 8
/// \param left  columns of this half that the product has
template <class T, int Half, bool Ragged>
__device__ inline void add_half(float (&sum)[4], const float (&c)[128], const unsigned char* boxes,
                                int row, int left, const T* bias) {
  const int lane_col = 2 * static_cast<int>(threadIdx.x % 4);
  const unsigned at = static_cast<unsigned>(row * 128 + (row % 8) * 16 + 2 * lane_col);
  float of_bias[16][2] = {};
  if (Ragged && bias != nullptr)
#pragma unroll
    for (int j = 0; j < 16; ++j)  // all of them before the first is waited for
#pragma unroll
      for (int h = 0; h < 2; ++h)
        if (8 * j + lane_col + h < left)
          of_bias[j][h] = convert_float<float>(bias[8 * j + lane_col + h]);
#pragma unroll
  for (int j = 0; j < 16; ++j) {
    const unsigned char* const from =
        boxes + (j / 8) * wgmma_tile::rows_bytes + (at ^ static_cast<unsigned>(j % 8 * 16));
    float e[4];
    unpack_pair<T>(*reinterpret_cast<const std::uint32_t*>(from), e[0], e[1]);
    unpack_pair<T>(*reinterpret_cast<const std::uint32_t*>(from + 8 * 128), e[2], e[3]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float y = c[64 * Half + 4 * j + i];
      if constexpr (Ragged) y += of_bias[j][i % 2];
      // Beyond P there may be a NaN of A times zero.
      if (!Ragged || 8 * j + lane_col + i % 2 < left) sum[i] += y * e[i];
    }
  }
}

template <class T, int Half>
__device__ inline void add_half(float (&sum)[4], const float (&c)[128], const unsigned char* boxes,
                                int row, index_t col, const affine_work<T>& work) {
  const index_t left = work.out - col;
  if (left >= 128 && work.bias == nullptr)
    add_half<T, Half, false>(sum, c, boxes, row, 128, nullptr);
  else
    add_half<T, Half, true>(sum, c, boxes, row, left > 128 ? 128 : static_cast<int>(left),
                            work.bias == nullptr ? nullptr : work.bias + col);
}

template <class T, int Cluster>
__device__ inline void affine_producer(const tensor_map& inputs, const tensor_map& weight,
                                       const tensor_map& errors, const affine_work<T>& work,
                                       const tile_order& order, unsigned char* stages,
                                       phase_barrier* full, phase_barrier* empty) {
  using tile = wgmma_tile;
  constexpr int share = tile::cols / Cluster;  // of the rows of P
  const int rank = cluster_rank<Cluster>();
  const int steps = static_cast<int>(pieces_of(work.in, tile::depth));
  ring_place at;
  for (int n = cluster_number<Cluster>(); n < order.count(); n += cluster_count<Cluster>()) {
    const tile_order::place place = order.at(n);
    const int row = (place.row * Cluster + rank) * tile::rows;
    const int col = place.col * tile::cols;
    for (int k = 0; k < steps; ++k, at.advance()) {
      unsigned char* const to = stages + at.stage * tile::stage_bytes;
      barrier_wait(&empty[at.stage], at.parity ^ 1);
      barrier_arrive_expecting(&full[at.stage], tile::stage_bytes);
      load_box(to, inputs, row, k * tile::depth, &full[at.stage]);
      unsigned char* const own = to + tile::rows_bytes + rank * share * tile::depth * 2;
      if constexpr (Cluster == 1)
        load_box(own, weight, col, k * tile::depth, &full[at.stage]);
      else
        load_box_for(std::uint16_t{(1 << Cluster) - 1}, own, weight, col + rank * share,
                     k * tile::depth, &full[at.stage]);
    }
    for (int half = 0; half < tile::error_steps; ++half, at.advance()) {
      unsigned char* const to = stages + at.stage * tile::stage_bytes;
      barrier_wait(&empty[at.stage], at.parity ^ 1);
      barrier_arrive_expecting(&full[at.stage], 2 * tile::rows_bytes);
      for (int box = 0; box < 2; ++box)
        load_box(to + box * tile::rows_bytes, errors, row, col + (2 * half + box) * tile::depth,
                 &full[at.stage]);
    }
  }
}

/// \param group  0 or 1: which 64 tokens of each tile
template <class T, int Cluster>
__device__ inline void affine_consumer(int group, const affine_work<T>& work,
                                       const tile_order& order, unsigned char* stages,
                                       phase_barrier* full, phase_barrier* empty) {
  using tile = wgmma_tile;
  const int rank = cluster_rank<Cluster>();
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32 % 4);
  const int row = group * 64 + warp * 16 + lane / 4;  // within the tile, and the one 8 below it
  const int steps = static_cast<int>(pieces_of(work.in, tile::depth));
  const std::uint64_t first_a = box_descriptor(stages + group * 64 * 128);
  const std::uint64_t first_b = box_descriptor(stages + tile::rows_bytes);
  const auto release = [&](int stage) {
    __syncwarp();
    if constexpr (Cluster == 1) {
      if (lane == 0) barrier_arrive(&empty[stage]);
    } else {
      if (lane < Cluster) barrier_arrive_at(&empty[stage], static_cast<unsigned>(lane));
    }
  };
  ring_place at;
  for (int n = cluster_number<Cluster>(); n < order.count(); n += cluster_count<Cluster>()) {
    const tile_order::place place = order.at(n);
    float c[128];
#pragma unroll
    for (float& value : c) value = 0;
    int before = -1;  // the stage whose products may still be under way
    for (int k = 0; k < steps; ++k, at.advance()) {
      barrier_wait(&full[at.stage], at.parity);
      const auto forward = static_cast<std::uint64_t>(at.stage * (tile::stage_bytes >> 4));
      wgmma_pin(c);
      wgmma_fence();
#pragma unroll
      for (int part = 0; part < 4; ++part)
        wgmma<T>(c, first_a + forward + 2 * part, first_b + forward + 2 * part, 1);
      wgmma_commit();
      wgmma_pin(c);
      wgmma_wait<1>();
      if (before >= 0) release(before);
      before = at.stage;
    }
    wgmma_wait<0>();
    wgmma_pin(c);
    release(before);

    float sum[4] = {};
    const index_t col = index_t{place.col} * tile::cols;
    barrier_wait(&full[at.stage], at.parity);
    add_half<T, 0>(sum, c, stages + at.stage * tile::stage_bytes, row, col, work);
    fence_before_boxes();
    release(at.stage);
    at.advance();
    barrier_wait(&full[at.stage], at.parity);
    add_half<T, 1>(sum, c, stages + at.stage * tile::stage_bytes, row, col + 128, work);
    fence_before_boxes();
    release(at.stage);
    at.advance();

    const index_t token = (index_t{place.row} * Cluster + rank) * tile::rows + row;
    float* const to = work.partial + place.col * work.rows + token;
    const float upper = sum_of_four_lanes(sum[0] + sum[1]);
    const float lower = sum_of_four_lanes(sum[2] + sum[3]);
    if (lane % 4 == 0 && token < work.rows) to[0] = upper;
    if (lane % 4 == 0 && token + 8 < work.rows) to[8] = lower;
  }
}

#endif

/// \param inputs, weight, errors  boxes of A: 128 rows, P: 256 / Cluster, E: 128
template <class T, int Cluster>
__global__ void __launch_bounds__(wgmma_tile::threads, 1)
    affine_wgmma_kernel(const __grid_constant__ tensor_map inputs,
                        const __grid_constant__ tensor_map weight,
                        const __grid_constant__ tensor_map errors, const affine_work<T> work,
                        const tile_order order) {
#if defined(DUALSFT_HAS_WGMMA)
  using tile = wgmma_tile;
  unsigned char* const stages = cluster_shared();
  auto* const full = reinterpret_cast<phase_barrier*>(stages + tile::stages * tile::stage_bytes);
  phase_barrier* const empty = full + tile::stages;
  if (threadIdx.x == 0) {
    for (int s = 0; s < tile::stages; ++s) {
      barrier_init(&full[s], 1);
      barrier_init(&empty[s], tile::consumer_warps * Cluster);
    }
    barrier_init_fence();
    prefetch_tensor_map(inputs);
    prefetch_tensor_map(weight);
    prefetch_tensor_map(errors);
  }
  if constexpr (Cluster == 1)
    __syncthreads();
  else
    cluster_sync();

  const int group = static_cast<int>(threadIdx.x / 128);
  if (group == 0) {
    give_registers<40>();
    if (threadIdx.x == 0)
      affine_producer<T, Cluster>(inputs, weight, errors, work, order, stages, full, empty);
    __syncwarp();
  } else {
    take_registers<232>();
    affine_consumer<T, Cluster>(group - 1, work, order, stages, full, empty);
  }
  // A block's memory stays while others of its cluster write and arrive there.
  if constexpr (Cluster > 1) cluster_sync();
#endif
}

/// Can the boxes be had?
template <class T>
bool wgmma_takes(const T* inputs, index_t inputs_stride, const T* weight, index_t weight_stride,
                 const T* errors, index_t errors_stride, const affine_work<T>& work) {
  return tensor_map_takes(inputs, work.rows, work.in, inputs_stride) &&
         tensor_map_takes(weight, work.out, work.in, weight_stride) &&
         tensor_map_takes(errors, work.rows, work.out, errors_stride);
}

template <int Cluster, class T>
void launch_affine_wgmma(const char* function, const exec::cuda& policy, int multiprocessors,
                         const T* inputs, index_t inputs_stride, const T* weight,
                         index_t weight_stride, const T* errors, index_t errors_stride,
                         const affine_work<T>& work) {
  using tile = wgmma_tile;
  const tile_order order = order_of_tiles(function, pieces_of(work.rows, tile::rows * Cluster),
                                          pieces_of(work.out, tile::cols));
  const int most = multiprocessors / Cluster;
  const int clusters = most < 1 ? 1 : most < order.count() ? most : order.count();
  launch(function, policy, cluster_shape(clusters, Cluster, tile::threads, tile::shared_bytes),
         affine_wgmma_kernel<T, Cluster>,
         make_tensor_map(function, inputs, work.rows, work.in, inputs_stride, tile::rows),
         make_tensor_map(function, weight, work.out, work.in, weight_stride, tile::cols / Cluster),
         make_tensor_map(function, errors, work.rows, work.out, errors_stride, tile::rows), work,
         order);
}

}  // namespace dualsft::detail
