// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <dualsft/detail/gap_list.hpp>
#include <dualsft/detail/topk_reference.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/random.hpp>
#include <dualsft/score_source.hpp>
#include <dualsft/topk_types.hpp>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

/// Streaming selection. One pass does it all when a sample has bracketed the K-th score:
///
///     score > high          selected for certain: its index is kept as a 2-byte gap
///     low <= score <= high  near the boundary: index and value are kept, and decided afterwards
///     score < low, NaN      out
///
/// The bracket is then checked against exact counts. A sample can be wrong, so every path below
/// ends either in a verified bracket or in the exact K-th score found digit by digit.
namespace dualsft::detail {

// ---- the order of doubles as unsigned integers ------------------------------------------------

/// a < b as numbers exactly when key(a) < key(b); -0 and +0 share a key. Not for NaN.
inline std::uint64_t order_key(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x + 0.0);
  return bits ^ ((bits >> 63) != 0 ? ~std::uint64_t{0} : std::uint64_t{1} << 63);
}

inline double order_value(std::uint64_t key) {
  return std::bit_cast<double>(key ^
                               ((key >> 63) != 0 ? std::uint64_t{1} << 63 : ~std::uint64_t{0}));
}

// ---- one tile of scores, in the first-level cache ---------------------------------------------

using score_buffer = std::array<double, static_cast<std::size_t>(score_tile)>;
using offset_buffer = std::array<std::uint16_t, static_cast<std::size_t>(score_tile)>;

/// Writes the positions of scores >= low and returns how many. A branch per score would be
/// mispredicted once per selected score. Wide registers compare many scores at once and only the
/// hits are visited; without them the position is always written and the count alone depends on
/// the test.
inline index_t positions_at_least(std::span<const double> scores, double low,
                                  offset_buffer& positions) {
  std::size_t found = 0;
  std::size_t i = 0;
#if defined(__AVX2__)
  for (; i + 64 <= scores.size(); i += 64) {
    std::array<std::uint8_t, 64> hit;
    for (std::size_t j = 0; j < 64; ++j) hit[j] = scores[i + j] >= low ? 1 : 0;
    std::uint64_t hits = 0;
    for (std::size_t byte = 0; byte < 8; ++byte) {
      std::uint64_t flags;
      std::memcpy(&flags, hit.data() + 8 * byte, 8);
      // Flag f, at bit 8 f, is moved to bit 56 + f by one of the multiplier's eight bits.
      hits |= ((flags * 0x0102040810204080U) >> 56) << (8 * byte);
    }
    for (; hits != 0; hits &= hits - 1)
      positions[found++] = static_cast<std::uint16_t>(i + std::size_t(std::countr_zero(hits)));
  }
#endif
  for (; i < scores.size(); ++i) {
    positions[found] = static_cast<std::uint16_t>(i);
    found += scores[i] >= low ? 1u : 0u;
  }
  return static_cast<index_t>(found);
}

inline index_t count_nans(std::span<const double> scores) {
  index_t nans = 0;
  for (const double x : scores) nans += x != x ? 1 : 0;
  return nans;
}

/// The largest score below `bound`; -inf where there is none.
inline double largest_below(std::span<const double> scores, double bound) {
  double best = -std::numeric_limits<double>::infinity();
  for (const double x : scores) best = (x < bound && x > best) ? x : best;
  return best;
}

// ---- the search -------------------------------------------------------------------------------

/// The sizes that trade memory for passes; tests shrink them to reach every path with few scores.
struct topk_tuning {
  index_t near_scores = index_t{1} << 17;  // kept with their values, or K / 4 where that is more
  index_t least_sample = index_t{1} << 14;
  index_t most_sample = index_t{1} << 18;
  index_t tiles_per_part = 16;  // starting a thread costs more than it gains below
};

template <ScoreSource Source>
class topk_search {
 public:
  topk_search(const exec::cpu& policy, const Source& source, const topk_options& options,
              const topk_tuning& tuning)
      : source_(source), by_(options.by), n_(source.size()), k_(options.k), tuning_(tuning) {
    const index_t most = std::max<index_t>(1, n_ / (tuning.tiles_per_part * score_tile));
    parts_ = static_cast<int>(std::min<index_t>(thread_count(policy), most));
    near_limit_ = std::max(tuning.near_scores, k_ / 4);
  }

  topk_result run() {
    if (k_ == 0) return select_none();
    if (n_ <= near_limit_) return *select_within({-infinity, infinity});
    const auto [range, tied] = estimate();
    auto result = tied ? select_at(*tied) : select_within(range);
    return result ? std::move(*result) : select_by_digits();
  }

 private:
  static constexpr double infinity = std::numeric_limits<double>::infinity();

  struct bracket {
    double low;
    double high;
  };

  /// Calls visit(part, offset, scores) for every tile, parts in parallel. visit returns false to
  /// stop its part.
  template <class Visit>
  void for_tiles(Visit&& visit) const {
    parallel_parts(parts_, [&](int part) {
      const index_range range = split_range(n_, parts_, part, score_tile);
      const auto buffer = std::make_unique_for_overwrite<score_buffer>();
      for (index_t begin = range.begin; begin < range.end; begin += score_tile) {
        const auto count = static_cast<std::size_t>(std::min(score_tile, range.end - begin));
        const auto scores = std::span(*buffer).first(count);
        fill_scores(source_, by_, begin, scores);
        if (!visit(part, begin, std::span<const double>(scores))) return;
      }
    });
  }

  // -- where is the K-th score, roughly? --------------------------------------------------------

  struct estimation {
    bracket range;
    std::optional<double> tied;  // the likely K-th score, where more scores equal it than fit
  };

  /// A stratified sample: runs of 8 scores (what a cache line brings anyway), one at a fixed
  /// random place in each of equally long strata.
  estimation estimate() const {
    constexpr index_t run = 8;
    const index_t runs = std::clamp(n_ / 32, tuning_.least_sample, tuning_.most_sample) / run;
    std::vector<double> sample(static_cast<std::size_t>(runs * run));
    parallel_parts(parts_, [&](int part) {
      const index_range mine = split_range(runs, parts_, part);
      for (index_t j = mine.begin; j < mine.end; ++j) {
        const index_range stratum = split_range(n_, runs, j);
        random_source random(0x70f5, static_cast<std::uint64_t>(j));
        fill_scores(source_, by_, stratum.begin + random.below(stratum.size() - run + 1),
                    std::span(sample).subspan(static_cast<std::size_t>(j * run), run));
      }
    });

    std::vector<double> sorted;
    sorted.reserve(sample.size());
    for (const double x : sample)
      if (x == x) sorted.push_back(x);
    const auto numbers = static_cast<index_t>(sorted.size());
    const double rank =
        static_cast<double>(k_) / static_cast<double>(n_) * static_cast<double>(sample.size());
    if (numbers == 0) return {{-infinity, infinity}, {}};
    const index_t middle = std::min(static_cast<index_t>(rank), numbers - 1);
    const auto at = [&](index_t i) { return sorted.begin() + i; };
    std::nth_element(at(0), at(middle), at(numbers), std::greater<>());
    const double guess = *at(middle);

    // The spread of the number of sampled scores above the guess, from the differences between
    // neighbouring strata: right for runs whose scores resemble each other, and not inflated by
    // layers of different scale.
    double squares = 0;
    double before = 0;
    for (index_t j = 0; j < runs; ++j) {
      double above = 0;
      for (index_t i = j * run; i < (j + 1) * run; ++i)
        above += sample[static_cast<std::size_t>(i)] >= guess ? 1 : 0;
      if (j > 0) squares += (above - before) * (above - before);
      before = above;
    }
    const double margin = 5 * std::sqrt(squares / 2) + 16;

    bracket range{-infinity, infinity};
    const double high = rank - margin;
    const double low = rank + margin;
    if (high >= 0 && static_cast<index_t>(high) < middle) {
      std::nth_element(at(0), at(static_cast<index_t>(high)), at(middle), std::greater<>());
      range.high = *at(static_cast<index_t>(high));
    }
    if (low < static_cast<double>(numbers)) {
      std::nth_element(at(middle), at(static_cast<index_t>(low)), at(numbers), std::greater<>());
      range.low = *at(static_cast<index_t>(low));
    }

    const auto equal = static_cast<double>(std::count(sorted.begin(), sorted.end(), guess));
    const bool heavy = equal / static_cast<double>(sample.size()) * static_cast<double>(n_) >
                       static_cast<double>(near_limit_);
    return {range, heavy ? std::optional(guess) : std::nullopt};
  }

  // -- select with a bracket --------------------------------------------------------------------

  struct alignas(128) scanned_part {  // threads write into theirs all the time
    gap_list above;
    gap_list near;
    segmented_list<double> near_scores;
    index_t nans = 0;
    index_t greater = 0;  // near scores above the K-th
    index_t equal = 0;
    index_t ties = 0;  // of the equal ones, how many are selected
  };

  /// Nothing if the bracket does not hold the K-th score, or holds too many scores.
  std::optional<topk_result> select_within(const bracket& range) const {
    std::vector<scanned_part> parts(static_cast<std::size_t>(parts_));
    if (!scan(range, parts)) return std::nullopt;

    index_t above = 0;
    index_t near = 0;
    topk_result result;
    for (const auto& part : parts) {
      above += part.above.size();
      near += part.near.size();
      result.nan_count += part.nans;
    }
    const index_t numbers = n_ - result.nan_count;
    const index_t wanted = std::min(k_, numbers);
    if (wanted > above + near || (wanted <= above && wanted > 0)) return std::nullopt;

    const double kth = wanted > 0 ? decide(parts, wanted - above, result) : 0;
    if (wanted == above + near && wanted < numbers) result.next = best_below(range.low);
    result.gap = boundary_gap(result.kth, result.next);
    result.selected = emit(parts, wanted, kth);
    return result;
  }

  /// One pass; false if too many scores were in the bracket, or above it, to be of use.
  bool scan(const bracket& range, std::vector<scanned_part>& parts) const {
    std::atomic<index_t> above = 0;
    std::atomic<index_t> near = 0;
    std::atomic<bool> fits = true;
    std::vector<index_t> reported(2 * parts.size());
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const index_t first = split_range(n_, parts_, static_cast<index_t>(p), score_tile).begin;
      parts[p].above = gap_list(first);
      parts[p].near = gap_list(first);
    }
    for_tiles([&](int p, index_t offset, std::span<const double> scores) {
      scanned_part& part = parts[static_cast<std::size_t>(p)];
      offset_buffer positions;
      part.nans += count_nans(scores);
      const auto found = static_cast<std::size_t>(positions_at_least(scores, range.low, positions));
      offset_buffer above_positions;
      offset_buffer near_positions;
      score_buffer near_scores;
      std::size_t above_count = 0;
      std::size_t near_count = 0;
      for (std::size_t f = 0; f < found; ++f) {  // both are written, one is kept
        const double x = scores[positions[f]];
        above_positions[above_count] = near_positions[near_count] = positions[f];
        near_scores[near_count] = x;
        above_count += x > range.high ? 1u : 0u;
        near_count += x > range.high ? 0u : 1u;
      }
      part.above.append(offset, std::span(above_positions).first(above_count));
      part.near.append(offset, std::span(near_positions).first(near_count));
      part.near_scores.append(std::span<const double>(near_scores).first(near_count));
      if (offset / score_tile % 4 == 0) {  // the bound on memory may be overrun by so much
        index_t* told = &reported[2 * static_cast<std::size_t>(p)];
        const index_t more_above = part.above.size() - std::exchange(told[0], part.above.size());
        const index_t more_near = part.near.size() - std::exchange(told[1], part.near.size());
        if (above.fetch_add(more_above) + more_above > k_ ||
            near.fetch_add(more_near) + more_near > near_limit_)
          fits = false;
      }
      return fits.load(std::memory_order_relaxed);
    });
    return fits;
  }

  /// Finds (and returns) the `wanted`-th of the near scores and how many ties each part may keep:
  /// the lower indices first.
  double decide(std::vector<scanned_part>& parts, index_t wanted, topk_result& result) const {
    std::vector<double> values;
    index_t near = 0;
    for (const auto& part : parts) near += part.near.size();
    values.reserve(static_cast<std::size_t>(near));
    for (const auto& part : parts)
      part.near_scores.for_each([&](double x) { values.push_back(x); });
    const auto at = values.begin() + (wanted - 1);
    std::nth_element(values.begin(), at, values.end(), std::greater<>());
    const double kth = *at;
    result.kth = kth + 0.0;
    if (wanted < near) result.next = *std::max_element(at + 1, values.end()) + 0.0;

    index_t greater = 0;
    for (auto& part : parts) {
      part.near_scores.for_each([&](double x) {
        part.greater += x > kth ? 1 : 0;
        part.equal += x == kth ? 1 : 0;
      });
      greater += part.greater;
      result.boundary_ties += part.equal;
    }
    index_t left = wanted - greater;
    result.boundary_ties_selected = left;
    for (auto& part : parts) {
      part.ties = std::min(left, part.equal);
      left -= part.ties;
    }
    return kth;
  }

  /// Merges each part's certain and chosen indices into its place in the output.
  index_set emit(const std::vector<scanned_part>& parts, index_t wanted, double kth) const {
    std::vector<index_t> indices(static_cast<std::size_t>(wanted));
    std::vector<index_t> begin(parts.size() + 1, 0);
    for (std::size_t p = 0; p < parts.size(); ++p)
      begin[p + 1] =
          begin[p] + (wanted == 0 ? 0 : parts[p].above.size() + parts[p].greater + parts[p].ties);
    parallel_parts(wanted == 0 ? 0 : parts_, [&](int number) {
      const auto p = static_cast<std::size_t>(number);
      const scanned_part& part = parts[p];
      index_t* out = indices.data() + begin[p];
      gap_list::reader above(part.above);
      gap_list::reader near(part.near);
      index_t next_above = above.next();
      index_t ties = part.ties;
      part.near_scores.for_each([&](double x) {
        const index_t index = near.next();
        if (x < kth || (x == kth && ties == 0)) return;
        if (x == kth) --ties;
        for (; next_above < index; next_above = above.next()) *out++ = next_above;
        *out++ = index;
      });
      for (; next_above != gap_list::reader::end; next_above = above.next()) *out++ = next_above;
    });
    return {std::move(indices), n_};
  }

  // -- select at a known score ------------------------------------------------------------------

  struct counts {
    index_t above = 0;
    index_t equal = 0;
    index_t nans = 0;
  };

  /// How many scores lie above a bound and on it, part by part and in all. One pass.
  counts survey(double bound, std::vector<counts>* by_part = nullptr) const {
    std::vector<counts> parts(static_cast<std::size_t>(parts_));
    for_tiles([&](int p, index_t, std::span<const double> scores) {
      counts tile;
      for (const double x : scores) tile.above += x > bound ? 1 : 0;
      for (const double x : scores) tile.equal += x == bound ? 1 : 0;
      counts& part = parts[static_cast<std::size_t>(p)];
      part.above += tile.above;
      part.equal += tile.equal;
      part.nans += count_nans(scores);
      return true;
    });
    counts all;
    for (const auto& part : parts) {
      all.above += part.above;
      all.equal += part.equal;
      all.nans += part.nans;
    }
    if (by_part != nullptr) *by_part = std::move(parts);
    return all;
  }

  /// The largest score below a bound, -inf if there is none. One pass, needed only where all that
  /// is not below is selected.
  double best_below(double bound) const {
    std::vector<double> best(static_cast<std::size_t>(parts_), -infinity);
    for_tiles([&](int p, index_t, std::span<const double> scores) {
      double& mine = best[static_cast<std::size_t>(p)];
      mine = std::max(mine, largest_below(scores, bound));
      return true;
    });
    return *std::max_element(best.begin(), best.end()) + 0.0;
  }

  topk_result select_none() const {
    const counts all = survey(infinity);
    topk_result result;
    result.nan_count = all.nans;
    if (all.equal > 0)
      result.next = infinity;
    else if (all.nans < n_)
      result.next = best_below(infinity);
    result.selected = index_set({}, n_);
    return result;
  }

  /// Nothing if `kth` is not the K-th score. Two passes, and no memory but the output's.
  std::optional<topk_result> select_at(double kth) const {
    std::vector<counts> parts;
    const counts all = survey(kth, &parts);
    const index_t wanted = std::min(k_, n_ - all.nans);
    if (wanted <= all.above || wanted > all.above + all.equal) return std::nullopt;

    topk_result result;
    result.nan_count = all.nans;
    result.kth = kth + 0.0;
    if (wanted < all.above + all.equal)
      result.next = result.kth;
    else if (wanted < n_ - all.nans)
      result.next = best_below(kth);
    result.gap = boundary_gap(result.kth, result.next);
    result.boundary_ties = all.equal;
    result.boundary_ties_selected = wanted - all.above;

    std::vector<index_t> indices(static_cast<std::size_t>(wanted));
    std::vector<index_t*> out(parts.size());
    std::vector<index_t> ties(parts.size());
    index_t left = result.boundary_ties_selected;
    index_t* begin = indices.data();
    for (std::size_t p = 0; p < parts.size(); ++p) {
      out[p] = begin;
      ties[p] = std::min(left, parts[p].equal);
      left -= ties[p];
      begin += parts[p].above + ties[p];
    }
    for_tiles([&](int number, index_t offset, std::span<const double> scores) {
      const auto p = static_cast<std::size_t>(number);
      offset_buffer positions;
      // Once this part has its ties, the others are not even visited.
      const double low = ties[p] > 0 ? kth : std::nextafter(kth, infinity);
      const auto found = static_cast<std::size_t>(positions_at_least(scores, low, positions));
      for (std::size_t f = 0; f < found; ++f) {
        if (scores[positions[f]] == kth) {
          if (ties[p] == 0) continue;
          --ties[p];
        }
        *out[p]++ = offset + positions[f];
      }
      return true;
    });
    result.selected = index_set(std::move(indices), n_);
    return result;
  }

  // -- find the K-th score for certain ----------------------------------------------------------

  /// Counts 16 bits of the key at a time, from the top, until what shares the K-th score's digits
  /// fits the bracket's buffers or is one single value.
  topk_result select_by_digits() const {
    constexpr int digit_bits = 16;
    constexpr std::size_t buckets = std::size_t{1} << digit_bits;
    std::uint64_t prefix = 0;  // the digits found so far, at the bottom
    index_t rank = k_;         // of the K-th score among those with that prefix, from 1
    for (int shift = 64 - digit_bits;; shift -= digit_bits) {
      const std::vector<index_t> histogram = count_digits(prefix, shift, buckets);
      const index_t numbers = std::accumulate(histogram.begin(), histogram.end(), index_t{0});
      if (numbers == 0) return *select_within({infinity, infinity});  // NaN alone
      rank = std::min(rank, numbers);  // fewer numbers than K: the lowest of them decides
      std::size_t bucket = buckets - 1;
      for (; histogram[bucket] < rank; --bucket) rank -= histogram[bucket];
      const index_t members = histogram[bucket];
      prefix = prefix << digit_bits | bucket;
      if (shift == 0) return *select_at(order_value(prefix));
      if (members <= near_limit_) {
        // The bucket's ends as scores: not beyond the infinities, where NaN patterns lie, and not
        // -0, which compares equal to the +0 of the bucket above.
        const std::uint64_t first = prefix << shift;
        std::uint64_t last = first | ((std::uint64_t{1} << shift) - 1);
        last = std::min(last, order_key(infinity));
        if (last == (std::uint64_t{1} << 63) - 1) --last;
        return *select_within(
            {order_value(std::max(first, order_key(-infinity))), order_value(last)});
      }
    }
  }

  std::vector<index_t> count_digits(std::uint64_t prefix, int shift, std::size_t buckets) const {
    std::vector<std::vector<index_t>> parts(static_cast<std::size_t>(parts_));
    for (auto& part : parts) part.assign(buckets, 0);
    for_tiles([&](int p, index_t, std::span<const double> scores) {
      index_t* histogram = parts[static_cast<std::size_t>(p)].data();
      for (const double x : scores) {
        if (x != x) continue;
        const std::uint64_t key = order_key(x) >> shift;
        if (key / buckets == prefix) ++histogram[key % buckets];
      }
      return true;
    });
    for (std::size_t p = 1; p < parts.size(); ++p)
      for (std::size_t b = 0; b < buckets; ++b) parts[0][b] += parts[p][b];
    return std::move(parts[0]);
  }

  const Source& source_;
  topk_by by_;
  index_t n_;
  index_t k_;
  topk_tuning tuning_;
  int parts_;
  index_t near_limit_;  // scores kept with their values during the scan
};

template <ScoreSource Source>
topk_result topk_cpu(const exec::cpu& policy, const Source& source, const topk_options& options,
                     const topk_tuning& tuning = {}) {
  return topk_search<Source>(policy, source, options, tuning).run();
}

}  // namespace dualsft::detail
