// SPDX-License-Identifier: Apache-2.0
#include "data.hpp"

#include <algorithm>
#include <dualsft/llm/prompt_template.hpp>
#include <numeric>

#include "../terminal.hpp"
#include "../usage_error.hpp"

namespace dualsft::cli {

namespace {

using namespace dualsft::llm;

constexpr index_t default_validation = 1024, default_anchors = 2048;

}  // namespace

index_t run_data::tokens(example_span examples) const {
  index_t sum = 0;
  for (const index_t i : examples) sum += static_cast<index_t>((*corpus)[i].ids.size());
  return sum;
}

run_data read_run_data(const pipeline_options& options) {
  run_data data(model_folder::open(options.model));
  record_options reading;
  reading.bad = options.skip_bad ? bad_records::skip : bad_records::refuse;
  if (!options.own_template.empty())
    reading.own_template = prompt_template::from_file(options.own_template);
  const tokenize_options tokens = data.folder.tokens(options.max_length, options.train_on_prompt);

  token_set all;
  const auto add = [&](const std::string& file, auto&& keep) {
    stop_if_interrupted();
    const record_set records = read_records(file, reading);
    token_set set = tokenize_records(records, data.folder.tokenizer, tokens, reading.bad);
    keep(records, set);
    data.skipped.add(set.skipped);
    data.cut_records += set.cut_records;
    data.cut_tokens += set.cut_tokens;
    std::vector<index_t> positions(set.records.size());
    std::iota(positions.begin(), positions.end(), static_cast<index_t>(all.records.size()));
    std::ranges::move(set.records, std::back_inserter(all.records));
    return positions;
  };
  const std::vector<index_t> train =
      add(options.train, [&](const record_set& records, const token_set& set) {
        data.numbers = set.numbers;
        std::size_t at = 0;  // both lists ascend
        for (const index_t number : set.numbers) {
          while (records.records[at].number != number) ++at;
          const text_record& r = records.records[at];
          data.places.push_back({r.line, r.offset, r.size});
        }
      });
  const auto nothing = [](const record_set&, const token_set&) {};
  std::vector<index_t> validation, anchors;
  if (!options.validation.empty()) validation = add(options.validation, nothing);
  if (!options.anchors.empty()) anchors = add(options.anchors, nothing);

  data.records = static_cast<index_t>(train.size());
  const auto share = [&](const std::string& file, std::optional<index_t> count, index_t usual,
                         index_t part) {
    if (!file.empty()) return index_t{0};
    return count.value_or(std::min(usual, std::max<index_t>(1, data.records / part)));
  };
  try {
    data.split = split_records(
        train,
        {.validation = share(options.validation, options.validation_count, default_validation, 10),
         .anchors = share(options.anchors, options.anchor_count, default_anchors, 5),
         .warmup_fraction = options.warmup_fraction,
         .seed = options.seed});
  } catch (const invalid_argument& error) {
    throw usage_error(options.train + ": " + error.what());
  }
  if (!validation.empty()) data.split.validation = std::move(validation);
  if (!anchors.empty()) data.split.anchors = std::move(anchors);

  auto corpus = std::make_shared<token_corpus>();
  for (token_record& record : all.records) corpus->add(std::move(record));
  data.corpus = std::move(corpus);
  return data;
}

}  // namespace dualsft::cli
