// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <dualsft/llm/detail/byte_alphabet.hpp>
#include <dualsft/llm/detail/text_normalizer.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace dualsft::llm::detail {

/// The value of a token of the form <0xHH>.
inline std::optional<unsigned char> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + static_cast<unsigned>(digit);
  }
  return static_cast<unsigned char>(value);
}

inline std::string byte_token(unsigned byte) {
  constexpr char digits[] = "0123456789ABCDEF";
  return {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
}

/// Makes a text of tokens: ByteLevel, ByteFallback, Replace, Fuse, Strip, Metaspace and Sequences.
/// Without a decoder, tokens are joined by spaces.
class token_decoder {
 public:
  token_decoder() = default;
  explicit token_decoder(const json_field& field) : file_(field.file()) {
    if (field.is_null()) return;
    read(field);
    joined_ = false;
  }

  std::string run(std::vector<std::string> tokens) const {
    std::size_t original = 0;
    for (const std::string& token : tokens) original += token.size();
    for (const step& s : steps_)
      std::visit([&](const auto& rule) { apply(rule, tokens, original); }, s);
    std::string out;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (joined_ && i > 0) out += ' ';
      out += tokens[i];
    }
    return out;
  }

 private:
  using list = std::vector<std::string>;
  struct byte_level_rule {};
  struct byte_fallback_rule {};
  struct fuse_rule {};
  struct strip_rule {
    std::string mark;
    std::size_t front, back;
  };
  struct metaspace_rule {
    std::string mark;
    bool drops_first;
  };
  using step = std::variant<byte_level_rule, byte_fallback_rule, fuse_rule, strip_rule,
                            metaspace_rule, replace_rule>;

  static std::string one_character(const json_field& field) {
    const std::string& text = field.text();
    if (text.empty() || decode_utf8(text.data()).size != text.size())
      field.fail(dualsft::detail::in_quotes(text), "one character");
    return text;
  }

  void read(const json_field& field) {
    const std::string& type = field["type"].text();
    if (type == "Sequence") {
      for (const json_field& part : field["decoders"].items()) read(part);
    } else if (type == "ByteLevel") {
      steps_.emplace_back(byte_level_rule{});
    } else if (type == "ByteFallback") {
      steps_.emplace_back(byte_fallback_rule{});
    } else if (type == "Fuse") {
      steps_.emplace_back(fuse_rule{});
    } else if (type == "Replace") {
      steps_.emplace_back(replace_rule(field));
    } else if (type == "Strip") {
      const auto count = [&](const char* key) {
        return static_cast<std::size_t>(field[key].integer(0, 1 << 20));
      };
      steps_.emplace_back(
          strip_rule{one_character(field["content"]), count("start"), count("stop")});
    } else if (type == "Metaspace") {
      const json_field scheme = field["prepend_scheme"];
      const bool drops =
          scheme.is_null() ? field["add_prefix_space"].flag(true) : scheme.text() != "never";
      steps_.emplace_back(metaspace_rule{one_character(field["replacement"]), drops});
    } else {
      field.refuse_type("decoder",
                        "Sequence, ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace");
    }
    constexpr std::size_t most = 64;
    if (steps_.size() > most) field.fail("more than 64 steps", "at most 64");
  }

  void apply(const byte_level_rule&, list& tokens, std::size_t) const {
    std::string bytes;
    for (const std::string& token : tokens)
      if (!byte_alphabet::get().append_decoded(bytes, token)) bytes += token;
    tokens.assign(1, replace_invalid_utf8(bytes));
  }

  // A run of byte tokens becomes the text it spells or, if that is none, one U+FFFD for each.
  void apply(const byte_fallback_rule&, list& tokens, std::size_t) const {
    list out;
    std::string bytes;
    const auto flush = [&] {
      if (bytes.empty()) return;
      if (find_invalid_utf8(bytes) == std::string::npos)
        out.push_back(bytes);
      else
        out.insert(out.end(), bytes.size(), std::string(replacement_character));
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (const auto byte = byte_of_token(token)) {
        bytes += static_cast<char>(*byte);
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    tokens = std::move(out);
  }

  void apply(const fuse_rule&, list& tokens, std::size_t) const {
    std::string all;
    for (const std::string& token : tokens) all += token;
    tokens.clear();
    tokens.push_back(std::move(all));
  }

  void apply(const strip_rule& rule, list& tokens, std::size_t) const {
    for (std::string& token : tokens) {
      std::string_view left = token;
      for (std::size_t i = 0; i < rule.front && left.starts_with(rule.mark); ++i)
        left.remove_prefix(rule.mark.size());
      for (std::size_t i = 0; i < rule.back && left.ends_with(rule.mark); ++i)
        left.remove_suffix(rule.mark.size());
      token = std::string(left);
    }
  }

  void apply(const metaspace_rule& rule, list& tokens, std::size_t) const {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      std::string out;
      std::string_view rest = tokens[i];
      for (std::size_t at; (at = rest.find(rule.mark)) != rest.npos;) {
        out.append(rest.substr(0, at));
        if (i > 0 || !rule.drops_first) out += ' ';
        rest.remove_prefix(at + rule.mark.size());
      }
      tokens[i] = out.append(rest);
    }
  }

  void apply(const replace_rule& rule, list& tokens, std::size_t original) const {
    std::size_t total = 0;
    for (std::string& token : tokens) {
      std::string out;
      rule.run(token, out, original, file_, "decoder");
      token = std::move(out);
      check_growth(total += token.size(), original, file_, "decoder");
    }
  }

  std::string file_;
  bool joined_ = true;
  std::vector<step> steps_;
};

}  // namespace dualsft::llm::detail
