// Both sides of the interaction matrix of 4,096 x 1e6 gradients in float, from naive to the library.
// Diagonal order, where p_j needs the sum of column j:
//
//   1 naive       a thread sums a column, a block multiplies a row by p: the matrix is read twice
//   2 two_reads   the library's kernels for devices without clusters: tiles of 4 KiB of a row, 16-byte
//                 loads, eight rows in flight per thread (expected: from some 60 % of what two reads
//                 allow to 95 %; at best half of what one read allows)
//   3 narrow      panels in the shared memory of clusters, read once; 128 bytes of each row at a time, and
//                 half of the ring (expected: twice as fast as step 2 if memory serves single lines well)
//   4 library     256 bytes of each row (expected: nothing if step 3 is at the limit, else what page
//                 look-ups and short bursts cost, up to 20 %)
//
// Not tried, on paper: a second read out of the L2 cache, which gives 5.5 to 7 TB/s where 8.6 are needed.
// First order, where p is known:
//
//   5 first_two_products   a sum over columns, a product with rows: the matrix is read twice
//   6 first_library        one loaded element serves both (expected: twice as fast)
//
// No gain has been measured yet. Each step is checked against a loop in double before it is timed.
#include <cub/block/block_reduce.cuh>
#include <dualsft/detail/launch.cuh>
#include <memory>
#include <string>

#include "../support/dense_case.cuh"

namespace {

using namespace dualsft;
using float_case = bench::dense_case<float>;

constexpr int threads = 256;

__global__ void sum_columns(const float* g, index_t rows, index_t columns, detail::dense_vectors at,
                            double* p, double* scores) {
  const index_t j = static_cast<index_t>(blockIdx.x) * threads + threadIdx.x;
  if (j >= columns) return;
  double sum = 0;
  for (index_t i = 0; i < rows; ++i) sum += static_cast<double>(g[i * columns + j]);
  p[j] = detail::project_coordinate(at.rule, at.v[j], sum, at.d[j], at.hg[j]).p;
  scores[j] = at.rule.eta * sum * p[j];
}

__global__ void multiply_rows(const float* g, index_t columns, double eta, const double* p,
                              double* scores) {
  double dot = 0;
  for (index_t j = threadIdx.x; j < columns; j += threads)
    dot += static_cast<double>(g[blockIdx.x * columns + j]) * p[j];
  using reduction = cub::BlockReduce<double, threads>;
  __shared__ typename reduction::TempStorage storage;
  const double all = reduction(storage).Sum(dot);
  if (threadIdx.x == 0) scores[blockIdx.x] = eta * all;
}

void naive(const exec::cuda& policy, const float_case& at, double* p) {
  const detail::dense_vectors vectors = detail::vectors_of(at.rule, at.inputs());
  detail::launch(
      "ladder", policy, {static_cast<unsigned>((at.columns + threads - 1) / threads), threads},
      sum_columns, at.g.data(), at.rows, at.columns, vectors, p, at.parameter_scores.data());
  detail::launch("ladder", policy, {static_cast<unsigned>(at.rows), threads}, multiply_rows,
                 at.g.data(), at.columns, at.rule.eta, p, at.data_scores.data());
}

/// The library's kernels, cut as `plan` says.
void planned(const exec::cuda& policy, const float_case& at, const detail::dense_plan& plan,
             std::byte* memory, detail::dense_facts* facts) {
  detail::dense_on_device<float>(policy, plan, {at.g.data(), at.rows, at.columns, at.columns},
                                 detail::vectors_of(at.rule, at.inputs()),
                                 detail::dense_parts(memory, plan, at.columns),
                                 {at.data_scores.data(), 1, at.parameter_scores.data(), 1, facts});
}

template <class Step>
void add(const char* name, score_order order, const Step& make_step) {
  bench::add(std::string("ladder/dense_scores/") + name, [=](benchmark::State& state) {
    const exec::cuda policy = bench::policy();
    const index_t rows = bench::pick<index_t>(4096, 70);
    const index_t columns = bench::pick<index_t>(1'000'000, 200);
    if (!bench::fits(state, float_case::bytes(rows, columns))) return;
    const float_case at(policy, rows, columns, {order, step_geometry::plain, 1.0 / 4096});
    const auto step = make_step(policy, at);
    at.forget(policy);
    step();
    if (!bench::check(state, at.right(policy), "scores differ from the definition's")) return;
    bench::device_timer timer(state);
    timer.moves(at.moved_bytes());
    timer.run([&](index_t) { step(); });
  });
}

/// A step that owns what it works with.
auto with_plan(const exec::cuda& policy, const float_case& at, const detail::dense_plan& plan) {
  return [&policy, &at, plan, memory = detail::device_array<std::byte>(policy, plan.bytes()),
          facts = detail::device_array<detail::dense_facts>(policy, 1)] {
    planned(policy, at, plan, memory.data(), facts.data());
  };
}
detail::dense_plan plan_of(const detail::dense_device_facts& device, const float_case& at) {
  return detail::plan_dense(device, at.rule, at.rows, at.columns, sizeof(float));
}
auto naive_step(const exec::cuda& policy, const float_case& at) {
  return [&policy, &at, p = detail::device_array<double>(policy, at.columns)] {
    naive(policy, at, p.data());
  };
}

}  // namespace

int main(int argc, char** argv) {
  add("1_naive", score_order::diagonal, naive_step);
  add("2_two_reads", score_order::diagonal, [](const exec::cuda& policy, const float_case& at) {
    return with_plan(policy, at, plan_of({}, at));
  });
  add("3_narrow", score_order::diagonal, [](const exec::cuda& policy, const float_case& at) {
    detail::dense_plan plan = plan_of(detail::look_at_device(), at);
    if (plan.how == detail::dense_plan::way::panels) {
      const index_t width = 8 * 16 / static_cast<index_t>(sizeof(float));
      plan.vectors = 8;
      plan.panels = (at.columns + width - 1) / width;
    }
    return with_plan(policy, at, plan);
  });
  const auto library = [](const exec::cuda& policy, const float_case& at) {
    return [&policy, &at,
            workspace = std::make_shared<dense_workspace>(policy, at.rows, at.columns, at.rule)] {
      dense_scores(policy, at.matrix(), at.inputs(), at.rule, at.outputs(), *workspace);
    };
  };
  add("4_library", score_order::diagonal, library);
  add("5_first_two_products", score_order::first, naive_step);
  add("6_first_library", score_order::first, library);
  return bench::run(argc, argv);
}
