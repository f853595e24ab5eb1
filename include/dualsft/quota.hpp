// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/detail/quota.hpp>
#include <dualsft/detail/share.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/score_source.hpp>
#include <dualsft/topk.hpp>
#include <dualsft/topk_types.hpp>
#include <utility>
#include <vector>

namespace dualsft {

struct quota_options {
  /// K, in [0, d].
  index_t k = 0;
  /// The share of K that is spread over layers, in [0, 1].
  double layer_share = 0;
  /// The share of K that is spread over module kinds, in [0, 1 - layer_share].
  double module_share = 0;
  topk_by by = topk_by::value;
};

struct quota_result {
  /// All that is selected. kth, next, gap and the boundary ties are those of the last, global stage:
  /// only there does a score compete with every other.
  topk_result selection;
  index_t from_layers = 0;
  index_t from_modules = 0;
  index_t from_all = 0;
};

namespace detail {

struct quota_amounts {
  index_t for_layers = 0;
  index_t for_modules = 0;
};

/// What every back end checks of d scores, and how many each stage is to select.
inline quota_amounts check_quota(index_t d, const parameter_layout& layout,
                                 const quota_options& options) {
  expects(layout.size() == d, "topk_with_quotas", "the layout must have as many coordinates",
          "layout", layout.size(), "scores", d);
  expects(0 <= options.k && options.k <= d, "topk_with_quotas", "k must satisfy 0 <= k <= d", "k",
          options.k, "d", d);
  expects(options.layer_share >= 0 && options.module_share >= 0 &&
              options.layer_share + options.module_share <= 1 + 1e-12,
          "topk_with_quotas", "shares must not be negative and add up to 1 at most", "layer_share",
          options.layer_share, "module_share", options.module_share);

  quota_amounts out;
  out.for_layers = std::min(options.k, share_of(options.layer_share, options.k));
  out.for_modules = std::min(options.k - out.for_layers, share_of(options.module_share, options.k));
  return out;
}

}  // namespace detail

/// Top-K with a minimum for every layer and every kind of module.
///
/// 1. floor(layer_share K) coordinates (detail/share.hpp) are spread over the layers as equally as
///    their sizes allow (see below); each layer gives its own best.
/// 2. floor(module_share K) are spread over the module kinds in the same way; each gives the best
///    of what is not yet selected.
/// 3. The rest of K, with whatever the stages above could not place, is the Top-K of all that is
///    not yet selected.
///
/// Equally as sizes allow: a group smaller than its share gives all it has, the others share the
/// remainder; what cannot be divided goes one each to the groups that come first (layers in
/// ascending order, module kinds by first appearance in the layout). Blocks of layer -1 belong to
/// no layer: stage 1 passes them over, stages 2 and 3 do not. Zero shares give topk itself.
///
/// \param policy   exec::reference or exec::cpu
/// \param source   d scores, as for topk
/// \param layout   of d coordinates
/// \param options  see quota_options
/// \throws invalid_argument  if sizes differ, k is outside [0, d], or a share is outside its range
///
/// Cost: cpu evaluates every score at most three times in expectation; three times the memory that
/// topk needs. Numerics, Determinism: as topk.
/// Source: the option of the authors' code (theory.md section 7), which leaves small groups,
/// remainders and ties to chance; they are defined here.
template <ExecutionPolicy Policy, ScoreSource Source>
quota_result topk_with_quotas(const Policy& policy, const Source& source,
                              const parameter_layout& layout, const quota_options& options) {
  const detail::quota_amounts amounts = detail::check_quota(source.size(), layout, options);
  detail::quota_stages<Policy, Source> stages(policy, source, options.by);
  quota_result result;
  result.from_layers = stages.spread(amounts.for_layers, detail::layer_groups(layout));
  result.from_modules = stages.spread(amounts.for_modules, detail::module_groups(layout));
  result.selection = stages.finish(options.k);
  result.from_all = result.selection.selected.size() - result.from_layers - result.from_modules;
  return result;
}

}  // namespace dualsft
