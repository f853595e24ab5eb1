// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <dualsft/config.hpp>
#include <dualsft/detail/shape.hpp>
#include <dualsft/error.hpp>
#include <dualsft/io/safetensors.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/llm/detail/json_document.hpp>
#include <dualsft/llm/parameter_names.hpp>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace dualsft::llm::detail {

/// How the names of a file differ from those of the layout.
struct naming {
  std::string_view body;  // stands for "model."
  std::string_view head;  // stands in front of names outside the body, such as "lm_head."
};

inline constexpr std::array<naming, 3> namings{
    {{"model.", ""},
     {"language_model.model.", "language_model."},  // multimodal files on the Hub
     {"model.language_model.", ""}}};               // transformers since 4.52

inline std::string name_in_file(const naming& n, std::string_view name) {
  constexpr std::string_view body = "model.";
  if (name.starts_with(body)) return std::string(n.body) + std::string(name.substr(body.size()));
  return std::string(n.head) + std::string(name);
}

inline bool belongs_to_vision(std::string_view name) {
  for (const std::string_view prefix : {"vision_tower.", "multi_modal_projector.",
                                        "model.vision_tower.", "model.multi_modal_projector."})
    if (name.starts_with(prefix)) return true;
  return false;
}

// "3: 'a', 'b', 'c'", at most four names.
inline std::string name_list(const std::vector<std::string>& names) {
  constexpr std::size_t most = 4;
  std::string out;
  for (std::size_t i = 0; i < std::min(most, names.size()); ++i)
    out += (i == 0 ? "" : ", ") + in_quotes(names[i]);
  if (names.size() > most) out += ", ...";
  return out;
}

// Old checkpoints of tied models carry the head too. Nobody reads it, so it must say the same.
inline void require_equal_head(const safetensors_checkpoint& files, const tensor_info& head,
                               const tensor_info& embedding) {
  const auto a = files.bytes(head.name), b = files.bytes(embedding.name);
  const bool same = head.type == embedding.type && head.shape == embedding.shape &&
                    (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
  if (!same)
    throw input_error(files.path(), "tensor " + in_quotes(head.name), "other values",
                      "those of " + in_quotes(embedding.name) +
                          ", or tie_word_embeddings = false in config.json");
}

/// The stored name of every block, after all names, shapes and types were compared.
inline std::vector<std::string> match_checkpoint_names(const safetensors_checkpoint& files,
                                                       const parameter_layout& layout) {
  // The naming under which most blocks are there; the plain one on a tie.
  const naming* best = &namings[0];
  std::size_t most = 0;
  for (const naming& n : namings) {
    std::size_t present = 0;
    for (const parameter_block& block : layout.blocks())
      present += files.find(name_in_file(n, block.name)) != nullptr ? 1 : 0;
    if (present > most) {
      most = present;
      best = &n;
    }
  }

  std::vector<std::string> names, missing, unknown;
  std::unordered_set<std::string_view> used;
  names.reserve(layout.blocks().size());
  for (const parameter_block& block : layout.blocks()) {
    names.push_back(name_in_file(*best, block.name));
    if (files.find(names.back()) == nullptr) missing.push_back(names.back());
  }
  used.insert(names.begin(), names.end());

  const std::string head = name_in_file(*best, "lm_head.weight");
  const bool tied = layout.find("lm_head.weight") < 0;
  const bool multimodal = best != &namings[0];
  for (const tensor_info& tensor : files.tensors()) {
    if (used.contains(tensor.name) || tensor.name.ends_with("rotary_emb.inv_freq")) continue;
    if (multimodal && belongs_to_vision(tensor.name)) continue;
    if (tied && tensor.name == head) continue;  // below
    unknown.push_back(tensor.name);
  }
  if (!missing.empty() || !unknown.empty()) {
    std::string found;
    if (!missing.empty())
      found += std::to_string(missing.size()) + " missing (" + name_list(missing) + ")";
    if (!unknown.empty())
      found += (found.empty() ? "" : " and ") + std::to_string(unknown.size()) + " unknown (" +
               name_list(unknown) + ")";
    throw input_error(files.path(), "tensors", std::move(found),
                      "the " + std::to_string(names.size()) + " of the model in config.json");
  }

  for (std::size_t i = 0; i < names.size(); ++i) {
    const tensor_info& tensor = files.at(names[i]);
    const std::vector<index_t> shape = stored_shape(layout.blocks()[i]);
    if (tensor.shape != shape)
      throw input_error(files.path(), "tensor " + in_quotes(tensor.name) + " shape",
                        dualsft::detail::shape_text(tensor.shape),
                        dualsft::detail::shape_text(shape) + ", from config.json");
    if (!dualsft::detail::with_stored_float(tensor.type, [](auto) {}))
      dualsft::detail::refuse_tensor_type(files.path(), tensor, "F64, F32, F16 or BF16");
  }
  const tensor_info* spare = tied ? files.find(head) : nullptr;
  const index_t embedding = layout.find("model.embed_tokens.weight");
  if (spare != nullptr && embedding >= 0)
    require_equal_head(files, *spare, files.at(names[static_cast<std::size_t>(embedding)]));
  return names;
}

/// One file of a checkpoint to be written.
struct shard_plan {
  std::string file;
  std::vector<index_t> blocks;
  std::vector<tensor_spec> tensors;
  index_t bytes = 0;
};

/// Fills files in the order of the layout; a file is begun when the next tensor does not fit.
inline std::vector<shard_plan> plan_shards(const parameter_layout& layout, tensor_type type,
                                           const std::vector<tensor_type>& types, index_t most) {
  expects(most > 0, "write_checkpoint", "shard_bytes must be positive", "shard_bytes", most);
  std::vector<shard_plan> shards(1);
  for (index_t b = 0; b < layout.block_count(); ++b) {
    const parameter_block& block = layout.block(b);
    const tensor_type t = types.empty() ? type : types[static_cast<std::size_t>(b)];
    expects(dualsft::detail::with_stored_float(t, [](auto) {}), "write_checkpoint",
            "tensors are stored as F64, F32, F16 or BF16", "block", block.name, "type",
            dualsft::detail::row_of(t).name);
    const index_t bytes = block.size() * dualsft::detail::row_of(t).bytes;
    if (!shards.back().blocks.empty() && bytes > most - shards.back().bytes) shards.emplace_back();
    shard_plan& shard = shards.back();
    shard.blocks.push_back(b);
    shard.tensors.push_back({block.name, t, stored_shape(block)});
    shard.bytes += bytes;
  }
  for (std::size_t i = 0; i < shards.size(); ++i) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    shards[i].file = shards.size() == 1 ? "model.safetensors" : name;
  }
  return shards;
}

inline std::string index_text(const std::vector<shard_plan>& shards) {
  json map = json::object();
  index_t total = 0;
  for (const shard_plan& shard : shards) {
    for (const tensor_spec& tensor : shard.tensors) map[tensor.name] = shard.file;
    total += shard.bytes;
  }
  return json{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}}.dump(2) + "\n";
}

}  // namespace dualsft::llm::detail
