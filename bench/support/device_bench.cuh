// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <benchmark/benchmark.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/execution.cuh>
#include <exception>
#include <functional>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "device_limits.cuh"

/// How work on a device is measured: by events on its stream, with a cold cache, beside a copy or a matrix
/// product of the same moment, after a check of what it computes.
///
///     void accumulate_bf16(benchmark::State& state) {
///       const exec::cuda policy = bench::policy();
///       ... allocate (bench::fits), fill, run once ...
///       if (!bench::check(state, right, "sums differ from a plain loop's")) return;
///       bench::device_timer timer(state);
///       timer.moves(10.0 * n);                              // bytes read + written: GB/s, ratio_to_copy
///       timer.against("thrust_sort", [&](index_t) { ... }); // thrust_sort_ms, ratio_to_thrust_sort
///       timer.at_least("ratio_to_copy", 0.9);               // what it must reach
///       timer.run([&](index_t round) { accumulate(policy, ...); });
///     }
///     int main(int argc, char** argv) {
///       bench::add("accumulate/bf16", accumulate_bf16);
///       return bench::run(argc, argv);                      // 77: no device; 1: a check failed
///     }
///
/// A ratio above 1 says: faster than what it is compared with. Environment: DUALSFT_BENCH_SMALL runs
/// every benchmark once at small sizes (bench::pick); DUALSFT_COMMIT, DUALSFT_DRIVER and DUALSFT_CLOCKS
/// go into the results.
namespace dualsft::bench {

inline bool& any_failed() {
  static bool failed = false;
  return failed;
}

/// \return  `right`; else the benchmark is not timed, and the program's status will be 1.
inline bool check(benchmark::State& state, bool right, const char* what_is_wrong) {
  if (right) return true;
  any_failed() = true;
  state.SkipWithError(what_is_wrong);
  return false;
}

/// Whether so many bytes are free; else the benchmark is left out, which is no failure.
inline bool fits(benchmark::State& state, double bytes) {
  std::size_t free = 0, total = 0;
  detail::cuda_check(cudaStreamSynchronize(policy().stream), "fits");
  detail::cuda_check(cudaMemGetInfo(&free, &total), "fits");
  constexpr double spare = 5e8;
  if (is_small() || bytes + spare <= static_cast<double>(free)) return true;
  char text[96];
  std::snprintf(text, sizeof text, "left out: needs %.1f GB of memory, %.1f GB are free",
                bytes / 1e9, static_cast<double>(free) / 1e9);
  state.SkipWithError(text);
  return false;
}

enum class cache { cold, warm };

/// Times one piece of work, and interleaved with it what it is compared with.
class device_timer {
 public:
  using work = std::function<void(index_t)>;

  /// \param before  cold: the second-level cache is overwritten before each timed call, untimed
  explicit device_timer(benchmark::State& state, cache before = cache::cold)
      : state_(state), before_(before) {}

  /// One call reads and writes so many bytes at least: GB_per_s, copy_GB_per_s, ratio_to_copy, limit_ms.
  void moves(double bytes) { bytes_ = bytes; }
  /// One call takes so many operations: TFLOP_per_s, product_TFLOP_per_s, ratio_to_product.
  void computes(double operations) { operations_ = operations; }
  /// NAME_ms and ratio_to_NAME, this work's time being 1.
  /// \param prepare  untimed, before each call
  void against(std::string name, work other, work prepare = {}) {
    others_.push_back({std::move(name), {std::move(other), std::move(prepare)}, {}});
  }
  /// What a counter must reach; becomes the counter at_least:NAME or at_most:NAME.
  void at_least(const std::string& counter, double bound) {
    state_.counters["at_least:" + counter] = bound;
  }
  void at_most(const std::string& counter, double bound) {
    state_.counters["at_most:" + counter] = bound;
  }
  void note(const std::string& counter, double value) { state_.counters[counter] = value; }

  /// \param body     of the round's number: with several inputs, round % inputs picks one, so that none
  ///                 is found in a cache. The first two rounds are not timed.
  /// \param prepare  untimed, before each call: say, what the body overwrites
  void run(work body, work prepare = {}) {
    const call own{std::move(body), std::move(prepare)};
    index_t round = 0;
    for (; round < (is_small() ? 0 : 2); ++round) {
      timed(own, round);
      for (const other& each : others_) timed(each.what, round);
    }
    std::vector<double> mine, copies, products;
    for (auto _ : state_) {
      mine.push_back(timed(own, round));
      state_.SetIterationTime(mine.back());
      if (bytes_ > 0) copies.push_back(copy_seconds());
      if (operations_ > 0) products.push_back(product_seconds());
      for (other& each : others_) each.seconds.push_back(timed(each.what, round));
      ++round;
    }
    const double seconds = median(mine);
    note("ms", 1e3 * seconds);
    if (bytes_ > 0) {
      const double copied = copied_bytes() / median(copies);
      compare("GB_per_s", "copy", bytes_ / seconds / 1e9, copied / 1e9);
      note("limit_ms", 1e3 * bytes_ / copied);
    }
    if (operations_ > 0)
      compare("TFLOP_per_s", "product", operations_ / seconds / 1e12,
              product_operations() / median(products) / 1e12);
    for (const other& each : others_) {
      const double theirs = median(each.seconds);
      note(each.name + "_ms", 1e3 * theirs);
      note("ratio_to_" + each.name, theirs / seconds);
    }
  }

 private:
  struct call {
    work body, prepare;
  };
  struct other {
    std::string name;
    call what;
    std::vector<double> seconds;
  };

  void compare(const std::string& unit, const std::string& limit, double mine, double theirs) {
    note(unit, mine);
    note(limit + "_" + unit, theirs);
    note("ratio_to_" + limit, mine / theirs);
  }
  double timed(const call& what, index_t round) const {
    if (what.prepare) what.prepare(round);
    if (before_ == cache::cold) flush_cache();
    return seconds_of([&] { what.body(round); });
  }

  benchmark::State& state_;
  cache before_;
  double bytes_ = 0, operations_ = 0;
  std::vector<other> others_;
};

/// Registers a benchmark that times itself by a device_timer, `rounds` times. What it throws is a failed
/// check, unless it ran out of memory.
inline void add(const std::string& name, const std::function<void(benchmark::State&)>& body,
                int rounds = 20) {
  benchmark::RegisterBenchmark(name.c_str(),
                               [body](benchmark::State& state) {
                                 try {
                                   body(state);
                                 } catch (const cuda_error& error) {
                                   if (error.code() == cudaErrorMemoryAllocation)
                                     state.SkipWithError("left out: too little memory");
                                   else
                                     check(state, false, error.what());
                                 } catch (const std::bad_alloc&) {
                                   state.SkipWithError("left out: too little memory");
                                 } catch (const std::exception& error) {
                                   check(state, false, error.what());
                                 }
                               })
      ->UseManualTime()
      ->Iterations(is_small() ? 1 : rounds)
      ->Unit(benchmark::kMillisecond);
}

/// The program's main.
inline int run(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skipped: this machine has no CUDA device");
    return 77;
  }
#if !defined(NDEBUG) || !defined(__OPTIMIZE__)
  if (!is_small()) {
    std::fputs("benchmarks need a release build: -O3 -DNDEBUG\n", stderr);
    return 1;
  }
#endif
  try {
    describe_device();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    release_limits();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return any_failed() ? 1 : 0;
}

}  // namespace dualsft::bench
