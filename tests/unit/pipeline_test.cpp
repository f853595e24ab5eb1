// Proves: the pipeline is the steps in order: its warmup, scores, selections and fine-tuning equal the
//         same done by hand; restrictions hold to the bit; runs repeat; damaged data loses.
// Against: direct calls of the steps; bit comparison with theta_0; known labels.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <dualsft/models/mlp_classifier.hpp>
#include <dualsft/models/quadratic.hpp>
#include <dualsft/optim/sgd.hpp>
#include <dualsft/pipeline.hpp>
#include <sstream>

#include "support/explicit_gradients.hpp"

using namespace dualsft;

namespace {

/// Clusters with a known part of the labels moved to the next class.
struct damaged_data {
  std::shared_ptr<labelled_data<double>> data;
  std::vector<bool> damaged;
};

damaged_data make_data(index_t n) {
  damaged_data out;
  out.data = std::make_shared<labelled_data<double>>(*random_labelled_data<double>(
      {.examples = n, .features = 8, .classes = 3, .separation = 6, .seed = 4}));
  for (index_t i = 0; i < n; ++i) {
    const bool damage = i % 3 == 0 && i >= 40;
    out.damaged.push_back(damage);
    auto& label = out.data->labels[static_cast<std::size_t>(i)];
    if (damage) label = (label + 1) % 3;
  }
  return out;
}

data_split make_split(index_t n) {
  data_split split;
  for (index_t i = 0; i < 20; ++i) split.validation.push_back(i);
  for (index_t i = 20; i < 40; ++i) split.anchors.push_back(i);
  for (index_t i = 40; i < n; ++i) (i % 10 == 1 ? split.warmup : split.pool).push_back(i);
  return split;
}

dual_sft_options small_options() {
  dual_sft_options options;
  options.training = {.epochs = 2, .batch_size = 16, .learning_rate = 0.02, .seed = 3};
  options.warmup = {.epochs = 1, .batch_size = 8, .learning_rate = 0.02};
  options.selection.parameter_budget = budget::ratio(0.2);
  options.selection.data_budget = budget::ratio(0.3);
  return options;
}

using classifier = mlp_classifier<double>;

template <class Real>
bool same_bits(Real a, Real b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

}  // namespace

TEST_CASE("the pipeline equals its steps done by hand") {
  const damaged_data data = make_data(300);
  const data_split split = make_split(300);
  const exec::cpu policy{2};
  const dual_sft_options options = small_options();

  classifier model(data.data);
  const std::vector<double> theta_0 = parameter_values(model);
  const auto run = dual_sft(policy, model, split, options);

  classifier by_hand(data.data);
  adamw<double> optimizer(by_hand.layout().size());
  train(policy, by_hand, optimizer, split.warmup, options.warmup);
  CHECK(parameter_values(by_hand) == run.warmup.theta);
  classifier teacher(data.data);
  const cwsd_preservation<classifier> prior(split.anchors, model_teacher(teacher));
  std::vector<double> v = sum_gradients(policy, by_hand, split.validation).sum;
  for (double& x : v) x /= 20;
  prior.accumulate_gradient(policy, by_hand, 0.2, std::span<double>(v));
  const auto curvature =
      rms_curvature(optimizer.second_moment(), run.warmup.training.steps, {.beta2 = 0.999});
  const auto scored = dual_scores(
      policy, by_hand, split.pool,
      {score_order::diagonal, step_geometry::plain, 0.02 / static_cast<double>(split.pool.size())},
      v, std::span<const double>(curvature));
  CHECK(scored.data.scores == run.selection.scores.data.scores);
  const index_t k = budget::ratio(0.2).of(by_hand.layout().size());
  const topk_result mask = topk(policy, scored.parameters(), {.k = k});
  CHECK(mask.selected == run.selection.mask.selected);
  CHECK(mask.gap == run.selection.mask.gap);
  assign_parameters(by_hand, std::span<const double>(theta_0));
  masked_adamw<double> masked(mask.selected);
  train(policy, by_hand, masked, run.selection.examples, options.training);
  CHECK(parameter_values(by_hand) == parameter_values(model));
  CHECK(run.selection.scores.conservation.holds);
  CHECK(run.selection.examples.size() ==
        static_cast<std::size_t>(budget::ratio(0.3).of(split.candidates())));
}

TEST_CASE("unselected coordinates keep theta_0's bits, selected ones move") {
  const damaged_data data = make_data(200);
  const data_split split = make_split(200);
  for (const auto restrict_to : {restriction::both, restriction::parameters}) {
    classifier model(data.data);
    const auto theta_0 = parameter_values(model);
    dual_sft_options options = small_options();
    options.restrict_to = restrict_to;
    options.optimizer.weight_decay = 0.1;
    const auto run = dual_sft(exec::cpu{1}, model, split, options);
    const auto theta = parameter_values(model);
    index_t moved = 0;
    for (index_t j = 0; j < model.layout().size(); ++j) {
      const auto u = static_cast<std::size_t>(j);
      if (run.selection.mask.selected.contains(j))
        moved += !same_bits(theta[u], theta_0[u]);
      else
        CHECK(same_bits(theta[u], theta_0[u]));
    }
    CHECK(moved > run.selection.mask.selected.size() / 2);
  }
}

TEST_CASE("scores tell damaged labels from clean ones") {
  const damaged_data data = make_data(600);
  const data_split split = make_split(600);
  classifier model(data.data);
  dual_sft_options options = small_options();
  options.selection.data_budget = budget::ratio(0.5);
  const auto run = dual_sft(exec::cpu{2}, model, split, options);
  index_t damaged = 0;
  for (const index_t i : run.selection.examples)
    damaged += data.damaged[static_cast<std::size_t>(i)];
  // A third of the pool is damaged; a random half would hold about 84 of them.
  CHECK(damaged < 20);
}

TEST_CASE("equal seeds and threads give equal bits, another seed does not") {
  const damaged_data data = make_data(150);
  const data_split split = make_split(150);
  const auto theta = [&](std::uint64_t seed) {
    classifier model(data.data);
    dual_sft_options options = small_options();
    options.training.seed = seed;
    dual_sft(exec::cpu{2}, model, split, options);
    return parameter_values(model);
  };
  CHECK(theta(1) == theta(1));
  CHECK(theta(1) != theta(2));
}

TEST_CASE("every order, step, curvature proxy and preservation term runs and conserves") {
  const damaged_data data = make_data(120);
  const data_split split = make_split(120);
  const auto check = [&](const selection_options& selection) {
    classifier model(data.data);
    dual_sft_options options = small_options();
    options.selection = selection;
    const auto run = dual_sft(exec::cpu{2}, model, split, options);
    CHECK(run.selection.scores.conservation.holds);
    CHECK(run.selection.scores.data.not_finite == 0);
  };
  for (const auto order :
       {score_order::first, score_order::diagonal, score_order::full, score_order::joint})
    for (const auto step : {step_geometry::plain, step_geometry::adamw})
      check({.order = order, .step = step});
  for (const auto proxy :
       {curvature_proxy::second_moment, curvature_proxy::exact_diagonal,
        curvature_proxy::hutchinson, curvature_proxy::empirical_fisher, curvature_proxy::none})
    check({.curvature = proxy});
  for (const auto preservation :
       {preservation_kind::none, preservation_kind::l2, preservation_kind::fisher})
    check({.order = score_order::full, .preservation = preservation});
  check({.layer_share = 0.3, .module_share = 0.2});
  check({.by = topk_by::magnitude});
}

TEST_CASE("training resumes bit for bit from any step") {
  const damaged_data data = make_data(100);
  std::vector<index_t> examples = testing::all_examples(100);
  training_options options{.epochs = 3, .batch_size = 16, .learning_rate = 0.01};
  classifier whole(data.data);
  adamw<double> a(whole.layout().size());
  const auto run = train(exec::cpu{1}, whole, a, examples, options);
  CHECK(run.total_steps == 21);
  CHECK(run.steps == 21);

  classifier parts(data.data);
  adamw<double> b(parts.layout().size());
  training_options first = options;
  first.on_step = [](const training_step& step) { return step.step < 9; };
  CHECK(train(exec::cpu{1}, parts, b, examples, first).steps == 10);
  std::stringstream saved;
  b.save(saved);
  adamw<double> c(parts.layout().size());
  c.load(saved);
  training_options rest = options;
  rest.first_step = 10;
  CHECK(train(exec::cpu{1}, parts, c, examples, rest).steps == 11);
  CHECK(parameter_values(parts) == parameter_values(whole));
}

TEST_CASE("training reports losses that fall, clips, and stops at bad gradients") {
  const damaged_data data = make_data(100);
  const auto examples = testing::all_examples(100);
  classifier model(data.data);
  adamw<double> optimizer(model.layout().size());
  const auto run = train(exec::cpu{1}, model, optimizer, examples,
                         {.epochs = 8, .batch_size = 100, .learning_rate = 0.05, .loss_every = 4});
  REQUIRE(run.curve.size() == 3);
  CHECK(run.curve[1].loss < run.curve[0].loss);
  CHECK(run.curve[1].step == 4);
  CHECK(run.curve[2].step == 7);  // the last, whatever the stride

  sgd<double> plain(model.layout().size());
  const auto before = parameter_values(model);
  std::vector<double> norms;
  train(exec::cpu{1}, model, plain, examples,
        {.epochs = 1,
         .batch_size = 100,
         .learning_rate = 1,
         .schedule = schedule_kind::constant,
         .warmup_ratio = 0,
         .max_gradient_norm = 1e-3,
         .on_step = [&](const training_step& s) {
           norms.push_back(s.gradient_norm);
           return true;
         }});
  double moved = 0;
  const auto after = parameter_values(model);
  for (std::size_t j = 0; j < after.size(); ++j)
    moved += (after[j] - before[j]) * (after[j] - before[j]);
  CHECK(norms.at(0) > 1e-3);
  CHECK(std::sqrt(moved) == doctest::Approx(1e-3).epsilon(2e-3));

  auto broken = parameter_values(model);
  broken[0] = std::nan("");
  assign_parameters(model, std::span<const double>(broken));
  CHECK_THROWS_WITH_AS(train(exec::cpu{1}, model, plain, examples, {}),
                       doctest::Contains("train: step 0: "), numerical_error);
}

TEST_CASE("impossible budgets and missing sets are refused before any work") {
  const damaged_data data = make_data(100);
  classifier model(data.data);
  const auto theta = parameter_values(model);
  const auto refused = [&](const char* why, auto change) {
    data_split split = make_split(100);
    dual_sft_options options = small_options();
    index_t steps = 0;
    options.warmup.on_step = [&](const training_step&) { return ++steps > 0; };
    change(split, options.selection);
    CAPTURE(why);
    CHECK_THROWS_WITH_AS(dual_sft(exec::cpu{1}, model, split, options), doctest::Contains(why),
                         invalid_argument);
    CHECK_THROWS_WITH_AS(
        select(exec::cpu{1}, model, std::span<const double>(theta), {}, split, options.selection),
        doctest::Contains(why), invalid_argument);
    CHECK(steps == 0);
    CHECK(parameter_values(model) == theta);
  };
  const index_t d = model.layout().size();
  refused("a count must not exceed", [&](data_split&, selection_options& selection) {
    selection.parameter_budget = budget::count(d + 1);
  });
  refused("a count must not exceed", [&](data_split& split, selection_options& selection) {
    selection.data_budget = budget::count(split.candidates() + 1);
  });
  refused("the pool must not be empty",
          [](data_split& split, selection_options&) { split.pool.clear(); });
  refused("the validation set must not be empty",
          [](data_split& split, selection_options&) { split.validation.clear(); });
  refused("needs anchors", [](data_split& split, selection_options&) { split.anchors.clear(); });
}

TEST_CASE("magnitude ranks examples as it ranks parameters") {
  const damaged_data data = make_data(200);
  const data_split split = make_split(200);
  classifier model(data.data);
  dual_sft_options options = small_options();
  options.selection.by = topk_by::magnitude;
  const auto run = dual_sft(exec::cpu{2}, model, split, options);
  std::vector<double> magnitudes = run.selection.scores.data.scores;
  for (double& score : magnitudes) score = std::abs(score);
  const auto expected =
      select_examples(vector_view<const double>(magnitudes),
                      {.budget = static_cast<index_t>(run.selection.subset.indices.size())});
  CHECK(run.selection.subset.indices == expected.indices);
  const auto signed_ones =
      select_examples(vector_view<const double>(run.selection.scores.data.scores),
                      {.budget = static_cast<index_t>(expected.indices.size())});
  CHECK(run.selection.subset.indices != signed_ones.indices);
}

TEST_CASE("what a model cannot do is refused by name") {
  quadratic<double> model({.examples = 30});
  const data_split split = split_records(30, {.validation = 5, .anchors = 5});
  CHECK_THROWS_WITH_AS(dual_sft(exec::cpu{1}, model, split),
                       doctest::Contains("CWSD needs a model"), invalid_argument);
  dual_sft_options options;
  options.selection.preservation = preservation_kind::l2;
  CHECK_NOTHROW(dual_sft(exec::cpu{1}, model, split, options));
}
