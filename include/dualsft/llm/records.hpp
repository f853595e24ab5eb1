// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/io/mapped_file.hpp>
#include <dualsft/llm/detail/record_parser.hpp>
#include <dualsft/llm/detail/record_scanner.hpp>
#include <dualsft/llm/prompt_template.hpp>
#include <dualsft/llm/record_types.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Training records from a file: JSONL (one object per line) or one JSON list of objects; the first
/// character that is no white space decides.
///
/// | keys                                             | predicted                        |
/// |--------------------------------------------------|----------------------------------|
/// | input_ids, labels (-100: ignored; not shifted)   | what is labelled                 |
/// | messages: [{role, content}]                      | every turn of the assistant      |
/// | conversations: [{from, value}]                   | every turn of gpt                |
/// | instruction, output, perhaps input               | output                           |
/// | question, answer                                 | answer                           |
/// | prompt, response                                 | response                         |
/// | text                                             | everything                       |
///
/// The first row that fits is taken; other keys are ignored, and null counts as absent. Rendering:
/// prompt_template.hpp. Text must be UTF-8 without lone surrogates; a byte order mark at the start
/// and blank lines are skipped; a key twice is refused.
///
///     const record_set train = read_records("train.jsonl");
///     const record_file file("huge.jsonl");                       // or one at a time
///     file.for_each({}, [&](text_record record) { ... });
namespace dualsft::llm {

struct record_options {
  bad_records bad = bad_records::refuse;
  std::optional<prompt_template> own_template;  ///< for the three pair forms
  index_t longest_record = index_t{1} << 23;    ///< bytes
};

/// A file of records, mapped: walking it needs memory for one record at a time.
class record_file {
 public:
  /// \throws input_error  if the path is not a readable regular file
  explicit record_file(std::string path)
      : path_(std::move(path)), map_(path_, access_pattern::normal) {}

  const std::string& path() const noexcept { return path_; }

  /// Calls visit(text_record&&) for each good record in the order of the file.
  /// \return  what was skipped
  /// \throws record_error  at the first bad record, unless those are skipped
  /// \throws input_error   if there is no record, or a list is not well-formed between its elements
  template <class Visit>
  skipped_records for_each(const record_options& options, Visit&& visit) const {
    skipped_records skipped;
    detail::record_parser parser(path_, options.own_template ? &*options.own_template : nullptr,
                                 options.longest_record);
    detail::record_scanner(path_, bytes())
        .run([&](const detail::record_place& place, std::string_view text) {
          std::optional<text_record> record;
          try {
            record = parser.parse(place, text);
          } catch (const record_error& error) {
            if (options.bad == bad_records::refuse) throw;
            skipped.add(error);
          }
          if (record) visit(std::move(*record));
        });
    return skipped;
  }

  /// A record's own text on one line: byte for byte, but that line breaks between the tokens of a
  /// list's element, with the white space around them, become one space.
  std::string line_of(const text_record& record) const {
    const std::string_view all = bytes();
    expects(0 <= record.offset && 0 <= record.size &&
                record.offset <= static_cast<index_t>(all.size()) - record.size,
            "record_file::line_of", "the record must be of this file", "offset", record.offset,
            "size", record.size, "bytes", all.size());
    const std::string_view text =
        all.substr(static_cast<std::size_t>(record.offset), static_cast<std::size_t>(record.size));
    std::string out;
    for (std::size_t i = 0; i < text.size();) {
      if (text[i] != '\n' && text[i] != '\r') {
        out += text[i++];
        continue;
      }
      while (!out.empty() && (out.back() == ' ' || out.back() == '\t')) out.pop_back();
      i = std::min(text.find_first_not_of(" \t\r\n", i), text.size());
      out += ' ';
    }
    return out;
  }

 private:
  std::string_view bytes() const {
    const auto all = map_.bytes();
    return {reinterpret_cast<const char*>(all.data()), all.size()};
  }

  std::string path_;
  mapped_file map_;
};

struct record_set {
  std::string file;
  std::vector<text_record> records;  ///< the good ones, in the order of the file
  skipped_records skipped;
};

/// All records of a file in memory; see record_file::for_each.
/// \throws input_error  also if every record was skipped
inline record_set read_records(const std::string& path, const record_options& options = {}) {
  record_set out;
  out.file = path;
  const record_file file(path);
  out.skipped = file.for_each(
      options, [&](text_record&& record) { out.records.push_back(std::move(record)); });
  if (out.records.empty())
    throw input_error(path, "records", "none of use; the first: " + out.skipped.messages().front(),
                      "at least one");
  return out;
}

}  // namespace dualsft::llm
