// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <dualsft/detail/launch.cuh>
#include <dualsft/detail/tensor_core.cuh>
#include <dualsft/error.hpp>
#include <dualsft/execution.cuh>
#include <type_traits>

/// What sm_90a has beyond tensor_core.cuh: barriers that count bytes, copies of whole boxes of a
/// matrix, and products of four warps that read shared memory themselves. Kernels compile their body
/// only where DUALSFT_HAS_WGMMA is defined; the host asks has_wgmma() before it launches them.
///
/// Boxes are 64 columns of 16-bit values wide, one row 128 bytes, and lie in shared memory swizzled:
/// the 16-byte piece q of row r is stored at piece q ^ (r % 8) of that row. They start at multiples of
/// 1024 bytes.
///
/// Source: PTX ISA, "Asynchronous warpgroup level matrix instructions", "Tensors"; the played device
/// has a twin of this header.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DUALSFT_HAS_WGMMA
#endif

namespace dualsft::detail {

// --- barriers in shared memory -------------------------------------------------------------------

/// A phase of a barrier ends when `arrivals` threads have arrived and the bytes expected have come.
using phase_barrier = std::uint64_t;

__device__ inline void barrier_init(phase_barrier* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}

/// After the last barrier_init, before the block's (cluster's) threads are let loose on them.
__device__ inline void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void barrier_arrive(phase_barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

/// At the barrier of the same place in block `rank` of the cluster. Orders no ordinary stores for that
/// block: a release for a whole cluster waits for all of a thread's memory, and products and boxes,
/// which is what such barriers are about, need none.
__device__ inline void barrier_arrive_at(phase_barrier* barrier, unsigned rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}

/// Arrives, and makes the phase wait for so many bytes besides.
__device__ inline void barrier_arrive_expecting(phase_barrier* barrier, unsigned bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}

/// Waits until the barrier's phase of this parity (0 for the first) has ended; the one before the
/// first counts as ended.
__device__ inline void barrier_wait(phase_barrier* barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// --- clusters: blocks that reach each other's shared memory --------------------------------------

inline constexpr int largest_cluster = 2;

/// The launch of so many clusters of `cluster` blocks.
inline launch_shape cluster_shape(index_t clusters, int cluster, int threads, std::size_t bytes) {
  return {dim3(static_cast<unsigned>(clusters * cluster)), dim3(static_cast<unsigned>(threads)),
          bytes, static_cast<unsigned>(cluster)};
}

/// The block's dynamic_shared().
__device__ inline unsigned char* cluster_shared() {
  return dynamic_shared();
}

template <int Cluster>
__device__ inline int cluster_rank() {
  return static_cast<int>(blockIdx.x % Cluster);
}
template <int Cluster>
__device__ inline int cluster_number() {
  return static_cast<int>(blockIdx.x / Cluster);
}
template <int Cluster>
__device__ inline int cluster_count() {
  return static_cast<int>(gridDim.x / Cluster);
}

/// All threads of all blocks of the cluster meet.
__device__ inline void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// --- boxes ---------------------------------------------------------------------------------------

using tensor_map = CUtensorMap;

/// Can boxes be taken from a matrix whose rows begin `row_stride` elements apart?
inline bool tensor_map_takes(const void* data, index_t rows, index_t cols, index_t row_stride) {
  constexpr index_t most = index_t{1} << 30;
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && row_stride % 8 == 0 &&
         row_stride >= cols && row_stride < (index_t{1} << 38) && 0 < rows && rows < most &&
         0 < cols && cols < most;
}

/// Boxes of box_rows x 64 of a matrix; what a box reaches beyond the matrix is read as zeros.
/// \param box_rows  at most 256
/// \throws cuda_error  if the driver refuses, naming `function`
template <Storage16 T>
tensor_map make_tensor_map(const char* function, const T* data, index_t rows, index_t cols,
                           index_t row_stride, int box_rows) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
  cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                              cudaEnableDefault, &found),
             function);
#else
  cuda_check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found),
             function);
#endif
  if (found != cudaDriverEntryPointSuccess) throw cuda_error(function, cudaErrorSymbolNotFound);
  const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry);
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(row_stride) * sizeof(T)};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  tensor_map map{};
  const auto describe = [&] {
    return encode(&map,
                  std::is_same_v<T, bfloat16> ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                              : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                  2, const_cast<T*>(data), sizes, strides, box, steps,
                  CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  };
  CUresult result = describe();
  if (result == CUDA_ERROR_INVALID_CONTEXT) {
    // A thread that has launched nothing yet: unlike the runtime's functions, the driver's take no
    // context by themselves.
    int device = 0;
    cuda_check(cudaGetDevice(&device), function);
    cuda_check(cudaSetDevice(device), function);
    result = describe();
  }
  // The runtime's numbers for errors are the driver's.
  if (result != CUDA_SUCCESS) throw cuda_error(function, static_cast<cudaError_t>(result));
  return map;
}

__device__ inline void prefetch_tensor_map(const tensor_map& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// Between a thread's own accesses to a place in shared memory and the arrival at a barrier that lets a
/// box be copied there: the copy engine is not bound by the order of ordinary accesses.
__device__ inline void fence_before_boxes() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Begins to copy the box whose first element is (row, col); its bytes arrive at the barrier.
__device__ inline void load_box(void* shared, const tensor_map& map, int row, int col,
                                phase_barrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(col), "r"(row), "r"(shared_address(barrier))
      : "memory");
}

/// The same into the same place of every block of the cluster whose bit is set; the bytes arrive at
/// each one's own barrier.
__device__ inline void load_box_for(std::uint16_t blocks, void* shared, const tensor_map& map,
                                    int row, int col, phase_barrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(shared)),
      "l"(&map), "r"(col), "r"(row), "r"(shared_address(barrier)), "h"(blocks)
      : "memory");
}

// --- products of four warps ----------------------------------------------------------------------

/// Boxes side by side, each `box_bytes` behind the last, as an operand whose rows are k: the second operand of
/// a product with Transposed = 1. The next 16 rows are 128 further on.
__device__ inline std::uint64_t transposed_descriptor(const void* shared, int box_bytes) {
  constexpr std::uint64_t eight_rows = 1024 >> 4, swizzle_128 = 1;
  return static_cast<std::uint64_t>((shared_address(shared) & 0x3ffffu) >> 4) |
         static_cast<std::uint64_t>(box_bytes >> 4) << 16 | eight_rows << 32 | swizzle_128 << 62;
}

/// A swizzled box, rows k-contiguous, as an operand. The next 16 columns are 2 further on; the next
/// 8 rows 64.
__device__ inline std::uint64_t box_descriptor(const void* shared) {
  return transposed_descriptor(shared, 16);  // what is not used is to be 1
}

/// Before the first product of a series, and after any other use of the accumulators.
__device__ inline void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/// The products since the last call become one group.
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/// Waits until at most the `Newest` last groups are still under way.
template <int Newest>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Newest) : "memory");
}

/// Keeps the compiler from moving uses of the accumulators across this line.
template <int N>
__device__ inline void wgmma_pin(float (&c)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

/// The same of the registers of an operand: they are ready before the products begin, and stay.
template <int N>
__device__ inline void wgmma_pin(std::uint32_t (&a)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(a[i])::"memory");
}

#define DUALSFT_FLOATS_8(c, i)                                                                \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), \
      "+f"(c[i + 6]), "+f"(c[i + 7])
#define DUALSFT_FLOATS_32(c, i)                                                    \
  DUALSFT_FLOATS_8(c, i), DUALSFT_FLOATS_8(c, i + 8), DUALSFT_FLOATS_8(c, i + 16), \
      DUALSFT_FLOATS_8(c, i + 24)
#define DUALSFT_FLOATS_64(c) DUALSFT_FLOATS_32(c, 0), DUALSFT_FLOATS_32(c, 32)
#define DUALSFT_FLOATS_128(c) \
  DUALSFT_FLOATS_64(c), DUALSFT_FLOATS_32(c, 64), DUALSFT_FLOATS_32(c, 96)
// clang-format off
#define DUALSFT_NAMES_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define DUALSFT_NAMES_64 \
  DUALSFT_NAMES_32 ", " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define DUALSFT_NAMES_128 \
  DUALSFT_NAMES_64 ", " \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
// Operands are numbered behind the sums': `adds` is the last one of a product of boxes, the last but one of
// a product whose A lies in registers.
#define DUALSFT_WGMMA_BOXES(n, type, names, a_name, b_name, adds, ...)                          \
  asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, " adds ", 0;\n"                          \
               "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type                    \
               " {" names "}, " a_name ", " b_name ", adds, 1, 1, 0, 0;\n}\n"                    \
               : __VA_ARGS__ : "l"(a), "l"(b), "r"(add))
#define DUALSFT_WGMMA_REGISTERS(n, type, names, a_names, b_name, adds, transposed, ...)         \
  asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, " adds ", 0;\n"                          \
               "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type                    \
               " {" names "}, {" a_names "}, " b_name ", adds, 1, 1, " transposed ";\n}\n"       \
               : __VA_ARGS__                                                                     \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(Transposed))
#define DUALSFT_WGMMA_REGISTERS_OF(type)                                                         \
  if constexpr (Sums == 32)                                                                      \
    DUALSFT_WGMMA_REGISTERS("64", type, DUALSFT_NAMES_32, "%32, %33, %34, %35", "%36", "%37",    \
                            "%38", DUALSFT_FLOATS_32(c, 0));                                     \
  else                                                                                           \
    DUALSFT_WGMMA_REGISTERS("128", type, DUALSFT_NAMES_64, "%64, %65, %66, %67", "%68", "%69",   \
                            "%70", DUALSFT_FLOATS_64(c))
#define DUALSFT_WGMMA_BOXES_OF(type)                                                             \
  if constexpr (Sums == 32)                                                                      \
    DUALSFT_WGMMA_BOXES("64", type, DUALSFT_NAMES_32, "%32", "%33", "%34",                       \
                        DUALSFT_FLOATS_32(c, 0));                                                \
  else if constexpr (Sums == 64)                                                                 \
    DUALSFT_WGMMA_BOXES("128", type, DUALSFT_NAMES_64, "%64", "%65", "%66",                      \
                        DUALSFT_FLOATS_64(c));                                                   \
  else                                                                                           \
    DUALSFT_WGMMA_BOXES("256", type, DUALSFT_NAMES_128, "%128", "%129", "%130",                  \
                        DUALSFT_FLOATS_128(c))
// clang-format on

/// C = A B^T, or C += A B^T if `add` is not 0, with A [64, 16] and B [n, 16] in shared memory, n = 64, 128
/// or 256 twice the sums of a thread; four warps together, the first of them at a multiple of four. Lane
/// 4 g + t of warp w has of row 16 w + g the columns 8 j + 2 t and 8 j + 2 t + 1 in c[4 j], c[4 j + 1],
/// and of row 16 w + g + 8 the same columns in c[4 j + 2], c[4 j + 3]: as after mma_m16n8k16.
/// \tparam T  bfloat16 or float16: what A and B hold
template <Storage16 T, int Sums>
__device__ inline void wgmma(float (&c)[Sums], std::uint64_t a, std::uint64_t b, int add) {
  static_assert(Sums == 32 || Sums == 64 || Sums == 128);
  if constexpr (std::is_same_v<T, bfloat16>) {
    DUALSFT_WGMMA_BOXES_OF("bf16");
  } else {
    DUALSFT_WGMMA_BOXES_OF("f16");
  }
}

/// The same with A in registers, each warp's 16 rows as mma_m16n8k16 takes them, and n = 64 or 128. The
/// registers keep their values until the product is waited for.
/// \tparam Transposed  0: B [n, 16] of a box_descriptor; 1: B^T [16, n] of a transposed_descriptor
template <Storage16 T, int Transposed, int Sums>
__device__ inline void wgmma(float (&c)[Sums], const std::uint32_t (&a)[4], std::uint64_t b,
                             int add) {
  static_assert(Sums == 32 || Sums == 64);
  if constexpr (std::is_same_v<T, bfloat16>) {
    DUALSFT_WGMMA_REGISTERS_OF("bf16");
  } else {
    DUALSFT_WGMMA_REGISTERS_OF("f16");
  }
}

#undef DUALSFT_FLOATS_8
#undef DUALSFT_FLOATS_32
#undef DUALSFT_FLOATS_64
#undef DUALSFT_FLOATS_128
#undef DUALSFT_NAMES_32
#undef DUALSFT_NAMES_64
#undef DUALSFT_NAMES_128
#undef DUALSFT_WGMMA_BOXES
#undef DUALSFT_WGMMA_BOXES_OF
#undef DUALSFT_WGMMA_REGISTERS
#undef DUALSFT_WGMMA_REGISTERS_OF

/// Two groups of four warps take turns: what the first has asked of the tensor cores before it arrives
/// comes before what the second asks for after its wait.
__device__ inline void turn_arrive() {
  asm volatile("bar.arrive 1, 256;" ::: "memory");
}
__device__ inline void turn_wait() {
  asm volatile("bar.sync 1, 256;" ::: "memory");
}

/// This warpgroup needs at most, or from now on has, `Registers` per thread (a multiple of 8).
template <int Registers>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// --- is any of it there? -------------------------------------------------------------------------

/// Has static shared memory only where kernels have their bodies: an attribute that the host reads.
template <int Bytes>
__global__ void wgmma_probe(unsigned char* out) {
#if defined(DUALSFT_HAS_WGMMA)
  __shared__ unsigned char mark[Bytes];
  for (int i = static_cast<int>(threadIdx.x); i < Bytes; i += 32) mark[i] = out[i];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < Bytes; i += 32) out[i] = mark[Bytes - 1 - i];
#endif
}

/// Was this program compiled for sm_90a, and is the current device one?
/// \throws cuda_error
inline bool has_wgmma(const char* function) {
  constexpr int bytes = 4096;
  cudaFuncAttributes attributes{};
  cuda_check(cudaFuncGetAttributes(&attributes, wgmma_probe<bytes>), function);
  return attributes.sharedSizeBytes >= static_cast<std::size_t>(bytes);
}

}  // namespace dualsft::detail
