// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/llm/token_corpus.hpp>
#include <span>
#include <utility>
#include <vector>

namespace dualsft::llm::detail {

/// The tokens of some sequences, one behind the other.
struct packed_tokens {
  std::vector<index_t> ids;        ///< [T]
  std::vector<index_t> positions;  ///< [T] within the sequence
  std::vector<index_t> examples;   ///< [T] position of the sequence in the caller's batch
  std::vector<index_t> starts{0};  ///< [sequences + 1]

  // What is predicted: row r looks at token rows[r] and should say targets[r].
  std::vector<index_t> rows;          ///< [R]
  std::vector<index_t> targets;       ///< [R]
  std::vector<index_t> row_examples;  ///< [R]
  std::vector<double> shares;         ///< [R] 1 / T_i: a loss is a mean over the example's tokens
  index_t first_row = 0;              ///< number of row 0 in the caller's batch

  index_t size() const { return static_cast<index_t>(ids.size()); }
};

/// body(tokens) with whole sequences of `corpus`, up to `most` tokens of them at a time; at least one.
template <class Body>
void for_each_chunk(const token_corpus& corpus, std::span<const index_t> examples, index_t most,
                    Body&& body) {
  packed_tokens tokens;
  index_t rows_before = 0;
  const auto flush = [&] {
    if (tokens.size() > 0) body(std::as_const(tokens));
    rows_before += static_cast<index_t>(tokens.rows.size());
    tokens = {};
    tokens.first_row = rows_before;
  };
  for (std::size_t k = 0; k < examples.size(); ++k) {
    const token_record& record = corpus[examples[k]];
    std::size_t length = record.labels.size() - 1;  // inputs: what stands before a predicted token
    while (record.labels[length] == ignored) --length;
    if (tokens.size() > 0 && tokens.size() + static_cast<index_t>(length) > most) flush();
    const double share = 1 / static_cast<double>(record.response_size());
    for (std::size_t t = 0; t < length; ++t) {
      if (record.labels[t + 1] != ignored) {
        tokens.rows.push_back(tokens.size());
        tokens.targets.push_back(record.labels[t + 1]);
        tokens.row_examples.push_back(static_cast<index_t>(k));
        tokens.shares.push_back(share);
      }
      tokens.ids.push_back(record.ids[t]);
      tokens.positions.push_back(static_cast<index_t>(t));
      tokens.examples.push_back(static_cast<index_t>(k));
    }
    tokens.starts.push_back(tokens.size());
  }
  flush();
}

}  // namespace dualsft::llm::detail
