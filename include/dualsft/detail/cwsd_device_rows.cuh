// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>
#include <dualsft/detail/cwsd_device.hpp>
#include <dualsft/detail/device_scalars.cuh>
#include <dualsft/detail/launch.cuh>
#include <limits>
#include <type_traits>

/// Rows of logits to sums, and to the student's gradient, read from device memory once.
///
/// A gradient needs its row's sums, so each pair of rows is read twice, by one block of threads. At
/// 128,256 classes of 16 bits a pair has 513 KB, more than a multiprocessor holds: as much of it as
/// fits stays in shared memory (`kept`), and the rest is read again from the L2 cache. It is read last
/// by the first pass and first, backwards, by the second, so that what waits there is half of it on
/// average: 132 blocks times some 140 KB. What will not be wanted again (what is kept, and the
/// gradient) goes past the cache. If the cache does fail, that rest is read from memory twice.
namespace dualsft::detail {

/// What one load brings: 16 bytes, or one number where rows do not start at multiples of 16 bytes.
template <class T, int width>
struct logit_group {
  static_assert(width * sizeof(T) == 16);
  uint4 words;

  static __device__ logit_group load_once(const T* from) {
    return {__ldcs(reinterpret_cast<const uint4*>(from))};
  }
  static __device__ logit_group load(const T* from) {
    return {__ldcg(reinterpret_cast<const uint4*>(from))};
  }
  __device__ void store(T* to) const { __stcs(reinterpret_cast<uint4*>(to), words); }

  __device__ std::uint32_t word(int i) const {
    return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
  }
  __device__ float operator[](int e) const {
    if constexpr (sizeof(T) == 4)
      return std::bit_cast<float>(word(e));
    else
      return widened(T{static_cast<std::uint16_t>(word(e / 2) >> (e % 2 * 16))});
  }
  static __device__ logit_group of(const float (&x)[width]) {
    if constexpr (sizeof(T) == 4)
      return {make_uint4(std::bit_cast<std::uint32_t>(x[0]), std::bit_cast<std::uint32_t>(x[1]),
                         std::bit_cast<std::uint32_t>(x[2]), std::bit_cast<std::uint32_t>(x[3]))};
    else
      return {make_uint4(narrowed_pair<T>(x[0], x[1]), narrowed_pair<T>(x[2], x[3]),
                         narrowed_pair<T>(x[4], x[5]), narrowed_pair<T>(x[6], x[7]))};
  }
};

template <class T>
struct logit_group<T, 1> {
  T value;

  static __device__ logit_group load_once(const T* from) { return {*from}; }
  static __device__ logit_group load(const T* from) { return {*from}; }
  __device__ void store(T* to) const { *to = value; }
  __device__ float operator[](int) const { return widened(value); }
  static __device__ logit_group of(const float (&x)[1]) { return {narrowed<T>(x[0])}; }
};

/// The sums of one thread, warp or block, and what they are below.
struct referred_sums {
  float student_at = lowest_reference;
  float teacher_at = lowest_reference;
  float top = -std::numeric_limits<float>::infinity();  ///< the largest teacher logit
  distillation_sums<float> sums;

  __device__ void refer_student(float to) {
    const float by = student_at - to;
    sums.move_student(by, exp2_approx(by));
    student_at = to;
  }
  __device__ void refer_teacher(float to) {
    const float by = teacher_at - to;
    sums.move_teacher(by, exp2_approx(by));
    teacher_at = to;
  }
};

enum class rows_read { both, teacher };

/// Adds a group. References stay as long as the new logits are less than 2^slack above them: sums
/// have that much room, and hardly a thread has to move its own after its first group.
template <rows_read which, class Group, int width>
__device__ void absorb(referred_sums& thread, const Group& student, const Group& teacher,
                       float per_logit) {
  constexpr float slack = 8;
  constexpr bool both = which == rows_read::both;
  float zs[width], zt[width];
  float student_top = -std::numeric_limits<float>::infinity(), teacher_top = student_top;
#pragma unroll
  for (int e = 0; e < width; ++e) {
    zt[e] = teacher[e];
    teacher_top = fmaxf(teacher_top, zt[e]);
    if constexpr (both) {
      zs[e] = student[e];
      student_top = fmaxf(student_top, zs[e]);
    }
  }
  thread.top = fmaxf(thread.top, teacher_top);
  if (teacher_top * per_logit > thread.teacher_at + slack)
    thread.refer_teacher(teacher_top * per_logit);
  if constexpr (both)
    if (student_top * per_logit > thread.student_at + slack)
      thread.refer_student(student_top * per_logit);

  distillation_sums<float> group;
#pragma unroll
  for (int e = 0; e < width; ++e) {
    const float t = fmaf(zt[e], per_logit, -thread.teacher_at);
    const float q = exp2_approx(t);
    group.teacher += q;
    group.moment = fmaf(q, t, group.moment);
    if constexpr (both) {
      const float s = fmaf(zs[e], per_logit, -thread.student_at);
      group.student += exp2_approx(s);
      group.cross = fmaf(q, t - s, group.cross);
    }
  }
  const float products = group.moment + group.cross;
  if (products != products) {  // 0 times infinity: an impossible class counts as 0
    group.moment = 0;
    group.cross = 0;
#pragma unroll
    for (int e = 0; e < width; ++e) {
      const float t = fmaf(zt[e], per_logit, -thread.teacher_at);
      const float q = exp2_approx(t);
      if (!(q > 0)) continue;
      group.moment += q * t;
      if constexpr (both)
        group.cross += q * (t - fmaf(zs[e], per_logit, -thread.student_at));
    }
  }
  thread.sums += group;
}

template <class Real>
__device__ Real warp_sum(Real x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffU, x, lanes);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int lanes = 16; lanes > 0; lanes /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, lanes));
  return x;
}

/// Warps' sums on their way to the block's.
struct warps_sums {
  float student_at[32], teacher_at[32], top[32];
  float student[32], teacher[32], moment[32], cross[32];
};

struct block_sums {
  float student_at, teacher_at;
  row_record row;
};

/// The block's sums, in every thread; one barrier. In float within a warp, in double across warps.
/// \param shared  not that of the call before, which other threads may still read
template <int threads>
__device__ block_sums sum_over_block(referred_sums thread, float per_logit, warps_sums& shared) {
  static_assert(threads % 32 == 0 && threads <= 1024);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  thread.refer_student(warp_max(thread.student_at));
  thread.refer_teacher(warp_max(thread.teacher_at));
  thread.top = warp_max(thread.top);
  thread.sums.student = warp_sum(thread.sums.student);
  thread.sums.teacher = warp_sum(thread.sums.teacher);
  thread.sums.moment = warp_sum(thread.sums.moment);
  thread.sums.cross = warp_sum(thread.sums.cross);
  if (lane == 0) {
    shared.student_at[warp] = thread.student_at;
    shared.teacher_at[warp] = thread.teacher_at;
    shared.top[warp] = thread.top;
    shared.student[warp] = thread.sums.student;
    shared.teacher[warp] = thread.sums.teacher;
    shared.moment[warp] = thread.sums.moment;
    shared.cross[warp] = thread.sums.cross;
  }
  __syncthreads();
  referred_sums part;
  if (lane < threads / 32)
    part = {.student_at = shared.student_at[lane],
            .teacher_at = shared.teacher_at[lane],
            .top = shared.top[lane],
            .sums = {.student = shared.student[lane],
                     .teacher = shared.teacher[lane],
                     .moment = shared.moment[lane],
                     .cross = shared.cross[lane]}};
  part.refer_student(warp_max(part.student_at));
  part.refer_teacher(warp_max(part.teacher_at));
  return {.student_at = part.student_at,
          .teacher_at = part.teacher_at,
          .row = {.sums = {.student = warp_sum(static_cast<double>(part.sums.student)),
                           .teacher = warp_sum(static_cast<double>(part.sums.teacher)),
                           .moment = warp_sum(static_cast<double>(part.sums.moment)),
                           .cross = warp_sum(static_cast<double>(part.sums.cross))},
                  .top = fmaf(warp_max(part.top), per_logit, -part.teacher_at)}};
}

/// body(first, count): this thread's groups of [begin, end) in runs of `count`, `threads` apart; the
/// loads of a run are under way together.
template <int depth, int threads, class Body>
__device__ void for_groups(int begin, int end, const Body& body) {
  int g = begin + static_cast<int>(threadIdx.x);
  for (; g + (depth - 1) * threads < end; g += depth * threads)
    body(g, std::integral_constant<int, depth>{});
  for (; g < end; g += threads) body(g, std::integral_constant<int, 1>{});
}

/// The same runs, last ones first.
template <int depth, int threads, class Body>
__device__ void for_groups_backwards(int begin, int end, const Body& body) {
  const int g = begin + static_cast<int>(threadIdx.x);
  int left = g < end ? (end - g - 1) / threads + 1 : 0;
  for (; left % depth != 0; --left)
    body(g + (left - 1) * threads, std::integral_constant<int, 1>{});
  for (; left > 0; left -= depth)
    body(g + (left - depth) * threads, std::integral_constant<int, depth>{});
}

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
  const block_sums block = sum_over_block<threads>(thread, in.per_logit, shared);
  if (threadIdx.x == 0) in.records[row] = block.row;
}

/// factor (p - q) of a group.
template <class Group, int width>
__device__ Group difference(const Group& student, const Group& teacher, const block_sums& block,
                            float per_logit, float of_student, float of_teacher) {
  float x[width];
#pragma unroll
  for (int e = 0; e < width; ++e) {
    const float p = exp2_approx(fmaf(student[e], per_logit, -block.student_at));
    const float q = exp2_approx(fmaf(teacher[e], per_logit, -block.teacher_at));
    x[e] = fmaf(p, of_student, -q * of_teacher);
  }
  return Group::of(x);
}

/// Sums and gradients. Blocks take one row after another: `taken` counts those beyond the first of
/// each block, and was 0.
template <class T, int width, int threads>
__global__ void __launch_bounds__(threads, 1024 / threads)
    distill_rows(logit_rows<T> in, int kept, unsigned long long* taken) {
  using group = logit_group<T, width>;
  using single = logit_group<T, 1>;
  constexpr int depth = 2;
  __shared__ warps_sums shared[2];
  __shared__ index_t next_row[2];
  group* const kept_student = reinterpret_cast<group*>(dynamic_shared());
  group* const kept_teacher = kept_student + kept;
  const int groups = static_cast<int>(in.classes / width);
  const int lane = static_cast<int>(threadIdx.x);
  const index_t rest = index_t{groups} * width + lane;  // this thread's class beyond the groups

  int turn = 0;
  for (index_t row = blockIdx.x; row < in.rows; turn ^= 1) {
    index_t next = 0;
    if (lane == 0) next = gridDim.x + static_cast<index_t>(atomicAdd(taken, 1ULL));
    const row_task task = in.tasks[row];
    T* gradient = in.gradient == nullptr ? nullptr : in.gradient + row * in.gradient_stride;
    if (task.counted == 0) {
      if (gradient != nullptr) {
        const float zero[width] = {};
        for (int g = lane; g < groups; g += threads)
          group::of(zero).store(gradient + index_t{g} * width);
        if (rest < in.classes) gradient[rest] = T{};
      }
      if (lane == 0) next_row[turn] = next;
      __syncthreads();
      row = next_row[turn];
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

    if (lane == 0) next_row[turn] = next;
    const block_sums block = sum_over_block<threads>(thread, in.per_logit, shared[turn]);
    if (lane == 0) in.records[row] = block.row;
    row = next_row[turn];
    if (gradient == nullptr) continue;

    const float of_student = static_cast<float>(task.factor / block.row.sums.student);
    const float of_teacher = static_cast<float>(task.factor / block.row.sums.teacher);
    if (rest < in.classes)
      difference<single, 1>(single::load(student + rest), single::load(teacher + rest), block,
                            in.per_logit, of_student, of_teacher)
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
        difference<group, width>(s[d], t[d], block, in.per_logit, of_student, of_teacher)
            .store(gradient + index_t{first + d * threads} * width);
    });
    for (int g = lane; g < kept; g += threads)  // each thread what it kept itself: no barrier
      difference<group, width>(kept_student[g], kept_teacher[g], block, in.per_logit, of_student,
                               of_teacher)
          .store(gradient + index_t{g} * width);
  }
}

}  // namespace dualsft::detail
