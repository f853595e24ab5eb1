// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>
#include <dualsft/detail/cwsd_device.hpp>
#include <dualsft/detail/device_scalars.cuh>
#include <dualsft/float16.hpp>
#include <limits>
#include <type_traits>

/// What threads do with logits in cwsd_device_rows.cuh: load them, sum over them, form differences.
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

  __device__ void refer(float student_to, float teacher_to) {
    const float s_by = student_at - student_to, t_by = teacher_at - teacher_to;
    sums.move(s_by, exp2_approx(s_by), t_by, exp2_approx(t_by));
    student_at = student_to;
    teacher_at = teacher_to;
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
  const float teacher_at = teacher_top * per_logit, student_at = student_top * per_logit;
  const bool teacher_moves = teacher_at > thread.teacher_at + slack;
  const bool student_moves = both && student_at > thread.student_at + slack;
  if (teacher_moves || student_moves)
    thread.refer(student_moves ? student_at : thread.student_at,
                 teacher_moves ? teacher_at : thread.teacher_at);

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
      if constexpr (both) group.cross += q * (t - fmaf(zs[e], per_logit, -thread.student_at));
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
  for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, lanes));
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
  thread.refer(warp_max(thread.student_at), warp_max(thread.teacher_at));
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
  part.refer(warp_max(part.student_at), warp_max(part.teacher_at));
  return {.student_at = part.student_at,
          .teacher_at = part.teacher_at,
          .row = {.sums = {.student = warp_sum(static_cast<double>(part.sums.student)),
                           .teacher = warp_sum(static_cast<double>(part.sums.teacher)),
                           .moment = warp_sum(static_cast<double>(part.sums.moment)),
                           .cross = warp_sum(static_cast<double>(part.sums.cross))},
                  .top = fmaf(warp_max(part.top), per_logit, -part.teacher_at)}};
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

}  // namespace dualsft::detail
