// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <dualsft/execution.cuh>
#include <dualsft/views.hpp>
#include <span>
#include <utility>
#include <vector>

namespace dualsft::detail {

/// Memory of a device that this object owns: taken, and given back, in the order of one stream, which
/// must outlive it. Nothing is initialised.
template <class T>
class device_array {
 public:
  device_array() = default;

  /// \throws cuda_error  if there is not so much
  device_array(const exec::cuda& policy, index_t size) : stream_(policy.stream), size_(size) {
    void* data = nullptr;
    if (size > 0)
      cuda_check(cudaMallocAsync(&data, static_cast<std::size_t>(size) * sizeof(T), stream_),
                 "device_array");
    data_ = static_cast<T*>(data);
  }

  /// A copy of what the host has.
  device_array(const exec::cuda& policy, std::span<const T> from)
      : device_array(policy, static_cast<index_t>(from.size())) {
    if (!from.empty())
      cuda_check(cudaMemcpyAsync(data_, from.data(), bytes(), cudaMemcpyHostToDevice, stream_),
                 "device_array");
  }

  device_array(device_array&& other) noexcept { swap(other); }
  device_array& operator=(device_array&& other) noexcept {
    device_array moved(std::move(other));
    swap(moved);
    return *this;
  }
  ~device_array() {
    if (data_ != nullptr) static_cast<void>(cudaFreeAsync(data_, stream_));
  }

  T* data() const noexcept { return data_; }
  index_t size() const noexcept { return size_; }
  std::size_t bytes() const noexcept { return static_cast<std::size_t>(size_) * sizeof(T); }
  vector_view<T, device_space> view() const { return {data_, size_}; }

  /// Every byte becomes `value`.
  void fill_bytes(int value) {
    if (size_ > 0) cuda_check(cudaMemsetAsync(data_, value, bytes(), stream_), "device_array");
  }

  /// Waits for the stream.
  std::vector<T> to_host() const {
    std::vector<T> out(static_cast<std::size_t>(size_));
    if (size_ > 0)
      cuda_check(cudaMemcpyAsync(out.data(), data_, bytes(), cudaMemcpyDeviceToHost, stream_),
                 "device_array");
    cuda_check(cudaStreamSynchronize(stream_), "device_array");
    return out;
  }

 private:
  void swap(device_array& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(stream_, other.stream_);
    std::swap(size_, other.size_);
  }

  T* data_ = nullptr;
  cudaStream_t stream_ = nullptr;
  index_t size_ = 0;
};

}  // namespace dualsft::detail
