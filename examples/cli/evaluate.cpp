// SPDX-License-Identifier: Apache-2.0
#include "evaluate.hpp"

#include <chrono>
#include <cmath>
#include <dualsft/llm/generation.hpp>
#include <dualsft/llm/model_folder.hpp>
#include <dualsft/llm/prompt_template.hpp>
#include <dualsft/llm/records.hpp>
#include <nlohmann/json.hpp>
#include <ostream>

#include "terminal.hpp"

namespace dualsft::cli {

namespace {

using namespace dualsft::llm;
using nlohmann::json;

/// The text behind the last ####, or all of it, without white space around it.
std::string_view answer_of(std::string_view text) {
  if (const auto mark = text.rfind("####"); mark != text.npos) text.remove_prefix(mark + 4);
  constexpr std::string_view blank = " \t\r\n";
  const auto first = text.find_first_not_of(blank);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(blank) + 1 - first);
}

/// A record as a question: what stands before the first predicted token, and what follows it.
struct question {
  std::vector<token_id> prompt, answer;
};

question question_of(const token_record& record, const std::vector<token_id>& stop_ids) {
  question out;
  std::size_t t = 0;
  // A response that begins the record has its first token for a prompt.
  while (t == 0 || record.labels[t] == ignored) out.prompt.push_back(record.ids[t++]);
  for (; t < record.ids.size() && record.labels[t] != ignored; ++t)
    if (std::ranges::find(stop_ids, record.ids[t]) == stop_ids.end())
      out.answer.push_back(record.ids[t]);
  return out;
}

/// \param numbers    of the corpus' records in their file
/// \param questions  to be answered; none: only losses
template <class S>
json evaluate(const evaluate_options& options, const model_folder& folder,
              const std::shared_ptr<const token_corpus>& corpus,
              const std::vector<index_t>& numbers, const std::vector<question>& questions) {
  index_t positions = 0;
  for (const question& q : questions)
    positions = std::max(positions, static_cast<index_t>(q.prompt.size()));
  const auto model = folder.load<S>(
      corpus, {.threads = options.threads,
               .positions = questions.empty() ? 0 : positions + options.max_new_tokens});

  constexpr index_t batch_size = 16;
  double loss = 0, nll = 0;
  index_t tokens = 0;
  {
    progress bar("losses", corpus->size(), "records");
    for (index_t first = 0; first < corpus->size(); first += batch_size) {
      stop_if_interrupted();
      std::vector<index_t> batch;
      for (index_t i = first; i < std::min(corpus->size(), first + batch_size); ++i)
        batch.push_back(i);
      std::vector<double> losses(batch.size());
      model.losses(batch, losses);
      for (std::size_t k = 0; k < batch.size(); ++k) {
        if (!std::isfinite(losses[k]))
          throw numerical_error("evaluate: the loss of record " +
                                std::to_string(numbers[static_cast<std::size_t>(batch[k])]) +
                                " is not finite");
        const index_t rows = model.logit_rows(batch[k]);
        loss += losses[k];
        nll += losses[k] * static_cast<double>(rows);
        tokens += rows;
      }
      bar.advance(static_cast<index_t>(batch.size()));
    }
  }
  json summary{{"records", corpus->size()},
               {"response_tokens", tokens},
               {"loss", loss / static_cast<double>(corpus->size())},
               {"token_loss", nll / static_cast<double>(tokens)},
               {"perplexity", std::exp(nll / static_cast<double>(tokens))}};
  if (questions.empty()) return summary;

  generator<S> next(model);
  index_t right = 0;
  progress bar("answers", corpus->size(), "records");
  for (const question& q : questions) {
    stop_if_interrupted();
    const std::vector<token_id> found = next.greedy(q.prompt, {.max_tokens = options.max_new_tokens,
                                                               .stop_ids = folder.stop_ids,
                                                               .on_token = stop_if_interrupted});
    const std::string said = folder.tokenizer.decode(found);
    const std::string wanted = folder.tokenizer.decode(q.answer);
    if (answer_of(said) == answer_of(wanted)) ++right;
    bar.advance(1);
  }
  summary["exact_match"] = static_cast<double>(right) / static_cast<double>(corpus->size());
  summary["exact_matches"] = right;
  return summary;
}

}  // namespace

void run_evaluate(const evaluate_options& options, std::ostream& out) {
  const auto start = std::chrono::steady_clock::now();
  const model_folder folder = model_folder::open(options.model);
  const bad_records bad = options.skip_bad ? bad_records::skip : bad_records::refuse;
  record_options reading;
  reading.bad = bad;
  if (!options.own_template.empty())
    reading.own_template = prompt_template::from_file(options.own_template);
  record_set records = read_records(options.data, reading);
  if (options.limit > 0 && options.limit < static_cast<index_t>(records.records.size()))
    records.records.resize(static_cast<std::size_t>(options.limit));
  token_set set = tokenize_records(records, folder.tokenizer,
                                   folder.tokens(options.max_length, options.train_on_prompt), bad);
  const index_t cut_records = set.cut_records, cut_tokens = set.cut_tokens;
  const skipped_records skipped = set.skipped;
  const std::vector<index_t> numbers = set.numbers;
  const auto corpus = make_corpus(std::move(set));
  std::vector<question> questions;
  if (options.generate == evaluate_options::generate_kind::exact_match)
    // Without loss on prompts, whatever is asked for: labels then begin where the answer does.
    for (const token_record& record :
         tokenize_records(records, folder.tokenizer, folder.tokens(options.max_length, false), bad)
             .records)
      questions.push_back(question_of(record, folder.stop_ids));
  stop_if_interrupted();

  json summary = options.precision == evaluate_options::scalar::float64
                     ? evaluate<double>(options, folder, corpus, numbers, questions)
                     : evaluate<float>(options, folder, corpus, numbers, questions);
  summary["cut_records"] = cut_records;
  summary["cut_tokens"] = cut_tokens;
  summary["skipped"] = skipped.count();
  summary["seconds"] =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (options.json) {
    out << summary.dump() << '\n';
    return;
  }
  for (const auto& [key, value] : summary.items()) out << key << ' ' << value.dump() << '\n';
  for (const std::string& message : skipped.messages()) out << "skipped: " << message << '\n';
}

}  // namespace dualsft::cli
