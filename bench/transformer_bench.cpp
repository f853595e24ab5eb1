// Measures: training passes and per-example scores of a 4-layer, 512-wide Llama with 32,000 tokens
// of vocabulary, float, two threads, 8 sequences of 256 tokens.
// Against: forward + backward of the same batch in the same rounds (scores); PyTorch on the same
// shapes through bench/compare_transformer.py, which starts this program.
//
//   transformer_bench --benchmark_out=transformer.json --benchmark_out_format=json
//
// Counters: tokens_per_second; ratio   time / time of forward + backward (targets: ghost 1.05,
//                                      forward derivative 0.95)
//           activation_ratio           peak heap above what was held before, against that of
//                                      forward + backward (target for the forward derivative: 0.25)
// DUALSFT_BENCH_SMALL=1 shrinks everything for a smoke run.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <dualsft/data_scores.hpp>
#include <dualsft/llm/transformer.hpp>
#include <new>

// ---- the heap, watched ------------------------------------------------------------------------

namespace {
std::atomic<std::size_t> held{0}, peak{0};
void note(std::size_t bytes) {
  const std::size_t now = held += bytes;
  std::size_t before = peak;
  while (now > before && !peak.compare_exchange_weak(before, now)) {
  }
}
}  // namespace

extern "C" {
void* __libc_malloc(std::size_t);
void __libc_free(void*);
void* malloc(std::size_t n) {
  void* p = __libc_malloc(n);
  if (p != nullptr) note(malloc_usable_size(p));
  return p;
}
void free(void* p) {
  if (p != nullptr) held -= malloc_usable_size(p);
  __libc_free(p);
}
}

namespace {

using namespace dualsft;
using namespace dualsft::llm;

bool small() {
  return std::getenv("DUALSFT_BENCH_SMALL") != nullptr;
}

struct problem {
  index_t sequences = small() ? 2 : 8, length = small() ? 16 : 256;
  std::vector<index_t> batch;
  transformer<float> model;
  std::vector<float> gradient, direction;

  problem() : model(config(), corpus(), {.threads = 2, .chunk_tokens = 4096}) {
    for (index_t i = 0; i < sequences; ++i) batch.push_back(i);
    gradient.resize(model.parameters().size());
    random_source rng(2);
    for (std::size_t j = 0; j < gradient.size(); ++j)
      direction.push_back(static_cast<float>(rng.normal()));
  }

  static model_config config() {
    model_config c;
    c.vocabulary = small() ? 100 : 32000;
    c.width = small() ? 32 : 512;
    c.mlp_width = small() ? 48 : 1408;
    c.layers = 4;
    c.heads = c.kv_heads = 8;
    c.head_size = c.width / c.heads;
    c.query_scale = 1 / std::sqrt(static_cast<double>(c.head_size));
    c.windows.assign(4, 0);
    return c;
  }
  std::shared_ptr<const token_corpus> corpus() const {
    token_corpus out;
    random_source rng(1);
    for (index_t i = 0; i < sequences; ++i) {
      token_record record;
      // One more than are read, so that each of `length` tokens predicts one.
      for (index_t t = 0; t <= length; ++t)
        record.ids.push_back(static_cast<token_id>(rng.below(config().vocabulary)));
      record.labels = record.ids;
      out.add(std::move(record));
    }
    return std::make_shared<const token_corpus>(std::move(out));
  }
};

problem& shared_problem() {
  static problem p;
  return p;
}

struct cost {
  double seconds = 0;
  double bytes = 0;
};

template <class Body>
cost measure(Body&& body) {
  const std::size_t before = held;
  peak = before;
  const auto start = std::chrono::steady_clock::now();
  body();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
          static_cast<double>(peak - before)};
}

void training_pass(problem& p) {
  std::ranges::fill(p.gradient, 0.0f);
  p.model.accumulate_gradient(p.batch, p.gradient);
}

double median(std::vector<double> x) {
  std::ranges::sort(x);
  return x[x.size() / 2];
}

void forward_backward(benchmark::State& state) {
  problem& p = shared_problem();
  std::vector<double> times;
  training_pass(p);
  for (auto _ : state) {
    times.push_back(measure([&] { training_pass(p); }).seconds);
    state.SetIterationTime(times.back());
  }
  state.counters["tokens_per_second"] = static_cast<double>(p.sequences * p.length) / median(times);
}

void scores(benchmark::State& state, score_strategy strategy) {
  problem& p = shared_problem();
  projection<float> direction;
  direction.p = p.direction;
  direction.rule = {.order = score_order::first, .eta = 1};
  const auto by = [&](score_strategy s) {
    return data_scores(exec::cpu{2}, std::as_const(p.model), p.batch, direction,
                       {.strategy = s, .batch_size = p.sequences})
        .scores;
  };
  const auto expected = by(score_strategy::materialised);
  const auto found = by(strategy);
  double size = 0, error = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    size = std::max(size, std::abs(expected[i]));
    error = std::max(error, std::abs(found[i] - expected[i]));
  }
  if (!(error <= 1e-3 * size)) {  // float sums of some million terms of either sign
    state.SkipWithError("wrong scores");
    return;
  }
  std::vector<double> ratios, memory, times;
  for (auto _ : state) {
    const cost before = measure([&] { training_pass(p); });
    const cost ours = measure([&] { benchmark::DoNotOptimize(by(strategy)); });
    const cost after = measure([&] { training_pass(p); });
    times.push_back(ours.seconds);
    ratios.push_back(2 * ours.seconds / (before.seconds + after.seconds));
    memory.push_back(ours.bytes / before.bytes);
    state.SetIterationTime(ours.seconds);
  }
  state.counters["tokens_per_second"] = static_cast<double>(p.sequences * p.length) / median(times);
  state.counters["ratio"] = median(ratios);
  state.counters["activation_ratio"] = median(memory);
}

}  // namespace

BENCHMARK(forward_backward)->Unit(benchmark::kMillisecond)->UseManualTime()->Iterations(5);
BENCHMARK_CAPTURE(scores, ghost, score_strategy::ghost)
    ->Unit(benchmark::kMillisecond)
    ->UseManualTime()
    ->Iterations(5);
BENCHMARK_CAPTURE(scores, forward_derivative, score_strategy::forward_derivative)
    ->Unit(benchmark::kMillisecond)
    ->UseManualTime()
    ->Iterations(5);
