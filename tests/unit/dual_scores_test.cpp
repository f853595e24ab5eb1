// Proves: the two streaming passes give the row and column sums of the interaction matrix at every
//         order and step, by every data-score strategy, and the conservation law notices damage.
// Against: interaction.hpp and games.hpp on the explicit gradient matrix and explicit Hessian.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/archetypes.hpp>
#include <dualsft/curvature.hpp>
#include <dualsft/dense_scores.hpp>
#include <dualsft/dual_scores.hpp>
#include <dualsft/games.hpp>
#include <dualsft/hessian.hpp>
#include <dualsft/interaction.hpp>
#include <dualsft/models/quadratic.hpp>
#include <dualsft/models/softmax_regression.hpp>
#include <dualsft/objective.hpp>

#include "support/explicit_gradients.hpp"

using namespace dualsft;
using testing::all_examples;
using testing::explicit_gradients;

namespace {

/// A pool of 24 records and a validation set of 9 others, with everything explicit beside it.
template <class M>
struct scene {
  explicit scene(M m, index_t records)
      : model(std::move(m)), pool(all_examples(records - 9)), d(model.layout().size()) {
    for (index_t i = records - 9; i < records; ++i) validation.push_back(i);
    gradients = explicit_gradients(model, pool);
    const std::vector<double> val = explicit_gradients(model, validation);
    v.assign(static_cast<std::size_t>(d), 0.0);
    for (std::size_t k = 0; k < val.size(); ++k) v[k % v.size()] += val[k] / 9;
    random_source random(5);
    for (index_t j = 0; j < d; ++j) curvature.push_back(0.05 + random.uniform());
    std::vector<double> unit(static_cast<std::size_t>(d), 0.0);
    for (index_t j = 0; j < d; ++j) {  // column j = row j of the symmetric Hessian
      unit[static_cast<std::size_t>(j)] = 1;
      const auto column = mean_hessian_product(exec::cpu{1}, std::as_const(model), validation,
                                               std::span<const double>(unit));
      hessian.insert(hessian.end(), column.begin(), column.end());
      unit[static_cast<std::size_t>(j)] = 0;
    }
  }

  local_problem problem(double eta) const {
    local_problem p;
    p.gradients = {gradients.data(), static_cast<index_t>(pool.size()), d};
    p.v = vector_view<const double>(v);
    p.D = vector_view<const double>(curvature);
    p.H = {hessian.data(), d, d};
    p.eta = eta;
    return p;
  }

  M model;
  std::vector<index_t> pool, validation;
  index_t d;
  std::vector<double> gradients, v, curvature, hessian;
};

scene<softmax_regression<double>> softmax_scene() {
  return scene(
      softmax_regression<double>(
          random_labelled_data<double>({.examples = 33, .features = 6, .classes = 3, .seed = 1}),
          2),
      33);
}

scene<quadratic<double>> quadratic_scene() {
  return scene(quadratic<double>({.examples = 33, .seed = 4}), 33);
}

void check_close(std::span<const double> found, std::span<const double> expected, double relative) {
  REQUIRE(found.size() == expected.size());
  double scale = 0;
  for (const double x : expected) scale = std::max(scale, std::abs(x));
  for (std::size_t k = 0; k < found.size(); ++k) {
    CAPTURE(k);
    CHECK(std::abs(found[k] - expected[k]) <= relative * scale);
  }
}

template <class Scene>
void check_order(Scene& s, score_order order, step_geometry step, score_strategy strategy,
                 double relative) {
  const double eta = 0.03;
  const score_rule rule{order, step, eta};
  const auto product = [&](std::span<const double> x) {
    return mean_hessian_product(exec::cpu{1}, std::as_const(s.model), s.validation, x);
  };
  const auto result =
      dual_scores(exec::cpu{2}, s.model, s.pool, rule, s.v, std::span<const double>(s.curvature),
                  product, {.batch_size = 5, .data = {.strategy = strategy, .batch_size = 4}});
  CHECK(result.data.strategy == strategy);
  std::vector<double> columns(static_cast<std::size_t>(s.d));
  result.parameters().fill(0, columns);

  std::vector<double> rows_expected;
  std::vector<double> columns_expected;
  if (order == score_order::joint) {
    const dual_values values = joint_shapley(s.problem(eta), {order, step});
    rows_expected = values.examples;
    columns_expected = values.parameters;
  } else {
    const interaction m = interaction_matrix(s.problem(eta), {order, step});
    rows_expected = m.data_scores;
    columns_expected = m.parameter_scores;
    CHECK(result.direction.second_order_share ==
          doctest::Approx(m.second_order_share).epsilon(1e-10));
  }
  check_close(columns, columns_expected, 1e-12);
  check_close(result.data.scores, rows_expected, relative);
  CHECK(result.conservation.holds);
  CHECK(result.conservation.gap <= 10 * relative);
}

template <class Scene>
void check_all(Scene s, std::initializer_list<score_strategy> strategies) {
  for (const score_order order :
       {score_order::first, score_order::diagonal, score_order::full, score_order::joint})
    for (const step_geometry step : {step_geometry::plain, step_geometry::adamw})
      for (const score_strategy strategy : strategies) {
        CAPTURE(name_of(order));
        CAPTURE(name_of(step));
        CAPTURE(name_of(strategy));
        // Central differences of losses of size 1: eps^(2/3) = 4e-11, amplified by cancellation.
        const bool difference = strategy == score_strategy::directional_difference;
        check_order(s, order, step, strategy, difference ? 1e-7 : 1e-12);
      }
}

}  // namespace

TEST_CASE("softmax regression: every order, step and strategy against the explicit matrix") {
  check_all(softmax_scene(),
            {score_strategy::materialised, score_strategy::ghost,
             score_strategy::forward_derivative, score_strategy::directional_difference});
}

TEST_CASE("quadratic: every order, step and strategy against the explicit matrix") {
  check_all(quadratic_scene(),
            {score_strategy::materialised, score_strategy::ghost,
             score_strategy::forward_derivative, score_strategy::directional_difference});
}

TEST_CASE("the directional difference leaves theta bit-identical") {
  auto s = softmax_scene();
  const auto before = parameter_values(s.model);
  const auto direction = project<exec::cpu, double>(
      exec::cpu{1}, {score_order::first, step_geometry::plain, 1.0}, s.v, {}, {});
  data_scores(exec::cpu{2}, s.model, s.pool, direction,
              {.strategy = score_strategy::directional_difference});
  CHECK(parameter_values(s.model) == before);
}

TEST_CASE("data scores do not depend on the thread count") {
  auto s = softmax_scene();
  const auto direction = project<exec::cpu, double>(
      exec::cpu{1}, {score_order::first, step_geometry::plain, 1.0}, s.v, {}, {});
  for (const auto strategy :
       {score_strategy::materialised, score_strategy::ghost, score_strategy::forward_derivative}) {
    const data_score_options options{.strategy = strategy, .batch_size = 4};
    const auto one = data_scores(exec::cpu{1}, s.model, s.pool, direction, options).scores;
    CHECK(data_scores(exec::cpu{3}, s.model, s.pool, direction, options).scores == one);
    CHECK(data_scores(exec::reference{}, s.model, s.pool, direction, options).scores == one);
  }
}

TEST_CASE("both passes cut at their batches give the bits of the whole ones") {
  auto s = softmax_scene();
  const exec::cpu one{1};
  const auto cut = static_cast<std::size_t>(8);
  const example_span pool(s.pool);
  REQUIRE(pool.size() > cut);
  const score_rule rule{score_order::first, step_geometry::plain, 0.5};
  const auto direction = project<exec::cpu, double>(one, rule, s.v, {}, {});
  for (const auto strategy : {score_strategy::materialised, score_strategy::ghost}) {
    const dual_score_options options{.data = {.strategy = strategy, .batch_size = 4}};
    const auto whole = dual_scores(one, s.model, pool, rule, s.v, {}, {}, options);
    gradient_sums sums;
    std::vector<double> products(pool.size());
    for (const example_span piece : {pool.first(cut), pool.subspan(cut)})
      add_gradients_and_products(
          one, s.model, piece, std::span<const double>(direction.p), strategy, 4,
          std::span<double>(products).subspan(static_cast<std::size_t>(piece.data() - pool.data()),
                                              piece.size()),
          sums);
    CHECK(sums.sum == whole.pool.sum);
    for (std::size_t i = 0; i < products.size(); ++i)
      CHECK(rule.eta * products[i] == whole.data.scores[i]);

    data_score_result pieces;
    for (const example_span piece : {pool.first(cut), pool.subspan(cut)})
      for (const double score : data_scores(one, s.model, piece, direction, options.data).scores)
        pieces.scores.push_back(score);
    pieces.add_up();
    CHECK(pieces.total == data_scores(one, s.model, pool, direction, options.data).total);
  }
}

TEST_CASE("the conservation law breaks when an example or a tensor is missed") {
  auto s = softmax_scene();
  auto result = dual_scores(exec::cpu{1}, s.model, s.pool,
                            {score_order::first, step_geometry::plain, 0.1}, s.v);
  CHECK(result.conservation.holds);
  auto missing = result.data;
  missing.total -= missing.scores.back();
  CHECK_FALSE(
      check_conservation<double>(exec::cpu{1}, result.parameters(), missing, score_order::first)
          .holds);
  // The bias is a few coordinates of many: its parameter scores silently zeroed, as when ghost
  // products cover linear weights alone.
  gradient_sums partial = result.pool;
  const parameter_block& bias = s.model.layout().block(1);
  for (index_t j = 0; j < bias.size(); ++j)
    partial.sum[static_cast<std::size_t>(bias.offset + j)] = 0;
  const parameter_scores<double> columns(partial.sum, result.direction);
  CHECK_FALSE(
      check_conservation<double>(exec::cpu{1}, columns, result.data, score_order::first).holds);
}

TEST_CASE("float models conserve to the float's precision") {
  softmax_regression<float> model(
      random_labelled_data<float>({.examples = 300, .features = 20, .classes = 5, .seed = 8}), 1);
  const auto pool = all_examples(300);
  std::vector<float> v;
  random_source random(2);
  for (index_t j = 0; j < model.layout().size(); ++j)
    v.push_back(static_cast<float>(random.normal()));
  for (const auto strategy :
       {score_strategy::materialised, score_strategy::ghost, score_strategy::forward_derivative}) {
    const auto result =
        dual_scores(exec::cpu{2}, model, pool, {score_order::first, step_geometry::plain, 1e-3}, v,
                    {}, {}, {.data = {.strategy = strategy}});
    CHECK(result.conservation.holds);
    CHECK(result.conservation.gap < 1e-5);
  }
}

TEST_CASE("a float model takes the doubles that other steps return") {
  softmax_regression<float> model(
      random_labelled_data<float>({.examples = 40, .features = 6, .classes = 3, .seed = 8}), 1);
  const auto pool = all_examples(30);
  const std::vector<index_t> validation{30, 31, 32, 33, 34, 35, 36, 37, 38, 39};
  const exec::cpu policy{1};
  const validation_objective<> objective{validation};
  const std::vector<double> v = objective_gradient(policy, model, objective).total;
  const std::vector<double> fisher = empirical_fisher(policy, model, pool);
  const auto product = [&](std::span<const float> x) {  // returns doubles
    return objective_hessian_product(policy, model, objective, x);
  };
  const std::vector<float> narrow_v(v.begin(), v.end());
  const std::vector<float> narrow_d(fisher.begin(), fisher.end());
  const std::function<std::vector<float>(std::span<const float>)> narrow_product =
      [&](std::span<const float> x) {
        const auto wide = product(x);
        return std::vector<float>(wide.begin(), wide.end());
      };
  for (const score_order order :
       {score_order::first, score_order::diagonal, score_order::full, score_order::joint}) {
    const score_rule rule{order, step_geometry::plain, 1e-3};
    const auto wide = dual_scores(policy, model, pool, rule, v, fisher, product);
    const auto spans = dual_scores(policy, model, pool, rule, std::span<const double>(v),
                                   std::span<const double>(fisher), product);
    const auto narrow = dual_scores(policy, model, pool, rule, narrow_v,
                                    std::span<const float>(narrow_d), narrow_product);
    CHECK(wide.data.scores == narrow.data.scores);
    CHECK(spans.data.scores == narrow.data.scores);
    CHECK(wide.direction.p == narrow.direction.p);
    CHECK(wide.conservation.holds);
  }
  const std::function<std::vector<double>(std::span<const float>)> none;
  CHECK_THROWS_AS(dual_scores(policy, model, pool, {score_order::full, step_geometry::plain, 1e-3},
                              v, fisher, none),
                  invalid_argument);
}

TEST_CASE("broken preconditions and non-finite numbers are named") {
  auto s = softmax_scene();
  const score_rule diagonal{score_order::diagonal, step_geometry::plain, 0.1};
  CHECK_THROWS_AS(dual_scores(exec::cpu{1}, s.model, s.pool, diagonal, s.v), invalid_argument);
  CHECK_THROWS_AS(dual_scores(exec::cpu{1}, s.model, s.pool,
                              {score_order::full, step_geometry::plain, 0.1}, s.v),
                  invalid_argument);
  CHECK_THROWS_AS(dual_scores(exec::cpu{1}, s.model, s.pool,
                              {score_order::first, step_geometry::plain, 0.0}, s.v),
                  invalid_argument);
  auto flat = s.curvature;
  flat[3] = 0;
  CHECK_THROWS_AS(
      dual_scores(exec::cpu{1}, s.model, s.pool, {score_order::first, step_geometry::adamw, 0.1},
                  s.v, std::span<const double>(flat)),
      invalid_argument);
  auto broken = s.v;
  broken[5] = std::nan("");
  CHECK_THROWS_WITH_AS(dual_scores(exec::cpu{1}, s.model, s.pool,
                                   {score_order::first, step_geometry::plain, 0.1}, broken),
                       doctest::Contains("coordinate 5"), numerical_error);
  const auto& fixed = s.model;
  const auto direction = project<exec::cpu, double>(
      exec::cpu{1}, {score_order::first, step_geometry::plain, 1.0}, s.v, {}, {});
  CHECK_THROWS_AS(data_scores(exec::cpu{1}, fixed, s.pool, direction,
                              {.strategy = score_strategy::directional_difference}),
                  invalid_argument);
}

TEST_CASE("batch sizes below one and gradients that are not numbers are refused at every order") {
  auto s = softmax_scene();
  const std::span<const double> curvature(s.curvature);
  auto damaged = parameter_values(s.model);
  damaged[0] = std::nan("");
  for (const score_order order : {score_order::first, score_order::diagonal})
    for (const auto strategy : {score_strategy::ghost, score_strategy::materialised}) {
      CAPTURE(name_of(order));
      CAPTURE(name_of(strategy));
      const auto run = [&](index_t batch_size, index_t data_batch_size) {
        return dual_scores(exec::cpu{2}, s.model, s.pool, {order, step_geometry::plain, 0.1}, s.v,
                           curvature, {},
                           {.batch_size = batch_size,
                            .data = {.strategy = strategy, .batch_size = data_batch_size}});
      };
      CHECK_THROWS_WITH_AS(run(8, 0), doctest::Contains("data.batch_size = 0"), invalid_argument);
      CHECK_THROWS_WITH_AS(run(0, 8), doctest::Contains("batch_size = 0"), invalid_argument);
      CHECK_THROWS_AS(run(-1, 8), invalid_argument);
      parameter_guard<softmax_regression<double>> guard(s.model);
      assign_parameters(s.model, std::span<const double>(damaged));
      CHECK_THROWS_WITH_AS(run(8, 8), doctest::Contains("coordinate 0"), numerical_error);
    }
}

TEST_CASE("project judges every number by itself, and numbers before their signs") {
  const score_rule rule{score_order::diagonal, step_geometry::adamw, 1e-300};
  const std::vector<double> v{1e308, 1}, gradient{1e308, 1}, curvature{1, 1};
  CHECK_NOTHROW(project<exec::cpu, double>(exec::cpu{1}, rule, v, gradient, {curvature, {}}));
  const std::vector<double> spoilt{-1, std::nan("")};
  CHECK_THROWS_WITH_AS((project<exec::cpu, double>(exec::cpu{1}, rule, v, gradient, {spoilt, {}})),
                       doctest::Contains("coordinate 1"), numerical_error);
  const std::vector<double> negative{1, -1};
  CHECK_THROWS_AS((project<exec::cpu, double>(exec::cpu{1}, rule, v, gradient, {negative, {}})),
                  invalid_argument);
}

TEST_CASE("the second order's share is 0 of nothing, and all where v is nothing") {
  const score_rule rule{score_order::diagonal, step_geometry::plain, 0.5};
  const std::vector<double> zero{0, 0}, one{3, 4};
  const auto share = [&](const std::vector<double>& v, const std::vector<double>& gradient) {
    const double streamed =
        project<exec::cpu, double>(exec::cpu{1}, rule, v, gradient, {one, {}}).second_order_share;
    const matrix_view<const double> row(gradient.data(), 1, 2);
    CHECK(dense_scores(exec::cpu{1}, row, dense_inputs<double>{v, one, {}}, rule)
              .second_order_share == streamed);
    local_problem explicit_arrays;
    explicit_arrays.gradients = row;
    explicit_arrays.v = vector_view<const double>(v);
    explicit_arrays.D = vector_view<const double>(one);
    explicit_arrays.eta = rule.eta;
    CHECK(interaction_matrix(explicit_arrays, {rule.order, rule.step}).second_order_share ==
          streamed);
    return streamed;
  };
  CHECK(share(zero, zero) == 0);
  CHECK(share(one, zero) == 0);
  CHECK(share(zero, one) == std::numeric_limits<double>::infinity());
}

TEST_CASE("mask-aware scores are the sums over the mask's coordinates") {
  auto s = softmax_scene();
  const auto direction = project<exec::cpu, double>(
      exec::cpu{1}, {score_order::first, step_geometry::plain, 0.5}, s.v, {}, {});
  const index_set mask({0, 3, 7, 19}, s.d);
  const auto aware = data_scores(exec::cpu{1}, s.model, s.pool, restricted(direction, mask));
  for (std::size_t i = 0; i < s.pool.size(); ++i) {
    double expected = 0;
    for (const index_t j : mask.indices())
      expected += 0.5 *
                  s.gradients[i * static_cast<std::size_t>(s.d) + static_cast<std::size_t>(j)] *
                  s.v[static_cast<std::size_t>(j)];
    CHECK(aware.scores[i] == doctest::Approx(expected).epsilon(1e-12));
  }
}

// Compile-only: each archetype offers its concept and nothing more.
template <class S>
[[maybe_unused]] static void instantiate(const archetypes::gradient_model<S>& least,
                                         archetypes::trainable_model<S>& trainable,
                                         const archetypes::trace_model<S>& traces,
                                         const archetypes::block_model<S>& blocks,
                                         const archetypes::example_gradient_model<S>& single,
                                         const archetypes::forward_derivative_model<S>& forward,
                                         const archetypes::hessian_product_model<S>& hessian) {
  const exec::cpu policy;
  const auto all = [&](auto& model) {
    sum_gradients(policy, model, {});
    mean_loss(policy, model, {});
    data_scores(policy, model, {}, projection<S>{});
    dual_scores(policy, model, {}, {}, std::vector<S>{});
  };
  all(least);
  all(trainable);
  all(traces);
  all(blocks);
  all(single);
  all(forward);
  all(hessian);
  mean_hessian_product(policy, hessian, {}, {});
  mean_hessian_product(policy, trainable, {}, {});
}
template void instantiate<float>(const archetypes::gradient_model<float>&,
                                 archetypes::trainable_model<float>&,
                                 const archetypes::trace_model<float>&,
                                 const archetypes::block_model<float>&,
                                 const archetypes::example_gradient_model<float>&,
                                 const archetypes::forward_derivative_model<float>&,
                                 const archetypes::hessian_product_model<float>&);
