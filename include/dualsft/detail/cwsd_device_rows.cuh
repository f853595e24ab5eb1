// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <dualsft/detail/cwsd_device.hpp>
#include <dualsft/detail/cwsd_device_sums.cuh>
#include <dualsft/detail/launch.cuh>

/// Rows of logits to sums, and to the student's gradient, read from device memory once.
///
/// A gradient needs its row's sums, so each pair of rows is read twice, by one block of threads. At
/// 128,256 classes of 16 bits a pair has 513 KB, more than a multiprocessor holds: as much of it as
/// fits stays in shared memory (`kept`), and the rest is read again from the L2 cache. It is read last
/// by the first pass and first, backwards, by the second, so that what waits there is half of it on
/// average: 132 blocks times some 140 KB. What will not be wanted again (what is kept, and the
/// gradient) goes past the cache. If the cache does fail, that rest is read from memory twice.
namespace dualsft::detail {

template <class T>
struct logit_rows {
  const T* teacher = nullptr;
  const T* student = nullptr;
  T* gradient = nullptr;  ///< may be student; null: sums only
  index_t teacher_stride = 0, student_stride = 0, gradient_stride = 0;
  index_t rows = 0, classes = 0;
  float per_logit = 0;  ///< log2(e) / tau
  const row_task* tasks = nullptr;
  row_record* records = nullptr;
};

/// The teacher's sums alone: 2 V bytes of 16-bit logits per row, once. A block per row.
template <class T, int width, int threads>
__global__ void __launch_bounds__(threads) read_teacher_rows(logit_rows<T> in) {
  using group = logit_group<T, width>;
  using single = logit_group<T, 1>;
  constexpr int depth = 4;
  __shared__ warps_sums shared;
  const index_t row = blockIdx.x;
  if (in.tasks[row].counted == 0) return;
  const T* teacher = in.teacher + row * in.teacher_stride;
  const int groups = static_cast<int>(in.classes / width);
  referred_sums thread;
  for_groups<depth, threads>(0, groups, [&](int first, auto count) {
    group t[count];
#pragma unroll
    for (int d = 0; d < count; ++d)
      t[d] = group::load_once(teacher + index_t{first + d * threads} * width);
#pragma unroll
    for (int d = 0; d < count; ++d)
      absorb<rows_read::teacher, group, width>(thread, t[d], t[d], in.per_logit);
  });
  if (const index_t c = index_t{groups} * width + threadIdx.x; c < in.classes) {
    const single t = single::load_once(teacher + c);
    absorb<rows_read::teacher, single, 1>(thread, t, t, in.per_logit);
  }
  sum_over_block<threads>(thread, in.per_logit, shared,
                          [&](const block_sums& block) { in.records[row] = block.row; });
}

/// What lane 0 of a block tells the others.
struct row_turn {
  row_scale scale;
  index_t next;
  bool next_counted;
};

/// Sums and gradients. Blocks take one row after another: `taken` counts those beyond the first of
/// each block, and was 0.
template <class T, int width, int threads>
__global__ void __launch_bounds__(threads, 1024 / threads)
    distill_rows(logit_rows<T> in, int kept, unsigned long long* taken) {
  using group = logit_group<T, width>;
  using single = logit_group<T, 1>;
  constexpr int depth = width == 1 ? 8 : 2;
  __shared__ warps_sums shared;
  __shared__ row_turn turn;
  group* const kept_student = reinterpret_cast<group*>(dynamic_shared());
  group* const kept_teacher = kept_student + kept;
  const int groups = static_cast<int>(in.classes / width);
  const int lane = static_cast<int>(threadIdx.x);
  const index_t rest = index_t{groups} * width + lane;  // this thread's class beyond the groups

  index_t row = blockIdx.x;
  for (bool counted = in.tasks[row].counted != 0; row < in.rows;) {
    // Lane 0 asks for what it needs well before it does, because answers take a while.
    index_t next = 0;
    if (lane == 0) next = gridDim.x + static_cast<index_t>(atomicAdd(taken, 1ULL));
    T* gradient = in.gradient == nullptr ? nullptr : in.gradient + row * in.gradient_stride;
    if (!counted) {
      if (gradient != nullptr) {
        const float zero[width] = {};
        for (int g = lane; g < groups; g += threads)
          group::of(zero).store(gradient + index_t{g} * width);
        if (rest < in.classes) gradient[rest] = T{};
      }
      __syncthreads();
      if (lane == 0) {
        turn.next = next;
        turn.next_counted = next < in.rows && in.tasks[next].counted != 0;
      }
      __syncthreads();
      row = turn.next;
      counted = turn.next_counted;
      continue;
    }
    const T* student = in.student + row * in.student_stride;
    const T* teacher = in.teacher + row * in.teacher_stride;

    referred_sums thread;
    for_groups<depth, threads>(0, kept, [&](int first, auto count) {
      group s[count], t[count];
#pragma unroll
      for (int d = 0; d < count; ++d) {
        s[d] = group::load_once(student + index_t{first + d * threads} * width);
        t[d] = group::load_once(teacher + index_t{first + d * threads} * width);
      }
#pragma unroll
      for (int d = 0; d < count; ++d) {
        kept_student[first + d * threads] = s[d];
        kept_teacher[first + d * threads] = t[d];
      }
#pragma unroll
      for (int d = 0; d < count; ++d)
        absorb<rows_read::both, group, width>(thread, s[d], t[d], in.per_logit);
    });
    float factor = 0;
    bool next_counted = false;
    if (lane == 0) {
      factor = in.tasks[row].factor;
      next_counted = next < in.rows && in.tasks[next].counted != 0;
    }
    for_groups<depth, threads>(kept, groups, [&](int first, auto count) {
      group s[count], t[count];
#pragma unroll
      for (int d = 0; d < count; ++d) {
        s[d] = group::load(student + index_t{first + d * threads} * width);
        t[d] = group::load(teacher + index_t{first + d * threads} * width);
      }
#pragma unroll
      for (int d = 0; d < count; ++d)
        absorb<rows_read::both, group, width>(thread, s[d], t[d], in.per_logit);
    });
    if (rest < in.classes)
      absorb<rows_read::both, single, 1>(thread, single::load(student + rest),
                                         single::load(teacher + rest), in.per_logit);

    sum_over_block<threads>(thread, in.per_logit, shared, [&](const block_sums& block) {
      in.records[row] = block.row;
      turn = {.scale = {.student_at = block.student_at,
                        .teacher_at = block.teacher_at,
                        .student = static_cast<float>(factor / block.row.sums.student),
                        .teacher = static_cast<float>(factor / block.row.sums.teacher)},
              .next = next,
              .next_counted = next_counted};
    });
    row = turn.next;
    counted = turn.next_counted;
    if (gradient == nullptr) continue;

    const row_scale scale = turn.scale;
    if (rest < in.classes)
      difference<single, 1>(single::load(student + rest), single::load(teacher + rest), scale,
                            in.per_logit)
          .store(gradient + rest);
    for_groups_backwards<depth, threads>(kept, groups, [&](int first, auto count) {
      group s[count], t[count];
#pragma unroll
      for (int d = 0; d < count; ++d) {
        s[d] = group::load_once(student + index_t{first + d * threads} * width);
        t[d] = group::load_once(teacher + index_t{first + d * threads} * width);
      }
#pragma unroll
      for (int d = 0; d < count; ++d)
        difference<group, width>(s[d], t[d], scale, in.per_logit)
            .store(gradient + index_t{first + d * threads} * width);
    });
    for (int g = lane; g < kept; g += threads)  // each thread what it kept itself: no barrier
      difference<group, width>(kept_student[g], kept_teacher[g], scale, in.per_logit)
          .store(gradient + index_t{g} * width);
  }
}

/// Shared memory for kept groups, of a block of which as many as 1,024 threads allow share a
/// multiprocessor.
inline index_t kept_bytes(const char* function, int threads) {
  int device = 0, most = 0;
  cuda_check(cudaGetDevice(&device), function);
  cuda_check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             function);
  constexpr index_t reserved = 1024;  // by the system, for each block
  constexpr index_t own = 2048;       // distill_rows' variables
  return (most + reserved) / (1024 / threads) - reserved - own;
}

template <class T, int width, int threads>
void launch_distill_rows(const char* function, const exec::cuda& policy, const logit_rows<T>& in,
                         unsigned long long* taken) {
  int device = 0, multiprocessors = 0;
  cuda_check(cudaGetDevice(&device), function);
  cuda_check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device),
             function);
  constexpr index_t pair_bytes = 2 * sizeof(logit_group<T, width>);
  const index_t groups = in.classes / width;
  const index_t room = in.gradient == nullptr ? 0 : kept_bytes(function, threads) / pair_bytes;
  const index_t kept = groups <= room ? groups : room / threads * threads;
  const index_t blocks = std::min<index_t>(in.rows, index_t{multiprocessors} * (1024 / threads));
  launch(function, policy,
         {static_cast<unsigned>(blocks), threads, static_cast<std::size_t>(kept * pair_bytes)},
         distill_rows<T, width, threads>, in, static_cast<int>(kept), taken);
}

/// Whether every row starts at a multiple of 16 bytes.
template <class T>
bool rows_are_wide(const T* data, index_t stride) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 &&
         stride * static_cast<index_t>(sizeof(T)) % 16 == 0;
}

template <class T>
bool rows_are_wide(const logit_rows<T>& in) {
  return rows_are_wide(in.teacher, in.teacher_stride) &&
         (in.student == nullptr || rows_are_wide(in.student, in.student_stride)) &&
         (in.gradient == nullptr || rows_are_wide(in.gradient, in.gradient_stride));
}

template <class T>
void launch_read_teacher_rows(const char* function, const exec::cuda& policy,
                              const logit_rows<T>& in) {
  constexpr int threads = 256;
  const launch_shape shape{static_cast<unsigned>(in.rows), threads};
  if (rows_are_wide(in))
    launch(function, policy, shape, read_teacher_rows<T, 16 / sizeof(T), threads>, in);
  else
    launch(function, policy, shape, read_teacher_rows<T, 1, threads>, in);
}

/// Blocks as large as leaves each thread a dozen groups, so that what a row costs beside its reading
/// is shared by many of them.
/// \param taken  becomes 0 first
template <class T>
void launch_distill_rows(const char* function, const exec::cuda& policy, const logit_rows<T>& in,
                         unsigned long long* taken) {
  constexpr int width = 16 / sizeof(T);
  cuda_check(cudaMemsetAsync(taken, 0, sizeof *taken, policy.stream), function);
  if (!rows_are_wide(in)) return launch_distill_rows<T, 1, 256>(function, policy, in, taken);
  const index_t groups_per_thread = in.classes / width / 1024;
  if (groups_per_thread >= 12)
    launch_distill_rows<T, width, 1024>(function, policy, in, taken);
  else if (groups_per_thread >= 6)
    launch_distill_rows<T, width, 512>(function, policy, in, taken);
  else
    launch_distill_rows<T, width, 256>(function, policy, in, taken);
}

}  // namespace dualsft::detail
