// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <dualsft/config.hpp>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace dualsft::detail {

/// Append-only storage in fixed segments: growing neither copies nor doubles what is held.
template <class T>
class segmented_list {
 public:
  static constexpr index_t segment_size = 8192;

  void push_back(T value) {
    if (used_ == segment_size) {
      segments_.push_back(std::make_unique_for_overwrite<T[]>(segment_size));
      used_ = 0;
    }
    segments_.back()[static_cast<std::size_t>(used_++)] = value;
  }

  void append(std::span<const T> values) {
    while (!values.empty()) {
      if (used_ == segment_size) {
        push_back(values.front());
        values = values.subspan(1);
        continue;
      }
      const auto count = std::min(values.size(), static_cast<std::size_t>(segment_size - used_));
      std::copy_n(values.data(), count, segments_.back().get() + used_);
      used_ += static_cast<index_t>(count);
      values = values.subspan(count);
    }
  }

  index_t size() const {
    return static_cast<index_t>(segments_.size()) * segment_size - (segment_size - used_);
  }

  template <class Visit>
  void for_each(Visit&& visit) const {
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      const index_t count = s + 1 == segments_.size() ? used_ : segment_size;
      for (index_t i = 0; i < count; ++i) visit(segments_[s][static_cast<std::size_t>(i)]);
    }
  }

  /// Reads from the front; one past the end is undefined.
  class reader {
   public:
    explicit reader(const segmented_list& list) : segment_(list.segments_.data()) {}
    T next() {
      if (at_ == segment_size) {
        ++segment_;
        at_ = 0;
      }
      return (*segment_)[static_cast<std::size_t>(at_++)];
    }

   private:
    const std::unique_ptr<T[]>* segment_;
    index_t at_ = 0;
  };

 private:
  std::vector<std::unique_ptr<T[]>> segments_;
  index_t used_ = segment_size;  // of the last segment; "full" while there is none
};

/// Ascending indices as 16-bit gaps: 2 bytes each where one in 65535 is a member or more, 10 at
/// worst.
class gap_list {
 public:
  explicit gap_list(index_t first = 0) : first_(first), previous_(first) {}

  /// index must not be below the one before it, nor below `first`.
  void push_back(index_t index) {
    const auto gap = static_cast<std::uint64_t>(index - previous_);
    previous_ = index;
    ++size_;
    if (gap < escape) {
      words_.push_back(static_cast<std::uint16_t>(gap));
      return;
    }
    words_.push_back(escape);
    for (int shift = 0; shift < 64; shift += 16)
      words_.push_back(static_cast<std::uint16_t>(gap >> shift));
  }

  /// The indices offset + p for ascending positions p.
  void append(index_t offset, std::span<const std::uint16_t> positions) {
    if (positions.empty()) return;
    push_back(offset + positions.front());
    constexpr std::size_t batch = 256;
    std::array<std::uint16_t, batch> gaps;
    for (std::size_t begin = 1; begin < positions.size(); begin += batch) {
      const std::size_t count = std::min(batch, positions.size() - begin);
      for (std::size_t i = 0; i < count; ++i)
        gaps[i] = static_cast<std::uint16_t>(positions[begin + i] - positions[begin + i - 1]);
      words_.append(std::span<const std::uint16_t>(gaps).first(count));
    }
    previous_ = offset + positions.back();
    size_ += static_cast<index_t>(positions.size()) - 1;
  }

  index_t size() const { return size_; }

  class reader {
   public:
    /// Above every index: what next() gives behind the last one.
    static constexpr index_t end = std::numeric_limits<index_t>::max();

    explicit reader(const gap_list& list)
        : words_(list.words_), index_(list.first_), left_(list.size_) {}

    index_t next() {
      if (left_ == 0) return end;
      --left_;
      std::uint64_t gap = words_.next();
      if (gap == escape) {
        gap = 0;
        for (int shift = 0; shift < 64; shift += 16)
          gap |= static_cast<std::uint64_t>(words_.next()) << shift;
      }
      return index_ += static_cast<index_t>(gap);
    }

   private:
    segmented_list<std::uint16_t>::reader words_;
    index_t index_;
    index_t left_;
  };

 private:
  static constexpr std::uint16_t escape = 0xffff;

  segmented_list<std::uint16_t> words_;
  index_t first_;
  index_t previous_;
  index_t size_ = 0;
};

}  // namespace dualsft::detail
