// Proves: checkpoints are read into the coordinates of the layout from every naming, sharding and
// type, refused with the tensor's name when they do not fit the config before anything is copied,
// written so that they read back bit for bit, and mapped rather than loaded.
// Against: tiny checkpoints that transformers 4.57.6 wrote, with sums and corner values by tensor
// (data/make_checkpoints.py); a table of altered checkpoints; /proc/self/status for memory.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <dualsft/llm/checkpoint.hpp>
#include <dualsft/llm/config_reader.hpp>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "support/scratch_folder.hpp"

#include <unistd.h>  // ftruncate

using namespace dualsft;
using namespace dualsft::llm;
using nlohmann::json;

namespace {

const std::string checkpoints = DUALSFT_SOURCE_DIR "/tests/llm/data/checkpoints/";

struct loaded {
  model_config config;
  parameter_layout layout;
  std::vector<double> theta;
};

loaded load(const std::string& folder) {
  loaded out;
  out.config = read_model_config(folder);
  out.layout = transformer_layout(out.config);
  out.theta.resize(static_cast<std::size_t>(out.layout.size()), -77);
  read_weights(safetensors_checkpoint(folder), out.layout, std::span(out.theta));
  return out;
}

/// A checkpoint in memory that tests alter before it is written and read.
struct draft {
  json config;
  std::vector<tensor_spec> specs;
  std::map<std::string, std::vector<float>> values;

  explicit draft(const std::string& folder) {
    config = json::parse(file_bytes(folder + "/config.json"));
    const safetensors_checkpoint files(folder);
    for (const tensor_info& t : files.tensors()) {
      specs.push_back({t.name, tensor_type::f32, t.shape});
      auto& v = values[t.name];
      v.resize(static_cast<std::size_t>(t.size));
      files.read(t.name, std::span(v));
    }
  }

  tensor_spec& spec(const std::string& name) {
    for (tensor_spec& s : specs)
      if (s.name == name) return s;
    throw std::runtime_error("no tensor " + name);
  }

  void remove(const std::string& name) {
    std::erase_if(specs, [&](const tensor_spec& s) { return s.name == name; });
  }

  void add(const std::string& name, std::vector<index_t> shape, float value) {
    index_t size = 1;
    for (const index_t n : shape) size *= n;
    specs.push_back({name, tensor_type::f32, std::move(shape)});
    values[name].assign(static_cast<std::size_t>(size), value);
  }

  void write(const scratch_folder& folder) const {
    folder.put("config.json", config.dump());
    safetensors_writer out(folder / "model.safetensors", specs);
    for (const tensor_spec& s : specs) {
      if (s.type == tensor_type::i64)
        out.write(s.name, std::vector<std::int64_t>(values.at(s.name).size(), 1));
      else
        out.write(s.name, values.at(s.name));
    }
    out.finish();
  }
};

/// What read_weights says of the llama checkpoint after a change; theta must be as it was.
input_error refusal(const std::function<void(draft&)>& change) {
  draft d(checkpoints + "llama-f32");
  change(d);
  const scratch_folder folder;
  d.write(folder);
  const parameter_layout layout = transformer_layout(read_model_config(folder / ""));
  std::vector<float> theta(static_cast<std::size_t>(layout.size()), 3.0f);
  try {
    read_weights(safetensors_checkpoint(folder / ""), layout, std::span(theta));
  } catch (const input_error& error) {
    CHECK(std::all_of(theta.begin(), theta.end(), [](float x) { return x == 3.0f; }));
    CHECK(error.file().ends_with("/model.safetensors"));
    return error;
  }
  return {"", "accepted", "", ""};
}

bool says(const std::string& text, std::string_view part) {
  const bool found = text.find(part) != text.npos;
  if (!found) MESSAGE("in: " << text);
  return found;
}

/// A line of /proc/self/status in bytes.
index_t memory(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(name + ":")) return std::stoll(line.substr(name.size() + 1)) * 1024;
  return -1;
}

}  // namespace

TEST_CASE("every tensor of transformers' checkpoints lands on its coordinates") {
  for (const char* name : {"llama-f32", "qwen2-bf16-sharded", "qwen3-f16", "gemma3-multimodal"}) {
    CAPTURE(name);
    const loaded model = load(checkpoints + name);
    const json truth = json::parse(file_bytes(checkpoints + name + "/truth.json"));
    CHECK(static_cast<index_t>(truth.size()) == model.layout.block_count());
    for (const parameter_block& block : model.layout.blocks()) {
      CAPTURE(block.name);
      REQUIRE(truth.contains(block.name));
      const json& expected = truth[block.name];
      CHECK(stored_shape(block) == expected["shape"].get<std::vector<index_t>>());
      const auto values = std::span(model.theta)
                              .subspan(static_cast<std::size_t>(block.offset),
                                       static_cast<std::size_t>(block.size()));
      double sum = 0;
      for (const double x : values) sum += x;
      CHECK(values.front() == expected["first"].get<double>());
      CHECK(values.back() == expected["last"].get<double>());
      CHECK(sum == doctest::Approx(expected["sum"].get<double>()).epsilon(1e-12));
    }
  }
}

TEST_CASE("a checkpoint that is written reads back bit for bit, in the types it came in") {
  for (const char* name : {"llama-f32", "qwen2-bf16-sharded", "qwen3-f16", "gemma3-multimodal"}) {
    for (const index_t shard_bytes : {index_t{1} << 40, index_t{700}, index_t{1}}) {
      CAPTURE(name);
      CAPTURE(shard_bytes);
      const std::string from = checkpoints + name;
      const loaded model = load(from);
      const std::vector<float> theta(model.theta.begin(), model.theta.end());
      const safetensors_checkpoint files(from);
      const weight_source source(files, model.layout);
      const scratch_folder out;
      const std::string config =
          text_model_config(file_bytes(from + "/config.json"), from + "/config.json");
      checkpoint_options options;
      options.types = source.types();
      options.shard_bytes = shard_bytes;
      write_checkpoint(out / "model", config, model.layout, std::span<const float>(theta), options);

      const loaded again = load(out / "model");
      CHECK(again.theta == model.theta);
      CHECK(again.layout == model.layout);
      const safetensors_checkpoint written(out / "model");
      CHECK(written.shards().size() == (shard_bytes > 1000000 ? 1u
                                        : shard_bytes == 1
                                            ? static_cast<std::size_t>(model.layout.block_count())
                                            : written.shards().size()));
      if (shard_bytes == 700) CHECK(written.shards().size() > 1);
      CHECK(written.shards()[0].metadata().at("format") == "pt");
      for (index_t b = 0; b < model.layout.block_count(); ++b) {
        const auto was = files.bytes(source.name(b));
        const auto is = written.bytes(model.layout.block(b).name);
        CHECK(std::equal(was.begin(), was.end(), is.begin(), is.end()));
      }
    }
  }
}

TEST_CASE("a smaller checkpoint replaces a sharded one, and the other way") {
  const loaded model = load(checkpoints + "llama-f32");
  const std::string config = file_bytes(checkpoints + "llama-f32/config.json");
  const scratch_folder out;
  for (const index_t shard_bytes : {index_t{600}, index_t{1} << 40, index_t{600}}) {
    std::vector<double> theta = model.theta;
    theta[3] = static_cast<double>(shard_bytes);
    checkpoint_options options;
    options.type = tensor_type::f64;
    options.shard_bytes = shard_bytes;
    write_checkpoint(out / "m", config, model.layout, std::span<const double>(theta), options);
    CHECK(load(out / "m").theta == theta);
  }
}

TEST_CASE("writing refuses what cannot be before it touches the folder") {
  const loaded model = load(checkpoints + "llama-f32");
  const scratch_folder out;
  const std::span<const double> theta(model.theta);
  checkpoint_options options;
  options.type = tensor_type::i64;
  CHECK_THROWS_AS(write_checkpoint(out / "m", "{}", model.layout, theta, options),
                  invalid_argument);
  options = {};
  options.types.resize(3);
  CHECK_THROWS_AS(write_checkpoint(out / "m", "{}", model.layout, theta, options),
                  invalid_argument);
  CHECK_THROWS_AS(write_checkpoint(out / "m", "{}", model.layout, theta.first(5)),
                  invalid_argument);
  CHECK(out.file_count() == 0);
  CHECK_THROWS_AS(write_checkpoint(out / "no/such", "{}", model.layout, theta), input_error);
}

TEST_CASE("missing, unknown and misshapen tensors are named") {
  CHECK(refusal([](draft&) {}).field() == "accepted");

  input_error error = refusal([](draft& d) {
    d.remove("model.layers.1.mlp.up_proj.weight");
    d.remove("model.norm.weight");
  });
  CHECK(error.field() == "tensors");
  CHECK(says(error.found(), "2 missing"));
  CHECK(says(error.found(), "'model.layers.1.mlp.up_proj.weight', 'model.norm.weight'"));

  error = refusal([](draft& d) { d.remove("lm_head.weight"); });
  CHECK(says(error.found(), "1 missing ('lm_head.weight')"));

  error = refusal([](draft& d) { d.config["num_hidden_layers"] = 1; });
  CHECK(says(error.found(), "9 unknown ('model.layers.1."));
  error = refusal([](draft& d) { d.config["num_hidden_layers"] = 40; });
  CHECK(says(error.found(), "342 missing ('model.layers.2.input_layernorm.weight'"));

  error = refusal([](draft& d) {
    d.remove("model.norm.weight");
    d.add("model.Norm.weight", {8}, 1);
  });
  CHECK(says(error.found(), "1 missing ('model.norm.weight') and 1 unknown ('model.Norm.weight')"));

  error = refusal([](draft& d) { d.add("model.layers.0.self_attn.q_proj.bias", {8}, 1); });
  CHECK(says(error.found(), "1 unknown ('model.layers.0.self_attn.q_proj.bias')"));
  // The vision part belongs to multimodal files only.
  error = refusal([](draft& d) { d.add("vision_tower.x", {1}, 1); });
  CHECK(says(error.found(), "'vision_tower.x'"));

  error = refusal([](draft& d) { d.config["intermediate_size"] = 11; });
  CHECK(error.field() == "tensor 'model.layers.0.mlp.gate_proj.weight' shape");
  CHECK(says(error.found(), "12"));
  CHECK(says(error.expected(), "11"));
  // The same number of values is not enough: transposed, flattened, a vector as a matrix.
  error = refusal([](draft& d) { d.spec("model.layers.0.mlp.down_proj.weight").shape = {12, 8}; });
  CHECK(error.field() == "tensor 'model.layers.0.mlp.down_proj.weight' shape");
  error = refusal([](draft& d) { d.spec("lm_head.weight").shape = {19 * 8}; });
  CHECK(error.field() == "tensor 'lm_head.weight' shape");
  error = refusal([](draft& d) { d.spec("model.norm.weight").shape = {8, 1}; });
  CHECK(error.field() == "tensor 'model.norm.weight' shape");

  error = refusal([](draft& d) { d.spec("model.norm.weight").type = tensor_type::i64; });
  CHECK(error.field() == "tensor 'model.norm.weight' dtype");
  CHECK(error.found() == "I64");

  // Rotary buffers of old files do no harm.
  CHECK(refusal([](draft& d) {
          d.add("model.layers.0.self_attn.rotary_emb.inv_freq", {2}, 1);
        }).field() == "accepted");
}

TEST_CASE("the spare head of a tied model must be the embedding") {
  const auto tie = [](draft& d) { d.config["tie_word_embeddings"] = true; };
  const input_error error = refusal(tie);
  CHECK(error.field() == "tensor 'lm_head.weight'");
  CHECK(refusal([&](draft& d) {
          tie(d);
          d.values["lm_head.weight"] = d.values["model.embed_tokens.weight"];
        }).field() == "accepted");
  CHECK(refusal([&](draft& d) {
          tie(d);
          d.remove("lm_head.weight");
        }).field() == "accepted");
}

TEST_CASE("names under model.language_model. are the same model") {
  draft d(checkpoints + "gemma3-multimodal");
  draft renamed = d;
  renamed.specs.clear();
  renamed.values.clear();
  const std::string hub = "language_model.model.";
  for (const tensor_spec& s : d.specs) {
    const bool text = s.name.starts_with(hub);
    const std::string name =
        text ? "model.language_model." + s.name.substr(hub.size()) : "model." + s.name;
    renamed.specs.push_back({name, s.type, s.shape});
    renamed.values[name] = d.values[s.name];
  }
  const scratch_folder folder;
  renamed.write(folder);
  CHECK(load(folder / "").theta == load(checkpoints + "gemma3-multimodal").theta);
}

TEST_CASE("truncated shards and an index that points nowhere") {
  const std::string from = checkpoints + "qwen2-bf16-sharded/";
  const auto copy = [&](const scratch_folder& to) {
    for (const char* name :
         {"config.json", "model.safetensors.index.json", "model-00001-of-00003.safetensors",
          "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"})
      to.put(name, file_bytes(from + name));
  };
  const auto field_of_failure = [&](const scratch_folder& folder) -> std::string {
    try {
      load(folder / "");
    } catch (const input_error& error) {
      return error.file().substr(error.file().rfind('/') + 1) + " " + error.field();
    }
    return "accepted";
  };
  {
    const scratch_folder folder;
    copy(folder);
    CHECK(field_of_failure(folder) == "accepted");
  }
  {
    const scratch_folder folder;
    copy(folder);
    const std::string shard = "model-00002-of-00003.safetensors";
    const std::string bytes = file_bytes(from + shard);
    folder.put(shard, bytes.substr(0, bytes.size() - 1));
    CHECK(says(field_of_failure(folder), shard));
  }
  {
    const scratch_folder folder;
    copy(folder);
    std::filesystem::remove(folder / "model-00003-of-00003.safetensors");
    CHECK(field_of_failure(folder) == "model-00003-of-00003.safetensors file");
  }
  {
    const scratch_folder folder;
    copy(folder);
    json index = json::parse(file_bytes(from + "model.safetensors.index.json"));
    index["weight_map"]["model.norm.weight"] = "../model-00003-of-00003.safetensors";
    folder.put("model.safetensors.index.json", index.dump());
    CHECK(says(field_of_failure(folder), "model.safetensors.index.json weight_map"));
  }
  {  // no weights at all
    const scratch_folder folder;
    folder.put("config.json", file_bytes(from + "config.json"));
    CHECK(says(field_of_failure(folder), "folder"));
  }
}

TEST_CASE("what stands beside the weights is copied") {
  const scratch_folder from, to;
  from.put("config.json", "{}");
  from.put("tokenizer.json", "{\"a\": 1}");
  from.put("generation_config.json", "");
  from.put("secrets.txt", "no");
  CHECK(copy_checkpoint_files(from / "", to / "out") ==
        std::vector<std::string>{"config.json", "tokenizer.json", "generation_config.json"});
  CHECK(file_bytes(to / "out/tokenizer.json") == "{\"a\": 1}");
  CHECK(!std::filesystem::exists(to / "out/secrets.txt"));
  CHECK(copy_checkpoint_files(from / "", to / "other", config_file::leave).size() == 2);
}

TEST_CASE("the text part of a multimodal config stands on its own") {
  const std::string outer = file_bytes(checkpoints + "gemma3-multimodal/config.json");
  const json inner = json::parse(text_model_config(outer, "config.json"));
  CHECK(inner["model_type"] == "gemma3_text");
  CHECK(inner["architectures"] == json::array({"Gemma3ForCausalLM"}));
  CHECK(inner["eos_token_id"] == json{1, 6});
  CHECK(inner["hidden_size"] == 8);
  const std::string plain = file_bytes(checkpoints + "llama-f32/config.json");
  CHECK(text_model_config(plain, "config.json") == plain);
}

TEST_CASE("memory grows with what is touched, not with the file") {
  // 4 GiB in a sparse file: a vocabulary of 2^20 by 1024 floats, and nothing else to speak of.
  const scratch_folder folder;
  constexpr index_t rows = index_t{1} << 20, cols = 1024, bytes = rows * cols * 4;
  std::string header = R"({"model.embed_tokens.weight":{"dtype":"F32","shape":[1048576,1024],)"
                       R"("data_offsets":[0,4294967296]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = header.size();
  const std::string path = folder.put(
      "model.safetensors", std::string(reinterpret_cast<const char*>(&length), 8) + header);
  if (::truncate(path.c_str(), static_cast<off_t>(8 + header.size()) + bytes) != 0) {
    MESSAGE("skipped: this file system has no sparse files of 4 GiB");
    return;
  }
  parameter_layout layout;
  layout.add("model.embed_tokens.weight", rows, cols, -1, "embedding");

  const index_t before = memory("VmRSS");
  if (before < 0) {
    MESSAGE("skipped: no /proc/self/status");
    return;
  }
  const safetensors_checkpoint files(folder / "");
  const weight_source source(files, layout);
  CHECK(memory("VmRSS") - before < index_t{8} << 20);

  std::vector<float> part(std::size_t{1} << 20);  // 4 MiB from the middle of the file
  source.read(0, std::span(part), rows / 2 * cols);
  const index_t after = memory("VmRSS");
  MESSAGE("4 GiB file: resident +" << (after - before) / 1024 << " KiB after reading 4096 KiB");
  CHECK(after - before < index_t{24} << 20);
  CHECK(std::all_of(part.begin(), part.end(), [](float x) { return x == 0; }));
}
