#pragma once

/// A processor plays a CUDA device, so that a machine without one runs the kernels of this project: their
/// indexing, their barriers and exchanges, their order of summation. It says nothing about speed.
///
/// A test for a device is compiled by g++ as C++ with this folder first on the include path, where it finds
/// stand-ins for what it includes of CUDA: the runtime (played/runtime.hpp), the words and functions of
/// device code (types, intrinsics), and as much of CUB as is used. A block's threads are fibers
/// (block.hpp); blocks run one after another; orders change from launch to launch.
///
/// Not played: what blocks of one launch tell each other while they run, and rounding where a device's
/// library differs from the host's (exp and its like).
#include <played/block.hpp>
#include <played/fiber.hpp>
#include <played/intrinsics.hpp>
#include <played/runtime.hpp>
#include <played/types.hpp>

// dynamic_shared() of launch.cuh declares it without a size, as kernels do.
namespace dualsft::detail {
inline thread_local __attribute__((aligned(1024))) unsigned char dynamic_shared_bytes[227 * 1024];
}  // namespace dualsft::detail

namespace played {
inline void poison_dynamic_shared(std::size_t bytes) {
  std::memset(dualsft::detail::dynamic_shared_bytes, 0xff, bytes);
}
}  // namespace played
