// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/order.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What distinguishes one decoder-only transformer from another: the content of config.json in the
/// terms of the forward pass. The families differ in these values alone; transformer.hpp knows no
/// family by name.
///
///     h_0 = s_e E[id]
///     per layer:  h += post_a(Attention(norm_a(h)));  h += post_m(MLP(norm_m(h)))
///     z = W_head norm(h)
///
/// norm is x / rms(x) .* (w + 1 or 0); post_a, post_m are norms where post_norms, else identities.
namespace dualsft::llm {

enum class family { llama, mistral, qwen2, qwen3, gemma3 };

namespace detail {
inline constexpr std::array<std::pair<std::string_view, family>, 5> family_names{
    {{"llama", family::llama},
     {"mistral", family::mistral},
     {"qwen2", family::qwen2},
     {"qwen3", family::qwen3},
     {"gemma3_text", family::gemma3}}};
}  // namespace detail

/// The model_type of config.json.
constexpr std::string_view name_of(family f) {
  return dualsft::detail::to_name(detail::family_names, f);
}
constexpr std::optional<family> family_from(std::string_view name) {
  return dualsft::detail::from_name(detail::family_names, name);
}

enum class gate_activation {
  silu,       ///< z / (1 + exp(-z))
  gelu_tanh,  ///< z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))
};

enum class rope_rule {
  plain,   ///< f_k = base^(-2k / head_size)
  linear,  ///< f_k / factor
  llama3,  ///< long wavelengths divided by factor, short ones kept, a ramp between
};

/// Rotary frequencies of one kind of layer.
struct rope_config {
  double base = 10000;
  rope_rule rule = rope_rule::plain;
  double factor = 1;
  double low_frequency_factor = 1;       ///< llama3 only
  double high_frequency_factor = 4;      ///< llama3 only
  double original_max_positions = 8192;  ///< llama3 only

  /// f_k [head_size / 2], in double. Source: transformers' modeling_rope_utils (formulas).
  std::vector<double> frequencies(index_t head_size) const {
    std::vector<double> f;
    for (index_t k = 0; k < head_size / 2; ++k) {
      double x = std::pow(base, -2.0 * static_cast<double>(k) / static_cast<double>(head_size));
      if (rule == rope_rule::linear) x /= factor;
      if (rule == rope_rule::llama3) {
        const double wavelength = 2 * 3.141592653589793238462643383279502884 / x;
        const double low = original_max_positions / low_frequency_factor;
        const double high = original_max_positions / high_frequency_factor;
        if (wavelength > low) {
          x /= factor;
        } else if (wavelength >= high) {
          const double smooth = (original_max_positions / wavelength - low_frequency_factor) /
                                (high_frequency_factor - low_frequency_factor);
          x = (1 - smooth) * x / factor + smooth * x;
        }
      }
      f.push_back(x);
    }
    return f;
  }
};

struct model_config {
  llm::family family = family::llama;
  index_t vocabulary = 0;
  index_t width = 0;      ///< hidden_size
  index_t mlp_width = 0;  ///< intermediate_size
  index_t layers = 0;
  index_t heads = 0;
  index_t kv_heads = 0;   ///< divides heads
  index_t head_size = 0;  ///< even
  index_t max_positions = 0;

  double norm_epsilon = 1e-6;
  bool norm_plus_one = false;  ///< norms scale by 1 + w
  bool post_norms = false;     ///< norms behind attention and MLP too
  bool qk_norm = false;        ///< norms over each head of q and k, before the rotation

  bool qkv_bias = false;
  bool output_bias = false;  ///< of the attention's output projection
  bool mlp_bias = false;
  bool tied_head = false;  ///< the head is the embedding

  double embedding_scale = 1;  ///< s_e; rounded to the checkpoint's type by transformers
  double query_scale = 0;      ///< scores are query_scale <q, k>; 1 / sqrt(head_size) in most
  gate_activation activation = gate_activation::silu;

  rope_config rope;        ///< layers that see everything before them
  rope_config local_rope;  ///< layers with a sliding window
  /// Tokens that a layer sees, itself included; 0: all before it. [layers]
  std::vector<index_t> windows;

  index_t bos_id = -1;
  std::vector<index_t> eos_ids;
  std::string dtype;  ///< of the checkpoint, as its config names it ("bfloat16"); may be empty

  /// \throws invalid_argument  naming the first rule that these values break
  void validate() const {
    const auto at_least = [](index_t value, index_t least, std::string_view name) {
      expects(value >= least, "model_config", "a size is too small", "name", name, "value", value,
              "least", least);
    };
    at_least(vocabulary, 2, "vocabulary");
    at_least(width, 1, "width");
    at_least(mlp_width, 1, "mlp_width");
    at_least(layers, 1, "layers");
    at_least(heads, 1, "heads");
    at_least(kv_heads, 1, "kv_heads");
    at_least(head_size, 2, "head_size");
    expects(heads % kv_heads == 0, "model_config", "kv_heads must divide heads", "heads", heads,
            "kv_heads", kv_heads);
    expects(head_size % 2 == 0, "model_config", "head_size must be even", "head_size", head_size);
    expects(norm_epsilon > 0, "model_config", "norm_epsilon must be positive", "norm_epsilon",
            norm_epsilon);
    expects(std::isfinite(query_scale) && query_scale > 0, "model_config",
            "query_scale must be positive", "query_scale", query_scale);
    expects(static_cast<index_t>(windows.size()) == layers, "model_config", "one window per layer",
            "windows", windows.size(), "layers", layers);
    for (const index_t w : windows) at_least(w, 0, "window");
  }
};

}  // namespace dualsft::llm
