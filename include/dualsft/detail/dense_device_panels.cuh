// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <dualsft/detail/cluster.cuh>
#include <dualsft/detail/dense_device.hpp>
#include <dualsft/detail/dense_device_tiles.cuh>
#include <dualsft/detail/launch.cuh>

/// dense_scores on a device where columns wait for their sums (diagonal, joint order), with one read.
///
/// A panel, all rows times as many columns as make up to 256 bytes of a row, waits in the shared memory
/// of a cluster of blocks; block r of C has the r-th part of the rows. Each thread copies 16 bytes of up
/// to 16 of these rows into slots that it alone uses, so that copies need no barrier; the slots are a
/// ring, and one is refilled with a row of a later panel as soon as it has been multiplied. Per panel:
///
///     sum the slots as they arrive -> sums over the block -> to every block of the cluster
///     sum what has arrived of the next panel while these travel
///     p, scores -> multiply the slots into row sums, which stay in registers for all panels
///
/// Why so, on paper, for 4096 x 1e6 in float on an H200 (132 multiprocessors, 4.3 TB/s):
/// - A second read out of the L2 cache would need 8.6 TB/s of it, and it gives about 5.5 to 7. So an
///   element must come to its multiprocessor once.
/// - A panel of 4096 rows does not fit one multiprocessor; in eight, a row's 256 bytes are two whole
///   cache lines. 16 clusters fill 128 multiprocessors and work on 4 KiB of each row side by side.
/// - A block has 128 KiB of a panel and takes 3.9 us to load that. Its ring holds 200 KiB (184 in joint
///   order), so 72 KiB and what has been refilled are under way while a panel waits for the others'
///   sums (about 1.5 us); 32 KiB under way are enough to keep the memory busy.
/// - An element is converted to double twice and enters three to six operations there. At 4.9 elements
///   per clock and multiprocessor that is 62 % of the conversions (16 a clock), and less of the rest.
/// - Every row of a panel lies in a page of memory of its own (a row of 1e6 floats takes two of 2 MiB),
///   so each visit costs a look-up, 130 million per second and multiprocessor. What these cost is the
///   part that paper does not tell; narrower panels would need twice as many.
namespace dualsft::detail {

/// Where things lie in a block's shared memory.
template <class T, bool Quadratic>
struct panel_memory {
  static constexpr int kinds = Quadratic ? 2 : 1;  // sums; and sums of squares
  static constexpr int slots = Quadratic ? 23 : 25;
  static constexpr int warps = dense_panel_threads / 32;
  static constexpr int most_cluster = 8;
  static constexpr int most_width = 16 * row_vector<T>::size;

  row_vector<T> ring[slots][dense_panel_threads];
  double of_warps[kinds][warps][most_width];
  double inbox[2][kinds][most_cluster]
              [most_width];  // of this panel, and of the one before or after
  letter_box arrived[2];     // likewise
  double v[most_width], d[most_width], hg[most_width];  // each of one thread alone
  double a[most_width], b[most_width], weights[most_width];
  column_sums facts[most_width];
};

template <class T>
inline constexpr std::size_t panel_bytes = std::max(sizeof(panel_memory<T, false>),
                                                    sizeof(panel_memory<T, true>));
static_assert(panel_bytes<float> <= 227 * 1024 && panel_bytes<double> <= 227 * 1024);

/// A cluster's way through the panels.
struct panel_walk {
  index_t panels;
  int vectors;   ///< of 16 bytes in a row of a panel
  int clusters;  ///< each takes every `clusters`-th panel
  int cluster;   ///< blocks
};

/// The copies of one thread, row after row and panel after panel.
template <bool Aligned, class T, int Slots>
struct row_copies {
  static constexpr int size = row_vector<T>::size;
  const dense_rows<T>& x;
  row_vector<T>* slots;  ///< this thread's, dense_panel_threads apart
  const T* row;          ///< the thread's first, column 0
  index_t row_step;      ///< in elements, from one of its rows to the next
  int rows;              ///< how many of them exist
  index_t column;        ///< the first of its columns in the panel that is copied now
  int panel_step;        ///< in columns
  int in_panel;          ///< of `column`
  int column_step;
  int next_row = 0;
  int next_slot = 0;

  /// One slot, and one group of copies: also where nothing is left to copy.
  __device__ void copy_next() {
    if (next_row < rows && column - in_panel < x.columns) {
      const T* const from = row + next_row * row_step + column;
      row_vector<T>& to = slots[next_slot * dense_panel_threads];
      if constexpr (Aligned) {
        const index_t left = (x.columns - column) * static_cast<index_t>(sizeof(T));
        const int valid = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
        async_copy<16>(&to, valid > 0 ? from : row, valid);
      } else {
#pragma unroll
        for (int e = 0; e < size; ++e) {
          const bool there = column + e * column_step < x.columns;
          async_copy<static_cast<int>(sizeof(T))>(&to.x[e], there ? from + e * column_step : row,
                                                  there ? static_cast<int>(sizeof(T)) : 0);
        }
      }
    }
    async_copy_commit();
    next_slot = next_slot + 1 == Slots ? 0 : next_slot + 1;
    if (++next_row < dense_slots_per_panel) return;
    next_row = 0;
    column += panel_step;
  }
};

/// What a thread adds up over its rows of a panel.
template <class T, bool Quadratic>
struct slot_sums {
  static constexpr int size = row_vector<T>::size;
  double g[size] = {}, magnitudes[size] = {};
  double q[Quadratic ? size : 1] = {};

  __device__ void add(const row_vector<T>& slot) {
#pragma unroll
    for (int e = 0; e < size; ++e) {
      const auto value = static_cast<double>(slot.x[e]);
      g[e] += value;
      magnitudes[e] += fabs(value);
      if constexpr (Quadratic) q[e] += value * value;
    }
  }
};

/// body<i>() for i in [Begin, End): waiting for copies takes constants.
template <int Begin, int End, class Body>
__device__ void for_constants(Body&& body) {
  if constexpr (Begin < End) {
    body.template operator()<Begin>();
    for_constants<Begin + 1, End>(body);
  }
}

/// \param scores     phi_P, all columns
/// \param row_parts  [clusters, N]
/// \param facts      [clusters]
/// \param terms      [clusters blocks]
template <bool Quadratic, bool Aligned, class T>
__global__ void __launch_bounds__(dense_panel_threads, 1)
    sweep_panels(dense_rows<T> x, dense_vectors vectors, panel_walk walk, double* scores,
                 index_t scores_stride, double* row_parts, column_sums* facts, double* terms) {
  using memory_type = panel_memory<T, Quadratic>;
  constexpr int size = row_vector<T>::size, slots = memory_type::slots, kinds = memory_type::kinds;
  constexpr int per_panel = dense_slots_per_panel;
  // Slots of the next panel that are summed early: at least five stay under way meanwhile.
  constexpr int early = Quadratic ? 2 : 4;
  static_assert(slots - per_panel - early >= 5);
  memory_type& memory = *reinterpret_cast<memory_type*>(dynamic_shared());

  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int rank = walk.cluster > 1 ? cluster_rank() : 0;
  const int width = walk.vectors * size;
  const index_t first_panel = static_cast<index_t>(blockIdx.x) / walk.cluster;

  // Rows: block `rank` has [rank rows_per_block, ...), and this thread every row_lanes-th of them.
  const int row_lanes = dense_panel_threads / walk.vectors;
  const index_t rows_per_block = (x.rows + walk.cluster - 1) / walk.cluster;
  const index_t block_begin = rank * rows_per_block;
  const index_t block_end =
      block_begin + rows_per_block < x.rows ? block_begin + rows_per_block : x.rows;
  const index_t first_row = block_begin + thread / walk.vectors;
  const int my_rows = first_row < block_end
                          ? static_cast<int>((block_end - first_row + row_lanes - 1) / row_lanes)
                          : 0;
  // Columns within a panel: begin + e step.
  const int my_column = (thread % walk.vectors) * (Aligned ? size : 1);
  const int column_step = Aligned ? 1 : walk.vectors;

  row_vector<T>* const my_slots = &memory.ring[0][thread];
  row_copies<Aligned, T, slots> copies{.x = x,
                                       .slots = my_slots,
                                       .row = my_rows > 0 ? x.data + first_row * x.stride : x.data,
                                       .row_step = row_lanes * x.stride,
                                       .rows = my_rows,
                                       .column = first_panel * width + my_column,
                                       .panel_step = walk.clusters * width,
                                       .in_panel = my_column,
                                       .column_step = column_step};
  for (int s = 0; s < slots; ++s) copies.copy_next();
  if (thread < memory_type::most_width) memory.facts[thread] = {};

  double dots[per_panel] = {};
  double my_terms = 0;
  int base = 0;  // the slot of this panel's first row
  unsigned turn = 0;
  const auto slot = [&](int from, int s) -> const row_vector<T>& {
    const int at = from + s < slots ? from + s : from + s - slots;
    return my_slots[at * dense_panel_threads];
  };

  slot_sums<T, Quadratic> sums;
  for_constants<0, early>([&]<int S>() {
    async_copy_wait<slots - 1 - S>();
    if (S < my_rows) sums.add(slot(base, S));
  });
  // No block sends to another before that one runs.
  if (thread < 2) letter_box_init(&memory.arrived[thread]);
  cluster_arrive();
  cluster_wait();

  for (index_t panel = first_panel; panel < walk.panels; panel += walk.clusters) {
    const unsigned parity = turn % 2;
    if (thread == 0)
      expect_letters(&memory.arrived[parity],
                     static_cast<unsigned>(walk.cluster * kinds * width) * sizeof(double));
    // What the panel's columns need besides, long before it is needed.
    const index_t j = panel * width + thread;
    const bool finishes = thread < width && j < x.columns;
    if (finishes) {
      memory.v[thread] = vectors.v[j];
      memory.d[thread] = vectors.d[j];
      memory.hg[thread] = vectors.hg[j];
    }
    for_constants<early, per_panel>([&]<int S>() {
      async_copy_wait<slots - 1 - S>();
      if (S < my_rows) sums.add(slot(base, S));
    });

    // Over the warp's rows, then the block's, then to everyone. Lanes with the same columns lie
    // walk.vectors apart.
    for (int apart = walk.vectors; apart < 32; apart *= 2) {
#pragma unroll
      for (int e = 0; e < size; ++e) {
        sums.g[e] += __shfl_xor_sync(0xffffffffU, sums.g[e], apart);
        if constexpr (Quadratic) sums.q[e] += __shfl_xor_sync(0xffffffffU, sums.q[e], apart);
      }
    }
    if (lane < walk.vectors) {
#pragma unroll
      for (int e = 0; e < size; ++e) {
        memory.of_warps[0][warp][my_column + e * column_step] = sums.g[e];
        if constexpr (Quadratic)
          memory.of_warps[kinds - 1][warp][my_column + e * column_step] = sums.q[e];
      }
    }
    __syncthreads();
    if (thread < kinds * width) {
      const int kind = thread / width, column = thread % width;
      double part[4] = {};  // four chains, so that none waits for another
#pragma unroll
      for (int w = 0; w < memory_type::warps; ++w) part[w % 4] += memory.of_warps[kind][w][column];
      const double sum = (part[0] + part[1]) + (part[2] + part[3]);
#pragma unroll 1
      for (int to = 0; to < walk.cluster; ++to)
        send_letter(&memory.inbox[parity][kind][rank][column], &memory.arrived[parity], to, sum);
    }

    // While the sums travel: the next panel's first rows.
    const int next_base = base + per_panel < slots ? base + per_panel : base + per_panel - slots;
    slot_sums<T, Quadratic> next;
    for_constants<0, early>([&]<int S>() {
      async_copy_wait<slots - per_panel - 1 - S>();
      if (S < my_rows && panel + walk.clusters < walk.panels) next.add(slot(next_base, S));
    });
    // A place is free again: who sends to it has had this block's letters of the panel in between, which it
    // sends after it has read.
    if (thread < width) wait_for_letters(&memory.arrived[parity], turn / 2 % 2);

    finished_column out;
    column_sums found;
    if (finishes) {
      double g = 0, q = 0;
      for (int r = 0; r < walk.cluster; ++r) {
        g += memory.inbox[parity][0][r][thread];
        if constexpr (Quadratic) q += memory.inbox[parity][kinds - 1][r][thread];
      }
      out = finish_device_column(vectors.rule, memory.v[thread], memory.d[thread],
                                 memory.hg[thread], g, q, j, found);
    }
    if (thread < width) {
      memory.a[thread] = out.a;
      memory.b[thread] = out.b;
      memory.weights[thread] = out.weight;
    }
    __syncthreads();
    if (finishes && rank == 0) {  // every block has the same; and nobody waits for this
      memory.facts[thread].add(found);
      scores[j * scores_stride] = out.score;
    }
    double a[size], b[size] = {};
#pragma unroll
    for (int e = 0; e < size; ++e) {
      a[e] = memory.a[my_column + e * column_step];
      if constexpr (Quadratic) b[e] = memory.b[my_column + e * column_step];
      my_terms += sums.magnitudes[e] * memory.weights[my_column + e * column_step];
    }
#pragma unroll
    for (int s = 0; s < per_panel; ++s) {
      if (s < my_rows) {
        const row_vector<T> row = slot(base, s);
#pragma unroll
        for (int e = 0; e < size; ++e) {
          const auto value = static_cast<double>(row.x[e]);
          dots[s] += value * (Quadratic ? a[e] + b[e] * value : a[e]);
        }
      }
      copies.copy_next();
    }
    sums = next;
    base = next_base;
    ++turn;
  }

  // A row's columns lie in neighbouring lanes.
#pragma unroll
  for (int s = 0; s < per_panel; ++s) {
    for (int apart = walk.vectors / 2; apart > 0; apart /= 2)
      dots[s] += __shfl_xor_sync(0xffffffffU, dots[s], apart);
    if (s < my_rows && thread % walk.vectors == 0)
      row_parts[first_panel * x.rows + first_row + s * row_lanes] = dots[s];
  }
  for (int apart = 16; apart > 0; apart /= 2)
    my_terms += __shfl_xor_sync(0xffffffffU, my_terms, apart);
  if (lane == 0) memory.of_warps[0][0][warp] = my_terms;
  __syncthreads();
  if (thread != 0) return;
  double all = 0;
  for (int w = 0; w < memory_type::warps; ++w) all += memory.of_warps[0][0][w];
  terms[blockIdx.x] = all;
  if (rank != 0) return;
  column_sums together;
  for (int k = 0; k < width; ++k) together.add(memory.facts[k]);
  facts[first_panel] = together;
}

}  // namespace dualsft::detail
