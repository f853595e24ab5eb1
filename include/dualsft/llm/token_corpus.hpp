// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <vector>

namespace dualsft::llm {

using token_id = std::int32_t;

/// Labels of tokens that carry no loss.
inline constexpr token_id ignored = -100;

/// One sequence. labels[t] is ids[t] where token t is to be predicted (from the tokens before it),
/// and `ignored` elsewhere; labels[0] never counts, as nothing stands before it.
struct token_record {
  std::vector<token_id> ids;
  std::vector<token_id> labels;  ///< as long as ids

  /// T_i, the number of predicted tokens.
  index_t response_size() const {
    index_t count = 0;
    for (std::size_t t = 1; t < labels.size(); ++t) count += labels[t] != ignored ? 1 : 0;
    return count;
  }
};

/// The data store of transformer: records numbered 0, 1, ... in the order they were added. Pool,
/// validation set and anchors are lists of numbers over one corpus.
class token_corpus {
 public:
  index_t size() const { return static_cast<index_t>(records_.size()); }
  const token_record& operator[](index_t i) const { return records_[static_cast<std::size_t>(i)]; }

  /// \throws invalid_argument  if lengths differ, an id is negative, or no token is to be predicted
  index_t add(token_record record) {
    expects(record.ids.size() == record.labels.size(), "token_corpus::add",
            "a record needs one label per token", "record", size(), "ids", record.ids.size(),
            "labels", record.labels.size());
    for (const token_id id : record.ids)
      expects(id >= 0, "token_corpus::add", "ids must not be negative", "record", size(), "id", id);
    for (const token_id label : record.labels)
      expects(label >= 0 || label == ignored, "token_corpus::add",
              "a label is an id or -100 (ignored)", "record", size(), "label", label);
    expects(record.response_size() > 0, "token_corpus::add",
            "a record needs at least one token to predict", "record", size(), "tokens",
            record.ids.size());
    records_.push_back(std::move(record));
    return size() - 1;
  }

 private:
  std::vector<token_record> records_;
};

}  // namespace dualsft::llm
