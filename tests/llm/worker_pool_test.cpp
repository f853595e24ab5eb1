// Proves: worker_pool does every part once, hands exceptions on, and outlives both; a transformer's
// passes on it give equal bits each time and race for nothing (under ThreadSanitizer). Against:
// counting, and one thread.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <dualsft/data_scores.hpp>
#include <dualsft/llm/detail/worker_pool.hpp>
#include <dualsft/llm/generation.hpp>
#include <dualsft/llm/transformer.hpp>
#include <stdexcept>
#include <thread>

using namespace dualsft;
using namespace dualsft::llm;
using dualsft::llm::detail::worker_pool;

TEST_CASE("every element and every task is done once, round after round") {
  for (const int threads : {1, 2, 3, 4}) {
    worker_pool pool(threads);
    for (const index_t n : {0, 1, 2, 3, 31, 33, 257}) {
      std::vector<int> ranges(static_cast<std::size_t>(n)), tasks(static_cast<std::size_t>(n));
      for (int round = 0; round < 200; ++round) {
        pool.ranges(n, 2, [&](dualsft::detail::index_range range) {
          for (index_t i = range.begin; i < range.end; ++i) ++ranges[static_cast<std::size_t>(i)];
        });
        pool.tasks(n, 1, [&](index_t task, int part) {
          if (0 <= part && part < threads) ++tasks[static_cast<std::size_t>(task)];
        });
      }
      CHECK(ranges == std::vector<int>(ranges.size(), 200));
      CHECK(tasks == std::vector<int>(tasks.size(), 200));
    }
  }
}

// What the caller wrote before a round, each part reads; what each part wrote, the caller reads.
TEST_CASE("a round sees what was written before it, and the caller what it wrote") {
  worker_pool pool(4);
  int input = 0;
  std::array<int, 4> output{};
  bool right = true;
  for (int round = 0; round < 2000; ++round) {
    input = round;
    const int parts = 1 + round % 4;  // workers without a part sleep through the round
    pool.run(parts, [&](int part) { output[static_cast<std::size_t>(part)] = input + part; });
    for (int part = 0; part < parts; ++part)
      right = right && output[static_cast<std::size_t>(part)] == round + part;
  }
  CHECK(right);
}

TEST_CASE("the lowest part's exception leaves, and the pool goes on") {
  worker_pool pool(3);
  for (int round = 0; round < 50; ++round) {
    CHECK_THROWS_WITH_AS(pool.run(3,
                                  [&](int part) {
                                    if (part > 0) throw std::runtime_error(std::to_string(part));
                                  }),
                         "1", std::runtime_error);
    std::atomic<int> done{0};
    pool.run(3, [&](int) { ++done; });
    CHECK(done == 3);
  }
  CHECK_THROWS_AS(worker_pool(0), invalid_argument);
}

TEST_CASE("callers wait for each other; a pool may end without a round") {
  worker_pool unused(4);
  worker_pool pool(2);
  long sum = 0;  // unguarded: only one round runs at a time, but both of its parts add
  std::array<long, 2> parts{};
  {
    std::vector<std::jthread> callers;
    for (int caller = 0; caller < 3; ++caller)
      callers.emplace_back([&] {
        for (int round = 0; round < 300; ++round)
          pool.run(2, [&](int part) { ++parts[static_cast<std::size_t>(part)]; });
      });
  }
  for (const long part : parts) sum += part;
  CHECK(sum == 3 * 300 * 2);
}

namespace {

transformer<float> small_transformer(int threads) {
  model_config c;
  c.vocabulary = 40;
  c.width = 32;
  c.mlp_width = 48;
  c.layers = 2;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_size = 8;
  c.query_scale = 0.35;
  c.windows = {4, 0};
  c.qk_norm = c.post_norms = c.qkv_bias = true;
  token_corpus corpus;
  random_source rng(7);
  for (const index_t length : {9, 70, 33}) {  // some steps are worth every thread, others are not
    token_record record;
    for (index_t t = 0; t < length; ++t)
      record.ids.push_back(static_cast<token_id>(rng.below(c.vocabulary)));
    record.labels = record.ids;
    corpus.add(std::move(record));
  }
  return {c,
          std::make_shared<const token_corpus>(std::move(corpus)),
          {.threads = threads, .chunk_tokens = 80, .positions = 80}};
}

/// Everything that a pass over the examples gives.
std::vector<double> passes(const transformer<float>& model, int threads) {
  const std::vector<index_t> examples{0, 1, 2, 1};
  const auto d = model.parameters().size();
  projection<float> direction;
  random_source rng(5);
  for (std::size_t j = 0; j < d; ++j) direction.p.push_back(static_cast<float>(rng.normal()));
  direction.rule = {.order = score_order::first, .eta = 1};

  std::vector<double> all(examples.size());
  model.losses(examples, all);
  std::vector<float> gradient(d);
  model.accumulate_gradient(examples, gradient);
  all.insert(all.end(), gradient.begin(), gradient.end());
  for (const score_strategy strategy :
       {score_strategy::ghost, score_strategy::forward_derivative}) {
    const auto scores =
        data_scores(exec::cpu{threads}, model, examples, direction, {.strategy = strategy}).scores;
    all.insert(all.end(), scores.begin(), scores.end());
  }
  generator<float> generate(model);
  for (const token_id id : generate.greedy(std::vector<token_id>{1, 2, 3}, {.max_tokens = 8}))
    all.push_back(static_cast<double>(id));
  return all;
}

}  // namespace

// Tolerance: float sums of some hundred terms below 1 in size, cut differently.
TEST_CASE("a transformer's passes give equal bits for equal threads") {
  const auto one = passes(small_transformer(1), 1);
  for (const int threads : {2, 3, 4}) {
    const transformer<float> model = small_transformer(threads);
    const auto first = passes(model, threads);
    CHECK(first == passes(model, threads));
    REQUIRE(first.size() == one.size());
    double worst = 0;
    for (std::size_t i = 0; i < one.size(); ++i)
      worst = std::max(worst, std::abs(first[i] - one[i]) / (1 + std::abs(one[i])));
    CHECK(worst <= 1e-4);
  }
}

TEST_CASE("copies of a model share threads and may be called at once") {
  const transformer<float> model = small_transformer(2);
  const transformer<float> copy = model;
  const auto expected = passes(model, 2);
  std::vector<double> other;
  {
    const std::jthread caller([&] { other = passes(copy, 2); });
    CHECK(passes(model, 2) == expected);
  }
  CHECK(other == expected);
}
