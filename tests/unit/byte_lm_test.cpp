// Proves: the byte-level language model keeps every promise of concepts.hpp; windows and responses
// are cut as documented. Against: differences, plain loops, hand-cut windows, real text if present.
#include <doctest/doctest.h>

#include <dualsft/models/byte_lm.hpp>
#include <fstream>

#include "support/check_model.hpp"

using namespace dualsft;

static_assert(check_trainable_model<byte_lm<float>>());
static_assert(check_trace_model<byte_lm<double>>());
static_assert(check_forward_derivative_model<byte_lm<double>>());
static_assert(check_logit_model<byte_lm<double>>());
static_assert(HasHessianProduct<byte_lm<double>> && HasGradientBlocks<byte_lm<double>> &&
              HasExampleGradient<byte_lm<double>> && HasEmbedding<byte_lm<double>>);

namespace {

std::shared_ptr<const byte_corpus> small_corpus() {
  byte_corpus corpus;
  corpus.add_pair("2 + 2 = ", "4\n");
  corpus.add_text("x");
  corpus.add_pieces("the quick brown fox jumps", 10);
  corpus.add_pair("", std::string("\0\xff\x80 abc", 7));
  corpus.add_pair("a prompt that is longer than the window", "no");
  return std::make_shared<const byte_corpus>(std::move(corpus));
}

}  // namespace

// Tolerances: check_model.hpp states the model; double passes at 2e-14 and 3e-10, float at 1e-5 and
// 3e-3, of the sizes compared.
TEST_CASE_TEMPLATE("byte language models pass every check", S, float, double) {
  const std::vector<byte_lm_options> shapes{
      {.window = 4, .embedding = 3, .hidden = {6, 5}, .norm = head_norm::rms},
      {.window = 1, .embedding = 2, .hidden = {4}, .hidden_activation = activation::silu},
      {.window = 3, .embedding = 2, .hidden = {}},
  };
  for (const byte_lm_options& options : shapes) {
    byte_lm<S> model(small_corpus(), options);
    random_source rng(1);
    for (index_t b = 0; b < model.layout().block_count(); ++b)
      for (S& x : model.parameters(b)) x += static_cast<S>(0.1 * rng.normal());
    const std::vector<index_t> examples{5, 1, 0, 3};
    auto report = testing::check_model(model, examples, rng, {.most_coordinates = 300});
    testing::check_cross_entropy(
        model, examples, [&](index_t i, index_t row) { return model.target(i, row); }, rng, {},
        report);
    INFO(report.text());
    CHECK(report.ok());
    CHECK(report.checks.size() >= 26);
  }
}

TEST_CASE("the loss is the mean over response bytes, each predicted from its window") {
  const auto corpus = small_corpus();
  byte_lm<double> model(corpus, {.window = 3, .embedding = 2, .hidden = {}});
  // With no hidden layer the logits are W x + b, and everything fits on a page.
  const auto block = [&](const char* name) { return model.parameters(model.layout().find(name)); };
  const auto e = block("embedding");
  const auto w = block("head.weight");
  REQUIRE(e.size() == 257 * 2);
  REQUIRE(w.size() == 256 * 6);
  for (index_t i = 0; i < corpus->size(); ++i) {
    const byte_record& record = (*corpus)[i];
    const auto size = static_cast<index_t>(record.text.size());
    CHECK(model.logit_rows(i) == size - record.response_begin);
    double expected = 0;
    for (index_t t = record.response_begin; t < size; ++t) {
      std::vector<double> x;
      for (index_t at = t - 3; at < t; ++at) {
        const std::size_t id =
            at < 0 ? 256u : static_cast<unsigned char>(record.text[static_cast<std::size_t>(at)]);
        x.push_back(e[2 * id]);
        x.push_back(e[2 * id + 1]);
      }
      double sum = 0;
      double right = 0;
      const auto target = static_cast<unsigned char>(record.text[static_cast<std::size_t>(t)]);
      CHECK(model.target(i, t - record.response_begin) == target);
      for (std::size_t c = 0; c < 256; ++c) {
        double z = 0;  // the bias starts at 0
        for (std::size_t k = 0; k < 6; ++k) z += w[6 * c + k] * x[k];
        sum += std::exp(z);
        if (c == target) right = z;
      }
      expected += (std::log(sum) - right) / static_cast<double>(size - record.response_begin);
    }
    double loss = -1;
    model.losses({&i, 1}, {&loss, 1});
    CHECK(std::abs(loss - expected) < 1e-13);  // some hundred roundings of numbers near 1
  }
}

TEST_CASE("records longer than a chunk of rows, and batches that straddle chunks, add up") {
  byte_corpus corpus;
  random_source rng(3);
  for (const index_t bytes : {1300, 255, 1, 256, 257, 2}) {
    std::string text;
    for (index_t t = 0; t < bytes; ++t) text.push_back(static_cast<char>(rng.below(256)));
    corpus.add_text(text);
  }
  byte_lm<double> model(std::make_shared<const byte_corpus>(std::move(corpus)),
                        {.window = 2, .embedding = 2, .hidden = {3}, .norm = head_norm::rms});
  const std::vector<index_t> batch{0, 1, 2, 3, 4, 5};
  const auto d = static_cast<std::size_t>(model.layout().size());
  std::vector<double> together(d), apart(d), magnitude(d);
  model.accumulate_gradient(batch, together);
  std::vector<double> losses(6);
  model.losses(batch, losses);
  for (const index_t i : batch) {
    std::vector<double> g(d);
    // The whole record in one piece, against pieces of some hundred rows.
    model.gradient_blocks(std::vector<index_t>{i}, [&](index_t b, std::span<const double> block) {
      std::ranges::copy(block, g.begin() + model.layout().block(b).offset);
    });
    for (std::size_t j = 0; j < d; ++j) {
      apart[j] += g[j];
      magnitude[j] += std::abs(g[j]);
    }
    double loss = -1;
    model.losses({&i, 1}, {&loss, 1});
    CHECK(std::abs(loss - losses[static_cast<std::size_t>(i)]) <= 1e-14 * loss);
  }
  double largest = 0;
  for (const double m : magnitude) largest = std::max(largest, m);
  for (std::size_t j = 0; j < d; ++j) CHECK(std::abs(together[j] - apart[j]) <= 1e-14 * largest);
}

TEST_CASE("the corpus numbers its records and cuts long texts") {
  byte_corpus corpus;
  CHECK(corpus.size() == 0);
  CHECK(corpus.add_text("abc") == 0);
  CHECK(corpus.add_pair("ab", "cd") == 1);
  CHECK(corpus.add_pieces("0123456", 3) == 2);
  CHECK(corpus.size() == 5);
  CHECK(corpus[1].text == "abcd");
  CHECK(corpus[1].response_begin == 2);
  CHECK(corpus[1].response_size() == 2);
  CHECK(corpus[2].text == "012");
  CHECK(corpus[4].text == "6");
  CHECK(corpus.add_pieces("", 3) == 5);
  CHECK(corpus.size() == 5);
}

TEST_CASE("an empty response is refused, naming the record") {
  byte_corpus corpus;
  corpus.add_text("fine");
  CHECK_THROWS_WITH(corpus.add_pair("question", ""),
                    "byte_corpus::add: a record needs at least one response byte (record = 1, "
                    "bytes = 8, response_begin = 8)");
  CHECK_THROWS_AS(corpus.add_text(""), invalid_argument);
  CHECK_THROWS_AS(corpus.add({"abc", -1}), invalid_argument);
  CHECK_THROWS_AS(corpus.add({"abc", 4}), invalid_argument);
  CHECK_THROWS_AS(corpus.add_pieces("abc", 0), invalid_argument);
  CHECK(corpus.size() == 1);
  CHECK_THROWS_AS(byte_lm<float>(nullptr), invalid_argument);
  CHECK_THROWS_AS(byte_lm<float>(small_corpus(), {.window = 0}), invalid_argument);
}

TEST_CASE("plain gradient descent learns real text, or a made-up one") {
  // Beside the repository if somebody put it there.
  const std::string here = __FILE__;
  std::ifstream file(
      here.substr(0, here.find_last_of('/')) + "/../../../shared/data/text/wikitext2_valid.txt",
      std::ios::binary);
  std::string text;
  if (file) {
    text.resize(20000);
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(file.gcount()));
  } else {
    MESSAGE("SKIPPED on real text: ../shared/data/text/wikitext2_valid.txt is absent");
  }
  if (text.size() < 20000) {
    text.clear();
    while (text.size() < 20000) text += "the cat sat on the mat. ";
  }
  byte_corpus corpus;
  corpus.add_pieces(text, 200);
  byte_lm<float> model(std::make_shared<const byte_corpus>(std::move(corpus)),
                       {.window = 4, .embedding = 8, .hidden = {32}});
  std::vector<index_t> held_out, batch;
  for (index_t i = 90; i < 100; ++i) held_out.push_back(i);
  std::vector<double> losses(10);
  const auto mean_loss = [&] {
    model.losses(held_out, losses);
    double sum = 0;
    for (const double l : losses) sum += l;
    return sum / 10;
  };
  std::vector<float> g(static_cast<std::size_t>(model.layout().size()));
  for (int step = 0; step < 90; ++step) {
    batch.clear();
    for (index_t k = 0; k < 10; ++k) batch.push_back((10 * step + k) % 90);
    std::ranges::fill(g, 0.0f);
    model.accumulate_gradient(batch, g);
    std::size_t j = 0;
    for (index_t b = 0; b < model.layout().block_count(); ++b)
      for (float& x : model.parameters(b)) x -= 0.1f * g[j++];
  }
  // Guessing bytes uniformly costs log 256 = 5.55 nats; letter frequencies alone reach about 3.1.
  CHECK(mean_loss() < 3.3);
}
