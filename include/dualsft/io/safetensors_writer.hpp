// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <dualsft/detail/safetensors_data.hpp>
#include <dualsft/detail/safetensors_header.hpp>
#include <dualsft/io/atomic_file.hpp>
#include <dualsft/views.hpp>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace dualsft {

/// What is going to be written: name, type, row-major shape.
struct tensor_spec {
  std::string name;
  tensor_type type = tensor_type::f32;
  std::vector<index_t> shape;
};

/// Writes a .safetensors file tensor by tensor, in blocks; it appears, complete, with finish().
///
///     safetensors_writer out("model.safetensors", {{"w", tensor_type::bf16, {2, 3}}});
///     out.write("w", std::span(weights));  // float in, bfloat16 stored
///     out.finish();
///
/// Determinism: equal arguments give equal bytes; tensors lie in the order given, metadata is
/// sorted by key. Data is aligned as far as the order allows: put wider types first.
class safetensors_writer {
 public:
  /// \throws invalid_argument  on an empty, repeated or non-UTF-8 name, or an impossible shape
  /// \throws input_error       (field "output") if the place cannot be written
  safetensors_writer(std::string path, std::vector<tensor_spec> tensors,
                     const tensor_metadata& metadata = {})
      : tensors_(describe(std::move(tensors))),
        header_(header_bytes(tensors_, metadata)),
        file_(std::move(path)) {
    file_.write(header_);
    header_ = {};
  }

  /// Writes the next tensor whole.
  /// \param name    must be the next one in the order given
  /// \param values  as many as it has; floating-point types convert to the stored one
  /// \throws invalid_argument  if the name, the number or the type does not fit
  template <std::ranges::contiguous_range R>
  requires TensorElement<std::ranges::range_value_t<R>>
  void write(std::string_view name, const R& values) {
    using T = std::ranges::range_value_t<R>;
    const std::span<const T> all(std::ranges::data(values), std::ranges::size(values));
    const tensor_info& tensor = next(name);
    expects(static_cast<index_t>(all.size()) == tensor.size, "safetensors_writer::write",
            "there must be as many values as the tensor has", "tensor", tensor.name, "values",
            all.size(), "size", tensor.size);
    write_blocks<T>(name, [&](index_t first, std::span<T> block) {
      std::copy_n(all.begin() + first, block.size(), block.begin());
    });
  }

  /// Writes the next tensor from a producer, so that it need not be in memory.
  /// \param fill  called as fill(first, std::span<T> block) for consecutive blocks of at most 2^16
  ///              elements; sets block[i] to element first + i. If it throws, the tensor is left
  ///              incomplete and the writer takes no more: begin anew with another writer
  template <TensorElement T, class Fill>
  void write_blocks(std::string_view name, Fill&& fill) {
    const tensor_info& tensor = next(name);
    const bool fits =
        detail::stores<T>(tensor.type) ||
        (detail::FloatElement<T> && detail::with_stored_float(tensor.type, [](auto) {}));
    expects(fits, "safetensors_writer::write", "the values must convert to the tensor's type",
            "tensor", tensor.name, "type", detail::row_of(tensor.type).name);
    constexpr index_t most = index_t{1} << 16;
    std::vector<T> block(static_cast<std::size_t>(std::min(most, tensor.size)));
    for (index_t first = 0; first < tensor.size; first += most) {
      const auto part =
          std::span(block).first(static_cast<std::size_t>(std::min(most, tensor.size - first)));
      incomplete_ = true;
      fill(first, part);
      store(tensor.type, std::span<const T>(part));
    }
    incomplete_ = false;
    ++written_;
  }

  /// Writes the next tensor from its stored bytes, of whatever type: for copying out of a reader.
  void write_bytes(std::string_view name, std::span<const std::byte> bytes) {
    const tensor_info& tensor = next(name);
    expects(static_cast<index_t>(bytes.size()) == tensor.bytes, "safetensors_writer::write_bytes",
            "there must be as many bytes as the tensor has", "tensor", tensor.name, "bytes",
            bytes.size(), "expected", tensor.bytes);
    incomplete_ = true;
    file_.write(bytes);
    incomplete_ = false;
    ++written_;
  }

  /// \throws invalid_argument  if tensors are missing; then no file appears
  void finish() {
    expects(written_ == tensors_.size(), "safetensors_writer::finish",
            "every tensor must have been written", "written", written_, "tensors", tensors_.size());
    file_.commit();
  }

 private:
  const tensor_info& next(std::string_view name) const {
    expects(!incomplete_, "safetensors_writer::write",
            "an exception left a tensor incomplete; begin anew with another writer", "tensor",
            name);
    expects(written_ < tensors_.size() && tensors_[written_].name == name,
            "safetensors_writer::write", "tensors come in the order given", "tensor", name, "next",
            written_ < tensors_.size() ? tensors_[written_].name : std::string("(none)"));
    return tensors_[written_];
  }

  template <class T>
  void store(tensor_type type, std::span<const T> values) {
    if (detail::stores<T>(type)) {
      file_.write(std::as_bytes(values));
    } else if constexpr (detail::FloatElement<T>) {
      detail::with_stored_float(type, [&]<class Stored>(Stored) {
        std::vector<Stored> stored(values.size());
        convert_floats(values, std::span(stored));
        file_.write(std::as_bytes(std::span(stored)));
      });
    }
  }

  static std::vector<tensor_info> describe(std::vector<tensor_spec> specs) {
    std::vector<tensor_info> out;
    std::unordered_set<std::string> names;
    index_t offset = 0;
    for (tensor_spec& spec : specs) {
      expects(!spec.name.empty() && spec.name != "__metadata__", "safetensors_writer",
              "a tensor needs a name, other than __metadata__", "name", spec.name);
      expects(names.insert(spec.name).second, "safetensors_writer", "names must differ", "name",
              spec.name);
      expects(spec.shape.size() <= detail::most_tensor_dimensions, "safetensors_writer",
              "at most 32 dimensions", "name", spec.name, "dimensions", spec.shape.size());
      for (const index_t n : spec.shape)
        expects(n >= 0, "safetensors_writer", "dimensions must not be negative", "name", spec.name,
                "dimension", n);
      const index_t each = detail::row_of(spec.type).bytes;
      const auto count = detail::element_count(spec.shape, each);
      expects(count && *count * each <= (index_t{1} << 61) - offset, "safetensors_writer",
              "the file must have fewer than 2^61 bytes", "name", spec.name, "shape",
              detail::shape_text(spec.shape));
      out.push_back(
          {std::move(spec.name), spec.type, std::move(spec.shape), *count, offset, *count * each});
      offset += *count * each;
    }
    return out;
  }

  static std::string json_string(const std::string& text) {
    try {
      return nlohmann::json(text).dump();
    } catch (const nlohmann::json::exception&) {
      detail::throw_invalid("safetensors_writer", "names and metadata must be UTF-8", "text",
                            detail::in_quotes(text));
    }
  }

  static std::string header_bytes(const std::vector<tensor_info>& tensors,
                                  const tensor_metadata& metadata) {
    std::string text = "{";
    const auto separate = [&] {
      if (text.back() != '{') text += ',';
    };
    if (!metadata.empty()) {
      text += "\"__metadata__\":{";
      for (const auto& [key, value] : metadata) {
        separate();
        text += json_string(key) + ":" + json_string(value);
      }
      text += '}';
    }
    for (const tensor_info& tensor : tensors) {
      separate();
      text += json_string(tensor.name) + ":{\"dtype\":\"";
      text += detail::row_of(tensor.type).name;
      text += "\",\"shape\":[";
      for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
        if (i > 0) text += ',';
        text += std::to_string(tensor.shape[i]);
      }
      text += "],\"data_offsets\":";
      text += detail::range_text(tensor.offset, tensor.offset + tensor.bytes);
      text += '}';
    }
    text += '}';
    text.resize((text.size() + 7) / 8 * 8, ' ');
    expects(static_cast<index_t>(text.size()) <= detail::longest_safetensors_header,
            "safetensors_writer", "the header must have at most 10^8 bytes", "bytes", text.size());
    const std::uint64_t length = text.size();
    return std::string(reinterpret_cast<const char*>(&length), 8) + text;
  }

  std::vector<tensor_info> tensors_;
  std::string header_;
  atomic_file file_;
  std::size_t written_ = 0;
  bool incomplete_ = false;  // bytes of tensors_[written_] may be in the file
};

}  // namespace dualsft
