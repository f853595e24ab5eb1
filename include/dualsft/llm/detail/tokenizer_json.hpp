// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/detail/safetensors_header.hpp>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// tokenizer.json as data: the vocabulary and the merges go straight into flat tables, everything
/// else becomes a small document that is read through json_field, which knows where it is.
namespace dualsft::llm::detail {

/// Strings one behind the other.
struct text_table {
  struct row {
    std::size_t begin;
    std::uint32_t size;
  };
  std::string bytes;
  std::vector<row> rows;

  std::size_t size() const { return rows.size(); }
  std::string_view operator[](std::size_t i) const {
    return std::string_view(bytes).substr(rows[i].begin, rows[i].size);
  }
  void add(std::string_view text) {
    rows.push_back({bytes.size(), static_cast<std::uint32_t>(text.size())});
    bytes.append(text);
  }
};

struct tokenizer_tables {
  text_table tokens;              // of model.vocab, in the order of the file
  std::vector<std::int32_t> ids;  // [tokens]
  text_table left, right;         // of model.merges
  bool has_vocabulary = false, has_merges = false;
};

/// A value of the document and its path in the file.
class json_field {
 public:
  using json = nlohmann::json;

  json_field(const json& value, const std::string& file, std::string path)
      : value_(&value), file_(&file), path_(std::move(path)) {}

  const std::string& file() const { return *file_; }
  const std::string& path() const { return path_; }
  bool is_null() const { return value_->is_null(); }
  bool is_list() const { return value_->is_array(); }
  bool is_object() const { return value_->is_object(); }

  [[noreturn]] void fail(std::string found, std::string expected) const {
    throw input_error(*file_, path_, std::move(found), std::move(expected));
  }

  /// The member `key`, null if there is none.
  json_field operator[](const char* key) const {
    static const json nothing;
    if (!is_object()) wrong_type("an object");
    const auto found = value_->find(key);
    return {found == value_->end() ? nothing : *found, *file_,
            path_.empty() ? std::string(key) : path_ + "." + key};
  }

  std::vector<json_field> items() const {
    if (!is_list()) wrong_type("a list");
    std::vector<json_field> out;
    for (std::size_t i = 0; i < value_->size(); ++i)
      out.emplace_back((*value_)[i], *file_, path_ + "[" + std::to_string(i) + "]");
    return out;
  }

  std::vector<std::pair<std::string, json_field>> members() const {
    if (!is_object()) wrong_type("an object");
    std::vector<std::pair<std::string, json_field>> out;
    for (const auto& [key, value] : value_->items())
      out.emplace_back(
          key, json_field(value, *file_, path_ + "[" + dualsft::detail::in_quotes(key) + "]"));
    return out;
  }

  const std::string& text() const {
    if (!value_->is_string()) wrong_type("a string");
    return value_->get_ref<const std::string&>();
  }

  bool flag(bool standard) const {
    if (is_null()) return standard;
    if (!value_->is_boolean()) wrong_type("true or false");
    return value_->get<bool>();
  }

  index_t integer(index_t low, index_t high) const {
    const std::string expected =
        "an integer from " + std::to_string(low) + " to " + std::to_string(high);
    if (!value_->is_number_integer()) wrong_type(expected);
    const bool large = value_->is_number_unsigned() &&
                       value_->get<std::uint64_t>() > static_cast<std::uint64_t>(high);
    if (large || value_->get<index_t>() < low) fail(value_->dump(), expected);
    return value_->get<index_t>();
  }

  double number() const {
    if (!value_->is_number()) wrong_type("a number");
    return value_->get<double>();
  }

  /// For a component that none of ours is: names its type.
  [[noreturn]] void refuse_type(std::string_view what, std::string_view known) const {
    (*this)["type"].fail(dualsft::detail::in_quotes((*this)["type"].text()) + ", a " +
                             std::string(what) + " that is not supported",
                         "one of " + std::string(known));
  }

  [[noreturn]] void wrong_type(std::string expected) const {
    fail(is_null() ? "nothing" : std::string("a ") + value_->type_name(), std::move(expected));
  }

 private:
  const json* value_;
  const std::string* file_;
  std::string path_;
};

class tokenizer_json_parser : public dualsft::detail::strict_json {
 public:
  explicit tokenizer_json_parser(const std::string& file) : strict_json(file, "JSON") {}

  json document;
  tokenizer_tables tables;

  // ---- called by the parser ----

  bool null() override { return value(nullptr, "null"); }
  bool boolean(bool x) override { return value(x, "a boolean"); }
  bool number_float(double x, const std::string& text) override { return value(x, text); }
  bool number_integer(std::int64_t x) override { return value(x, std::to_string(x)); }

  bool number_unsigned(std::uint64_t x) override {
    if (place_ != place::vocabulary) return value(x, std::to_string(x));
    if (x > INT32_MAX) fail(token_field(), std::to_string(x), "an id below 2^31");
    tables.tokens.add(key_);
    tables.ids.push_back(static_cast<std::int32_t>(x));
    return true;
  }

  bool string(std::string& text) override {
    if (place_ == place::merges) {
      if (!text.starts_with("#version")) add_merge(text);
    } else if (place_ == place::merge) {
      if (tables.left.size() > tables.right.size())
        tables.right.add(text);
      else if (!merge_whole_)
        tables.left.add(text);
      else
        fail(merge_field(tables.right.size() - 1), "a third part", "two parts");
      merge_whole_ = tables.left.size() == tables.right.size();
    } else {
      return value(std::move(text), "a string");
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (in_model() && key_ == "vocab") {
      claim("vocab");
      tables.has_vocabulary = true;
      place_ = place::vocabulary;
      return true;
    }
    return open(json::object(), "an object");
  }

  bool start_array(std::size_t) override {
    if (place_ == place::merges) {
      place_ = place::merge;
      merge_whole_ = false;
      return true;
    }
    if (in_model() && key_ == "merges") {
      claim("merges");
      tables.has_merges = true;
      place_ = place::merges;
      return true;
    }
    // A vocabulary that is a list belongs to another kind of model, whose type is refused later.
    if (in_model() && key_ == "vocab") {
      claim("vocab");
      place_ = place::foreign;
      foreign_depth_ = 1;
      return true;
    }
    return open(json::array(), "a list");
  }

  bool key(std::string& name) override {
    key_ = std::move(name);
    if (place_ == place::document && stack_.back()->contains(key_))
      fail(dualsft::detail::in_quotes(key_), "the key twice in one object", "each key once");
    return true;
  }

  bool end_object() override { return close(); }
  bool end_array() override {
    if (place_ == place::merge) {
      if (!merge_whole_)
        fail(merge_field(tables.right.size()), "fewer than two parts", "two parts");
      place_ = place::merges;
      return true;
    }
    return close();
  }

 private:
  enum class place { document, vocabulary, merges, merge, foreign };

  std::string token_field() const {
    return "model.vocab[" + dualsft::detail::in_quotes(key_) + "]";
  }
  static std::string merge_field(std::size_t i) {
    return "model.merges[" + std::to_string(i) + "]";
  }

  bool in_model() const {
    return place_ == place::document && stack_.size() == 2 && model_ == stack_.back();
  }

  // Leaves a trace in the document, so that the same key again is noticed.
  void claim(const char* name) { (*stack_.back())[name] = nullptr; }

  void add_merge(std::string_view text) {
    const std::size_t space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos)
      fail(merge_field(tables.left.size()), dualsft::detail::in_quotes(text),
           "two parts with one space between");
    tables.left.add(text.substr(0, space));
    tables.right.add(text.substr(space + 1));
  }

  json* place_value(json&& x) {
    if (stack_.empty()) {
      document = std::move(x);
      return &document;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(x));
      return &parent.back();
    }
    return &(parent[key_] = std::move(x));
  }

  bool value(json&& x, const std::string& found) {
    switch (place_) {
      case place::vocabulary:
        fail(token_field(), found, "an id, a non-negative integer");
      case place::merges:
      case place::merge:
        fail(merge_field(place_ == place::merge && merge_whole_ ? tables.right.size() - 1
                                                                : tables.right.size()),
             found, "two strings");
      case place::foreign:
        return true;
      case place::document:
        break;
    }
    if (stack_.empty()) fail("JSON", found, "an object");
    place_value(std::move(x));
    return true;
  }

  bool open(json&& empty, const char* found) {
    if (place_ == place::foreign) {
      ++foreign_depth_;
      return true;
    }
    if (place_ != place::document) return value(std::move(empty), found);
    constexpr std::size_t deepest = 64;
    if (stack_.size() == deepest)
      fail(dualsft::detail::in_quotes(key_), "values nested deeper than 64", "at most 64 levels");
    if (stack_.empty() && !empty.is_object()) fail("JSON", found, "an object");
    const bool is_model = stack_.size() == 1 && key_ == "model" && empty.is_object();
    stack_.push_back(place_value(std::move(empty)));
    if (is_model) model_ = stack_.back();
    return true;
  }

  bool close() {
    if (place_ == place::foreign) {
      if (--foreign_depth_ == 0) place_ = place::document;
    } else if (place_ != place::document) {
      place_ = place::document;
    } else {
      stack_.pop_back();
    }
    return true;
  }

  place place_ = place::document;
  std::vector<json*> stack_;  // open objects and lists; a parent never moves while a child is open
  const json* model_ = nullptr;
  std::string key_;
  bool merge_whole_ = false;
  std::size_t foreign_depth_ = 0;
};

}  // namespace dualsft::llm::detail
