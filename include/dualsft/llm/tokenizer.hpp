// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/io/atomic_file.hpp>
#include <dualsft/io/mapped_file.hpp>
#include <dualsft/llm/detail/tokenizer_core.hpp>
#include <dualsft/llm/detail/tokenizer_texts.hpp>
#include <dualsft/llm/token_corpus.hpp>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dualsft::llm {

enum class invalid_utf8 {
  refuse,   ///< invalid_argument with the offset of the first bad byte
  replace,  ///< each maximal part that cannot be decoded becomes one U+FFFD
};

struct encode_options {
  /// Put around the text what the file's post-processor says (a bos token, mostly). Special tokens
  /// that are spelt out in the text are found in either case.
  bool add_special_tokens = true;
  invalid_utf8 on_invalid = invalid_utf8::refuse;
};

struct decode_options {
  bool skip_special_tokens = false;
};

/// Text to token ids and back, as a tokenizer.json says: the same ids as the `tokenizers` package
/// gives for that file (compared with version 0.22).
///
/// Supported, everything else is refused by name with its place in the file:
///
/// | part           | types |
/// |----------------|------------------------------------------------------------------------------|
/// | model          | BPE with byte_fallback, fuse_unk, ignore_merges; merges as "a b" or ["a","b"] |
/// | normalizer     | NFC, Prepend, Replace, Sequence                                               |
/// | pre_tokenizer  | ByteLevel, Split, Metaspace, Digits, Sequence                                 |
/// | post_processor | ByteLevel, TemplateProcessing, Sequence                                       |
/// | decoder        | ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace, Sequence            |
/// | added_tokens   | special, single_word, lstrip, rstrip, normalized                              |
///
/// "truncation" and "padding" are ignored: records are cut elsewhere. Where a file has no token for
/// a character, no bytes to fall back on and no unk_token, the character is left out.
///
/// A value: copies share one immutable object, and every member may be called from many threads at
/// once. Each thread that encodes keeps half a megabyte of words that it met lately.
class tokenizer {
 public:
  /// \param path  a tokenizer.json, or a folder that holds one
  /// \throws input_error  naming file, field, what was found and what was expected
  static tokenizer from_file(const std::string& path) {
    const std::string file = detail::is_folder(path) ? path + "/tokenizer.json" : path;
    const mapped_file mapping(file, access_pattern::sequential);
    constexpr std::size_t longest = std::size_t{1} << 30;
    if (mapping.bytes().size() > longest)
      throw input_error(file, "file size", std::to_string(mapping.bytes().size()) + " bytes",
                        "at most 2^30 bytes");
    return from_json(
        {reinterpret_cast<const char*>(mapping.bytes().data()), mapping.bytes().size()}, file);
  }

  /// \param name_for_errors  stands for the file in messages
  static tokenizer from_json(std::string_view json, const std::string& name_for_errors) {
    return tokenizer(std::make_shared<const detail::tokenizer_core>(json, name_for_errors));
  }

  /// The files that GPT-2 was published with: encoder.json (tokens and ids) and vocab.bpe (merges).
  static tokenizer from_gpt2_files(const std::string& encoder_json, const std::string& vocab_bpe) {
    return from_json(detail::gpt2_json(encoder_json, vocab_bpe), encoder_json);
  }

  /// For models made from scratch: ids 0..255 are the bytes, 256 <|bos|>, 257 <|eos|>, 258 <|pad|>;
  /// encode puts 256 in front.
  static tokenizer bytes() {
    tokenizer out = from_json(detail::bytes_json(), "bytes");
    out.is_bytes_ = true;
    return out;
  }

  /// Ids of a text.
  ///
  /// \throws invalid_argument  if the text is not UTF-8 and is not to be mended, or has 2^31 bytes
  /// \throws input_error       if a rule of the file fails on this text: a regular expression that
  ///                           needs too many steps, replacements that grow without bound, an
  ///                           unk_token that is needed and is no token
  /// Cost: O(n) with the patterns of the known families; a single word of n bytes is merged in
  /// O(n log n).
  std::vector<token_id> encode(std::string_view utf8, const encode_options& options = {}) const {
    expects(utf8.size() < (std::size_t{1} << 31), "tokenizer::encode",
            "a text must have fewer than 2^31 bytes", "bytes", utf8.size());
    const std::size_t bad = detail::find_invalid_utf8(utf8);
    std::string mended;
    if (bad != utf8.npos) {
      expects(options.on_invalid == invalid_utf8::replace, "tokenizer::encode",
              "the text must be UTF-8", "first bad byte at", bad);
      utf8 = mended = detail::replace_invalid_utf8(utf8);
    }
    std::vector<token_id> out;
    core_->encode(utf8, options.add_special_tokens, out);
    return out;
  }

  /// The text of ids; always UTF-8 (U+FFFD stands where bytes do not form a character). Ids that no
  /// token has contribute nothing: heads are often wider than the vocabulary.
  /// \throws invalid_argument  on a negative id
  std::string decode(std::span<const token_id> ids, const decode_options& options = {}) const {
    for (const token_id id : ids)
      expects(id >= 0, "tokenizer::decode", "ids must not be negative", "id", id);
    return core_->decode(ids, options.skip_special_tokens);
  }

  /// One more than the largest id; ids may leave gaps below.
  index_t vocabulary_size() const { return core_->size(); }

  /// As tokens are spelt in the file: "Ġthe", "▁the", "<0x0A>".
  std::optional<token_id> id_of(std::string_view token) const { return core_->id_of(token); }

  /// Empty in a gap. The view lives as long as a copy of this tokenizer.
  /// \throws invalid_argument  unless 0 <= id < vocabulary_size()
  std::string_view token_of(token_id id) const {
    expects(id >= 0 && id < vocabulary_size(), "tokenizer::token_of",
            "id must be in [0, vocabulary_size)", "id", id, "vocabulary_size", vocabulary_size());
    return core_->has(id) ? core_->token_of(id) : std::string_view();
  }

  /// Whether decode skips the id when asked to; false for ids that no token has.
  bool is_special(token_id id) const { return core_->has(id) && core_->special(id); }

  /// What begins a text: the first id that encode puts in front, else a special token by one of the
  /// customary names. A model's config.json knows better where it says.
  std::optional<token_id> bos_id() const {
    if (!core_->frame().front.empty()) return core_->frame().front.front();
    return first_special({"<|bos|>", "<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>"});
  }

  /// What ends a text; by the same rules.
  std::optional<token_id> eos_id() const {
    if (!core_->frame().back.empty()) return core_->frame().back.back();
    return first_special({"<|eos|>", "</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"});
  }

  /// Writes a tokenizer.json that the `tokenizers` package reads; for bytes(). The file that any
  /// other tokenizer came from is its own best copy.
  /// \throws invalid_argument  if this is not bytes()
  /// \throws input_error       (field "output") if the place cannot be written
  void save(const std::string& path) const {
    expects(is_bytes_, "tokenizer::save",
            "only the bytes tokenizer is written; copy the file of "
            "any other",
            "path", path);
    atomic_file file(path);
    file.write(detail::bytes_json());
    file.commit();
  }

 private:
  explicit tokenizer(std::shared_ptr<const detail::tokenizer_core> core) : core_(std::move(core)) {}

  std::optional<token_id> first_special(std::initializer_list<std::string_view> names) const {
    for (const std::string_view name : names)
      if (const auto id = core_->id_of(name); id && core_->special(*id)) return id;
    return std::nullopt;
  }

  std::shared_ptr<const detail::tokenizer_core> core_;
  bool is_bytes_ = false;
};

}  // namespace dualsft::llm
