// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/index_set.hpp>
#include <span>
#include <utility>
#include <vector>

/// An index set in a quarter of the space: what a masked optimizer keeps of its mask.
namespace dualsft {

/// The same members as an index_set, as 16-bit offsets within pages of 65,536 coordinates.
///
/// 2 bytes per member and 8 per page. A member's *rank* is its number in ascending order; compact
/// arrays (optimizer state, compact gradients) are indexed by rank.
class paged_index_set {
 public:
  static constexpr int page_bits = 16;
  static constexpr index_t page_size = index_t{1} << page_bits;

  paged_index_set() : page_begins_(1, 0) {}

  /// Cost: O(members + pages).
  explicit paged_index_set(const index_set& selected) : universe_(selected.universe()) {
    const index_t pages = universe_ / page_size + (universe_ % page_size != 0 ? 1 : 0);
    page_begins_.resize(static_cast<std::size_t>(pages) + 1, 0);
    offsets_.reserve(selected.indices().size());
    std::size_t page = 0;
    for (const index_t i : selected.indices()) {
      while (static_cast<index_t>(page) < i >> page_bits) page_begins_[++page] = size();
      offsets_.push_back(static_cast<std::uint16_t>(i & (page_size - 1)));
    }
    while (page + 1 < page_begins_.size()) page_begins_[++page] = size();
  }

  index_t universe() const noexcept { return universe_; }
  index_t size() const noexcept { return static_cast<index_t>(offsets_.size()); }

  /// The members' offsets within their pages [size], by rank.
  std::span<const std::uint16_t> offsets() const noexcept { return offsets_; }
  /// The rank of each page's first member [pages + 1]; the last is size().
  std::span<const index_t> page_begins() const noexcept { return page_begins_; }

  /// Bytes held on the heap.
  index_t memory_bytes() const noexcept {
    return static_cast<index_t>(offsets_.capacity() * sizeof(std::uint16_t) +
                                page_begins_.capacity() * sizeof(index_t));
  }

  /// The number of members below `coordinate`, which lies in [0, universe].
  /// Cost: O(log page_size).
  index_t rank(index_t coordinate) const {
    expects(0 <= coordinate && coordinate <= universe_, "paged_index_set::rank",
            "the coordinate must lie in [0, universe]", "coordinate", coordinate, "universe",
            universe_);
    if (coordinate == universe_) return size();
    const auto page = static_cast<std::size_t>(coordinate >> page_bits);
    const auto first = offsets_.begin() + page_begins_[page];
    const auto last = offsets_.begin() + page_begins_[page + 1];
    const auto offset = static_cast<std::uint16_t>(coordinate & (page_size - 1));
    return std::lower_bound(first, last, offset) - offsets_.begin();
  }

  /// Calls body(rank, base, offsets) for each run of members of one page, in ascending order, that
  /// together are the members of ranks [first, last): coordinate = base + offset.
  /// Cost: O(log pages + pages touched), beside the body.
  template <class Body>
  void for_each_run(index_t first, index_t last, Body&& body) const {
    expects(0 <= first && first <= last && last <= size(), "paged_index_set::for_each_run",
            "[first, last) must lie in [0, size)", "first", first, "last", last, "size", size());
    if (first == last) return;
    // The page p with page_begins_[p] <= first < page_begins_[p + 1]; empty pages are skipped.
    auto page = std::upper_bound(page_begins_.begin(), page_begins_.end(), first) - 1;
    for (index_t rank = first; rank < last; ++page) {
      const index_t end = std::min(last, *(page + 1));
      if (end == rank) continue;
      body(rank, index_t{page - page_begins_.begin()} << page_bits,
           std::span<const std::uint16_t>(offsets_).subspan(static_cast<std::size_t>(rank),
                                                            static_cast<std::size_t>(end - rank)));
      rank = end;
    }
  }

  /// The members as 8-byte indices.
  index_set unpacked() const {
    std::vector<index_t> indices;
    indices.reserve(offsets_.size());
    for_each_run(0, size(), [&](index_t, index_t base, std::span<const std::uint16_t> offsets) {
      for (const std::uint16_t offset : offsets) indices.push_back(base + offset);
    });
    return {std::move(indices), universe_};
  }

  friend bool operator==(const paged_index_set&, const paged_index_set&) = default;

 private:
  std::vector<std::uint16_t> offsets_;  // [size], by rank
  std::vector<index_t> page_begins_;    // [pages + 1]: rank of each page's first member
  index_t universe_ = 0;
};

}  // namespace dualsft
