// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <dualsft/execution.hpp>
#include <dualsft/views.hpp>

/// The execution policy of one CUDA stream. Algorithms that take it work on views in device_space,
/// are asynchronous with respect to the host unless they return a host value, and then wait for
/// this stream alone, never for the device.
namespace dualsft::exec {

struct cuda {
  using memory_space = device_space;
  cudaStream_t stream = nullptr;
};

static_assert(ExecutionPolicy<cuda> && !HostPolicy<cuda>);

}  // namespace dualsft::exec
