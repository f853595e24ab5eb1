// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <dualsft/llm/detail/byte_alphabet.hpp>
#include <dualsft/llm/detail/text_index.hpp>
#include <dualsft/llm/detail/token_decoder.hpp>
#include <dualsft/llm/detail/tokenizer_json.hpp>
#include <dualsft/llm/token_corpus.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Byte-pair encoding of one word: its characters (or bytes) become symbols, and as long as two
/// neighbours have a merge, the one of the lowest rank is done, the leftmost of equal ones.
namespace dualsft::llm::detail {

/// What encoding one text needs beside the model.
struct bpe_scratch {
  std::vector<std::uint32_t> symbols, previous, next, ranks;
  std::vector<std::uint64_t> queue;
  std::string mapped;
};

/// Merges in place. Short words: the lowest rank is looked for anew each time, O(n^2) on arrays
/// that fit in the cache. Long ones: a heap of (rank, position) over a linked list, O(n log n).
class merger {
 public:
  explicit merger(const merge_table& merges) : merges_(merges) {}

  void run(bpe_scratch& s) const {
    if (s.symbols.size() <= longest_scan)
      s.symbols.resize(scan(s.symbols.data(), s.symbols.size()));
    else
      merge_by_heap(s);
  }

  static constexpr std::size_t longest_scan = 64;

  /// Returns how many symbols remain.
  std::size_t scan(std::uint32_t* symbols, std::size_t n) const {
    constexpr auto never = merge_result::never;
    std::array<std::uint32_t, longest_scan + 1> ranks, results;
    const auto look = [&](std::size_t i) {
      const merge_result found = merges_.find(symbols[i], symbols[i + 1]);
      ranks[i] = found.rank;
      results[i] = found.id;
    };
    for (std::size_t i = 0; i + 1 < n; ++i) look(i);
    while (n > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < n; ++i)
        if (ranks[i] < ranks[best]) best = i;
      if (ranks[best] == never) break;
      symbols[best] = results[best];
      --n;
      for (std::size_t i = best + 1; i < n; ++i) symbols[i] = symbols[i + 1];
      for (std::size_t i = best + 1; i + 1 < n; ++i) {
        ranks[i] = ranks[i + 1];
        results[i] = results[i + 1];
      }
      if (best + 1 < n) look(best);
      if (best > 0) look(best - 1);
    }
    return n;
  }

 private:
  void merge_by_heap(bpe_scratch& s) const {
    constexpr auto never = merge_result::never;
    const auto n = static_cast<std::uint32_t>(s.symbols.size());
    s.previous.resize(n);
    s.next.resize(n);
    s.ranks.assign(n, never);
    s.queue.clear();
    // The heap's top is the least (rank, position). An entry counts only if it still tells the rank
    // of the pair at its position; a rank belongs to one pair only.
    const auto later = [](std::uint64_t a, std::uint64_t b) { return a > b; };
    const auto look = [&](std::uint32_t i) {
      s.ranks[i] = s.next[i] == n ? never : merges_.find(s.symbols[i], s.symbols[s.next[i]]).rank;
      return s.ranks[i] != never;
    };
    const auto entry = [&](std::uint32_t i) { return std::uint64_t{s.ranks[i]} << 32 | i; };
    for (std::uint32_t i = 0; i < n; ++i) {
      s.previous[i] = i - 1;  // wraps to no index for the first
      s.next[i] = i + 1;
    }
    for (std::uint32_t i = 0; i < n; ++i)
      if (look(i)) s.queue.push_back(entry(i));
    std::make_heap(s.queue.begin(), s.queue.end(), later);
    const auto push = [&](std::uint32_t i) {
      if (!look(i)) return;
      s.queue.push_back(entry(i));
      std::push_heap(s.queue.begin(), s.queue.end(), later);
    };
    while (!s.queue.empty()) {
      std::pop_heap(s.queue.begin(), s.queue.end(), later);
      const std::uint64_t top = s.queue.back();
      s.queue.pop_back();
      const auto i = static_cast<std::uint32_t>(top);
      if (s.ranks[i] != static_cast<std::uint32_t>(top >> 32)) continue;
      const std::uint32_t right = s.next[i];
      s.symbols[i] = merges_.find(s.symbols[i], s.symbols[right]).id;
      s.ranks[right] = never;  // gone: nothing in the heap about it counts any more
      s.next[i] = s.next[right];
      if (s.next[i] != n) s.previous[s.next[i]] = i;
      push(i);
      if (i > 0) push(s.previous[i]);
    }
    std::uint32_t kept = 0;
    for (std::uint32_t i = 0; i != n; i = s.next[i]) s.symbols[kept++] = s.symbols[i];
    s.symbols.resize(kept);
  }

  const merge_table& merges_;
};

/// Words that were merged lately, of whatever model; one per thread, so that nobody waits.
class word_cache {
 public:
  static constexpr std::size_t longest_word = 22, most_ids = 8;

  struct entry {
    std::uint64_t model = 0;  // serial number; none has 0
    std::uint8_t size = 0, count = 0;
    std::array<char, longest_word> text;
    std::array<token_id, most_ids> ids;
  };

  static word_cache& of_this_thread() {
    static thread_local const std::unique_ptr<word_cache> cache = std::make_unique<word_cache>();
    return *cache;
  }

  entry& place(std::uint64_t hash) { return entries_[(hash >> 7) % entries_.size()]; }

 private:
  std::array<entry, 8192> entries_{};
};

struct bpe_options {
  bool byte_level = false;  // words are bytes, tokens are spelt in the byte alphabet
  bool byte_fallback = false;
  bool fuse_unknown = false;
  bool ignore_merges = false;  // a word that is a token is that token
  std::string unknown;         // the text of the token for what has none; empty: no such token
};

class bpe_model {
  // Where the indexes find the texts of their rows; deduced types must come before their use.
  auto texts() const {
    return [this](std::uint32_t row) { return tokens_[row]; };
  }
  auto raws() const {
    return [this](std::uint32_t row) { return raw_[row]; };
  }

 public:
  bpe_model(const tokenizer_tables& tables, bpe_options options, std::string file)
      : file_(std::move(file)), options_(std::move(options)), tokens_(tables.tokens) {
    static std::atomic<std::uint64_t> models{0};
    serial_ = ++models;
    add_tokens(tables.ids);
    add_merges(tables);
    find_symbols();
    // What merging makes of the tokens' own texts: most words of a text are tokens, and need no
    // merging if it is known to end there.
    bpe_scratch scratch;
    whole_.assign(tokens_.size(), 0);
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (!has_raw_[i] || raw_[i].empty() || raw_[i].size() > longest_known) continue;
      if (!spell(raw_[i], scratch)) continue;
      merger(merges_).run(scratch);
      const bool alone = scratch.symbols.size() == 1 && scratch.symbols[0] == id_of_row(i);
      whole_[i] = alone ? 1 : 0;
    }
  }

  /// Rows are tokens in the order of the file.
  std::size_t size() const { return tokens_.size(); }
  std::string_view text(std::size_t row) const { return tokens_[row]; }
  std::uint32_t id_of_row(std::size_t row) const { return static_cast<std::uint32_t>(ids_[row]); }

  std::optional<token_id> id_of(std::string_view token) const {
    const std::uint32_t row = by_text_.find(token, by_text_.hash(token), texts());
    if (row == text_index::none) return std::nullopt;
    return ids_[row];
  }

  /// Appends the tokens of one word.
  void encode(std::string_view word, bpe_scratch& scratch, std::vector<token_id>& out) const {
    if (options_.ignore_merges && !word.empty()) {
      const std::uint32_t row = by_raw_.find(word, by_raw_.hash(word), raws());
      if (row != text_index::none) return out.push_back(ids_[row]);
    }
    if (cuts_at_marks_) {
      // No token holds this character and then a mark, so that no merge crosses the place between.
      for (std::size_t from = 1, at; (at = word.find(metaspace, from)) != word.npos;) {
        if (joins_mark(word, at)) {
          from = at + 1;
          continue;
        }
        encode_part(word.substr(0, at), scratch, out);
        word.remove_prefix(at);
        from = 1;
      }
    }
    if (!word.empty()) encode_part(word, scratch, out);
  }

 private:
  static constexpr std::string_view metaspace = "\xE2\x96\x81";
  // Longer tokens are found by merging; a hostile file of long tokens costs no long start.
  static constexpr std::size_t longest_known = 64;

  [[noreturn]] void fail(std::string field, std::string found, std::string expected) const {
    throw input_error(file_, std::move(field), std::move(found), std::move(expected));
  }

  void add_tokens(const std::vector<std::int32_t>& ids) {
    using dualsft::detail::in_quotes;
    ids_.assign(ids.begin(), ids.end());
    by_text_ = by_raw_ = text_index(tokens_.size());
    for (std::uint32_t row = 0; row < tokens_.size(); ++row) {
      if (by_text_.add(row, texts()) != row)
        fail("model.vocab[" + in_quotes(tokens_[row]) + "]", "the token twice", "each token once");
      std::string raw;
      const bool has =
          !options_.byte_level || byte_alphabet::get().append_decoded(raw, tokens_[row]);
      has_raw_.push_back(has ? 1 : 0);
      raw_.add(options_.byte_level ? std::string_view(raw) : tokens_[row]);
    }
    for (std::uint32_t row = 0; row < tokens_.size(); ++row)
      if (has_raw_[row]) by_raw_.add(row, raws());
  }

  void add_merges(const tokenizer_tables& tables) {
    using dualsft::detail::in_quotes;
    merges_ = merge_table(tables.left.size());
    std::string both;
    for (std::size_t i = 0; i < tables.left.size(); ++i) {
      const auto field = [i] { return "model.merges[" + std::to_string(i) + "]"; };
      const std::string_view left = tables.left[i], right = tables.right[i];
      if (left.empty() || right.empty())
        fail(field(), "an empty part, so that it makes the other one of itself",
             "two parts that are not empty");
      both.assign(left).append(right);
      const auto a = id_of(left), b = id_of(right), c = id_of(both);
      if (!a || !b)
        fail(field(), "the part " + in_quotes(a ? right : left) + ", which is not in model.vocab",
             "parts that are tokens");
      if (!c)
        fail(field(), in_quotes(both) + " as its result, which is not in model.vocab",
             "a result that is a token");
      merges_.put(static_cast<std::uint32_t>(*a), static_cast<std::uint32_t>(*b),
                  {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(*c)});
      if (!options_.byte_level && right.starts_with(metaspace))
        mark_joins_.push_back(last_character(left));
    }
    std::sort(mark_joins_.begin(), mark_joins_.end());
    mark_joins_.erase(std::unique(mark_joins_.begin(), mark_joins_.end()), mark_joins_.end());
    cuts_at_marks_ = !options_.byte_level && id_of(metaspace).has_value();
  }

  static std::uint32_t last_character(std::string_view text) {
    return decode_utf8(text.data() + previous_utf8(text, text.size())).value;
  }

  // Whether something could merge across word[at], where a mark begins. A character without a token
  // of its own may leave any symbol behind, so nothing is known of it.
  bool joins_mark(std::string_view word, std::size_t at) const {
    const std::size_t begin = previous_utf8(word, at);
    return std::binary_search(mark_joins_.begin(), mark_joins_.end(),
                              decode_utf8(word.data() + begin).value) ||
           !id_of(word.substr(begin, at - begin));
  }

  void find_symbols() {
    bytes_complete_ = options_.byte_level;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      const std::uint32_t row = by_raw_.find({&c, 1}, by_raw_.hash({&c, 1}), raws());
      bytes_complete_ = bytes_complete_ && row != text_index::none;
      if (options_.byte_level && row != text_index::none) byte_symbols_[byte] = id_of_row(row);
      fallback_[byte] = options_.byte_fallback ? id_of(byte_token(byte)) : std::nullopt;
    }
  }

  void encode_part(std::string_view word, bpe_scratch& scratch, std::vector<token_id>& out) const {
    const std::uint64_t hash = by_raw_.hash(word);
    const std::uint32_t row = by_raw_.find(word, hash, raws());
    if (row != text_index::none && whole_[row]) return out.push_back(ids_[row]);
    if (word.size() > word_cache::longest_word) return merge(word, scratch, out);
    word_cache::entry& known = word_cache::of_this_thread().place(hash);
    if (known.model != serial_ || std::string_view(known.text.data(), known.size) != word) {
      const std::size_t before = out.size();
      merge(word, scratch, out);
      const std::size_t count = out.size() - before;
      if (count > word_cache::most_ids) return;
      known.model = serial_;
      known.size = static_cast<std::uint8_t>(word.size());
      known.count = static_cast<std::uint8_t>(count);
      std::copy(word.begin(), word.end(), known.text.begin());
      std::copy(out.begin() + static_cast<std::ptrdiff_t>(before), out.end(), known.ids.begin());
      return;
    }
    out.insert(out.end(), known.ids.begin(), known.ids.begin() + known.count);
  }

  void merge(std::string_view word, bpe_scratch& scratch, std::vector<token_id>& out) const {
    if (!spell(word, scratch))
      fail("model.unk_token",
           dualsft::detail::in_quotes(options_.unknown) + ", which is not in model.vocab",
           "a token, as the text has a character without one");
    merger(merges_).run(scratch);
    for (const std::uint32_t symbol : scratch.symbols) out.push_back(static_cast<token_id>(symbol));
  }

  // The symbols that a word begins with; false if it needs the unknown token and there is none.
  bool spell(std::string_view word, bpe_scratch& scratch) const {
    auto& symbols = scratch.symbols;
    symbols.clear();
    if (bytes_complete_) {
      for (const char c : word) symbols.push_back(byte_symbols_[static_cast<unsigned char>(c)]);
      return true;
    }
    if (options_.byte_level) {
      scratch.mapped.clear();
      byte_alphabet::get().append_encoded(scratch.mapped, word);
      word = scratch.mapped;
    }
    // An unknown character waits for the next one, with which it may be fused; bytes do not end the
    // wait. That is how the `tokenizers` package does it.
    std::optional<std::uint32_t> waiting;
    for (std::size_t at = 0, size; at < word.size(); at += size) {
      size = decode_utf8(word.data() + at).size;
      const std::string_view character = word.substr(at, size);
      if (const auto id = id_of(character)) {
        if (waiting) symbols.push_back(*waiting);
        waiting.reset();
        symbols.push_back(static_cast<std::uint32_t>(*id));
        continue;
      }
      if (options_.byte_fallback && push_bytes(character, symbols)) continue;
      if (options_.unknown.empty()) continue;
      if (waiting && !options_.fuse_unknown) symbols.push_back(*waiting);
      const auto unknown = id_of(options_.unknown);
      if (!unknown) return false;
      waiting = static_cast<std::uint32_t>(*unknown);
    }
    if (waiting) symbols.push_back(*waiting);
    return true;
  }

  bool push_bytes(std::string_view character, std::vector<std::uint32_t>& symbols) const {
    for (const char c : character)
      if (!fallback_[static_cast<unsigned char>(c)]) return false;
    for (const char c : character)
      symbols.push_back(static_cast<std::uint32_t>(*fallback_[static_cast<unsigned char>(c)]));
    return true;
  }

  std::string file_;
  bpe_options options_;
  std::uint64_t serial_ = 0;
  text_table tokens_, raw_;  // raw_: the text that a token is when it is a whole word
  std::vector<token_id> ids_;
  std::vector<std::uint8_t> has_raw_, whole_;
  text_index by_text_, by_raw_;
  merge_table merges_;
  bool bytes_complete_ = false;
  std::array<std::uint32_t, 256> byte_symbols_{};
  std::array<std::optional<token_id>, 256> fallback_{};
  std::vector<std::uint32_t> mark_joins_;  // sorted: characters that a merge joins to a mark
  bool cuts_at_marks_ = false;
};

}  // namespace dualsft::llm::detail
