// Describe your own model once; score it four ways, select, and fine-tune only what was selected.
//
//   g++ -std=c++20 -O2 -I include -isystem /usr/include/eigen3 examples/02_your_own_model.cpp
//
// Output:
// materialised  conserves: yes
// ghost         conserves: yes
// jvp           conserves: yes
// difference    conserves: yes
// selected 3 of 9 parameters and 20 of 80 examples
// validation loss fell: yes, unselected parameters moved: no
#include <cmath>
#include <cstdio>
#include <dualsft/dualsft.hpp>

using namespace dualsft;

// [model]
/// Logistic regression on x [N, 8] with labels y in {-1, +1}:  l_i = log(1 + exp(-y_i (w.x_i + b))).
struct logistic_model {
  using scalar_type = double;
  parameter_layout map;
  std::vector<double> x, y, w = std::vector<double>(8), b = std::vector<double>(1);

  const parameter_layout& layout() const { return map; }
  std::span<double> parameters(index_t block) { return block == 0 ? w : b; }
  std::span<const double> parameters(index_t block) const { return block == 0 ? w : b; }

  const double* row(index_t i) const { return x.data() + i * 8; }
  double dot(index_t i, std::span<const double> p) const {  // p = (weights, bias)
    double z = p[8];
    for (std::size_t j = 0; j < 8; ++j) z += p[j] * row(i)[j];
    return z;
  }
  double margin(index_t i) const {
    const double p[] = {w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], b[0]};
    return y[static_cast<std::size_t>(i)] * dot(i, p);
  }
  double slope(index_t i) const {  // d l_i / d (w.x_i + b)
    return -y[static_cast<std::size_t>(i)] / (1 + std::exp(margin(i)));
  }

  void losses(example_span examples, std::span<double> out) const {
    for (std::size_t k = 0; k < out.size(); ++k)
      out[k] = std::log1p(std::exp(-margin(examples[k])));
  }
  void accumulate_gradient(example_span examples, std::span<double> out) const {
    for (const index_t i : examples) {
      for (std::size_t j = 0; j < 8; ++j) out[j] += slope(i) * row(i)[j];
      out[8] += slope(i);
    }
  }
  template <class Sink>
  void traces(example_span examples, Sink&& sink) const {  // one affine layer, one row per example
    std::vector<double> inputs, errors;
    std::vector<index_t> position;
    for (const index_t i : examples) {
      inputs.insert(inputs.end(), row(i), row(i) + 8);
      errors.push_back(slope(i));
      position.push_back(static_cast<index_t>(position.size()));
    }
    const auto n = static_cast<index_t>(examples.size());
    sink(affine_trace<double>{0, 1, {inputs.data(), n, 8}, {errors.data(), n, 1}, position});
  }
  void forward_derivatives(example_span examples, std::span<const double> p,
                           std::span<double> out) const {
    for (std::size_t k = 0; k < out.size(); ++k) out[k] = slope(examples[k]) * dot(examples[k], p);
  }
};
// [/model]
static_assert(check_trainable_model<logistic_model>() && check_trace_model<logistic_model>() &&
              check_forward_derivative_model<logistic_model>());

int main() {
  logistic_model model;
  model.map.add("weight", 1, 8);
  model.map.add("bias", 1, 1);
  random_source random(1);
  for (int i = 0; i < 100; ++i) {  // the label depends on the first two features alone
    double score = 0;
    for (int j = 0; j < 8; ++j) {
      model.x.push_back(random.normal());
      if (j < 2) score += model.x.back();
    }
    model.y.push_back(score > 0 ? 1.0 : -1.0);
  }
  const data_split split =
      split_records(100, {.validation = 20, .anchors = 0, .warmup_fraction = 0});
  const exec::cpu policy{1};
  const validation_objective objective{split.validation};
  const auto v = objective_gradient(policy, model, objective).total;
  const double before = objective_value(policy, model, objective);
  const score_rule rule{.order = score_order::first, .eta = 0.01};

  dual_score_result<double> scores;
  for (const auto strategy :
       {score_strategy::materialised, score_strategy::ghost, score_strategy::forward_derivative,
        score_strategy::directional_difference}) {
    scores =
        dual_scores(policy, model, split.pool, rule, v, {}, {}, {.data = {.strategy = strategy}});
    std::printf("%-13s conserves: %s\n", std::string(name_of(strategy)).c_str(),
                scores.conservation.holds ? "yes" : "no");
  }
  const topk_result mask = topk(policy, scores.parameters(), {.k = 3});
  const example_selection best = select_examples(scores.data.scores, {.budget = 20});
  std::vector<index_t> subset;
  for (const index_t i : best.indices) subset.push_back(split.pool[static_cast<std::size_t>(i)]);

  masked_adamw<double> optimizer(mask.selected);
  train(policy, model, optimizer, subset, {.epochs = 5, .batch_size = 5, .learning_rate = 0.1});
  bool moved = false;
  const std::vector<double> theta = parameter_values(model);
  for (index_t j = 0; j < 9; ++j)
    moved = moved || (!mask.selected.contains(j) && theta[static_cast<std::size_t>(j)] != 0);
  std::printf("selected %zu of 9 parameters and %zu of 80 examples\n",
              mask.selected.indices().size(), subset.size());
  std::printf("validation loss fell: %s, unselected parameters moved: %s\n",
              objective_value(policy, model, objective) < before ? "yes" : "no",
              moved ? "yes" : "no");
}
