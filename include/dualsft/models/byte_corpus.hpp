// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dualsft {

/// Text of which the bytes from response_begin on are to be predicted.
struct byte_record {
  std::string text;
  index_t response_begin = 0;

  index_t response_size() const { return static_cast<index_t>(text.size()) - response_begin; }
};

/// The data store of byte_lm: records numbered 0, 1, ... in the order they were added. Pool,
/// validation set, anchors and held-out texts are lists of numbers over one corpus, so everything a
/// model is to see goes into one; the add functions return the number of the first record added,
/// and size() afterwards is one behind the last.
///
///     byte_corpus corpus;
///     const index_t general = corpus.add_pieces(long_text, 256);
///     const index_t target = corpus.add_pair("2 + 2 = ", "4\n");
///     auto shared = std::make_shared<const byte_corpus>(std::move(corpus));
///
/// A record without response bytes has no loss, so it is refused, by number.
class byte_corpus {
 public:
  index_t size() const { return static_cast<index_t>(records_.size()); }

  const byte_record& operator[](index_t i) const { return records_[static_cast<std::size_t>(i)]; }

  /// \throws invalid_argument  if the response is empty or begins before the text
  index_t add(byte_record record) {
    expects(0 <= record.response_begin && record.response_size() > 0, "byte_corpus::add",
            "a record needs at least one response byte", "record", size(), "bytes",
            record.text.size(), "response_begin", record.response_begin);
    records_.push_back(std::move(record));
    return size() - 1;
  }

  /// The whole text is to be predicted.
  index_t add_text(std::string_view text) { return add({std::string(text), 0}); }

  /// The response is to be predicted after the prompt.
  index_t add_pair(std::string_view prompt, std::string_view response) {
    return add({std::string(prompt) + std::string(response), static_cast<index_t>(prompt.size())});
  }

  /// A long text, cut every `bytes` bytes; the last piece may be shorter. Each piece is predicted
  /// as a whole, from its own start.
  index_t add_pieces(std::string_view text, index_t bytes) {
    expects(bytes > 0, "byte_corpus::add_pieces", "a piece must hold at least one byte", "bytes",
            bytes);
    const index_t first = size();
    for (std::size_t at = 0; at < text.size(); at += static_cast<std::size_t>(bytes))
      add_text(text.substr(at, static_cast<std::size_t>(bytes)));
    return first;
  }

 private:
  std::vector<byte_record> records_;
};

}  // namespace dualsft
