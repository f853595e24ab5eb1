// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <dualsft/detail/safetensors_header.hpp>
#include <dualsft/float16.hpp>
#include <dualsft/views.hpp>
#include <span>
#include <string>
#include <utility>

namespace dualsft {

/// The types in which tensors are seen, read and written.
template <class T>
concept TensorElement = std::same_as<T, double> || std::same_as<T, float> || Storage16<T> ||
    std::same_as<T, std::int64_t> || std::same_as<T, std::uint8_t>;

}  // namespace dualsft

namespace dualsft::detail {

template <TensorElement T>
constexpr tensor_type tensor_type_of() {
  if constexpr (std::same_as<T, double>) return tensor_type::f64;
  if constexpr (std::same_as<T, float>) return tensor_type::f32;
  if constexpr (std::same_as<T, float16>) return tensor_type::f16;
  if constexpr (std::same_as<T, bfloat16>) return tensor_type::bf16;
  if constexpr (std::same_as<T, std::int64_t>) return tensor_type::i64;
  if constexpr (std::same_as<T, std::uint8_t>) return tensor_type::u8;
}

/// Whether a tensor's bytes are an array of T as they stand.
template <TensorElement T>
constexpr bool stores(tensor_type type) {
  return type == tensor_type_of<T>() ||
         (std::same_as<T, std::uint8_t> && type == tensor_type::boolean);
}

template <class T>
concept FloatElement = std::floating_point<T> || Storage16<T>;

/// Calls f(T{}) with the type that a floating-point tensor stores; false for the others.
template <class F>
bool with_stored_float(tensor_type type, F&& f) {
  switch (type) {
    case tensor_type::f64:
      f(double{});
      return true;
    case tensor_type::f32:
      f(float{});
      return true;
    case tensor_type::f16:
      f(float16{});
      return true;
    case tensor_type::bf16:
      f(bfloat16{});
      return true;
    default:
      return false;
  }
}

[[noreturn]] inline void refuse_tensor_type(const std::string& path, const tensor_info& tensor,
                                            std::string expected) {
  throw input_error(path, "tensor " + in_quotes(tensor.name) + " dtype",
                    std::string(row_of(tensor.type).name), std::move(expected));
}

template <TensorElement T>
vector_view<const T> tensor_view(const std::string& path, const tensor_info& tensor,
                                 std::span<const std::byte> bytes) {
  if (!stores<T>(tensor.type))
    refuse_tensor_type(path, tensor, std::string(row_of(tensor_type_of<T>()).name));
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) != 0)
    throw input_error(path, "tensor " + in_quotes(tensor.name) + " data_offsets",
                      "data at byte " + std::to_string(tensor.offset) + " of the file",
                      "a multiple of " + std::to_string(alignof(T)) + " (to view; or read a copy)");
  return {reinterpret_cast<const T*>(bytes.data()), tensor.size};
}

/// Copies and converts elements [first, first + out.size()); the bytes need no alignment.
template <TensorElement T>
void copy_tensor(const std::string& path, const tensor_info& tensor,
                 std::span<const std::byte> bytes, std::span<T> out, index_t first) {
  const auto count = static_cast<index_t>(out.size());
  expects(0 <= first && first <= tensor.size && count <= tensor.size - first, "safetensors: read",
          "the range must lie in the tensor", "tensor", tensor.name, "first", first, "count", count,
          "size", tensor.size);
  const std::byte* source = bytes.data();
  if (stores<T>(tensor.type)) {
    if (count > 0) std::memcpy(out.data(), source + first * index_t{sizeof(T)}, out.size_bytes());
    return;
  }
  if constexpr (FloatElement<T>) {
    const bool done = with_stored_float(tensor.type, [&]<class Stored>(Stored) {
      source += first * index_t{sizeof(Stored)};
      for (T& x : out) {
        Stored stored;
        std::memcpy(&stored, source, sizeof(Stored));
        source += sizeof(Stored);
        x = convert_float<T>(stored);
      }
    });
    if (!done) refuse_tensor_type(path, tensor, "F64, F32, F16 or BF16");
  } else {
    refuse_tensor_type(path, tensor, std::string(row_of(tensor_type_of<T>()).name));
  }
}

}  // namespace dualsft::detail
