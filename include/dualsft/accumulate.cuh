// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cub/device/device_transform.cuh>
#include <cuda/std/tuple>
#include <dualsft/accumulate.hpp>
#include <dualsft/execution.cuh>

/// Gradients into sums on a device, as accumulate.hpp:
///
///     sum += g        s = beta2 s + (1 - beta2) g^2
///
/// Shapes: g and the sum are [n], contiguous, any n; a block of a longer vector is a view of its part. They
/// may not overlap. g is float, double, bfloat16 or float16, the sum float or double.
/// Cost: limited by memory: n (sizeof(T) + 2 sizeof(Sum)) bytes. Asynchronous; no allocation, no workspace.
/// Numerics, Determinism: as accumulate.hpp, bit for bit. Sums in 16 bits do not compile.
/// Source: DualSFT section 3 (G, D); the device's tiles are CUB's.
namespace dualsft {

namespace detail {

/// CUB keeps the tile that fits the first call of an instantiation for all calls after it. Short calls have
/// one of their own, so that a norm of 128 weights does not decide how matrices travel.
template <class Add>
struct add_shortly : Add {
  explicit add_shortly(const Add& add) : Add(add) {}
};
inline constexpr index_t most_of_short_call = 4096;

/// sum[j] = add(sum[j], gradient[j]); CUB chooses how the tiles travel.
template <class T, class Sum, class Add>
void accumulate_on_device(const char* function, const exec::cuda& policy,
                          const vector_view<T, device_space>& gradient,
                          const vector_view<Sum, device_space>& sum, const Add& add) {
  check_accumulate(function, gradient, sum);
  expects(gradient.contiguous() && sum.contiguous(), function, "device views must be contiguous",
          "gradient stride", gradient.stride(), "sum stride", sum.stride());
  if (sum.size() == 0) return;
  const auto run = [&](const auto& of) {
    cuda_check(cub::DeviceTransform::Transform(
                   ::cuda::std::make_tuple(static_cast<const Sum*>(sum.data()),
                                           static_cast<const T*>(gradient.data())),
                   sum.data(), sum.size(), of, policy.stream),
               function);
  };
  if (sum.size() <= most_of_short_call)
    run(add_shortly<Add>(add));
  else
    run(add);
}

}  // namespace detail

/// sum += gradient
/// \throws invalid_argument  if the lengths differ or a view is strided
/// \throws cuda_error        if the launch fails
template <class T, SumScalar Sum>
requires GradientScalar<std::remove_const_t<T>>
void accumulate(const exec::cuda& policy, vector_view<T, device_space> gradient,
                vector_view<Sum, device_space> sum) {
  detail::accumulate_on_device("accumulate", policy, gradient, sum, detail::add_gradient<Sum>{});
}

/// s = beta2 s + (1 - beta2) gradient^2
/// \throws invalid_argument  as above, or if beta2 is not in [0, 1)
/// \throws cuda_error        if the launch fails
template <class T, SumScalar Sum>
requires GradientScalar<std::remove_const_t<T>>
void accumulate_second_moment(const exec::cuda& policy, vector_view<T, device_space> gradient,
                              double beta2, vector_view<Sum, device_space> s) {
  detail::check_beta2(beta2);
  detail::accumulate_on_device("accumulate_second_moment", policy, gradient, s,
                               detail::add_square<Sum>(beta2));
}

}  // namespace dualsft
