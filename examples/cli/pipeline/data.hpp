// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/llm/model_folder.hpp>
#include <dualsft/llm/records.hpp>
#include <dualsft/splits.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "options.hpp"

namespace dualsft::cli {

/// Everything a stage needs of its input files, read once: the model without its weights, the
/// records of all files as one corpus, and who plays which part.
struct run_data {
  explicit run_data(llm::model_folder from) : folder(std::move(from)) {}

  llm::model_folder folder;
  std::shared_ptr<const llm::token_corpus> corpus;
  data_split split;              ///< numbers in the corpus; the train file's records come first
  std::vector<index_t> numbers;  ///< [train records of use] of each in the train file
  index_t records = 0;           ///< of use, in the train file
  llm::skipped_records skipped;
  index_t cut_records = 0, cut_tokens = 0;

  /// Tokens that go through the model for these examples.
  index_t tokens(example_span examples) const;

  /// The record of the train file that corpus number i < records was made of.
  index_t number(index_t i) const { return numbers[static_cast<std::size_t>(i)]; }

  /// Where the train file's records lie in it.
  struct place {
    index_t line = 0, offset = 0, size = 0;
  };
  std::vector<place> places;  ///< [records]
};

/// Reads and divides. Sets without a file are taken from the train file: 1,024 and 2,048 records
/// where the command line names no count, but no more than a tenth and a fifth of what there is.
/// \throws input_error  for whatever is wrong with a file
/// \throws usage_error  if counts leave no pool
run_data read_run_data(const pipeline_options& options);

}  // namespace dualsft::cli
