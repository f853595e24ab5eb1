// Proves: softmax regression keeps every promise of concepts.hpp; its loss is its definition.
// Against: differences of losses and of gradients, plain double loops, a hand-computed case.
#include <doctest/doctest.h>

#include <dualsft/models/softmax_regression.hpp>

#include "support/check_model.hpp"

using namespace dualsft;

static_assert(check_trainable_model<softmax_regression<float>>());
static_assert(check_trace_model<softmax_regression<double>>());
static_assert(check_forward_derivative_model<softmax_regression<double>>());
static_assert(check_logit_model<softmax_regression<double>>());
static_assert(HasHessianProduct<softmax_regression<double>> &&
              HasGradientBlocks<softmax_regression<double>> &&
              HasExampleGradient<softmax_regression<double>> &&
              HasEmbedding<softmax_regression<double>>);

// Tolerances: check_model.hpp states the model; double passes at 2e-14 and 3e-10, float at 1e-5 and
// 3e-3, of the sizes compared.
TEST_CASE_TEMPLATE("softmax regression passes every check", S, float, double) {
  for (const index_t features : {1, 3, 8, 33}) {
    softmax_regression<S> model(
        random_labelled_data<S>({.examples = 12, .features = features, .classes = 4, .seed = 2}),
        7);
    random_source rng(1);
    const std::vector<index_t> examples{5, 0, 11, 2, 3};
    auto report = testing::check_model(model, examples, rng);
    testing::check_cross_entropy(
        model, examples, [&](index_t i, index_t row) { return model.target(i, row); }, rng, {},
        report);
    INFO(report.text());
    CHECK(report.ok());
    CHECK(report.checks.size() >= 28);
  }
}

TEST_CASE("a hand-computed loss and gradient") {
  auto data = std::make_shared<labelled_data<double>>();
  data->features = 2;
  data->classes = 2;
  data->values = {1.0, 2.0};
  data->labels = {1};
  softmax_regression<double> model(data);
  // z = (1 * 1 + 0 * 2 + 0, 0 * 1 + 0.5 * 2 + log 3) = (1, 1 + log 3), so p = (1/4, 3/4).
  const std::vector<double> w{1, 0, 0, 0.5};
  std::ranges::copy(w, model.parameters(model.layout().find("weight")).begin());
  model.parameters(model.layout().find("bias"))[0] = 0;
  model.parameters(model.layout().find("bias"))[1] = std::log(3.0);
  const std::vector<index_t> batch{0};
  std::vector<double> loss(1);
  model.losses(batch, loss);
  CHECK(loss[0] == doctest::Approx(std::log(4.0 / 3.0)).epsilon(1e-14));
  std::vector<double> g(6);
  model.accumulate_gradient(batch, g);
  const std::vector<double> expected{0.25, 0.5, -0.25, -0.5, 0.25, -0.25};
  for (std::size_t j = 0; j < 6; ++j) CHECK(g[j] == doctest::Approx(expected[j]).epsilon(1e-14));
}

TEST_CASE("batches larger than a chunk of rows, and of any size around it, add up") {
  const auto data = random_labelled_data<double>({.examples = 1300, .features = 3, .seed = 4});
  softmax_regression<double> model(data, 1);
  std::vector<double> single(static_cast<std::size_t>(model.layout().size()));
  std::vector<double> magnitude(single.size());
  std::vector<index_t> batch;
  std::vector<double> one(single.size());
  for (index_t n = 0; n < 1300; ++n) {
    model.example_gradient(n, one);
    for (std::size_t j = 0; j < one.size(); ++j) {
      single[j] += one[j];
      magnitude[j] += std::abs(one[j]);
    }
    batch.push_back(n);
    if (const index_t size = n + 1;
        size == 255 || size == 256 || size == 257 || size == 512 || size == 513 || size == 1300) {
      std::vector<double> together(single.size());
      model.accumulate_gradient(batch, together);
      // Two orders of one sum: each is within n eps of the sum of sizes, in practice far closer.
      for (std::size_t j = 0; j < one.size(); ++j)
        CHECK(std::abs(together[j] - single[j]) <= 1e-14 * magnitude[j]);
    }
  }
}

TEST_CASE("extreme logits neither overflow nor lose the loss") {
  auto data = std::make_shared<labelled_data<float>>();
  data->features = 1;
  data->classes = 2;
  data->values = {1.0f, 1.0f};
  data->labels = {0, 1};
  softmax_regression<float> model(data);
  model.parameters(0)[0] = 1000;
  model.parameters(0)[1] = -1000;
  std::vector<double> loss(2);
  model.losses(std::vector<index_t>{0, 1}, loss);
  CHECK(loss[0] == 0.0);
  CHECK(loss[1] == 2000.0);
  // A NaN stays visible.
  model.parameters(0)[0] = std::numeric_limits<float>::quiet_NaN();
  model.losses(std::vector<index_t>{0, 1}, loss);
  CHECK(std::isnan(loss[0]));
}

TEST_CASE("what does not fit is refused, naming the record") {
  auto data = std::make_shared<labelled_data<double>>();
  data->features = 1;
  data->classes = 2;
  data->values = {1, 2, 3};
  data->labels = {0, 1, 2};
  CHECK_THROWS_WITH(softmax_regression<double>{data},
                    "labelled_data: a label must lie in [0, classes) (record = 2, label = 2, "
                    "classes = 2)");
  data->labels = {0, 1};
  CHECK_THROWS_AS(softmax_regression<double>{data}, invalid_argument);
  CHECK_THROWS_AS(softmax_regression<double>{nullptr}, invalid_argument);
  softmax_regression<double> model(random_labelled_data<double>({.examples = 4}));
  std::vector<double> out(3);
  CHECK_THROWS_AS(model.losses(std::vector<index_t>{0, 1}, out), invalid_argument);
  CHECK_THROWS_AS(model.losses(std::vector<index_t>{0, 1, 4}, out), invalid_argument);
  CHECK_THROWS_AS(model.logits(std::vector<index_t>{0}, matrix_view<double>(out.data(), 1, 2)),
                  invalid_argument);
}
