// Proves: config.json of every family is read as transformers reads it (sizes, defaults, windows,
// rotary frequencies, scales, tensor names and shapes), and what is not implemented or malformed is
// refused with the name of the field.
// Against: data/config_truth.json, which transformers 4.57.6 wrote (data/make_configs.py); parameter
// counts as the models' cards publish them; a table of hostile files.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <dualsft/llm/config_reader.hpp>
#include <dualsft/llm/parameter_names.hpp>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/scratch_folder.hpp"

using namespace dualsft;
using namespace dualsft::llm;
using nlohmann::json;

namespace {

const std::string data = DUALSFT_SOURCE_DIR "/tests/llm/data/";

std::string config_path(const std::string& name) {
  return data + "configs/" + name + ".json";
}

model_config config_of(const std::string& text) {
  return read_model_config_text(text, "config.json");
}

/// A small llama with these fields over it; null removes nothing, it stands as null.
std::string llama_with(const json& changes) {
  json config = {{"model_type", "llama"},   {"vocab_size", 97},       {"hidden_size", 48},
                 {"intermediate_size", 80}, {"num_hidden_layers", 3}, {"num_attention_heads", 6},
                 {"num_key_value_heads", 2}};
  config.update(changes);
  return config.dump();
}

std::string names_and_shapes_hash(const parameter_layout& layout) {
  std::vector<std::string> lines;
  for (const parameter_block& block : layout.blocks()) {
    std::string shape;
    for (const index_t n : stored_shape(block))
      shape += (shape.empty() ? "" : ", ") + std::to_string(n);
    lines.push_back(block.name + " [" + shape + "]\n");
  }
  std::sort(lines.begin(), lines.end());
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const std::string& line : lines)
    for (const char c : line) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(h));
  return text;
}

/// The field that a config's refusal names; "" if it is not refused.
std::string refused_field(const std::string& text, std::string* message = nullptr) {
  try {
    config_of(text);
  } catch (const input_error& error) {
    if (message != nullptr) *message = error.what();
    CHECK(error.file() == "config.json");
    return error.field();
  }
  return {};
}

}  // namespace

TEST_CASE("every configuration is what transformers makes of it") {
  const json truth = json::parse(file_bytes(data + "config_truth.json"));
  REQUIRE(truth.size() >= 20);
  for (const auto& [name, expected] : truth.items()) {
    const std::string model = name;  // clang 14 captures no structured binding
    CAPTURE(model);
    const model_config config = read_model_config(config_path(name));
    const parameter_layout layout = transformer_layout(config);
    CHECK(layout.size() == expected["parameters"].get<index_t>());
    CHECK(layout.block_count() == expected["tensors"].get<index_t>());
    CHECK(names_and_shapes_hash(layout) == expected["names_and_shapes_fnv1a"].get<std::string>());
    CHECK(config.windows == expected["windows"].get<std::vector<index_t>>());
    CHECK(config.query_scale ==
          doctest::Approx(expected["query_scale"].get<double>()).epsilon(1e-15));
    CHECK(config.norm_epsilon == expected["norm_epsilon"].get<double>());
    CHECK(config.max_positions == expected["max_positions"].get<index_t>());
    CHECK(config.tied_head == expected["tied_head"].get<bool>());
    const bool gelu = config.activation == gate_activation::gelu_tanh;
    const auto activation = expected["activation"].get<std::string>();
    CHECK((gelu ? "GELU" : "SiLU") == activation.substr(activation.find_first_of("GS"), 4));

    // transformers computes them in float32: a few roundings of 2^-24.
    const auto frequencies = config.rope.frequencies(config.head_size);
    const auto expected_frequencies = expected["frequencies"].get<std::vector<double>>();
    REQUIRE(frequencies.size() == expected_frequencies.size());
    for (std::size_t k = 0; k < frequencies.size(); ++k)
      CHECK(frequencies[k] == doctest::Approx(expected_frequencies[k]).epsilon(1e-6));

    if (config.family == family::gemma3) {
      CHECK(config.local_rope.base == expected["local_base"].get<double>());
      CHECK(config.local_rope.rule == rope_rule::plain);
      CHECK(static_cast<float>(config.embedding_scale) ==
            expected["embedding_scale_float32"].get<float>());
    } else {
      CHECK(config.embedding_scale == 1);
      CHECK(config.local_rope.frequencies(config.head_size) == frequencies);
    }

    const json& bos = expected["bos"];
    CHECK(config.bos_id == (bos.is_null() ? -1 : bos.get<index_t>()));
    const json& eos = expected["eos"];
    CHECK(config.eos_ids == (eos.is_null()    ? std::vector<index_t>{}
                             : eos.is_array() ? eos.get<std::vector<index_t>>()
                                              : std::vector<index_t>{eos.get<index_t>()}));
  }
}

TEST_CASE("the number of parameters is the published one") {
  const std::pair<const char*, index_t> models[] = {
      {"llama-2-7b", 6'738'415'616},      {"llama-3.1-8b", 8'030'261'248},
      {"llama-3.2-1b", 1'235'814'400},    {"llama-3.2-3b", 3'212'749'824},
      {"mistral-7b-v0.1", 7'241'732'096}, {"qwen2.5-0.5b", 494'032'768},
      {"qwen3-0.6b", 596'049'920},        {"gemma-3-270m", 268'098'176},
      {"gemma-3-1b", 999'885'952}};
  for (const auto& [name, parameters] : models) {
    const std::string model = name;
    CAPTURE(model);
    const transformer_map map = map_transformer(read_model_config(config_path(name)));
    CHECK(map.layout.size() == parameters);
    // The map leads where it says.
    CHECK(map.layout.block(map.embedding).module == "embedding");
    CHECK(map.layout.block(map.final_norm).name == "model.norm.weight");
    CHECK((map.head == map.embedding || map.layout.block(map.head).name == "lm_head.weight"));
    const layer_blocks& last = map.layers.back();
    CHECK(map.layout.block(last.o).module == "attention.o");
    CHECK(map.layout.block(last.down).module == "mlp.down");
    CHECK(map.layout.block(last.mlp_norm).module == "norm.mlp");
    CHECK(map.layout.block(last.mlp_norm).layer + 1 == static_cast<int>(map.layers.size()));
  }
}

TEST_CASE("the name before the MLP's norm depends on whether there is one behind the attention") {
  const transformer_map plain = map_transformer(read_model_config(config_path("qwen3-0.6b")));
  CHECK(plain.layout.block(plain.layers[0].mlp_norm).name ==
        "model.layers.0.post_attention_layernorm.weight");
  CHECK(plain.layers[0].attention_post_norm == -1);
  const transformer_map gemma = map_transformer(read_model_config(config_path("gemma-3-1b")));
  CHECK(gemma.layout.block(gemma.layers[0].mlp_norm).name ==
        "model.layers.0.pre_feedforward_layernorm.weight");
  CHECK(gemma.layout.block(gemma.layers[0].attention_post_norm).name ==
        "model.layers.0.post_attention_layernorm.weight");
}

TEST_CASE("the layout of rotary parameters of transformers 5 means the same") {
  const json llama3 = {{"factor", 32.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 8192},
                       {"rope_type", "llama3"}};
  json inside = llama3;
  inside["rope_theta"] = 500000.0;
  const model_config old_way =
      config_of(llama_with({{"rope_theta", 500000.0}, {"rope_scaling", llama3}}));
  const model_config new_way = config_of(llama_with({{"rope_parameters", inside}}));
  CHECK(old_way.rope.rule == rope_rule::llama3);
  CHECK(old_way.rope.frequencies(8) == new_way.rope.frequencies(8));
  CHECK(new_way.local_rope.frequencies(8) == new_way.rope.frequencies(8));

  json gemma = json::parse(file_bytes(config_path("gemma-3-270m")));
  gemma.erase("rope_theta");
  gemma.erase("rope_local_base_freq");
  gemma.erase("torch_dtype");
  gemma["dtype"] = "float32";
  gemma["rope_parameters"] = {
      {"full_attention", {{"rope_type", "linear"}, {"factor", 8}, {"rope_theta", 5e5}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 123.0}}}};
  const model_config config = config_of(gemma.dump());
  CHECK(config.rope.base == 5e5);
  CHECK(config.rope.rule == rope_rule::linear);
  CHECK(config.rope.factor == 8);
  CHECK(config.local_rope.base == 123);
  CHECK(config.local_rope.rule == rope_rule::plain);
  CHECK(config.dtype == "float32");
  gemma["rope_parameters"].erase("sliding_attention");
  CHECK(config_of(gemma.dump()).local_rope.base == 1e4);
}

TEST_CASE("a folder stands for its config.json") {
  const scratch_folder folder;
  folder.put("config.json", llama_with(json::object()));
  CHECK(read_model_config(folder / "").width == 48);
  CHECK(read_model_config(folder / "config.json").width == 48);
  const scratch_folder empty;
  CHECK_THROWS_AS(read_model_config(empty / ""), input_error);
}

TEST_CASE("other families are refused by name, with those that are known") {
  std::string message;
  CHECK(refused_field(R"({"model_type": "mixtral"})", &message) == "model_type");
  for (const char* word : {"'mixtral'", "llama", "mistral", "qwen2", "qwen3", "gemma3_text"})
    CHECK(message.find(word) != std::string::npos);
  CHECK(refused_field("{}") == "model_type");
  CHECK(refused_field(R"({"model_type": null})") == "model_type");
  CHECK(refused_field(R"({"model_type": 3})") == "model_type");
  CHECK(refused_field(R"({"model_type": "gemma3"})") == "text_config");
  CHECK(refused_field(R"({"model_type": "gemma3", "text_config": {"model_type": "llama"}})") ==
        "text_config.model_type");
  CHECK(refused_field(R"({"model_type": "gemma3", "text_config": {"hidden_size": "x"}})") ==
        "text_config.hidden_size");
}

TEST_CASE("hostile values name their field") {
  const std::tuple<const char*, json, const char*> cases[] = {
      {"hidden_size", -4, "hidden_size"},
      {"hidden_size", 0, "hidden_size"},
      {"hidden_size", "48", "hidden_size"},
      {"hidden_size", 48.0, "hidden_size"},
      {"hidden_size", nullptr, "hidden_size"},
      {"hidden_size", 9223372036854775808u, "hidden_size"},
      {"hidden_size", 18446744073709551615u, "hidden_size"},
      {"hidden_size", 1e300, "hidden_size"},
      {"hidden_size", json::array(), "hidden_size"},
      {"hidden_size", 50, "hidden_size"},  // 6 heads do not divide it
      {"num_hidden_layers", 1000000000, "num_hidden_layers"},
      {"num_hidden_layers", true, "num_hidden_layers"},
      {"num_attention_heads", 0, "num_attention_heads"},
      {"num_key_value_heads", 4, "num_key_value_heads"},
      {"num_key_value_heads", -2, "num_key_value_heads"},
      {"head_dim", 7, "head_dim"},
      {"head_dim", 16777216, "head_dim"},
      {"vocab_size", 4294967296, "vocab_size"},
      {"rms_norm_eps", 0, "rms_norm_eps"},
      {"rms_norm_eps", "1e-5", "rms_norm_eps"},
      {"rope_theta", -1, "rope_theta"},
      {"rope_theta", nullptr, "rope_theta"},
      {"hidden_act", "relu", "hidden_act"},
      {"hidden_act", 5, "hidden_act"},
      {"tie_word_embeddings", "yes", "tie_word_embeddings"},
      {"attention_bias", 1, "attention_bias"},
      {"bos_token_id", -1, "bos_token_id"},
      {"bos_token_id", "<s>", "bos_token_id"},
      {"eos_token_id", json{1, -2}, "eos_token_id[1]"},
      {"eos_token_id", json{1, "x"}, "eos_token_id[1]"},
      {"quantization_config", json::object(), "quantization_config"},
      {"final_logit_softcapping", 30.0, "final_logit_softcapping"},
      {"attn_logit_softcapping", 50.0, "attn_logit_softcapping"},
      {"use_bidirectional_attention", true, "use_bidirectional_attention"},
      {"partial_rotary_factor", 0.5, "partial_rotary_factor"},
      {"rope_scaling", "linear", "rope_scaling"},
      {"rope_scaling", json::object(), "rope_scaling.rope_type"},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}, "rope_scaling.rope_type"},
      {"rope_scaling", {{"type", "dynamic"}, {"factor", 4.0}}, "rope_scaling.type"},
      {"rope_scaling", {{"type", "linear"}, {"rope_type", "llama3"}}, "rope_scaling.type"},
      {"rope_scaling", {{"type", "linear"}}, "rope_scaling.factor"},
      {"rope_scaling", {{"type", "linear"}, {"factor", 0}}, "rope_scaling.factor"},
      {"rope_scaling", {{"type", "linear"}, {"factor", nullptr}}, "rope_scaling.factor"},
      {"rope_scaling",
       {{"type", "llama3"},
        {"factor", 8},
        {"low_freq_factor", 4},
        {"high_freq_factor", 4},
        {"original_max_position_embeddings", 8192}},
       "rope_scaling.high_freq_factor"},
      {"rope_parameters", {{"full_attention", json::object()}}, "rope_parameters"},
      {"torch_dtype", 16, "torch_dtype"},
  };
  for (const auto& [name, value, field] : cases) {
    const std::string change = std::string(name) + ": " + value.dump();
    CAPTURE(change);
    CHECK(refused_field(llama_with({{name, value}})) == field);
  }
  CHECK(refused_field(llama_with(json::object())).empty());  // fails for one reason only
}

TEST_CASE("hostile lists of layer types") {
  const auto qwen = [](const json& changes) {
    json config = json::parse(llama_with(changes));
    config["model_type"] = "qwen2";
    return config.dump();
  };
  CHECK(refused_field(qwen({{"layer_types", json{"full_attention"}}})) == "layer_types");
  CHECK(refused_field(qwen({{"layer_types", "full_attention"}})) == "layer_types");
  CHECK(refused_field(qwen({{"layer_types", json{"full_attention", 3, "full_attention"}}})) ==
        "layer_types[1]");
  CHECK(refused_field(qwen({{"layer_types", json{"full_attention", "full_attention",
                                                 "linear_attention"}}})) == "layer_types[2]");
  CHECK(refused_field(qwen({{"layer_types", json{"sliding_attention", "full_attention",
                                                 "full_attention"}}})) == "layer_types[0]");
  CHECK(refused_field(qwen({{"use_sliding_window", true}, {"sliding_window", 0}})) ==
        "sliding_window");
  CHECK(refused_field(qwen({{"use_sliding_window", true}, {"max_window_layers", -1}})) ==
        "max_window_layers");
  CHECK(refused_field(qwen(json::object())).empty());
}

TEST_CASE("hostile texts") {
  const std::string deep = "{\"model_type\":" + std::string(100000, '[');
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), deep,
        std::string("{\"model_type\": \"llama\"} x"), std::string("{\"model_type\": \"\xff\"}"),
        std::string("{\"model_type\": \"\\ud800\"}"), std::string("{\"hidden_size\": NaN}"),
        std::string("{\"model_type\": \"llama\"}\0 ", 25), std::string("\xff\xfe{\0}\0", 6),
        std::string("{\"vocab_size\": 1e999}"), std::string("/**/{}")}) {
    CAPTURE(text.substr(0, 40));
    CHECK_THROWS_AS(config_of(text), input_error);
  }
  CHECK(refused_field(R"({"model_type": "llama", "a": {"b": 1, "b": 2}})") == "text, field 'b'");
  CHECK(config_of("\xef\xbb\xbf" + llama_with(json::object())).width == 48);
}
