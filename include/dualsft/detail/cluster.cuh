// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <dualsft/detail/launch.cuh>
#include <dualsft/execution.cuh>

/// Clusters of blocks, which send to each other's shared memory, and copies into shared memory that
/// run while their thread goes on. One small function each; the played device has a twin of this header.
///
/// Source: PTX ISA, "barrier.cluster", "mapa", "st.async", "mbarrier", "cp.async". Before sm_90 a cluster is
/// one block, and there are no letters.
namespace dualsft::detail {

/// Which block of its cluster this is.
__device__ inline int cluster_rank() {
#if __CUDA_ARCH__ >= 900
  std::uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
#else
  return 0;
#endif
}

/// All threads of the cluster: after cluster_wait each sees what the others stored before they arrived.
__device__ inline void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
#else
  __syncthreads();
#endif
}
__device__ inline void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#endif
}

/// A place in shared memory that counts letters from the cluster's blocks as they arrive. Phase after phase,
/// one thread says how many bytes to expect, and the phase ends when they are there.
///
/// Unlike a barrier of the cluster, which waits until all that its threads have stored anywhere is seen
/// everywhere, it waits for nothing but its letters.
using letter_box = std::uint64_t;

/// By one thread, before the cluster's blocks meet for the first time.
__device__ inline void letter_box_init(letter_box* box) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(
                   static_cast<std::uint32_t>(__cvta_generic_to_shared(box)))
               : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

/// Of the present phase, once in each. Letters may have come before.
__device__ inline void expect_letters(letter_box* box, unsigned bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                   static_cast<std::uint32_t>(__cvta_generic_to_shared(box))),
               "r"(bytes)
               : "memory");
#endif
}

/// Begins to store to the place in another block's shared memory that `here` has in this block's; it is seen
/// by who has waited at that block's letter box.
__device__ inline void send_letter(double* here, letter_box* box, int rank, double value) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .b32 there, box;\n"
      "mapa.shared::cluster.u32 there, %0, %2;\n"
      "mapa.shared::cluster.u32 box, %1, %2;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.f64 [there], %3, [box];\n"
      "}\n" ::"r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(here))),
      "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(box))), "r"(rank), "d"(value)
      : "memory");
#else
  __trap();
#endif
}

/// Until the phase of this parity (0 for the first) has ended.
__device__ inline void wait_for_letters(letter_box* box, unsigned parity) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n"
      "}\n" ::"r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(box))),
      "r"(parity)
      : "memory");
#endif
}

/// Begins to copy Bytes (4, 8 or 16, both addresses multiples of it) to shared memory. The first
/// `valid` of them are read, the others become zeros.
template <int Bytes>
__device__ inline void async_copy(void* shared, const void* global, int valid) {
  const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  if constexpr (Bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(Bytes),
                 "r"(valid)
                 : "memory");
}

/// The thread's copies since the last call become one group, also if there are none.
__device__ inline void async_copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits until at most the `Newest` last groups of this thread are under way; it then sees the others.
template <int Newest>
__device__ inline void async_copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Newest) : "memory");
}

/// How many clusters of a kernel the current device runs at once; 0 if it, or the kernel as compiled,
/// has no clusters, or if there is too little shared memory.
template <class... Parameters>
int resident_clusters(const char* function, void (*kernel)(Parameters...),
                      const launch_shape& shape) {
  int device = 0, major = 0, most_shared = 0;
  cuda_check(cudaGetDevice(&device), function);
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), function);
  cuda_check(cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             function);
  // Code for an older device may run here as well, but knows nothing of clusters.
  cudaFuncAttributes code{};
  cuda_check(cudaFuncGetAttributes(&code, reinterpret_cast<const void*>(kernel)), function);
  if (major < 9 || code.ptxVersion < 90) return 0;
  if (shape.shared_bytes > static_cast<std::size_t>(most_shared)) return 0;
  allow_shared_memory(function, reinterpret_cast<const void*>(kernel), shape.shared_bytes);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = shape.cluster;
  cluster.val.clusterDim.y = 1;
  cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.cluster;
  config.blockDim = shape.threads;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.attrs = &cluster;
  config.numAttrs = 1;
  int count = 0;
  cuda_check(cudaOccupancyMaxActiveClusters(&count, kernel, &config), function);
  return count;
}

}  // namespace dualsft::detail
