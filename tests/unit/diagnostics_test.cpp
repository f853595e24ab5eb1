// Proves: alignment, diversity, enrichment and heatmap are the definitions; fidelity restores theta
//         and agrees with training by hand.
// Against: sums over pairs, hand-counted tables, a quadratic whose realised utility is known.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/diagnostics.hpp>
#include <dualsft/dual_scores.hpp>
#include <dualsft/fidelity.hpp>
#include <dualsft/models/mlp_classifier.hpp>
#include <dualsft/models/quadratic.hpp>

#include "support/explicit_gradients.hpp"

using namespace dualsft;
using testing::all_examples;
using testing::explicit_gradients;

namespace {

mlp_classifier<double> classifier() {
  return mlp_classifier<double>(
      random_labelled_data<double>({.examples = 12, .features = 4, .classes = 3}), {});
}

}  // namespace

TEST_CASE("alignment is the cosine with the mean gradient") {
  const auto model = classifier();
  const auto d = static_cast<std::size_t>(model.layout().size());
  std::vector<double> v(d);
  random_source random(1);
  for (double& x : v) x = random.normal();
  const std::vector<index_t> selected{2, 3, 9};
  const auto g = explicit_gradients(model, selected);
  std::vector<double> mean(d, 0.0);
  for (std::size_t k = 0; k < g.size(); ++k) mean[k % d] += g[k] / 3;
  CHECK(gradient_alignment(exec::cpu{1}, model, v, selected) ==
        doctest::Approx(cosine<double, double>(v, mean)).epsilon(1e-12));
  CHECK(cosine<double, double>(v, v) == doctest::Approx(1));
  const std::vector<double> zero(d, 0.0);
  CHECK(std::isnan(cosine<double, double>(v, zero)));
}

TEST_CASE("diversity is one minus the mean cosine over all pairs") {
  const auto model = classifier();
  const auto examples = all_examples(12);
  const index_t width = model.embedding_size();
  std::vector<double> h(static_cast<std::size_t>(12 * width));
  model.embed(examples, matrix_view<double>(h.data(), 12, width));
  double sum = 0;
  const auto row = [&](index_t i) {
    return std::span<const double>(h).subspan(static_cast<std::size_t>(i * width),
                                              static_cast<std::size_t>(width));
  };
  for (index_t i = 0; i < 12; ++i)
    for (index_t k = 0; k < i; ++k) sum += cosine<double, double>(row(i), row(k));
  CHECK(diversity(model, examples, 5) == doctest::Approx(1 - sum / 66).epsilon(1e-12));
  const std::vector<index_t> twice{4, 4};
  CHECK(std::abs(diversity(model, twice)) < 1e-12);
  CHECK(std::isnan(diversity(model, example_span(twice).first(1))));
}

TEST_CASE("enrichment compares shares") {
  const std::vector<std::string> pool{"a", "b", "a", "a", "c", "b"};
  const std::vector<index_t> selected{0, 1};
  const auto rows = enrichment(pool, selected);
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].group == "a");
  CHECK(rows[0].enrichment == doctest::Approx(1.0));  // 1/2 of 3/6
  CHECK(rows[1].enrichment == doctest::Approx(0.5 / (2.0 / 6)));
  CHECK(rows[2].enrichment == 0);
  const std::vector<index_t> outside{6};
  CHECK_THROWS_AS(enrichment(pool, outside), invalid_argument);
}

TEST_CASE("the heatmap averages magnitudes per layer and module") {
  parameter_layout layout;
  layout.add("a", 2, 1, 0, "q");
  layout.add("b", 1, 1, 1, "q");
  layout.add("c", 3, 1, 0, "q");  // the same cell as a
  layout.add("d", 1, 1, -1, "head");
  const std::vector<double> scores{1, -1, -5, 0, 0, 3, 2};
  const auto cells = score_heatmap(layout, stored_scores(vector_view<const double>(scores)));
  REQUIRE(cells.size() == 3);
  CHECK(cells[0].coordinates == 5);
  CHECK(cells[0].mean_magnitude == doctest::Approx(1.0));
  CHECK(cells[1].mean_magnitude == 5);
  CHECK(cells[1].relative == 1);
  CHECK(cells[2].relative == doctest::Approx(0.4));
}

TEST_CASE("stratified masks take every block's share") {
  parameter_layout layout;
  layout.add("a", 10, 10);
  layout.add("b", 1, 3);
  layout.add("c", 50, 2);
  random_source random(3);
  const index_set mask = stratified_random_mask(layout, 50, random);
  CHECK(mask.size() == 50);
  CHECK(static_cast<index_t>(mask.within(0, 100).size()) >= 24);
  CHECK(static_cast<index_t>(mask.within(100, 103).size()) >= 1);
  CHECK(stratified_random_mask(layout, 203, random) == index_set::all(203));
  CHECK(stratified_random_mask(layout, 0, random).size() == 0);
  CHECK_THROWS_AS(stratified_random_mask(layout, 204, random), invalid_argument);
}

TEST_CASE("on an almost linear objective scores predict training, and theta comes back") {
  // A tiny learning rate makes AdamW's first steps sign-like, so exact agreement is not expected;
  // the ranks must agree far beyond chance (Spearman of 40 random choices has deviation 0.16).
  quadratic<double> model(
      {.examples = 60, .layers = 2, .modules = 1, .rows = 4, .cols = 4, .seed = 5});
  const auto pool = all_examples(50);
  std::vector<index_t> validation;
  for (index_t i = 50; i < 60; ++i) validation.push_back(i);
  const validation_objective<> objective{.examples = validation};
  const auto v = objective_gradient(exec::cpu{1}, model, objective).total;
  const auto scored =
      dual_scores(exec::cpu{1}, model, pool, {score_order::first, step_geometry::plain, 1e-4}, v);
  const auto before = parameter_values(model);
  const fidelity_options options{
      .choices = 40, .subset_size = 10, .steps = 3, .batch_size = 10, .learning_rate = 1e-3};
  const auto by_data =
      data_score_fidelity(exec::cpu{1}, model, objective, pool, scored.data.scores, options);
  CHECK(parameter_values(model) == before);
  CHECK(by_data.predicted.size() == 40);
  CHECK(by_data.spearman > 0.35);
  CHECK(by_data.pairwise_agreement > 0.65);
  const auto by_mask = parameter_score_fidelity(exec::cpu{1}, model, objective, pool,
                                                scored.parameters(), 8, options);
  CHECK(parameter_values(model) == before);
  CHECK(by_mask.spearman > 0.5);
  CHECK_THROWS_WITH_AS(
      parameter_score_fidelity(exec::cpu{1}, model, objective, {}, scored.parameters(), 8, options),
      doctest::Contains("the pool must not be empty"), invalid_argument);
  // Ranks of the same things the other way round must lose: the test can fail.
  std::vector<double> reversed = scored.data.scores;
  for (double& x : reversed) x = -x;
  CHECK(data_score_fidelity(exec::cpu{1}, model, objective, pool, reversed, options).spearman <
        -0.35);
}
