// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

/// UTF-8, well-formed in the sense of the Unicode standard (table 3-7): no overlong forms, no
/// surrogates, nothing above U+10FFFF.
namespace dualsft::llm::detail {

inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

struct code_point {
  std::uint32_t value;
  std::uint32_t size;  // bytes
};

/// The code point that begins at `p`, in text known to be well-formed.
inline code_point decode_utf8(const char* p) {
  const auto byte = [p](int i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(p[i]));
  };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

/// Where the code point in front of `at` begins; at > 0, text well-formed.
inline std::size_t previous_utf8(std::string_view text, std::size_t at) {
  do --at;
  while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

inline void append_utf8(std::string& out, std::uint32_t c) {
  const auto put = [&out](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

struct utf8_prefix {
  std::size_t size;  // bytes looked at
  bool valid;        // they are one code point; otherwise they are the longest start of one, or 1
};

/// Takes one code point, or the longest prefix that could have begun one, off unchecked text.
inline utf8_prefix take_utf8(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const std::size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte is where overlong forms, surrogates and too large values are told apart.
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < size; ++i) {
    const bool continues =
        i < text.size() && (i == 1 ? byte(i) >= low && byte(i) <= high : (byte(i) & 0xC0) == 0x80);
    if (!continues) return {i, false};
  }
  return {size, true};
}

/// Offset of the first byte that is not part of well-formed UTF-8, npos if there is none.
inline std::size_t find_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t word = 0;
    if (text.size() - at >= sizeof word) {
      std::memcpy(&word, text.data() + at, sizeof word);
      if ((word & 0x8080808080808080u) == 0) {
        at += sizeof word;
        continue;
      }
    }
    const utf8_prefix prefix = take_utf8(text.substr(at, 4));
    if (!prefix.valid) return at;
    at += prefix.size;
  }
  return std::string_view::npos;
}

/// Each maximal part that cannot be decoded becomes one U+FFFD (the practice that the Unicode
/// standard recommends, section 3.9).
inline std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  for (;;) {
    const std::size_t bad = find_invalid_utf8(text);
    if (bad == text.npos) break;
    out.append(text.substr(0, bad)).append(replacement_character);
    text.remove_prefix(bad + take_utf8(text.substr(bad, 4)).size);
  }
  return out.append(text);
}

}  // namespace dualsft::llm::detail
