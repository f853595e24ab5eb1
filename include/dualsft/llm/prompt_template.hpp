// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/llm/detail/json_document.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// From the fields of a record to the text in front of its response.
///
/// | record                    | text in front of the response, unless a template says otherwise   |
/// |---------------------------|-------------------------------------------------------------------|
/// | instruction, input, output| Alpaca: a line that states the task, then "### Instruction:",      |
/// |                           | "### Input:" (if the input is not empty), "### Response:"          |
/// | question, answer          | "Question: <question>\nAnswer:\n"                                  |
/// | prompt, response          | the prompt as it stands: whoever wrote "prompt" has formatted it   |
/// | messages, conversations   | see chat_text; a template does not apply                           |
namespace dualsft::llm {

/// Alpaca's prompt. Source: the two templates of Stanford's Alpaca data.
inline std::string alpaca_prompt(std::string_view instruction, std::string_view input) {
  std::string out = "Below is an instruction that describes a task";
  if (!input.empty()) out += ", paired with an input that provides further context";
  out += ". Write a response that appropriately completes the request.\n\n### Instruction:\n";
  out += instruction;
  if (!input.empty()) {
    out += "\n\n### Input:\n";
    out += input;
  }
  return out += "\n\n### Response:\n";
}

inline std::string question_prompt(std::string_view question) {
  return "Question: " + std::string(question) + "\nAnswer:\n";
}

enum class chat_role { system, user, assistant };

/// The names of roles, of both conventions; anything else (tools, functions) has no meaning here.
constexpr std::array<std::pair<std::string_view, chat_role>, 5> chat_role_names{
    {{"system", chat_role::system},
     {"user", chat_role::user},
     {"human", chat_role::user},
     {"assistant", chat_role::assistant},
     {"gpt", chat_role::assistant}}};

/// What one turn of a conversation contributes, in the style of Alpaca without its first line:
///
///     system      <text> \n\n
///     user        ### Instruction: \n <text> \n\n### Response: \n
///     assistant   <text>                  (this alone is predicted)
///
/// \param after_answer  whether an assistant's turn stands before; \n\n then separates the two
inline std::string chat_text(chat_role role, std::string_view text, bool after_answer) {
  std::string out = after_answer ? "\n\n" : "";
  switch (role) {
    case chat_role::system:
      return out + std::string(text) + "\n\n";
    case chat_role::user:
      return out + "### Instruction:\n" + std::string(text) + "\n\n### Response:\n";
    case chat_role::assistant:
      break;
  }
  return out + std::string(text);
}

/// A user's own template, for the three pair forms:
///
///     Q: {question}
///     A: {response}
///
/// {instruction}, {prompt} and {question} are three names of the request, {input} is the input
/// ("" where there is none), {response}, {output} and {answer} are three names of the response. The
/// response comes once and last, as what follows it could not be generated; one line break at the
/// end of the file is no part of the template. {{ and }} stand for braces. Where a template has no
/// {input}, an input follows its request on a line of its own, so that no data is lost.
class prompt_template {
 public:
  /// \param name  of the file, for messages
  /// \throws input_error  (field "line N" or "template") for an unknown placeholder, a lone brace, a
  ///                      response that is missing, repeated or not last, no request, not UTF-8
  static prompt_template from_text(std::string_view text, const std::string& name) {
    prompt_template out;
    out.parse(detail::without_mark(name, text), name);
    return out;
  }

  /// \throws input_error  as from_text, and if the file cannot be read or is larger than 1 MiB
  static prompt_template from_file(const std::string& path) {
    return from_text(detail::read_text_file(path, index_t{1} << 20), path);
  }

  /// The text in front of the response.
  std::string prompt(std::string_view request, std::string_view input) const {
    std::string out;
    for (const piece& p : pieces_) {
      out += p.literal;
      if (p.what == slot::request) {
        out += request;
        if (!has_input_ && !input.empty()) {
          out += '\n';
          out += input;
        }
      } else if (p.what == slot::input) {
        out += input;
      }
    }
    return out;
  }

 private:
  enum class slot { none, request, input, response };

  struct piece {
    std::string literal;
    slot what = slot::none;  // follows the literal
  };

  static constexpr std::array<std::pair<std::string_view, slot>, 7> slots{
      {{"instruction", slot::request},
       {"prompt", slot::request},
       {"question", slot::request},
       {"input", slot::input},
       {"response", slot::response},
       {"output", slot::response},
       {"answer", slot::response}}};

  prompt_template() = default;

  void parse(std::string_view text, const std::string& name) {
    try {
      (void)detail::json(std::string(text)).dump();
    } catch (const detail::json::exception&) {
      throw input_error(name, "template", "bytes that are not UTF-8", "UTF-8");
    }
    if (text.ends_with('\n')) text.remove_suffix(1);
    if (text.ends_with('\r')) text.remove_suffix(1);

    index_t line = 1;
    const auto fail = [&](std::string found, std::string expected) {
      throw input_error(name, "line " + std::to_string(line), std::move(found),
                        std::move(expected));
    };
    bool has_request = false, has_response = false;
    piece next;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (has_response) fail("text behind the response", "the response at the end");
      const char c = text[i];
      if (c == '\n') ++line;
      if (c != '{' && c != '}') {
        next.literal += c;
        continue;
      }
      if (i + 1 < text.size() && text[i + 1] == c) {
        next.literal += c;
        ++i;
        continue;
      }
      if (c == '}') fail("a lone '}'", "'}}', or a placeholder before it");
      const auto end = text.find_first_of("{}\n", i + 1);
      if (end == text.npos || text[end] != '}') fail("a lone '{'", "'{{', or {placeholder}");
      const std::string_view word = text.substr(i + 1, end - i - 1);
      const auto found = std::find_if(slots.begin(), slots.end(),
                                      [&](const auto& row) { return row.first == word; });
      if (found == slots.end())
        fail(detail::in_quotes("{" + std::string(word) + "}"),
             "{instruction}, {prompt}, {question}, {input}, {response}, {output} or {answer}");
      next.what = found->second;
      has_request = has_request || next.what == slot::request;
      has_input_ = has_input_ || next.what == slot::input;
      has_response = next.what == slot::response;
      pieces_.push_back(std::exchange(next, {}));
      i = end;
    }
    if (!has_response) throw input_error(name, "template", "no response", "{response} at the end");
    if (!has_request)
      throw input_error(name, "template", "no request", "{instruction}, {prompt} or {question}");
  }

  std::vector<piece> pieces_;
  bool has_input_ = false;
};

}  // namespace dualsft::llm
