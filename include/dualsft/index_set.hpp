// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <span>
#include <utility>
#include <vector>

/// A set of coordinates (or examples) as its ascending indices: the compact form of a mask.
///
/// 8 bytes per member, none for what is outside. A bit set (mask.hpp) is smaller above one member
/// in 64.
namespace dualsft {

class index_set {
 public:
  index_set() = default;

  /// \param indices   strictly ascending, each in [0, universe)
  /// \param universe  d, the number of coordinates that could be members
  /// \throws invalid_argument  if an index is out of order, repeated or outside
  index_set(std::vector<index_t> indices, index_t universe)
      : indices_(std::move(indices)), universe_(universe) {
    expects(universe >= 0, "index_set", "universe must not be negative", "universe", universe);
    index_t previous = -1;
    for (const index_t i : indices_) {
      expects(previous < i && i < universe, "index_set",
              "indices must ascend strictly within [0, universe)", "index", i, "after", previous,
              "universe", universe);
      previous = i;
    }
  }

  /// Every index of [0, universe).
  /// \throws invalid_argument  if universe is negative
  static index_set all(index_t universe) {
    expects(universe >= 0, "index_set::all", "universe must not be negative", "universe", universe);
    std::vector<index_t> indices(static_cast<std::size_t>(universe));
    for (index_t i = 0; i < universe; ++i) indices[static_cast<std::size_t>(i)] = i;
    return {std::move(indices), universe};
  }

  std::span<const index_t> indices() const noexcept { return indices_; }
  index_t size() const noexcept { return static_cast<index_t>(indices_.size()); }
  index_t universe() const noexcept { return universe_; }

  /// Cost: O(log size).
  bool contains(index_t i) const { return std::binary_search(indices_.begin(), indices_.end(), i); }

  /// The members in [begin, end). Cost: O(log size).
  std::span<const index_t> within(index_t begin, index_t end) const {
    const auto first = std::lower_bound(indices_.begin(), indices_.end(), begin);
    const auto last = std::lower_bound(first, indices_.end(), end);
    return {first, last};
  }

  friend bool operator==(const index_set&, const index_set&) = default;

 private:
  std::vector<index_t> indices_;
  index_t universe_ = 0;
};

}  // namespace dualsft
