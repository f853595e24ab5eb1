// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <dualsft/execution.hpp>
#include <dualsft/views.hpp>
#include <stdexcept>
#include <string>

/// The execution policy of one CUDA stream. Algorithms that take it work on views in device_space,
/// are asynchronous with respect to the host unless they return a host value, and then wait for
/// this stream alone, never for the device. What they allocate, they allocate in the stream's order
/// (cudaMallocAsync); overloads with a workspace allocate nothing. What a graph captures should have run
/// once before: a kernel's first launch loads its code.
namespace dualsft {

namespace exec {

struct cuda {
  using memory_space = device_space;
  cudaStream_t stream = nullptr;
};

static_assert(ExecutionPolicy<cuda> && !HostPolicy<cuda>);

}  // namespace exec

/// A CUDA call or launch that failed: whose, and what the runtime says of it. After an error that the
/// runtime calls sticky (an illegal address, say) the process has to end.
class cuda_error : public std::runtime_error {
 public:
  cuda_error(const std::string& function, cudaError_t code)
      : std::runtime_error(function + ": " + cudaGetErrorName(code) + ": " +
                           cudaGetErrorString(code)),
        code_(code) {}

  cudaError_t code() const noexcept { return code_; }

 private:
  cudaError_t code_;
};

namespace detail {

/// \throws cuda_error
inline void cuda_check(cudaError_t code, const char* function) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // what is not sticky is not reported twice
  throw cuda_error(function, code);
}

}  // namespace detail
}  // namespace dualsft
