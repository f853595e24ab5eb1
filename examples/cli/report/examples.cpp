// SPDX-License-Identifier: Apache-2.0
// The best, the boundary and the worst examples, with their text.
#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "numbers.hpp"
#include "parts.hpp"
#include "sections.hpp"

namespace dualsft::cli {

namespace {

constexpr std::size_t shown_at_once = 400, shown_at_all = 20000;  // bytes
constexpr std::ptrdiff_t lines_at_once = 8;

void put_words(markup& page, std::string_view text) {
  page.put("div", text, {{"class", "words"}, {"dir", "auto"}});
}

/// Folded if it is long; the very long end is left out and counted.
void put_long_text(markup& page, std::string_view name, std::string_view text) {
  page.put("h5", name);
  if (text.empty()) {
    put_absent(page, "empty");
    return;
  }
  if (text.size() <= shown_at_once && std::ranges::count(text, '\n') <= lines_at_once) {
    put_words(page, text);
    return;
  }
  const auto details = page.open("details");
  {
    const std::string_view line = text.substr(0, text.find('\n'));
    const auto summary = page.open("summary");
    page.put("span", clipped(line, 120), {{"class", "start"}, {"dir", "auto"}});
    page.put("span", " " + count_text(std::ssize(text)) + " bytes", {{"class", "size"}});
  }
  put_words(page, clipped(text, shown_at_all));
  if (text.size() > shown_at_all)
    put_absent(page, "The first " + count_text(shown_at_all) + " of " +
                         count_text(std::ssize(text)) + " bytes; examples.json holds all.");
}

void put_example(markup& page, const scored_example& example, index_t pool) {
  const auto article = page.open("article");
  {
    const auto head = page.open("h4");
    page.text("Rank ");
    put_count(page, example.rank);
    page.text(" of " + count_text(pool));
    page.text(", score ");
    put_number(page, example.score);
    page.text(", record ");
    put_count(page, example.record);
    if (example.selected)
      page.put("span", *example.selected ? "selected" : "not selected",
               {{"class", *example.selected ? "badge in" : "badge out"}});
  }
  put_long_text(page, "Prompt", example.prompt);
  put_long_text(page, "Response", example.response);
}

void put_list(markup& page, std::string_view title, std::string_view words,
              const std::vector<scored_example>& list, index_t pool) {
  page.put("h3", title);
  if (list.empty()) {
    put_absent(page, "None.");
    return;
  }
  page.put("p", words);
  const auto examples = page.open("div", {{"class", "examples"}});
  for (const scored_example& example : list) put_example(page, example, pool);
}

}  // namespace

void put_examples(markup& page, const recorded_run& run) {
  if (!run.examples) {
    put_absent(page, "The folder holds no examples.json.");
    return;
  }
  const index_t pool = run.summary.examples;
  put_list(page, "Best", "The highest ranks of the pool.", run.examples->best, pool);
  put_list(page, "At the boundary", "The last that were selected and the first that were not.",
           run.examples->boundary, pool);
  put_list(page, "Worst", "The lowest ranks of the pool.", run.examples->worst, pool);
}

}  // namespace dualsft::cli
