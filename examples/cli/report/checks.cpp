// SPDX-License-Identifier: Apache-2.0
// What supports the numbers: the conservation law, the gaps at the boundaries and what they certify,
// agreement with another order, and what the selection was predicted to achieve.
#include <algorithm>
#include <cmath>
#include <string>

#include "chart.hpp"
#include "parts.hpp"
#include "sections.hpp"

namespace dualsft::cli {

namespace {

template <class Put>
void put_row(markup& page, std::string_view name, Put&& put) {
  const auto row = page.open("tr");
  put_row_head(page, name);
  put();
}

void put_conservation(markup& page, const run_summary& summary) {
  page.put("h3", "Conservation law");
  const bool joint = summary.order == "joint";
  page.put("p", joint ? "Scores of examples and of parameters add up to the utility of everything."
                      : "Scores of examples and scores of parameters add up to the same total. "
                        "The gap is what they differ by, over the sum of the magnitudes of the "
                        "parameter scores.");
  const table_part table(page, "Totals of both sides", {"quantity", "#value"});
  put_row(page, "sum of the data scores", [&] { put_number_cell(page, summary.rows_total); });
  put_row(page, "sum of the parameter scores",
          [&] { put_number_cell(page, summary.columns_total); });
  put_row(page, "conservation gap, relative",
          [&] { put_number_cell(page, summary.conservation_gap); });
  put_row(page, "second-order share", [&] { put_number_cell(page, summary.second_order_share); });
}

void put_boundaries(markup& page, const run_summary& summary) {
  page.put("h3", "Boundary gaps");
  const table_part table(
      page, "Scores on both sides of each selection's edge",
      {"side", "#selected", "#of", "#last selected", "#first not selected", "#gap"});
  put_row(page, "examples", [&] {
    put_count_cell(page, summary.data_budget);
    put_count_cell(page, summary.examples);
    put_number_cell(page, summary.data_boundary.last);
    put_number_cell(page, summary.data_boundary.next);
    put_number_cell(page, summary.data_boundary_gap);
  });
  put_row(page, "parameters", [&] {
    put_count_cell(page, summary.parameter_budget);
    put_count_cell(page, summary.parameters);
    put_number_cell(page, summary.parameter_boundary.last);
    put_number_cell(page, summary.parameter_boundary.next);
    put_number_cell(page, summary.parameter_boundary_gap);
  });
}

void put_certificates(markup& page, const run_summary& summary) {
  page.put("h3", "Certificates");
  if (summary.certificates.empty()) {
    put_absent(page, "None was computed.");
    return;
  }
  const table_part table(page, "Whether the selection would survive a better surrogate",
                         {"statement", "side", "holds", "#gap", "#needed", "in words"});
  for (const certificate& each : summary.certificates)
    put_row(page, each.statement, [&] {
      put_text_cell(page, each.side);
      {
        const auto cell = page.open("td");
        page.put("span",
                 !each.holds   ? "not decided"
                 : *each.holds ? "yes"
                               : "no",
                 {{"class", !each.holds   ? "badge"
                            : *each.holds ? "badge in"
                                          : "badge out"}});
      }
      put_number_cell(page, each.gap);
      put_number_cell(page, each.needed);
      page.put("td", clipped(each.text, 1000), {{"class", "prose"}});
    });
}

void put_agreement(markup& page, const std::optional<order_agreement>& agreement) {
  page.put("h3", "Agreement of two orders");
  if (!agreement) {
    put_absent(page, "Only one order was scored.");
    return;
  }
  const table_part table(page,
                         "Order " + clipped(agreement->orders[0], 40) + " against order " +
                             clipped(agreement->orders[1], 40),
                         {"side", "#Spearman correlation", "#Jaccard overlap of the selections"});
  put_row(page, "examples", [&] {
    put_number_cell(page, agreement->data_spearman);
    put_number_cell(page, agreement->data_jaccard);
  });
  put_row(page, "parameters", [&] {
    put_number_cell(page, agreement->parameter_spearman);
    put_number_cell(page, agreement->parameter_jaccard);
  });
}

void put_selection_quality(markup& page, const run_summary& summary) {
  if (!summary.alignment && !summary.diversity) return;
  const table_part table(page, "The selected examples as a set", {"quantity", "#value", "meaning"});
  put_row(page, "alignment", [&] {
    put_number_cell(page, summary.alignment);
    put_text_cell(page, "cosine of their mean gradient and the validation gradient");
  });
  put_row(page, "diversity", [&] {
    put_number_cell(page, summary.diversity);
    put_text_cell(page, "1 less the mean cosine of their embeddings, over pairs");
  });
}

}  // namespace

void put_checks(markup& page, const recorded_run& run) {
  put_conservation(page, run.summary);
  put_boundaries(page, run.summary);
  put_certificates(page, run.summary);
  put_agreement(page, run.summary.agreement);
}

void put_utility(markup& page, const recorded_run& run) {
  if (run.summary.utility) {
    const utility_change& utility = *run.summary.utility;
    const double predicted = utility.predicted.value_or(0), realised = utility.realised.value_or(0);
    const double largest = std::max(std::abs(predicted), std::abs(realised));
    if (!utility.selection.empty())
      page.put("p", "What was measured: " + clipped(utility.selection, 500) + ".");
    const table_part table(page, "Predicted and realised utility",
                           {"utility", "#value", "magnitude"});
    const auto row = [&](std::string_view name, const std::optional<double>& x) {
      put_row(page, name, [&] {
        put_number_cell(page, x);
        const auto cell = page.open("td", {{"class", "bar-column"}});
        if (x && largest > 0)
          draw_bar(page, std::abs(*x) / largest, *x * predicted < 0 ? "bar opposite" : "bar");
      });
    };
    row("predicted", utility.predicted);
    row("realised", utility.realised);
    put_row(page, "realised over predicted", [&] {
      put_number_cell(page, utility.predicted && utility.realised && predicted != 0 &&
                                    std::isfinite(realised / predicted)
                                ? std::optional<double>(realised / predicted)
                                : std::nullopt);
      page.put("td", "");
    });
  } else {
    put_absent(page, "Predicted and realised utility were not computed.");
  }
  put_selection_quality(page, run.summary);
}

}  // namespace dualsft::cli
