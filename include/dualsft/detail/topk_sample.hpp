// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/random.hpp>
#include <functional>
#include <limits>
#include <vector>

/// Where the K-th score lies, roughly, told from a sample: what every back end's Top-K begins with. A
/// sample can be wrong; what is told only steers the search.
namespace dualsft::detail {

/// Scores from `low` to `high`, both included.
struct score_bracket {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};

/// A sample's runs: scores that lie side by side, what a cache line brings anyway.
inline constexpr index_t sample_run = 8;

/// Where run j of `runs` begins: at a fixed random place of the j-th of equally long strata of [0, n).
/// \pre  n >= runs * sample_run
inline index_t sample_place(index_t n, index_t runs, index_t j) {
  const index_range stratum = split_range(n, runs, j);
  random_source random(0x70f5, static_cast<std::uint64_t>(j));
  return stratum.begin + random.below(stratum.size() - sample_run + 1);
}

struct score_estimate {
  score_bracket range;  ///< holds the K-th score, as good as certainly
  double guess = 0;     ///< the likeliest K-th score
  double ties = 0;      ///< how many of the n scores equal it, likely
};

/// \param sample  runs of sample_run scores each, in the order of their strata
/// \param k, n    the K-th of n scores is looked for
inline score_estimate estimate_kth(const std::vector<double>& sample, index_t k, index_t n) {
  std::vector<double> sorted;
  sorted.reserve(sample.size());
  for (const double x : sample)
    if (x == x) sorted.push_back(x);
  const auto numbers = static_cast<index_t>(sorted.size());
  score_estimate out;
  if (numbers == 0) return out;
  const double rank =
      static_cast<double>(k) / static_cast<double>(n) * static_cast<double>(sample.size());
  const index_t middle = std::min(static_cast<index_t>(rank), numbers - 1);
  const auto at = [&](index_t i) { return sorted.begin() + i; };
  std::nth_element(at(0), at(middle), at(numbers), std::greater<>());
  out.guess = *at(middle);

  // The spread of the number of sampled scores above the guess, from the differences between
  // neighbouring strata: right for runs whose scores resemble each other, and not inflated by layers
  // of different scale.
  double squares = 0;
  double before = 0;
  constexpr auto run = static_cast<std::size_t>(sample_run);
  for (std::size_t first = 0; first < sample.size(); first += run) {
    double above = 0;
    for (std::size_t i = first; i < first + run; ++i) above += sample[i] >= out.guess ? 1 : 0;
    if (first > 0) squares += (above - before) * (above - before);
    before = above;
  }
  const double margin = 5 * std::sqrt(squares / 2) + 16;

  const double high = rank - margin;
  const double low = rank + margin;
  if (high >= 0 && static_cast<index_t>(high) < middle) {
    std::nth_element(at(0), at(static_cast<index_t>(high)), at(middle), std::greater<>());
    out.range.high = *at(static_cast<index_t>(high));
  }
  if (low < static_cast<double>(numbers)) {
    std::nth_element(at(middle), at(static_cast<index_t>(low)), at(numbers), std::greater<>());
    out.range.low = *at(static_cast<index_t>(low));
  }
  const auto equal = static_cast<double>(std::count(sorted.begin(), sorted.end(), out.guess));
  out.ties = equal / static_cast<double>(sample.size()) * static_cast<double>(n);
  return out;
}

}  // namespace dualsft::detail
