// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/detail/density.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/score_source.hpp>
#include <dualsft/topk.hpp>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace dualsft::detail {

/// Splits `total` over groups as equally as their capacities allow: everybody gets the level, but
/// nobody more than it holds; what cannot be divided goes one each to the first that can take it.
inline std::vector<index_t> fair_shares(index_t total, const std::vector<index_t>& capacities) {
  std::vector<std::size_t> order(capacities.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t i, std::size_t j) { return capacities[i] < capacities[j]; });
  std::vector<index_t> shares(capacities.size());
  for (std::size_t o = 0; o < order.size(); ++o) {
    const auto left = static_cast<index_t>(order.size() - o);
    const index_t level = total / left;
    if (capacities[order[o]] <= level) {  // too small for an equal share
      total -= shares[order[o]] = capacities[order[o]];
      continue;
    }
    index_t indivisible = total % left;  // everybody from here on holds level + 1 or more
    std::sort(order.begin() + static_cast<std::ptrdiff_t>(o), order.end());
    for (; o < order.size(); ++o) shares[order[o]] = level + (indivisible-- > 0 ? 1 : 0);
  }
  return shares;
}

/// Ascending ranges of coordinates that share a layer or a module kind.
using range_group = std::vector<index_range>;

inline std::vector<range_group> layer_groups(const parameter_layout& layout) {
  std::vector<range_group> groups;
  for (const int layer : layers_of(layout)) {
    if (layer < 0) continue;
    range_group& group = groups.emplace_back();
    for (const auto& block : layout.blocks())
      if (block.layer == layer) group.push_back({block.offset, block.offset + block.size()});
  }
  return groups;
}

inline std::vector<range_group> module_groups(const parameter_layout& layout) {
  std::vector<range_group> groups;
  for (const auto& module : modules_of(layout)) {
    range_group& group = groups.emplace_back();
    for (const auto& block : layout.blocks())
      if (block.module == module) group.push_back({block.offset, block.offset + block.size()});
  }
  return groups;
}

/// The scores of one group, laid end to end, with those already selected turned into NaN, which
/// topk never selects. Ascending ranges keep "the lower index" meaning the same.
template <ScoreSource Source>
class group_scores {
 public:
  group_scores(const Source& source, const range_group& group, const index_set& excluded)
      : source_(source), group_(group), excluded_(excluded) {
    for (const auto& range : group) {
      starts_.push_back(size_);
      size_ += range.size();
    }
  }

  index_t size() const { return size_; }

  void fill(index_t offset, std::span<double> out) const {
    // The last range that starts at or before offset; empty ones in between hold nothing.
    auto r = static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end(), offset) -
                                      starts_.begin());
    for (r -= r > 0 ? 1 : 0; !out.empty(); ++r) {
      const index_t begin = group_[r].begin + (offset - starts_[r]);
      const index_t count = std::min(group_[r].end - begin, static_cast<index_t>(out.size()));
      if (count <= 0) continue;
      const auto run = out.first(static_cast<std::size_t>(count));
      source_.fill(begin, run);
      for (const index_t i : excluded_.within(begin, begin + count))
        run[static_cast<std::size_t>(i - begin)] = std::numeric_limits<double>::quiet_NaN();
      out = out.subspan(static_cast<std::size_t>(count));
      offset += count;
    }
  }

  /// The coordinate of a position in this source; positions must be asked for in ascending order.
  class locator {
   public:
    explicit locator(const group_scores& scores) : scores_(scores) {}
    index_t operator()(index_t position) {
      while (position >= scores_.starts_[range_] + scores_.group_[range_].size()) ++range_;
      return scores_.group_[range_].begin + (position - scores_.starts_[range_]);
    }

   private:
    const group_scores& scores_;
    std::size_t range_ = 0;
  };

 private:
  const Source& source_;
  const range_group& group_;
  const index_set& excluded_;
  std::vector<index_t> starts_;
  index_t size_ = 0;
};

/// What the stages of a quota have in common: a growing set of what is selected.
template <ExecutionPolicy Policy, ScoreSource Source>
class quota_stages {
 public:
  quota_stages(const Policy& policy, const Source& source, topk_by by)
      : policy_(policy), source_(source), by_(by), selected_({}, source.size()) {}

  /// Returns how many were selected: fewer than `total` if the groups hold fewer numbers.
  index_t spread(index_t total, const std::vector<range_group>& groups) {
    std::vector<index_t> capacities;
    for (const auto& group : groups) {
      index_t free = 0;
      for (const auto& range : group)
        free +=
            range.size() - static_cast<index_t>(selected_.within(range.begin, range.end).size());
      capacities.push_back(free);
    }
    const std::vector<index_t> shares = fair_shares(total, capacities);
    std::vector<index_t> added;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      if (shares[g] == 0) continue;
      const group_scores<Source> scores(source_, groups[g], selected_);
      const index_set best = topk(policy_, scores, {.k = shares[g], .by = by_}).selected;
      typename group_scores<Source>::locator locate(scores);
      for (const index_t position : best.indices()) added.push_back(locate(position));
    }
    add(std::move(added));
    return static_cast<index_t>(selected_.size()) - std::exchange(counted_, selected_.size());
  }

  /// The global stage: fills up to k.
  topk_result finish(index_t k) {
    const range_group all{{0, source_.size()}};
    const group_scores<Source> scores(source_, all, selected_);
    topk_result result = topk(policy_, scores, {.k = k - selected_.size(), .by = by_});
    result.nan_count -= selected_.size();  // those were excluded as NaN
    const auto best = result.selected.indices();
    add({best.begin(), best.end()});
    result.selected = std::move(selected_);
    return result;
  }

 private:
  void add(std::vector<index_t> indices) {
    const auto before = selected_.indices();
    const auto middle = static_cast<std::ptrdiff_t>(indices.size());
    indices.insert(indices.end(), before.begin(), before.end());
    std::sort(indices.begin(), indices.begin() + middle);
    std::inplace_merge(indices.begin(), indices.begin() + middle, indices.end());
    selected_ = index_set(std::move(indices), source_.size());
  }

  const Policy& policy_;
  const Source& source_;
  topk_by by_;
  index_set selected_;
  index_t counted_ = 0;
};

}  // namespace dualsft::detail
