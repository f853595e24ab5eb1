// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <istream>
#include <ostream>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

/// The stream of an optimizer's state: 64-bit little-endian words, the last one a digest of those
/// before it. Narrower numbers are packed low half first and padded with zeros to a whole word.
namespace dualsft::detail {

/// A 64-bit digest, for accidents and not for adversaries. Each step is a bijection of the digest
/// and of the word, so a change confined to one word always shows.
class word_digest {
 public:
  void add(std::uint64_t word) {
    value_ = (value_ ^ word) * 0x9e3779b97f4a7c15ULL;
    value_ ^= value_ >> 32;
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0x6475616c73667431ULL;
};

/// Up to 8 characters in one word, the first one lowest.
constexpr std::uint64_t text_word(std::string_view text) {
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(8, text.size()); ++i)
    word |= std::uint64_t{static_cast<unsigned char>(text[i])} << (8 * i);
  return word;
}

inline std::string word_text(std::uint64_t word) {
  std::string text;
  for (; word != 0; word >>= 8) {
    const auto c = static_cast<char>(word & 0xff);
    text += (c >= ' ' && c <= '~') ? c : '?';
  }
  return "\"" + text + "\"";
}

template <class Real>
using bits_of = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;

template <class Real>
inline constexpr std::size_t reals_per_word = 8 / sizeof(Real);

/// Words move through this much buffer.
inline constexpr std::size_t words_per_turn = 4096;

class state_writer {
 public:
  state_writer(std::ostream& stream, std::string source)
      : stream_(stream), source_(std::move(source)) {}

  void word(std::uint64_t value) { words({&value, 1}); }
  void number(double value) { word(std::bit_cast<std::uint64_t>(value)); }

  template <class Real>
  void reals(std::span<const Real> values) {
    constexpr std::size_t per_word = reals_per_word<Real>;
    std::vector<std::uint64_t> turn(words_per_turn);
    for (std::size_t at = 0; at < values.size();) {
      const std::size_t count = std::min(values.size() - at, words_per_turn * per_word);
      std::ranges::fill(turn, 0);
      for (std::size_t i = 0; i < count; ++i)
        turn[i / per_word] |= std::uint64_t{std::bit_cast<bits_of<Real>>(values[at + i])}
                              << (8 * sizeof(Real) * (i % per_word));
      words(std::span(turn).first((count + per_word - 1) / per_word));
      at += count;
    }
  }

  void finish() {
    word(digest_.value());
    stream_.flush();
    check();
  }

 private:
  void words(std::span<const std::uint64_t> values) {
    bytes_.resize(8 * values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      digest_.add(values[i]);
      for (std::size_t b = 0; b < 8; ++b)
        bytes_[8 * i + b] = static_cast<char>(values[i] >> (8 * b) & 0xff);
    }
    stream_.write(bytes_.data(), static_cast<std::streamsize>(bytes_.size()));
    check();
  }

  void check() const {
    if (!stream_) throw input_error(source_, "stream", "a failed write", "room for the state");
  }

  std::ostream& stream_;
  std::string source_;
  std::vector<char> bytes_;
  word_digest digest_;
};

class state_reader {
 public:
  state_reader(std::istream& stream, std::string source)
      : stream_(stream), source_(std::move(source)) {}

  std::uint64_t word(std::string_view field) {
    std::uint64_t value = 0;
    words(field, {&value, 1});
    return value;
  }

  void expect_text(std::string_view field, std::string_view expected) {
    const std::uint64_t found = word(field);
    if (found != text_word(expected)) fail(field, word_text(found), word_text(text_word(expected)));
  }

  void expect(std::string_view field, std::uint64_t expected) {
    const std::uint64_t found = word(field);
    if (found != expected) fail(field, std::to_string(found), std::to_string(expected));
  }

  void expect_number(std::string_view field, double expected) {
    const auto found = std::bit_cast<double>(word(field));
    if (found == expected) return;
    std::ostringstream found_text, expected_text;
    found_text.precision(17);
    expected_text.precision(17);
    found_text << found;
    expected_text << expected;
    fail(field, found_text.str(), expected_text.str());
  }

  /// Reads as many values as the caller has room for; no size is taken from the stream.
  template <class Real>
  void reals(std::string_view field, std::span<Real> values) {
    constexpr std::size_t per_word = reals_per_word<Real>;
    std::vector<std::uint64_t> turn(words_per_turn);
    for (std::size_t at = 0; at < values.size();) {
      const std::size_t count = std::min(values.size() - at, words_per_turn * per_word);
      words(field, std::span(turn).first((count + per_word - 1) / per_word));
      for (std::size_t i = 0; i < count; ++i)
        values[at + i] = std::bit_cast<Real>(
            static_cast<bits_of<Real>>(turn[i / per_word] >> (8 * sizeof(Real) * (i % per_word))));
      at += count;
    }
  }

  void finish() {
    const std::uint64_t expected = digest_.value();
    expect("checksum", expected);
  }

  [[noreturn]] void fail(std::string_view field, std::string found, std::string expected) const {
    throw input_error(source_, std::string(field), std::move(found), std::move(expected));
  }

 private:
  void words(std::string_view field, std::span<std::uint64_t> values) {
    bytes_.resize(8 * values.size());
    stream_.read(bytes_.data(), static_cast<std::streamsize>(bytes_.size()));
    if (stream_.gcount() != static_cast<std::streamsize>(bytes_.size()))
      fail(field, "the end of the stream after " + std::to_string(stream_.gcount()) + " bytes",
           std::to_string(bytes_.size()) + " bytes");
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = 0;
      for (std::size_t b = 0; b < 8; ++b)
        values[i] |= std::uint64_t{static_cast<unsigned char>(bytes_[8 * i + b])} << (8 * b);
      digest_.add(values[i]);
    }
  }

  std::istream& stream_;
  std::string source_;
  std::vector<char> bytes_;
  word_digest digest_;
};

}  // namespace dualsft::detail
