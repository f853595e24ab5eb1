// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <dualsft/llm/detail/nfc.hpp>
#include <dualsft/llm/detail/text_pattern.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace dualsft::llm::detail {

/// Files may make a text longer, but not without end: rules that double it can be chained.
inline constexpr std::size_t longest_growth = 64, free_growth = std::size_t{1} << 20;

inline void check_growth(std::size_t size, std::size_t original, const std::string& file,
                         const char* field) {
  if (size > original * longest_growth + free_growth)
    throw input_error(file, field,
                      "rules that make " + std::to_string(original) +
                          " bytes of text longer than " + std::to_string(size),
                      "at most 64 times the text and 1 MiB");
}

/// {"type": "Replace", "pattern": ..., "content": ...}, of normalizers and decoders.
struct replace_rule {
  text_pattern pattern;
  std::string content;

  explicit replace_rule(const json_field& field)
      : pattern(field["pattern"]), content(field["content"].text()) {}

  /// `out` must not be what `text` views.
  void run(std::string_view text, std::string& out, std::size_t original, const std::string& file,
           const char* field) const {
    out.clear();
    std::size_t done = 0;
    pattern.for_each_match(text, [&](std::size_t begin, std::size_t end) {
      out.append(text.substr(done, begin - done)).append(content);
      check_growth(out.size(), original, file, field);
      done = end;
    });
    out.append(text.substr(done));
    check_growth(out.size(), original, file, field);
  }
};

/// What is done to a text before tokens are looked for: NFC, Prepend, Replace, and Sequences.
class text_normalizer {
 public:
  text_normalizer() = default;
  explicit text_normalizer(const json_field& field) : file_(field.file()) {
    if (!field.is_null()) read(field);
  }

  struct buffers {
    std::string a, b;
  };

  /// The result views `text` itself or one of the buffers.
  std::string_view run(std::string_view text, buffers& space) const {
    const std::size_t original = text.size();
    for (const step& s : steps_) {
      std::string& out = text.data() == space.a.data() ? space.b : space.a;
      if (std::holds_alternative<nfc_rule>(s)) {
        text = to_nfc(text, out);
      } else if (const auto* prepend = std::get_if<prepend_rule>(&s)) {
        if (text.empty()) continue;
        out.assign(prepend->text).append(text);
        check_growth(out.size(), original, file_, "normalizer");
        text = out;
      } else {
        std::get<replace_rule>(s).run(text, out, original, file_, "normalizer");
        text = out;
      }
    }
    return text;
  }

 private:
  struct nfc_rule {};
  struct prepend_rule {
    std::string text;
  };
  using step = std::variant<nfc_rule, prepend_rule, replace_rule>;

  void read(const json_field& field) {
    const std::string& type = field["type"].text();
    if (type == "Sequence") {
      for (const json_field& part : field["normalizers"].items()) read(part);
    } else if (type == "NFC") {
      steps_.emplace_back(nfc_rule{});
    } else if (type == "Prepend") {
      steps_.emplace_back(prepend_rule{field["prepend"].text()});
    } else if (type == "Replace") {
      steps_.emplace_back(replace_rule(field));
    } else {
      field.refuse_type("normalizer", "Sequence, NFC, Prepend, Replace");
    }
    constexpr std::size_t most = 64;
    if (steps_.size() > most) field.fail("more than 64 steps", "at most 64");
  }

  std::string file_;
  std::vector<step> steps_;
};

}  // namespace dualsft::llm::detail
