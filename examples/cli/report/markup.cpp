// SPDX-License-Identifier: Apache-2.0
#include "markup.hpp"

#include <array>
#include <cstdint>
#include <dualsft/llm/detail/utf8.hpp>

namespace dualsft::cli {

namespace {

/// Elements that go on in the same line; behind all others a line ends, so that the page can be
/// read and compared as text.
bool within_line(std::string_view tag) {
  constexpr std::array<std::string_view, 14> tags{"a",    "b",    "circle", "code", "data",
                                                  "desc", "em",   "i",      "rect", "span",
                                                  "td",   "text", "th",     "wbr"};
  for (const std::string_view each : tags)
    if (each == tag) return true;
  return false;
}

std::string_view reference_of(std::uint32_t c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '"':
      return "&quot;";
    case '\'':
      return "&#39;";
    default:
      return {};
  }
}

/// Controls, what HTML does not count as characters, and what would turn the direction of the text
/// that follows.
bool is_unseen(std::uint32_t c) {
  if (c < 0x20) return c != '\n' && c != '\t';
  return (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) ||
         (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe;
}

/// "[U+001B]"
std::string name_of(std::uint32_t c) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string hex;
  for (; c != 0 || hex.size() < 4; c >>= 4) hex.insert(hex.begin(), digits[c & 15]);
  return "[U+" + hex + "]";
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 16);
  while (!text.empty()) {
    const llm::detail::utf8_prefix next = llm::detail::take_utf8(text.substr(0, 4));
    const std::uint32_t c = next.valid ? llm::detail::decode_utf8(text.data()).value : 0;
    if (!next.valid)
      out += llm::detail::replacement_character;
    else if (const std::string_view reference = reference_of(c); !reference.empty())
      out += reference;
    else if (is_unseen(c))
      out += name_of(c);
    else
      out += text.substr(0, next.size);
    text.remove_prefix(next.size);
  }
  return out;
}

std::string clipped(std::string_view text, std::size_t most) {
  if (text.size() <= most) return std::string(text);
  std::size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return std::string(text.substr(0, end)) + "\xE2\x80\xA6";
}

markup::element::~element() {
  page_.out_ += "</";
  page_.out_ += tag_;
  page_.out_ += within_line(tag_) ? ">" : ">\n";
}

void markup::start(std::string_view tag, attributes given, std::string_view end) {
  out_ += '<';
  out_ += tag;
  for (const auto& [name, value] : given) {
    out_ += ' ';
    out_ += name;
    out_ += "=\"";
    out_ += escaped(value);
    out_ += '"';
  }
  out_ += end;
}

markup::element markup::open(std::string_view tag, attributes given) {
  start(tag, given, ">");
  return {*this, tag};
}

void markup::put(std::string_view tag, std::string_view content, attributes given) {
  const element all = open(tag, given);
  text(content);
}

void markup::put_empty(std::string_view tag, attributes given) {
  start(tag, given, within_line(tag) ? "/>" : "/>\n");
}

}  // namespace dualsft::cli
