#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <played/fiber.hpp>
#include <played/types.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace played {

/// What a warp's lanes laid down at one exchange.
struct exchanged {
  static constexpr std::size_t most_bytes = 64;
  std::array<std::array<std::byte, most_bytes>, 32> values;
  std::uint32_t lanes = 0;

  template <class T>
  T of(int lane) const {
    T out;
    std::memcpy(&out, values[static_cast<std::size_t>(lane)].data(), sizeof(T));
    return out;
  }
};

/// Makes a block's shared memory the one that is seen; the others of its cluster are put aside.
inline void show_shared_memory_of(std::size_t rank);

/// A block of threads, or the blocks of a cluster side by side; each thread is a fiber. They run in an order that is another each round, so that what
/// depends on it shows; a thread runs until it has to wait.
class block {
 public:
  static block& running() {
    static block only;
    return only;
  }

  /// body() once for every thread of the blocks first_block, first_block + 1, ... of a row of blocks.
  /// \throws std::logic_error  if threads wait for what cannot come
  void run(const std::function<void()>& body, std::uint64_t seed, uint3 first_block,
           std::size_t cluster = 1) {
    const std::size_t per_block = std::size_t{blockDim.x} * blockDim.y * blockDim.z;
    const std::size_t count = per_block * cluster;
    while (threads_.size() < count) threads_.push_back(std::make_unique<thread>());
    body_ = &body;
    live_ = count;
    blocks_.assign(cluster, {});
    for (auto& each : blocks_) each.live = per_block;
    cluster_arrived_ = 0;
    count_ = per_block;
    for (std::size_t t = 0; t < count; ++t) {
      thread& at = *threads_[t];
      at.status = state::ready;
      const std::size_t n = t % per_block;
      at.index = {static_cast<unsigned>(n % blockDim.x),
                  static_cast<unsigned>(n / blockDim.x % blockDim.y),
                  static_cast<unsigned>(n / blockDim.x / blockDim.y)};
      at.number = n;
      at.rank = t / per_block;
      at.block = first_block;
      at.block.x += static_cast<unsigned>(at.rank);
    }
    int idle_rounds = 0;
    bool rested = true;
    for (std::uint64_t round = seed; live_ > 0; ++round) {
      bool moved = false;
      progress_ = false;
      const std::uint64_t mixed = (round + 1) * 0x9e3779b97f4a7c15ULL;
      const std::size_t first = static_cast<std::size_t>(mixed >> 33) % count;
      const bool down = (mixed >> 32 & 1) != 0;
      // A cluster's blocks drift apart: for some rounds one of them rests, unless all wait for it.
      const std::size_t resting = cluster > 1 && rested ? round / 61 % cluster : cluster;
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t t = down ? (first + count - i) % count : (first + i) % count;
        if (threads_[t]->status != state::ready || threads_[t]->rank == resting) continue;
        moved = true;
        current_ = threads_[t].get();
        threadIdx = current_->index;
        blockIdx = current_->block;
        if (cluster > 1) show_shared_memory_of(current_->rank);
        current_->own.resume();
        if (failure_) {
          threads_.clear();  // the others' stacks hold the middle of a kernel
          std::rethrow_exception(std::exchange(failure_, nullptr));
        }
      }
      if (!moved && resting == cluster)
        stuck("threads wait for others that have ended or wait elsewhere");
      rested = moved;
      idle_rounds = progress_ ? 0 : idle_rounds + 1;
      if (idle_rounds > 100000) stuck("threads poll for what does not come");
    }
  }

  // -- for kernels ------------------------------------------------------------------------------------

  /// All threads that have not ended.
  void barrier() {
    ++here().arrived;
    wait(state::at_barrier);
  }

  /// bar.sync id, threads
  void barrier(int id, std::size_t threads) {
    auto& arrived = here().named.at(static_cast<std::size_t>(id));
    if (++arrived == threads) {
      arrived = 0;
      release_named(id);
      return;
    }
    current_->barrier_id = id;
    wait(state::at_named);
  }
  /// bar.arrive id, threads
  void arrive(int id, std::size_t threads) {
    auto& arrived = here().named.at(static_cast<std::size_t>(id));
    if (++arrived < threads) return;
    arrived = 0;
    release_named(id);
  }

  /// barrier.cluster.arrive and .wait: all threads of all blocks that run.
  void cluster_arrive() {
    current_->cluster_phase = cluster_phase_;
    if (++cluster_arrived_ < count_ * blocks_.size()) return;
    cluster_arrived_ = 0;
    ++cluster_phase_;
    progress_ = true;
    for (auto& each : threads_)
      if (each->status == state::at_cluster) each->status = state::ready;
  }
  void cluster_wait() {
    if (current_->cluster_phase == cluster_phase_) wait(state::at_cluster);
  }
  std::size_t rank() const { return current_->rank; }

  /// Others run; for loops that poll.
  void yield() {
    fiber::step_back();
    threadIdx = current_->index;
  }
  /// What polls made progress, or something that others poll for changed.
  void note_progress() { progress_ = true; }

  /// Lays a value down and picks up those of all lanes of the mask.
  template <class T>
  std::shared_ptr<const exchanged> exchange(std::uint32_t mask, const T& value) {
    static_assert(sizeof(T) <= exchanged::most_bytes);
    thread& self = *current_;
    const unsigned lane = static_cast<unsigned>(self.number % 32);
    if ((mask >> lane & 1U) == 0)
      throw std::logic_error("a lane calls a warp's function, but is not in its mask");
    std::memcpy(self.laid.data(), &value, sizeof(T));
    self.mask = mask;
    self.status = state::in_warp;
    const std::size_t first_number = self.number / 32 * 32;
    // A partial last warp has no lanes beyond the block.
    const std::size_t lanes = std::min<std::size_t>(32, count_ - first_number);
    const std::size_t first = self.rank * count_ + first_number;
    const std::uint32_t there = lanes == 32 ? 0xffffffffU : (1U << lanes) - 1;
    const std::uint32_t wanted = mask & there;
    bool all = true;
    for (std::size_t l = 0; l < lanes; ++l) {
      if ((wanted >> l & 1U) == 0) continue;
      const thread& other = *threads_[first + l];
      all = all && other.status == state::in_warp && other.mask == mask;
    }
    if (!all) {
      wait(state::in_warp);
    } else {
      progress_ = true;
      const auto got = std::make_shared<exchanged>();
      got->lanes = wanted;
      for (std::size_t l = 0; l < lanes; ++l) {
        if ((wanted >> l & 1U) == 0) continue;
        got->values[l] = threads_[first + l]->laid;
        threads_[first + l]->picked_up = got;
        threads_[first + l]->status = state::ready;
      }
    }
    return self.picked_up;
  }
  int lane() const { return static_cast<int>(current_->number % 32); }
  std::size_t number() const { return current_->number; }

 private:
  enum class state { ready, at_barrier, at_named, in_warp, at_cluster, ended };

  struct thread {
    fiber own{&block::thread_main, nullptr};
    state status = state::ended;
    uint3 index{}, block{};
    std::size_t number = 0, rank = 0;
    std::uint64_t cluster_phase = 0;
    int barrier_id = 0;
    std::uint32_t mask = 0;
    std::array<std::byte, exchanged::most_bytes> laid{};
    std::shared_ptr<const exchanged> picked_up;
  };

  static void thread_main(void*) {
    for (;;) {  // a fiber serves one block after another
      block& self = running();
      try {
        (*self.body_)();
      } catch (...) {
        self.failure_ = std::current_exception();
      }
      self.current_->status = state::ended;
      self.progress_ = true;
      --self.live_;
      --self.here().live;
      self.release_barrier();
      fiber::step_back();
    }
  }

  void wait(state why) {
    current_->status = why;
    if (why == state::at_barrier) release_barrier();
    while (current_->status != state::ready) {
      fiber::step_back();
    }
    threadIdx = current_->index;
  }

  void release_barrier() {
    one_block& mine = here();
    if (mine.arrived == 0 || mine.arrived < mine.live) return;
    mine.arrived = 0;
    progress_ = true;
    for (std::size_t t = 0; t < count_; ++t) {
      thread& each = *threads_[current_->rank * count_ + t];
      if (each.status == state::at_barrier) each.status = state::ready;
    }
  }
  void release_named(int id) {
    progress_ = true;
    for (std::size_t t = 0; t < count_; ++t) {
      thread& each = *threads_[current_->rank * count_ + t];
      if (each.status == state::at_named && each.barrier_id == id) each.status = state::ready;
    }
  }

  /// What each block of a cluster has of its own.
  struct one_block {
    std::size_t live = 0, arrived = 0;
    std::array<std::size_t, 16> named{};
  };
  one_block& here() { return blocks_[current_->rank]; }

  [[noreturn]] void stuck(const std::string& why) {
    std::array<std::size_t, 6> in{};
    for (std::size_t t = 0; t < count_ * blocks_.size(); ++t)
      ++in[static_cast<std::size_t>(threads_[t]->status)];
    threads_.clear();  // their stacks hold the middle of a kernel
    throw std::logic_error("a played block is stuck: " + why + " (ready " + std::to_string(in[0]) +
                           ", at the barrier " + std::to_string(in[1]) + ", at a named one " +
                           std::to_string(in[2]) + ", in a warp's function " +
                           std::to_string(in[3]) + ",  at the cluster's barrier " +
                           std::to_string(in[4]) + ", ended " + std::to_string(in[5]) + ")");
  }

  std::vector<std::unique_ptr<thread>> threads_;
  const std::function<void()>* body_ = nullptr;
  thread* current_ = nullptr;
  std::size_t count_ = 0;  // of a block
  std::size_t live_ = 0;
  std::vector<one_block> blocks_;
  std::size_t cluster_arrived_ = 0;
  std::uint64_t cluster_phase_ = 0;
  bool progress_ = false;
  std::exception_ptr failure_;
};

inline void yield() {
  block::running().yield();
}

}  // namespace played
