// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <dualsft/llm/detail/char_classes.hpp>
#include <dualsft/llm/detail/regex.hpp>
#include <dualsft/llm/detail/tokenizer_json.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What a Split or a Replace looks for, and what a split makes of the matches.
namespace dualsft::llm::detail {

class text_pattern {
 public:
  explicit text_pattern(known_pattern known) : known_(known) {}
  explicit text_pattern(std::string literal) : literal_(std::move(literal)) {}

  /// Each character of the general category N.
  static text_pattern numbers() {
    text_pattern out{std::string()};
    out.numbers_ = true;
    return out;
  }

  /// {"String": text} or {"Regex": pattern}
  explicit text_pattern(const json_field& field) {
    const json_field literal = field["String"], pattern = field["Regex"];
    if (!literal.is_null()) {
      literal_ = literal.text();
      if (literal_.empty()) literal.fail("an empty string", "a text to look for");
      return;
    }
    if (pattern.is_null()) field.fail("neither String nor Regex", "one of the two");
    const std::string& source = pattern.text();
    if (source == gpt2_pattern)
      known_ = known_pattern::gpt2;
    else if (source == llama3_pattern)
      known_ = known_pattern::llama3;
    else if (source == qwen2_pattern)
      known_ = known_pattern::qwen2;
    else
      regex_ = std::make_shared<regex>(source, pattern.file(), pattern.path());
  }

  /// Calls visit(begin, end) for each match, in order.
  template <class Visit>
  void for_each_match(std::string_view text, Visit&& visit) const {
    if (known_ == known_pattern::gpt2) {
      scan<known_pattern::gpt2>(text, visit);
    } else if (known_ == known_pattern::llama3) {
      scan<known_pattern::llama3>(text, visit);
    } else if (known_ == known_pattern::qwen2) {
      scan<known_pattern::qwen2>(text, visit);
    } else if (regex_ != nullptr) {
      regex_->for_each_match(text, visit);
    } else if (numbers_) {
      const char_class* classes = char_classes();
      for (std::size_t at = 0; at < text.size();) {
        const code_point c = decode_utf8(text.data() + at);
        if ((classes[c.value] & is_number) != 0) visit(at, at + c.size);
        at += c.size;
      }
    } else {
      for (std::size_t at = 0; (at = text.find(literal_, at)) != text.npos; at += literal_.size())
        visit(at, at + literal_.size());
    }
  }

 private:
  template <known_pattern Known, class Visit>
  static void scan(std::string_view text, Visit& visit) {
    const pattern_scanner<Known> scanner(text);
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = scanner.next(at);
      visit(at, end);
      at = end;
    }
  }

  std::string literal_;
  bool numbers_ = false;
  std::optional<known_pattern> known_;
  std::shared_ptr<const regex> regex_;
};

enum class split_behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

inline split_behavior read_split_behavior(const json_field& field) {
  const std::string& name = field.text();
  if (name == "Removed") return split_behavior::removed;
  if (name == "Isolated") return split_behavior::isolated;
  if (name == "MergedWithPrevious") return split_behavior::merged_with_previous;
  if (name == "MergedWithNext") return split_behavior::merged_with_next;
  if (name == "Contiguous") return split_behavior::contiguous;
  field.fail(dualsft::detail::in_quotes(name),
             "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

/// A stretch of text that a pattern matched, or that lies between two matches.
struct stretch {
  std::size_t begin, end;
  bool matched;
};

/// Joins stretches as the behaviour says, by the rules of the `tokenizers` package: a match joins
/// its neighbour on one side, unless that is a match too.
inline std::vector<stretch> join_stretches(std::vector<stretch> all, split_behavior behavior) {
  std::vector<stretch> out;
  bool previous = false;
  if (behavior == split_behavior::merged_with_next) {
    for (std::size_t i = all.size(); i-- > 0;) {
      const stretch& s = all[i];
      if (s.matched && !previous && !out.empty())
        out.back().begin = s.begin;
      else
        out.push_back(s);
      previous = s.matched;
    }
    return {out.rbegin(), out.rend()};
  }
  for (const stretch& s : all) {
    const bool joins =
        behavior == split_behavior::contiguous ? s.matched == previous : s.matched && !previous;
    if (joins && !out.empty())
      out.back().end = s.end;
    else
      out.push_back(s);
    previous = s.matched;
  }
  return out;
}

/// Calls visit(piece) for the non-empty pieces of `text`, in order.
template <class Pattern, class Visit>
void split_text(std::string_view text, const Pattern& pattern, split_behavior behavior, bool invert,
                Visit&& visit) {
  const auto piece = [&](std::size_t begin, std::size_t end) {
    if (begin < end) visit(text.substr(begin, end - begin));
  };
  std::size_t done = 0;
  if (behavior == split_behavior::isolated) {
    pattern.for_each_match(text, [&](std::size_t begin, std::size_t end) {
      piece(done, begin);
      piece(begin, end);
      done = end;
    });
    piece(done, text.size());
    return;
  }
  std::vector<stretch> all;
  pattern.for_each_match(text, [&](std::size_t begin, std::size_t end) {
    if (done != begin) all.push_back({done, begin, invert});
    all.push_back({begin, end, !invert});
    done = end;
  });
  if (done != text.size()) all.push_back({done, text.size(), invert});
  if (behavior == split_behavior::removed) {
    for (const stretch& s : all)
      if (!s.matched) piece(s.begin, s.end);
  } else {
    for (const stretch& s : join_stretches(std::move(all), behavior)) piece(s.begin, s.end);
  }
}

}  // namespace dualsft::llm::detail
