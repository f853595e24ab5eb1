// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <dualsft/float16.hpp>
#include <type_traits>

/// The tensor cores' instructions of every device since sm_80, and copies that run beside them, one
/// small function each. A warp calls the first four together. Where a value of a matrix lies, for lane
/// 4 g + t of the warp, two 16-bit values to a register, the first in its lower half:
///
///   A [16, 16]   a[0]: (g, 2t), (g, 2t+1)     a[1]: row g + 8     a[2]: columns + 8     a[3]: both
///   B [16, 8]    b0: (2t, g), (2t+1, g)       b1: rows + 8
///   C [16, 8]    c[0], c[1]: (g, 2t), (g, 2t+1)                   c[2], c[3]: row g + 8
///
/// Source: PTX ISA, "Warp-level matrix instructions"; the played device has a twin of this header.
namespace dualsft::detail {

/// The address as instructions on shared memory take it.
__device__ inline std::uint32_t shared_address(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}

/// Four 8 x 8 matrices of 16-bit values: lane i gives the address of row i % 8 of matrix i / 8 in
/// shared memory (16 bytes, aligned to 16) and gets in r[m] of matrix m the values (g, 2t), (g, 2t+1).
/// Rows k-contiguous: this is how A is read (matrices: rows 0-7, rows 8-15, then k + 8), and B if
/// it is stored [n, k].
__device__ inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/// The same of the transposed matrices: r[m] gets (2t, g), (2t+1, g) of matrix m. This is how B is
/// read if it is stored [k, n].
__device__ inline void ldmatrix_x4_transposed(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/// C += A B, in float.
/// \tparam T  bfloat16 or float16: what A and B hold
template <Storage16 T>
__device__ inline void mma_m16n8k16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                    std::uint32_t b1) {
  if constexpr (std::is_same_v<T, bfloat16>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Two floats as one register of an operand; to nearest, ties to even; a NaN loses its payload.
template <Storage16 T>
__device__ inline std::uint32_t pack_pair(float lower, float upper) {
  std::uint32_t pair;
  if constexpr (std::is_same_v<T, bfloat16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(upper), "f"(lower));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(upper), "f"(lower));
  return pair;
}

/// The two values of such a register.
template <Storage16 T>
__device__ inline void unpack_pair(std::uint32_t pair, float& lower, float& upper) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    lower = __uint_as_float(pair << 16);
    upper = __uint_as_float(pair & 0xffff0000u);
  } else {
    asm("{.reg .b16 l, u;\nmov.b32 {l, u}, %2;\ncvt.f32.f16 %0, l;\ncvt.f32.f16 %1, u;}"
        : "=f"(lower), "=f"(upper)
        : "r"(pair));
  }
}

/// 2^x, with zero in place of results below 2^-126: one instruction, where exp2f takes four.
__device__ inline float exp2_or_zero(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Begins to copy 16 bytes to shared memory, both addresses aligned to 16; zeros, and nothing is read,
/// if not `valid`. Other threads see them after cp_async_wait and a barrier.
__device__ inline void cp_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}

/// The same of the first `bytes` (0 to 16) alone, with zeros behind them.
__device__ inline void cp_async_16(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(bytes)
               : "memory");
}

/// The thread's copies since the last call become one group.
__device__ inline void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits until at most the `Newest` last groups of this thread are still under way.
template <int Newest>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Newest) : "memory");
}

}  // namespace dualsft::detail
