// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <dualsft/llm/detail/utf8.hpp>
#include <optional>
#include <string>
#include <string_view>

/// The alphabet of byte-level tokenizers: one printable character for each byte. The bytes
/// '!'..'~', 0xA1..0xAC and 0xAE..0xFF stand for themselves (as code points); the other 68, in
/// order, for U+0100, U+0101, ...
/// Source: GPT-2's encoder, whose files are the reason to keep it.
namespace dualsft::llm::detail {

struct byte_alphabet {
  std::array<std::uint32_t, 256> points{};  // of each byte
  std::array<std::int16_t, 0x144> bytes{};  // of each code point, -1 for none

  static const byte_alphabet& get() {
    static const byte_alphabet alphabet;
    return alphabet;
  }

  byte_alphabet() {
    bytes.fill(-1);
    std::uint32_t next = 0x100;
    for (std::uint32_t b = 0; b < 256; ++b) {
      const bool itself = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      points[b] = itself ? b : next++;
      bytes[points[b]] = static_cast<std::int16_t>(b);
    }
  }

  void append_encoded(std::string& out, std::string_view raw) const {
    for (const char c : raw) append_utf8(out, points[static_cast<unsigned char>(c)]);
  }

  /// Appends the bytes that a token stands for; false, with nothing appended, if a character of it
  /// is not of the alphabet.
  bool append_decoded(std::string& out, std::string_view token) const {
    const std::size_t before = out.size();
    for (std::size_t at = 0; at < token.size();) {
      const code_point c = decode_utf8(token.data() + at);
      const int byte = c.value < bytes.size() ? bytes[c.value] : -1;
      if (byte < 0) {
        out.resize(before);
        return false;
      }
      out += static_cast<char>(byte);
      at += c.size;
    }
    return true;
  }
};

}  // namespace dualsft::llm::detail
