// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/llm/detail/config_fields.hpp>
#include <dualsft/llm/detail/json_document.hpp>
#include <dualsft/llm/model_config.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// config.json of a Hugging Face checkpoint -> model_config.
///
/// A field that is absent has the default that transformers (4.50 and later) gives it in that
/// family, because published files rely on them: gemma-3-4b does not say how many heads it has.
/// Both layouts of the rotary parameters are read (rope_theta with rope_scaling, and
/// rope_parameters). What would change the function and is not implemented is refused by name: other
/// families, other rope rules, soft caps, bidirectional attention, quantised weights.
namespace dualsft::llm {

namespace detail {

/// What differs among the families when config.json does not say.
struct family_defaults {
  index_t vocabulary, width, mlp_width, layers, heads;
  std::optional<index_t> kv_heads;   // none: as many as heads
  std::optional<index_t> head_size;  // none: width / heads
  index_t max_positions;
  double rope_base;
  bool tied_head;
  std::vector<index_t> bos, eos;
};

inline family_defaults defaults_of(family f) {
  switch (f) {
    case family::llama:
      return {32000, 4096, 11008, 32, 32, {}, {}, 2048, 1e4, false, {1}, {2}};
    case family::mistral:
      return {32000, 4096, 14336, 32, 32, 8, {}, 131072, 1e4, false, {1}, {2}};
    case family::qwen2:
      return {151936, 4096, 22016, 32, 32, 32, {}, 32768, 1e4, false, {}, {}};
    case family::qwen3:
      return {151936, 4096, 22016, 32, 32, 32, 128, 32768, 1e4, false, {}, {}};
    case family::gemma3:
      break;
  }
  return {262208, 2304, 9216, 26, 8, 4, 256, 131072, 1e6, true, {2}, {1}};
}

inline std::string known_families() {
  std::string text;
  for (const auto& row : family_names) text += std::string(row.first) + ", ";
  return text + "or gemma3 (its text part)";
}

/// One set of rotary parameters; the base may stand among them or outside.
inline rope_config read_rope(const config_fields& fields, double base, std::string_view otherwise) {
  rope_config rope;
  rope.base = fields.positive_or("rope_theta", base);
  const auto type = fields.string("rope_type"), old_type = fields.string("type");
  if (type && old_type && *type != *old_type)
    fields.fail("type", in_quotes(*old_type), "the same as rope_type, " + in_quotes(*type));
  const std::string rule = type ? *type : old_type ? *old_type : std::string(otherwise);
  if (rule.empty()) fields.fail("rope_type", "nothing", "default, linear or llama3");
  fields.require_neutral("partial_rotary_factor", 1.0);
  if (rule == "default") {
    rope.rule = rope_rule::plain;
  } else if (rule == "linear") {
    rope.rule = rope_rule::linear;
    rope.factor = fields.positive_required("factor");
  } else if (rule == "llama3") {
    rope.rule = rope_rule::llama3;
    rope.factor = fields.positive_required("factor");
    rope.low_frequency_factor = fields.positive_required("low_freq_factor");
    rope.high_frequency_factor = fields.positive_required("high_freq_factor");
    rope.original_max_positions = fields.positive_required("original_max_position_embeddings");
    if (rope.high_frequency_factor <= rope.low_frequency_factor)
      fields.fail("high_freq_factor", describe(*fields.find("high_freq_factor")),
                  "more than low_freq_factor, " + describe(*fields.find("low_freq_factor")));
  } else {
    fields.fail(type ? "rope_type" : "type", in_quotes(rule), "default, linear or llama3");
  }
  return rope;
}

inline void read_ropes(const config_fields& fields, double default_base, model_config& config) {
  const double base = fields.positive_or("rope_theta", default_base);
  const bool gemma = config.family == family::gemma3;
  const double local_base = gemma ? fields.positive_or("rope_local_base_freq", 1e4) : base;
  config.rope.base = base;
  const auto scaling = fields.object("rope_scaling"), parameters = fields.object("rope_parameters");
  if (scaling && parameters && scaling->raw() != parameters->raw())
    fields.fail("rope_scaling", "an object, beside rope_parameters", "one of the two");
  if (parameters && (parameters->has("full_attention") || parameters->has("sliding_attention"))) {
    if (!gemma)
      fields.fail("rope_parameters", "parameters by kind of layer", "one set for all layers");
    config.local_rope.base = local_base;
    if (const auto full = parameters->object("full_attention"))
      config.rope = read_rope(*full, base, "default");
    if (const auto sliding = parameters->object("sliding_attention"))
      config.local_rope = read_rope(*sliding, local_base, "default");
    return;
  }
  if (parameters)
    config.rope = read_rope(*parameters, base, "default");
  else if (scaling)
    config.rope = read_rope(*scaling, base, "");
  config.local_rope = config.rope;
  if (gemma) {  // windows keep their own base, and no rule but the plain one
    config.local_rope = rope_config{};
    config.local_rope.base = local_base;
  }
}

/// The window of each layer. Only Gemma-3 mixes by pattern; in Qwen the later layers have it.
inline std::vector<index_t> read_windows(const config_fields& fields, family f, index_t layers) {
  constexpr index_t longest = (index_t{1} << 31) - 1;
  std::vector<index_t> windows(static_cast<std::size_t>(layers), 0);
  if (f == family::llama) return windows;

  const bool in_use =
      f == family::mistral || f == family::gemma3 || fields.boolean_or("use_sliding_window", false);
  const index_t unsaid = fields.mentions("sliding_window") ? 0 : 4096;
  const index_t width = in_use ? fields.integer("sliding_window", 1, longest).value_or(unsaid) : 0;
  if (f == family::mistral) {
    windows.assign(windows.size(), width);
    return windows;
  }

  if (const json* types = fields.find("layer_types")) {
    if (!types->is_array() || types->size() != windows.size())
      fields.fail(
          "layer_types",
          types->is_array() ? std::to_string(types->size()) + " elements" : describe(*types),
          "a list of num_hidden_layers = " + std::to_string(layers) + " names");
    for (std::size_t i = 0; i < windows.size(); ++i) {
      const json& type = (*types)[i];
      const bool sliding = type == "sliding_attention";
      const std::string name = "layer_types[" + std::to_string(i) + "]";
      if (!sliding && type != "full_attention")
        fields.fail(name, describe(type), "full_attention or sliding_attention");
      if (sliding && width == 0)
        fields.fail(name, "sliding_attention without a sliding_window", "full_attention");
      windows[i] = sliding ? width : 0;
    }
    return windows;
  }

  if (f == family::gemma3) {
    const index_t pattern = fields.integer_or("sliding_window_pattern", 6, 1, longest);
    for (index_t i = 0; i < layers; ++i)
      if ((i + 1) % pattern != 0) windows[static_cast<std::size_t>(i)] = width;
    if (width == 0 && pattern > 1) fields.fail("sliding_window", "null", "a number of tokens");
    return windows;
  }
  const index_t first = fields.integer_or("max_window_layers", 28, 0, longest);
  for (index_t i = first; i < layers; ++i) windows[static_cast<std::size_t>(i)] = width;
  return windows;
}

inline model_config read_model_fields(const config_fields& fields, family f,
                                      const config_fields& outer) {
  const family_defaults defaults = defaults_of(f);
  // Products of two sizes, times the number of layers, then stay below 2^63.
  constexpr index_t widest = index_t{1} << 24, longest = (index_t{1} << 31) - 1;
  constexpr index_t deepest = 4096;

  model_config config;
  config.family = f;
  config.vocabulary = fields.integer_or("vocab_size", defaults.vocabulary, 2, longest);
  config.width = fields.integer_or("hidden_size", defaults.width, 1, widest);
  config.mlp_width = fields.integer_or("intermediate_size", defaults.mlp_width, 1, widest);
  config.layers = fields.integer_or("num_hidden_layers", defaults.layers, 1, deepest);
  config.heads = fields.integer_or("num_attention_heads", defaults.heads, 1, widest);
  const auto kv_heads = fields.integer("num_key_value_heads", 1, widest);
  config.kv_heads = kv_heads ? *kv_heads
                    : fields.mentions("num_key_value_heads")
                        ? config.heads
                        : defaults.kv_heads.value_or(config.heads);
  if (config.heads % config.kv_heads != 0)
    fields.fail("num_key_value_heads", std::to_string(config.kv_heads),
                "a divisor of num_attention_heads, " + std::to_string(config.heads));
  const auto head_size = fields.integer("head_dim", 1, widest);
  if (head_size) {
    config.head_size = *head_size;
  } else if (defaults.head_size && !fields.mentions("head_dim")) {
    config.head_size = *defaults.head_size;
  } else {
    if (config.width % config.heads != 0)
      fields.fail(
          "hidden_size", std::to_string(config.width),
          "a multiple of num_attention_heads, " + std::to_string(config.heads) + ", or a head_dim");
    config.head_size = config.width / config.heads;
  }
  if (config.head_size % 2 != 0)
    fields.fail("head_dim", std::to_string(config.head_size), "an even number");
  if (config.heads * config.head_size > widest)
    fields.fail("head_dim", std::to_string(config.head_size),
                "num_attention_heads * head_dim of at most 2^24");
  config.max_positions =
      fields.integer_or("max_position_embeddings", defaults.max_positions, 1, longest);

  const bool gemma = f == family::gemma3;
  config.norm_epsilon = fields.positive_or("rms_norm_eps", 1e-6);
  config.norm_plus_one = gemma;
  config.post_norms = gemma;
  config.qk_norm = gemma || f == family::qwen3;
  const bool asks_for_bias = f != family::mistral && f != family::qwen2;
  const bool bias = asks_for_bias && fields.boolean_or("attention_bias", false);
  config.qkv_bias = bias || f == family::qwen2;
  config.output_bias = bias;
  config.mlp_bias = f == family::llama && fields.boolean_or("mlp_bias", false);
  config.tied_head = fields.boolean_or("tie_word_embeddings", defaults.tied_head);

  if (gemma) config.embedding_scale = std::sqrt(static_cast<double>(config.width));
  const double query_size = gemma ? fields.positive_or("query_pre_attn_scalar", 256)
                                  : static_cast<double>(config.head_size);
  config.query_scale = 1 / std::sqrt(query_size);

  const std::string_view act = gemma ? "hidden_activation" : "hidden_act";
  const std::string activation = fields.string(act).value_or(gemma ? "gelu_pytorch_tanh" : "silu");
  if (activation == "gelu_pytorch_tanh" || activation == "gelu_new")
    config.activation = gate_activation::gelu_tanh;
  else if (activation == "silu" || activation == "swish")
    config.activation = gate_activation::silu;
  else
    fields.fail(act, in_quotes(activation), "silu or gelu_pytorch_tanh");

  read_ropes(fields, defaults.rope_base, config);
  config.windows = read_windows(fields, f, config.layers);

  fields.require_neutral("attn_logit_softcapping", nullptr);
  fields.require_neutral("final_logit_softcapping", nullptr);
  fields.require_neutral("use_bidirectional_attention", false);
  fields.require_neutral("partial_rotary_factor", 1.0);
  outer.require_neutral("quantization_config", nullptr);

  // A multimodal file says which ids end a text outside its text part.
  const auto ids = [&](std::string_view name, const std::vector<index_t>& otherwise) {
    return fields.mentions(name) ? fields.ids_or(name, {}) : outer.ids_or(name, otherwise);
  };
  const std::vector<index_t> bos = ids("bos_token_id", defaults.bos);
  config.bos_id = bos.empty() ? -1 : bos.front();
  config.eos_ids = ids("eos_token_id", defaults.eos);
  return config;
}

}  // namespace detail

/// The configuration in a JSON text.
/// \param name  of the file, for messages
/// \throws input_error  naming the field that is missing, of the wrong type, out of range, or asks
///                      for what is not implemented; field "model_type" for an unknown family
/// Source: the configuration classes of transformers 4.57; the names and defaults are theirs.
inline model_config read_model_config_text(std::string_view text, const std::string& name) {
  const detail::json document =
      detail::parse_document(name, "text", detail::without_mark(name, text));
  if (!document.is_object())
    throw input_error(name, "text", detail::describe(document), "an object");
  const detail::config_fields outer(name, document);
  const auto type = outer.string("model_type");
  if (!type)
    outer.fail("model_type", outer.mentions("model_type") ? "null" : "nothing",
               detail::known_families());

  std::optional<detail::config_fields> fields = outer;
  std::string inner_type = *type;
  if (*type == "gemma3") {
    fields = outer.object("text_config");
    if (!fields) outer.fail("text_config", "nothing", "an object, the text part of gemma3");
    inner_type = fields->string("model_type").value_or("gemma3_text");
  }
  const auto found = family_from(inner_type);
  if (!found || (*type == "gemma3" && *found != family::gemma3))
    fields->fail("model_type", detail::in_quotes(inner_type), detail::known_families());
  model_config config = detail::read_model_fields(*fields, *found, outer);
  for (const char* key : {"dtype", "torch_dtype"})
    for (const detail::config_fields& level : {outer, *fields})
      if (const auto dtype = level.string(key)) config.dtype = *dtype;
  config.validate();
  return config;
}

/// \param path  a config.json, or the folder that holds one
/// \copydoc read_model_config_text
inline model_config read_model_config(const std::string& path) {
  struct stat status {};
  const bool folder = ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  const std::string file = folder ? path + "/config.json" : path;
  return read_model_config_text(detail::read_text_file(file, index_t{1} << 24), file);
}

}  // namespace dualsft::llm
