// SPDX-License-Identifier: Apache-2.0
#include "parts.hpp"

#include <cstddef>

#include "numbers.hpp"

namespace dualsft::cli {

namespace {

constexpr std::size_t longest_cell = 300;

void put_data(markup& page, const std::string& shown, const std::string& exact) {
  page.put("data", shown, {{"value", exact}, {"title", exact}});
}

template <class Put, class Value>
void in_cell(markup& page, Put put, std::optional<Value> x) {
  const auto cell = page.open("td", {{"class", "number"}});
  put(page, x);
}

template <class Value, class Shown, class Exact>
void put_or_dash(markup& page, std::optional<Value> x, Shown shown, Exact exact) {
  if (x)
    put_data(page, shown(*x), exact(*x));
  else
    page.text(no_value);
}

std::string exact_count(index_t x) {
  return std::to_string(x);
}

}  // namespace

void put_number(markup& page, std::optional<double> x) {
  put_or_dash(page, x, number_text, exact_text);
}
void put_share(markup& page, std::optional<double> x) {
  put_or_dash(page, x, share_text, exact_text);
}
void put_count(markup& page, std::optional<index_t> x) {
  put_or_dash(page, x, count_text, exact_count);
}
void put_seconds(markup& page, std::optional<double> x) {
  put_or_dash(page, x, seconds_text, exact_text);
}
void put_bytes(markup& page, std::optional<index_t> x) {
  put_or_dash(page, x, bytes_text, exact_count);
}

void put_number_cell(markup& page, std::optional<double> x) {
  in_cell(page, put_number, x);
}
void put_share_cell(markup& page, std::optional<double> x) {
  in_cell(page, put_share, x);
}
void put_count_cell(markup& page, std::optional<index_t> x) {
  in_cell(page, put_count, x);
}
void put_seconds_cell(markup& page, std::optional<double> x) {
  in_cell(page, put_seconds, x);
}
void put_bytes_cell(markup& page, std::optional<index_t> x) {
  in_cell(page, put_bytes, x);
}

void put_text_cell(markup& page, std::string_view text) {
  page.put("td", text.empty() ? std::string(no_value) : clipped(text, longest_cell));
}
void put_row_head(markup& page, std::string_view text) {
  page.put("th", clipped(text, longest_cell), {{"scope", "row"}});
}

table_part::table_part(markup& page, std::string_view caption,
                       std::initializer_list<std::string_view> columns)
    : box_(page.open(
          "div",
          {{"class", "scroll"}, {"tabindex", "0"}, {"role", "region"}, {"aria-label", caption}})),
      table_(page.open("table")),
      head_((put_head(page, caption, columns), true)),
      body_(page.open("tbody")) {}

void table_part::put_head(markup& page, std::string_view caption,
                          std::initializer_list<std::string_view> columns) {
  {
    const auto words = page.open("caption");
    page.put("span", caption);
  }
  const auto head = page.open("thead");
  const auto line = page.open("tr");
  for (std::string_view column : columns) {
    const bool number = column.starts_with('#');
    if (number) column.remove_prefix(1);
    page.put("th", column, {{"scope", "col"}, {"class", number ? "number" : "name"}});
  }
}

void put_absent(markup& page, std::string_view reason) {
  page.put("p", reason, {{"class", "absent"}});
}

}  // namespace dualsft::cli
