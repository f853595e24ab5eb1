#pragma once

#include <cstddef>
#include <cstdint>

// The words and types of CUDA C++ that this project's kernels use.

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __constant__
#define __grid_constant__
#define __managed__
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One block runs at a time, so what its threads share is one object per program.
#define __shared__ thread_local

#define PLAYED_VECTOR(type, name)                                         \
  struct alignas(2 * sizeof(type)) name##2 {                              \
    type x, y;                                                            \
  };                                                                      \
  struct name##3 {                                                        \
    type x, y, z;                                                         \
  };                                                                      \
  struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4 { \
    type x, y, z, w;                                                      \
  };                                                                      \
  inline name##2 make_##name##2(type x, type y) {                         \
    return {x, y};                                                        \
  }                                                                       \
  inline name##3 make_##name##3(type x, type y, type z) {                 \
    return {x, y, z};                                                     \
  }                                                                       \
  inline name##4 make_##name##4(type x, type y, type z, type w) {         \
    return {x, y, z, w};                                                  \
  }
PLAYED_VECTOR(char, char)
PLAYED_VECTOR(unsigned char, uchar)
PLAYED_VECTOR(short, short)
PLAYED_VECTOR(unsigned short, ushort)
PLAYED_VECTOR(int, int)
PLAYED_VECTOR(unsigned, uint)
PLAYED_VECTOR(long long, longlong)
PLAYED_VECTOR(unsigned long long, ulonglong)
PLAYED_VECTOR(float, float)
PLAYED_VECTOR(double, double)
#undef PLAYED_VECTOR

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

inline uint3 threadIdx{}, blockIdx{};
inline dim3 blockDim{}, gridDim{};
inline constexpr int warpSize = 32;
