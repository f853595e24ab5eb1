// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/detail/share.hpp>
#include <dualsft/error.hpp>
#include <dualsft/random.hpp>
#include <numeric>
#include <span>
#include <vector>

/// Disjoint roles for the records of a corpus.
///
///     records = V + A + candidates,   candidates = warmup + pool,
///     |warmup| = round(warmup_fraction |candidates|)
///
/// Validation V drives the scores, anchors A the self-distillation, the warmup subset makes theta_w
/// and is not scored, the pool is. Each list ascends. Random by the seed alone.
/// Source: DualSFT Algorithm 1, line 1; theory.md section 7 (1,024 and 2,048 records, 0.1).
namespace dualsft {

struct split_options {
  index_t validation = 1024;
  index_t anchors = 2048;
  double warmup_fraction = 0.1;  ///< in [0, 1)
  std::uint64_t seed = 42;
};

struct data_split {
  std::vector<index_t> validation;
  std::vector<index_t> anchors;
  std::vector<index_t> warmup;
  std::vector<index_t> pool;

  /// Warmup and pool: what a data budget given as a ratio refers to.
  index_t candidates() const { return static_cast<index_t>(warmup.size() + pool.size()); }
};

/// \param records  record numbers to divide; must differ from one another
/// \throws invalid_argument  if they are fewer than V and A need with one left for the pool, or a
///                           size or fraction is out of range
inline data_split split_records(std::span<const index_t> records,
                                const split_options& options = {}) {
  const auto n = static_cast<index_t>(records.size());
  expects(options.validation >= 0 && options.anchors >= 0, "split_records",
          "sizes must not be negative", "validation", options.validation, "anchors",
          options.anchors);
  expects(options.warmup_fraction >= 0 && options.warmup_fraction < 1, "split_records",
          "warmup_fraction must lie in [0, 1)", "warmup_fraction", options.warmup_fraction);
  expects(options.validation < n && options.anchors < n - options.validation, "split_records",
          "validation and anchors must leave records for the pool", "records", n, "validation",
          options.validation, "anchors", options.anchors);

  std::vector<index_t> order(records.begin(), records.end());
  random_source random(options.seed, 0x5711);
  random.shuffle(std::span<index_t>(order));
  const index_t candidates = n - options.validation - options.anchors;
  const index_t warmup =
      std::min(candidates - 1, static_cast<index_t>(std::llround(options.warmup_fraction *
                                                                 static_cast<double>(candidates))));
  auto next = order.cbegin();
  const auto take = [&](index_t count) {
    std::vector<index_t> part(next, next + count);
    next += count;
    std::ranges::sort(part);
    return part;
  };
  data_split split;
  split.validation = take(options.validation);
  split.anchors = take(options.anchors);
  split.warmup = take(warmup);
  split.pool = take(candidates - warmup);
  return split;
}

/// Divides records 0 .. count - 1.
inline data_split split_records(index_t count, const split_options& options = {}) {
  expects(count >= 0, "split_records", "count must not be negative", "count", count);
  std::vector<index_t> records(static_cast<std::size_t>(count));
  std::iota(records.begin(), records.end(), index_t{0});
  return split_records(std::span<const index_t>(records), options);
}

/// A budget given as a count or as a ratio: exactly one is set.
class budget {
 public:
  static budget count(index_t value) {
    expects(value >= 0, "budget::count", "a count must not be negative", "count", value);
    return budget(value, 0);
  }
  /// A share in (0, 1]; 1 selects everything.
  static budget ratio(double value) {
    expects(value > 0 && value <= 1, "budget::ratio", "a ratio must lie in (0, 1]", "ratio", value);
    return budget(-1, value);
  }

  /// The number of items out of `total`: the count, or floor(ratio * total) but at least 1. The
  /// product is that of doubles: 0.29 of 100 are 28 (see detail/share.hpp).
  /// \throws invalid_argument  if a count exceeds the total
  index_t of(index_t total) const {
    if (count_ >= 0) {
      expects(count_ <= total, "budget", "a count must not exceed what there is", "count", count_,
              "total", total);
      return count_;
    }
    return std::min(total, std::max<index_t>(1, detail::share_of(ratio_, total)));
  }

 private:
  budget(index_t count, double ratio) : count_(count), ratio_(ratio) {}
  index_t count_;
  double ratio_;
};

}  // namespace dualsft
