// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/llm/detail/json_document.hpp>
#include <string>
#include <string_view>

namespace dualsft::llm::detail {

/// Where one record stands in its file.
struct record_place {
  index_t number = 0;  // among the records, from 0
  index_t line = 1;    // where it begins, from 1
  index_t offset = 0;  // of its first byte
  index_t size = 0;    // bytes, without the white space around it
};

inline std::string line_name(index_t line) {
  return "line " + std::to_string(line);
}

/// Finds where records begin and end, without looking at what is between: one per line, or the
/// elements of one JSON list. Nothing is copied and nothing recurses.
class record_scanner {
 public:
  record_scanner(const std::string& file, std::string_view bytes)
      : file_(file),
        text_(without_mark(file, bytes)),
        skipped_(static_cast<index_t>(bytes.size() - text_.size())) {}

  /// Calls visit(place, text) for each record.
  /// \throws input_error  if there are none, or a list is not one: then no record after is found
  template <class Visit>
  void run(Visit&& visit) {
    at_ = 0;
    line_ = 1;
    number_ = 0;
    skip_space();
    if (at_ == text_.size()) fail("nothing", "a record");
    if (text_[at_] == '[')
      run_list(visit);
    else
      run_lines(visit);
  }

 private:
  static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

  [[noreturn]] void fail(std::string found, std::string expected) const {
    throw input_error(file_, line_name(line_), std::move(found), std::move(expected));
  }

  void skip_space() {
    for (; at_ < text_.size() && is_space(text_[at_]); ++at_)
      if (text_[at_] == '\n') ++line_;
  }

  template <class Visit>
  void hand_over(Visit& visit, std::size_t begin, std::size_t end, index_t line) {
    while (end > begin && is_space(text_[end - 1])) --end;
    const record_place place{number_++, line, skipped_ + static_cast<index_t>(begin),
                             static_cast<index_t>(end - begin)};
    visit(place, text_.substr(begin, end - begin));
  }

  template <class Visit>
  void run_lines(Visit& visit) {
    for (skip_space(); at_ < text_.size(); skip_space()) {
      const std::size_t end = std::min(text_.find('\n', at_), text_.size());
      hand_over(visit, at_, end, line_);
      at_ = end;
    }
  }

  template <class Visit>
  void run_list(Visit& visit) {
    ++at_;
    skip_space();
    if (at_ < text_.size() && text_[at_] == ']') fail("an empty list", "a record");
    for (bool more = true; more;) {
      skip_space();
      const std::size_t begin = at_;
      const index_t line = line_;
      find_end_of_element();
      more = text_[at_] == ',';
      if (begin == at_) fail("'" + std::string(1, text_[at_]) + "'", "a record");
      hand_over(visit, begin, at_, line);
      ++at_;
    }
    skip_space();
    if (at_ < text_.size()) fail("text behind the list", "the end of the file");
  }

  // Stops at the comma or bracket behind the element that begins here.
  void find_end_of_element() {
    index_t depth = 0;
    for (bool quoted = false; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\n') ++line_;
      if (quoted) {
        if (c == '\\')
          at_ += at_ + 1 < text_.size() && text_[at_ + 1] != '\n' ? 1 : 0;
        else if (c == '"')
          quoted = false;
        continue;
      }
      if (c == '"') quoted = true;
      if (c == '{' || c == '[') ++depth;
      if (depth == 0 && (c == ',' || c == ']')) return;
      if (c == '}' || c == ']') --depth;
      if (depth < 0) fail("'}'", "',' or ']' behind a record");
    }
    fail("the end of the file", "',' or ']' behind a record");
  }

  const std::string& file_;
  std::string_view text_;
  index_t skipped_ = 0;
  std::size_t at_ = 0;
  index_t line_ = 1;
  index_t number_ = 0;
};

}  // namespace dualsft::llm::detail
