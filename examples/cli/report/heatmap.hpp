// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data.hpp"
#include "markup.hpp"

/// Layers x modules as coloured tables, whose cells say in words what their colour says.
namespace dualsft::cli {

/// All tensors of one module in one layer.
struct block_cell {
  std::string module;
  index_t size = 0, selected = 0;
  std::optional<double> mean_magnitude = std::nullopt;  ///< over all their coordinates
};

struct block_grid {
  struct row {
    index_t layer;
    std::vector<std::optional<block_cell>> cells;  ///< [modules]
  };
  std::vector<std::string> modules;  ///< those inside layers, in order of appearance
  std::vector<row> layers;           ///< ascending
  std::vector<block_cell> outside;   ///< by module, in order of appearance
};

block_grid arrange(const std::vector<parameter_block>& blocks);

/// How one cell is drawn.
struct heat {
  std::optional<double> value;  ///< compared with the largest of the table, for the colour
  std::string text;             ///< in the cell
  std::string hint;             ///< where a pointer rests on it
};

struct heatmap_text {
  std::string caption;
  std::string low, high;  ///< ends of the legend
};

/// \param show  called once for each cell
void draw_heatmap(markup& page, const heatmap_text& text, const block_grid& grid,
                  const std::function<heat(const block_cell&)>& show);

/// CSS for the colours of both schemes; black or white text on each, contrast at least 4.5 : 1.
std::string heatmap_style();

}  // namespace dualsft::cli
