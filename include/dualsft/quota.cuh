// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/detail/quota_device.cuh>
#include <dualsft/execution.cuh>
#include <dualsft/layout.hpp>
#include <dualsft/quota.hpp>
#include <dualsft/topk.cuh>
#include <dualsft/views.hpp>

/// quota.hpp on the device: the same selection, as a mask that grows there. Source: as quota.hpp.
namespace dualsft {

struct device_quota_result {
  topk_result summary;  ///< quota_result::selection's numbers; its `selected` is empty
  index_t selected = 0;
  index_t from_layers = 0;
  index_t from_modules = 0;
  index_t from_all = 0;
};

/// Top-K with a minimum for every layer and every kind of module: see quota.hpp.
///
/// \param scores     d scores, a function of the coordinate as for topk
/// \param layout     of d coordinates
/// \param workspace  for at least d scores
/// \param words      [ceil(d / 32)], overwritten: the selection, in the order of write_mask
/// \throws invalid_argument  as topk_with_quotas on the host, or if there are not as many words or the
///                           workspace is for fewer scores
/// \throws cuda_error
///
/// Cost: two passes over the scores per stage that selects any, a search per group. Waits for the stream.
/// Numerics, Determinism: as topk.
template <class Scores>
device_quota_result topk_with_quotas(const exec::cuda& policy, const Scores& scores,
                                     const parameter_layout& layout, const quota_options& options,
                                     topk_workspace& workspace,
                                     vector_view<std::uint32_t, device_space> words) {
  const index_t d = scores.size();
  const detail::quota_amounts amounts = detail::check_quota(d, layout, options);
  expects(words.contiguous() && words.size() == (d + 31) / 32, "topk_with_quotas",
          "there must be one word per 32 coordinates", "words", words.size(), "d", d);
  detail::device_quota_stages<Scores> stages(policy, scores, layout, options.by, workspace, words);
  device_quota_result result;
  result.from_layers = stages.spread(amounts.for_layers, detail::layer_groups(layout));
  result.from_modules = stages.spread(amounts.for_modules, detail::module_groups(layout));
  result.summary = stages.finish(options.k);
  result.selected = stages.selected();
  result.from_all = result.selected - result.from_layers - result.from_modules;
  return result;
}

}  // namespace dualsft
