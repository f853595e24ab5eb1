// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/llm/token_corpus.hpp>
#include <dualsft/order.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dualsft::llm {

/// A stretch of text, and whether its tokens carry loss.
struct segment {
  std::string text;
  bool predicted = false;
};

/// One record of a FILE, whatever its form there: text in segments, or tokens.
struct text_record {
  std::vector<segment> segments;  ///< empty for a pre-tokenised record
  std::vector<token_id> ids;      ///< pre-tokenised only
  std::vector<token_id> labels;   ///< as long as ids
  index_t number = 0;             ///< among the records of the file, bad ones included, from 0
  index_t line = 1;               ///< where it begins, from 1
  index_t offset = 0;             ///< of its first byte in the file
  index_t size = 0;               ///< bytes in the file

  bool tokenized() const { return !ids.empty(); }
};

/// Why a record is of no use.
enum class record_fault {
  malformed,       ///< not JSON, or not UTF-8
  too_long,        ///< more bytes than a record may have
  unknown_form,    ///< none of the forms of records
  wrong_value,     ///< a field is missing, of the wrong type, or means nothing
  empty_response,  ///< nothing to predict
  response_cut,    ///< nothing to predict within the longest sequence
  unknown_token,   ///< a token id that the model has no embedding for
};

namespace detail {
inline constexpr std::array<std::pair<std::string_view, record_fault>, 7> record_fault_names{
    {{"malformed", record_fault::malformed},
     {"too long", record_fault::too_long},
     {"unknown form", record_fault::unknown_form},
     {"wrong value", record_fault::wrong_value},
     {"empty response", record_fault::empty_response},
     {"response cut away", record_fault::response_cut},
     {"unknown token", record_fault::unknown_token}}};
}  // namespace detail

constexpr std::string_view name_of(record_fault fault) {
  return dualsft::detail::to_name(detail::record_fault_names, fault);
}

/// What is wrong with one record; field() is "line N" or "line N, field X".
class record_error : public input_error {
 public:
  record_error(record_fault fault, std::string file, std::string field, std::string found,
               std::string expected)
      : input_error(std::move(file), std::move(field), std::move(found), std::move(expected)),
        fault_(fault) {}

  record_fault fault() const noexcept { return fault_; }

 private:
  record_fault fault_;
};

/// What to do with a bad record.
enum class bad_records {
  refuse,  ///< the first one is an error
  skip,    ///< they are counted
};

/// The bad records that were skipped, by reason, and what was wrong with the first few.
class skipped_records {
 public:
  static constexpr std::size_t most_messages = 10;

  void add(const record_error& error) {
    ++counts_[static_cast<std::size_t>(error.fault())];
    if (messages_.size() < most_messages) messages_.emplace_back(error.what());
  }

  void add(const skipped_records& other) {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    for (const std::string& message : other.messages_)
      if (messages_.size() < most_messages) messages_.push_back(message);
  }

  index_t count(record_fault fault) const { return counts_[static_cast<std::size_t>(fault)]; }
  index_t count() const {
    index_t sum = 0;
    for (const index_t n : counts_) sum += n;
    return sum;
  }
  const std::vector<std::string>& messages() const noexcept { return messages_; }

 private:
  std::array<index_t, detail::record_fault_names.size()> counts_{};
  std::vector<std::string> messages_;
};

}  // namespace dualsft::llm
