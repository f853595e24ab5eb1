// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/llm/checkpoint.hpp>
#include <dualsft/llm/config_reader.hpp>
#include <dualsft/llm/record_tokens.hpp>
#include <dualsft/llm/tokenizer.hpp>
#include <dualsft/llm/transformer.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace dualsft::llm {

/// A Hugging Face checkpoint folder without its weights: what the model is and how it reads text.
struct model_folder {
  std::string path;
  model_config config;
  llm::tokenizer tokenizer;
  // Ids that the model has no embedding for are left out of these.
  std::optional<token_id> bos;     ///< in front of a text, if the tokenizer puts one there
  std::optional<token_id> eos;     ///< behind an answer
  std::vector<token_id> stop_ids;  ///< what ends an answer

  /// The tokenizer may have ids that the model has no embedding for, as Gemma 3's has: records that
  /// use one are bad ones, see tokens().
  /// \throws input_error  if config.json or tokenizer.json is missing, foreign or broken
  static model_folder open(const std::string& path) {
    model_folder out{path, read_model_config(path), llm::tokenizer::from_file(path), {}, {}, {}};
    // The post-processor says whether texts begin with a bos: an empty text shows what it adds.
    const std::vector<token_id> frame = out.tokenizer.encode("");
    const auto known = [&](token_id id) { return id >= 0 && id < out.config.vocabulary; };
    if (!frame.empty() && frame.front() == out.tokenizer.bos_id() && known(frame.front()))
      out.bos = frame.front();
    for (const token_id id : ids_of(out.config.eos_ids))
      if (known(id)) out.stop_ids.push_back(id);
    if (!out.stop_ids.empty())
      out.eos = out.stop_ids.front();
    else if (const auto id = out.tokenizer.eos_id(); id && known(*id))
      out.eos = id, out.stop_ids.push_back(*id);
    return out;
  }

  /// What tokenize_records needs to know of this model.
  tokenize_options tokens(index_t max_length, bool train_on_prompt) const {
    return {.max_length = max_length,
            .train_on_prompt = train_on_prompt,
            .bos = bos,
            .eos = eos,
            .vocabulary = config.vocabulary};
  }

  /// The model itself over a corpus, its weights read from the folder.
  /// \throws input_error  if the weights are not those of the config, before memory is taken
  template <class S>
  transformer<S> load(std::shared_ptr<const token_corpus> corpus,
                      transformer_options options = {}) const {
    const safetensors_checkpoint files(path);
    const weight_source checked(files, map_transformer(config).layout);
    options.initialise = false;
    transformer<S> model(config, std::move(corpus), options);
    read_weights(files, model.layout(), model.parameters());
    return model;
  }

 private:
  static std::vector<token_id> ids_of(const std::vector<index_t>& ids) {
    std::vector<token_id> out;
    for (const index_t id : ids)
      if (id <= index_t{0x7fffffff}) out.push_back(static_cast<token_id>(id));
    return out;
  }
};

}  // namespace dualsft::llm
