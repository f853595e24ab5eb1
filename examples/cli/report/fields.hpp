// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/llm/detail/json_document.hpp>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dualsft::cli {

/// The fields of one JSON object, by name, type and range. A key that is missing is refused, and so
/// is null unless the function's name allows it; messages name the path from the top, such as
/// "blocks[3].size".
class report_fields {
 public:
  using json = nlohmann::json;
  static constexpr double infinity = std::numeric_limits<double>::infinity();
  static constexpr index_t largest = index_t{1} << 53;  // doubles hold all integers up to here

  /// \param path  of the object itself: "" at the top, else "blocks[3]"
  /// \throws input_error  if `value` is not an object, as everywhere below
  report_fields(const std::string& file, const json& value, std::string path = {})
      : file_(&file), object_(&value), path_(std::move(path)) {
    if (!value.is_object())
      throw input_error(file, path_.empty() ? "text" : path_, llm::detail::describe(value),
                        "an object");
  }

  [[noreturn]] void fail(std::string_view name, std::string found, std::string expected) const {
    throw input_error(*file_, path_of(name), std::move(found), std::move(expected));
  }

  std::string text(std::string_view name) const {
    const json& value = at(name, "a string");
    if (!value.is_string()) fail(name, llm::detail::describe(value), "a string");
    return value.get<std::string>();
  }
  std::string text_or_null(std::string_view name) const { return is_null(name) ? "" : text(name); }

  double number(std::string_view name, double least = -infinity) const {
    return real(name, at(name, real_wanted(least)), least);
  }
  std::optional<double> number_or_null(std::string_view name, double least = -infinity) const {
    if (is_null(name)) return std::nullopt;
    return number(name, least);
  }

  index_t count(std::string_view name, index_t least = 0, index_t most = largest) const {
    return integer(name, at(name, integer_wanted(least, most)), least, most);
  }
  std::optional<index_t> count_or_null(std::string_view name, index_t least = 0) const {
    if (is_null(name)) return std::nullopt;
    return count(name, least);
  }

  bool flag(std::string_view name) const {
    const json& value = at(name, "true or false");
    if (!value.is_boolean()) fail(name, llm::detail::describe(value), "true or false");
    return value.get<bool>();
  }
  std::optional<bool> flag_or_null(std::string_view name) const {
    if (is_null(name)) return std::nullopt;
    return flag(name);
  }

  report_fields object(std::string_view name) const {
    return {*file_, at(name, "an object"), path_of(name)};
  }
  std::optional<report_fields> object_or_null(std::string_view name) const {
    if (is_null(name)) return std::nullopt;
    return object(name);
  }

  /// Calls each(fields) for every element of a list of objects.
  template <class Each>
  void objects(std::string_view name, index_t most, Each&& each) const {
    std::size_t i = 0;
    for (const json& element : list(name, most))
      each(report_fields(*file_, element, path_of(element_name(name, i++))));
  }

  std::vector<double> numbers(std::string_view name, index_t most) const {
    std::vector<double> out;
    for (const json& element : list(name, most))
      out.push_back(real(element_name(name, out.size()), element, -infinity));
    return out;
  }
  std::vector<index_t> counts(std::string_view name, index_t most) const {
    std::vector<index_t> out;
    for (const json& element : list(name, most))
      out.push_back(integer(element_name(name, out.size()), element, 0, largest));
    return out;
  }
  std::vector<std::string> texts(std::string_view name, index_t most) const {
    std::vector<std::string> out;
    for (const json& element : list(name, most)) {
      if (!element.is_string())
        fail(element_name(name, out.size()), llm::detail::describe(element), "a string");
      out.push_back(element.get<std::string>());
    }
    return out;
  }

  /// Calls each(key, text) for every key of an object whose values are text, numbers, true, false or
  /// null; text is empty for null.
  template <class Each>
  void scalars(std::string_view name, index_t most, Each&& each) const {
    const report_fields inner = object(name);
    if (static_cast<index_t>(inner.object_->size()) > most)
      fail(name, std::to_string(inner.object_->size()) + " keys",
           "at most " + std::to_string(most));
    for (const auto& [key, value] : inner.object_->items()) {
      if (value.is_structured())
        inner.fail(llm::detail::in_quotes(key), llm::detail::describe(value),
                   "text, a number, true, false or null");
      std::optional<std::string> shown;
      if (value.is_string())
        shown = value.template get<std::string>();
      else if (!value.is_null())
        shown = value.dump();
      each(key, std::move(shown));
    }
  }

 private:
  static std::string element_name(std::string_view name, std::size_t i) {
    return std::string(name) + "[" + std::to_string(i) + "]";
  }
  static std::string real_wanted(double least) { return least == 0 ? "a number >= 0" : "a number"; }
  static std::string integer_wanted(index_t least, index_t most) {
    return most == largest
               ? "an integer >= " + std::to_string(least)
               : "an integer in [" + std::to_string(least) + ", " + std::to_string(most) + "]";
  }

  std::string path_of(std::string_view name) const {
    return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
  }

  const json& at(std::string_view name, const std::string& expected) const {
    const auto found = object_->find(name);
    if (found == object_->end()) fail(name, "nothing", expected);
    return *found;
  }

  bool is_null(std::string_view name) const { return at(name, "a value, or null").is_null(); }

  const json& list(std::string_view name, index_t most) const {
    const json& value = at(name, "a list");
    if (!value.is_array()) fail(name, llm::detail::describe(value), "a list");
    if (static_cast<index_t>(value.size()) > most)
      fail(name, std::to_string(value.size()) + " elements", "at most " + std::to_string(most));
    return value;
  }

  double real(std::string_view name, const json& value, double least) const {
    const double x = value.is_number() ? value.get<double>() : std::nan("");
    if (!std::isfinite(x) || x < least)
      fail(name, llm::detail::describe(value), real_wanted(least));
    return x;
  }

  index_t integer(std::string_view name, const json& value, index_t least, index_t most) const {
    const double x = value.is_number() ? value.get<double>() : std::nan("");
    // Whole numbers may be written as 3.0.
    const bool whole = std::floor(x) == x && std::abs(x) <= static_cast<double>(largest);
    const index_t i = whole ? static_cast<index_t>(x) : 0;
    if (!whole || i < least || i > most)
      fail(name, llm::detail::describe(value), integer_wanted(least, most));
    return i;
  }

  const std::string* file_;
  const json* object_;
  std::string path_;
};

}  // namespace dualsft::cli
