// Proves: the random quadratic keeps every promise of concepts.hpp, and its loss is its definition.
// Against: differences of losses, differences of gradients, plain double loops, the matrices.
#include <doctest/doctest.h>

#include <dualsft/archetypes.hpp>
#include <dualsft/models/quadratic.hpp>
#include <set>

#include "support/check_model.hpp"

using namespace dualsft;

static_assert(check_trainable_model<quadratic<float>>());
static_assert(check_trace_model<quadratic<double>>());
static_assert(check_forward_derivative_model<quadratic<double>>());
static_assert(HasHessianProduct<quadratic<double>> && HasGradientBlocks<quadratic<double>> &&
              HasExampleGradient<quadratic<double>> && !HasLogits<quadratic<double>>);

// Tolerances: check_model.hpp states the model; double passes at 2e-14 and 3e-10, float at 1e-5 and
// 3e-3, of the sizes compared.
TEST_CASE_TEMPLATE("a random quadratic passes every check", S, float, double) {
  for (const auto curvature : {quadratic_curvature::positive, quadratic_curvature::indefinite}) {
    quadratic<S> model({.examples = 5, .curvature = curvature, .seed = 3});
    random_source rng(11);
    const std::vector<index_t> examples{0, 3, 1, 4};
    const auto report = testing::check_model(model, examples, rng);
    INFO(report.text());
    CHECK(report.ok());
    CHECK(report.checks.size() >= 20);
  }
}

TEST_CASE("the loss is one half of an offset's quadratic form") {
  const quadratic<double> model({.examples = 3, .layers = 1, .modules = 2, .rows = 1, .cols = 2});
  const index_t d = model.layout().size();
  REQUIRE(d == 4);
  std::vector<double> theta;
  for (index_t b = 0; b < model.layout().block_count(); ++b)
    for (const double x : model.parameters(b)) theta.push_back(x);
  for (index_t i = 0; i < 3; ++i) {
    double expected = 0;
    double magnitude = 0;
    for (index_t r = 0; r < d; ++r)
      for (index_t c = 0; c < d; ++c) {
        const double term = 0.5 * (theta[static_cast<std::size_t>(r)] - model.centre(i)[r]) *
                            model.hessian(i)(r, c) *
                            (theta[static_cast<std::size_t>(c)] - model.centre(i)[c]);
        expected += term;
        magnitude += std::abs(term);
      }
    double loss = -1;
    model.losses({&i, 1}, {&loss, 1});
    CHECK(std::abs(loss - expected) <= 16 * 2.3e-16 * magnitude);  // 16 terms
  }
}

TEST_CASE("the matrices are symmetric, and of the curvature asked for") {
  for (const auto curvature : {quadratic_curvature::positive, quadratic_curvature::indefinite}) {
    const quadratic<double> model({.examples = 6, .curvature = curvature, .seed = 9});
    random_source rng(2);
    const index_t d = model.layout().size();
    int negative = 0;
    for (index_t i = 0; i < 6; ++i) {
      const auto a = model.hessian(i);
      for (index_t r = 0; r < d; ++r)
        for (index_t c = 0; c < d; ++c) CHECK(a(r, c) == a(c, r));
      for (int k = 0; k < 50; ++k) {
        std::vector<double> x(static_cast<std::size_t>(d));
        for (double& xi : x) xi = rng.normal();
        double form = 0;
        for (index_t r = 0; r < d; ++r)
          for (index_t c = 0; c < d; ++c)
            form += x[static_cast<std::size_t>(r)] * a(r, c) * x[static_cast<std::size_t>(c)];
        negative += form < 0 ? 1 : 0;
      }
    }
    if (curvature == quadratic_curvature::positive)
      CHECK(negative == 0);
    else
      CHECK(negative > 50);
  }
}

TEST_CASE("blocks carry layers and module kinds") {
  const quadratic<float> model({.layers = 3, .modules = 2, .rows = 4, .cols = 5});
  CHECK(model.layout().size() == 3 * 2 * 4 * 5);
  std::set<int> layers;
  std::set<std::string> modules;
  for (const parameter_block& b : model.layout().blocks()) {
    layers.insert(b.layer);
    modules.insert(b.module);
  }
  CHECK(layers == std::set<int>{0, 1, 2});
  CHECK(modules == std::set<std::string>{"module0", "module1"});
}

TEST_CASE("copies own their parameters; init is deterministic") {
  quadratic<double> a({.seed = 5});
  quadratic<double> b = a;
  CHECK(a.centre(0).data() == b.centre(0).data());
  b.parameters(0)[0] += 1;
  CHECK(a.parameters(0)[0] != b.parameters(0)[0]);
  b.init(5);
  for (index_t k = 0; k < a.layout().block_count(); ++k)
    CHECK(std::ranges::equal(a.parameters(k), b.parameters(k)));
  b.init(6);
  CHECK(a.parameters(0)[0] != b.parameters(0)[0]);
}

TEST_CASE("what does not fit is refused before an output is touched") {
  quadratic<double> model;
  std::vector<double> g(static_cast<std::size_t>(model.layout().size()), 7.0);
  const std::vector<index_t> bad{0, 8};
  CHECK_THROWS_AS(model.accumulate_gradient(bad, g), invalid_argument);
  CHECK_THROWS_WITH(model.accumulate_gradient(bad, g),
                    "accumulate_gradient: an example must lie in [0, examples) (example = 8, "
                    "examples = 8)");
  for (const double x : g) CHECK(x == 7.0);
  g.pop_back();
  CHECK_THROWS_AS(model.accumulate_gradient(std::vector<index_t>{0}, g), invalid_argument);
  CHECK_THROWS_AS(quadratic<double>({.layers = 0}), invalid_argument);
  auto data = std::make_shared<quadratic_data<double>>();
  data->layout.add("w", 2, 1);
  data->centres = {1, 2};
  data->hessians = {1, 0, 1};
  CHECK_THROWS_AS(quadratic<double>(std::shared_ptr<const quadratic_data<double>>(data)),
                  invalid_argument);
}
