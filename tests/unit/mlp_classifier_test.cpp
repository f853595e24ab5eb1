// Proves: the MLP classifier keeps every promise of concepts.hpp, for both activations and norms.
// Against: differences of losses and of gradients, plain double loops, a loop-by-loop network.
#include <doctest/doctest.h>

#include <dualsft/models/mlp_classifier.hpp>

#include "support/check_model.hpp"

using namespace dualsft;

static_assert(check_trainable_model<mlp_classifier<float>>());
static_assert(check_trace_model<mlp_classifier<double>>());
static_assert(check_forward_derivative_model<mlp_classifier<double>>());
static_assert(check_logit_model<mlp_classifier<double>>());
static_assert(HasHessianProduct<mlp_classifier<double>> &&
              HasGradientBlocks<mlp_classifier<double>> &&
              HasExampleGradient<mlp_classifier<double>> && HasEmbedding<mlp_classifier<double>>);

namespace {

const std::vector<mlp_options> shapes{
    {.hidden = {}},
    {.hidden = {7}},
    {.hidden = {6, 5}, .norm = head_norm::rms, .seed = 1},
    {.hidden = {5}, .hidden_activation = activation::silu, .norm = head_norm::rms, .seed = 2},
    {.hidden = {4, 1, 3}, .hidden_activation = activation::silu, .seed = 3},
};

/// Away from the start, where biases of 0 and scales of 1 would hide a missing factor.
template <class M>
void shake(M& model) {
  random_source rng(77);
  for (index_t b = 0; b < model.layout().block_count(); ++b)
    for (auto& x : model.parameters(b))
      x += static_cast<typename M::scalar_type>(0.3 * rng.normal());
}

}  // namespace

// Tolerances: check_model.hpp states the model; double passes at 2e-14 and 3e-10, float at 1e-5 and
// 3e-3, of the sizes compared.
TEST_CASE_TEMPLATE("MLP classifiers of several shapes pass every check", S, float, double) {
  const auto data = random_labelled_data<S>({.examples = 9, .features = 4, .seed = 5});
  for (const mlp_options& options : shapes) {
    mlp_classifier<S> model(data, options);
    shake(model);
    random_source rng(1);
    const std::vector<index_t> examples{7, 0, 4, 1};
    auto report = testing::check_model(model, examples, rng);
    testing::check_cross_entropy(
        model, examples, [&](index_t i, index_t row) { return model.target(i, row); }, rng, {},
        report);
    INFO(report.text());
    CHECK(report.ok());
    CHECK(report.has("the Hessian, entry by entry, is a difference of gradients"));
    CHECK(report.checks.size() >= 28);
  }
}

TEST_CASE("the loss is the network's, written out") {
  const auto data = random_labelled_data<double>({.examples = 4, .features = 3, .seed = 8});
  for (const mlp_options& options : shapes) {
    mlp_classifier<double> model(data, options);
    shake(model);
    const auto block = [&](const std::string& name) {
      return static_cast<const mlp_classifier<double>&>(model).parameters(
          model.layout().find(name));
    };
    const auto affine = [&](const std::string& name, const std::vector<double>& x) {
      const auto w = block(name + "weight");
      const auto b = block(name + "bias");
      std::vector<double> z(b.begin(), b.end());
      for (std::size_t o = 0; o < z.size(); ++o)
        for (std::size_t i = 0; i < x.size(); ++i) z[o] += w[o * x.size() + i] * x[i];
      return z;
    };
    for (index_t i = 0; i < 4; ++i) {
      std::vector<double> x(data->values.begin() + 3 * i, data->values.begin() + 3 * i + 3);
      for (std::size_t l = 0; l < options.hidden.size(); ++l) {
        x = affine("layers." + std::to_string(l) + ".", x);
        for (double& v : x)
          v = options.hidden_activation == activation::tanh ? std::tanh(v) : v / (1 + std::exp(-v));
      }
      if (options.norm == head_norm::rms) {
        double square = 0;
        for (const double v : x) square += v * v;
        const double rms = std::sqrt(square / static_cast<double>(x.size()) + 1e-6);
        for (std::size_t c = 0; c < x.size(); ++c) x[c] *= block("norm.scale")[c] / rms;
      }
      std::vector<double> n(x.size());
      model.embed({&i, 1}, matrix_view<double>(n.data(), 1, model.embedding_size()));
      for (std::size_t c = 0; c < x.size(); ++c) CHECK(std::abs(n[c] - x[c]) < 1e-14);
      const std::vector<double> z = affine("head.", x);
      double sum = 0;
      for (const double v : z) sum += std::exp(v);
      const double expected =
          std::log(sum) - z[static_cast<std::size_t>(data->labels[static_cast<std::size_t>(i)])];
      double loss = -1;
      model.losses({&i, 1}, {&loss, 1});
      CHECK(std::abs(loss - expected) < 1e-13);  // some tens of roundings of numbers near 1
    }
  }
}

TEST_CASE("blocks are named, layered and shaped as documented") {
  const mlp_classifier<float> model(random_labelled_data<float>({.features = 3, .classes = 2}),
                                    {.hidden = {5, 4}, .norm = head_norm::rms});
  const auto& blocks = model.layout().blocks();
  const std::vector<parameter_block> expected{
      {"layers.0.weight", 0, 5, 3, 0, "hidden.weight"},
      {"layers.0.bias", 15, 5, 1, 0, "hidden.bias"},
      {"layers.1.weight", 20, 4, 5, 1, "hidden.weight"},
      {"layers.1.bias", 40, 4, 1, 1, "hidden.bias"},
      {"norm.scale", 44, 4, 1, -1, "norm"},
      {"head.weight", 48, 2, 4, -1, "head.weight"},
      {"head.bias", 56, 2, 1, -1, "head.bias"},
  };
  CHECK(blocks == expected);
}

TEST_CASE("initial weights have variance 1 / fan_in and depend on the seed alone") {
  const auto data = random_labelled_data<double>({.features = 50, .classes = 2});
  mlp_classifier<double> model(data, {.hidden = {200}, .norm = head_norm::rms, .seed = 4});
  double square = 0;
  for (const double w : model.parameters(0)) square += w * w;
  // 10,000 squares: their mean is 1/50 within 1.4 % (one standard deviation).
  CHECK(square / 10000 == doctest::Approx(1.0 / 50).epsilon(0.07));
  for (const double b : model.parameters(1)) CHECK(b == 0);
  for (const double s : model.parameters(2)) CHECK(s == 1);
  mlp_classifier<double> copy = model;
  shake(copy);
  CHECK_FALSE(std::ranges::equal(copy.parameters(0), model.parameters(0)));
  copy.init(4);
  for (index_t b = 0; b < model.layout().block_count(); ++b)
    CHECK(std::ranges::equal(copy.parameters(b), model.parameters(b)));
  copy.init(5);
  CHECK_FALSE(std::ranges::equal(copy.parameters(0), model.parameters(0)));
}

TEST_CASE("gradient descent learns the clusters") {
  const auto data =
      random_labelled_data<float>({.examples = 200, .features = 6, .separation = 5, .seed = 1});
  mlp_classifier<float> model(data, {.hidden = {16}});
  std::vector<index_t> all(200);
  for (index_t i = 0; i < 200; ++i) all[static_cast<std::size_t>(i)] = i;
  std::vector<double> losses(200);
  const auto mean_loss = [&] {
    model.losses(all, losses);
    double sum = 0;
    for (const double l : losses) sum += l;
    return sum / 200;
  };
  const double before = mean_loss();
  std::vector<float> g(static_cast<std::size_t>(model.layout().size()));
  for (int step = 0; step < 100; ++step) {
    std::ranges::fill(g, 0.0f);
    model.accumulate_gradient(all, g);
    std::size_t j = 0;
    for (index_t b = 0; b < model.layout().block_count(); ++b)
      for (float& x : model.parameters(b)) x -= 0.5f / 200 * g[j++];
  }
  CHECK(mean_loss() < 0.2 * before);
}

TEST_CASE("impossible shapes are refused") {
  const auto data = random_labelled_data<double>();
  CHECK_THROWS_WITH((mlp_classifier<double>(data, {.hidden = {3, 0}})),
                    "mlp_classifier: a hidden layer must be at least 1 wide (layer = 1, width = "
                    "0)");
  CHECK_THROWS_AS((mlp_classifier<double>(data, {.hidden = {}, .norm = head_norm::rms})),
                  invalid_argument);
}
