// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <dualsft/detail/score_tile.hpp>
#include <dualsft/detail/topk_sample.hpp>
#include <dualsft/topk_types.hpp>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

/// Top-K where scores are a function of the coordinate that a device evaluates: the decisions, made on
/// the host from a few numbers per pass. What the device does is five primitives, so that the tests can
/// put the host in its place:
///
///     read(source, places, run)         scores of [place, place + run) for each place, to the host
///     sweep(source, begin, range)       one pass: score_tally; coordinates count from `begin`
///     sweep(source, begin, range, list&)  the same; what lies in the range goes to the list as well
///     count_equal(source, x, chunk)     how many scores equal x, in each chunk of coordinates
///     count_digits(source, ...)         a histogram of one digit of the scores' order keys
///
/// A list may be read and swept too. It has slots(list) places in any order, empty ones scored NaN, and
/// size(list) scores.
///
/// Passes over all scores: one and what the sample reads, if the sample's bracket is right and not too
/// full; else up to eight more. Then the bracket's scores are narrowed in the same way until they fit
/// the host.
namespace dualsft::detail {

/// What one pass over scores says about a bracket.
struct score_tally {
  index_t above = 0;  ///< scores above it
  index_t within = 0;
  index_t nans = 0;
  double best_below = -std::numeric_limits<double>::infinity();

  /// Without branches: neighbouring scores lie on different sides.
  /// \return  whether the score lies within
  DUALSFT_HOST_DEVICE bool add(double score, const score_bracket& range) {
    const bool is_above = score > range.high;
    const bool is_within = score >= range.low && !is_above;
    above += is_above ? 1 : 0;
    within += is_within ? 1 : 0;
    nans += score != score ? 1 : 0;
    best_below = score < range.low && score > best_below ? score : best_below;
    return is_within;
  }
  DUALSFT_HOST_DEVICE void add(const score_tally& other) {
    above += other.above;
    within += other.within;
    nans += other.nans;
    if (other.best_below > best_below) best_below = other.best_below;
  }
};

/// A score and the coordinate it belongs to.
struct placed_score {
  double score;
  index_t index;
};

/// Who is selected, said of each coordinate by itself.
struct selection_test {
  double kth = std::numeric_limits<double>::infinity();
  index_t last_tie = -1;  ///< the largest index that is selected with exactly this score

  DUALSFT_HOST_DEVICE bool operator()(double score, index_t index) const {
    return score > kth || (score == kth && index <= last_tie);
  }
};

// ---- sources that form something while they are first swept ----------------------------------------

/// What a source finds out beside its scores, while they are formed: nothing, as a rule.
struct no_facts {
  DUALSFT_HOST_DEVICE void add(const no_facts&) {}
};
template <class Scores>
struct facts_type {
  using type = no_facts;
};
template <class Scores>
requires requires {
  typename Scores::facts;
}
struct facts_type<Scores> {
  using type = typename Scores::facts;
};
template <class Scores>
using facts_of = typename facts_type<Scores>::type;

template <class Facts>
struct swept_part {
  score_tally tally;
  Facts facts;
  DUALSFT_HOST_DEVICE void add(const swept_part& other) {
    tally.add(other.tally);
    facts.add(other.facts);
  }
};
/// use(the source as it now has to be read): one that forms something is another once it has.
template <class Scores, class Use>
auto with_settled(const Scores& scores, Use&& use) {
  if constexpr (requires { scores.settled(); })
    if (scores.is_settled()) return use(scores.settled());
  return use(scores);
}
template <class Scores>
void settle(const Scores& scores, const facts_of<Scores>& found) {
  if constexpr (requires { scores.settle(found); }) scores.settle(found);
}

struct device_topk_tuning {
  index_t host_scores = index_t{1} << 16;  ///< so many are sorted on the host
  index_t sample = index_t{1} << 16;
};

struct device_topk_outcome {
  topk_result result;  ///< without the selected
  index_t selected = 0;
  selection_test test;
};

/// One score of a vector that lies in pieces: those of several devices, or one.
template <class Source>
class sharded_scores {
 public:
  explicit sharded_scores(std::span<const Source> shards) : shards_(shards), begins_(1, 0) {
    for (const Source& shard : shards) begins_.push_back(begins_.back() + shard.size());
  }
  index_t size() const { return begins_.back(); }
  std::span<const Source> shards() const { return shards_; }
  index_t begin(std::size_t shard) const { return begins_[shard]; }
  /// Of the shard that holds a coordinate.
  std::size_t shard_of(index_t i) const {
    return static_cast<std::size_t>(std::upper_bound(begins_.begin(), begins_.end(), i) -
                                    begins_.begin() - 1);
  }

 private:
  std::span<const Source> shards_;
  std::vector<index_t> begins_;
};

template <class Device, class Source>
class device_topk_search {
 public:
  using list = typename Device::list;

  device_topk_search(Device& device, std::span<const Source> shards, index_t k,
                     const device_topk_tuning& tuning)
      : device_(device), scores_(shards), n_(scores_.size()), k_(k), tuning_(tuning) {}

  device_topk_outcome run() {
    if (k_ == 0) return select_none();
    if (n_ <= tuning_.host_scores)
      if (auto out = select_within({})) return *out;
    const score_estimate found = estimate_kth(sample(), k_, n_);
    if (!(found.ties <= static_cast<double>(device_.room())))
      if (auto out = select_at(found.guess)) return *out;
    if (auto out = select_within(found.range)) return *out;
    return *select_at(kth_by_digits());
  }

 private:
  static constexpr double infinity = std::numeric_limits<double>::infinity();

  // -- passes over all shards -----------------------------------------------------------------------

  template <class... List>
  score_tally sweep(const score_bracket& range, List&... to) {
    score_tally all;
    for (std::size_t s = 0; s < scores_.shards().size(); ++s)
      all.add(device_.sweep(scores_.shards()[s], scores_.begin(s), range, to...));
    return all;
  }

  std::vector<double> read(index_t first, index_t count) {
    std::vector<double> out;
    while (count > 0) {
      const std::size_t s = scores_.shard_of(first);
      const index_t here = first - scores_.begin(s);
      const index_t part = std::min(count, scores_.shards()[s].size() - here);
      const std::vector<double> got = device_.read(scores_.shards()[s], {here}, part);
      out.insert(out.end(), got.begin(), got.end());
      first += part;
      count -= part;
    }
    return out;
  }

  /// A shard's share of the runs, each shard's in strata of its own; shards too small for a run have
  /// none.
  std::vector<double> sample() {
    std::vector<double> out;
    const index_t runs = std::max<index_t>(1, tuning_.sample / sample_run);
    for (std::size_t s = 0; s < scores_.shards().size(); ++s) {
      const index_t size = scores_.shards()[s].size();
      const double share = static_cast<double>(size) / static_cast<double>(n_);
      const index_t mine = std::min(
          size / sample_run, static_cast<index_t>(std::ceil(share * static_cast<double>(runs))));
      std::vector<index_t> places;
      for (index_t j = 0; j < mine; ++j) places.push_back(sample_place(size, mine, j));
      if (places.empty()) continue;
      const std::vector<double> got = device_.read(scores_.shards()[s], places, sample_run);
      out.insert(out.end(), got.begin(), got.end());
    }
    return out;
  }

  // -- select with a bracket ------------------------------------------------------------------------

  device_topk_outcome select_none() {
    const score_tally all = sweep({infinity, infinity});
    device_topk_outcome out;
    out.result.nan_count = all.nans;
    if (all.nans < n_) out.result.next = (all.within > 0 ? infinity : all.best_below) + 0.0;
    return out;
  }

  /// Nothing if the bracket does not hold the K-th score, or more scores than there is room for.
  std::optional<device_topk_outcome> select_within(const score_bracket& range) {
    list close;
    const score_tally all = sweep(range, close);
    const index_t numbers = n_ - all.nans;
    const index_t wanted = std::min(k_, numbers);
    if (wanted == 0) return select_none();
    if (wanted <= all.above || wanted > all.above + all.within) return std::nullopt;
    if (device_.size(close) != all.within) return std::nullopt;  // some found no room
    return select_of(close, wanted, wanted - all.above, all);
  }

  /// The `rank`-th (from 1) of a list that holds all scores of a bracket decides.
  std::optional<device_topk_outcome> select_of(list& close, index_t wanted, index_t rank,
                                               const score_tally& all) {
    const index_t numbers = n_ - all.nans;
    index_t below = numbers - all.above - all.within;  // numbers under the list
    double best_below = all.best_below;
    while (device_.size(close) > tuning_.host_scores) {
      const index_t size = device_.size(close), slots = device_.slots(close);
      std::vector<index_t> places;
      const index_t runs = std::min(slots, tuning_.sample) / sample_run;
      for (index_t j = 0; j < runs; ++j) places.push_back(sample_place(slots, runs, j));
      // Empty slots come behind all scores, so the rank is the same among slots.
      const score_estimate found =
          estimate_kth(device_.read(close, places, sample_run), rank, slots);
      if (found.ties > static_cast<double>(tuning_.host_scores))
        if (auto out = select_at(found.guess)) return out;
      list narrower;
      const score_tally part = device_.sweep(close, found.range, narrower);
      const bool shrinks = part.within <= size / 4 * 3;
      if (!shrinks || rank <= part.above || rank > part.above + part.within ||
          device_.size(narrower) != part.within)
        return std::nullopt;
      if (part.above + part.within < size) best_below = std::max(part.best_below, best_below);
      below += size - part.above - part.within;
      rank -= part.above;
      close = std::move(narrower);
    }

    std::vector<placed_score> last = device_.take(close);
    const auto is_before = [](const placed_score& a, const placed_score& b) {
      return a.score > b.score || (a.score == b.score && a.index < b.index);
    };
    const auto boundary = last.begin() + (rank - 1);
    std::nth_element(last.begin(), boundary, last.end(), is_before);
    device_topk_outcome out;
    const placed_score chosen = *boundary;
    const double kth = chosen.score;
    out.selected = wanted;
    out.test = {kth, chosen.index};
    out.result.kth = kth + 0.0;
    if (rank < static_cast<index_t>(last.size()))
      out.result.next = std::min_element(boundary + 1, last.end(), is_before)->score + 0.0;
    else if (below > 0)
      out.result.next = best_below + 0.0;
    index_t greater = 0;
    for (const placed_score& each : last) {
      greater += each.score > kth ? 1 : 0;
      out.result.boundary_ties += each.score == kth ? 1 : 0;
    }
    out.result.boundary_ties_selected = rank - greater;
    out.result.nan_count = all.nans;
    out.result.gap = boundary_gap(out.result.kth, out.result.next);
    return out;
  }

  // -- select at a known score ----------------------------------------------------------------------

  /// For a K-th score that very many share: nothing if it is not `kth`.
  std::optional<device_topk_outcome> select_at(double kth) {
    const score_tally all = sweep({kth, kth});
    const index_t wanted = std::min(k_, n_ - all.nans);
    if (wanted == 0) return select_none();
    if (wanted <= all.above || wanted > all.above + all.within) return std::nullopt;
    device_topk_outcome out;
    out.selected = wanted;
    out.result.kth = kth + 0.0;
    out.result.nan_count = all.nans;
    out.result.boundary_ties = all.within;
    out.result.boundary_ties_selected = wanted - all.above;
    if (wanted < all.above + all.within)
      out.result.next = kth + 0.0;
    else if (wanted < n_ - all.nans)
      out.result.next = all.best_below + 0.0;
    out.result.gap = boundary_gap(out.result.kth, out.result.next);
    out.test = {kth, tie_number(kth, out.result.boundary_ties_selected)};
    return out;
  }

  /// The coordinate of the `number`-th (from 1) score that equals x.
  index_t tie_number(double x, index_t number) {
    constexpr index_t chunk = index_t{1} << 16;
    for (std::size_t s = 0; s < scores_.shards().size(); ++s) {
      const std::vector<index_t> counts = device_.count_equal(scores_.shards()[s], x, chunk);
      for (std::size_t c = 0; c < counts.size(); ++c) {
        if (number > counts[c]) {
          number -= counts[c];
          continue;
        }
        const index_t first = static_cast<index_t>(c) * chunk;
        const index_t count = std::min(chunk, scores_.shards()[s].size() - first);
        const std::vector<double> scores = read(scores_.begin(s) + first, count);
        for (index_t i = 0;; ++i)
          if (scores[static_cast<std::size_t>(i)] == x && --number == 0)
            return scores_.begin(s) + first + i;
      }
    }
    return -1;  // not reached: sweep counted as many
  }

  // -- find the K-th score for certain --------------------------------------------------------------

  /// Some bits of the order key at a time, from the top.
  double kth_by_digits() {
    constexpr int digit_bits = 12;
    std::uint64_t prefix = 0;
    index_t rank = k_;
    for (int left = 64; left > 0;) {
      const int bits = std::min(digit_bits, left);
      left -= bits;
      std::vector<index_t> counts(std::size_t{1} << bits, 0);
      for (const Source& shard : scores_.shards()) {
        const std::vector<index_t> part = device_.count_digits(shard, prefix, left, bits);
        for (std::size_t b = 0; b < counts.size(); ++b) counts[b] += part[b];
      }
      index_t numbers = 0;
      for (const index_t count : counts) numbers += count;
      rank = std::min(rank, numbers);  // fewer numbers than K: the lowest of them decides
      std::size_t bucket = counts.size() - 1;
      for (; bucket > 0 && counts[bucket] < rank; --bucket) rank -= counts[bucket];
      prefix = prefix << bits | bucket;
    }
    return order_value(prefix);
  }

  Device& device_;
  sharded_scores<Source> scores_;
  index_t n_;
  index_t k_;
  device_topk_tuning tuning_;
};

}  // namespace dualsft::detail
