// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <dualsft/detail/device_scores.hpp>
#include <dualsft/detail/launch.cuh>
#include <dualsft/detail/quota.hpp>
#include <dualsft/detail/topk_device.cuh>
#include <dualsft/execution.cuh>
#include <dualsft/layout.hpp>
#include <dualsft/topk.cuh>
#include <span>
#include <utility>
#include <vector>

namespace dualsft::detail {

/// Sets the bits of the selected among n scores; scores[0] is coordinate `begin`, and number `first` of
/// those that the test counts.
template <class Scores>
__global__ void mark_selected(Scores scores, index_t n, selection_test test, index_t first,
                              index_t begin, std::uint32_t* words) {
  for_each_score(scores, n, [&](index_t i, const score_inputs<Scores>& loaded, bool there) {
    if (!there || !test(score_of(scores, i, loaded), first + i)) return;
    const index_t j = begin + i;
    atomicOr(&words[j / 32], 1U << (j % 32));
  });
}

/// What the stages of a quota have in common: a growing mask.
template <class Scores>
class device_quota_stages {
 public:
  device_quota_stages(const exec::cuda& policy, const Scores& scores,
                      const parameter_layout& layout, topk_by by, topk_workspace& workspace,
                      const vector_view<std::uint32_t, device_space>& words)
      : policy_(policy),
        scores_{scores, words.data()},
        layout_(layout),
        by_(by),
        workspace_(workspace),
        words_(words) {
    if (words.size() > 0)
      cuda_check(cudaMemsetAsync(words.data(), 0,
                                 static_cast<std::size_t>(words.size()) * sizeof(std::uint32_t),
                                 policy.stream),
                 "topk_with_quotas");
  }

  index_t selected() const { return selected_; }

  /// Returns how many were selected: fewer than `total` if the groups hold fewer numbers.
  index_t spread(index_t total, const std::vector<range_group>& groups) {
    if (total == 0) return 0;
    std::vector<index_t> taken(layout_.blocks().size(), 0);
    if (selected_ > 0)
      taken = workspace_.device().count_ranges(words_.data(), block_begins(layout_));
    std::vector<index_t> capacities;
    for (const range_group& group : groups) {
      index_t free = 0;
      for (const index_range& range : group)
        if (range.size() > 0)
          free += range.size() - taken[static_cast<std::size_t>(layout_.block_of(range.begin))];
      capacities.push_back(free);
    }
    const std::vector<index_t> shares = fair_shares(total, capacities);
    index_t added = 0;
    for (std::size_t g = 0; g < groups.size(); ++g)
      if (shares[g] > 0) added += select(groups[g], shares[g]).selected;
    return added;
  }

  /// The global stage: fills up to k.
  topk_result finish(index_t k) {
    const index_t before = selected_;
    topk_result result = select({{0, scores_.size()}}, k - selected_).summary;
    result.nan_count -= before;  // those were excluded as NaN
    return result;
  }

 private:
  using part = compared_scores<part_of_scores<unmarked_scores<Scores>>>;

  device_topk_result select(const range_group& group, index_t k) {
    std::vector<part> parts;
    for (const index_range& range : group)
      parts.push_back({{scores_, range.begin, range.size()}, by_});
    device_topk_result found = search_on(policy_, std::span<const part>(parts), k, workspace_);
    index_t first = 0;
    for (const part& each : parts) {
      if (found.selected > 0 && each.size() > 0)
        launch("topk_with_quotas", policy_, {blocks_for(each.size()), topk_threads},
               mark_selected<part>, each, each.size(), found.test, first, each.scores.begin,
               words_.data());
      first += each.size();
    }
    selected_ += found.selected;
    return found;
  }

  exec::cuda policy_;
  unmarked_scores<Scores> scores_;
  const parameter_layout& layout_;
  topk_by by_;
  topk_workspace& workspace_;
  vector_view<std::uint32_t, device_space> words_;
  index_t selected_ = 0;
};

}  // namespace dualsft::detail
