// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <dualsft/llm/detail/char_classes.hpp>
#include <dualsft/llm/token_corpus.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace dualsft::llm::detail {

/// A token that is looked for in the text itself, before anything else happens to it.
struct added_token {
  std::string text;
  token_id id = 0;
  bool special = false;
  bool single_word = false;  ///< no word character on either side
  bool lstrip = false;       ///< takes the spaces in front along
  bool rstrip = false;       ///< and those behind
  bool normalized = false;   ///< looked for in the normalized text
};

/// Finds added tokens: leftmost first, of those that begin there the longest.
class added_token_matcher {
 public:
  added_token_matcher() { first_.fill({0, 0}); }

  explicit added_token_matcher(std::vector<added_token> tokens) : tokens_(std::move(tokens)) {
    std::stable_sort(tokens_.begin(), tokens_.end(),
                     [](const auto& a, const auto& b) { return a.text < b.text; });
    // Equal texts can arise from normalization; the first of them in the file wins.
    tokens_.erase(std::unique(tokens_.begin(), tokens_.end(),
                              [](const auto& a, const auto& b) { return a.text == b.text; }),
                  tokens_.end());
    std::erase_if(tokens_, [](const added_token& t) { return t.text.empty(); });
    first_.fill({0, 0});
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      auto& [begin, end] = first_[static_cast<unsigned char>(tokens_[i].text[0])];
      if (begin == end) begin = i;
      end = i + 1;
    }
    for (std::size_t byte = 0; byte < 256; ++byte)
      if (first_[byte].begin != first_[byte].end) {
        lead_ = static_cast<unsigned char>(byte);
        ++leads_;
      }
  }

  /// Calls visit(piece, id) for the parts of `text` in order: tokens with their ids, what lies
  /// between with -1.
  template <class Visit>
  void split(std::string_view text, Visit&& visit) const {
    std::size_t done = 0;
    for (std::size_t at = 0; (at = candidate(text, at)) < text.size();) {
      const added_token* found = longest_at(text, at);
      if (found == nullptr) {
        ++at;
        continue;
      }
      std::size_t begin = at, end = at + found->text.size();
      at = end;
      if (found->single_word && (word_ends(text, begin) || word_begins(text, end))) continue;
      if (found->lstrip) {
        while (begin > done && space_at(text, previous_utf8(text, begin)))
          begin = previous_utf8(text, begin);
      }
      if (found->rstrip) {
        while (end < text.size() && space_at(text, end)) end += decode_utf8(text.data() + end).size;
      }
      if (done < begin) visit(text.substr(done, begin - done), token_id{-1});
      visit(text.substr(begin, end - begin), found->id);
      done = end;
    }
    if (done < text.size()) visit(text.substr(done), token_id{-1});
  }

 private:
  struct range {
    std::size_t begin, end;
  };

  static char_class class_at(std::string_view text, std::size_t at) {
    return char_classes()[decode_utf8(text.data() + at).value];
  }
  static bool space_at(std::string_view text, std::size_t at) {
    return (class_at(text, at) & is_space) != 0;
  }
  static bool word_ends(std::string_view text, std::size_t at) {
    return at > 0 && (class_at(text, previous_utf8(text, at)) & is_word) != 0;
  }
  static bool word_begins(std::string_view text, std::size_t at) {
    return at < text.size() && (class_at(text, at) & is_word) != 0;
  }

  // The next place at which the first byte of a token stands; the size if there is none.
  std::size_t candidate(std::string_view text, std::size_t at) const {
    if (leads_ == 0 || at >= text.size()) return text.size();
    if (leads_ == 1) {
      const void* found = std::memchr(text.data() + at, lead_, text.size() - at);
      return found == nullptr
                 ? text.size()
                 : static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
    }
    while (at < text.size()) {
      const range& r = first_[static_cast<unsigned char>(text[at])];
      if (r.begin != r.end) break;
      ++at;
    }
    return at;
  }

  // Narrows the sorted tokens byte by byte to those that agree with the text.
  const added_token* longest_at(std::string_view text, std::size_t at) const {
    auto [begin, end] = first_[static_cast<unsigned char>(text[at])];
    const added_token* found = nullptr;
    for (std::size_t depth = 1; begin < end; ++depth) {
      if (tokens_[begin].text.size() == depth) found = &tokens_[begin++];
      if (begin == end || at + depth == text.size()) break;
      const auto wanted = static_cast<unsigned char>(text[at + depth]);
      const auto byte = [&](const added_token& t) {
        return static_cast<unsigned char>(t.text[depth]);
      };
      const auto from = tokens_.begin() + static_cast<std::ptrdiff_t>(begin);
      const auto to = tokens_.begin() + static_cast<std::ptrdiff_t>(end);
      const auto low =
          std::partition_point(from, to, [&](const added_token& t) { return byte(t) < wanted; });
      const auto high =
          std::partition_point(low, to, [&](const added_token& t) { return byte(t) == wanted; });
      begin = static_cast<std::size_t>(low - tokens_.begin());
      end = static_cast<std::size_t>(high - tokens_.begin());
    }
    return found;
  }

  std::vector<added_token> tokens_;  // sorted by text, bytes as unsigned
  std::array<range, 256> first_;     // of tokens_, by first byte
  unsigned char lead_ = 0;           // the first byte, where all share it
  int leads_ = 0;
};

}  // namespace dualsft::llm::detail
