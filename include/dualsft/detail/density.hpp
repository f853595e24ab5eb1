// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/layout.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace dualsft {

/// Members among the coordinates of one part of a model.
struct density_share {
  index_t selected = 0;
  index_t size = 0;
  /// selected / size; 0 for an empty part.
  double density() const {
    return size == 0 ? 0.0 : static_cast<double>(selected) / static_cast<double>(size);
  }
  friend bool operator==(const density_share&, const density_share&) = default;
};

struct density_summary {
  struct layer_share : density_share {
    int layer = -1;
  };
  struct module_share : density_share {
    std::string module;
  };

  density_share total;
  std::vector<density_share> blocks;
  std::vector<layer_share> layers;
  std::vector<module_share> modules;
};

namespace detail {

/// The layers of a layout, ascending; and its module kinds in order of first appearance.
inline std::vector<int> layers_of(const parameter_layout& layout) {
  std::vector<int> layers;
  for (const auto& block : layout.blocks()) layers.push_back(block.layer);
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return layers;
}

inline std::vector<std::string> modules_of(const parameter_layout& layout) {
  std::vector<std::string> modules;
  std::unordered_set<std::string_view> seen;
  for (const auto& block : layout.blocks())
    if (seen.insert(block.module).second) modules.push_back(block.module);
  return modules;
}

/// count(begin, end) is the number of members in a range of coordinates.
template <class Count>
density_summary summarize_blocks(const parameter_layout& layout, Count&& count) {
  density_summary summary;
  for (const int layer : layers_of(layout)) summary.layers.push_back({{}, layer});
  std::unordered_map<std::string_view, std::size_t> place;
  for (auto& module : modules_of(layout)) summary.modules.push_back({{}, std::move(module)});
  for (std::size_t m = 0; m < summary.modules.size(); ++m)
    place.emplace(summary.modules[m].module, m);

  const auto add = [](density_share& to, const density_share& share) {
    to.selected += share.selected;
    to.size += share.size;
  };
  for (const auto& block : layout.blocks()) {
    const density_share share{count(block.offset, block.offset + block.size()), block.size()};
    summary.blocks.push_back(share);
    add(summary.total, share);
    add(*std::lower_bound(summary.layers.begin(), summary.layers.end(), block.layer,
                          [](const auto& entry, int layer) { return entry.layer < layer; }),
        share);
    add(summary.modules[place.at(block.module)], share);
  }
  return summary;
}

}  // namespace detail
}  // namespace dualsft
