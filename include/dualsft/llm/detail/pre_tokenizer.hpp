// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <dualsft/llm/detail/text_pattern.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dualsft::llm::detail {

/// Cuts a text into the words within which the model merges: Split, Metaspace, Digits and, last,
/// ByteLevel (whose alphabet the model applies), alone or in Sequences.
class pre_tokenizer {
 public:
  pre_tokenizer() = default;
  explicit pre_tokenizer(const json_field& field) {
    if (!field.is_null()) read(field);
  }

  /// Words are bytes, not characters.
  bool byte_level() const { return byte_level_; }

  /// Calls visit(word) for each word of a non-empty text, in order; words view `text` or something
  /// that lives as long as the call of visit.
  /// \param at_start  nothing of the original text precedes this one
  template <class Visit>
  void run(std::string_view text, bool at_start, Visit&& visit) const {
    run_step(0, text, at_start, visit);
  }

 private:
  enum class prefix { never, at_start, always };

  /// One component. First, where replaces is set, spaces become `mark`; then `mark` is put in front
  /// unless it stands there; then the text is split.
  struct step {
    std::string mark;
    bool replaces = false;
    prefix prepend = prefix::never;
    bool splits = false;
    text_pattern pattern{known_pattern::gpt2};
    split_behavior behavior = split_behavior::isolated;
    bool invert = false;
  };

  void read(const json_field& field) {
    const std::string& type = field["type"].text();
    if (type == "Sequence") {
      for (const json_field& part : field["pretokenizers"].items()) read(part);
      return;
    }
    if (byte_level_)
      field["type"].fail(dualsft::detail::in_quotes(type) + " behind ByteLevel",
                         "ByteLevel to be the last");
    constexpr std::size_t most = 64;
    if (steps_.size() == most) field.fail("more than 64 steps", "at most 64");
    step s;
    if (type == "Split") {
      s.splits = true;
      s.pattern = text_pattern(field["pattern"]);
      s.behavior = read_split_behavior(field["behavior"]);
      s.invert = field["invert"].flag(false);
    } else if (type == "ByteLevel") {
      byte_level_ = true;
      s.mark = " ";
      s.prepend = field["add_prefix_space"].flag(true) ? prefix::always : prefix::never;
      s.splits = field["use_regex"].flag(true);
    } else if (type == "Metaspace") {
      read_metaspace(field, s);
    } else if (type == "Digits") {
      s.splits = true;
      s.pattern = text_pattern::numbers();
      s.behavior = field["individual_digits"].flag(false) ? split_behavior::isolated
                                                          : split_behavior::contiguous;
    } else {
      field.refuse_type("pre-tokenizer", "Sequence, Split, ByteLevel, Metaspace, Digits");
    }
    // Each prefix may be cut off by the next split and be prefixed again: a chain would explode.
    prefixes_ += s.prepend == prefix::never ? 0 : 1;
    if (prefixes_ > 2) field.fail("a third component that adds a prefix", "at most two");
    steps_.push_back(std::move(s));
  }

  static void read_metaspace(const json_field& field, step& s) {
    const json_field mark = field["replacement"], scheme = field["prepend_scheme"];
    s.mark = mark.text();
    if (s.mark.empty() || decode_utf8(s.mark.data()).size != s.mark.size())
      mark.fail(dualsft::detail::in_quotes(s.mark), "one character");
    s.replaces = true;
    s.splits = field["split"].flag(true);
    s.pattern = text_pattern(s.mark);
    s.behavior = split_behavior::merged_with_next;
    if (scheme.is_null()) {
      s.prepend = field["add_prefix_space"].flag(true) ? prefix::always : prefix::never;
    } else if (scheme.text() == "always") {
      s.prepend = prefix::always;
    } else if (scheme.text() == "first") {
      s.prepend = prefix::at_start;
    } else if (scheme.text() == "never") {
      s.prepend = prefix::never;
    } else {
      scheme.fail(dualsft::detail::in_quotes(scheme.text()), "always, first or never");
    }
  }

  template <class Visit>
  void run_step(std::size_t number, std::string_view text, bool at_start, Visit& visit) const {
    if (number == steps_.size()) return visit(text);
    const step& s = steps_[number];
    std::string changed;
    if (s.replaces && text.find(' ') != text.npos) {
      for (const char c : text) c == ' ' ? changed.append(s.mark) : changed.append(1, c);
      text = changed;
    }
    const bool wanted = s.prepend == prefix::always || (s.prepend == prefix::at_start && at_start);
    if (wanted && !text.starts_with(s.mark)) {
      changed = s.mark + std::string(text);
      text = changed;
    }
    if (!s.splits) return run_step(number + 1, text, at_start, visit);
    const char* first = text.data();
    split_text(text, s.pattern, s.behavior, s.invert, [&](std::string_view piece) {
      run_step(number + 1, piece, at_start && piece.data() == first, visit);
    });
  }

  std::vector<step> steps_;
  bool byte_level_ = false;
  int prefixes_ = 0;
};

}  // namespace dualsft::llm::detail
