// Proves: greedy generation with kept keys and values says what the whole forward pass says, for
// models with and without windows. Against: transformer::logits of the grown sequence.
#include <doctest/doctest.h>

#include <dualsft/llm/generation.hpp>

using namespace dualsft;
using namespace dualsft::llm;

namespace {

model_config small_config(bool windows) {
  model_config c;
  c.vocabulary = 23;
  c.width = 12;
  c.mlp_width = 16;
  c.layers = 3;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_size = 4;
  c.query_scale = 0.5;
  c.windows.assign(3, windows ? 3 : 0);
  c.qk_norm = c.post_norms = windows;
  return c;
}

transformer<double> model_over(const model_config& config, const std::vector<token_id>& ids) {
  token_corpus corpus;
  corpus.add({ids, ids});
  transformer<double> model(config, std::make_shared<const token_corpus>(std::move(corpus)),
                            {.threads = 2, .positions = 40});
  random_source rng(4);
  for (double& x : model.parameters()) x += 0.5 * rng.normal();
  return model;
}

}  // namespace

TEST_CASE("each token is the argmax of the whole sequence's logits") {
  for (const bool windows : {false, true}) {
    const model_config config = small_config(windows);
    const std::vector<token_id> prompt{5, 1, 17, 3, 3};
    const auto model = model_over(config, prompt);
    generator<double> next(model);
    const std::vector<token_id> found = next.greedy(prompt, {.max_tokens = 12});
    REQUIRE(found.size() == 12);
    std::vector<token_id> sequence = prompt;
    for (const token_id id : found) {
      std::vector<token_id> longer = sequence;
      longer.push_back(0);  // its logits are those behind the sequence
      const auto whole = model_over(config, longer);
      const index_t rows = whole.logit_rows(0);
      std::vector<double> z(static_cast<std::size_t>(rows * config.vocabulary));
      whole.logits(std::vector<index_t>{0}, matrix_view<double>(z.data(), rows, config.vocabulary));
      const auto last = z.end() - config.vocabulary;
      CHECK(id == std::max_element(last, z.end()) - last);
      sequence.push_back(id);
    }
    CHECK(next.greedy(prompt, {.max_tokens = 12}) == found);  // nothing remains of the last call
    const auto stopped = next.greedy(prompt, {.max_tokens = 12, .stop_ids = {found[4]}});
    CHECK(stopped.size() ==
          static_cast<std::size_t>(std::ranges::find(found, found[4]) - found.begin()));
    CHECK(next.greedy(prompt, {.max_tokens = 0}).empty());
  }
}

TEST_CASE("what does not fit is refused") {
  const std::vector<token_id> prompt{5, 1};
  const auto model = model_over(small_config(false), prompt);
  generator<double> next(model);
  CHECK_THROWS_WITH_AS(next.greedy({}), doctest::Contains("prompt"), invalid_argument);
  CHECK_THROWS_WITH_AS(next.greedy(prompt, {.max_tokens = 39}), doctest::Contains("positions = 40"),
                       invalid_argument);
  CHECK_THROWS_WITH_AS(next.greedy(std::vector<token_id>{23}, {.max_tokens = 1}),
                       doctest::Contains("id = 23"), invalid_argument);
}
