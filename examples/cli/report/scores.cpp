// SPDX-License-Identifier: Apache-2.0
// How the scores are distributed, where the parameters with high ones lie, and what is selected more
// than its share.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "chart.hpp"
#include "heatmap.hpp"
#include "histogram.hpp"
#include "numbers.hpp"
#include "parts.hpp"
#include "sections.hpp"

namespace dualsft::cli {

namespace {

bool by_magnitude(const run_settings& settings) {
  return settings.option("--absolute") == "true";
}

/// Quotas select below a common threshold in some layers and above it in others.
bool has_quota(const run_settings& settings) {
  for (const std::string_view name : {"--layer-quota", "--module-quota"}) {
    const std::string value = settings.option(name);
    if (value.find_first_of("123456789") != std::string::npos) return true;
  }
  return false;
}

selection_edge edge_of(const score_boundary& boundary, const run_settings& settings) {
  selection_edge edge;
  if (!boundary.last) return edge;
  edge.last = *boundary.last;
  if (by_magnitude(settings)) {
    const double size = std::abs(edge.last);
    edge.values = {-size, size};
    edge.selected = selection_edge::side::outside;
  } else {
    edge.values = {edge.last};
    edge.selected = selection_edge::side::above;
  }
  return edge;
}

std::string edge_words(const score_boundary& boundary, const run_settings& settings) {
  if (!boundary.last) return "No boundary is recorded.";
  std::string out = by_magnitude(settings) ? "Selected by magnitude, the boundary at \xC2\xB1" +
                                                 number_text(std::abs(*boundary.last))
                                           : "The boundary lies at " + number_text(*boundary.last);
  if (boundary.next) out += ", the next score is " + number_text(*boundary.next);
  return out + ".";
}

void put_caption(markup& page, std::string_view title, const std::string& words) {
  const auto caption = page.open("figcaption");
  page.put("b", title);
  page.text(" " + words);
}

void put_key(markup& page, bool knows_selected) {
  const auto key = page.open("p", {{"class", "key"}});
  if (knows_selected) {
    page.put("span", "selected", {{"class", "key-selected"}});
    page.put("span", "not selected", {{"class", "key-rest"}});
  } else {
    page.put("span", "all scores", {{"class", "key-rest"}});
  }
  page.put("span", "selection boundary", {{"class", "key-boundary"}});
}

std::string range_words(const std::vector<double>& scores) {
  const auto [least, most] = std::ranges::minmax_element(scores);
  const std::string count = count_text(std::ssize(scores));
  if (scores.size() == 1) return "The one score is " + number_text(*least) + ".";
  if (*least == *most) return "All " + count + " scores are " + number_text(*least) + ".";
  return count + " scores from " + number_text(*least) + " to " + number_text(*most) + ".";
}

void put_data_scores(markup& page, const recorded_run& run) {
  const data_score_list& list = *run.data_scores;
  selection_edge edge = edge_of(run.summary.data_boundary, run.settings);
  const histogram bins = bin_values(list.scores, list.selected);
  const std::string words =
      range_words(list.scores) + " " + edge_words(run.summary.data_boundary, run.settings);
  const auto figure = page.open("figure");
  draw_histogram(page,
                 {.id = "data-scores",
                  .title = "Distribution of the data scores",
                  .description = words,
                  .x_label = "data score",
                  .y_label = "examples per bin"},
                 bins, edge);
  put_key(page, !list.selected.empty() || edge.selected != selection_edge::side::unknown);
  put_caption(page, "Data scores.", words);
}

void put_parameter_scores(markup& page, const recorded_run& run) {
  const binned_counts& given = run.parameters->histogram;
  selection_edge edge = edge_of(run.summary.parameter_boundary, run.settings);
  std::string words = count_text(run.summary.parameters) + " scores";
  if (run.parameters->smallest && run.parameters->largest)
    words += " from " + number_text(*run.parameters->smallest) + " to " +
             number_text(*run.parameters->largest);
  words += ". " + edge_words(run.summary.parameter_boundary, run.settings);
  if (has_quota(run.settings)) {
    edge.selected = selection_edge::side::unknown;
    words += " Quotas select across it.";
  }
  if (run.summary.parameter_budget == run.summary.parameters) {  // whatever ties there are
    edge.selected = selection_edge::side::outside;
    edge.last = 0;
  }
  histogram bins{.edges = given.edges, .counts = {}, .marked = {}};
  for (const index_t count : given.counts) bins.counts.push_back(static_cast<double>(count));
  const auto figure = page.open("figure");
  draw_histogram(page,
                 {.id = "parameter-scores",
                  .title = "Distribution of the parameter scores",
                  .description = words,
                  .x_label = "parameter score",
                  .y_label = "parameters per bin"},
                 join_bins(std::move(bins), 96), edge);
  put_key(page, edge.selected != selection_edge::side::unknown);
  put_caption(page, "Parameter scores.", words);
}

std::string cell_hint(const block_cell& cell) {
  std::string out = clipped(cell.module, 100) + ": " + count_text(cell.selected) + " of " +
                    count_text(cell.size) + " selected";
  if (cell.mean_magnitude) out += ", mean magnitude " + number_text(*cell.mean_magnitude);
  return out;
}

/// Of a cell's size.
std::optional<double> density(const block_cell& cell) {
  if (cell.size == 0) return std::nullopt;
  return static_cast<double>(cell.selected) / static_cast<double>(cell.size);
}

/// As many decimals in all cells of a table.
std::string density_text(double share, double densest) {
  const int decimals = densest < 0.01 ? 3 : 1;
  const double least = std::pow(0.1, decimals);
  if (share == 0) return "0\xC2\xA0%";
  if (100 * share < least) return "<\xC2\xA0" + fixed_text(least, decimals) + "\xC2\xA0%";
  return fixed_text(100 * share, decimals) + "\xC2\xA0%";
}

template <class Each>
void for_each_cell(const block_grid& grid, Each&& each) {
  for (const block_grid::row& row : grid.layers)
    for (const auto& cell : row.cells)
      if (cell) each(*cell);
  for (const block_cell& cell : grid.outside) each(cell);
}

/// Cells of all layers joined, by module; then what lies outside.
std::vector<block_cell> by_module(const block_grid& grid) {
  std::vector<block_cell> out;
  for (const std::string& module : grid.modules) out.push_back({.module = module});
  for (const block_grid::row& row : grid.layers)
    for (std::size_t m = 0; m < row.cells.size(); ++m) {
      if (!row.cells[m]) continue;
      out[m].size += row.cells[m]->size;
      out[m].selected += row.cells[m]->selected;
    }
  out.insert(out.end(), grid.outside.begin(), grid.outside.end());
  return out;
}

/// One line of an enrichment table.
struct enrichment {
  std::string name;
  index_t all = 0, selected = 0;
  std::optional<double> ratio;
};

void put_enrichment_rows(markup& page, const std::vector<enrichment>& rows, index_t all,
                         index_t selected) {
  double largest = 2;  // 1 stays left of the end
  for (const enrichment& row : rows) largest = std::max(largest, row.ratio.value_or(0));
  const auto share = [](index_t part, index_t whole) {
    return whole > 0 ? std::optional<double>(static_cast<double>(part) / static_cast<double>(whole))
                     : std::nullopt;
  };
  for (const enrichment& row : rows) {
    const auto line = page.open("tr");
    put_row_head(page, row.name);
    put_count_cell(page, row.all);
    put_share_cell(page, share(row.all, all));
    put_count_cell(page, row.selected);
    put_share_cell(page, share(row.selected, selected));
    put_number_cell(page, row.ratio);
    const auto cell = page.open("td", {{"class", "bar-column"}});
    if (row.ratio) draw_bar_against(page, *row.ratio / largest, 1 / largest);
  }
}

void put_group_enrichment(markup& page, const std::vector<group_share>& groups) {
  constexpr std::size_t most = 100;
  std::vector<enrichment> rows;
  index_t all = 0, selected = 0;
  for (const group_share& group : groups) {
    all += group.in_pool;
    selected += group.selected;
    if (rows.size() < most)
      rows.push_back({group.group, group.in_pool, group.selected, group.enrichment});
  }
  {
    const table_part table(
        page, "Groups of examples: share of the selection over share of the pool",
        {"group", "#in the pool", "#of all", "#selected", "#of all", "#enrichment", "against 1"});
    put_enrichment_rows(page, rows, all, selected);
  }
  if (groups.size() > most)
    put_absent(page, count_text(std::ssize(groups) - std::ssize(rows)) +
                         " more groups are in groups.json.");
}

void put_module_enrichment(markup& page, const recorded_run& run) {
  const run_summary& summary = run.summary;
  const double overall =
      static_cast<double>(summary.parameter_budget) / static_cast<double>(summary.parameters);
  std::vector<enrichment> rows;
  for (const block_cell& cell : by_module(arrange(run.parameters->blocks))) {
    const std::optional<double> own = density(cell);
    rows.push_back({cell.module, cell.size, cell.selected,
                    own && overall > 0 ? std::optional<double>(*own / overall) : std::nullopt});
  }
  const table_part table(
      page, "Modules: share of the selection over share of the parameters",
      {"module", "#parameters", "#of all", "#selected", "#of all", "#enrichment", "against 1"});
  put_enrichment_rows(page, rows, summary.parameters, summary.parameter_budget);
}

}  // namespace

void put_distributions(markup& page, const recorded_run& run) {
  {
    const auto figures = page.open("div", {{"class", "figures"}});
    if (run.data_scores) put_data_scores(page, run);
    if (run.parameters) put_parameter_scores(page, run);
  }
  if (!run.data_scores) put_absent(page, "The folder holds no data_scores.npy.");
  if (!run.parameters) put_absent(page, "The folder holds no parameter_statistics.json.");
}

void put_parameter_maps(markup& page, const recorded_run& run) {
  if (!run.parameters) {
    put_absent(page, "The folder holds no parameter_statistics.json.");
    return;
  }
  const block_grid grid = arrange(run.parameters->blocks);
  double largest = 0, densest = 0;
  for_each_cell(grid, [&](const block_cell& cell) {
    largest = std::max(largest, cell.mean_magnitude.value_or(0));
    densest = std::max(densest, density(cell).value_or(0));
  });
  page.put("h3", "Mean magnitude of the scores");
  draw_heatmap(
      page,
      {.caption =
           "Mean magnitude of the scores of each module in each layer, relative to the largest, " +
           number_text(largest) + "; below the layers what lies outside of them",
       .low = "0",
       .high = "1 (largest)"},
      grid, [&](const block_cell& cell) {
        const double share = largest > 0 ? cell.mean_magnitude.value_or(0) / largest : 0;
        return heat{cell.mean_magnitude, share == 0 ? "0" : fixed_text(share, 2), cell_hint(cell)};
      });
  page.put("h3", "Density of the selection");
  draw_heatmap(page,
               {.caption = "Selected share of each module in each layer; " +
                           share_text(static_cast<double>(run.summary.parameter_budget) /
                                      static_cast<double>(run.summary.parameters)) +
                           " of all parameters are selected",
                .low = "0\xC2\xA0%",
                .high = share_text(densest)},
               grid, [&](const block_cell& cell) {
                 const std::optional<double> share = density(cell);
                 return heat{share, density_text(share.value_or(0), densest), cell_hint(cell)};
               });
}

void put_enrichment(markup& page, const recorded_run& run) {
  if (run.groups && !run.groups->empty())
    put_group_enrichment(page, *run.groups);
  else
    put_absent(page, "The training records name no groups: the folder holds no groups.json.");
  if (run.parameters)
    put_module_enrichment(page, run);
  else
    put_absent(page, "The folder holds no parameter_statistics.json.");
}

}  // namespace dualsft::cli
