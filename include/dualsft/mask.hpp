// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/detail/density.hpp>
#include <dualsft/error.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/layout.hpp>
#include <span>
#include <utility>
#include <vector>

/// Masks: which coordinates of a model may move.
///
/// | form      | bytes      | for                                                     |
/// |-----------|------------|---------------------------------------------------------|
/// | index_set | 8 K        | the result of selection; compact optimizer state        |
/// | bit_mask  | d / 8      | membership in O(1); denser than one in 64; files        |
///
/// Both split by parameter_layout into tensors, and both are summarised by density_summary.
namespace dualsft {

/// d bits, coordinate i at bit i % 8 of byte i / 8: the order of
/// numpy.packbits(mask, bitorder="little").
class bit_mask {
 public:
  bit_mask() = default;

  /// d clear bits.
  /// \throws invalid_argument  if size is negative
  explicit bit_mask(index_t size) : size_(size) {
    expects(size >= 0, "bit_mask", "size must not be negative", "size", size);
    words_.resize(static_cast<std::size_t>(size / 64 + (size % 64 != 0 ? 1 : 0)));
  }

  /// Cost: O(d / 64 + K).
  explicit bit_mask(const index_set& set) : bit_mask(set.universe()) {
    for (const index_t i : set.indices()) words_[word_of(i)] |= bit_of(i);
  }

  /// \param bytes  [ceil(size / 8)] as numpy packs them
  /// \throws invalid_argument  if the number of bytes is wrong or a bit beyond size is set
  static bit_mask from_packed(std::span<const std::uint8_t> bytes, index_t size) {
    bit_mask mask(size);
    expects(static_cast<index_t>(bytes.size()) == mask.packed_size(), "bit_mask::from_packed",
            "ceil(size / 8) bytes are needed", "bytes", bytes.size(), "size", size);
    expects(size % 8 == 0 || bytes.back() >> (size % 8) == 0, "bit_mask::from_packed",
            "the bits beyond size must be clear", "last byte",
            size % 8 == 0 ? 0 : static_cast<int>(bytes.back()), "size", size);
    for (std::size_t b = 0; b < bytes.size(); ++b)
      mask.words_[b / 8] |= std::uint64_t{bytes[b]} << (8 * (b % 8));
    return mask;
  }

  /// d, members and others.
  index_t size() const noexcept { return size_; }

  /// \param i  in [0, size())
  bool contains(index_t i) const { return (words_[word_of(i)] & bit_of(i)) != 0; }
  void insert(index_t i) {
    expects(0 <= i && i < size_, "bit_mask::insert", "i must lie in [0, size)", "i", i, "size",
            size_);
    words_[word_of(i)] |= bit_of(i);
  }
  void erase(index_t i) {
    expects(0 <= i && i < size_, "bit_mask::erase", "i must lie in [0, size)", "i", i, "size",
            size_);
    words_[word_of(i)] &= ~bit_of(i);
  }

  /// K, the number of members. Cost: O(d / 64).
  index_t count() const {
    index_t members = 0;
    for (const std::uint64_t word : words_) members += std::popcount(word);
    return members;
  }

  /// The number of members in [begin, end). Cost: O((end - begin) / 64).
  index_t count(index_t begin, index_t end) const {
    check_range("bit_mask::count", begin, end);
    index_t members = 0;
    for (index_t at = begin; at < end; at += 64)
      members += std::popcount(word_at(at, std::min<index_t>(64, end - at)));
    return members;
  }

  /// The members in [begin, end) as a mask of their own, begin at bit 0: one tensor's share.
  bit_mask slice(index_t begin, index_t end) const {
    check_range("bit_mask::slice", begin, end);
    bit_mask part(end - begin);
    for (index_t at = begin; at < end; at += 64)
      part.words_[word_of(at - begin)] = word_at(at, std::min<index_t>(64, end - at));
    return part;
  }

  /// Cost: O(d / 64 + K).
  index_set to_index_set() const {
    std::vector<index_t> indices;
    indices.reserve(static_cast<std::size_t>(count()));
    for (std::size_t w = 0; w < words_.size(); ++w)
      for (std::uint64_t left = words_[w]; left != 0; left &= left - 1)
        indices.push_back(static_cast<index_t>(w) * 64 + std::countr_zero(left));
    return {std::move(indices), size_};
  }

  /// Bytes of the packed form, ceil(d / 8).
  index_t packed_size() const noexcept { return size_ / 8 + (size_ % 8 != 0 ? 1 : 0); }

  /// As numpy.packbits(..., bitorder="little") writes it; the bits beyond d are 0.
  std::vector<std::uint8_t> packed() const {
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(packed_size()));
    for (std::size_t b = 0; b < bytes.size(); ++b)
      bytes[b] = static_cast<std::uint8_t>(words_[b / 8] >> (8 * (b % 8)));
    return bytes;
  }

  /// Bytes that the bits occupy.
  index_t memory_bytes() const noexcept {
    return static_cast<index_t>(words_.size() * sizeof(std::uint64_t));
  }

  friend bool operator==(const bit_mask&, const bit_mask&) = default;

 private:
  static std::size_t word_of(index_t i) { return static_cast<std::size_t>(i) / 64; }
  static std::uint64_t bit_of(index_t i) { return std::uint64_t{1} << (i % 64); }

  void check_range(const char* function, index_t begin, index_t end) const {
    expects(0 <= begin && begin <= end && end <= size_, function,
            "[begin, end) must lie in [0, size)", "begin", begin, "end", end, "size", size_);
  }

  /// The `bits` (1 to 64) from `at` on, which may straddle two words.
  std::uint64_t word_at(index_t at, index_t bits) const {
    const index_t shift = at % 64;
    std::uint64_t word = words_[word_of(at)] >> shift;
    if (shift + bits > 64) word |= words_[word_of(at) + 1] << (64 - shift);
    return bits == 64 ? word : word & ((std::uint64_t{1} << bits) - 1);
  }

  std::vector<std::uint64_t> words_;  // the bits beyond size_ are 0
  index_t size_ = 0;
};

/// The bytes in which a file stores one tensor's mask: its first coordinate at bit 0 of byte 0.
/// Cost: O(size / 8 + members); never forms the whole mask.
/// \throws invalid_argument  if the block reaches beyond the universe
inline std::vector<std::uint8_t> packed_block(const index_set& set, const parameter_block& block) {
  expects(block.offset + block.size() <= set.universe(), "packed_block",
          "the block must lie within the mask's universe", "block", block.name, "end",
          block.offset + block.size(), "universe", set.universe());
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>((block.size() + 7) / 8));
  for (const index_t i : set.within(block.offset, block.offset + block.size())) {
    const index_t bit = i - block.offset;
    bytes[static_cast<std::size_t>(bit / 8)] |= static_cast<std::uint8_t>(1U << (bit % 8));
  }
  return bytes;
}
inline std::vector<std::uint8_t> packed_block(const bit_mask& mask, const parameter_block& block) {
  return mask.slice(block.offset, block.offset + block.size()).packed();
}

/// How densely a mask covers each tensor, each layer and each kind of module.
///
/// \param mask    over the layout's d coordinates
/// \return        per block in the layout's order; per layer ascending, -1 (no layer) first if
///                there is any; per module kind in order of first appearance
/// \throws invalid_argument  if the mask's size is not the layout's
/// Cost: O(blocks log K) for an index set, O(d / 64) for a bit mask.
inline density_summary summarize_density(const index_set& mask, const parameter_layout& layout) {
  expects(mask.universe() == layout.size(), "summarize_density",
          "the mask must cover the layout's coordinates", "universe", mask.universe(), "d",
          layout.size());
  return detail::summarize_blocks(layout, [&](index_t begin, index_t end) {
    return static_cast<index_t>(mask.within(begin, end).size());
  });
}
inline density_summary summarize_density(const bit_mask& mask, const parameter_layout& layout) {
  expects(mask.size() == layout.size(), "summarize_density",
          "the mask must cover the layout's coordinates", "size", mask.size(), "d", layout.size());
  return detail::summarize_blocks(
      layout, [&](index_t begin, index_t end) { return mask.count(begin, end); });
}

/// Bytes that an index set's members occupy, to compare with bit_mask::memory_bytes().
inline index_t memory_bytes(const index_set& set) {
  return set.size() * static_cast<index_t>(sizeof(index_t));
}

}  // namespace dualsft
