// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

/// Hash tables that are built once and then only read.
namespace dualsft::llm::detail {

__extension__ using wide_product = unsigned __int128;

inline std::uint64_t mix_hash(std::uint64_t a, std::uint64_t b) {
  const wide_product product = static_cast<wide_product>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

/// Differs from run to run wherever addresses do, so that no file can be made whose keys collide.
/// No result depends on it: tables are never walked.
inline std::uint64_t hash_seed() {
  static const int anchor = 0;
  static const std::uint64_t seed =
      mix_hash(reinterpret_cast<std::uintptr_t>(&anchor) ^ 0x9E3779B97F4A7C15u,
               reinterpret_cast<std::uintptr_t>(&seed) ^ 0xD1B54A32D192ED03u) |
      1;
  return seed;
}

inline std::uint64_t hash_text(std::string_view text, std::uint64_t seed) {
  constexpr std::uint64_t odd = 0xA0761D6478BD642Fu;
  std::uint64_t hash = seed ^ text.size();
  const char* p = text.data();
  std::size_t left = text.size();
  std::uint64_t word = 0;
  for (; left > 8; left -= 8, p += 8) {
    std::memcpy(&word, p, 8);
    hash = mix_hash(hash ^ word, odd);
  }
  word = 0;
  if (left >= 4) {  // two overlapping halves
    std::uint32_t low = 0, high = 0;
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + left - 4, 4);
    word = std::uint64_t{high} << 32 | low;
  } else if (left > 0) {
    const auto byte = [p](std::size_t i) {
      return std::uint64_t{static_cast<unsigned char>(p[i])};
    };
    word = byte(0) << 16 | byte(left / 2) << 8 | byte(left - 1);
  }
  return mix_hash(hash ^ word, odd ^ seed);
}

/// Numbers of texts that lie elsewhere.
class text_index {
 public:
  static constexpr std::uint32_t none = UINT32_MAX;

  explicit text_index(std::size_t count = 0)
      : seed_(hash_seed()), slots_(std::bit_ceil(2 * count + 1)) {}

  std::uint64_t hash(std::string_view text) const { return hash_text(text, seed_); }

  /// `text_of(i)` gives the text of number i.
  template <class TextOf>
  std::uint32_t find(std::string_view text, std::uint64_t hash, TextOf&& text_of) const {
    for (std::size_t at = hash;; ++at) {
      const slot& s = slots_[at & (slots_.size() - 1)];
      if (s.number == none) return none;
      if (s.tag == static_cast<std::uint32_t>(hash >> 32) && text_of(s.number) == text)
        return s.number;
    }
  }

  /// Adds a number unless its text is there already; returns who holds the text then.
  template <class TextOf>
  std::uint32_t add(std::uint32_t number, TextOf&& text_of) {
    const std::string_view text = text_of(number);
    const std::uint64_t h = hash(text);
    const std::uint32_t found = find(text, h, text_of);
    if (found != none) return found;
    std::size_t at = h;
    while (slots_[at & (slots_.size() - 1)].number != none) ++at;
    slots_[at & (slots_.size() - 1)] = {static_cast<std::uint32_t>(h >> 32), number};
    return number;
  }

 private:
  struct slot {
    std::uint32_t tag = 0, number = none;
  };
  std::uint64_t seed_;
  std::vector<slot> slots_;  // at most half full
};

/// What becomes of two neighbours: the rank of their merge and the token it makes.
struct merge_result {
  static constexpr std::uint32_t never = UINT32_MAX;
  std::uint32_t rank = never;
  std::uint32_t id = 0;
};

class merge_table {
 public:
  explicit merge_table(std::size_t count = 0)
      : seed_(hash_seed()), slots_(std::bit_ceil(2 * count + 1)) {}

  merge_result find(std::uint32_t left, std::uint32_t right) const {
    return slots_[place(key(left, right))].result;
  }

  /// The last of equal pairs counts.
  void put(std::uint32_t left, std::uint32_t right, merge_result result) {
    const std::uint64_t k = key(left, right);
    slots_[place(k)] = {k, result};
  }

 private:
  struct slot {
    std::uint64_t key = 0;
    merge_result result;
  };

  static std::uint64_t key(std::uint32_t left, std::uint32_t right) {
    return std::uint64_t{left} << 32 | right;
  }

  // Where the key stands, or the free place where it would.
  std::size_t place(std::uint64_t k) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = mix_hash(k ^ seed_, 0x9FB21C651E98DF25u) & mask;
    while (slots_[at].result.rank != merge_result::never && slots_[at].key != k)
      at = (at + 1) & mask;
    return at;
  }

  std::uint64_t seed_;
  std::vector<slot> slots_;  // at most half full
};

}  // namespace dualsft::llm::detail
