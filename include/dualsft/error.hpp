// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

/// The kinds of failure, which are part of the API (their texts are not):
///
/// | type             | whose fault                         | message                              |
/// |------------------|-------------------------------------|--------------------------------------|
/// | invalid_argument | the caller broke a precondition     | function: rule (name = value, ...)   |
/// | input_error      | a file is missing, corrupt, foreign | file: field: found X, expected Y     |
/// | numerical_error  | NaN or infinity, broken conservation| function: what was found, and where  |
///
/// A wrong *type* never gets this far: it fails to compile. Functions check their
/// metadata (sizes, ranges) before they touch an output, so outputs are unchanged when
/// invalid_argument is thrown. Library headers never print, log or exit.
namespace dualsft {

class invalid_argument : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

class numerical_error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A file that cannot be used, with the four facts a user needs to mend it.
class input_error : public std::runtime_error {
 public:
  input_error(std::string file, std::string field, std::string found, std::string expected)
      : std::runtime_error(file + ": " + field + ": found " + found + ", expected " + expected),
        file_(std::move(file)),
        field_(std::move(field)),
        found_(std::move(found)),
        expected_(std::move(expected)) {}

  const std::string& file() const noexcept { return file_; }
  const std::string& field() const noexcept { return field_; }
  const std::string& found() const noexcept { return found_; }
  const std::string& expected() const noexcept { return expected_; }

 private:
  std::string file_, field_, found_, expected_;
};

namespace detail {

/// A value as it stands in a message: numbers in their shortest exact form, text as it is.
/// (A string stream would do the same and double the compile time of every header.)
template <class Value>
void append_value(std::string& out, const Value& value) {
  if constexpr (std::is_same_v<Value, bool>) {
    out += value ? "true" : "false";
  } else if constexpr (std::is_same_v<Value, char>) {
    out += value;
  } else if constexpr (std::is_arithmetic_v<Value>) {
    char text[64];
    const std::to_chars_result end = std::to_chars(text, text + sizeof text, value);
    out.append(text, end.ptr);
  } else {
    out += std::string_view(value);
  }
}

inline void append_values(std::string&, bool) {}

template <class Value, class... Rest>
void append_values(std::string& out, bool first, std::string_view name, const Value& value,
                   const Rest&... rest) {
  out += first ? " (" : ", ";
  out += name;
  out += " = ";
  append_value(out, value);
  append_values(out, false, rest...);
}

template <class... NamesAndValues>
[[noreturn]] void throw_invalid(std::string_view function, std::string_view rule,
                                const NamesAndValues&... names_and_values) {
  std::string out(function);
  out += ": ";
  out += rule;
  append_values(out, true, names_and_values...);
  if constexpr (sizeof...(names_and_values) > 0) out += ")";
  throw invalid_argument(out);
}

}  // namespace detail

/// Throws invalid_argument unless `holds`; the values follow as name, value, name, value:
///
///     expects(k <= n, "topk", "k must satisfy 0 <= k <= n", "k", k, "n", n);
///     // "topk: k must satisfy 0 <= k <= n (k = 7, n = 5)"
template <class... NamesAndValues>
constexpr void expects(bool holds, std::string_view function, std::string_view rule,
                       const NamesAndValues&... names_and_values) {
  static_assert(sizeof...(names_and_values) % 2 == 0, "expects: values come as name, value pairs");
  if (!holds) [[unlikely]]
    detail::throw_invalid(function, rule, names_and_values...);
}

}  // namespace dualsft
