// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/llm/model_config.hpp>
#include <string>
#include <utility>
#include <vector>

/// Which stored tensors a transformer has: their checkpoint names, shapes, order and module kinds.
///
/// | module kind                            | tensor, behind model.layers.<i>.                      |
/// |----------------------------------------|-------------------------------------------------------|
/// | norm.attention                         | input_layernorm                                       |
/// | attention.q, .k, .v, .o (and .bias)    | self_attn.{q,k,v,o}_proj                              |
/// | attention.q_norm, .k_norm              | self_attn.{q,k}_norm                                  |
/// | norm.attention.post                    | post_attention_layernorm (with post_norms)            |
/// | norm.mlp                               | post_attention_layernorm, or pre_feedforward_layernorm|
/// | mlp.gate, .up, .down (and .bias)       | mlp.{gate,up,down}_proj                               |
/// | norm.mlp.post                          | post_feedforward_layernorm (with post_norms)          |
///
/// and around the layers: embedding (model.embed_tokens), norm.final (model.norm), and head
/// (lm_head) unless the head is the embedding. A weight is [outputs, inputs], a bias or a norm's
/// weight n x 1. Beware of post_attention_layernorm: in most families it stands before the MLP, in
/// Gemma-3 behind the attention.
namespace dualsft::llm {

/// Numbers of a layer's blocks in the layout; -1 for what the model does not have.
struct layer_blocks {
  index_t attention_norm = -1;
  index_t q = -1, k = -1, v = -1, o = -1;
  index_t q_bias = -1, k_bias = -1, v_bias = -1, o_bias = -1;
  index_t q_norm = -1, k_norm = -1;
  index_t attention_post_norm = -1;
  index_t mlp_norm = -1;
  index_t gate = -1, up = -1, down = -1;
  index_t gate_bias = -1, up_bias = -1, down_bias = -1;
  index_t mlp_post_norm = -1;
};

struct transformer_map {
  parameter_layout layout;
  index_t embedding = -1;
  index_t final_norm = -1;
  index_t head = -1;  ///< the embedding's number when the head is tied to it
  std::vector<layer_blocks> layers;
};

/// The layout of a model and where in it everything lies.
///
/// Coordinates are ordered as the forward pass meets them: embedding, layers (attention, then MLP),
/// final norm, head.
/// \throws invalid_argument  if config.validate() does, or a size is 2^31 or more
/// Cost: O(tensors).
inline transformer_map map_transformer(const model_config& config) {
  config.validate();
  constexpr index_t most = (index_t{1} << 31) - 1;
  for (const index_t size : {config.vocabulary, config.width, config.mlp_width, config.layers,
                             config.heads, config.kv_heads, config.head_size})
    expects(size <= most, "map_transformer", "sizes must lie below 2^31", "size", size);

  transformer_map map;
  const auto add = [&](std::string name, index_t rows, index_t cols, index_t layer,
                       std::string module) {
    return map.layout.add(std::move(name), rows, cols, static_cast<int>(layer), std::move(module));
  };

  map.embedding =
      add("model.embed_tokens.weight", config.vocabulary, config.width, -1, "embedding");

  const index_t q_width = config.heads * config.head_size;
  const index_t kv_width = config.kv_heads * config.head_size;
  for (index_t i = 0; i < config.layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const auto vector = [&](const char* name, index_t size, const char* module) {
      return add(prefix + name, size, 1, i, module);
    };
    const auto linear = [&](const std::string& name, index_t outputs, index_t inputs,
                            const std::string& module, bool with_bias, index_t& bias) {
      const index_t weight = add(prefix + name + ".weight", outputs, inputs, i, module);
      if (with_bias) bias = add(prefix + name + ".bias", outputs, 1, i, module + ".bias");
      return weight;
    };

    layer_blocks b;
    b.attention_norm = vector("input_layernorm.weight", config.width, "norm.attention");
    b.q =
        linear("self_attn.q_proj", q_width, config.width, "attention.q", config.qkv_bias, b.q_bias);
    b.k = linear("self_attn.k_proj", kv_width, config.width, "attention.k", config.qkv_bias,
                 b.k_bias);
    b.v = linear("self_attn.v_proj", kv_width, config.width, "attention.v", config.qkv_bias,
                 b.v_bias);
    if (config.qk_norm) {
      b.q_norm = vector("self_attn.q_norm.weight", config.head_size, "attention.q_norm");
      b.k_norm = vector("self_attn.k_norm.weight", config.head_size, "attention.k_norm");
    }
    b.o = linear("self_attn.o_proj", config.width, q_width, "attention.o", config.output_bias,
                 b.o_bias);
    if (config.post_norms)
      b.attention_post_norm =
          vector("post_attention_layernorm.weight", config.width, "norm.attention.post");
    b.mlp_norm = vector(
        config.post_norms ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight",
        config.width, "norm.mlp");
    b.gate = linear("mlp.gate_proj", config.mlp_width, config.width, "mlp.gate", config.mlp_bias,
                    b.gate_bias);
    b.up =
        linear("mlp.up_proj", config.mlp_width, config.width, "mlp.up", config.mlp_bias, b.up_bias);
    b.down = linear("mlp.down_proj", config.width, config.mlp_width, "mlp.down", config.mlp_bias,
                    b.down_bias);
    if (config.post_norms)
      b.mlp_post_norm = vector("post_feedforward_layernorm.weight", config.width, "norm.mlp.post");
    map.layers.push_back(b);
  }

  map.final_norm = add("model.norm.weight", config.width, 1, -1, "norm.final");
  map.head = config.tied_head ? map.embedding
                              : add("lm_head.weight", config.vocabulary, config.width, -1, "head");
  return map;
}

/// The blocks alone, in checkpoint naming; see map_transformer.
inline parameter_layout transformer_layout(const model_config& config) {
  return map_transformer(config).layout;
}

/// The shape under which a block is stored: n for biases and norms' weights, else rows x cols. (The
/// layout's n x 1 cannot tell a vector from a matrix of one column.)
inline std::vector<index_t> stored_shape(const parameter_block& block) {
  const std::string& module = block.module;
  const bool projection = (module.starts_with("attention.") || module.starts_with("mlp.")) &&
                          !module.ends_with(".bias") && !module.ends_with("_norm");
  const bool matrix = block.cols != 1 || projection || module == "embedding" || module == "head";
  if (matrix) return {block.rows, block.cols};
  return {block.rows};
}

}  // namespace dualsft::llm
