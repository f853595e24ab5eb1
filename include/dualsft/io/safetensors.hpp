// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/io/safetensors_reader.hpp>
#include <dualsft/io/safetensors_writer.hpp>

/// Safetensors files: a table of named, typed, shaped arrays, then their bytes.
///
///     safetensors_checkpoint model("path/to/model");            // one file, an index, or a folder
///     for (const tensor_info& t : model.tensors()) ...          // name, type, shape
///     model.read("lm_head.weight", std::span<float>(block), first);
///
/// Files are not trusted: the header must be strict JSON, every name unique, every type known, and
/// the tensors must cover the data without gap, overlap or rest; otherwise an input_error names the
/// file, the field, what was found and what was expected. Numbers are little-endian.
///
/// Needs nlohmann_json: target dualsft::io. Source: the format's description in the safetensors
/// project; stricter in refusing unknown keys, empty names and more than 32 dimensions.
