// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <benchmark/benchmark.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/execution.cuh>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#if __has_include(<dualsft/device_products.cuh>)
#include "device_product.cuh"
#endif

/// The limits of this device as it runs: its copy, its bf16 matrix product. And what it is.
namespace dualsft::bench {

/// Whether every benchmark runs once at a size that takes no time.
inline bool is_small() {
  return std::getenv("DUALSFT_BENCH_SMALL") != nullptr;
}
template <class T>
T pick(T size, T small_size) {
  return is_small() ? small_size : size;
}

inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// What benchmarks share and give back together.
struct shared_state {
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  detail::device_array<unsigned char> from, to, flush;

  shared_state() {
    using detail::cuda_check;
    cuda_check(cudaStreamCreate(&stream), "bench");
    cuda_check(cudaEventCreate(&begin), "bench");
    cuda_check(cudaEventCreate(&end), "bench");
    cudaDeviceProp device{};
    cuda_check(cudaGetDeviceProperties(&device, 0), "bench");
    const index_t copied = pick(index_t{1} << 31, index_t{1} << 16);
    const exec::cuda on{stream};
    from = {on, copied};
    to = {on, copied};
    flush = {on, pick(3 * index_t{device.l2CacheSize}, index_t{1} << 10)};
    from.fill_bytes(0x5a);
    to.fill_bytes(0);
  }
  shared_state(const shared_state&) = delete;
  shared_state& operator=(const shared_state&) = delete;
  ~shared_state() {
    from = {};
    to = {};
    flush = {};
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    cudaStreamDestroy(stream);
  }
};

inline std::unique_ptr<shared_state>& shared_slot() {
  static std::unique_ptr<shared_state> slot;
  return slot;
}
inline shared_state& shared() {
  if (!shared_slot()) shared_slot() = std::make_unique<shared_state>();
  return *shared_slot();
}

/// The stream that everything is timed on.
inline exec::cuda policy() {
  return {shared().stream};
}

/// Of one call, from event to event.
template <class Body>
double seconds_of(const Body& body) {
  using detail::cuda_check;
  shared_state& at = shared();
  cuda_check(cudaEventRecord(at.begin, at.stream), "bench");
  body();
  cuda_check(cudaEventRecord(at.end, at.stream), "bench");
  cuda_check(cudaEventSynchronize(at.end), "bench");
  float milliseconds = 0;
  cuda_check(cudaEventElapsedTime(&milliseconds, at.begin, at.end), "bench");
  return std::max(1e-9, 1e-3 * static_cast<double>(milliseconds));
}

/// Overwrites three times what the second-level cache holds.
inline void flush_cache() {
  shared().flush.fill_bytes(1);
}

// ---- a copy within the device --------------------------------------------------------------------

/// Bytes read and written by a copy.
inline double copied_bytes() {
  return 2.0 * static_cast<double>(shared().from.bytes());
}
inline double copy_seconds() {
  shared_state& at = shared();
  return seconds_of([&] {
    detail::cuda_check(cudaMemcpyAsync(at.to.data(), at.from.data(), at.from.bytes(),
                                       cudaMemcpyDeviceToDevice, at.stream),
                       "bench");
  });
}
/// Bytes per second, read and written: the median of several copies now.
inline double copy_bandwidth() {
  std::vector<double> seconds;
  copy_seconds();
  for (int k = 0; k < 9; ++k) seconds.push_back(copy_seconds());
  return copied_bytes() / median(seconds);
}

// ---- a product of two matrices of random bf16 numbers ---------------------------------------------

#if __has_include(<dualsft/device_products.cuh>)
inline std::unique_ptr<device_product>& product_slot() {
  static std::unique_ptr<device_product> slot;
  return slot;
}
inline device_product& product() {
  if (!product_slot())
    product_slot() = std::make_unique<device_product>(policy(), pick<index_t>(8192, 64));
  return *product_slot();
}
inline double product_operations() {
  return product().operations();
}
inline double product_seconds() {
  device_product& one = product();
  return seconds_of([&] { one.run(policy()); });
}
/// Operations per second: the median of several products now.
inline double product_rate() {
  std::vector<double> seconds;
  for (int k = 0; k < 3; ++k) product_seconds();
  for (int k = 0; k < 9; ++k) seconds.push_back(product_seconds());
  return product_operations() / median(seconds);
}
#else
inline double product_operations() {
  return 0;
}
inline double product_seconds() {
  return 1;
}
#endif

/// Gives back what benchmarks share, before the stream goes.
inline std::vector<std::function<void()>>& at_end() {
  static std::vector<std::function<void()>> all;
  return all;
}

inline void release_limits() {
  for (const std::function<void()>& each : at_end()) each();
#if __has_include(<dualsft/device_products.cuh>)
  product_slot().reset();
#endif
  shared_slot().reset();
}

// ---- what the results say of the machine ----------------------------------------------------------

inline std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", x);
  return text;
}

/// Context lines of the results: the device, its software and its limits.
inline void describe_device() {
  using benchmark::AddCustomContext;
  cudaDeviceProp device{};
  detail::cuda_check(cudaGetDeviceProperties(&device, 0), "bench");
  AddCustomContext("device", device.name);
  AddCustomContext("compute_capability",
                   std::to_string(device.major) + "." + std::to_string(device.minor));
  AddCustomContext("multiprocessors", std::to_string(device.multiProcessorCount));
  AddCustomContext("memory_GB", number(static_cast<double>(device.totalGlobalMem) / 1e9));
  AddCustomContext("l2_MB", number(device.l2CacheSize / 1e6));
  int version = 0;
  if (cudaDriverGetVersion(&version) == cudaSuccess)
    AddCustomContext("driver_cuda", std::to_string(version));
  if (cudaRuntimeGetVersion(&version) == cudaSuccess)
    AddCustomContext("runtime_cuda", std::to_string(version));
#if defined(__CUDACC_VER_MAJOR__)
  AddCustomContext("nvcc", std::to_string(__CUDACC_VER_MAJOR__) + "." +
                               std::to_string(__CUDACC_VER_MINOR__) + "." +
                               std::to_string(__CUDACC_VER_BUILD__));
#else
  AddCustomContext("nvcc", "none: a processor plays the device, and no time means anything");
#endif
  int kilohertz = 0;
  if (cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, 0) == cudaSuccess)
    AddCustomContext("sm_clock_MHz_max", std::to_string(kilohertz / 1000));
  if (cudaDeviceGetAttribute(&kilohertz, cudaDevAttrMemoryClockRate, 0) == cudaSuccess)
    AddCustomContext("memory_clock_MHz_max", std::to_string(kilohertz / 1000));
  for (const char* name : {"DUALSFT_COMMIT", "DUALSFT_DRIVER", "DUALSFT_CLOCKS"})
    if (const char* text = std::getenv(name)) AddCustomContext(name, text);
  AddCustomContext("copy_GB_per_s", number(copy_bandwidth() / 1e9));
#if __has_include(<dualsft/device_products.cuh>)
  AddCustomContext("product_TFLOP_per_s", number(product_rate() / 1e12));
#endif
}

}  // namespace dualsft::bench
