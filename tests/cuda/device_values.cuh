#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>
#include <dualsft/detail/device_array.cuh>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../support/number_families.hpp"

/// Streams, graphs and far places of the device's tests.
namespace dualsft::testing {

/// Whether sizes that would take a sanitizer hours are left out.
inline bool is_small_run() {
  return std::getenv("DUALSFT_SMALL") != nullptr;
}

/// A stream of its own, in no order with the null stream: work on another would not be waited for. The
/// played device refuses work on the null stream while one of these lives.
class own_stream {
 public:
  own_stream() {
    detail::cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "own_stream");
  }
  own_stream(const own_stream&) = delete;
  own_stream& operator=(const own_stream&) = delete;
  ~own_stream() { cudaStreamDestroy(stream_); }
  exec::cuda policy() const { return {stream_}; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// What work() puts on a stream, as a graph: fails where it waits, runs on another stream or allocates
/// (which CUDA would allow).
class captured_graph {
 public:
  template <class Work>
  captured_graph(const exec::cuda& policy, Work&& work) {
    const auto check = [](cudaError_t code) { detail::cuda_check(code, "captured_graph"); };
    check(cudaStreamBeginCapture(policy.stream, cudaStreamCaptureModeGlobal));
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(policy.stream, &graph_);
      if (graph_ != nullptr) cudaGraphDestroy(graph_);
      throw;
    }
    check(cudaStreamEndCapture(policy.stream, &graph_));
    std::size_t count = 0;
    check(cudaGraphGetNodes(graph_, nullptr, &count));
    std::vector<cudaGraphNode_t> nodes(count);
    check(cudaGraphGetNodes(graph_, nodes.data(), &count));
    for (const cudaGraphNode_t node : nodes) {
      cudaGraphNodeType type{};
      check(cudaGraphNodeGetType(node, &type));
      allocations_ += type == cudaGraphNodeTypeMemAlloc ? 1 : 0;
    }
    check(cudaGraphInstantiate(&ready_, graph_, 0));
  }
  captured_graph(const captured_graph&) = delete;
  captured_graph& operator=(const captured_graph&) = delete;
  ~captured_graph() {
    cudaGraphExecDestroy(ready_);
    cudaGraphDestroy(graph_);
  }

  int allocations() const { return allocations_; }

  void launch(const exec::cuda& policy) const {
    if (allocations_ > 0) throw std::logic_error("what was captured allocates");
    detail::cuda_check(cudaGraphLaunch(ready_, policy.stream), "captured_graph");
  }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t ready_ = nullptr;
  int allocations_ = 0;
};

/// Captures what work() puts on the stream into a graph, launches that `times` times and waits.
template <class Work>
void replay_captured(const exec::cuda& policy, int times, Work&& work) {
  const captured_graph graph(policy, std::forward<Work>(work));
  for (int turn = 0; turn < times; ++turn) graph.launch(policy);
  detail::cuda_check(cudaStreamSynchronize(policy.stream), "replay");
}

/// How many bytes more than before work() has at once of the memory that is taken in a stream's order: 0
/// where it allocates nothing. For functions that wait, and so cannot be captured.
template <class Work>
std::uint64_t bytes_allocated(const exec::cuda& policy, Work&& work) {
  const auto check = [](cudaError_t code) { detail::cuda_check(code, "bytes_allocated"); };
  int device = 0;
  cudaMemPool_t pool = nullptr;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetDefaultMemPool(&pool, device));
  check(cudaStreamSynchronize(policy.stream));
  std::uint64_t before = 0, most = 0;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &most));
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &before));
  work();
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &most));
  return most > before ? most - before : 0;
}

/// Whether the device has so much memory to spare; says so if not. Tests of so many elements have "2^3" in
/// their names: they run by themselves.
inline bool has_memory_for(std::size_t bytes) {
  std::size_t free = 0, total = 0;
  detail::cuda_check(cudaMemGetInfo(&free, &total), "has_memory_for");
  if (!is_small_run() && free >= bytes + (std::size_t{1} << 30)) return true;
  MESSAGE("left out: too little memory");
  return false;
}

/// `count` elements from a far place, through the stream.
template <class T>
std::vector<T> part_of(const exec::cuda& policy, const T* from, index_t count) {
  std::vector<T> out(static_cast<std::size_t>(count));
  detail::cuda_check(cudaMemcpyAsync(out.data(), from, out.size() * sizeof(T),
                                     cudaMemcpyDeviceToHost, policy.stream),
                     "part_of");
  detail::cuda_check(cudaStreamSynchronize(policy.stream), "part_of");
  return out;
}
/// The opposite.
template <class T>
void set_part(const exec::cuda& policy, T* to, const std::vector<T>& from) {
  detail::cuda_check(cudaMemcpyAsync(to, from.data(), from.size() * sizeof(T),
                                     cudaMemcpyHostToDevice, policy.stream),
                     "set_part");
  detail::cuda_check(cudaStreamSynchronize(policy.stream), "set_part");
}

}  // namespace dualsft::testing
