// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <dualsft/float16.hpp>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

/// The twin of detail/tensor_core.cuh for the played device: the same functions in plain C++. What a
/// copy will bring is kept until the thread waits for it; until then its place holds NaNs, so that
/// reading too early, or writing where somebody still reads, is seen.
namespace dualsft::detail {

namespace played_tensor_core {

inline int thread() {
  return static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}
inline int lane() {
  return thread() % 32;
}

/// A device would report a misaligned address, or worse.
inline void require(bool condition, const char* what) {
  if (!condition) throw std::logic_error(std::string("played device: ") + what);
}

/// Something of the thread's own, new in each block.
template <class T>
T& of_thread() {
  static std::map<int, T> all;
  static std::tuple<std::uint64_t, unsigned, unsigned, unsigned> of_block;
  const std::tuple now(played::launches(), blockIdx.x, blockIdx.y, blockIdx.z);
  if (now != of_block) all.clear();
  of_block = now;
  return all[thread()];
}

/// What the lanes of each warp show each other; one block is played at a time.
struct shown {
  const unsigned char* row;
  std::uint32_t a[4], b[2];
};
inline shown* warp() {
  static shown all[1024 / 32][32];
  return all[thread() / 32];
}

inline std::uint16_t value_at(const unsigned char* row, int column) {
  std::uint16_t bits;
  std::memcpy(&bits, row + 2 * column, 2);
  return bits;
}
inline std::uint32_t pair(std::uint16_t lower, std::uint16_t upper) {
  return std::uint32_t{lower} | std::uint32_t{upper} << 16;
}
template <Storage16 T>
float half_of(std::uint32_t both, int which) {
  return to_float(T{static_cast<std::uint16_t>(both >> (16 * which))});
}

struct copy {
  unsigned char* to;
  unsigned char bytes[16];
};
struct copies {
  std::vector<copy> open;
  std::deque<std::vector<copy>> groups;
};
}  // namespace played_tensor_core

inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  using namespace played_tensor_core;
  const int g = lane() / 4, t = lane() % 4;
  require(reinterpret_cast<std::uintptr_t>(row) % 16 == 0, "ldmatrix: address of a row");
  warp()[lane()].row = static_cast<const unsigned char*>(row);
  __syncwarp();
  for (int m = 0; m < 4; ++m) {
    const unsigned char* from = warp()[8 * m + g].row;
    r[m] = pair(value_at(from, 2 * t), value_at(from, 2 * t + 1));
  }
  __syncwarp();
}

inline void ldmatrix_x4_transposed(std::uint32_t (&r)[4], const void* row) {
  using namespace played_tensor_core;
  const int g = lane() / 4, t = lane() % 4;
  require(reinterpret_cast<std::uintptr_t>(row) % 16 == 0, "ldmatrix: address of a row");
  warp()[lane()].row = static_cast<const unsigned char*>(row);
  __syncwarp();
  for (int m = 0; m < 4; ++m)
    r[m] = pair(value_at(warp()[8 * m + 2 * t].row, g), value_at(warp()[8 * m + 2 * t + 1].row, g));
  __syncwarp();
}

template <Storage16 T>
void mma_m16n8k16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  using namespace played_tensor_core;
  const int g = lane() / 4, t = lane() % 4;
  shown& own = warp()[lane()];
  std::copy(a, a + 4, own.a);
  own.b[0] = b0;
  own.b[1] = b1;
  __syncwarp();
  for (int k = 0; k < 16; ++k) {
    const int quarter = k % 8 / 2, half = k % 2, upper = k / 8;
    const shown& in_row = warp()[4 * g + quarter];
    const float x[2] = {half_of<T>(in_row.a[2 * upper], half),
                        half_of<T>(in_row.a[2 * upper + 1], half)};
    for (int j = 0; j < 2; ++j) {
      const float y = half_of<T>(warp()[4 * (2 * t + j) + quarter].b[upper], half);
      c[j] += x[0] * y;
      c[2 + j] += x[1] * y;
    }
  }
  __syncwarp();
}

template <Storage16 T>
std::uint32_t pack_pair(float lower, float upper) {
  const auto narrow = [](float x) {
    return x != x ? std::uint16_t{0x7fff} : convert_float<T>(x).bits;
  };
  return played_tensor_core::pair(narrow(lower), narrow(upper));
}

template <Storage16 T>
void unpack_pair(std::uint32_t pair, float& lower, float& upper) {
  lower = played_tensor_core::half_of<T>(pair, 0);
  upper = played_tensor_core::half_of<T>(pair, 1);
}

inline float exp2_or_zero(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126F ? 0.0F : y;
}

inline void cp_async_16(void* shared, const void* global, int bytes) {
  using played_tensor_core::require;
  require(reinterpret_cast<std::uintptr_t>(shared) % 16 == 0, "cp_async_16: shared address");
  require(bytes == 0 || reinterpret_cast<std::uintptr_t>(global) % 16 == 0,
          "cp_async_16: global address");
  require(0 <= bytes && bytes <= 16, "cp_async_16: bytes");
  played_tensor_core::copy one{static_cast<unsigned char*>(shared), {}};
  std::memcpy(one.bytes, global, static_cast<std::size_t>(bytes));
  std::memset(shared, 0xff, sizeof one.bytes);
  played_tensor_core::of_thread<played_tensor_core::copies>().open.push_back(one);
}

inline void cp_async_16(void* shared, const void* global, bool valid) {
  cp_async_16(shared, global, valid ? 16 : 0);
}

inline void cp_async_commit() {
  played_tensor_core::copies& own = played_tensor_core::of_thread<played_tensor_core::copies>();
  own.groups.push_back(std::move(own.open));
  own.open.clear();
}

template <int Newest>
void cp_async_wait() {
  played_tensor_core::copies& own = played_tensor_core::of_thread<played_tensor_core::copies>();
  while (own.groups.size() > static_cast<std::size_t>(Newest)) {
    for (const auto& one : own.groups.front()) std::memcpy(one.to, one.bytes, sizeof one.bytes);
    own.groups.pop_front();
  }
}

}  // namespace dualsft::detail
