// Measures: both sides of the interaction matrix of an N x d matrix of gradients on a device.
// Against: a copy within the device at the same moments, counting what must be loaded once; and, where
// columns wait for their sums, the same kernels with two reads of the matrix.
// Must reach: 0.85 of the copy at 4,096 x 1e6 in float.
#include <dualsft/dense_scores.cuh>
#include <string>

#include "support/dense_case.cuh"

namespace {

using namespace dualsft;

template <class T>
void scored(benchmark::State& state, const score_rule& rule, index_t rows, index_t columns,
            double must_reach) {
  const exec::cuda policy = bench::policy();
  if (!bench::fits(state, bench::dense_case<T>::bytes(rows, columns))) return;
  const bench::dense_case<T> at(policy, rows, columns, rule);
  const bool waits = rule.order == score_order::diagonal || rule.order == score_order::joint;
  dense_workspace workspace(policy, rows, columns, rule);
  at.forget(policy);
  dense_scores(policy, at.matrix(), at.inputs(), rule, at.outputs(), workspace);
  const bool law = workspace.summary(policy).conservation.holds;
  if (!bench::check(state, law && at.right(policy), "scores differ from the definition's")) return;

  bench::device_timer timer(state);
  timer.moves(at.moved_bytes());
  if (must_reach > 0) timer.at_least("ratio_to_copy", must_reach);
  // The device as one without clusters.
  dense_workspace reads_twice = [&] {
    dense_workspace other(policy, 0, 0, rule);
    other.state().device = {};
    other.state().memory = {
        policy,
        detail::plan_dense({}, rule, rows, columns, static_cast<index_t>(sizeof(T))).bytes()};
    return other;
  }();
  if (waits)
    timer.against("two_reads", [&](index_t) {
      dense_scores(policy, at.matrix(), at.inputs(), rule, at.outputs(), reads_twice);
    });
  timer.run([&](index_t) {
    dense_scores(policy, at.matrix(), at.inputs(), rule, at.outputs(), workspace);
  });
}

template <class T>
void add(const char* type, score_order order, step_geometry step, index_t rows, index_t columns,
         double must_reach) {
  const std::string name = "dense_scores/" + std::string(name_of(order)) + "/" +
                           std::string(name_of(step)) + "/" + type + "/n:" + std::to_string(rows) +
                           "/d:" + std::to_string(columns);
  const index_t n = bench::pick<index_t>(rows, rows / 64 + 1);
  const index_t d = bench::pick<index_t>(columns, columns % 1000 + 40);
  bench::add(name, [=](benchmark::State& state) {
    scored<T>(state, {order, step, 1.0 / 4096}, n, d, bench::pick(must_reach, 0.0));
  });
}

}  // namespace

int main(int argc, char** argv) {
  constexpr step_geometry plain = step_geometry::plain, adamw = step_geometry::adamw;
  for (const score_order order :
       {score_order::first, score_order::diagonal, score_order::full, score_order::joint})
    for (const step_geometry step : {plain, adamw})
      add<float>("f32", order, step, 4096, 1'000'000, 0.85);
  for (const score_order order : {score_order::first, score_order::diagonal}) {
    add<double>("f64", order, plain, 4096, 500'000, 0);
    add<float>("f32", order, plain, 512, 8'000'000, 0);
    add<float>("f32", order, plain, 16'384, 250'000, 0);
    add<float>("f32", order, plain, 65'536, 60'000, 0);
    add<float>("f32", order, plain, 4096, 1'000'001, 0);  // rows that are not aligned
  }
  return bench::run(argc, argv);
}
