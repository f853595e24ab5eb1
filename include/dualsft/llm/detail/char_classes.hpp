// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <dualsft/llm/detail/unicode_tables.hpp>
#include <dualsft/llm/detail/utf8.hpp>
#include <memory>
#include <string_view>

/// Classes of code points, one byte each, laid out flat on first use: a lookup is one load.
namespace dualsft::llm::detail {

using char_class = std::uint8_t;
inline constexpr char_class is_letter = 1;    // \p{L}
inline constexpr char_class is_number = 2;    // \p{N}
inline constexpr char_class is_space = 4;     // \s
inline constexpr char_class is_word = 8;      // \w
inline constexpr char_class is_newline = 16;  // \r and \n
inline constexpr char_class nfc_active = 32;  // may change, move or combine under NFC

inline constexpr std::uint32_t hangul_base = 0xAC00, hangul_count = 11172;
inline constexpr std::uint32_t jamo_l = 0x1100, jamo_v = 0x1161, jamo_t = 0x11A7;
inline constexpr std::uint32_t jamo_l_count = 19, jamo_v_count = 21, jamo_t_count = 28;

/// [0x110000]
inline const char_class* char_classes() {
  static const std::unique_ptr<const char_class[]> table = [] {
    auto out = std::make_unique<char_class[]>(0x110000);
    const auto mark = [&out](const auto& ranges, char_class bit) {
      for (const auto& range : ranges)
        for (std::uint32_t c = range[0]; c < range[1]; ++c)
          out[c] = static_cast<char_class>(out[c] | bit);
    };
    const auto mark_one = [&out](std::uint32_t c, char_class bit) {
      out[c] = static_cast<char_class>(out[c] | bit);
    };
    mark(letter_ranges, is_letter);
    mark(number_ranges, is_number);
    mark(space_ranges, is_space);
    mark(word_ranges, is_word);
    mark(combining_classes, nfc_active);
    for (const auto& [c, first, second, composes] : decompositions)
      mark_one(composes != 0 ? second : c, nfc_active);
    for (std::uint32_t i = 0; i < jamo_v_count; ++i) mark_one(jamo_v + i, nfc_active);
    for (std::uint32_t i = 1; i < jamo_t_count; ++i) mark_one(jamo_t + i, nfc_active);
    mark_one('\n', is_newline);
    mark_one('\r', is_newline);
    return std::unique_ptr<const char_class[]>(std::move(out));
  }();
  return table.get();
}

/// The patterns of the families, which need no regular expression engine.
enum class known_pattern { gpt2, llama3, qwen2 };

inline constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Matches a known pattern by hand. Each of the three matches at every position, so that the pieces
/// are the matches and cover the text.
template <known_pattern Pattern>
class pattern_scanner {
 public:
  explicit pattern_scanner(std::string_view text) : text_(text), classes_(char_classes()) {}

  /// Where the match that begins at `at` ends; at < size.
  std::size_t next(std::size_t at) const {
    if (text_[at] == '\'') {
      const std::size_t length = contraction(text_.substr(at + 1, 2));
      if (length > 0) return at + 1 + length;
    }
    return Pattern == known_pattern::gpt2 ? next_gpt2(at) : next_llama3(at);
  }

 private:
  static constexpr char_class named = is_space | is_letter | is_number;

  struct classified {
    char_class bits;
    std::uint32_t size;
  };

  classified look(std::size_t at) const {
    const auto byte = static_cast<unsigned char>(text_[at]);
    if (byte < 0x80) return {classes_[byte], 1};
    const code_point c = decode_utf8(text_.data() + at);
    return {classes_[c.value], c.size};
  }

  // Behind the longest run, from `at`, of characters that have one of the bits.
  std::size_t run_of(char_class bits, std::size_t at) const {
    while (at < text_.size()) {
      const classified c = look(at);
      if ((c.bits & bits) == 0) break;
      at += c.size;
    }
    return at;
  }

  std::size_t run_without(char_class bits, std::size_t at) const {
    while (at < text_.size()) {
      const classified c = look(at);
      if ((c.bits & bits) != 0) break;
      at += c.size;
    }
    return at;
  }

  // Bytes of s, t, re, ve, m, ll or d behind an apostrophe; 0 if none.
  static std::size_t contraction(std::string_view text) {
    if (text.empty()) return 0;
    const auto fold = [](char c) {
      const bool upper = Pattern != known_pattern::gpt2 && c >= 'A' && c <= 'Z';
      return upper ? static_cast<char>(c - 'A' + 'a') : c;
    };
    const char a = fold(text[0]);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 1;
    if (text.size() < 2) return 0;
    // U+017F, the long s, is an s to whoever ignores case.
    if (Pattern != known_pattern::gpt2 && text == "\xC5\xBF") return 2;
    const char b = fold(text[1]);
    return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 2 : 0;
  }

  std::size_t next_gpt2(std::size_t at) const {
    const std::size_t start = text_[at] == ' ' && at + 1 < text_.size() ? at + 1 : at;
    const classified c = look(start);
    if ((c.bits & is_letter) != 0) return run_of(is_letter, start + c.size);
    if ((c.bits & is_number) != 0) return run_of(is_number, start + c.size);
    if ((c.bits & is_space) == 0) return run_without(named, start + c.size);
    return spaces(at);
  }

  std::size_t next_llama3(std::size_t at) const {
    const classified c = look(at);
    const std::size_t behind = at + c.size;
    if ((c.bits & is_letter) != 0) return run_of(is_letter, behind);
    if ((c.bits & is_number) != 0) {
      if (Pattern == known_pattern::qwen2) return behind;
      std::size_t end = behind;
      for (int digits = 1; digits < 3 && end < text_.size(); ++digits) {
        const classified d = look(end);
        if ((d.bits & is_number) == 0) break;
        end += d.size;
      }
      return end;
    }
    classified d{is_space, 0};
    if (behind < text_.size()) d = look(behind);
    if ((c.bits & is_newline) == 0 && (d.bits & is_letter) != 0)
      return run_of(is_letter, behind + d.size);
    if ((c.bits & is_space) == 0) return run_of(is_newline, run_without(named, behind));
    if (text_[at] == ' ' && (d.bits & named) == 0)
      return run_of(is_newline, run_without(named, behind + d.size));
    return spaces(at);
  }

  // \s*[\r\n]+ (not in GPT-2), then \s+(?!\S), then \s+
  std::size_t spaces(std::size_t at) const {
    std::size_t end = at, last = at, newlines = at;
    while (end < text_.size()) {
      const classified c = look(end);
      if ((c.bits & is_space) == 0) break;
      last = end;
      end += c.size;
      if ((c.bits & is_newline) != 0) newlines = end;
    }
    if (Pattern != known_pattern::gpt2 && newlines > at) return newlines;
    return end == text_.size() || last == at ? end : last;
  }

  std::string_view text_;
  const char_class* classes_;
};

}  // namespace dualsft::llm::detail
