#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <played/block.hpp>
#include <played/types.hpp>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

// The part of the CUDA runtime that this project uses. Work is done when it is asked for, or recorded
// while a stream is being captured. Fresh memory is filled with ones: NaN to any floating-point type.

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorNotSupported = 801,
  cudaErrorStreamCaptureUnsupported = 900,
};
inline const char* cudaGetErrorName(cudaError_t code) {
  switch (code) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNotSupported:
      return "cudaErrorNotSupported";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
  }
  return "unknown";
}
inline const char* cudaGetErrorString(cudaError_t) {
  return "played by the processor";
}
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline cudaError_t cudaPeekAtLastError() {
  return cudaSuccess;
}

// ---- streams, graphs, events --------------------------------------------------------------------------

enum cudaGraphNodeType {
  cudaGraphNodeTypeKernel,  // and whatever else this runtime enqueues
  cudaGraphNodeTypeMemAlloc,
  cudaGraphNodeTypeMemFree
};
struct played_node {
  cudaGraphNodeType type;
  std::function<void()> work;
};
struct played_graph {
  std::vector<played_node> nodes;
};
struct played_stream {
  std::unique_ptr<played_graph> captured;
  bool blocks = true;
};
using cudaStream_t = played_stream*;
using cudaGraph_t = played_graph*;
using cudaGraphExec_t = played_graph*;
using cudaGraphNode_t = const played_node*;
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed
};
inline constexpr unsigned cudaStreamNonBlocking = 1;

namespace played {

inline int& captures() {
  static int running = 0;
  return running;
}

/// How many streams there are that the null stream does not wait for.
inline int& unordered_streams() {
  static int count = 0;
  return count;
}

/// Work on the null stream is in no order with that on a stream that does not block: a program that has
/// one of these and uses the null stream has forgotten to hand its stream on.
inline void expects_stream(cudaStream_t stream) {
  if (stream == nullptr && unordered_streams() > 0)
    throw std::logic_error(
        "work is put on the null stream while there is a stream that it does not wait for");
}

/// Now, or when the graph that the stream is being captured into is launched.
inline void enqueue(cudaStream_t stream, std::function<void()> work) {
  expects_stream(stream);
  if (stream != nullptr && stream->captured)
    stream->captured->nodes.push_back({cudaGraphNodeTypeKernel, std::move(work)});
  else
    work();
}

}  // namespace played

inline cudaError_t cudaStreamCreate(cudaStream_t* out) {
  *out = new played_stream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  cudaStreamCreate(out);
  (*out)->blocks = flags != cudaStreamNonBlocking;
  if (!(*out)->blocks) ++played::unordered_streams();
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!stream->blocks) --played::unordered_streams();
  delete stream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream != nullptr && stream->captured) return cudaErrorStreamCaptureUnsupported;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
  return played::captures() > 0 ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || stream->captured) return cudaErrorInvalidValue;
  stream->captured = std::make_unique<played_graph>();
  ++played::captures();
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* out) {
  if (stream == nullptr || !stream->captured) return cudaErrorInvalidValue;
  *out = stream->captured.release();
  --played::captures();
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph,
                                        unsigned long long = 0) {
  *out = new played_graph(*graph);
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (const played_node& each : graph->nodes) each.work();
  return cudaSuccess;
}
/// \param count  the room in `out`, or how many there are if that is null
inline cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* out, std::size_t* count) {
  if (out == nullptr) {
    *count = graph->nodes.size();
    return cudaSuccess;
  }
  *count = std::min(*count, graph->nodes.size());
  for (std::size_t i = 0; i < *count; ++i) out[i] = &graph->nodes[i];
  return cudaSuccess;
}
inline cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* out) {
  *out = node->type;
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

struct played_event {
  std::chrono::steady_clock::time_point at;
};
using cudaEvent_t = played_event*;
inline cudaError_t cudaEventCreate(cudaEvent_t* out) {
  *out = new played_event;
  return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  return cudaEventCreate(out);
}
inline constexpr unsigned cudaEventDisableTiming = 2;
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr) {
  played::enqueue(stream, [event] { event->at = std::chrono::steady_clock::now(); });
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned = 0) {
  return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return cudaSuccess;
}

// ---- memory ---------------------------------------------------------------------------------------------

inline constexpr std::size_t played_memory_bytes = std::size_t{1} << 30;

namespace played {

inline cudaError_t take_memory(void** out, std::size_t bytes) {
  *out = nullptr;
  if (bytes > played_memory_bytes) return cudaErrorMemoryAllocation;
  if (bytes == 0) return cudaSuccess;
  // Exactly as large as asked for, so that AddressSanitizer sees the end; aligned as a device's is.
  if (posix_memalign(out, 256, bytes) != 0) return cudaErrorMemoryAllocation;
  std::memset(*out, 0xff, bytes);
  return cudaSuccess;
}

}  // namespace played

inline cudaError_t cudaMalloc(void** out, std::size_t bytes) {
  *out = nullptr;
  return played::captures() > 0 ? cudaErrorStreamCaptureUnsupported
                                : played::take_memory(out, bytes);
}
template <class T>
cudaError_t cudaMalloc(T** out, std::size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(out), bytes);
}
inline cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
namespace played {

/// What cudaMallocAsync handed out.
struct memory_pool {
  std::map<void*, std::size_t> taken;
  std::uint64_t bytes = 0, most_bytes = 0;
};
inline memory_pool& pool() {
  static memory_pool only;
  return only;
}

}  // namespace played

/// In a capture the graph takes the memory, which is a node, and has it as long as it lives.
template <class T>
cudaError_t cudaMallocAsync(T** out, std::size_t bytes, cudaStream_t stream) {
  played::expects_stream(stream);
  void* memory = nullptr;
  const cudaError_t code = played::take_memory(&memory, bytes);
  *out = static_cast<T*>(memory);
  if (code != cudaSuccess || memory == nullptr) return code;
  if (stream != nullptr && stream->captured) {
    const std::shared_ptr<void> owner(memory, &std::free);
    stream->captured->nodes.push_back({cudaGraphNodeTypeMemAlloc, [owner] {}});
    return cudaSuccess;
  }
  played::memory_pool& pool = played::pool();
  pool.taken.emplace(memory, bytes);
  pool.bytes += bytes;
  pool.most_bytes = std::max(pool.most_bytes, pool.bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  if (memory == nullptr) return cudaSuccess;
  if (stream != nullptr && stream->captured) {
    stream->captured->nodes.push_back({cudaGraphNodeTypeMemFree, [] {}});
    return cudaSuccess;
  }
  const auto found = played::pool().taken.find(memory);
  if (found == played::pool().taken.end()) return cudaErrorInvalidValue;
  played::pool().bytes -= found->second;
  played::pool().taken.erase(found);
  std::free(memory);
  return cudaSuccess;
}

using cudaMemPool_t = played::memory_pool*;
enum cudaMemPoolAttr { cudaMemPoolAttrUsedMemCurrent, cudaMemPoolAttrUsedMemHigh };
inline cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* out, int) {
  *out = &played::pool();
  return cudaSuccess;
}
inline cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr what, void* out) {
  const std::uint64_t bytes =
      what == cudaMemPoolAttrUsedMemCurrent ? pool->bytes : pool->most_bytes;
  std::memcpy(out, &bytes, sizeof bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr what, void* value) {
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, value, sizeof bytes);
  if (what != cudaMemPoolAttrUsedMemHigh || bytes != 0) return cudaErrorInvalidValue;
  pool->most_bytes = pool->bytes;
  return cudaSuccess;
}
template <class T>
cudaError_t cudaMallocHost(T** out, std::size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(out), bytes);
}
inline cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = *total = played_memory_bytes;
  return cudaSuccess;
}

enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t stream = nullptr) {
  if (bytes > 0) played::enqueue(stream, [=] { std::memmove(to, from, bytes); });
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind);
}
inline cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from,
                                     std::size_t from_pitch, std::size_t width, std::size_t height,
                                     cudaMemcpyKind, cudaStream_t stream = nullptr) {
  played::enqueue(stream, [=] {
    for (std::size_t row = 0; row < height; ++row)
      std::memmove(static_cast<char*>(to) + row * to_pitch,
                   static_cast<const char*>(from) + row * from_pitch, width);
  });
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* at, int value, std::size_t bytes,
                                   cudaStream_t stream = nullptr) {
  if (bytes > 0) played::enqueue(stream, [=] { std::memset(at, value, bytes); });
  return cudaSuccess;
}
inline cudaError_t cudaMemset2DAsync(void* at, std::size_t pitch, int value, std::size_t width,
                                     std::size_t height, cudaStream_t stream = nullptr) {
  played::enqueue(stream, [=] {
    for (std::size_t row = 0; row < height; ++row)
      std::memset(static_cast<char*>(at) + row * pitch, value, width);
  });
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* at, int value, std::size_t bytes) {
  return cudaMemsetAsync(at, value, bytes);
}

// ---- the device ------------------------------------------------------------------------------------------

struct cudaDeviceProp {
  char name[256] = "played by the processor";
  int major = 9, minor = 0, multiProcessorCount = 4, l2CacheSize = 1 << 20;
  std::size_t totalGlobalMem = played_memory_bytes, sharedMemPerBlockOptin = 227 * 1024;
  int memoryBusWidth = 0, clockRate = 0;
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrL2CacheSize,
  cudaDevAttrClockRate,
  cudaDevAttrMemoryClockRate,
  cudaDevAttrCooperativeLaunch,
  cudaDevAttrMaxThreadsPerMultiProcessor,
};
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int) {
  *out = {};
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* out, cudaDeviceAttr what, int) {
  const cudaDeviceProp device;
  switch (what) {
    case cudaDevAttrMultiProcessorCount:
      *out = device.multiProcessorCount;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *out = device.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *out = device.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *out = static_cast<int>(device.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrL2CacheSize:
      *out = device.l2CacheSize;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *out = 2048;
      break;
    case cudaDevAttrClockRate:
    case cudaDevAttrMemoryClockRate:
    case cudaDevAttrCooperativeLaunch:
      *out = 0;
      break;
  }
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}

// ---- launches --------------------------------------------------------------------------------------------

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaFuncAttributePreferredSharedMemoryCarveout
};

namespace played {

/// What variables of a kernel's own take of its block's shared memory: as if each had so many.
inline constexpr std::size_t static_shared_bytes = 1024;

/// What each kernel was allowed to take.
inline std::map<const void*, std::size_t>& dynamic_shared_limits() {
  static std::map<const void*, std::size_t> limits;
  return limits;
}
inline std::uint64_t& launches() {
  static std::uint64_t count = 0;
  return count;
}

inline void run_grid(dim3 grid, dim3 threads, std::size_t shared_bytes, std::size_t cluster,
                     const std::function<void()>& body);

}  // namespace played

struct cudaFuncAttributes {
  std::size_t sharedSizeBytes = 0;
  int maxDynamicSharedSizeBytes = 0;
};
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, const void* kernel) {
  const auto allowed = played::dynamic_shared_limits().find(kernel);
  out->sharedSizeBytes = played::static_shared_bytes;
  out->maxDynamicSharedSizeBytes = static_cast<int>(allowed == played::dynamic_shared_limits().end()
                                                        ? 48 * 1024 - played::static_shared_bytes
                                                        : allowed->second);
  return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute what, int value) {
  if (what != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || value > 227 * 1024 - static_cast<int>(played::static_shared_bytes))
    return cudaErrorInvalidValue;
  played::dynamic_shared_limits()[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* out, Kernel, int, std::size_t) {
  *out = 1;
  return cudaSuccess;
}

enum cudaLaunchAttributeID {
  cudaLaunchAttributeClusterDimension,
  cudaLaunchAttributeCooperative,
  cudaLaunchAttributeProgrammaticStreamSerialization
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
    int cooperative;
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const dim3 grid = config->gridDim, threads = config->blockDim;
  const std::uint64_t per_block = std::uint64_t{threads.x} * threads.y * threads.z;
  if (per_block == 0 || per_block > 1024 || threads.z > 64 || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.x > 0x7fffffffU || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  cudaFuncAttributes has;
  cudaFuncGetAttributes(&has, reinterpret_cast<const void*>(kernel));
  if (config->dynamicSmemBytes > static_cast<std::size_t>(has.maxDynamicSharedSizeBytes))
    return cudaErrorInvalidValue;
  // Arguments are copied at the launch, as a device does.
  const auto copies = std::make_shared<std::tuple<std::remove_cvref_t<Parameters>...>>(
      std::forward<Arguments>(arguments)...);
  const std::size_t shared_bytes = config->dynamicSmemBytes;
  std::size_t cluster = 1;
  for (unsigned a = 0; a < config->numAttrs; ++a)
    if (config->attrs[a].id == cudaLaunchAttributeClusterDimension)
      cluster = config->attrs[a].val.clusterDim.x;
  if (cluster == 0 || cluster > 8 || grid.x % cluster != 0) return cudaErrorInvalidConfiguration;
  played::enqueue(config->stream, [=] {
    const std::function<void()> body = [&] {
      std::apply([&](const auto&... each) { kernel(each...); }, *copies);
    };
    played::run_grid(grid, threads, shared_bytes, cluster, body);
  });
  return cudaSuccess;
}

namespace played {

inline void poison_shared_memory(std::size_t bytes, std::size_t blocks);

/// Clusters of blocks run one after another, the blocks of one side by side. What these share with their
/// own threads alone must then be dynamic_shared(): a __shared__ variable would be everyone's.
inline void run_grid(dim3 grid, dim3 threads, std::size_t shared_bytes, std::size_t cluster,
                     const std::function<void()>& body) {
  gridDim = grid;
  blockDim = threads;
  const std::uint64_t clusters = std::uint64_t{grid.x} / cluster * grid.y * grid.z;
  const std::uint64_t seed = ++launches() * 0x2545f4914f6cdd1dULL;
  const std::uint64_t first = (seed >> 20) % clusters;
  const bool down = (seed >> 19 & 1) != 0;
  for (std::uint64_t i = 0; i < clusters; ++i) {
    const std::uint64_t b =
        (down ? (first + clusters - i) % clusters : (first + i) % clusters) * cluster;
    const uint3 at = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                      static_cast<unsigned>(b / grid.x / grid.y)};
    poison_shared_memory(shared_bytes, cluster);
    block::running().run(body, seed + i, at, cluster);
  }
}

}  // namespace played

namespace played {

/// kernel<<<blocks, threads>>>(arguments...), as launch(kernel, blocks, threads)(arguments...).
template <class... Parameters>
auto launch(void (*kernel)(Parameters...), dim3 blocks, dim3 threads) {
  return [=](const std::type_identity_t<std::remove_cvref_t<Parameters>>&... arguments) {
    const cudaLaunchConfig_t config{blocks, threads, 0, nullptr, nullptr, 0};
    cudaLaunchKernelEx(&config, kernel, arguments...);
  };
}

}  // namespace played
