#pragma once

/// A processor plays a CUDA device, so that a machine without one runs the kernels of this project: their
/// indexing, their barriers and exchanges, their order of summation. It says nothing about speed.
///
/// A test for a device is compiled by g++ as C++ with this folder first on the include path, where it finds
/// stand-ins for what it includes of CUDA: the runtime (played/runtime.hpp), the words and functions of
/// device code (types, intrinsics), and as much of CUB as is used. A block's threads are fibers
/// (block.hpp); blocks run one after another, those of a cluster side by side; orders change from launch
/// to launch.
///
/// Not played: what blocks of one launch tell each other through memory while they run, and rounding where a device's
/// library differs from the host's (exp and its like).
#include <played/block.hpp>
#include <played/fiber.hpp>
#include <played/intrinsics.hpp>
#include <played/runtime.hpp>
#include <played/types.hpp>
#if defined(PLAYED_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#endif

// dynamic_shared() of launch.cuh declares it without a size, as kernels do.
namespace dualsft::detail {
inline thread_local __attribute__((aligned(1024))) unsigned char dynamic_shared_bytes[227 * 1024];
}  // namespace dualsft::detail

namespace played {

/// The shared memory of a cluster's blocks: the one that runs has dynamic_shared_bytes, the others wait
/// here.
struct shared_memories {
  std::size_t bytes = 0, shown = 0;
  std::vector<std::vector<unsigned char>> aside;
  static shared_memories& all() {
    static shared_memories only;
    return only;
  }
};

inline void poison_shared_memory(std::size_t bytes, std::size_t blocks) {
#if defined(PLAYED_ADDRESS_SANITIZER)
  // What the launch did not ask for is nobody's.
  ASAN_UNPOISON_MEMORY_REGION(dualsft::detail::dynamic_shared_bytes, bytes);
  ASAN_POISON_MEMORY_REGION(dualsft::detail::dynamic_shared_bytes + bytes,
                            sizeof dualsft::detail::dynamic_shared_bytes - bytes);
#endif
  std::memset(dualsft::detail::dynamic_shared_bytes, 0xff, bytes);
  shared_memories& all = shared_memories::all();
  all.bytes = bytes;
  all.shown = 0;
  if (blocks > 1) all.aside.assign(blocks, std::vector<unsigned char>(bytes, 0xff));
}

inline void show_shared_memory_of(std::size_t rank) {
  shared_memories& all = shared_memories::all();
  if (all.shown == rank) return;
  std::memcpy(all.aside[all.shown].data(), dualsft::detail::dynamic_shared_bytes, all.bytes);
  std::memcpy(dualsft::detail::dynamic_shared_bytes, all.aside[rank].data(), all.bytes);
  all.shown = rank;
}

/// The place in another block's memory that `here` is in this one's.
inline void* in_shared_memory_of(std::size_t rank, void* here) {
  shared_memories& all = shared_memories::all();
  if (all.shown == rank) return here;
  const auto offset = static_cast<std::size_t>(static_cast<unsigned char*>(here) -
                                               dualsft::detail::dynamic_shared_bytes);
  if (offset >= all.bytes)
    throw std::logic_error("this is not in the block's dynamic shared memory");
  return all.aside.at(rank).data() + offset;
}

}  // namespace played
