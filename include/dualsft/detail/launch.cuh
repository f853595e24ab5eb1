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

/// kernel<<<shape.blocks, shape.threads, shape.shared_bytes, stream>>>(arguments...)
/// \throws cuda_error  naming `function`
template <class... Parameters>
void launch(const char* function, const exec::cuda& policy, const launch_shape& shape,
            void (*kernel)(Parameters...),
            const std::type_identity_t<std::remove_cvref_t<Parameters>>&... arguments) {
  constexpr std::size_t unasked = 48 * 1024;  // more has to be asked for, once per kernel
  if (shape.shared_bytes > unasked)
    cuda_check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shape.shared_bytes)),
               function);
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
