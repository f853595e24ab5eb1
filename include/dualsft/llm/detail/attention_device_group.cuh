// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/detail/tensor_core_sm90.cuh>
#include <dualsft/llm/detail/attention_device_warp.cuh>

/// What four warps do together in the device's attention on sm_90a: the sums of attention_warp, with
/// products that read keys, values and the tangents of queries from shared memory themselves.
namespace dualsft::llm::detail {

/// Warp w of a group has rows 16 w to 16 w + 15 of its 64. Two groups share the tiles of a block and take
/// turns: while one weighs its scores, the tensor cores form the other's.
///
/// Limit, on paper: a tile of 64 keys is six products of 64 x 64 x head_size, at 128 columns 1,536 clocks of the
/// tensor cores, and some 400 instructions per warp to weigh it, of which the four schedulers run those of
/// two groups in 800.
template <class Plan>
struct attention_group : attention_warp<Plan> {
  static constexpr int team_rows = 64;
  static_assert(Plan::warp_rows == 16 && Plan::threads == 256);
  using T = typename Plan::value_type;
  using warp = attention_warp<Plan>;
  static constexpr bool tangent = Plan::tangent;
  static constexpr int steps = Plan::head_size / 16, key_steps = Plan::keys / 16;
  /// From a value to its tangent, in a descriptor's units.
  static constexpr int to_tangent = Plan::stage_bytes / 2 / 16;

  /// Ordinary stores, copies among them, come before what products read.
  __device__ static void publish() { dualsft::detail::fence_before_boxes(); }

  /// Registers are too few to keep them.
  __device__ void read_queries(const unsigned char*) {}

  __device__ void scores(bool works, const unsigned char* queries, const unsigned char* k) {
    using namespace dualsft::detail;
    const int group = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x / 128), 0);
    if (group == 1) turn_wait();
    if (!works) {
      if (group == 0) turn_arrive();
      return;
    }
    const int lane = static_cast<int>(threadIdx.x % 32);
    const operand_places<Plan::rows> places(warp::own_rows(queries), lane % 16, lane / 16);
    std::uint32_t q[steps][4];
#pragma unroll
    for (int d = 0; d < steps; ++d) ldmatrix_x4(q[d], places.at(0, 2 * d));
    const auto k_at = box_descriptor(k);
    const auto tangent_q = box_descriptor(queries + Plan::query_bytes + group * (64 * 128));
#pragma unroll
    for (auto& step : q) wgmma_pin(step);
    pin(this->z);
    if constexpr (tangent) pin(this->rz);
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < steps; ++d) {
      const std::uint64_t key = k_at + box_step<Plan::keys>(d);
      wgmma<T, 0>(flat(this->z), q[d], key, d > 0);
      if constexpr (tangent) {
        wgmma<T>(flat(this->rz), tangent_q + box_step<Plan::rows>(d), key, d > 0);
        wgmma<T, 0>(flat(this->rz), q[d], key + to_tangent, 1);
      }
    }
    wgmma_commit();
    if (group == 0) turn_arrive();
    wgmma_wait<0>();
#pragma unroll
    for (auto& step : q) wgmma_pin(step);
    pin(this->z);
    if constexpr (tangent) pin(this->rz);
  }

  __device__ void values(const unsigned char* v) {
    using namespace dualsft::detail;
    std::uint32_t e[key_steps][1][4], x[tangent ? key_steps : 1][1][4];
#pragma unroll
    for (int k = 0; k < key_steps; ++k) {
      warp::pack(e[k], this->z, k);
      if constexpr (tangent) warp::pack(x[k], this->rz, k);
    }
    const auto v_at = transposed_descriptor(v, Plan::keys * 128);
    const auto pin_operands = [&] {
#pragma unroll
      for (auto& step : e) wgmma_pin(step[0]);
      if constexpr (tangent)
#pragma unroll
        for (auto& step : x) wgmma_pin(step[0]);
    };
    pin_operands();
    pin(this->o);
    if constexpr (tangent) pin(this->u);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < key_steps; ++k) {
      const std::uint64_t value = v_at + 128 * k;
      wgmma<T, 1>(flat(this->o), e[k][0], value, 1);
      if constexpr (tangent) {
        wgmma<T, 1>(flat(this->u), x[k][0], value, 1);
        wgmma<T, 1>(flat(this->u), e[k][0], value + to_tangent, 1);
      }
    }
    wgmma_commit();
    wgmma_wait<0>();
    pin_operands();
    pin(this->o);
    if constexpr (tangent) pin(this->u);
  }

 private:
  /// From an operand's first 16 columns to its d-th, in a descriptor's units.
  template <int Rows>
  __device__ static constexpr int box_step(int d) {
    return d / 4 * (Rows * 128 / 16) + d % 4 * 2;
  }
  /// A thread's sums in the order in which a product has them.
  template <int Count>
  __device__ static float (&flat(float (&x)[1][Count][4]))[4 * Count] {
    return reinterpret_cast<float(&)[4 * Count]>(x);
  }
  template <int Count>
  __device__ static void pin(float (&x)[1][Count][4]) {
    dualsft::detail::wgmma_pin(flat(x));
  }
};

}  // namespace dualsft::llm::detail
