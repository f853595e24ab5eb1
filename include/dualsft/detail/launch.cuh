// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <dualsft/execution.cuh>
#include <type_traits>

/// Kernel launches as function calls: checked, and in plain C++, so that the tests can let a processor
/// play the device.
namespace dualsft::detail {

struct launch_shape {
  dim3 blocks;
  dim3 threads;
  std::size_t shared_bytes = 0;  ///< of dynamic_shared()
  unsigned cluster = 1;          ///< blocks along x that share their shared memory
};

/// Lets a kernel have `bytes` of dynamic_shared(). What it has without asking is 48 KB less its own
/// variables; who asks for more gets all there is, always the same, so that no thread takes back what
/// another, or a graph, is about to use.
inline void allow_shared_memory(const char* function, const void* kernel, std::size_t bytes) {
  cudaFuncAttributes has{};
  cuda_check(cudaFuncGetAttributes(&has, kernel), function);
  if (bytes <= static_cast<std::size_t>(has.maxDynamicSharedSizeBytes)) return;
  int device = 0, most = 0;
  cuda_check(cudaGetDevice(&device), function);
  cuda_check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             function);
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  most - static_cast<int>(has.sharedSizeBytes)),
             function);
}

/// kernel<<<shape.blocks, shape.threads, shape.shared_bytes, stream>>>(arguments...)
/// \throws cuda_error  naming `function`
template <class... Parameters>
void launch(const char* function, const exec::cuda& policy, const launch_shape& shape,
            void (*kernel)(Parameters...),
            const std::type_identity_t<std::remove_cvref_t<Parameters>>&... arguments) {
  if (shape.shared_bytes > 0)
    allow_shared_memory(function, reinterpret_cast<const void*>(kernel), shape.shared_bytes);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = shape.cluster;
  cluster.val.clusterDim.y = 1;
  cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.blocks;
  config.blockDim = shape.threads;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = policy.stream;
  config.attrs = &cluster;
  config.numAttrs = shape.cluster > 1 ? 1 : 0;
  cuda_check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), function);
}

/// The block's shared memory whose size its launch decides.
__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char dynamic_shared_bytes[];
  return dynamic_shared_bytes;
}

}  // namespace dualsft::detail
