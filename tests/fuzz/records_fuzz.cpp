// Proves: no sequence of bytes makes the reader of records or of prompt templates crash, recurse or
// allocate without bound, or throw anything but input_error; skipping and refusing agree; what is
// accepted is tokenised, and its line can be read again as the same record.
// Against: AddressSanitizer, UndefinedBehaviorSanitizer and the conditions in must().
#include <cstddef>
#include <cstdint>
#include <dualsft/llm/record_tokens.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "memory_path.hpp"

using namespace dualsft;
using namespace dualsft::llm;

namespace {

std::vector<token_id> bytes_of(std::string_view text) {
  std::vector<token_id> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

void one_line(const input_error& error) {
  must(std::string_view(error.what()).find('\n') == std::string_view::npos);
}

std::string all_text(const text_record& record) {
  std::string out;
  for (const segment& s : record.segments) out += s.text + (s.predicted ? '\1' : '\2');
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const memory_path file(data, size);
  record_options skip;
  skip.bad = bad_records::skip;
  bool all_good = false;
  try {
    const record_set set = read_records(file.path(), skip);
    all_good = set.skipped.count() == 0;
    const record_file again(file.path());
    index_t last = -1;
    for (const text_record& record : set.records) {
      must(record.number > last);
      last = record.number;
      must(record.tokenized() != !record.segments.empty());
      must(record.ids.size() == record.labels.size());
      const std::string line = again.line_of(record);
      must(line.find('\n') == std::string::npos);
      const memory_path copy(reinterpret_cast<const std::uint8_t*>(line.data()), line.size());
      const record_set one = read_records(copy.path());
      must(one.records.size() == 1 && all_text(one.records[0]) == all_text(record) &&
           one.records[0].ids == record.ids);
    }
    for (const index_t length : {2, 9, 1000}) {
      tokenize_options options;
      options.max_length = length;
      options.eos = 256;
      try {
        const token_set tokens = tokenize_records(set, bytes_of, options, bad_records::skip);
        token_corpus corpus;
        for (const token_record& record : tokens.records) corpus.add(record);
        must(tokens.numbers.size() == tokens.records.size());
      } catch (const input_error& error) {
        one_line(error);
      }
    }
  } catch (const input_error& error) {
    one_line(error);
  }
  try {
    read_records(file.path());
    must(all_good);
  } catch (const input_error& error) {
    must(!all_good);
    one_line(error);
  }

  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const std::string prompt = prompt_template::from_text(text, "t.txt").prompt("REQUEST", "");
    must(prompt.find("REQUEST") != std::string::npos);
  } catch (const input_error& error) {
    one_line(error);
  }
  return 0;
}
