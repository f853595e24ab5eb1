// Score every parameter and every example of your own model, and pick the best of both.
//
//   g++ -std=c++20 -O2 -I include -isystem /usr/include/eigen3 examples/01_dual_scores.cpp
//
// Output:
// best parameters: w3 w0
// best examples:   2 0
// both sides sum to 1.9687, gap below 1e-15: yes
// [readme]
#include <cstdio>
#include <dualsft/dualsft.hpp>

struct linear_model {  // least squares, l_i = (w.x_i - y_i)^2 / 2: four members are enough
  using scalar_type = double;
  dualsft::parameter_layout map;
  double x[6][4] = {{1, 0, 2, 1}, {0, 1, 1, 3}, {2, 1, 0, 4}, {1, 1, 1, 1}, {3, 0, 1, 2}, {0, 2, 1, 3}};
  double y[6] = {1, 2, 4, -3, 3, 2}, w[4] = {};

  const dualsft::parameter_layout& layout() const { return map; }
  double residual(long i) const {
    return w[0] * x[i][0] + w[1] * x[i][1] + w[2] * x[i][2] + w[3] * x[i][3] - y[i];
  }
  void losses(std::span<const long> examples, std::span<double> out) const {
    for (size_t k = 0; k < out.size(); ++k) out[k] = residual(examples[k]) * residual(examples[k]) / 2;
  }
  void accumulate_gradient(std::span<const long> examples, std::span<double> out) const {
    for (long i : examples)
      for (int j = 0; j < 4; ++j) out[j] += residual(i) * x[i][j];
  }
};
static_assert(dualsft::check_gradient_model<linear_model>());  // says what is missing, if anything

int main() {
  linear_model model;
  model.map.add("w", 4, 1);
  const std::vector<long> pool{0, 1, 2, 3}, validation{4, 5};
  auto v = dualsft::objective_gradient(dualsft::exec::cpu{}, model, dualsft::validation_objective{validation});
  auto scores = dualsft::dual_scores(dualsft::exec::cpu{}, model, pool,
                                     {.order = dualsft::score_order::first, .eta = 0.01}, v.total);
  auto mask = dualsft::topk(dualsft::exec::cpu{}, scores.parameters(), {.k = 2});
  auto best = dualsft::select_examples(scores.data.scores, {.budget = 2});
  std::printf("best parameters:");
  for (long j : mask.selected.indices()) std::printf(" w%ld", j);
  std::printf("\nbest examples:  ");
  for (long i : best.indices) std::printf(" %ld", i);
  std::printf("\nboth sides sum to %.4f, gap below 1e-15: %s\n", scores.conservation.rows_total,
              scores.conservation.gap < 1e-15 ? "yes" : "no");
}
// [/readme]
