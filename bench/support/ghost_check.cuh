// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/detail/launch.cuh>
#include <dualsft/ghost_scores.cuh>
#include <vector>

/// Whether a few tokens' e_t . (P a_t + p_b) are what sums in double give.
namespace dualsft::bench {

inline constexpr index_t checked_tokens = 8;

/// Block n: part[2 c] = e_tn (P_n a_t + b_n) of checked token c, part[2 c + 1] the sum of its terms' sizes.
template <class T>
__global__ void ghost_terms(const T* a, const T* e, const T* p, const T* bias, index_t in,
                            index_t out, index_t step, double* part) {
  __shared__ double sums[2][128];
  const index_t n = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  for (index_t c = 0; c < checked_tokens; ++c) {
    double sum = 0, size = 0;
    for (index_t k = thread; k < in; k += 128) {
      const double term =
          convert_float<double>(a[c * step * in + k]) * convert_float<double>(p[n * in + k]);
      sum += term;
      size += fabs(term);
    }
    sums[0][thread] = sum;
    sums[1][thread] = size;
    __syncthreads();
    if (thread < 2) {
      double total = bias != nullptr ? convert_float<double>(bias[n]) : 0;
      if (thread == 1) total = fabs(total);
      for (const double each : sums[thread]) total += each;
      const double error = convert_float<double>(e[c * step * out + n]);
      part[(n * checked_tokens + c) * 2 + thread] = total * (thread == 1 ? fabs(error) : error);
    }
    __syncthreads();
  }
}

/// Checks `add(examples, scores)` with each checked token as an example, all others as another.
/// Allowed: the rounding of float sums of `in` products and of 256 dots, and `slack` of each term.
template <class T, class Add>
bool right_ghost_tokens(const exec::cuda& policy, const T* a, const T* e, const T* p, const T* bias,
                        index_t tokens, index_t in, index_t out, const Add& add, double slack = 0) {
  const index_t step = tokens / checked_tokens;
  std::vector<index_t> examples(static_cast<std::size_t>(tokens), checked_tokens);
  for (index_t c = 0; c < checked_tokens; ++c) examples[static_cast<std::size_t>(c * step)] = c;
  const detail::device_array<index_t> on_examples(policy, std::span(std::as_const(examples)));
  detail::device_array<double> scores(policy, checked_tokens + 1);
  scores.fill_bytes(0);
  const detail::device_array<double> part(policy, out * checked_tokens * 2);
  detail::launch("check", policy, {static_cast<unsigned>(out), 128}, ghost_terms<T>, a, e, p, bias,
                 in, out, step, part.data());
  const std::vector<double> parts = part.to_host();
  add(on_examples.view(), scores.view());
  const std::vector<double> got = scores.to_host();
  for (std::size_t c = 0; c < checked_tokens; ++c) {
    double want = 0, size = 0;
    for (std::size_t i = 2 * c; i < parts.size(); i += 2 * checked_tokens) {
      want += parts[i];
      size += parts[i + 1];
    }
    const double rounding = 0x1p-23 * static_cast<double>(in + 300) + slack;
    if (!(std::abs(got[c] - want) <= rounding * size)) return false;
  }
  return true;
}

template <class T>
bool right_ghost_tokens(const exec::cuda& policy, const device_affine_trace<T>& trace,
                        matrix_view<const T, device_space> weight,
                        vector_view<const T, device_space> bias, ghost_workspace& workspace) {
  ghost_workspace own(policy, trace.inputs.rows(), weight.rows(), checked_tokens + 1);
  own.device().use(workspace.device().kernels());
  return right_ghost_tokens(policy, trace.inputs.data(), trace.output_gradients.data(),
                            weight.data(), bias.data(), trace.inputs.rows(), weight.cols(),
                            weight.rows(), [&](const auto& examples, const auto& scores) {
                              device_affine_trace<T> marked = trace;
                              marked.examples = examples;
                              add_ghost_scores(policy, marked, weight, bias, scores, own);
                            });
}

}  // namespace dualsft::bench
