// SPDX-License-Identifier: Apache-2.0
#include "page.hpp"

#include <array>
#include <string_view>

#include "heatmap.hpp"
#include "markup.hpp"
#include "parts.hpp"
#include "sections.hpp"
#include "style.hpp"

namespace dualsft::cli {

namespace {

struct section {
  std::string_view id, title;
  void (*put)(markup&, const recorded_run&);
};

constexpr std::array sections{
    section{"summary", "Summary", put_summary},
    section{"resources", "Resources", put_resources},
    section{"distributions", "Score distributions", put_distributions},
    section{"parameters", "Where the parameters lie", put_parameter_maps},
    section{"enrichment", "Enrichment", put_enrichment},
    section{"examples", "Examples", put_examples},
    section{"checks", "Conservation, gaps and certificates", put_checks},
    section{"utility", "Utility", put_utility},
    section{"training", "Training", put_training},
    section{"settings", "Settings and inputs", put_settings},
};

/// The last part of a path, whatever slashes follow it.
std::string name_in(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  if (const auto slash = path.rfind('/'); slash != path.npos && path.size() > 1)
    path.remove_prefix(slash + 1);
  return clipped(path, 120);
}

std::string model_name(const run_settings& settings) {
  const std::string path = settings.option("--model");
  return path.empty() ? "a " + clipped(settings.model.family, 60) + " model" : name_in(path);
}

std::string title_of(const run_settings& settings) {
  const std::string train = settings.option("--train");
  return model_name(settings) + (train.empty() ? "" : " on " + name_in(train));
}

void put_head(markup& page, const std::string& title) {
  const auto head = page.open("head");
  page.put_empty("meta", {{"charset", "utf-8"}});
  page.put_empty("meta",
                 {{"name", "viewport"}, {"content", "width=device-width, initial-scale=1"}});
  // Whatever a run's files hold, a browser is told to fetch and to run nothing.
  page.put_empty("meta", {{"http-equiv", "Content-Security-Policy"},
                          {"content", "default-src 'none'; style-src 'unsafe-inline'"}});
  page.put("title", title + " \xE2\x80\x93 DualSFT report");
  const auto style = page.open("style");
  page.verbatim(report_style());
  page.verbatim(heatmap_style());
}

void put_rule(markup& page, const recorded_run& run) {
  const auto line = page.open("p", {{"class", "settings"}});
  const run_summary& summary = run.summary;
  page.text("Order " + clipped(summary.order, 40) + ", step " + clipped(summary.step, 40));
  if (!summary.strategy.empty()) page.text(", strategy " + clipped(summary.strategy, 40));
  if (summary.eta) {
    page.text(", \xCE\xB7\xC2\xA0=\xC2\xA0");
    put_number(page, summary.eta);
  }
  if (const std::string seed = run.settings.option("--seed"); !seed.empty())
    page.text(", seed " + clipped(seed, 40));
  if (summary.threads)
    page.text(", " + std::to_string(*summary.threads) +
              (*summary.threads == 1 ? " thread" : " threads"));
  page.text("; " + clipped(run.settings.program, 60) + ".");
}

}  // namespace

std::string report_page(const recorded_run& run) {
  const std::string title = title_of(run.settings);
  markup page;
  page.verbatim("<!DOCTYPE html>\n");
  {
    const auto html = page.open("html", {{"lang", "en"}});
    put_head(page, title);
    const auto body = page.open("body");
    {
      const auto header = page.open("header");
      {
        const auto heading = page.open("h1");
        page.put("span", "DualSFT report");
        page.text(" " + title);
      }
      put_rule(page, run);
      const auto nav = page.open("nav", {{"aria-label", "Sections"}});
      const auto list = page.open("ul");
      for (const section& each : sections) {
        const auto item = page.open("li");
        page.put("a", each.title, {{"href", "#" + std::string(each.id)}});
      }
    }
    {
      const auto main = page.open("main");
      for (const section& each : sections) {
        const std::string heading = std::string(each.id) + "-heading";
        const auto part = page.open("section", {{"id", each.id}, {"aria-labelledby", heading}});
        page.put("h2", each.title, {{"id", heading}});
        each.put(page, run);
      }
    }
    const auto footer = page.open("footer");
    page.put("p",
             "Numbers are rounded; a pointer resting on one shows it in full. The page holds "
             "everything it shows and fetches nothing.");
  }
  return page.result();
}

}  // namespace dualsft::cli
