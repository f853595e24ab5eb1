// Measures: ghost scoring of a batch of the MLP language model, and the other strategies beside it.
// Against: the same batch's plain gradient (accumulate_gradient), same thread, same run, interleaved.
//
//   data_scores_bench --benchmark_out=data_scores.json --benchmark_out_format=json
//
// Counters: ratio        median time of the strategy / median time of the gradient
//           heap_ratio   largest heap growth while scoring / bytes of an N x d gradient matrix
// DUALSFT_BENCH_SMALL=1 shrinks it for a smoke run. Scores are compared with the materialised
// ones before anything is timed.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <dualsft/data_scores.hpp>
#include <dualsft/models/byte_lm.hpp>
#include <memory>
#include <new>
#include <numeric>

namespace {

/// Live and peak bytes of the heap, for the claim that nothing of size N x d is allocated.
std::atomic<std::int64_t> live{0};
std::atomic<std::int64_t> peak{0};

void* counted(std::size_t size, std::size_t alignment) {
  const std::size_t header = std::max<std::size_t>(alignment, 16);
  void* block = std::aligned_alloc(header, (size + 2 * header - 1) / header * header + header);
  if (block == nullptr) throw std::bad_alloc();
  *static_cast<std::size_t*>(block) = size;
  const std::int64_t now = live += static_cast<std::int64_t>(size);
  std::int64_t seen = peak.load();
  while (now > seen && !peak.compare_exchange_weak(seen, now)) {
  }
  return static_cast<char*>(block) + header;
}

void counted_free(void* pointer, std::size_t alignment) {
  if (pointer == nullptr) return;
  void* block = static_cast<char*>(pointer) - std::max<std::size_t>(alignment, 16);
  live -= static_cast<std::int64_t>(*static_cast<std::size_t*>(block));
  std::free(block);
}

}  // namespace

void* operator new(std::size_t size) {
  return counted(size, 16);
}
void* operator new(std::size_t size, std::align_val_t a) {
  return counted(size, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept {
  counted_free(p, 16);
}
void operator delete(void* p, std::size_t) noexcept {
  counted_free(p, 16);
}
void operator delete(void* p, std::align_val_t a) noexcept {
  counted_free(p, static_cast<std::size_t>(a));
}
void operator delete(void* p, std::size_t, std::align_val_t a) noexcept {
  counted_free(p, static_cast<std::size_t>(a));
}

namespace {

using namespace dualsft;

double seconds(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

void score_batch(benchmark::State& state, score_strategy strategy) {
  const bool small = std::getenv("DUALSFT_BENCH_SMALL") != nullptr;
  const index_t records = small ? 8 : 64;
  byte_corpus corpus;
  random_source random(1);
  for (index_t i = 0; i < records; ++i) {
    std::string text;
    for (int k = 0; k < 128; ++k) text += static_cast<char>('a' + random.below(26));
    corpus.add_text(text);
  }
  const byte_lm<float> model(std::make_shared<const byte_corpus>(std::move(corpus)),
                             {.window = 12, .embedding = 32, .hidden = {256, 256}});
  std::vector<index_t> batch(static_cast<std::size_t>(records));
  std::iota(batch.begin(), batch.end(), index_t{0});
  const auto d = static_cast<std::size_t>(model.layout().size());
  projection<float> direction;
  direction.rule = {score_order::first, step_geometry::plain, 1.0};
  for (std::size_t j = 0; j < d; ++j) direction.p.push_back(static_cast<float>(random.normal()));
  const exec::cpu one{1};
  const data_score_options options{.strategy = strategy, .batch_size = records};

  const auto expected =
      data_scores(one, model, batch, direction, {.strategy = score_strategy::materialised}).scores;
  const std::int64_t before = live;
  peak = before;
  const auto found = data_scores(one, model, batch, direction, options).scores;
  const double growth = static_cast<double>(peak - before);
  double scale = 0;
  for (const double x : expected) scale = std::max(scale, std::abs(x));
  for (std::size_t i = 0; i < found.size(); ++i)
    if (!(std::abs(found[i] - expected[i]) <= 1e-4 * scale)) {
      state.SkipWithError("scores differ from the materialised ones");
      return;
    }

  std::vector<float> gradient(d);
  std::vector<double> of_strategy, of_gradient;
  for ([[maybe_unused]] auto unused : state) {
    const double a = seconds([&] { model.accumulate_gradient(batch, gradient); });
    const double b = seconds([&] { data_scores(one, model, batch, direction, options); });
    benchmark::DoNotOptimize(gradient.data());
    of_gradient.push_back(a);
    of_strategy.push_back(b);
    state.SetIterationTime(b);
  }
  state.counters["ratio"] = median(of_strategy) / median(of_gradient);
  state.counters["heap_ratio"] =
      growth / (static_cast<double>(records) * static_cast<double>(d) * sizeof(float));
  state.counters["tokens_per_second"] = static_cast<double>(records) * 128 / median(of_strategy);
}

BENCHMARK_CAPTURE(score_batch, ghost, score_strategy::ghost)->UseManualTime()->MinTime(2.0);
BENCHMARK_CAPTURE(score_batch, forward_derivative, score_strategy::forward_derivative)
    ->UseManualTime()
    ->MinTime(2.0);
BENCHMARK_CAPTURE(score_batch, materialised, score_strategy::materialised)
    ->UseManualTime()
    ->MinTime(1.0);

}  // namespace
