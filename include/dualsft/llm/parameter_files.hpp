// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <dualsft/index_set.hpp>
#include <dualsft/io/safetensors.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/llm/parameter_names.hpp>
#include <dualsft/mask.hpp>
#include <dualsft/score_source.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// What belongs to parameters, in files that name tensors as the checkpoint does.
///
/// | content                  | tensor of a block                                             |
/// |--------------------------|---------------------------------------------------------------|
/// | values (moments, scores) | its own shape, F32 or F64                                     |
/// | mask                     | U8 [ceil(size / 8)], numpy.packbits(mask.ravel(), "little");  |
/// |                          | the shape under its name in the metadata, as "[out, in]"      |
///
/// Every tensor of a layout is there, an empty mask too.
/// Errors: input_error naming file, tensor, what was found and what was expected. Cost: one pass.
namespace dualsft::llm {

namespace detail {

/// A list that JSON and Python read.
inline std::string shape_text(const parameter_block& block) {
  std::string text;
  for (const index_t n : stored_shape(block))
    text += (text.empty() ? "[" : ", ") + std::to_string(n);
  return text + "]";
}

inline std::vector<tensor_spec> value_specs(const parameter_layout& layout, tensor_type type) {
  std::vector<tensor_spec> specs;
  for (const parameter_block& block : layout.blocks())
    specs.push_back({block.name, type, stored_shape(block)});
  return specs;
}

/// \throws input_error  unless the file has exactly the layout's tensors
inline void check_tensors(const safetensors_reader& file, const parameter_layout& layout) {
  for (const parameter_block& block : layout.blocks()) (void)file.at(block.name);
  for (const tensor_info& tensor : file.tensors())
    if (layout.find(tensor.name) < 0)
      throw input_error(file.path(), "tensor " + dualsft::detail::in_quotes(tensor.name),
                        "a tensor", "none that the model does not have");
}

}  // namespace detail

/// Stores values [d] as they are.
template <class T>
requires std::same_as<T, float> || std::same_as<T, double>
void write_parameter_values(const std::string& path, const parameter_layout& layout,
                            std::span<const T> values, const tensor_metadata& metadata = {}) {
  expects(static_cast<index_t>(values.size()) == layout.size(), "write_parameter_values",
          "one value per coordinate", "values", values.size(), "d", layout.size());
  safetensors_writer out(
      path,
      detail::value_specs(layout, std::same_as<T, float> ? tensor_type::f32 : tensor_type::f64),
      metadata);
  for (const parameter_block& block : layout.blocks())
    out.write(block.name, values.subspan(static_cast<std::size_t>(block.offset),
                                         static_cast<std::size_t>(block.size())));
  out.finish();
}

/// Whether a file has floating-point tensors of the layout's names and shapes, and no others.
/// \throws input_error  if not
inline void check_parameter_values(const safetensors_reader& file, const parameter_layout& layout) {
  detail::check_tensors(file, layout);
  for (const parameter_block& block : layout.blocks()) {
    const tensor_info& tensor = file.at(block.name);
    const std::string field = "tensor " + dualsft::detail::in_quotes(block.name);
    if (tensor.shape != stored_shape(block))
      throw input_error(file.path(), field + ", shape", dualsft::detail::shape_text(tensor.shape),
                        detail::shape_text(block));
    if (!dualsft::detail::with_stored_float(tensor.type, [](auto) {}))
      dualsft::detail::refuse_tensor_type(file.path(), tensor, "F64, F32, F16 or BF16");
  }
}
inline void check_parameter_values(const std::string& path, const parameter_layout& layout) {
  check_parameter_values(safetensors_reader(path), layout);
}

/// Values [d] of such a file. \throws input_error  as check_parameter_values
template <class T>
std::vector<T> read_parameter_values(const std::string& path, const parameter_layout& layout) {
  const safetensors_reader file(path, access_pattern::sequential);
  check_parameter_values(file, layout);
  std::vector<T> values(static_cast<std::size_t>(layout.size()));
  for (const parameter_block& block : layout.blocks())
    file.read(block.name, std::span<T>(values).subspan(static_cast<std::size_t>(block.offset),
                                                       static_cast<std::size_t>(block.size())));
  return values;
}

/// Stores scores that are computed on the fly, as F32.
template <ScoreSource Source>
void write_parameter_scores(const std::string& path, const parameter_layout& layout,
                            const Source& scores, const tensor_metadata& metadata = {}) {
  expects(scores.size() == layout.size(), "write_parameter_scores", "one score per coordinate",
          "scores", scores.size(), "d", layout.size());
  safetensors_writer out(path, detail::value_specs(layout, tensor_type::f32), metadata);
  std::vector<double> buffer;
  for (const parameter_block& block : layout.blocks())
    out.template write_blocks<float>(block.name, [&](index_t first, std::span<float> to) {
      buffer.resize(to.size());
      scores.fill(block.offset + first, buffer);
      std::ranges::transform(buffer, to.begin(), [](double x) { return static_cast<float>(x); });
    });
  out.finish();
}

inline void write_parameter_mask(const std::string& path, const parameter_layout& layout,
                                 const index_set& mask, tensor_metadata metadata = {}) {
  expects(mask.universe() == layout.size(), "write_parameter_mask",
          "the mask must cover the layout's coordinates", "universe", mask.universe(), "d",
          layout.size());
  std::vector<tensor_spec> specs;
  for (const parameter_block& block : layout.blocks()) {
    specs.push_back({block.name, tensor_type::u8, {(block.size() + 7) / 8}});
    metadata.insert_or_assign(block.name, detail::shape_text(block));
  }
  safetensors_writer out(path, specs, metadata);
  for (const parameter_block& block : layout.blocks())
    out.write(block.name, packed_block(mask, block));
  out.finish();
}

/// \throws input_error  also if a bit beyond a tensor's size is set, or the metadata names another
///                      shape
inline index_set read_parameter_mask(const std::string& path, const parameter_layout& layout) {
  const safetensors_reader file(path, access_pattern::sequential);
  detail::check_tensors(file, layout);
  std::vector<index_t> selected;
  for (const parameter_block& block : layout.blocks()) {
    const std::string field = "tensor " + dualsft::detail::in_quotes(block.name);
    const tensor_info& tensor = file.at(block.name);
    const index_t bytes = (block.size() + 7) / 8;
    if (tensor.type != tensor_type::u8 || tensor.size != bytes)
      throw input_error(path, field, std::to_string(tensor.size) + " elements",
                        std::to_string(bytes) + " of type U8");
    if (const auto shape = file.metadata().find(block.name);
        shape == file.metadata().end() || shape->second != detail::shape_text(block))
      throw input_error(path, field + ", shape",
                        shape == file.metadata().end() ? "nothing in the metadata" : shape->second,
                        detail::shape_text(block));
    const auto packed = file.bytes(block.name);
    for (index_t b = 0; b < bytes; ++b)
      for (auto left = static_cast<unsigned>(packed[static_cast<std::size_t>(b)]); left != 0;
           left &= left - 1) {
        const index_t i = 8 * b + std::countr_zero(left);
        if (i >= block.size())
          throw input_error(path, field, "a bit beyond its end", "zeros there");
        selected.push_back(block.offset + i);
      }
  }
  return {std::move(selected), layout.size()};
}

}  // namespace dualsft::llm
