// SPDX-License-Identifier: Apache-2.0
#include "init.hpp"

#include <sys/stat.h>

#include <dualsft/io/atomic_file.hpp>
#include <dualsft/llm/checkpoint.hpp>
#include <dualsft/llm/config_reader.hpp>
#include <dualsft/llm/tokenizer.hpp>
#include <dualsft/llm/transformer.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "terminal.hpp"
#include "usage_error.hpp"

namespace dualsft::cli {

namespace {

using namespace dualsft::llm;
using nlohmann::json;

/// The type that config.json says weights have; float32 if it does not.
tensor_type stored_type(const json& config, const std::string& file) {
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (!config.contains(key) || config[key].is_null()) continue;
    const json& value = config[key];
    if (value == "float32") return tensor_type::f32;
    if (value == "bfloat16") return tensor_type::bf16;
    if (value == "float16") return tensor_type::f16;
    if (value == "float64") return tensor_type::f64;
    throw input_error(file, key, value.dump(), "float32, bfloat16, float16 or float64");
  }
  return tensor_type::f32;
}

void write_text(const std::string& path, const std::string& text) {
  atomic_file file(path);
  file.write(text);
  file.commit();
}

}  // namespace

void run_init(const init_options& options, std::ostream& out) {
  for (const char* name : {"/config.json", "/model.safetensors", "/model.safetensors.index.json",
                           "/tokenizer.json", "/tokenizer_config.json"})
    if (struct stat there{}; ::stat((options.out + name).c_str(), &there) == 0)
      throw usage_error("--out " + options.out + ": holds a checkpoint already, or a part of one");
  const bool bytes = options.tokenizer == "bytes";
  const tokenizer words = bytes ? tokenizer::bytes() : tokenizer::from_file(options.tokenizer);
  struct stat found {};
  const bool folder = ::stat(options.config.c_str(), &found) == 0 && S_ISDIR(found.st_mode);
  const std::string config_file = folder ? options.config + "/config.json" : options.config;
  std::string text =
      text_model_config(llm::detail::read_text_file(config_file, index_t{1} << 24), config_file);
  const model_config config = read_model_config_text(text, config_file);
  if (words.vocabulary_size() > config.vocabulary)
    throw input_error(config_file, "vocab_size", std::to_string(config.vocabulary),
                      "at least the tokenizer's " + std::to_string(words.vocabulary_size()));

  json document = json::parse(text);
  const tensor_type type = stored_type(document, config_file);
  if (bytes) {  // the families' defaults are ids of other tokenizers
    const std::pair<const char*, token_id> ids[] = {
        {"bos_token_id", 256}, {"eos_token_id", 257}, {"pad_token_id", 258}};
    for (const auto& [key, id] : ids)
      if (!document.contains(key)) document[key] = id;
    text = document.dump(2) + "\n";
  }

  transformer<float> model(config, std::make_shared<const token_corpus>(),
                           {.threads = options.threads});
  model.init(options.seed);
  stop_if_interrupted();
  std::error_code error;
  std::filesystem::create_directories(options.out, error);
  if (error) throw input_error(options.out, "output", error.message(), "a writable place");
  const std::string place = options.out + "/tokenizer.json";
  if (bytes)
    words.save(place);
  else
    write_text(place, llm::detail::read_text_file(options.tokenizer, index_t{1} << 30));
  json settings{{"tokenizer_class", "PreTrainedTokenizerFast"}};
  if (const auto id = words.bos_id()) settings["bos_token"] = words.token_of(*id);
  if (const auto id = words.eos_id()) settings["eos_token"] = words.token_of(*id);
  write_text(options.out + "/tokenizer_config.json", settings.dump(2) + "\n");
  write_checkpoint(options.out, text, model.layout(),
                   std::span<const float>(std::as_const(model).parameters()), {.type = type});

  const index_t d = model.layout().size();
  if (options.json)
    out << json{{"out", options.out},
                {"family", name_of(config.family)},
                {"parameters", d},
                {"vocabulary", config.vocabulary},
                {"seed", options.seed}}
               .dump()
        << '\n';
  else
    out << options.out << ": " << name_of(config.family) << ", " << d << " parameters, seed "
        << options.seed << '\n';
}

}  // namespace dualsft::cli
