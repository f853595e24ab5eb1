// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/llm/detail/json_document.hpp>
#include <dualsft/llm/detail/record_scanner.hpp>
#include <dualsft/llm/prompt_template.hpp>
#include <dualsft/llm/record_types.hpp>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dualsft::llm::detail {

/// From the text of one record to its segments or tokens.
class record_parser {
 public:
  record_parser(const std::string& file, const prompt_template* own_template, index_t longest)
      : file_(file), template_(own_template), longest_(longest) {}

  /// \throws record_error
  text_record parse(const record_place& place, std::string_view text) {
    line_ = place.line;
    if (place.size > longest_)
      fail(record_fault::too_long, "", std::to_string(place.size) + " bytes",
           "at most " + std::to_string(longest_) + " bytes");
    const json record = parse_json(text);
    if (!record.is_object()) fail(record_fault::unknown_form, "", describe(record), "an object");

    text_record out;
    out.number = place.number;
    out.line = place.line;
    out.offset = place.offset;
    out.size = place.size;
    fill(record, out);
    return out;
  }

 private:
  enum class form { tokens, messages, conversations, instruction, question, prompt, text };

  struct form_row {
    form what;
    std::string_view first, second;  // the keys it needs; the second may be ""
  };

  // In this order, as data sets carry more than one: Alpaca's has its rendered "text" beside the
  // fields, conversations have a "prompt" to be found by.
  static constexpr std::array<form_row, 7> forms{{{form::tokens, "input_ids", "labels"},
                                                  {form::messages, "messages", ""},
                                                  {form::conversations, "conversations", ""},
                                                  {form::instruction, "instruction", "output"},
                                                  {form::question, "question", "answer"},
                                                  {form::prompt, "prompt", "response"},
                                                  {form::text, "text", ""}}};

  [[noreturn]] void fail(record_fault fault, std::string_view field, std::string found,
                         std::string expected) const {
    std::string place = line_name(line_);
    if (!field.empty()) place += ", field " + std::string(field);
    throw record_error(fault, file_, std::move(place), std::move(found), std::move(expected));
  }

  json parse_json(std::string_view text) const {
    try {
      return parse_document(file_, line_name(line_), text);
    } catch (const input_error& error) {
      throw record_error(record_fault::malformed, error.file(), error.field(), error.found(),
                         error.expected());
    }
  }

  // A key with null in it counts as absent.
  static const json* find(const json& object, std::string_view key) {
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
  }

  const std::string& string_at(const json& object, std::string_view key,
                               const std::string& prefix = {}) const {
    const json* value = find(object, key);
    if (value == nullptr || !value->is_string())
      fail(record_fault::wrong_value, prefix + std::string(key),
           value != nullptr       ? describe(*value)
           : object.contains(key) ? "null"
                                  : "nothing",
           "a string");
    return value->get_ref<const std::string&>();
  }

  form form_of(const json& record) const {
    for (const form_row& row : forms)
      if (find(record, row.first) != nullptr &&
          (row.second.empty() || find(record, row.second) != nullptr))
        return row.what;
    for (const form_row& row : forms)
      for (const auto& [has, lacks] : {std::pair(row.first, row.second), {row.second, row.first}})
        if (!has.empty() && find(record, has) != nullptr)
          fail(record_fault::unknown_form, lacks, record.contains(lacks) ? "null" : "nothing",
               "a value, beside " + std::string(has));
    std::string keys;
    for (const auto& [key, value] : record.items()) {
      keys += (keys.empty() ? "the keys " : ", ") + in_quotes(key);
      if (keys.size() > 200) break;
    }
    fail(record_fault::unknown_form, "", keys.empty() ? "an empty object" : keys,
         "prompt and response, instruction and output, question and answer, messages, "
         "conversations, text, or input_ids and labels");
  }

  void fill(const json& record, text_record& out) const {
    switch (form_of(record)) {
      case form::tokens:
        return fill_tokens(record, out);
      case form::messages:
        return fill_chat(record, out, "messages", "role", "content");
      case form::conversations:
        return fill_chat(record, out, "conversations", "from", "value");
      case form::instruction: {
        const std::string& request = string_at(record, "instruction");
        const std::string input = find(record, "input") ? string_at(record, "input") : "";
        return fill_pair(record, "output",
                         template_ != nullptr ? template_->prompt(request, input)
                                              : alpaca_prompt(request, input),
                         out);
      }
      case form::question: {
        const std::string& request = string_at(record, "question");
        return fill_pair(
            record, "answer",
            template_ != nullptr ? template_->prompt(request, "") : question_prompt(request), out);
      }
      case form::prompt: {
        const std::string& request = string_at(record, "prompt");
        return fill_pair(record, "response",
                         template_ != nullptr ? template_->prompt(request, "") : request, out);
      }
      case form::text:
        break;
    }
    const std::string& text = string_at(record, "text");
    require_content(text, "text");
    out.segments.push_back({text, true});
  }

  void require_content(const std::string& text, std::string_view field) const {
    if (text.find_first_not_of(" \t\r\n") == text.npos)
      fail(record_fault::empty_response, field, text.empty() ? "an empty text" : "only white space",
           "something to predict");
  }

  void fill_pair(const json& record, std::string_view key, std::string prompt,
                 text_record& out) const {
    const std::string& response = string_at(record, key);
    require_content(response, key);
    out.segments.push_back({std::move(prompt), false});
    out.segments.push_back({response, true});
  }

  void fill_chat(const json& record, text_record& out, std::string_view key, std::string_view role,
                 std::string_view content) const {
    const json& turns = record[std::string(key)];
    if (!turns.is_array()) fail(record_fault::wrong_value, key, describe(turns), "a list of turns");
    for (std::size_t i = 0; i < turns.size(); ++i) {
      const std::string name = std::string(key) + "[" + std::to_string(i) + "]";
      if (!turns[i].is_object())
        fail(record_fault::wrong_value, name, describe(turns[i]), "an object");
      const std::string& who = string_at(turns[i], role, name + ".");
      const auto row = std::find_if(chat_role_names.begin(), chat_role_names.end(),
                                    [&](const auto& r) { return r.first == who; });
      if (row == chat_role_names.end())
        fail(record_fault::wrong_value, name + "." + std::string(role), in_quotes(who),
             "system, user (human) or assistant (gpt)");
      const std::string& text = string_at(turns[i], content, name + ".");
      const bool answer = row->second == chat_role::assistant;
      if (answer) require_content(text, name + "." + std::string(content));
      const bool after_answer = !out.segments.empty() && out.segments.back().predicted;
      if (answer && after_answer) out.segments.push_back({"\n\n", false});
      std::string rendered = answer ? text : chat_text(row->second, text, after_answer);
      if (!answer && !out.segments.empty() && !after_answer)
        out.segments.back().text += rendered;
      else
        out.segments.push_back({std::move(rendered), answer});
    }
    // A question without an answer at the end has nothing to teach.
    if (!out.segments.empty() && !out.segments.back().predicted) out.segments.pop_back();
    if (out.segments.empty())
      fail(record_fault::empty_response, key, "no turn of the assistant", "at least one");
  }

  token_id token_at(const json& value, std::string_view key, std::size_t i, bool may_ignore) const {
    if (may_ignore && value == ignored) return ignored;
    const bool fits = value.is_number_unsigned() &&
                      value.get<std::uint64_t>() <=
                          static_cast<std::uint64_t>(std::numeric_limits<token_id>::max());
    if (!fits)
      fail(record_fault::wrong_value, std::string(key) + "[" + std::to_string(i) + "]",
           describe(value), may_ignore ? "an id or -100" : "an id in [0, 2^31)");
    return value.get<token_id>();
  }

  void fill_tokens(const json& record, text_record& out) const {
    const json &ids = record["input_ids"], &labels = record["labels"];
    for (const auto& [key, list] : {std::pair("input_ids", &ids), {"labels", &labels}})
      if (!list->is_array()) fail(record_fault::wrong_value, key, describe(*list), "a list of ids");
    if (labels.size() != ids.size())
      fail(record_fault::wrong_value, "labels", std::to_string(labels.size()) + " elements",
           std::to_string(ids.size()) + ", as many as input_ids");
    bool any = false;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      out.ids.push_back(token_at(ids[i], "input_ids", i, false));
      out.labels.push_back(token_at(labels[i], "labels", i, true));
      // Labels are not shifted; a list that is would train the wrong thing without a word.
      if (out.labels[i] != ignored && out.labels[i] != out.ids[i])
        fail(record_fault::wrong_value, "labels[" + std::to_string(i) + "]",
             std::to_string(out.labels[i]),
             std::to_string(out.ids[i]) + ", as in input_ids, or -100");
      any = any || (i > 0 && out.labels[i] != ignored);
    }
    if (!any)
      fail(record_fault::empty_response, "labels", "no token to predict",
           "at least one label behind the first that is not -100");
  }

  const std::string& file_;
  const prompt_template* template_;
  index_t longest_;
  index_t line_ = 1;
};

}  // namespace dualsft::llm::detail
