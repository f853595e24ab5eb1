// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <dualsft/detail/cwsd_device.hpp>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/detail/launch.cuh>
#include <dualsft/device_products.cuh>
#include <span>
#include <vector>

/// Which rows of hidden states go through the head together, and the memory they take on their way.
namespace dualsft::detail {

/// to[i] = from[rows[i]], a block of threads per row.
template <class T>
__global__ void gather_rows(const index_t* rows, const T* from, index_t from_stride, index_t width,
                            T* to) {
  const T* source = from + rows[blockIdx.x] * from_stride;
  for (index_t c = threadIdx.x; c < width; c += blockDim.x) to[blockIdx.x * width + c] = source[c];
}

/// to[rows[i]] = from[i]
template <class T>
__global__ void scatter_rows(const index_t* rows, const T* from, index_t width, T* to,
                             index_t to_stride) {
  T* target = to + rows[blockIdx.x] * to_stride;
  for (index_t c = threadIdx.x; c < width; c += blockDim.x)
    target[c] = from[blockIdx.x * width + c];
}

/// Rows [first_row, last_row), counted among those that count, of anchors [first_anchor, last_anchor).
struct head_chunk {
  index_t first_row = 0, last_row = 0;
  index_t first_anchor = 0, last_anchor = 0;
  bool whole = true;  ///< false: a part of one anchor
};

/// Chunks of at most `most` rows: as many whole anchors as fit, and parts of those that alone do not.
inline std::vector<head_chunk> chunks_of(std::span<const index_t> begins, index_t most) {
  std::vector<head_chunk> out;
  const auto anchors = static_cast<index_t>(begins.size()) - 1;
  const auto begin = [&](index_t x) { return begins[static_cast<std::size_t>(x)]; };
  for (index_t x = 0; x < anchors;) {
    index_t last = x;
    while (last < anchors && begin(last + 1) - begin(x) <= most) ++last;
    if (last > x) {
      if (begin(last) > begin(x)) out.push_back({begin(x), begin(last), x, last, true});
      x = last;
      continue;
    }
    for (index_t row = begin(x); row < begin(x + 1); row += most)
      out.push_back({row, std::min(row + most, begin(x + 1)), x, x + 1, false});
    ++x;
  }
  return out;
}

/// One piece of memory, given out in parts that start at multiples of 256 bytes.
class memory_parts {
 public:
  memory_parts(unsigned char* data, index_t bytes) : data_(data), left_(bytes) {}

  template <class T>
  T* take(index_t count) {
    const index_t bytes = padded(count * static_cast<index_t>(sizeof(T)));
    expects(bytes <= left_, "cwsd_through_head", "the workspace is too small", "bytes lacking",
            bytes - left_);
    T* const out = reinterpret_cast<T*>(data_);
    data_ += bytes;
    left_ -= bytes;
    return out;
  }
  index_t left() const { return left_; }

  static index_t padded(index_t bytes) { return (bytes + 255) / 256 * 256; }

 private:
  unsigned char* data_;
  index_t left_;
};

/// Elements from one row of logits to the next: rows start at multiples of 128 bytes.
template <class T>
index_t logit_stride(index_t classes) {
  constexpr index_t line = 128 / sizeof(T);
  return (classes + line - 1) / line * line;
}

}  // namespace dualsft::detail
