// SPDX-License-Identifier: Apache-2.0
#include "heatmap.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>

namespace dualsft::cli {

namespace {

// ---- colours ----------------------------------------------------------------------------------

using rgb = std::array<double, 3>;  // 0 to 255

constexpr int levels = 16;

// One hue whose lightness only ever rises or falls reads the same whatever colours an eye tells
// apart. Little is close to the background in both schemes.
constexpr std::array<rgb, 4> light_ramp{
    {{238, 244, 250}, {158, 202, 225}, {49, 130, 189}, {8, 40, 100}}};
constexpr std::array<rgb, 4> dark_ramp{
    {{30, 39, 50}, {20, 82, 130}, {60, 150, 205}, {205, 236, 255}}};

rgb colour(const std::array<rgb, 4>& ramp, double t) {
  const double at = t * static_cast<double>(ramp.size() - 1);
  const auto i = std::min(static_cast<std::size_t>(at), ramp.size() - 2);
  rgb out{};
  for (std::size_t c = 0; c < 3; ++c)
    out[c] = std::round(std::lerp(ramp[i][c], ramp[i + 1][c], at - static_cast<double>(i)));
  return out;
}

/// Relative luminance as WCAG 2 defines it.
double luminance(const rgb& c) {
  const auto linear = [](double x) {
    x /= 255;
    return x <= 0.04045 ? x / 12.92 : std::pow((x + 0.055) / 1.055, 2.4);
  };
  return 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
}

std::string hex(const rgb& c) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out = "#";
  for (const double x : c) {
    const auto byte = static_cast<std::size_t>(x);
    out += digits[byte >> 4];
    out += digits[byte & 15];
  }
  return out;
}

std::string rules(const std::array<rgb, 4>& ramp) {
  std::string out;
  for (int i = 0; i < levels; ++i) {
    const rgb c = colour(ramp, static_cast<double>(i) / (levels - 1));
    // (L + 0.05) / 0.05 against 1.05 / (L + 0.05): the better of the two is at least 4.58.
    const bool on_dark = luminance(c) + 0.05 < std::sqrt(1.05 * 0.05);
    out += ".h" + std::to_string(i) + "{background:" + hex(c) +
           ";color:" + (on_dark ? "#fff" : "#000") + "}\n";
  }
  return out;
}

std::string level_of(const heat& cell, double largest) {
  const double share = largest > 0 ? *cell.value / largest : 0;
  return "h" + std::to_string(
                   std::clamp(static_cast<int>(std::round(share * (levels - 1))), 0, levels - 1));
}

// ---- the table --------------------------------------------------------------------------------

void add(block_cell& cell, const parameter_block& block) {
  if (block.mean_magnitude) {
    const double before = cell.mean_magnitude.value_or(0) * static_cast<double>(cell.size);
    const double size = static_cast<double>(cell.size + block.size);
    cell.mean_magnitude =
        size > 0
            ? (before / size + *block.mean_magnitude * (static_cast<double>(block.size) / size))
            : *block.mean_magnitude;
  }
  cell.size += block.size;
  cell.selected += block.selected;
}

struct heat_row {
  std::string label;
  std::vector<std::optional<heat>> cells;
  bool spans = false;  ///< its one cell is as wide as all modules
};

std::vector<heat_row> rows_of(const block_grid& grid,
                              const std::function<heat(const block_cell&)>& show) {
  std::vector<heat_row> rows;
  for (const block_grid::row& layer : grid.layers) {
    heat_row& row = rows.emplace_back();
    row.label = std::to_string(layer.layer);
    for (const auto& cell : layer.cells)
      row.cells.push_back(cell ? std::optional<heat>(show(*cell)) : std::nullopt);
  }
  for (const block_cell& cell : grid.outside)
    rows.push_back({.label = cell.module, .cells = {show(cell)}, .spans = true});
  return rows;
}

/// May break behind a dot, so that columns stay narrow.
void put_column_head(markup& page, std::string_view module) {
  const auto th = page.open("th", {{"scope", "col"}});
  const std::string name = clipped(module, 60);
  std::string_view rest = name;
  for (auto dot = rest.find('.'); dot != rest.npos; dot = rest.find('.')) {
    page.text(rest.substr(0, dot + 1));
    page.put_empty("wbr");
    rest.remove_prefix(dot + 1);
  }
  page.text(rest);
}

void put_cell(markup& page, const std::optional<heat>& cell, double largest) {
  if (!cell)
    page.put("td", "", {{"class", "none"}});
  else if (!cell->value)
    page.put("td", "\xE2\x80\x93", {{"title", cell->hint}});
  else
    page.put("td", cell->text, {{"class", level_of(*cell, largest)}, {"title", cell->hint}});
}

/// As wide as all modules.
void put_wide_cell(markup& page, const heat& cell, double largest, std::size_t modules) {
  page.put("td", cell.value ? cell.text : "\xE2\x80\x93",
           {{"class", "wide" + (cell.value ? " " + level_of(cell, largest) : "")},
            {"title", cell.hint},
            {"colspan", std::to_string(std::max<std::size_t>(1, modules))}});
}

void put_legend(markup& page, const heatmap_text& text) {
  const auto legend = page.open("p", {{"class", "legend"}});
  page.put("span", text.low);
  {
    const auto ramp = page.open("span", {{"class", "ramp"}, {"aria-hidden", "true"}});
    for (int i = 0; i < levels; ++i) page.put("i", "", {{"class", "h" + std::to_string(i)}});
  }
  page.put("span", text.high);
}

}  // namespace

block_grid arrange(const std::vector<parameter_block>& blocks) {
  block_grid grid;
  std::map<index_t, std::vector<std::optional<block_cell>>> layers;
  for (const parameter_block& block : blocks) {
    if (block.layer < 0) {
      auto at = std::ranges::find(grid.outside, block.module, &block_cell::module);
      if (at == grid.outside.end()) at = grid.outside.insert(at, {.module = block.module});
      add(*at, block);
      continue;
    }
    const auto module = std::ranges::find(grid.modules, block.module);
    const auto column = static_cast<std::size_t>(module - grid.modules.begin());
    if (module == grid.modules.end()) grid.modules.push_back(block.module);
    auto& cells = layers[block.layer];
    if (cells.size() <= column) cells.resize(column + 1);
    if (!cells[column]) cells[column] = block_cell{.module = block.module};
    add(*cells[column], block);
  }
  for (auto& [layer, cells] : layers) {
    cells.resize(grid.modules.size());
    grid.layers.push_back({layer, std::move(cells)});
  }
  return grid;
}

std::string heatmap_style() {
  return rules(light_ramp) + "@media screen and (prefers-color-scheme:dark){\n" + rules(dark_ramp) +
         "}\n";
}

void draw_heatmap(markup& page, const heatmap_text& text, const block_grid& grid,
                  const std::function<heat(const block_cell&)>& show) {
  const std::vector<heat_row> rows = rows_of(grid, show);
  double largest = 0;
  for (const heat_row& row : rows)
    for (const auto& cell : row.cells)
      if (cell && cell->value) largest = std::max(largest, *cell->value);
  put_legend(page, text);
  const auto box = page.open(
      "div",
      {{"class", "scroll"}, {"tabindex", "0"}, {"role", "region"}, {"aria-label", text.caption}});
  const auto table = page.open("table", {{"class", "heat"}});
  {
    const auto words = page.open("caption");
    page.put("span", text.caption);
  }
  if (!grid.modules.empty()) {
    const auto head = page.open("thead");
    const auto line = page.open("tr");
    page.put("th", "layer", {{"scope", "col"}});
    for (const std::string& module : grid.modules) put_column_head(page, module);
  }
  const auto body = page.open("tbody");
  for (const heat_row& row : rows) {
    const auto line = page.open("tr");
    page.put("th", clipped(row.label, 60), {{"scope", "row"}});
    if (row.spans)
      put_wide_cell(page, *row.cells.front(), largest, grid.modules.size());
    else
      for (const auto& cell : row.cells) put_cell(page, cell, largest);
  }
}

}  // namespace dualsft::cli
