// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <dualsft/llm/detail/added_tokens.hpp>
#include <dualsft/llm/detail/bpe.hpp>
#include <dualsft/llm/detail/pre_tokenizer.hpp>
#include <dualsft/llm/detail/text_normalizer.hpp>
#include <dualsft/llm/detail/token_decoder.hpp>
#include <dualsft/llm/detail/tokenizer_json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

/// A tokenizer file put to work. The order of things is that of the `tokenizers` package: added
/// tokens are taken out of the raw text; each stretch between is normalized; added tokens that ask
/// for it are taken out of the normalized text; what remains is cut into words, and each is merged.
namespace dualsft::llm::detail {

/// The ids that a post-processor puts around a text.
struct text_frame {
  std::vector<token_id> front, back;
};

class tokenizer_core {
 public:
  tokenizer_core(std::string_view text, const std::string& file)
      : tokenizer_core(parse(text, file), file) {}

  void encode(std::string_view text, bool framed, std::vector<token_id>& out) const {
    if (framed) out.insert(out.end(), frame_.front.begin(), frame_.front.end());
    text_normalizer::buffers space;
    bpe_scratch scratch;
    raw_matcher_.split(text, [&](std::string_view piece, token_id id) {
      if (id >= 0) return out.push_back(id);
      const bool first = piece.data() == text.data();
      const std::string_view normal = normalizer_.run(piece, space);
      normalized_matcher_.split(normal, [&](std::string_view part, token_id part_id) {
        if (part_id >= 0) return out.push_back(part_id);
        pre_tokenizer_.run(part, first && part.data() == normal.data(),
                           [&](std::string_view word) { model_.encode(word, scratch, out); });
      });
    });
    if (framed) out.insert(out.end(), frame_.back.begin(), frame_.back.end());
  }

  std::string decode(std::span<const token_id> ids, bool skip_special) const {
    std::vector<std::string> tokens;
    for (const token_id id : ids)
      if (has(id) && !(skip_special && special_[static_cast<std::size_t>(id)] != 0))
        tokens.emplace_back(token_of(id));
    return decoder_.run(std::move(tokens));
  }

  index_t size() const { return static_cast<index_t>(rows_.size()); }

  bool has(token_id id) const {
    return id >= 0 && id < size() && rows_[static_cast<std::size_t>(id)] != no_row;
  }

  std::string_view token_of(token_id id) const {
    const std::size_t row = rows_[static_cast<std::size_t>(id)];
    return row < model_.size() ? model_.text(row) : added_texts_[row - model_.size()];
  }

  std::optional<token_id> id_of(std::string_view token) const {
    const auto found = added_ids_.find(std::string(token));
    return found != added_ids_.end() ? found->second : model_.id_of(token);
  }

  bool special(token_id id) const { return special_[static_cast<std::size_t>(id)] != 0; }
  const text_frame& frame() const { return frame_; }

 private:
  static constexpr std::uint32_t no_row = UINT32_MAX;

  static tokenizer_json_parser parse(std::string_view text, const std::string& file) {
    tokenizer_json_parser parser(file);
    parser.read(text);
    return parser;
  }

  tokenizer_core(const tokenizer_json_parser& file, const std::string& name)
      : tokenizer_core(file, json_field(file.document, name, "")) {}

  tokenizer_core(const tokenizer_json_parser& file, const json_field& root)
      : normalizer_(root["normalizer"]),
        pre_tokenizer_(root["pre_tokenizer"]),
        decoder_(root["decoder"]),
        model_(checked(file.tables, root["model"]),
               read_options(root["model"], pre_tokenizer_.byte_level()), root.file()) {
    number_tokens(root);
    add_tokens(root["added_tokens"]);
    if (!root["post_processor"].is_null()) read_frame(root["post_processor"]);
  }

  static const tokenizer_tables& checked(const tokenizer_tables& tables, const json_field& model) {
    if (!model.is_object()) model.wrong_type("an object");
    const json_field type = model["type"];
    if (!type.is_null() && type.text() != "BPE") model.refuse_type("model", "BPE");
    if (!tables.has_vocabulary) model["vocab"].wrong_type("an object of tokens and ids");
    if (!tables.has_merges) model["merges"].wrong_type("a list of pairs");
    return tables;
  }

  static bpe_options read_options(const json_field& model, bool byte_level) {
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!model[key].is_null() && !model[key].text().empty())
        model[key].fail(dualsft::detail::in_quotes(model[key].text()) + ", which is not supported",
                        "null or an empty string");
    const json_field dropout = model["dropout"];
    if (!dropout.is_null() && dropout.number() != 0)
      dropout.fail("a probability, which would make ids random", "null or 0");
    bpe_options options;
    options.byte_level = byte_level;
    options.byte_fallback = model["byte_fallback"].flag(false);
    options.fuse_unknown = model["fuse_unk"].flag(false);
    options.ignore_merges = model["ignore_merges"].flag(false);
    if (!model["unk_token"].is_null()) options.unknown = model["unk_token"].text();
    return options;
  }

  // Ids may leave gaps, but tables are laid out by id: a small file must not ask for large ones.
  void put(token_id id, std::size_t row, const json_field& where) {
    const auto at = static_cast<std::size_t>(id);
    const std::size_t limit = 8 * (model_.size() + added_texts_.size()) + 65536;
    if (at >= limit)
      where.fail("the id " + std::to_string(id),
                 "ids below " + std::to_string(limit) + " for so few tokens");
    if (at >= rows_.size()) {
      rows_.resize(at + 1, no_row);
      special_.resize(at + 1, 0);
    }
    if (rows_[at] != no_row)
      where.fail("the id " + std::to_string(id) + ", which " +
                     dualsft::detail::in_quotes(token_of(id)) + " has too",
                 "an id of its own for each token");
    rows_[at] = static_cast<std::uint32_t>(row);
  }

  void number_tokens(const json_field& root) {
    const json_field vocabulary = root["model"]["vocab"];
    for (std::size_t row = 0; row < model_.size(); ++row)
      put(static_cast<token_id>(model_.id_of_row(row)), row, vocabulary);
  }

  void add_tokens(const json_field& list) {
    if (list.is_null()) return;
    std::vector<added_token> raw, normalized;
    index_t largest = -1;
    const auto known = static_cast<index_t>(model_.size());
    for (const json_field& item : list.items()) {
      added_token token;
      token.text = item["content"].text();
      constexpr std::size_t longest = 1024;
      if (token.text.empty() || token.text.size() > longest)
        item["content"].fail(std::to_string(token.text.size()) + " bytes", "1 to 1024 bytes");
      token.special = item["special"].flag(false);
      token.single_word = item["single_word"].flag(false);
      token.lstrip = item["lstrip"].flag(false);
      token.rstrip = item["rstrip"].flag(false);
      token.normalized = item["normalized"].flag(!token.special);
      token.id = static_cast<token_id>(item["id"].integer(0, INT32_MAX));
      // Tokens are numbered by this rule whatever the file says; where the two differ, the file
      // does not fit the model it lies beside.
      const auto in_model = model_.id_of(token.text);
      const index_t next = largest >= known ? largest + 1 : std::max(known, largest + 1);
      const index_t expected = in_model ? *in_model : next;
      if (token.id != expected)
        item["id"].fail(std::to_string(token.id),
                        std::to_string(expected) +
                            (in_model ? ", its id in model.vocab" : ", the next one that is free"));
      if (!added_ids_.emplace(token.text, token.id).second)
        item["content"].fail(dualsft::detail::in_quotes(token.text) + " a second time",
                             "each token once");
      if (!in_model) {
        added_texts_.add(token.text);
        put(token.id, model_.size() + added_texts_.size() - 1, item["id"]);
      }
      largest = std::max<index_t>(largest, token.id);
      special_[static_cast<std::size_t>(token.id)] = token.special ? 1 : 0;
      (token.normalized ? normalized : raw).push_back(token);
    }
    text_normalizer::buffers space;
    for (added_token& token : normalized) {
      const std::string_view normal = normalizer_.run(token.text, space);
      if (normal.data() != token.text.data()) token.text = std::string(normal);
    }
    for (auto* tokens : {&raw, &normalized})
      std::stable_partition(tokens->begin(), tokens->end(),
                            [](const added_token& t) { return t.special; });
    raw_matcher_ = added_token_matcher(std::move(raw));
    normalized_matcher_ = added_token_matcher(std::move(normalized));
  }

  void read_frame(const json_field& field) {
    const std::string& type = field["type"].text();
    if (type == "Sequence") {
      for (const json_field& part : field["processors"].items()) read_frame(part);
    } else if (type == "TemplateProcessing") {
      read_template(field);
    } else if (type != "ByteLevel") {  // which moves offsets only
      field.refuse_type("post-processor", "Sequence, ByteLevel, TemplateProcessing");
    }
  }

  // {"single": [{"SpecialToken": {"id": name}}, {"Sequence": {"id": "A"}}, ...],
  //  "special_tokens": {name: {"ids": [...]}}}
  void read_template(const json_field& field) {
    std::unordered_map<std::string, std::vector<token_id>> ids;
    for (const auto& [name, token] : field["special_tokens"].members())
      for (const json_field& id : token["ids"].items()) {
        const auto value = static_cast<token_id>(id.integer(0, INT32_MAX));
        if (!has(value)) id.fail(std::to_string(value), "the id of a token");
        ids[name].push_back(value);
      }
    text_frame frame;
    bool behind = false;
    for (const json_field& part : field["single"].items()) {
      const json_field special = part["SpecialToken"], sequence = part["Sequence"];
      if (!special.is_null()) {
        const auto found = ids.find(special["id"].text());
        if (found == ids.end())
          special["id"].fail(dualsft::detail::in_quotes(special["id"].text()),
                             "a name in special_tokens");
        auto& side = behind ? frame.back : frame.front;
        side.insert(side.end(), found->second.begin(), found->second.end());
      } else if (sequence["id"].text() != "A" || behind) {
        sequence["id"].fail(
            dualsft::detail::in_quotes(sequence["id"].text()) + (behind ? " behind the text" : ""),
            "the sequence A, once");
      } else {
        behind = true;
      }
    }
    if (!behind) field["single"].fail("no Sequence", "the sequence A, once");
    frame_.front.insert(frame_.front.begin(), frame.front.begin(), frame.front.end());
    frame_.back.insert(frame_.back.end(), frame.back.begin(), frame.back.end());
    constexpr std::size_t most = 1024;
    if (frame_.front.size() + frame_.back.size() > most)
      field["single"].fail("more than 1024 tokens", "a few");
  }

  text_normalizer normalizer_;
  pre_tokenizer pre_tokenizer_;
  token_decoder decoder_;
  bpe_model model_;
  text_table added_texts_;           // of tokens that the model does not have
  std::vector<std::uint32_t> rows_;  // by id: a row of the model, or behind those, of added_texts_
  std::vector<std::uint8_t> special_;  // by id
  std::unordered_map<std::string, token_id> added_ids_;
  added_token_matcher raw_matcher_, normalized_matcher_;
  text_frame frame_;
};

}  // namespace dualsft::llm::detail
