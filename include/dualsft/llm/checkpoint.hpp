// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/io/atomic_file.hpp>
#include <dualsft/io/safetensors.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/llm/detail/checkpoint_names.hpp>
#include <dualsft/llm/detail/json_document.hpp>
#include <dualsft/llm/parameter_names.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// A model's weights between a checkpoint folder and one flat vector theta in the order of a layout.
///
///     const safetensors_checkpoint files(folder);
///     const parameter_layout layout = transformer_layout(read_model_config(folder));
///     std::vector<float> theta(layout.size());
///     read_weights(files, layout, std::span(theta));
///     write_checkpoint(out, config_text, layout, std::span<const float>(theta), {});
///
/// The folder has what transformers reads and writes: config.json beside model.safetensors, or
/// shards with model.safetensors.index.json.
namespace dualsft::llm {

/// Where the blocks of a layout lie in a checkpoint: found once, all of it checked.
///
/// Names are accepted as they are, and as multimodal Gemma-3 files have them ("language_model." or
/// "model.language_model." in front; the vision tensors are then left alone). Ignored are rotary
/// buffers of old files, and the head of a tied model if it equals the embedding.
class weight_source {
 public:
  /// \param files  must outlive this
  /// \throws input_error  naming the first tensors that are missing, unknown, of another shape, or
  ///                      not F64, F32, F16 or BF16
  weight_source(const safetensors_checkpoint& files, const parameter_layout& layout)
      : files_(&files), names_(detail::match_checkpoint_names(files, layout)) {}

  /// The stored name of a block.
  const std::string& name(index_t block) const {
    return names_.at(static_cast<std::size_t>(block));
  }
  tensor_type type(index_t block) const { return files_->at(name(block)).type; }

  /// Of every block: what write_checkpoint needs to store a model as this one is stored.
  std::vector<tensor_type> types() const {
    std::vector<tensor_type> out;
    for (std::size_t i = 0; i < names_.size(); ++i) out.push_back(type(static_cast<index_t>(i)));
    return out;
  }

  /// Elements [first, first + out.size()) of a block. Touches no other page of the file.
  template <TensorElement T>
  void read(index_t block, std::span<T> out, index_t first = 0) const {
    files_->read(name(block), out, first);
  }

 private:
  const safetensors_checkpoint* files_;
  std::vector<std::string> names_;
};

/// theta[offset_b + i] = element i of block b's tensor.
///
/// \param theta  [layout.size()], float or double; unchanged if anything does not fit
/// \throws input_error  as weight_source
/// Numerics: F16 and BF16 widen exactly; F64 narrows to nearest where T is float.
/// Cost: one pass over the file's pages.
template <class T>
void read_weights(const safetensors_checkpoint& files, const parameter_layout& layout,
                  std::span<T> theta) {
  expects(static_cast<index_t>(theta.size()) == layout.size(), "read_weights",
          "theta must have one element per coordinate", "theta", theta.size(), "d", layout.size());
  const weight_source source(files, layout);
  for (index_t b = 0; b < layout.block_count(); ++b) {
    const parameter_block& block = layout.block(b);
    source.read(b, theta.subspan(static_cast<std::size_t>(block.offset),
                                 static_cast<std::size_t>(block.size())));
  }
}

struct checkpoint_options {
  tensor_type type = tensor_type::f32;         ///< of all tensors: F64, F32, F16 or BF16
  std::vector<tensor_type> types{};            ///< or of each block, in the order of the layout
  index_t shard_bytes = 5'000'000'000;         ///< data per file, unless one tensor has more
  tensor_metadata metadata{{"format", "pt"}};  ///< transformers asks for this entry
};

/// Writes a checkpoint that transformers loads.
///
/// Tensors keep the order of the layout; they lie in model.safetensors, or, beyond shard_bytes, in
/// model-00001-of-0000N.safetensors with an index. Every file appears whole, config.json last: a
/// folder with a config.json is complete. Files of an earlier checkpoint that would be read instead
/// of the new ones are removed.
///
/// \param folder  made if absent (its parent must exist)
/// \param config_text  for config.json, unchanged
/// \throws invalid_argument  if sizes do not match or a type stores no floating-point numbers
/// \throws input_error       (field "output") if the place cannot be written
/// Numerics: rounds to the stored type once, to nearest even; what was read from that type and not
/// changed is written back bit for bit.
template <class T>
void write_checkpoint(const std::string& folder, std::string_view config_text,
                      const parameter_layout& layout, std::span<const T> theta,
                      const checkpoint_options& options = {}) {
  expects(static_cast<index_t>(theta.size()) == layout.size(), "write_checkpoint",
          "theta must have one element per coordinate", "theta", theta.size(), "d", layout.size());
  expects(
      options.types.empty() || static_cast<index_t>(options.types.size()) == layout.block_count(),
      "write_checkpoint", "there must be one type per block, or none", "types",
      options.types.size(), "blocks", layout.block_count());
  const std::vector<detail::shard_plan> shards =
      detail::plan_shards(layout, options.type, options.types, options.shard_bytes);

  if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST)
    throw input_error(folder, "output", dualsft::detail::system_message(errno), "a writable place");
  const std::string config_path = folder + "/config.json";
  for (const detail::shard_plan& shard : shards) {
    safetensors_writer out(folder + "/" + shard.file, shard.tensors, options.metadata);
    for (const index_t b : shard.blocks) {
      const parameter_block& block = layout.block(b);
      out.write(block.name, theta.subspan(static_cast<std::size_t>(block.offset),
                                          static_cast<std::size_t>(block.size())));
    }
    // An earlier checkpoint in this folder stays whole until the first new file is ready; from then
    // to the end the folder does not look complete.
    ::unlink(config_path.c_str());
    out.finish();
  }
  const std::string single = folder + "/model.safetensors", index = single + ".index.json";
  if (shards.size() == 1) {
    ::unlink(index.c_str());
  } else {
    atomic_file file(index);
    file.write(detail::index_text(shards));
    file.commit();
    ::unlink(single.c_str());
  }
  atomic_file config(config_path);
  config.write(config_text);
  config.commit();
}

/// config.json of the model that read_model_config sees: the text itself, or, for a multimodal
/// gemma3 file, its text part as a gemma3_text model of its own. To be written beside weights under
/// the names of a layout.
/// \throws input_error  if the text is not a JSON object
inline std::string text_model_config(std::string_view text, const std::string& name) {
  using detail::json;
  const json outer = detail::parse_document(name, "text", detail::without_mark(name, text));
  if (!outer.is_object()) throw input_error(name, "text", detail::describe(outer), "an object");
  const auto type = outer.find("model_type"), inner = outer.find("text_config");
  if (type == outer.end() || *type != "gemma3" || inner == outer.end() || !inner->is_object())
    return std::string(text);
  json config = *inner;
  config["model_type"] = "gemma3_text";
  config["architectures"] = json::array({"Gemma3ForCausalLM"});
  for (const char* key : {"torch_dtype", "dtype", "bos_token_id", "eos_token_id", "pad_token_id"})
    if (outer.contains(key) && !config.contains(key)) config[key] = outer[key];
  return config.dump(2) + "\n";
}

/// text_model_config of a folder's config.json.
/// \throws input_error  if it cannot be read
inline std::string read_config_text(const std::string& folder) {
  const std::string path = folder + "/config.json";
  return text_model_config(detail::read_text_file(path, index_t{1} << 24), path);
}

/// What stands beside the weights and config.json of a checkpoint: the tokenizer's files and the
/// settings of generation.
inline constexpr std::array<std::string_view, 11> companion_files{"tokenizer.json",
                                                                  "tokenizer_config.json",
                                                                  "tokenizer.model",
                                                                  "special_tokens_map.json",
                                                                  "added_tokens.json",
                                                                  "vocab.json",
                                                                  "merges.txt",
                                                                  "generation_config.json",
                                                                  "chat_template.json",
                                                                  "chat_template.jinja",
                                                                  "preprocessor_config.json"};

enum class config_file { copy, leave };

/// Copies the companion files that there are, and config.json (or not).
/// \return  the names copied
/// \throws input_error  if one cannot be read or written
inline std::vector<std::string> copy_checkpoint_files(const std::string& from,
                                                      const std::string& to,
                                                      config_file config = config_file::copy) {
  if (::mkdir(to.c_str(), 0777) != 0 && errno != EEXIST)
    throw input_error(to, "output", dualsft::detail::system_message(errno), "a writable place");
  std::vector<std::string> copied;
  const auto copy = [&](std::string name) {
    const std::string source = from + "/" + name;
    if (::access(source.c_str(), F_OK) != 0) return;
    const mapped_file file(source, access_pattern::sequential);
    atomic_file target(to + "/" + name);
    target.write(file.bytes());
    target.commit();
    copied.push_back(std::move(name));
  };
  if (config == config_file::copy) copy("config.json");
  for (const std::string_view name : companion_files) copy(std::string(name));
  return copied;
}

}  // namespace dualsft::llm
