// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <dualsft/detail/gap_list.hpp>
#include <dualsft/detail/score_tile.hpp>
#include <dualsft/detail/topk_reference.hpp>
#include <dualsft/detail/topk_sample.hpp>
#include <dualsft/execution.hpp>
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
///     low <= score <= high  close the boundary: index and value are kept, and decided afterwards
///     score < low, NaN      out
///
/// The bracket is then checked against exact counts. A sample can be wrong, so every path below
/// ends either in a verified bracket or in the exact K-th score found digit by digit.
namespace dualsft::detail {

// ---- the search -------------------------------------------------------------------------------

/// The sizes that trade memory for passes; tests shrink them to reach every path with few scores.
struct topk_tuning {
  index_t near_scores = index_t{1} << 17;  // kept with their values, or K / 4 where that is more
  index_t least_sample = index_t{1} << 14;
  index_t most_sample = index_t{1} << 18;
  index_t tiles_per_part = 16;  // at least: a thread costs more than it gains below
};

template <ScoreSource Source>
class topk_search {
 public:
  topk_search(const exec::cpu& policy, const Source& source, const topk_options& options,
              const topk_tuning& tuning)
      : source_(source), by_(options.by), n_(source.size()), k_(options.k), tuning_(tuning) {
    const index_t most = std::max<index_t>(1, n_ / (tuning.tiles_per_part * score_tile));
    workers_ = static_cast<int>(std::min<index_t>(thread_count(policy), most));
    parts_ = workers_ == 1 ? 1 : static_cast<int>(std::min<index_t>(index_t{4} * workers_, most));
    near_limit_ = std::max(tuning.near_scores, k_ / 4);
  }

  topk_result run() {
    if (k_ == 0) return select_none();
    if (n_ <= near_limit_) return select_within({-infinity, infinity}).value();
    const auto [range, tied] = estimate();
    auto result = tied ? select_at(*tied) : select_within(range);
    return result ? std::move(*result) : select_by_digits();
  }

 private:
  static constexpr double infinity = std::numeric_limits<double>::infinity();

  using bracket = score_bracket;

  struct place {
    std::size_t part;    // an ascending run of tiles; results are kept by part
    std::size_t worker;  // the thread that is at it
    index_t offset;
  };

  /// Calls visit(place, scores) for every tile. visit returns false to stop its part. There are
  /// more parts than workers, so that one that the machine holds up does not hold up all; who
  /// takes which part cannot be seen in the result.
  template <class Visit>
  void for_tiles(Visit&& visit) const {
    std::atomic<int> next = 0;
    parallel_parts(workers_, [&](int worker) {
      const auto buffer = std::make_unique_for_overwrite<score_buffer>();
      for (int part = next++; part < parts_; part = next++) {
        const index_range range = split_range(n_, parts_, part, score_tile);
        for (index_t begin = range.begin; begin < range.end; begin += score_tile) {
          const auto count = static_cast<std::size_t>(std::min(score_tile, range.end - begin));
          const auto scores = std::span(*buffer).first(count);
          fill_scores(source_, by_, begin, scores);
          const place at{static_cast<std::size_t>(part), static_cast<std::size_t>(worker), begin};
          if (!visit(at, std::span<const double>(scores))) break;
        }
      }
    });
  }

  // -- where is the K-th score, roughly? --------------------------------------------------------

  struct estimation {
    bracket range;
    std::optional<double> tied;  // the likely K-th score, where more scores equal it than fit
  };

  /// From a stratified sample.
  estimation estimate() const {
    const index_t runs =
        std::clamp(n_ / 32, tuning_.least_sample, tuning_.most_sample) / sample_run;
    std::vector<double> sample(static_cast<std::size_t>(runs * sample_run));
    parallel_parts(workers_, [&](int worker) {
      const index_range mine = split_range(runs, workers_, worker);
      for (index_t j = mine.begin; j < mine.end; ++j)
        fill_scores(source_, by_, sample_place(n_, runs, j),
                    std::span(sample).subspan(static_cast<std::size_t>(j * sample_run),
                                              static_cast<std::size_t>(sample_run)));
    });
    const score_estimate found = estimate_kth(sample, k_, n_);
    const bool heavy = found.ties > static_cast<double>(near_limit_);
    return {found.range, heavy ? std::optional(found.guess) : std::nullopt};
  }

  // -- select with a bracket --------------------------------------------------------------------

  struct alignas(128) scanned_part {  // threads write into theirs all the time
    gap_list above;
    gap_list close;
    segmented_list<double> near_scores;
    index_t nans = 0;
    index_t greater = 0;  // close scores above the K-th
    index_t equal = 0;
    index_t ties = 0;        // of the equal ones, how many are selected
    index_t told_above = 0;  // what the shared counts know of this part
    index_t told_near = 0;
  };

  /// Nothing if the bracket does not hold the K-th score, or holds too many scores.
  std::optional<topk_result> select_within(const bracket& range) const {
    std::vector<scanned_part> parts(static_cast<std::size_t>(parts_));
    if (!scan(range, parts)) return std::nullopt;

    index_t above = 0;
    index_t close = 0;
    topk_result result;
    for (const auto& part : parts) {
      above += part.above.size();
      close += part.close.size();
      result.nan_count += part.nans;
    }
    const index_t numbers = n_ - result.nan_count;
    const index_t wanted = std::min(k_, numbers);
    if (wanted > above + close || (wanted <= above && wanted > 0)) return std::nullopt;

    const double kth = wanted > 0 ? decide(parts, wanted - above, result) : infinity;
    if (wanted == above + close && wanted < numbers)
      result.next = survey(std::nextafter(range.low, -infinity)).best;
    result.gap = boundary_gap(result.kth, result.next);
    result.selected = emit(parts, [&](const scanned_part& part, auto&& sink) {
      gap_list::reader near_indices(part.close);
      index_t ties = part.ties;
      part.near_scores.for_each([&](double x) {
        const index_t index = near_indices.next();
        if (x > kth || (x == kth && ties-- > 0)) sink(index);
      });
    });
    return result;
  }

  /// Every four tiles, adds what a part holds to what all hold; false if that is too much. The
  /// bound on memory may be overrun by so many tiles.
  bool tell(const place& at, scanned_part& part, std::atomic<index_t>& above,
            std::atomic<index_t>& close) const {
    if (at.offset / score_tile % 4 != 0) return true;
    const index_t new_above = part.above.size() - std::exchange(part.told_above, part.above.size());
    const index_t new_near = part.close.size() - std::exchange(part.told_near, part.close.size());
    return above.fetch_add(new_above) + new_above <= k_ &&
           close.fetch_add(new_near) + new_near <= near_limit_;
  }

  void start_lists(std::vector<scanned_part>& parts) const {
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const index_t first = split_range(n_, parts_, static_cast<index_t>(p), score_tile).begin;
      parts[p].above = gap_list(first);
      parts[p].close = gap_list(first);
    }
  }

  /// The lower indices first: `left` ties in all, from the parts in their order.
  static void share_ties(std::vector<scanned_part>& parts, index_t left) {
    for (auto& part : parts) {
      part.ties = std::min(left, part.equal);
      left -= part.ties;
    }
  }

  /// One pass; false if too many scores were in the bracket, or above it, to be of use.
  bool scan(const bracket& range, std::vector<scanned_part>& parts) const {
    std::atomic<index_t> above = 0;
    std::atomic<index_t> close = 0;
    std::atomic<bool> fits = true;
    start_lists(parts);
    for_tiles([&](const place& at, std::span<const double> scores) {
      const index_t offset = at.offset;
      scanned_part& part = parts[at.part];
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
      part.close.append(offset, std::span(near_positions).first(near_count));
      part.near_scores.append(std::span<const double>(near_scores).first(near_count));
      if (!tell(at, part, above, close)) fits = false;
      return fits.load(std::memory_order_relaxed);
    });
    return fits;
  }

  /// Finds (and returns) the `wanted`-th of the close scores and how many ties each part may keep:
  /// the lower indices first.
  double decide(std::vector<scanned_part>& parts, index_t wanted, topk_result& result) const {
    std::vector<double> values;
    index_t close = 0;
    for (const auto& part : parts) close += part.close.size();
    values.reserve(static_cast<std::size_t>(close));
    for (const auto& part : parts)
      part.near_scores.for_each([&](double x) { values.push_back(x); });
    const auto at = values.begin() + (wanted - 1);
    std::nth_element(values.begin(), at, values.end(), std::greater<>());
    const double kth = *at;
    result.kth = kth + 0.0;
    if (wanted < close) result.next = *std::max_element(at + 1, values.end()) + 0.0;

    index_t greater = 0;
    for (auto& part : parts) {
      part.near_scores.for_each([&](double x) {
        part.greater += x > kth ? 1 : 0;
        part.equal += x == kth ? 1 : 0;
      });
      greater += part.greater;
      result.boundary_ties += part.equal;
    }
    result.boundary_ties_selected = wanted - greater;
    share_ties(parts, result.boundary_ties_selected);
    return kth;
  }

  /// Merges each part's certain and chosen indices into its place in the output.
  /// for_chosen(part, sink) hands the part.greater + part.ties chosen ones over, ascending.
  template <class ForChosen>
  index_set emit(const std::vector<scanned_part>& parts, ForChosen&& for_chosen) const {
    std::vector<index_t> begin(parts.size() + 1, 0);
    for (std::size_t p = 0; p < parts.size(); ++p)
      begin[p + 1] = begin[p] + parts[p].above.size() + parts[p].greater + parts[p].ties;
    std::vector<index_t> indices(static_cast<std::size_t>(begin.back()));
    std::atomic<std::size_t> next = 0;
    parallel_parts(workers_, [&](int) {
      for (std::size_t p = next++; p < parts.size(); p = next++) {
        index_t* out = indices.data() + begin[p];
        gap_list::reader above(parts[p].above);
        index_t next_above = above.next();
        for_chosen(parts[p], [&](index_t index) {
          for (; next_above < index; next_above = above.next()) *out++ = next_above;
          *out++ = index;
        });
        for (; next_above != gap_list::reader::end; next_above = above.next()) *out++ = next_above;
      }
    });
    return {std::move(indices), n_};
  }

  // -- select at a known score ------------------------------------------------------------------

  struct survey_result {
    double best = -infinity;  // the largest score <= bound
    index_t nans = 0;
  };

  survey_result survey(double bound) const {
    std::vector<survey_result> parts(static_cast<std::size_t>(parts_));
    for_tiles([&](const place& at, std::span<const double> scores) {
      survey_result& part = parts[at.part];
      part.best = std::max(part.best, largest_at_most(scores, bound));
      part.nans += count_nans(scores);
      return true;
    });
    survey_result all;
    for (const auto& part : parts) {
      all.best = std::max(all.best, part.best);
      all.nans += part.nans;
    }
    all.best += 0.0;  // -0 becomes +0
    return all;
  }

  topk_result select_none() const {
    const survey_result all = survey(infinity);
    topk_result result;
    result.nan_count = all.nans;
    if (all.nans < n_) result.next = all.best;
    result.selected = index_set({}, n_);
    return result;
  }

  /// For a K-th score that very many share: nothing if `kth` is not it. One pass finds what lies
  /// above and counts the ties; a second goes only as far as the selected ties reach.
  std::optional<topk_result> select_at(double kth) const {
    std::vector<scanned_part> parts(static_cast<std::size_t>(parts_));
    if (!scan_above(kth, parts)) return std::nullopt;
    topk_result result;
    index_t above = 0;
    for (const auto& part : parts) {
      above += part.above.size();
      result.boundary_ties += part.equal;
      result.nan_count += part.nans;
    }
    const index_t numbers = n_ - result.nan_count;
    const index_t wanted = std::min(k_, numbers);
    if (wanted <= above || wanted > above + result.boundary_ties) return std::nullopt;
    result.kth = kth + 0.0;
    result.boundary_ties_selected = wanted - above;
    share_ties(parts, result.boundary_ties_selected);
    if (result.boundary_ties_selected < result.boundary_ties)
      result.next = result.kth;
    else if (wanted < numbers)
      result.next = survey(std::nextafter(kth, -infinity)).best;
    result.gap = boundary_gap(result.kth, result.next);

    for_tiles([&](const place& at, std::span<const double> scores) {
      scanned_part& part = parts[at.part];
      for (std::size_t i = 0; i < scores.size() && part.close.size() < part.ties; ++i)
        if (scores[i] == kth) part.close.push_back(at.offset + static_cast<index_t>(i));
      return part.close.size() < part.ties;
    });
    result.selected = emit(parts, [](const scanned_part& part, auto&& sink) {
      gap_list::reader ties(part.close);
      for (index_t t = 0; t < part.ties; ++t) sink(ties.next());
    });
    return result;
  }

  /// Keeps the indices of scores above kth and counts those equal; false if more than K lie above.
  bool scan_above(double kth, std::vector<scanned_part>& parts) const {
    const double low = std::nextafter(kth, infinity);
    std::atomic<index_t> above = 0;
    std::atomic<index_t> close = 0;
    std::atomic<bool> fits = true;
    start_lists(parts);
    for_tiles([&](const place& at, std::span<const double> scores) {
      scanned_part& part = parts[at.part];
      offset_buffer positions;
      const index_t found = kth == infinity ? 0 : positions_at_least(scores, low, positions);
      part.above.append(at.offset, std::span(positions).first(static_cast<std::size_t>(found)));
      index_t equal = 0;
      for (const double x : scores) equal += x == kth ? 1 : 0;
      part.equal += equal;
      part.nans += count_nans(scores);
      if (!tell(at, part, above, close)) fits = false;
      return fits.load(std::memory_order_relaxed);
    });
    return fits;
  }

  // -- find the K-th score for certain ----------------------------------------------------------

  /// Exact, so the selections below succeed (value() throws only if the source does not give the
  /// same scores twice). Counts 16 bits of the key at a time, from the top, until what shares the K-th score's digits
  /// fits the bracket's buffers or is one single value.
  topk_result select_by_digits() const {
    constexpr int digit_bits = 16;
    constexpr std::size_t buckets = std::size_t{1} << digit_bits;
    std::uint64_t prefix = 0;  // the digits found so far, at the bottom
    index_t rank = k_;         // of the K-th score among those with that prefix, from 1
    for (int shift = 64 - digit_bits;; shift -= digit_bits) {
      const std::vector<index_t> histogram = count_digits(prefix, shift, buckets);
      const index_t numbers = std::accumulate(histogram.begin(), histogram.end(), index_t{0});
      if (numbers == 0) return select_within({infinity, infinity}).value();  // NaN alone
      rank = std::min(rank, numbers);  // fewer numbers than K: the lowest of them decides
      std::size_t bucket = buckets - 1;
      for (; histogram[bucket] < rank; --bucket) rank -= histogram[bucket];
      const index_t members = histogram[bucket];
      prefix = prefix << digit_bits | bucket;
      if (shift == 0) return select_at(order_value(prefix)).value();
      if (members <= near_limit_) {
        // The bucket's ends as scores: not beyond the infinities, where NaN patterns lie, and not
        // -0, which compares equal to the +0 of the bucket above.
        const std::uint64_t first = prefix << shift;
        std::uint64_t last = first | ((std::uint64_t{1} << shift) - 1);
        last = std::min(last, order_key(infinity));
        if (last == (std::uint64_t{1} << 63) - 1) --last;
        return select_within(
                   {order_value(std::max(first, order_key(-infinity))), order_value(last)})
            .value();
      }
    }
  }

  std::vector<index_t> count_digits(std::uint64_t prefix, int shift, std::size_t buckets) const {
    std::vector<std::vector<index_t>> seen(static_cast<std::size_t>(workers_));
    for (auto& histogram : seen) histogram.assign(buckets, 0);
    for_tiles([&](const place& at, std::span<const double> scores) {
      index_t* histogram = seen[at.worker].data();
      for (const double x : scores) {
        if (x != x) continue;
        const std::uint64_t key = order_key(x) >> shift;
        if (key / buckets == prefix) ++histogram[key % buckets];
      }
      return true;
    });
    for (std::size_t w = 1; w < seen.size(); ++w)
      for (std::size_t b = 0; b < buckets; ++b) seen[0][b] += seen[w][b];
    return std::move(seen[0]);
  }

  const Source& source_;
  topk_by by_;
  index_t n_;
  index_t k_;
  topk_tuning tuning_;
  int workers_;
  int parts_;
  index_t near_limit_;  // scores kept with their values during the scan
};

template <ScoreSource Source>
topk_result topk_cpu(const exec::cpu& policy, const Source& source, const topk_options& options,
                     const topk_tuning& tuning = {}) {
  return topk_search<Source>(policy, source, options, tuning).run();
}

}  // namespace dualsft::detail
