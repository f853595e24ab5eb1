// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/llm/detail/record_scanner.hpp>
#include <dualsft/llm/record_types.hpp>
#include <dualsft/llm/records.hpp>
#include <dualsft/llm/token_corpus.hpp>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// From records of text to records of tokens, with labels on what is to be predicted.
namespace dualsft::llm {

struct tokenize_options {
  index_t max_length = 1024;      ///< tokens per record, those added here included; the rest is cut
  bool train_on_prompt = false;   ///< labels on prompts too; pre-tokenised records keep theirs
  std::optional<token_id> bos{};  ///< put in front of every text
  std::optional<token_id> eos{};  ///< put behind every predicted segment, and predicted itself
  index_t vocabulary =
      std::numeric_limits<index_t>::max();  ///< ids must lie below: the model's size
};

struct tokenized_record {
  token_record tokens;
  index_t cut = 0;       ///< tokens beyond max_length that were dropped
  index_t response = 0;  ///< tokens left of predicted segments, those with loss on the prompt not
};

namespace detail {

template <class E>
concept HasPlainEncode = requires(const E& e, std::string_view text) {
  { e.encode(text, {.add_special_tokens = false}) } -> std::convertible_to<std::vector<token_id>>;
};

// Ids of a text and nothing around it.
template <class E>
std::vector<token_id> plain_ids(const E& encoder, std::string_view text) {
  if constexpr (HasPlainEncode<E>)
    return encoder.encode(text, {.add_special_tokens = false});
  else if constexpr (requires { encoder.encode(text); })
    return encoder.encode(text);
  else
    return encoder(text);
}

}  // namespace detail

/// The tokens of one record.
///
///     ids    = [bos] encode(s_1) [eos if predicted] encode(s_2) ...,  cut to max_length
///     labels = ids where a segment is predicted (or with train_on_prompt), else ignored
///
/// Neighbouring segments of one kind are encoded as one text; between prompt and response the texts
/// are encoded apart, so the boundary is where it is in generation: behind the prompt's last token.
///
/// \param encoder  has `ids = encode(text)`, or is called as encoder(text); where encode takes
///                 {.add_special_tokens = false}, that is passed: it must add nothing of its own
/// \return         response == 0 if there is nothing left to predict; see tokenize_records
/// \throws invalid_argument  if max_length < 2; whatever the encoder throws
template <class Encoder>
tokenized_record tokenize_record(const text_record& record, const Encoder& encoder,
                                 const tokenize_options& options) {
  expects(options.max_length >= 2, "tokenize_record", "max_length must be at least 2", "max_length",
          options.max_length);
  tokenized_record out;
  std::vector<token_id>&ids = out.tokens.ids, &labels = out.tokens.labels;
  std::vector<char> answers;  // whether a token belongs to a predicted segment
  const auto append = [&](token_id id, bool answer, bool loss) {
    ids.push_back(id);
    labels.push_back(loss && ids.size() > 1 ? id : ignored);  // nothing stands before the first
    answers.push_back(answer ? 1 : 0);
  };

  if (record.tokenized()) {
    for (std::size_t i = 0; i < record.ids.size(); ++i) {
      const bool labelled = record.labels[i] != ignored;
      append(record.ids[i], labelled, labelled);
    }
  } else {
    if (options.bos) append(*options.bos, false, false);
    std::string text;
    for (std::size_t i = 0; i < record.segments.size(); ++i) {
      const bool answer = record.segments[i].predicted;
      text += record.segments[i].text;
      if (i + 1 < record.segments.size() && record.segments[i + 1].predicted == answer) continue;
      for (const token_id id : detail::plain_ids(encoder, text))
        append(id, answer, answer || options.train_on_prompt);
      if (answer && options.eos) append(*options.eos, true, true);
      text.clear();
    }
  }

  const auto kept = std::min(ids.size(), static_cast<std::size_t>(options.max_length));
  out.cut = static_cast<index_t>(ids.size() - kept);
  ids.resize(kept);
  labels.resize(kept);
  for (std::size_t i = 1; i < kept; ++i) out.response += answers[i];
  return out;
}

namespace detail {

inline std::optional<record_error> fault_of(const tokenized_record& tokens,
                                            const text_record& record, const std::string& file,
                                            const tokenize_options& options) {
  const std::vector<token_id>& ids = tokens.tokens.ids;  // labels are ids, or ignored
  for (std::size_t t = 0; t < ids.size(); ++t)
    if (ids[t] >= options.vocabulary)
      return record_error(
          record_fault::unknown_token, file,
          line_name(record.line) + (record.tokenized() ? ", field input_ids" : ""),
          "token id " + std::to_string(ids[t]) + " at " + std::to_string(t),
          "ids below " + std::to_string(options.vocabulary) + ", the model's vocabulary");
  if (tokens.response > 0) return std::nullopt;
  const std::string field = line_name(record.line) + ", field response";
  if (tokens.cut == 0)
    return record_error(record_fault::empty_response, file, field, "no token to predict",
                        "at least one");
  return record_error(record_fault::response_cut, file, field,
                      "nothing of it within the first " + std::to_string(options.max_length) +
                          " of " + std::to_string(options.max_length + tokens.cut) + " tokens",
                      "a prompt shorter than the maximal length");
}

}  // namespace detail

struct token_set {
  std::vector<token_record> records;
  std::vector<index_t> numbers;  ///< of each in its file
  index_t cut_records = 0;       ///< of `records`, those that lost tokens
  index_t cut_tokens = 0;        ///< that they lost
  skipped_records skipped;       ///< here and in reading
};

/// The tokens of all records of a set.
/// \throws record_error  for a record with nothing left to predict (field "line N, field response")
///                       or with an id outside the vocabulary, unless bad ones are skipped
/// \throws input_error   if no record is left
template <class Encoder>
token_set tokenize_records(const record_set& set, const Encoder& encoder,
                           const tokenize_options& options, bad_records bad = bad_records::refuse) {
  token_set out;
  out.skipped.add(set.skipped);
  for (const text_record& record : set.records) {
    tokenized_record tokens = tokenize_record(record, encoder, options);
    if (const auto error = detail::fault_of(tokens, record, set.file, options)) {
      if (bad == bad_records::refuse) throw record_error(*error);
      out.skipped.add(*error);
      continue;
    }
    if (tokens.cut > 0) ++out.cut_records;
    out.cut_tokens += tokens.cut;
    out.records.push_back(std::move(tokens.tokens));
    out.numbers.push_back(record.number);
  }
  if (out.records.empty())
    throw input_error(set.file, "records",
                      out.skipped.messages().empty()
                          ? "none"
                          : "none of use; the first: " + out.skipped.messages().front(),
                      "at least one");
  return out;
}

/// The corpus of these records, in their order.
inline std::shared_ptr<const token_corpus> make_corpus(token_set set) {
  token_corpus out;
  for (token_record& record : set.records) out.add(std::move(record));
  return std::make_shared<const token_corpus>(std::move(out));
}

}  // namespace dualsft::llm
