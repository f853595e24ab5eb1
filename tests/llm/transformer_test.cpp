// Proves: transformers of every shape keep every promise of concepts.hpp, whatever the number of
// threads, the size of the chunks, and whether activations are kept. Against: differences of
// losses in double, plain loops over traces, each other.
#include <doctest/doctest.h>

#include <dualsft/data_scores.hpp>
#include <dualsft/llm/transformer.hpp>
#include <string>

#include "support/check_model.hpp"

using namespace dualsft;
using namespace dualsft::llm;

static_assert(check_trainable_model<transformer<float>>());
static_assert(check_trace_model<transformer<double>>());
static_assert(check_forward_derivative_model<transformer<double>>());
static_assert(check_logit_model<transformer<double>>());
static_assert(HasGradientLosses<transformer<double>> && HasExampleGradient<transformer<double>> &&
              HasEmbedding<transformer<double>>);

namespace {

model_config small_config() {
  model_config c;
  c.vocabulary = 11;
  c.width = 8;
  c.mlp_width = 10;
  c.layers = 2;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_size = 4;
  c.query_scale = 0.5;
  c.windows = {0, 0};
  return c;
}

struct shape {
  std::string name;
  model_config config;
};

/// Each difference between families alone, then together as in Gemma-3.
std::vector<shape> shapes() {
  std::vector<shape> all;
  const auto add = [&](std::string name, auto&& change) {
    model_config c = small_config();
    change(c);
    all.push_back({std::move(name), c});
  };
  add("llama", [](model_config&) {});
  add("llama3 rope, tied head", [](model_config& c) {
    c.tied_head = true;
    c.rope = {10000, rope_rule::llama3, 8, 1, 4, 16};
  });
  add("one kv head, all biases", [](model_config& c) {
    c.kv_heads = 1;
    c.qkv_bias = c.output_bias = c.mlp_bias = true;
  });
  add("q and k norms, wide heads", [](model_config& c) {
    c.qk_norm = true;
    c.head_size = 10;
  });
  add("windows, two ropes", [](model_config& c) {
    c.windows = {3, 0};
    c.local_rope.base = 100;
    c.rope = {10000, rope_rule::linear, 4};
  });
  add("gemma", [](model_config& c) {
    c.qk_norm = c.post_norms = c.norm_plus_one = c.tied_head = true;
    c.embedding_scale = std::sqrt(8.0);
    c.activation = gate_activation::gelu_tanh;
    c.windows = {2, 0};
    c.local_rope.base = 100;
    c.kv_heads = 1;
  });
  return all;
}

/// Lengths 2 to 150, so that attention works in blocks; prompts, gaps and tails without labels.
std::shared_ptr<const token_corpus> random_corpus(index_t vocabulary) {
  token_corpus corpus;
  random_source rng(7);
  for (const index_t length : {9, 2, 150, 5, 70}) {
    token_record record;
    for (index_t t = 0; t < length; ++t) {
      record.ids.push_back(static_cast<token_id>(rng.below(vocabulary)));
      const bool counts = length < 6 || (t > 3 && t % 3 != 0 && t < length - 1);
      record.labels.push_back(counts ? record.ids.back() : ignored);
    }
    corpus.add(record);
  }
  return std::make_shared<const token_corpus>(std::move(corpus));
}

template <class S>
transformer<S> random_transformer(const model_config& config, const transformer_options& options) {
  transformer<S> model(config, random_corpus(config.vocabulary), options);
  random_source rng(3);
  // All hidden states near 1 in size: a norm of small numbers bends too sharply for differences.
  for (const parameter_block& b : model.layout().blocks()) {
    const bool normed = config.qk_norm && (b.module == "attention.q" || b.module == "attention.k");
    const double scale =
        b.module == "embedding" ? 1 : (normed ? 3 : 1) / std::sqrt(static_cast<double>(b.cols));
    for (S& x : model.parameters(model.layout().find(b.name)))
      x = static_cast<S>(b.cols > 1 ? scale * rng.normal()
                                    : static_cast<double>(x) + 0.1 * rng.normal());
  }
  return model;
}

}  // namespace

// Tolerances: check_model.hpp states the model; some hundred tokens of attention multiply the fifth
// derivatives, hence the larger slack there.
TEST_CASE("transformers in double pass every check") {
  for (const shape& s : shapes()) {
    auto model = random_transformer<double>(s.config, {.threads = 2, .chunk_tokens = 100});
    random_source rng(1);
    const std::vector<index_t> examples{0, 3, 1};
    auto report =
        testing::check_model(model, examples, rng, {.directions = 2, .most_coordinates = 60});
    testing::check_cross_entropy(
        model, examples, [&](index_t i, index_t row) { return model.target(i, row); }, rng, {},
        report);
    INFO(s.name, "\n", report.text());
    CHECK(report.ok());
    CHECK(report.checks.size() >= 18);
  }
}

TEST_CASE("long sequences: derivatives hold across the blocks of attention") {
  for (const shape& s : shapes()) {
    auto model = random_transformer<double>(s.config, {.threads = 2});
    random_source rng(2);
    auto report =
        testing::check_model(model, std::vector<index_t>{2, 4}, rng,
                             {.directions = 1, .most_coordinates = 8, .difference_slack = 3e4});
    INFO(s.name, "\n", report.text());
    CHECK(report.ok());
  }
}

TEST_CASE("results do not depend on threads, chunks, or on what is kept of the forward pass") {
  const std::vector<index_t> examples{0, 1, 2, 3, 4, 2};
  for (const shape& s : shapes()) {
    const auto one = random_transformer<double>(s.config, {.threads = 1});
    std::vector<double> losses(6), gradient(one.parameters().size());
    one.losses(examples, losses);
    one.accumulate_gradient(examples, gradient);
    double largest = 0;
    for (const double g : gradient) largest = std::max(largest, std::abs(g));
    for (const transformer_options& options :
         {transformer_options{.threads = 3}, transformer_options{.threads = 2, .chunk_tokens = 1},
          transformer_options{
              .threads = 2, .chunk_tokens = 160, .activations = activations::recompute}}) {
      const auto other = random_transformer<double>(s.config, options);
      std::vector<double> other_losses(6), other_gradient(gradient.size());
      other.losses(examples, other_losses);
      other.accumulate_gradient(examples, other_gradient);
      INFO(s.name);
      for (std::size_t i = 0; i < losses.size(); ++i)  // sums of some hundred terms
        CHECK(std::abs(losses[i] - other_losses[i]) <= 1e-13 * std::abs(losses[i]));
      double worst = 0;
      for (std::size_t j = 0; j < gradient.size(); ++j)
        worst = std::max(worst, std::abs(gradient[j] - other_gradient[j]));
      CHECK(worst <= 1e-12 * largest);
      std::vector<double> again(gradient.size());
      other.accumulate_gradient(examples, again);
      CHECK(again == other_gradient);  // bit for bit
    }
  }
}

// Tolerance: each strategy rounds in float along sums of some thousand terms; the difference of
// losses loses eps^(1/3) of the loss.
TEST_CASE("the four data-score strategies agree") {
  for (const shape& s : shapes()) {
    auto model = random_transformer<double>(s.config, {.threads = 2});
    projection<double> direction;
    random_source rng(5);
    for (index_t j = 0; j < model.layout().size(); ++j) direction.p.push_back(rng.normal());
    direction.rule = {.order = score_order::first, .eta = 1};
    const std::vector<index_t> examples{4, 0, 1, 2, 3};
    const auto by = [&](score_strategy strategy) {
      return data_scores(exec::cpu{2}, model, examples, direction,
                         {.strategy = strategy, .batch_size = 2})
          .scores;
    };
    const auto expected = by(score_strategy::materialised);
    double size = 0;
    for (const double x : expected) size = std::max(size, std::abs(x));
    const auto worst = [&](const std::vector<double>& found) {
      double error = 0;
      for (std::size_t i = 0; i < found.size(); ++i)
        error = std::max(error, std::abs(found[i] - expected[i]));
      return error / size;
    };
    INFO(s.name);
    CHECK(worst(by(score_strategy::ghost)) <= 1e-12);
    CHECK(worst(by(score_strategy::forward_derivative)) <= 1e-12);
    CHECK(worst(by(score_strategy::directional_difference)) <= 1e-6);
  }
}

// Materialised scores see an example's hundred rows at a time, the others a block of 1024 and more.
TEST_CASE("scores hold across blocks of the head's rows and of its vocabulary") {
  model_config config = small_config();
  config.vocabulary = 9000;
  config.layers = 1;
  config.windows = {0};
  const auto model = random_transformer<double>(config, {.threads = 2});
  projection<double> direction;
  random_source rng(5);
  for (index_t j = 0; j < model.layout().size(); ++j) direction.p.push_back(rng.normal());
  direction.rule = {.order = score_order::first, .eta = 1};
  const std::vector<index_t> examples(12, 2);
  REQUIRE(12 * model.logit_rows(2) > 1024);
  const auto by = [&](score_strategy strategy, const std::vector<index_t>& which) {
    return data_scores(exec::cpu{2}, model, which, direction, {.strategy = strategy}).scores;
  };
  const double expected = by(score_strategy::materialised, {2}).front();
  for (const auto strategy : {score_strategy::ghost, score_strategy::forward_derivative})
    for (const double score : by(strategy, examples))
      CHECK(std::abs(score - expected) <= 1e-11 * std::abs(expected));
}

TEST_CASE("what does not fit is refused by name") {
  const auto corpus = random_corpus(11);
  model_config c = small_config();
  CHECK_THROWS_WITH_AS(transformer<double>(c, nullptr), doctest::Contains("corpus"),
                       invalid_argument);
  c.vocabulary = 10;
  CHECK_THROWS_WITH_AS(transformer<double>(c, corpus), doctest::Contains("vocabulary = 10"),
                       invalid_argument);
  c = small_config();
  c.kv_heads = 3;
  CHECK_THROWS_WITH_AS(transformer<double>(c, corpus), doctest::Contains("kv_heads must divide"),
                       invalid_argument);
  const transformer<double> model(small_config(), corpus, {.threads = 1});
  std::vector<double> out(1);
  CHECK_THROWS_WITH_AS(model.losses(std::vector<index_t>{5}, out), doctest::Contains("example = 5"),
                       invalid_argument);
  CHECK_THROWS_AS(model.accumulate_gradient(std::vector<index_t>{0}, out), invalid_argument);
}
