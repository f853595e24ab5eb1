// Score every parameter and every example of your own model, and pick the best of both.
//
//   g++ -std=c++20 -O2 -I include -isystem /usr/include/eigen3 examples/01_dual_scores.cpp
//
// Output:
// train w[0]
// train w[1]
// on example 2
// on example 0
// conservation holds: yes

// [readme]
#include <cstdio>
#include <dualsft/dualsft.hpp>
using namespace dualsft;

struct least_squares {  // l_i = (w.x_i - y_i)^2 / 2. These four members are all that is needed.
  using scalar_type = double;
  parameter_layout map;
  double x[6][3] = {{1, 0, 2}, {0, 1, 1}, {2, 1, 0}, {1, 1, 1}, {3, 0, 1}, {0, 2, 1}};
  double y[6] = {1, 2, 4, -3, 3, 2}, w[3] = {};

  double error(index_t i) const { return w[0] * x[i][0] + w[1] * x[i][1] + w[2] * x[i][2] - y[i]; }
  const parameter_layout& layout() const { return map; }
  void losses(example_span examples, std::span<double> out) const {
    for (size_t k = 0; k < out.size(); ++k) out[k] = error(examples[k]) * error(examples[k]) / 2;
  }
  void accumulate_gradient(example_span examples, std::span<double> out) const {
    for (index_t i : examples)
      for (size_t j = 0; j < 3; ++j) out[j] += error(i) * x[i][j];
  }
};

int main() {
  least_squares model;
  model.map.add("w", 3, 1);
  const std::vector<index_t> pool{0, 1, 2, 3}, validation{4, 5};
  const exec::cpu policy;
  auto v = objective_gradient(policy, model, validation_objective{validation}).total;
  auto scores = dual_scores(policy, model, pool, {.order = score_order::first, .eta = 0.01}, v);
  auto mask = topk(policy, scores.parameters(), {.k = 2});
  auto best = select_examples(scores.data.scores, {.budget = 2});
  for (index_t j : mask.selected.indices()) std::printf("train w[%d]\n", int(j));
  for (index_t i : best.indices) std::printf("on example %d\n", int(i));
  std::printf("conservation holds: %s\n", scores.conservation.holds ? "yes" : "no");
}
// [/readme]
