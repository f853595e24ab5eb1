// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

/// The map that everybody shares: which stored tensor a flat coordinate belongs to.
///
/// The d coordinates of a model are numbered 0 .. d - 1 in the order of its blocks; coordinate
/// offset + r * cols + c is element (r, c) of a row-major rows x cols tensor. A block is one stored
/// tensor under its stored name; a tied weight is stored once, so it is one block. Masks, scores,
/// quotas, heatmaps and files all speak these names.
namespace dualsft {

struct parameter_block {
  std::string name;    ///< the tensor's name in the checkpoint; unique, not empty
  index_t offset = 0;  ///< first flat coordinate
  index_t rows = 0;    ///< a vector of n is n x 1
  index_t cols = 0;
  int layer = -1;      ///< index of the layer, -1 for what belongs to none (embeddings, head)
  std::string module;  ///< module kind, such as "attention.q" or "mlp.up"; the name by default

  index_t size() const { return rows * cols; }

  friend bool operator==(const parameter_block&, const parameter_block&) = default;
};

/// Ordered blocks without gaps. Immutable once handed to a model; built with add().
class parameter_layout {
 public:
  /// Appends a block behind the last one and returns its index.
  /// \throws invalid_argument  on an empty or repeated name, a negative or overflowing size
  index_t add(std::string name, index_t rows, index_t cols, int layer = -1,
              std::string module = {}) {
    expects(!name.empty(), "parameter_layout::add", "a block needs a name");
    expects(rows >= 0 && cols >= 0, "parameter_layout::add", "rows and cols must not be negative",
            "name", name, "rows", rows, "cols", cols);
    constexpr index_t most = std::numeric_limits<index_t>::max();
    expects(cols == 0 || rows <= (most - size_) / cols, "parameter_layout::add",
            "the number of coordinates must fit 63 bits", "name", name, "rows", rows, "cols", cols);
    expects(!by_name_.contains(name), "parameter_layout::add", "names must differ", "name", name);
    const auto number = static_cast<index_t>(blocks_.size());
    by_name_.emplace(name, number);
    if (module.empty()) module = name;
    blocks_.push_back({std::move(name), size_, rows, cols, layer, std::move(module)});
    size_ += rows * cols;
    return number;
  }

  /// d, the number of coordinates.
  index_t size() const noexcept { return size_; }
  const std::vector<parameter_block>& blocks() const noexcept { return blocks_; }
  index_t block_count() const noexcept { return static_cast<index_t>(blocks_.size()); }

  const parameter_block& block(index_t number) const {
    expects(0 <= number && number < block_count(), "parameter_layout::block",
            "the block's number must lie in [0, blocks)", "number", number, "blocks",
            block_count());
    return blocks_[static_cast<std::size_t>(number)];
  }

  /// The number of the block of that name, or -1.
  index_t find(std::string_view name) const {
    const auto found = by_name_.find(std::string(name));
    return found == by_name_.end() ? -1 : found->second;
  }

  /// The number of the block that holds a coordinate. Cost: O(log blocks).
  index_t block_of(index_t coordinate) const {
    expects(0 <= coordinate && coordinate < size_, "parameter_layout::block_of",
            "the coordinate must lie in [0, d)", "coordinate", coordinate, "d", size_);
    index_t low = 0;
    index_t high = block_count();
    while (high - low > 1) {  // invariant: blocks[low].offset <= coordinate
      const index_t middle = low + (high - low) / 2;
      if (blocks_[static_cast<std::size_t>(middle)].offset <= coordinate)
        low = middle;
      else
        high = middle;
    }
    // Empty blocks share their offset with the next one; the last of them is the one that holds it.
    return low;
  }

  friend bool operator==(const parameter_layout& a, const parameter_layout& b) {
    return a.blocks_ == b.blocks_;
  }

 private:
  std::vector<parameter_block> blocks_;
  std::unordered_map<std::string, index_t> by_name_;
  index_t size_ = 0;
};

}  // namespace dualsft
