// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstring>
#include <dualsft/detail/file_handle.hpp>
#include <dualsft/detail/shape.hpp>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dualsft {

/// The element types that the .npy reader and writer know.
enum class npy_type { float32, float64, int64, boolean };

/// Which index runs slowest in memory: the first (C) or the last (Fortran).
enum class array_order { c, fortran };

template <class T>
concept NpyElement = std::same_as<T, float> || std::same_as<T, double> ||
    std::same_as<T, std::int64_t> || std::same_as<T, bool>;

}  // namespace dualsft

namespace dualsft::detail {

struct npy_type_row {
  npy_type type;
  std::string_view descr;
  index_t bytes;
};

inline constexpr std::array<npy_type_row, 4> npy_types{{{npy_type::float32, "<f4", 4},
                                                        {npy_type::float64, "<f8", 8},
                                                        {npy_type::int64, "<i8", 8},
                                                        {npy_type::boolean, "|b1", 1}}};

constexpr const npy_type_row& row_of(npy_type type) {
  return npy_types[static_cast<std::size_t>(type)];
}

template <NpyElement T>
constexpr npy_type npy_type_of() {
  if constexpr (std::same_as<T, float>) return npy_type::float32;
  if constexpr (std::same_as<T, double>) return npy_type::float64;
  if constexpr (std::same_as<T, std::int64_t>) return npy_type::int64;
  if constexpr (std::same_as<T, bool>) return npy_type::boolean;
}

/// As many as numpy itself reads.
inline constexpr std::size_t most_npy_dimensions = 32;

inline constexpr std::string_view npy_magic{"\x93NUMPY", 6};

struct npy_header {
  npy_type type = npy_type::float64;
  array_order order = array_order::c;
  std::vector<index_t> shape;
  index_t elements = 0;
  index_t data_offset = 0;
};

/// Reads the header's text: a Python dictionary with exactly the keys descr, fortran_order, shape.
class npy_dictionary {
 public:
  npy_dictionary(const std::string& path, std::string_view text) : path_(path), rest_(text) {}

  npy_header parse() {
    npy_header header;
    expect_mark('{', "header");
    bool seen_descr = false, seen_order = false, seen_shape = false;
    while (!take_mark('}')) {
      const std::string_view key = string("header");
      expect_mark(':', key == "descr" || key == "shape" ? key : std::string_view("header"));
      if (key == "descr") {
        once(seen_descr, key);
        header.type = type();
      } else if (key == "fortran_order") {
        once(seen_order, key);
        header.order = order();
      } else if (key == "shape") {
        once(seen_shape, key);
        header.shape = shape();
      } else {
        fail("header", "the key " + in_quotes(key), "only 'descr', 'fortran_order' and 'shape'");
      }
      if (!take_mark(',')) {
        expect_mark('}', "header");
        break;
      }
    }
    skip_space();
    if (!rest_.empty()) fail("header", in_quotes(rest_), "blanks behind the dictionary");
    if (!seen_descr) fail("descr", "nothing", "the element type");
    if (!seen_order) fail("fortran_order", "nothing", "True or False");
    if (!seen_shape) fail("shape", "nothing", "a tuple of dimensions");

    const auto count = element_count(header.shape, row_of(header.type).bytes);
    if (!count) fail("shape", shape_text(header.shape), "an array of fewer than 2^62 bytes");
    header.elements = *count;
    return header;
  }

 private:
  [[noreturn]] void fail(std::string_view field, std::string found, std::string expected) const {
    throw input_error(path_, std::string(field), std::move(found), std::move(expected));
  }

  void once(bool& seen, std::string_view key) const {
    if (seen) fail(key, "the key twice", "the key once");
    seen = true;
  }

  void skip_space() {
    const auto first = rest_.find_first_not_of(" \t\r\n");
    rest_.remove_prefix(first == std::string_view::npos ? rest_.size() : first);
  }

  bool take_mark(char mark) {
    skip_space();
    if (rest_.empty() || rest_.front() != mark) return false;
    rest_.remove_prefix(1);
    return true;
  }

  void expect_mark(char mark, std::string_view field) {
    if (!take_mark(mark)) fail(field, what_is_next(), in_quotes(std::string_view(&mark, 1)));
  }

  bool take_word(std::string_view word) {
    skip_space();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  std::string what_is_next() const {
    return rest_.empty() ? "the end of the header" : in_quotes(rest_.substr(0, 24));
  }

  // No escapes: the three keys and every element type are written without.
  std::string_view string(std::string_view field) {
    skip_space();
    const char quote = rest_.empty() ? '\0' : rest_.front();
    if (quote != '\'' && quote != '"') fail(field, what_is_next(), "a quoted string");
    const auto end = rest_.find(quote, 1);
    if (end == std::string_view::npos) fail(field, what_is_next(), "a closed string");
    const std::string_view text = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return text;
  }

  npy_type type() {
    constexpr auto accepted = "'<f4', '<f8', '<i8' or '|b1' (little-endian)";
    skip_space();
    if (!rest_.empty() && rest_.front() == '[')
      fail("descr", "a list of fields (a structured type)", accepted);
    const std::string_view name = string("descr");
    for (const auto& row : npy_types)
      if (row.descr == name) return row.type;
    fail("descr", in_quotes(name), accepted);
  }

  array_order order() {
    if (take_word("True")) return array_order::fortran;
    if (take_word("False")) return array_order::c;
    fail("fortran_order", what_is_next(), "True or False");
  }

  std::vector<index_t> shape() {
    std::vector<index_t> out;
    expect_mark('(', "shape");
    while (!take_mark(')')) {
      if (out.size() == most_npy_dimensions)
        fail("shape", "more than 32 dimensions", "at most 32 dimensions");
      out.push_back(dimension());
      if (!take_mark(',')) {
        expect_mark(')', "shape");
        if (out.size() == 1) fail("shape", "a number in parentheses", "a tuple, such as (3,)");
        break;
      }
    }
    return out;
  }

  index_t dimension() {
    skip_space();
    const auto end = std::min(rest_.find_first_not_of("0123456789"), rest_.size());
    if (end == 0) fail("shape", what_is_next(), "a non-negative integer");
    index_t value = 0;
    for (const char c : rest_.substr(0, end)) {
      const index_t digit = c - '0';
      if (value > (std::numeric_limits<index_t>::max() - digit) / 10)
        fail("shape", what_is_next(), "a dimension below 2^63");
      value = value * 10 + digit;
    }
    rest_.remove_prefix(end);
    take_word("L");  // how Python 2 wrote it
    return value;
  }

  const std::string& path_;
  std::string_view rest_;
};

/// Reads and checks everything before the data, and that the data has the size it should.
inline npy_header read_npy_header(const file_handle& file) {
  const auto fail = [&](const char* field, std::string found, std::string expected) {
    throw input_error(file.path(), field, std::move(found), std::move(expected));
  };
  // numpy itself refuses to evaluate headers beyond 10 000 characters unless told to trust them.
  constexpr index_t longest_header = index_t{1} << 20;
  const index_t file_size = file.size();

  std::array<unsigned char, 12> start{};
  const index_t got = std::min<index_t>(file_size, 12);
  file.read_at(0, std::as_writable_bytes(std::span(start)).first(static_cast<std::size_t>(got)));
  const std::string_view magic(reinterpret_cast<const char*>(start.data()), npy_magic.size());
  if (got < 10 || magic != npy_magic)
    fail("magic",
         in_quotes(magic.substr(0, static_cast<std::size_t>(std::min<index_t>(
                                       got, static_cast<index_t>(npy_magic.size()))))),
         in_quotes(npy_magic) + " and a header (is it a .npy file?)");
  const int format = start[6], revision = start[7];
  if (format < 1 || format > 3 || revision != 0)
    fail("version", std::to_string(format) + "." + std::to_string(revision), "1.0, 2.0 or 3.0");

  index_t length = start[8] | (start[9] << 8);
  index_t prefix = 10;
  if (format > 1) {
    prefix = 12;
    if (got < prefix) fail("header length", "end of file", "4 bytes");
    length |= (index_t{start[10]} << 16) | (index_t{start[11]} << 24);
  }
  if (length > longest_header || length > file_size - prefix)
    fail("header length", std::to_string(length),
         "at most " + std::to_string(std::min(longest_header, file_size - prefix)) +
             " bytes (what the file has, or 2^20)");

  std::string text(static_cast<std::size_t>(length), '\0');
  file.read_at(prefix, std::as_writable_bytes(std::span(text)));
  npy_header header = npy_dictionary(file.path(), text).parse();
  header.data_offset = prefix + length;

  const index_t expected = header.data_offset + header.elements * row_of(header.type).bytes;
  if (file_size != expected)
    fail("file size", std::to_string(file_size) + " bytes",
         std::to_string(expected) + " bytes for shape " + shape_text(header.shape) + " of " +
             std::string(row_of(header.type).descr));
  return header;
}

/// The bytes that numpy writes before the data: version 1.0, padded with blanks to 64 bytes.
/// \throws invalid_argument  if the shape has more dimensions than a reader takes
inline std::string npy_header_bytes(npy_type type, array_order order,
                                    const std::vector<index_t>& shape) {
  expects(shape.size() <= most_npy_dimensions, "npy_writer", "at most 32 dimensions", "dimensions",
          shape.size());
  std::string text = "{'descr': '" + std::string(row_of(type).descr) +
                     "', 'fortran_order': " + (order == array_order::fortran ? "True" : "False") +
                     ", 'shape': " + shape_text(shape) + ", }";
  constexpr std::size_t prefix = 10, alignment = 64;
  const std::size_t total = (prefix + text.size() + 1 + alignment - 1) / alignment * alignment;
  text.resize(total - prefix - 1, ' ');
  text += '\n';
  // Holds for 32 dimensions of 19 digits; version 1.0 has two bytes for the length.
  expects(text.size() <= 0xffff, "npy_writer", "the header must have at most 65535 bytes", "bytes",
          text.size());
  std::string out(npy_magic);
  out += '\1';
  out += '\0';
  out += static_cast<char>(text.size() & 0xff);
  out += static_cast<char>(text.size() >> 8);
  return out + text;
}

}  // namespace dualsft::detail
