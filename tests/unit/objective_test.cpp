// Proves: the validation objective, every preservation term, Hessian products and curvature
// proxies. Against: finite differences in double, the quadratic model's explicit Hessian, direct
// sums.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/archetypes.hpp>
#include <dualsft/curvature.hpp>
#include <dualsft/models/quadratic.hpp>
#include <dualsft/models/softmax_regression.hpp>
#include <dualsft/objective.hpp>

#include "support/explicit_gradients.hpp"

using namespace dualsft;
using testing::all_examples;
using testing::explicit_gradients;

namespace {

using model_type = softmax_regression<double>;

struct scene {
  model_type model{random_labelled_data<double>({.examples = 30, .features = 4, .classes = 3}), 1};
  std::vector<double> theta_0 = parameter_values(model);
  model_type teacher = model;
  std::vector<index_t> validation = all_examples(20);
  std::vector<index_t> anchors{21, 22, 25, 29};
  scene() { model.init(99); }  // theta_w differs from theta_0
};

/// v against central differences of the objective's value, H x against differences of v.
template <class Prior>
void check_objective(scene& s, const Prior& prior) {
  const validation_objective<Prior> objective{s.validation, prior, 0.7};
  const exec::cpu policy{2};
  const auto gradient = [&] {
    return objective_gradient(policy, std::as_const(s.model), objective).total;
  };
  const std::vector<double> v = gradient();
  const std::size_t d = v.size();
  std::vector<double> x(d);
  random_source random(4);
  for (double& value : x) value = random.normal();
  const auto hx = objective_hessian_product(policy, s.model, objective, std::span<const double>(x));
  const double h = 1e-5;
  parameter_guard<model_type> guard(s.model);
  for (std::size_t j = 0; j < d; ++j) {
    std::vector<double> unit(d, 0.0);
    unit[j] = 1;
    guard.displace(unit, h);
    const double ahead = objective_value(policy, s.model, objective);
    guard.displace(unit, -h);
    const double behind = objective_value(policy, s.model, objective);
    // h^2 times the third derivative plus eps / h, both below 1e-10 for values of size 1 to 10.
    CHECK(std::abs(v[j] - (ahead - behind) / (2 * h)) < 2e-9);
  }
  guard.displace(x, h);
  const auto ahead = gradient();
  guard.displace(x, -h);
  const auto behind = gradient();
  for (std::size_t j = 0; j < d; ++j)
    CHECK(std::abs(hx[j] - (ahead[j] - behind[j]) / (2 * h)) < 1e-8);
}

}  // namespace

TEST_CASE("objective gradients and Hessian products with every preservation term") {
  scene s;
  SUBCASE("none") {
    check_objective(s, no_preservation{});
  }
  SUBCASE("L2") {
    check_objective(s, anchored_preservation<double>(s.theta_0));
  }
  SUBCASE("Fisher") {
    auto fisher = empirical_fisher(exec::cpu{1}, s.teacher, s.anchors);
    check_objective(s, anchored_preservation<double>(s.theta_0, fisher));
  }
  SUBCASE("CWSD") {
    for (const auto normalisation : {cwsd_normalisation::anchors, cwsd_normalisation::confidence})
      for (const auto weight : {confidence::entropy, confidence::max_probability})
        check_objective(s, cwsd_preservation<model_type>(s.anchors, model_teacher(s.teacher),
                                                         {.rule = {.tau = 1.5, .weight = weight},
                                                          .normalisation = normalisation,
                                                          .batch_size = 3}));
  }
}

TEST_CASE("L2 and Fisher gradients are the closed forms") {
  scene s;
  const auto theta = parameter_values(s.model);
  std::vector<double> fisher;
  for (std::size_t j = 0; j < theta.size(); ++j) fisher.push_back(0.1 * static_cast<double>(j));
  std::vector<double> l2(theta.size(), 1.0);
  std::vector<double> weighted(theta.size(), 0.0);
  anchored_preservation<double>(s.theta_0).accumulate_gradient(exec::cpu{}, s.model, 2.0, l2);
  anchored_preservation<double>(s.theta_0, fisher)
      .accumulate_gradient(exec::cpu{}, s.model, 1.0, weighted);
  for (std::size_t j = 0; j < theta.size(); ++j) {
    CHECK(l2[j] == doctest::Approx(1 + 2 * (theta[j] - s.theta_0[j])).epsilon(1e-14));
    CHECK(weighted[j] == doctest::Approx(fisher[j] * (theta[j] - s.theta_0[j])).epsilon(1e-14));
  }
}

TEST_CASE(
    "CWSD vanishes at theta_0, with its gradient, and a swapped teacher is the same teacher") {
  scene s;
  const cwsd_preservation<model_type> cwsd(s.anchors, model_teacher(s.teacher));
  CHECK(std::abs(cwsd.value(exec::cpu{}, s.teacher)) < 1e-15);
  const auto d = static_cast<std::size_t>(s.model.layout().size());
  std::vector<double> zero(d, 0.0);
  cwsd.accumulate_gradient(exec::cpu{}, s.teacher, 1.0, zero);
  for (const double g : zero) CHECK(std::abs(g) < 1e-15);
  CHECK(cwsd.value(exec::cpu{}, s.model) > 0);

  const auto before = parameter_values(s.model);
  const cwsd_preservation<model_type> swapped(s.anchors, swapping_teacher(s.model, s.theta_0),
                                              {.batch_size = 1});
  std::vector<double> a(d, 0.0);
  std::vector<double> b(d, 0.0);
  cwsd.accumulate_gradient(exec::cpu{}, s.model, 1.0, a);
  swapped.accumulate_gradient(exec::cpu{}, s.model, 1.0, b);
  for (std::size_t j = 0; j < d; ++j) CHECK(a[j] == doctest::Approx(b[j]).epsilon(1e-12));
  CHECK(parameter_values(s.model) == before);
}

TEST_CASE("preservation terms and objectives refuse what does not fit") {
  scene s;
  const auto d = s.theta_0.size();
  const exec::cpu policy{1};
  std::vector<double> right(d), wrong(d + 1);
  const anchored_preservation<double> l2(s.theta_0);
  CHECK_THROWS_AS(l2.accumulate_gradient(policy, s.model, 1.0, wrong), invalid_argument);
  CHECK_THROWS_AS(
      l2.accumulate_hessian_product(policy, s.model, 1.0, std::span<const double>(right), wrong),
      invalid_argument);
  CHECK_THROWS_AS(l2.accumulate_hessian_product(policy, s.model, 1.0,
                                                std::span<const double>(right).first(d - 1), right),
                  invalid_argument);
  using cwsd = cwsd_preservation<model_type>;
  CHECK_THROWS_WITH_AS(cwsd({}, model_teacher(s.teacher)), doctest::Contains("anchors"),
                       invalid_argument);
  CHECK_THROWS_AS(
      cwsd(s.anchors, model_teacher(s.teacher)).accumulate_gradient(policy, s.model, 1.0, wrong),
      invalid_argument);
  CHECK_THROWS_AS(objective_value(policy, s.model, validation_objective<>{}), invalid_argument);
  CHECK_THROWS_AS(
      objective_value(policy, s.model, validation_objective<>{s.validation, {}, /*lambda=*/-1}),
      invalid_argument);
}

TEST_CASE("Hessian products: the model's own, the difference and the explicit matrix agree") {
  quadratic<double> model({.examples = 5, .seed = 3});
  const auto examples = all_examples(5);
  const index_t d = model.layout().size();
  std::vector<double> x(static_cast<std::size_t>(d));
  random_source random(6);
  for (double& value : x) value = random.normal();
  const auto own = mean_hessian_product(exec::cpu{2}, model, examples, std::span<const double>(x),
                                        {.batch_size = 2});
  const auto before = parameter_values(model);
  const auto difference = mean_hessian_product(exec::cpu{2}, model, examples,
                                               std::span<const double>(x), {.difference = true});
  CHECK(parameter_values(model) == before);
  for (index_t j = 0; j < d; ++j) {
    double expected = 0;
    for (index_t i = 0; i < 5; ++i)
      for (index_t k = 0; k < d; ++k)
        expected += model.hessian(i)(j, k) * x[static_cast<std::size_t>(k)] / 5;
    CHECK(own[static_cast<std::size_t>(j)] == doctest::Approx(expected).epsilon(1e-12));
    CHECK(std::abs(difference[static_cast<std::size_t>(j)] - expected) < 1e-8);
  }
  const auto none = mean_hessian_product(exec::cpu{}, model, {}, std::span<const double>(x));
  CHECK(none == std::vector<double>(x.size(), 0.0));
  const std::vector<double> zero(x.size(), 0.0);
  CHECK(mean_hessian_product(exec::cpu{}, model, examples, std::span<const double>(zero),
                             {.difference = true}) == zero);
  CHECK_THROWS_AS(mean_hessian_product(exec::cpu{}, std::as_const(model), examples,
                                       std::span<const double>(x), {.difference = true}),
                  invalid_argument);
}

TEST_CASE("curvature proxies") {
  quadratic<double> model({.examples = 4, .seed = 8});
  const auto examples = all_examples(4);
  const index_t d = model.layout().size();
  const auto product = [&](std::span<const double> x) {
    return mean_hessian_product(exec::cpu{1}, std::as_const(model), examples, x);
  };
  std::vector<double> diagonal(static_cast<std::size_t>(d), 0.0);
  for (index_t i = 0; i < 4; ++i)
    for (index_t j = 0; j < d; ++j)
      diagonal[static_cast<std::size_t>(j)] += model.hessian(i)(j, j) / 4;

  const auto exact = exact_diagonal<double>(d, product);
  const auto estimate = hutchinson_diagonal<double>(d, product, 4000, 1);
  for (std::size_t j = 0; j < exact.size(); ++j) {
    CHECK(exact[j] == doctest::Approx(diagonal[j]).epsilon(1e-12));
    // 4,000 independent probes: 5 standard errors fail once in two million coordinates.
    CHECK(std::abs(estimate.diagonal[j] - diagonal[j]) <= 5 * estimate.standard_error[j]);
    CHECK(estimate.standard_error[j] > 0);
  }
  const auto fisher = empirical_fisher(exec::cpu{2}, model, examples);
  const auto g = explicit_gradients(model, examples);
  for (std::size_t j = 0; j < fisher.size(); ++j) {
    double mean = 0;
    for (std::size_t i = 0; i < 4; ++i)
      mean += g[i * fisher.size() + j] * g[i * fisher.size() + j] / 4;
    CHECK(fisher[j] == doctest::Approx(mean).epsilon(1e-12));
  }
  const std::vector<double> s{4.0e-3, 0.0};
  const auto rms = rms_curvature(std::span<const double>(s), 3, {.beta2 = 0.9, .epsilon = 1e-6});
  CHECK(rms[0] == doctest::Approx(std::sqrt(4.0e-3 / (1 - 0.729)) + 1e-6).epsilon(1e-14));
  CHECK(rms[1] == 1e-6);
  CHECK_THROWS_AS(rms_curvature(std::span<const double>(s), 0), invalid_argument);
  const std::vector<double> negative{1.0, -1e-9};
  CHECK_THROWS_WITH_AS(rms_curvature(std::span<const double>(negative), 3),
                       doctest::Contains("coordinate = 1"), invalid_argument);
  const auto too_short = [&](std::span<const double> x) {
    return std::vector<double>(x.size() - 1, 1.0);
  };
  CHECK_THROWS_AS(exact_diagonal<double>(d, too_short), invalid_argument);
  CHECK_THROWS_AS(hutchinson_diagonal<double>(d, too_short, 2, 1), invalid_argument);
  CHECK_THROWS_AS(empirical_fisher(exec::cpu{}, model, {}), invalid_argument);
}

// Compile-only: what each step asks of a model.
template <class S>
[[maybe_unused]] static void instantiate(archetypes::logit_model<S>& logits,
                                         archetypes::trainable_model<S>& trainable) {
  const cwsd_preservation<archetypes::logit_model<S>> cwsd({}, model_teacher(logits));
  cwsd.value(exec::cpu{}, logits);
  cwsd.accumulate_gradient(exec::cpu{}, logits, 1.0, {});
  objective_gradient(exec::cpu{}, trainable,
                     validation_objective<anchored_preservation<S>>{
                         {}, anchored_preservation<S>(std::vector<S>{}), 1.0});
}
template void instantiate<float>(archetypes::logit_model<float>&,
                                 archetypes::trainable_model<float>&);
