// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/topk_cpu.hpp>
#include <dualsft/detail/topk_reference.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/score_source.hpp>
#include <dualsft/topk_types.hpp>
#include <dualsft/views.hpp>

namespace dualsft {

/// The indices of the K largest scores, and the gap that separates them from the rest.
///
/// Order the coordinates by decreasing score, equal scores by increasing index, NaN behind all
/// numbers: phi_(1) >= phi_(2) >= ... The result is the first K of them without NaN, as an
/// ascending index set, with kth = phi_(K), next = phi_(K+1), gap = phi_(K) - phi_(K+1).
/// -0 and +0 are equal; infinities are ordinary scores.
///
/// \param policy   exec::reference or exec::cpu
/// \param source   n scores, evaluated in runs that start at multiples of 4096 whatever the thread
///                 count (a sample that only steers the search is evaluated in short runs besides)
/// \param options  .k in [0, n]; .by value or magnitude
/// \return         see topk_result
/// \throws invalid_argument  if k is outside [0, n]; whatever the source throws
///
/// Cost: cpu evaluates every score once, and a sample of at most 2^18 twice, in O(n + K) expected;
/// a K-th score that very many share costs part of a second pass; a sample that misleads at most
/// seven more. Memory beyond the source: 8 bytes per selected for the result and at most 5 for the
/// search, plus a fixed 5 MB and 1 MB per thread. reference: O(n log n), 16 n bytes.
/// Numerics: comparisons and one subtraction; every policy and every thread count gives equal bits.
/// Determinism: the result depends on the scores alone.
/// Source: selection by phi_P, Algorithm 1; the gap is that of Corollary 1. Ties and NaN, which
/// the paper leaves open, are defined here.
template <HostPolicy Policy, ScoreSource Source>
topk_result topk(const Policy& policy, const Source& source, const topk_options& options) {
  const index_t n = source.size();
  expects(0 <= options.k && options.k <= n, "topk", "k must satisfy 0 <= k <= n", "k", options.k,
          "n", n);
  if constexpr (std::same_as<Policy, exec::reference>)
    return detail::topk_reference(source, options);
  else
    return detail::topk_cpu(policy, source, options);
}

/// The same over scores in memory: a vector, a span or a strided view.
template <HostPolicy Policy>
topk_result topk(const Policy& policy, vector_view<const double> scores,
                 const topk_options& options) {
  return topk(policy, stored_scores<double>(scores), options);
}
template <HostPolicy Policy>
topk_result topk(const Policy& policy, vector_view<const float> scores,
                 const topk_options& options) {
  return topk(policy, stored_scores<float>(scores), options);
}

/// Any other policy: an error that says so. A back end of your own is an overload on your policy.
template <class Policy, class Source>
requires(!HostPolicy<Policy>) topk_result topk(const Policy&, const Source&, const topk_options&) {
  static_assert(detail::unsupported<Policy>,
                "dualsft::topk: no back end for this execution policy; exec::reference and "
                "exec::cpu run on the host, exec::cuda needs the .cuh header");
  return {};
}

}  // namespace dualsft
