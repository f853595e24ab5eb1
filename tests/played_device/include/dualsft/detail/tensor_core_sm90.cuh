// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/launch.cuh>
#include <dualsft/detail/tensor_core.cuh>
#include <dualsft/error.hpp>
#include <utility>

/// The twin of detail/tensor_core_sm90.cuh for the played device. A cluster is played as one block
/// whose threads have their block's rank as threadIdx.y, with memory for each rank. Boxes
/// arrive late and in any order, while somebody waits at a barrier; until then their place holds NaNs.
/// Products are formed when the thread waits for them, out of what their descriptors then point at.
#define DUALSFT_HAS_WGMMA

namespace dualsft::detail {

inline constexpr int largest_cluster = 2;

inline launch_shape cluster_shape(index_t clusters, int cluster, int threads, std::size_t bytes) {
  return {dim3(static_cast<unsigned>(clusters)),
          dim3(static_cast<unsigned>(threads), static_cast<unsigned>(cluster)), bytes};
}

namespace played_tensor_core {

inline unsigned char* memory_of_rank(unsigned rank) {
  static __attribute__((aligned(1024))) unsigned char memory[largest_cluster][227 * 1024];
  return blockDim.y == 1 ? dynamic_shared() : memory[rank];
}

}  // namespace played_tensor_core

inline unsigned char* cluster_shared() {
  return played_tensor_core::memory_of_rank(threadIdx.y);
}

template <int Cluster>
int cluster_rank() {
  return static_cast<int>(threadIdx.y);
}
template <int Cluster>
int cluster_number() {
  return static_cast<int>(blockIdx.x);
}
template <int Cluster>
int cluster_count() {
  return static_cast<int>(gridDim.x);
}
inline void cluster_sync() {
  __syncthreads();
}

using phase_barrier = std::uint64_t;

struct tensor_map {
  const unsigned char* data;
  index_t rows, cols, row_stride;
  int box_rows;
};

namespace played_tensor_core {

/// What a phase_barrier's bits mean here.
struct barrier_state {
  std::int32_t bytes;  // still to come; less than 0 if they came before they were expected
  std::uint32_t arrivals : 15, pending : 15, phase : 1;
};
static_assert(sizeof(barrier_state) == sizeof(phase_barrier));

template <class Change>
void change(phase_barrier* barrier, const Change& how) {
  barrier_state state;
  std::memcpy(&state, barrier, sizeof state);
  how(state);
  if (state.pending == 0 && state.bytes == 0) {
    state.phase = state.phase == 0 ? 1 : 0;
    state.pending = state.arrivals;
  }
  std::memcpy(barrier, &state, sizeof state);
  played::block::running().note_progress();
}

/// The same place in the memory of another block of the cluster.
template <class T>
T* at_rank(T* shared, unsigned rank) {
  require(rank < blockDim.y, "a block of this rank is not in the cluster");
  return reinterpret_cast<T*>(reinterpret_cast<unsigned char*>(shared) - cluster_shared() +
                              memory_of_rank(rank));
}

struct box {
  unsigned char* to;
  std::vector<unsigned char> bytes;
  phase_barrier* barrier;
};
inline std::vector<box>& boxes_under_way() {
  static std::vector<box> boxes;
  return boxes;
}
inline void deliver_one_box() {
  static std::uint32_t dice = 1;
  std::vector<box>& boxes = boxes_under_way();
  if (boxes.empty()) return;
  dice = dice * 1664525u + 1013904223u;
  const std::size_t which = (dice >> 8) % boxes.size();
  const box one = std::move(boxes[which]);
  boxes.erase(boxes.begin() + static_cast<std::ptrdiff_t>(which));
  std::memcpy(one.to, one.bytes.data(), one.bytes.size());
  change(one.barrier,
         [&](barrier_state& state) { state.bytes -= static_cast<std::int32_t>(one.bytes.size()); });
}

/// Addresses as descriptors hold them: 1024 is where the block's dynamic memory begins.
inline std::uint32_t descriptor_address(const void* shared) {
  return static_cast<std::uint32_t>(static_cast<const unsigned char*>(shared) - cluster_shared() +
                                    1024);
}

/// An operand behind its descriptor, under the 128-byte swizzle: element (row, k) of 16-bit values.
class operand {
 public:
  /// \param transposed  its rows lie side by side, 64 of them to a box; else it is stored k-contiguous
  operand(std::uint64_t descriptor, bool transposed)
      : memory_(cluster_shared()),
        begin_(field(descriptor, 0) - 1024),
        boxes_(field(descriptor, 16)),
        eights_(field(descriptor, 32)),
        transposed_(transposed) {}

  template <Storage16 T>
  float at(int row, int k) const {
    std::uint32_t at = begin_;
    if (transposed_)
      at += static_cast<std::uint32_t>(row / 64) * boxes_ +
            static_cast<std::uint32_t>(k / 8) * eights_ +
            static_cast<std::uint32_t>(k % 8 * 128 + row % 64 * 2);
    else
      at += static_cast<std::uint32_t>(row / 8) * eights_ +
            static_cast<std::uint32_t>(row % 8 * 128 + k * 2);
    at ^= (at >> 7 & 7u) << 4;  // 1024 bytes less are the same here
    T value;
    std::memcpy(&value, memory_ + at, sizeof value);
    return to_float(value);
  }

 private:
  static std::uint32_t field(std::uint64_t descriptor, int first) {
    return static_cast<std::uint32_t>(descriptor >> first & 0x3fffu) << 4;
  }
  const unsigned char* memory_;
  std::uint32_t begin_, boxes_, eights_;
  bool transposed_;
};

struct product {
  float* c;
  std::uint64_t a, b;
  int add;
  void (*form)(const product&);
  // A in registers: the thread's own, which have to stay as they were, and the two rows of A that its
  // sums need.
  const std::uint32_t* own = nullptr;
  std::uint32_t as_given[4] = {};
  float rows[2][16] = {};
};
struct products {
  std::vector<product> open;
  std::deque<std::vector<product>> groups;
};
inline int own_row() {
  return thread() / 32 % 4 * 16 + lane() / 4;
}

template <Storage16 T, int Sums>
void add_product(const product& p, const float (&a)[2][16], const operand& b) {
  for (int j = 0; j < Sums / 4; ++j)
    for (int i = 0; i < 2; ++i) {
      float column[16];
      for (int k = 0; k < 16; ++k) column[k] = b.at<T>(8 * j + 2 * (lane() % 4) + i, k);
      for (int half = 0; half < 2; ++half) {
        float& c = p.c[4 * j + 2 * half + i];
        if (p.add == 0) c = 0;
        for (int k = 0; k < 16; ++k) c += a[half][k] * column[k];
      }
    }
}
template <Storage16 T, int Sums>
void form_of_boxes(const product& p) {
  const operand from(p.a, false);
  float a[2][16];
  for (int half = 0; half < 2; ++half)
    for (int k = 0; k < 16; ++k) a[half][k] = from.at<T>(own_row() + 8 * half, k);
  add_product<T, Sums>(p, a, operand(p.b, false));
}
template <Storage16 T, int Transposed, int Sums>
void form_of_registers(const product& p) {
  require(std::equal(p.as_given, p.as_given + 4, p.own),
          "wgmma: an operand's registers changed before the product was waited for");
  add_product<T, Sums>(p, p.rows, operand(p.b, Transposed != 0));
}

}  // namespace played_tensor_core

inline void barrier_init(phase_barrier* barrier, unsigned arrivals) {
  played_tensor_core::barrier_state state{};
  state.arrivals = state.pending = arrivals & 0x7fffu;
  std::memcpy(barrier, &state, sizeof state);
  played_tensor_core::boxes_under_way().clear();  // of a block before
}
inline void barrier_init_fence() {}

inline void barrier_arrive(phase_barrier* barrier) {
  played_tensor_core::change(barrier, [](auto& state) {
    played_tensor_core::require(state.pending > 0, "barrier_arrive: one arrival too many");
    state.pending = (state.pending - 1) & 0x7fff;
  });
}
inline void barrier_arrive_at(phase_barrier* barrier, unsigned rank) {
  barrier_arrive(played_tensor_core::at_rank(barrier, rank));
}
inline void barrier_arrive_expecting(phase_barrier* barrier, unsigned bytes) {
  played_tensor_core::change(barrier, [&](auto& state) {
    played_tensor_core::require(state.pending > 0, "barrier_arrive: one arrival too many");
    state.bytes += static_cast<std::int32_t>(bytes);
    state.pending = (state.pending - 1) & 0x7fff;
  });
}
inline void barrier_wait(phase_barrier* barrier, unsigned parity) {
  for (bool first = true;; first = false) {
    played_tensor_core::barrier_state state;
    std::memcpy(&state, barrier, sizeof state);
    if (state.phase != parity) return;
    if (!first) played_tensor_core::deliver_one_box();
    played::yield();
  }
}

inline bool tensor_map_takes(const void* data, index_t rows, index_t cols, index_t row_stride) {
  constexpr index_t most = index_t{1} << 30;
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && row_stride % 8 == 0 &&
         row_stride >= cols && row_stride < (index_t{1} << 38) && 0 < rows && rows < most &&
         0 < cols && cols < most;
}

template <Storage16 T>
tensor_map make_tensor_map(const char*, const T* data, index_t rows, index_t cols,
                           index_t row_stride, int box_rows) {
  played_tensor_core::require(tensor_map_takes(data, rows, cols, row_stride) && box_rows <= 256,
                              "make_tensor_map: not a matrix that boxes can be taken from");
  return {reinterpret_cast<const unsigned char*>(data), rows, cols, row_stride, box_rows};
}

inline void prefetch_tensor_map(const tensor_map&) {}
inline void fence_before_boxes() {}

inline void load_box_for(std::uint16_t blocks, void* shared, const tensor_map& map, int row,
                         int col, phase_barrier* barrier) {
  using namespace played_tensor_core;
  require(descriptor_address(shared) % 1024 == 0, "load_box: shared address");
  std::vector<unsigned char> bytes(static_cast<std::size_t>(map.box_rows) * 128);
  for (int r = 0; r < map.box_rows; ++r)
    for (int c = 0; c < 64; ++c)
      if (0 <= row + r && row + r < map.rows && 0 <= col + c && col + c < map.cols)
        std::memcpy(
            &bytes[static_cast<std::size_t>(r * 128 + ((c / 8) ^ (r % 8)) * 16 + c % 8 * 2)],
            map.data + 2 * ((row + r) * map.row_stride + col + c), 2);
  for (unsigned rank = 0; blocks >> rank != 0; ++rank) {
    if ((blocks >> rank & 1) == 0) continue;
    unsigned char* const to = at_rank(static_cast<unsigned char*>(shared), rank);
    std::memset(to, 0xff, bytes.size());
    boxes_under_way().push_back({to, bytes, at_rank(barrier, rank)});
  }
}
inline void load_box(void* shared, const tensor_map& map, int row, int col,
                     phase_barrier* barrier) {
  load_box_for(static_cast<std::uint16_t>(1u << threadIdx.y), shared, map, row, col, barrier);
}

inline std::uint64_t transposed_descriptor(const void* shared, int box_bytes) {
  return static_cast<std::uint64_t>((played_tensor_core::descriptor_address(shared) & 0x3ffffu) >>
                                    4) |
         static_cast<std::uint64_t>(box_bytes >> 4) << 16 | std::uint64_t{64} << 32 |
         std::uint64_t{1} << 62;
}
inline std::uint64_t box_descriptor(const void* shared) {
  return transposed_descriptor(shared, 16);
}

inline void wgmma_fence() {}
inline void wgmma_commit() {
  auto& own = played_tensor_core::of_thread<played_tensor_core::products>();
  own.groups.push_back(std::move(own.open));
  own.open.clear();
}
template <int Newest>
void wgmma_wait() {
  auto& own = played_tensor_core::of_thread<played_tensor_core::products>();
  while (own.groups.size() > static_cast<std::size_t>(Newest)) {
    for (const auto& one : own.groups.front()) one.form(one);
    own.groups.pop_front();
  }
}
template <class T, int N>
void wgmma_pin(T (&)[N]) {}

template <Storage16 T, int Sums>
void wgmma(float (&c)[Sums], std::uint64_t a, std::uint64_t b, int add) {
  static_assert(Sums == 32 || Sums == 64 || Sums == 128);
  played_tensor_core::of_thread<played_tensor_core::products>().open.push_back(
      {c, a, b, add, &played_tensor_core::form_of_boxes<T, Sums>});
}
template <Storage16 T, int Transposed, int Sums>
void wgmma(float (&c)[Sums], const std::uint32_t (&a)[4], std::uint64_t b, int add) {
  static_assert(Sums == 32 || Sums == 64);
  using namespace played_tensor_core;
  product one{c, 0, b, add, &form_of_registers<T, Transposed, Sums>, a};
  std::copy(a, a + 4, one.as_given);
  std::copy(a, a + 4, warp()[lane()].a);
  __syncwarp();
  for (int k = 0; k < 16; ++k) {
    const shown& holder = warp()[lane() / 4 * 4 + k % 8 / 2];
    for (int half = 0; half < 2; ++half)
      one.rows[half][k] = half_of<T>(holder.a[k / 8 * 2 + half], k % 2);
  }
  __syncwarp();
  of_thread<products>().open.push_back(one);
}

inline void turn_arrive() {
  played::block::running().arrive(1, 256);
}
inline void turn_wait() {
  played::block::running().barrier(1, 256);
}

template <int Registers>
void give_registers() {}
template <int Registers>
void take_registers() {}

inline bool has_wgmma(const char*) {
  return true;
}

}  // namespace dualsft::detail
