// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "markup.hpp"

/// What several sections of the page are made of.
namespace dualsft::cli {

inline constexpr std::string_view no_value = "\xE2\x80\x93";

/// A rounded number whose exact value a reader of the source, or a pointer resting on it, finds.
void put_number(markup& page, std::optional<double> x);
void put_share(markup& page, std::optional<double> x);
void put_count(markup& page, std::optional<index_t> x);
void put_seconds(markup& page, std::optional<double> x);
void put_bytes(markup& page, std::optional<index_t> x);

/// Cells of a table that hold such numbers.
void put_number_cell(markup& page, std::optional<double> x);
void put_share_cell(markup& page, std::optional<double> x);
void put_count_cell(markup& page, std::optional<index_t> x);
void put_seconds_cell(markup& page, std::optional<double> x);
void put_bytes_cell(markup& page, std::optional<index_t> x);

/// Text out of a file in a cell, cut where it would be absurd.
void put_text_cell(markup& page, std::string_view text);
void put_row_head(markup& page, std::string_view text);

/// A table in a box of its own that scrolls sideways; open until the end of the scope.
class table_part {
 public:
  /// \param columns  a name that begins with '#' is that of a column of numbers, without the sign
  table_part(markup& page, std::string_view caption,
             std::initializer_list<std::string_view> columns);

 private:
  static void put_head(markup& page, std::string_view caption,
                       std::initializer_list<std::string_view> columns);
  markup::element box_, table_;
  bool head_;  // initialised when the head has been written, in front of the body
  markup::element body_;
};

/// Says that there is nothing to show, and why.
void put_absent(markup& page, std::string_view reason);

}  // namespace dualsft::cli
