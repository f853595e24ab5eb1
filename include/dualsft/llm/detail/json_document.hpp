// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/detail/file_handle.hpp>
#include <dualsft/detail/strict_json.hpp>
#include <dualsft/error.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// JSON that comes from outside, as a document: what the format permits and a reader must not (the
/// same key twice, depth without end, a zero byte that ends the text early) is refused.
namespace dualsft::llm::detail {

using dualsft::detail::in_quotes;
using json = nlohmann::json;

/// What a value is, for a message. Short values are quoted whole.
inline std::string describe(const json& value) {
  switch (value.type()) {
    case json::value_t::null:
      return "null";
    case json::value_t::object:
      return "an object";
    case json::value_t::array:
      return "a list";
    case json::value_t::string:
      return in_quotes(value.get_ref<const std::string&>());
    case json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    default:
      return value.dump();
  }
}

/// Builds the document that nlohmann's own builder would, and watches while it does.
class document_builder : public dualsft::detail::json_events {
 public:
  document_builder(json& root, const std::string& file, const std::string& place, int deepest)
      : file_(file), place_(place), deepest_(deepest), root_(root) {}

  // ---- called by the parser ----

  bool null() override { return put(nullptr); }
  bool boolean(bool x) override { return put(x); }
  bool number_integer(std::int64_t x) override { return put(x); }
  bool number_unsigned(std::uint64_t x) override { return put(x); }
  bool number_float(double x, const std::string&) override { return put(x); }
  bool string(std::string& x) override { return put(std::move(x)); }
  bool binary(json::binary_t&) override { return false; }  // no JSON text holds any

  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    json& object = *open_.back();
    if (object.contains(name))
      throw input_error(file_, field_of(in_quotes(name)), "the key twice", "each key once");
    slot_ = &object[name];
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    std::string text = error.what();
    if (const auto end = text.find("] "); end != text.npos) text.erase(0, end + 2);
    // Lines are counted from the text's own first one, whose number in the file the place may say.
    if (const auto at = text.find(" at line "); at != text.npos)
      text.replace(at, 9, place_ == "text" ? " in line " : " in its line ");
    throw input_error(file_, place_, in_quotes(text), "well-formed JSON");
  }

 private:
  std::string field_of(const std::string& name) const { return place_ + ", field " + name; }

  // A pointer into a list stays valid: nothing is appended to a list while its last element is
  // still open.
  json* place(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    *slot_ = std::move(value);
    return slot_;
  }

  template <class Value>
  bool put(Value&& value) {
    place(json(std::forward<Value>(value)));
    return true;
  }

  bool open(json value) {
    if (static_cast<int>(open_.size()) >= deepest_)
      throw input_error(file_, place_, "values nested deeper than " + std::to_string(deepest_),
                        "a flatter document");
    open_.push_back(place(std::move(value)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& file_;
  const std::string& place_;
  int deepest_;
  json& root_;
  std::vector<json*> open_;
  json* slot_ = nullptr;
};

/// \param place  where in the file the text stands, for messages: "line 7", or "text" for all of it
/// \throws input_error  if the text is not strict JSON in UTF-8 without repeated keys
inline json parse_document(const std::string& file, const std::string& place, std::string_view text,
                           int deepest = 32) {
  if (text.find('\0') != text.npos)
    throw input_error(file, place, "a zero byte", "well-formed JSON");
  if (text.starts_with("\xef\xbb\xbf"))
    throw input_error(file, place, "a byte order mark", "well-formed JSON");
  json root;
  document_builder builder(root, file, place, deepest);
  dualsft::detail::parse_json(text, builder);
  return root;
}

/// A mark at the very start of a file says UTF-8 and no more; other encodings are refused.
inline std::string_view without_mark(const std::string& file, std::string_view text) {
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff"))
    throw input_error(file, "encoding", "UTF-16", "UTF-8");
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  return text;
}

/// A whole small file.
/// \throws input_error  if it is longer than `most` bytes
inline std::string read_text_file(const std::string& path, index_t most) {
  const auto file = dualsft::detail::file_handle::open_existing(path);
  const index_t size = file.size();
  if (size > most)
    throw input_error(path, "file size", std::to_string(size) + " bytes",
                      "at most " + std::to_string(most) + " bytes");
  std::string text(static_cast<std::size_t>(size), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace dualsft::llm::detail
