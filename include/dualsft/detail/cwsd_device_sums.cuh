// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>
#include <dualsft/detail/cwsd_device.hpp>
#include <dualsft/detail/device_scalars.cuh>
#include <dualsft/detail/rounded.hpp>
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

/// Four numbers of each lane, folded over the warp, in six exchanges instead of twenty: lanes [8 k, 8 k + 8)
/// get the k-th. The four are paired alike, so that equal numbers give equal bits.
template <class Real, class Fold>
__device__ Real fold_four(const Real (&x)[4], const Fold& fold) {
  constexpr unsigned all = 0xffffffffU;
  const bool upper = (threadIdx.x & 16U) != 0, odd = (threadIdx.x & 8U) != 0;
  Real low = upper ? x[2] : x[0], high = upper ? x[3] : x[1];
  low = fold(low, __shfl_xor_sync(all, upper ? x[0] : x[2], 16));
  high = fold(high, __shfl_xor_sync(all, upper ? x[1] : x[3], 16));
  Real out = odd ? high : low;
  out = fold(out, __shfl_xor_sync(all, odd ? low : high, 8));
  for (int lanes = 4; lanes > 0; lanes /= 2) out = fold(out, __shfl_xor_sync(all, out, lanes));
  return out;
}

/// The warp's sums, below the largest of its lanes' references. In lane 0 all, elsewhere references only.
template <class Real>
struct warp_total {
  float student_at, teacher_at, top;
  Real part;  ///< lane 8 k: the k-th of student, teacher, moment, cross
};

template <class Real>
__device__ warp_total<Real> total_of_warp(referred_sums lane) {
  constexpr unsigned all = 0xffffffffU;
  const float tops[4] = {lane.student_at, lane.teacher_at, lane.top, lane.top};
  const float top = fold_four(tops, [](float x, float y) { return fmaxf(x, y); });
  lane.refer(__shfl_sync(all, top, 0), __shfl_sync(all, top, 8));
  const Real sums[4] = {static_cast<Real>(lane.sums.student), static_cast<Real>(lane.sums.teacher),
                        static_cast<Real>(lane.sums.moment), static_cast<Real>(lane.sums.cross)};
  return {.student_at = lane.student_at,
          .teacher_at = lane.teacher_at,
          .top = __shfl_sync(all, top, 16),
          .part = fold_four(sums, [](Real x, Real y) { return x + y; })};
}

/// Warps' sums on their way to the block's.
struct warps_sums {
  float student_at[32], teacher_at[32], top[32];
  float sums[4][32];
};

struct block_sums {
  float student_at, teacher_at;
  row_record row;
};

/// The block's sums, for lane 0 of warp 0; `then` of them runs there alone. In float within a warp, in
/// double across warps. Two barriers: what `then` writes is there for all, and nobody reads any more
/// what it wrote the time before.
template <int threads, class Then>
__device__ void sum_over_block(const referred_sums& thread, float per_logit, warps_sums& shared,
                               const Then& then) {
  static_assert(threads % 32 == 0 && threads <= 1024);
  constexpr unsigned all = 0xffffffffU;
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const warp_total<float> mine = total_of_warp<float>(thread);
  if (lane % 8 == 0) shared.sums[lane / 8][warp] = mine.part;
  if (lane == 0) {
    shared.student_at[warp] = mine.student_at;
    shared.teacher_at[warp] = mine.teacher_at;
    shared.top[warp] = mine.top;
  }
  __syncthreads();
  if (warp == 0) {
    referred_sums part;
    if (lane < threads / 32)
      part = {.student_at = shared.student_at[lane],
              .teacher_at = shared.teacher_at[lane],
              .top = shared.top[lane],
              .sums = {.student = shared.sums[0][lane],
                       .teacher = shared.sums[1][lane],
                       .moment = shared.sums[2][lane],
                       .cross = shared.sums[3][lane]}};
    const warp_total<double> total = total_of_warp<double>(part);
    const block_sums block{.student_at = total.student_at,
                           .teacher_at = total.teacher_at,
                           .row = {.sums = {.student = __shfl_sync(all, total.part, 0),
                                            .teacher = __shfl_sync(all, total.part, 8),
                                            .moment = __shfl_sync(all, total.part, 16),
                                            .cross = __shfl_sync(all, total.part, 24)},
                                   .top = fmaf(total.top, per_logit, -total.teacher_at)}};
    if (lane == 0) then(block);
  }
  __syncthreads();
}

/// factor p = student 2^s and factor q = teacher 2^t, below these references.
struct row_scale {
  float student_at, teacher_at, student, teacher;
};

/// factor (p - q) of a group; exactly 0 where the rows are equal, which a product fused with the
/// difference is not.
template <class Group, int width>
__device__ Group difference(const Group& student, const Group& teacher, const row_scale& scale,
                            float per_logit) {
  float x[width];
#pragma unroll
  for (int e = 0; e < width; ++e) {
    const float p = exp2_approx(fmaf(student[e], per_logit, -scale.student_at));
    const float q = exp2_approx(fmaf(teacher[e], per_logit, -scale.teacher_at));
    x[e] = rounded_sum(rounded_product(p, scale.student), -rounded_product(q, scale.teacher));
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
