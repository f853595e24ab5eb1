// Measures: one step of masked AdamW over a random 5 % of d coordinates, exec::cpu, float.
// Against: dense AdamW times a mask in Eigen arrays, same threads, same run, steps interleaved.
//
//   masked_adamw_bench --benchmark_out=masked_adamw.json --benchmark_out_format=json
//
// Counters: ratio          median time of the Eigen statements / median time of masked_adamw
//           ratio_blocked  the same with the Eigen statements run block by block in cache, which
//                          is as good as dense arrays get
//           state_ratio    bytes held by masked_adamw / bytes of dense m and s (target: <= 0.07)
// DUALSFT_BENCH_LOG2_D (default 26) shrinks it for a smoke run.
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <dualsft/execution.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/optim/masked_adamw.hpp>
#include <dualsft/random.hpp>
#include <string>
#include <vector>

namespace {

using namespace dualsft;

constexpr adamw_options options{.weight_decay = 0.01};
constexpr double learning_rate = 1e-3;

/// Exactly n / 20 of n, every set of that size equally likely.
index_set random_twentieth(index_t n, random_source& random) {
  std::vector<index_t> chosen;
  index_t wanted = n / 20;
  chosen.reserve(static_cast<std::size_t>(wanted));
  for (index_t i = 0; i < n; ++i)
    if (random.uniform() * static_cast<double>(n - i) < static_cast<double>(wanted)) {
      chosen.push_back(i);
      --wanted;
    }
  return {std::move(chosen), n};
}

struct dense_run {
  Eigen::ArrayXf theta, m, s;
  index_t t = 0;

  /// The three statements one writes down, over pieces of at most `piece` coordinates.
  void step(const exec::cpu& policy, const Eigen::ArrayXf& gradient, const Eigen::ArrayXf& mask,
            index_t piece) {
    const auto c = adamw_rule<float>::at(options, ++t, learning_rate);
    const float shrink = static_cast<float>(learning_rate * options.weight_decay);
    detail::parallel_ranges(
        policy, theta.size(), index_t{1} << 16, [&](int, const detail::index_range& range) {
          for (index_t at = range.begin; at < range.end; at += piece) {
            const index_t n = std::min(piece, range.end - at);
            auto th = theta.segment(at, n);
            auto mm = m.segment(at, n);
            auto ss = s.segment(at, n);
            const auto g = gradient.segment(at, n);
            const auto k = mask.segment(at, n);
            mm = c.beta1 * mm + c.gain1 * (g * k);
            ss = c.beta2 * ss + c.gain2 * (g * k).square();
            th -= k * (shrink * th + c.rate * mm / (ss.sqrt() / c.root + c.epsilon));
          }
        });
  }
};

/// Largest excess of |a - b| over its model: a few roundings of theta, and of a step whose root
/// Eigen may approximate.
bool agree(const Eigen::ArrayXf& start, const std::vector<float>& masked,
           const Eigen::ArrayXf& dense, const Eigen::ArrayXf& mask) {
  for (index_t i = 0; i < start.size(); ++i) {
    const float a = masked[static_cast<std::size_t>(i)];
    if (mask[i] == 0 && std::bit_cast<std::uint32_t>(a) != std::bit_cast<std::uint32_t>(start[i]))
      return false;
    if (!(std::abs(a - dense[i]) <=
          4e-7f * std::abs(a) + 1e-4f * static_cast<float>(learning_rate)))
      return false;
  }
  return true;
}

template <class Step>
double seconds(Step&& step) {
  const auto start = std::chrono::steady_clock::now();
  step();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void masked_adamw_step(benchmark::State& state) {
  const index_t d = index_t{1} << state.range(0);
  const exec::cpu policy{.threads = static_cast<int>(state.range(1))};
  random_source random(5);
  Eigen::ArrayXf start(d), gradient(d), mask = Eigen::ArrayXf::Zero(d);
  for (index_t i = 0; i < d; ++i) {
    start[i] = static_cast<float>(random.uniform() - 0.5);
    gradient[i] = static_cast<float>(random.uniform() - 0.5);
  }
  const index_set selected = random_twentieth(d, random);
  for (const index_t i : selected.indices()) mask[i] = 1;

  masked_adamw<float> optimizer(selected, options);
  std::vector<float> theta(start.data(), start.data() + d);
  const std::span<const float> gradient_span(gradient.data(), static_cast<std::size_t>(d));
  dense_run dense{start, Eigen::ArrayXf::Zero(d), Eigen::ArrayXf::Zero(d)};

  const auto masked_step = [&] {
    optimizer.step(policy, std::span<float>(theta), gradient_span, learning_rate);
  };
  constexpr index_t cached = 4096;  // 5 arrays of 16 KiB stay in the second-level cache
  masked_step();
  dense.step(policy, gradient, mask, d);
  masked_step();
  dense.step(policy, gradient, mask, cached);
  if (!agree(start, theta, dense.theta, mask)) {
    state.SkipWithError("masked AdamW and the dense arrays disagree: nothing is timed");
    return;
  }

  std::vector<double> masked_times, dense_times, blocked_times;
  for (auto _ : state) {
    dense_times.push_back(seconds([&] { dense.step(policy, gradient, mask, d); }));
    masked_times.push_back(seconds(masked_step));
    blocked_times.push_back(seconds([&] { dense.step(policy, gradient, mask, cached); }));
    benchmark::ClobberMemory();
    state.SetIterationTime(masked_times.back());
  }
  const double masked_median = median(masked_times);
  state.counters["masked_ms"] = 1e3 * masked_median;
  state.counters["dense_ms"] = 1e3 * median(dense_times);
  state.counters["blocked_ms"] = 1e3 * median(blocked_times);
  state.counters["ratio"] = median(dense_times) / masked_median;
  state.counters["ratio_blocked"] = median(blocked_times) / masked_median;
  state.counters["state_ratio"] = static_cast<double>(optimizer.memory_bytes()) /
                                  static_cast<double>(2 * d * index_t{sizeof(float)});
}

void sizes(benchmark::internal::Benchmark* bench) {
  const char* text = std::getenv("DUALSFT_BENCH_LOG2_D");
  const int log2_d = text != nullptr ? std::clamp(std::atoi(text), 5, 32) : 26;
  const int all = detail::thread_count(exec::cpu{});
  bench->ArgNames({"log2_d", "threads"})->Args({log2_d, 1});
  if (all > 1) bench->Args({log2_d, all});
}

BENCHMARK(masked_adamw_step)
    ->Name("masked_adamw/cpu/f32/density:0.05")
    ->Apply(sizes)
    ->UseManualTime()
    ->Iterations(15)
    ->Unit(benchmark::kMillisecond);

}  // namespace
