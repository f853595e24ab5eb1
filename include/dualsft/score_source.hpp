// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/views.hpp>
#include <span>
#include <type_traits>
#include <utility>

/// Scores that are computed when they are looked at and stored nowhere.
///
/// Top-K over 3e9 coordinates would need 24 GB of doubles if scores were an array; a source hands
/// out any run of them on demand instead, into a buffer that stays in cache.
namespace dualsft {

/// A function from [0, size()) to double, evaluated run by run:
///
///     index_t size() const;
///     void fill(index_t offset, std::span<double> out) const;   // out[i] = score of offset + i
///
/// Semantic requirements: fill is called with 0 <= offset <= size() - out.size(), from several
/// threads at once and more than once for the same run; the same run must give the same bits
/// each time. Any double is a score, NaN and infinities included.
template <class S>
concept ScoreSource = requires(const S& source, index_t offset, std::span<double> out) {
  { source.size() } -> std::convertible_to<index_t>;
  { source.fill(offset, out) } -> std::same_as<void>;
};

/// Scores that do lie in memory. Holds the view, not the scores.
template <class T>
requires std::same_as<T, float> || std::same_as<T, double>
class stored_scores {
 public:
  /// \param scores  [n], any stride; must outlive the source
  explicit stored_scores(vector_view<const T> scores) : scores_(scores) {}

  index_t size() const noexcept { return scores_.size(); }

  void fill(index_t offset, std::span<double> out) const {
    const T* from = scores_.data() + offset * scores_.stride();
    const auto count = static_cast<index_t>(out.size());
    double* to = out.data();
    if (scores_.stride() == 1) {
      for (index_t i = 0; i < count; ++i) to[i] = static_cast<double>(from[i]);
    } else {
      for (index_t i = 0; i < count; ++i) to[i] = static_cast<double>(from[i * scores_.stride()]);
    }
  }

 private:
  vector_view<const T> scores_;
};

template <class T>
stored_scores(vector_view<T>) -> stored_scores<std::remove_const_t<T>>;
template <std::ranges::contiguous_range R>
stored_scores(R&&) -> stored_scores<std::ranges::range_value_t<R>>;

namespace detail {

/// out[i] = f(offset + i), or f(offset, out): whichever the callable takes.
template <class F>
class function_scores {
 public:
  function_scores(index_t size, F function) : size_(size), function_(std::move(function)) {}

  index_t size() const noexcept { return size_; }

  void fill(index_t offset, std::span<double> out) const {
    if constexpr (std::is_invocable_v<const F&, index_t, std::span<double>>) {
      function_(offset, out);
    } else {
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = function_(offset + static_cast<index_t>(i));
    }
  }

 private:
  index_t size_;
  F function_;
};

}  // namespace detail

/// A source from a callable, either of one coordinate or of a run (the run form vectorises):
///
///     make_source(n, [&](index_t j) { return eta * g[j] * p[j]; });
///     make_source(n, [&](index_t offset, std::span<double> out) { ... });
///
/// \param size      number of scores, >= 0
/// \param function  callable through const from several threads at once; stored by value
/// \throws invalid_argument  if size is negative
template <class F>
requires std::is_invocable_r_v<double, const F&, index_t> ||
    std::is_invocable_v<const F&, index_t, std::span<double>>
auto make_source(index_t size, F function) {
  expects(size >= 0, "make_source", "size must not be negative", "size", size);
  return detail::function_scores<F>(size, std::move(function));
}

}  // namespace dualsft
