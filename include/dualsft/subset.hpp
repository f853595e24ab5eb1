// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/score_source.hpp>
#include <dualsft/topk_types.hpp>
#include <dualsft/views.hpp>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

/// Selection of examples while their scores arrive one by one, in any order, from any number of
/// workers: memory grows with the budget B, not with the pool.
namespace dualsft {

/// Which end of the ranking is kept.
enum class selection_end {
  best,   ///< the largest scores
  worst,  ///< the smallest: reverse selection, a control that should do worse than random
};

/// The kept examples, in the order of selection (best first, or worst first).
struct example_selection {
  std::vector<index_t> indices;
  std::vector<double> scores;  ///< as pushed
  /// Scores of the last one kept and of the first one not kept; absent when there is none.
  std::optional<double> kth;
  std::optional<double> next;
  /// |kth - next|: while every score is off by less than half of it, the set is the true one.
  /// 0 when equal (also as infinities), +inf when either is absent.
  double gap = std::numeric_limits<double>::infinity();
  index_t nan_count = 0;  ///< never kept

  /// The same examples as a set of a pool of `universe`.
  index_set as_set(index_t universe) const {
    std::vector<index_t> sorted = indices;
    std::sort(sorted.begin(), sorted.end());
    return {std::move(sorted), universe};
  }
};

/// Keeps the B best of a stream of (index, score): a heap whose top is the weakest kept.
///
/// Equal scores (-0 and +0 are) go to the lower index; NaN is counted and never kept. The result
/// depends on what was pushed, not on the order, nor on how the stream was split over objects that
/// are merged in the end.
///
/// Cost: O(log B) per push that is kept, one comparison per push that is not; 16 B bytes.
/// Source: Algorithm 1's Top-B heap; ties and NaN, which the paper leaves open, are defined here.
class top_examples {
 public:
  /// \param budget  B >= 0
  /// \throws invalid_argument  if budget is negative
  explicit top_examples(index_t budget, selection_end end = selection_end::best)
      : budget_(budget), end_(end) {
    expects(budget >= 0, "top_examples", "budget must not be negative", "budget", budget);
  }

  /// \param index  each example is pushed once
  void push(index_t index, double score) {
    if (score != score) {
      ++nan_count_;
      return;
    }
    const entry pushed{end_ == selection_end::best ? score : -score, index};
    if (static_cast<index_t>(heap_.size()) < budget_) {
      heap_.push_back(pushed);
      std::push_heap(heap_.begin(), heap_.end(), ahead);
    } else if (budget_ > 0 && ahead(pushed, heap_.front())) {
      miss(heap_.front().score);
      std::pop_heap(heap_.begin(), heap_.end(), ahead);
      heap_.back() = pushed;
      std::push_heap(heap_.begin(), heap_.end(), ahead);
    } else {
      miss(pushed.score);
    }
  }

  /// Takes over what another worker has seen.
  /// \throws invalid_argument  if the two differ in budget or end
  void merge(const top_examples& other) {
    expects(budget_ == other.budget_ && end_ == other.end_, "top_examples::merge",
            "both must keep the same number of the same end", "budget", budget_, "other budget",
            other.budget_);
    if (other.missed_) miss(*other.missed_);
    nan_count_ += other.nan_count_;
    const double sign = end_ == selection_end::best ? 1 : -1;
    for (const entry& e : std::vector<entry>(other.heap_)) push(e.index, sign * e.score);
  }

  index_t budget() const noexcept { return budget_; }
  index_t size() const noexcept { return static_cast<index_t>(heap_.size()); }

  /// What would be selected if the stream ended here. Cost: O(B log B).
  example_selection result() const {
    std::vector<entry> sorted = heap_;
    std::sort(sorted.begin(), sorted.end(), ahead);
    const double sign = end_ == selection_end::best ? 1 : -1;
    example_selection selection;
    for (const entry& e : sorted) {
      selection.indices.push_back(e.index);
      selection.scores.push_back(sign * e.score);
    }
    if (!sorted.empty()) selection.kth = sign * sorted.back().score + 0.0;
    if (missed_) selection.next = sign * *missed_ + 0.0;
    if (selection.kth && selection.next)
      selection.gap = detail::boundary_gap(sorted.back().score, missed_);
    selection.nan_count = nan_count_;
    return selection;
  }

 private:
  struct entry {
    double score;  // negated when the worst are kept, so that larger is always stronger
    index_t index;
  };

  static bool ahead(const entry& a, const entry& b) {
    return a.score > b.score || (a.score == b.score && a.index < b.index);
  }

  void miss(double score) {
    if (!missed_ || score > *missed_) missed_ = score;
  }

  index_t budget_;
  selection_end end_;
  std::vector<entry> heap_;       // the weakest kept in front
  std::optional<double> missed_;  // the strongest not kept
  index_t nan_count_ = 0;
};

struct subset_options {
  /// B, in [0, n].
  index_t budget = 0;
  selection_end end = selection_end::best;
};

/// The B best (or worst) examples of scores that lie in memory.
///
/// \param scores   [n], score of example i at i; NaN is never selected
/// \param options  .budget in [0, n]; .end
/// \return         see example_selection; fewer than B only if fewer scores are numbers
/// \throws invalid_argument  if the budget is outside [0, n]
///
/// Cost: O(n log B) at worst, 16 B bytes. Numerics: comparisons and one subtraction.
inline example_selection select_examples(vector_view<const double> scores,
                                         const subset_options& options) {
  expects(0 <= options.budget && options.budget <= scores.size(), "select_examples",
          "budget must lie in [0, n]", "budget", options.budget, "n", scores.size());
  top_examples kept(options.budget, options.end);
  for (index_t i = 0; i < scores.size(); ++i) kept.push(i, scores[i]);
  return kept.result();
}

}  // namespace dualsft
