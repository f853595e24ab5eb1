// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/detail/file_handle.hpp>
#include <dualsft/error.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

/// JSON that comes from outside, as events: no document is built of what is not expected. (A
/// document would also keep the last of two equal names without a word.)
namespace dualsft::detail {

/// What takes the events. All of them go through this one interface, as nlohmann's parser is
/// compiled anew, some seconds each, for every type that it is called with.
using json_events = nlohmann::json_sax<nlohmann::json>;

/// What json::sax_parse does for JSON; that compiles the readers of four binary formats too, which
/// takes as long again.
/// \pre  no zero byte: to nlohmann's lexer it is the end of the text, whatever follows
inline void parse_json(std::string_view text, json_events& handler) {
  const auto input = [text] {
    return nlohmann::detail::input_adapter(text.data(), text.data() + text.size());
  };
  nlohmann::detail::parser<nlohmann::json, decltype(input())>(input()).sax_parse(&handler);
}

/// What the readers of one file have in common: whatever they do not expect is refused the moment
/// it comes.
class strict_json : public json_events {
 public:
  using json = nlohmann::json;

  strict_json(const std::string& path, std::string field) : path_(path), field_(std::move(field)) {}

  void read(std::string_view text) {
    if (text.find('\0') != text.npos) fail(field_, "a zero byte", "well-formed JSON");
    parse_json(text, *this);
  }

  // ---- called by the parser ----

  bool binary(json::binary_t&) override { return false; }  // no JSON text holds any

  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    std::string_view text = error.what();
    if (const auto end = text.find("] "); end != text.npos) text.remove_prefix(end + 2);
    fail(field_, in_quotes(text), "well-formed JSON");
  }

 protected:
  [[noreturn]] void fail(std::string field, std::string found, std::string expected) const {
    throw input_error(path_, std::move(field), std::move(found), std::move(expected));
  }

  const std::string& path_;
  std::string field_;
};

}  // namespace dualsft::detail
