// Measures: dense_scores of a float N x d matrix by exec::cpu, each order, on two threads.
// Against: a plain parallel sum of the same array (the machine's own read bandwidth), and Eigen's
// two products G^T 1 and G p with columns (rows) split over the same threads; all in the same run,
// rounds interleaved, medians reported.
//
//   dense_scores_bench --benchmark_out=dense_scores.json --benchmark_out_format=json
//
// Counters: read_share     time of the sum / time of dense_scores (targets: first 0.85,
//                          diagonal 0.70)
//           over_eigen     time of Eigen's products / time of dense_scores (target: 1.8)
//           read_GB_s, GB_s   the sum's and dense_scores' bytes of the matrix per second
// Each ratio is the median over rounds of the ratio within one round: neighbours in time share the
// machine's mood. The array asks for huge pages (madvise), as any program with 4 GiB in one piece
// should; all three competitors read the same array.
// DUALSFT_BENCH_LOG2_D (default 20) shrinks it for a smoke run, DUALSFT_BENCH_ROWS (1024) too.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <Eigen/Core>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <dualsft/dense_scores.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <new>
#include <vector>

namespace {

using namespace dualsft;
using row_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr exec::cpu two_threads{2};
constexpr double eta = 1e-3;

index_t setting(const char* name, index_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoll(text);
}

struct problem {
  index_t rows = setting("DUALSFT_BENCH_ROWS", 1024);
  index_t cols = index_t{1} << setting("DUALSFT_BENCH_LOG2_D", 20);
  std::size_t bytes = static_cast<std::size_t>(rows * cols) * sizeof(float);
  float* g = nullptr;
  std::vector<float> v, d, hg;

  problem() {
    constexpr std::size_t huge_page = std::size_t{1} << 21;
    g = static_cast<float*>(
        std::aligned_alloc(huge_page, (bytes + huge_page - 1) / huge_page * huge_page));
    if (g == nullptr) throw std::bad_alloc();
    ::madvise(g, bytes, MADV_HUGEPAGE);
    detail::parallel_ranges(two_threads, rows, 1, [&](int part, detail::index_range range) {
      random_source random(1, static_cast<std::uint64_t>(part));
      for (index_t i = range.begin * cols; i < range.end * cols; ++i)
        g[i] = static_cast<float>(random.uniform() - 0.5);
    });
    random_source random(2);
    for (auto* x : {&v, &d, &hg})
      for (index_t j = 0; j < cols; ++j) x->push_back(static_cast<float>(random.uniform() + 0.1));
  }

  matrix_view<const float> view() const { return {g, rows, cols}; }
  dense_inputs<float> inputs() const { return {v, d, hg}; }
};

const problem& shared_problem() {
  static const problem p;
  return p;
}

/// What reading the matrix costs at least: 128 running sums, so that no addition waits.
double plain_sum(const problem& p) {
  double total[2] = {};
  detail::parallel_ranges(two_threads, p.rows * p.cols, 4096,
                          [&](int part, detail::index_range range) {
                            float sums[128] = {};
                            index_t i = range.begin;
                            for (; i + 128 <= range.end; i += 128)
                              for (index_t l = 0; l < 128; ++l) sums[l] += p.g[i + l];
                            double sum = 0;
                            for (; i < range.end; ++i) sum += static_cast<double>(p.g[i]);
                            for (const float s : sums) sum += static_cast<double>(s);
                            total[part] = sum;
                          });
  return total[0] + total[1];
}

struct eigen_scores {
  Eigen::VectorXf data, parameters;
};

/// G^T 1, then p, then G p, as one writes it: each thread a share of the columns, then of the rows.
void eigen_products(const problem& p, score_order order, eigen_scores& out) {
  using map = Eigen::Map<const row_matrix, 0, Eigen::OuterStride<>>;
  using vector_map = Eigen::Map<const Eigen::VectorXf>;
  Eigen::VectorXf sums(p.cols), direction(p.cols);
  out.data.resize(p.rows);
  out.parameters.resize(p.cols);
  const Eigen::VectorXf ones = Eigen::VectorXf::Ones(p.rows);
  const auto step = static_cast<float>(eta);
  detail::parallel_ranges(two_threads, p.cols, 16, [&](int, detail::index_range range) {
    const index_t first = range.begin, count = range.size();
    const map g(p.g + first, p.rows, count, Eigen::OuterStride<>(p.cols));
    const vector_map v(p.v.data() + first, count), d(p.d.data() + first, count);
    auto sum = sums.segment(first, count);
    auto to = direction.segment(first, count);
    sum.noalias() = g.transpose() * ones;
    to = v;
    if (order == score_order::diagonal) to -= (step / 2) * d.cwiseProduct(sum);
    out.parameters.segment(first, count) = step * sum.cwiseProduct(to);
  });
  detail::parallel_ranges(two_threads, p.rows, 1, [&](int, detail::index_range range) {
    const map g(p.g + range.begin * p.cols, range.size(), p.cols, Eigen::OuterStride<>(p.cols));
    out.data.segment(range.begin, range.size()).noalias() = step * (g * direction);
  });
}

template <class Body>
double seconds(Body&& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

/// The first and last rows and columns against their definition, and the law.
bool correct(const problem& p, score_order order, const dense_result& found) {
  if (!found.conservation.holds) return false;
  const double tolerance = 1e-9;  // relative to sums of positive and negative terms of one size
  if (order != score_order::first && order != score_order::diagonal) return true;
  const auto direction = [&](index_t j, double sum) {
    const auto k = static_cast<std::size_t>(j);
    const double c = order == score_order::diagonal ? static_cast<double>(p.d[k]) * sum : 0.0;
    return static_cast<double>(p.v[k]) - eta / 2 * c;
  };
  double first_row = 0, last_row = 0;
  for (index_t j = 0; j < p.cols; ++j) {
    double score = found.parameter_scores[static_cast<std::size_t>(j)];
    if (j < 64 || j >= p.cols - 64) {
      double sum = 0;
      for (index_t i = 0; i < p.rows; ++i) sum += static_cast<double>(p.g[i * p.cols + j]);
      const double expected = eta * sum * direction(j, sum);
      if (!(std::abs(score - expected) <= tolerance * eta * std::sqrt(double(p.rows))))
        return false;
    }
    // G_j from the score just checked would be circular at second order; recompute p from D, v and
    // the score's own quadratic only where it is linear.
    if (order == score_order::first) {
      first_row += static_cast<double>(p.g[j]) * direction(j, 0);
      last_row += static_cast<double>(p.g[(p.rows - 1) * p.cols + j]) * direction(j, 0);
    }
  }
  if (order != score_order::first) return true;
  const double scale = tolerance * eta * std::sqrt(static_cast<double>(p.cols));
  return std::abs(found.data_scores.front() - eta * first_row) <= scale &&
         std::abs(found.data_scores.back() - eta * last_row) <= scale;
}

void dense(benchmark::State& state, score_order order) {
  const problem& p = shared_problem();
  const score_rule rule{order, step_geometry::plain, eta};
  dense_result result = dense_scores(two_threads, p.view(), p.inputs(), rule);
  if (!correct(p, order, result)) {
    state.SkipWithError("wrong scores");
    return;
  }
  const bool has_rival = order == score_order::first || order == score_order::diagonal;
  eigen_scores rival;
  std::vector<double> read_share, over_eigen, read_times, times;
  for (auto _ : state) {
    const double sum_before = seconds([&] { benchmark::DoNotOptimize(plain_sum(p)); });
    const double ours =
        seconds([&] { result = dense_scores(two_threads, p.view(), p.inputs(), rule); });
    const double sum_after = seconds([&] { benchmark::DoNotOptimize(plain_sum(p)); });
    if (has_rival) over_eigen.push_back(seconds([&] { eigen_products(p, order, rival); }) / ours);
    const double reading = (sum_before + sum_after) / 2;
    read_share.push_back(reading / ours);
    read_times.push_back(reading);
    times.push_back(ours);
    state.SetIterationTime(ours);
  }
  state.counters["read_share"] = median(read_share);
  if (has_rival) state.counters["over_eigen"] = median(over_eigen);
  state.counters["read_GB_s"] = static_cast<double>(p.bytes) / median(read_times) * 1e-9;
  state.counters["GB_s"] = static_cast<double>(p.bytes) / median(times) * 1e-9;
  if (has_rival)  // float sums of a million terms: only that both computed the same thing
    for (index_t i = 0; i < p.rows; ++i)
      if (!(std::abs(static_cast<double>(rival.data[i]) -
                     result.data_scores[static_cast<std::size_t>(i)]) <=
            1e-3 * eta * std::sqrt(static_cast<double>(p.cols))))
        state.SkipWithError("Eigen's products differ");
}

}  // namespace

BENCHMARK_CAPTURE(dense, first, score_order::first)
    ->UseManualTime()
    ->Iterations(11)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(dense, diagonal, score_order::diagonal)
    ->UseManualTime()
    ->Iterations(11)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(dense, full, score_order::full)
    ->UseManualTime()
    ->Iterations(11)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(dense, joint, score_order::joint)
    ->UseManualTime()
    ->Iterations(11)
    ->Unit(benchmark::kMillisecond);
