// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <dualsft/detail/file_handle.hpp>
#include <dualsft/detail/shape.hpp>
#include <dualsft/detail/strict_json.hpp>
#include <dualsft/float16.hpp>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace dualsft {

/// The element types of the format. All are listed; f64, f32, f16, bf16, i64 and u8 (and boolean,
/// as bytes) are also read and written.
enum class tensor_type {
  boolean,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  i64,
  u64,
  f64,
  c64,
};

/// One tensor of a file.
struct tensor_info {
  std::string name;
  tensor_type type = tensor_type::f32;
  std::vector<index_t> shape;  ///< row-major; empty for a scalar
  index_t size = 1;            ///< elements: the product of the shape
  index_t offset = 0;          ///< of its first byte in the file
  index_t bytes = 0;
};

using tensor_metadata = std::map<std::string, std::string>;

}  // namespace dualsft

namespace dualsft::detail {

struct tensor_type_row {
  tensor_type type;
  std::string_view name;
  index_t bytes;
};

inline constexpr std::array<tensor_type_row, 17> tensor_types{{
    {tensor_type::boolean, "BOOL", 1},
    {tensor_type::u8, "U8", 1},
    {tensor_type::i8, "I8", 1},
    {tensor_type::f8_e5m2, "F8_E5M2", 1},
    {tensor_type::f8_e4m3, "F8_E4M3", 1},
    {tensor_type::f8_e8m0, "F8_E8M0", 1},
    {tensor_type::i16, "I16", 2},
    {tensor_type::u16, "U16", 2},
    {tensor_type::f16, "F16", 2},
    {tensor_type::bf16, "BF16", 2},
    {tensor_type::i32, "I32", 4},
    {tensor_type::u32, "U32", 4},
    {tensor_type::f32, "F32", 4},
    {tensor_type::i64, "I64", 8},
    {tensor_type::u64, "U64", 8},
    {tensor_type::f64, "F64", 8},
    {tensor_type::c64, "C64", 8},
}};

constexpr const tensor_type_row& row_of(tensor_type type) {
  return tensor_types[static_cast<std::size_t>(type)];
}

inline constexpr index_t longest_safetensors_header = 100'000'000;
inline constexpr std::size_t most_tensor_dimensions = 32;

/// {"__metadata__": {name: text}, tensor: {"dtype", "shape", "data_offsets"}, ...}
class tensor_table_parser : public strict_json {
 public:
  explicit tensor_table_parser(const std::string& path) : strict_json(path, "header") {}

  std::vector<tensor_info> tensors;
  tensor_metadata metadata;

  // ---- called by the parser ----

  bool null() override { refuse("null"); }
  bool boolean(bool) override { refuse("a boolean"); }
  bool number_float(double, const std::string& text) override {
    refuse("the number " + in_quotes(text));
  }
  bool number_integer(std::int64_t x) override { refuse("the number " + std::to_string(x)); }

  bool number_unsigned(std::uint64_t x) override {
    if (place_ != place::shape && place_ != place::offsets) refuse(std::to_string(x));
    if (x > static_cast<std::uint64_t>(std::numeric_limits<index_t>::max()))
      fail(field_, std::to_string(x), "an integer below 2^63");
    if (place_ == place::offsets && offsets_.size() == 2) fail(field_, "a third number", "two");
    if (place_ == place::shape && tensors.back().shape.size() == most_tensor_dimensions)
      fail(field_, "more than 32 dimensions", "at most 32 dimensions");
    (place_ == place::shape ? tensors.back().shape : offsets_).push_back(static_cast<index_t>(x));
    return true;
  }

  bool string(std::string& text) override {
    if (place_ == place::metadata) {
      metadata[key_] = std::move(text);
    } else if (place_ == place::entry && key_ == "dtype") {
      const auto row = std::find_if(tensor_types.begin(), tensor_types.end(),
                                    [&](const tensor_type_row& r) { return r.name == text; });
      if (row == tensor_types.end())
        fail(field_, in_quotes(text), "a known type (F64, F32, F16, BF16, U8, I64, ...)");
      tensors.back().type = row->type;
    } else {
      refuse("the string " + in_quotes(text));
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == place::outside) {
      place_ = place::table;
    } else if (place_ == place::table && key_ == "__metadata__") {
      place_ = place::metadata;
    } else if (place_ == place::table) {
      place_ = place::entry;
      seen_ = 0;
      offsets_.clear();
      tensors.emplace_back().name = key_;
    } else {
      refuse("an object");
    }
    return true;
  }

  bool key(std::string& name) override {
    key_ = std::move(name);
    if (place_ == place::table) {
      field_ = key_ == "__metadata__" ? key_ : "tensor " + in_quotes(key_);
      if (key_.empty()) fail("header", "a tensor without a name", "a name");
      if (!names_.insert(key_).second) fail(field_, "the name twice", "each name once");
    } else if (place_ == place::metadata) {
      field_ = "__metadata__ " + in_quotes(key_);
      if (metadata.contains(key_)) fail(field_, "the name twice", "each name once");
    } else {
      const unsigned bit = key_ == "dtype"          ? 1u
                           : key_ == "shape"        ? 2u
                           : key_ == "data_offsets" ? 4u
                                                    : 0u;
      field_ = entry_field(bit == 0 ? in_quotes(key_) : key_);
      if (bit == 0) fail(field_, "an unknown key", "only dtype, shape and data_offsets");
      if ((seen_ & bit) != 0) fail(field_, "the key twice", "the key once");
      seen_ |= bit;
    }
    return true;
  }

  bool end_object() override {
    if (place_ == place::entry) {
      for (const auto& [bit, name] : {std::pair{1u, "dtype"}, {2u, "shape"}, {4u, "data_offsets"}})
        if ((seen_ & bit) == 0) fail(entry_field(name), "nothing", "the key");
      check_entry(tensors.back());
    }
    place_ = place_ == place::table ? place::outside : place::table;
    field_ = "header";
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != place::entry || key_ == "dtype") refuse("a list");
    place_ = key_ == "shape" ? place::shape : place::offsets;
    return true;
  }

  bool end_array() override {
    if (place_ == place::offsets && offsets_.size() != 2)
      fail(field_, std::to_string(offsets_.size()) + " numbers", "two");
    place_ = place::entry;
    return true;
  }

 private:
  enum class place { outside, table, metadata, entry, shape, offsets };

  std::string entry_field(const std::string& key) const {
    return "tensor " + in_quotes(tensors.back().name) + " " + key;
  }

  [[noreturn]] void refuse(std::string found) const {
    switch (place_) {
      case place::outside:
      case place::table:
        fail(field_, std::move(found), "an object");
      case place::metadata:
        fail(field_, std::move(found), "a string");
      case place::entry:
        fail(field_, std::move(found), key_ == "dtype" ? "a string" : "a list of integers");
      case place::shape:
      case place::offsets:
        break;
    }
    fail(field_, std::move(found), "a non-negative integer");
  }

  void check_entry(tensor_info& tensor) {
    const auto& row = row_of(tensor.type);
    const auto count = element_count(tensor.shape, row.bytes);
    if (!count)
      fail(entry_field("shape"), shape_text(tensor.shape), "a tensor of fewer than 2^62 bytes");
    tensor.size = *count;
    tensor.bytes = tensor.size * row.bytes;
    const index_t begin = offsets_[0], end = offsets_[1];
    const std::string found = range_text(begin, end);
    if (begin > end) fail(entry_field("data_offsets"), found, "begin <= end");
    if (end - begin != tensor.bytes)
      fail(entry_field("data_offsets"), found,
           std::to_string(tensor.bytes) + " bytes for " + std::string(row.name) + " of shape " +
               shape_text(tensor.shape));
    tensor.offset = begin;  // within the data; made absolute once all are known
  }

  place place_ = place::outside;
  unsigned seen_ = 0;
  std::string key_;
  std::vector<index_t> offsets_;
  std::unordered_set<std::string> names_;
};

struct safetensors_table {
  std::vector<tensor_info> tensors;  // in the order of the header
  tensor_metadata metadata;
  index_t data_offset = 0;
};

/// Reads and checks everything that precedes the data, and that the tensors cover the data exactly.
inline safetensors_table read_safetensors_table(const std::string& path,
                                                std::span<const std::byte> file) {
  const auto fail = [&](std::string field, std::string found, std::string expected) {
    throw input_error(path, std::move(field), std::move(found), std::move(expected));
  };
  if (file.size() < 8)
    fail("header length", std::to_string(file.size()) + " bytes in all", "8 bytes of length");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  const auto most = std::min<std::uint64_t>(file.size() - 8, longest_safetensors_header);
  if (length > most)
    fail("header length", std::to_string(length),
         "at most " + std::to_string(most) + " bytes (what the file has, or 10^8)");
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, length);
  if (!text.starts_with('{'))
    fail("header", text.empty() ? "nothing" : in_quotes(text.substr(0, 16)), "a JSON object");

  tensor_table_parser parser(path);
  parser.read(text);

  safetensors_table table{std::move(parser.tensors), std::move(parser.metadata),
                          static_cast<index_t>(8 + length)};
  std::vector<std::size_t> by_offset(table.tensors.size());
  std::iota(by_offset.begin(), by_offset.end(), std::size_t{0});
  std::sort(by_offset.begin(), by_offset.end(), [&](std::size_t a, std::size_t b) {
    const auto &x = table.tensors[a], &y = table.tensors[b];
    return std::pair(x.offset, x.bytes) < std::pair(y.offset, y.bytes);
  });
  const index_t data_bytes = static_cast<index_t>(file.size()) - table.data_offset;
  index_t covered = 0;
  for (const std::size_t number : by_offset) {
    const tensor_info& tensor = table.tensors[number];
    if (tensor.offset != covered || tensor.bytes > data_bytes - covered)
      fail("tensor " + in_quotes(tensor.name) + " data_offsets",
           range_text(tensor.offset, tensor.offset + tensor.bytes),
           tensor.offset != covered
               ? "to begin at " + std::to_string(covered) + ", without gap or overlap"
               : "an end within the " + std::to_string(data_bytes) + " bytes of data");
    covered += tensor.bytes;
  }
  if (covered != data_bytes)
    fail("file size", std::to_string(file.size()) + " bytes",
         std::to_string(table.data_offset + covered) + " bytes, the end of the last tensor");
  for (tensor_info& tensor : table.tensors) tensor.offset += table.data_offset;
  return table;
}

/// {"metadata": anything, "weight_map": {tensor: shard}}
class weight_map_parser : public strict_json {
 public:
  explicit weight_map_parser(const std::string& path) : strict_json(path, "index") {}

  std::vector<std::pair<std::string, std::string>> entries;  // tensor, shard
  bool found = false;

  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("a boolean"); }
  bool number_integer(std::int64_t) override { return value("a number"); }
  bool number_unsigned(std::uint64_t) override { return value("a number"); }
  bool number_float(double, const std::string&) override { return value("a number"); }

  bool string(std::string& shard) override {
    if (!in_map_ || depth_ != 2) return value("a string");
    check_shard(shard);
    entries.emplace_back(key_, std::move(shard));
    return true;
  }

  bool start_object(std::size_t) override {
    if (depth_ == 0 || (depth_ == 1 && in_map_)) {
      ++depth_;
      return true;
    }
    return open("an object");
  }
  bool start_array(std::size_t) override { return open("a list"); }
  bool end_array() override { return end_object(); }
  bool end_object() override {
    if (--depth_ == 1) in_map_ = false;
    return true;
  }

  bool key(std::string& name) override {
    key_ = std::move(name);
    if (depth_ == 1) {
      field_ = in_quotes(key_);
      in_map_ = key_ == "weight_map";
      if (in_map_ && found) fail("weight_map", "the key twice", "the key once");
      found = found || in_map_;
    } else if (in_map_) {
      field_ = "weight_map " + in_quotes(key_);
      if (!names_.insert(key_).second) fail(field_, "the name twice", "each name once");
    }
    return true;
  }

 private:
  bool value(const char* what) const {
    if (depth_ == 0) fail("index", what, "an object");
    if (in_map_) fail(field_, what, depth_ == 1 ? "an object" : "the name of a shard");
    return true;
  }

  bool open(const char* what) {
    value(what);
    if (++depth_ > 32) fail(field_, "values nested deeper than 32", "flat metadata");
    return true;
  }

  // A shard lies beside or below its index: nothing else on the machine is opened on its word.
  void check_shard(const std::string& shard) const {
    bool climbs = shard.empty() || shard.front() == '/';
    for (const char c : shard) climbs = climbs || c == '\\' || c == '\0';
    for (std::size_t begin = 0; begin <= shard.size();) {
      const auto end = std::min(shard.find('/', begin), shard.size());
      climbs = climbs || std::string_view(shard).substr(begin, end - begin) == "..";
      begin = end + 1;
    }
    if (climbs) fail(field_, in_quotes(shard), "a relative path below the index's folder");
  }

  int depth_ = 0;
  bool in_map_ = false;
  std::string key_;
  std::unordered_set<std::string> names_;
};

}  // namespace dualsft::detail
