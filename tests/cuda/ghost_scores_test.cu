// Ghost scores on a device against plain loops in double over the same traces: exactly, where all factors
// are small whole numbers and no sum is rounded; else within the rounding of float sums.
#include <doctest/doctest.h>

#include <dualsft/ghost_scores.cuh>
#include <limits>
#include <string>
#include <thread>

#include "device_values.cuh"

using namespace dualsft;
using detail::device_array;
using detail::product_kernels;
using testing::own_stream;

namespace {

/// A matrix on both sides; `skip` elements lie before it, the rows are `stride` apart.
template <class T>
struct both_sides {
  index_t rows, cols, stride, skip;
  std::vector<T> host;
  device_array<T> device;

  both_sides(const exec::cuda& policy, index_t r, index_t c, index_t stride_of_rows, index_t first,
             std::vector<T> values)
      : rows(r),
        cols(c),
        stride(stride_of_rows),
        skip(first),
        host(std::move(values)),
        device(policy, std::span<const T>(host)) {}

  double at(index_t i, index_t j) const {
    return convert_float<double>(host[static_cast<std::size_t>(skip + i * stride + j)]);
  }
  matrix_view<const T, device_space> view() const {
    return {device.data() + skip, rows, cols, stride, 1};
  }
  vector_view<const T, device_space> row() const { return {device.data() + skip, cols}; }
};

/// Exactly as many elements as the matrix reaches over, so that reading beyond it is seen.
index_t reach(index_t rows, index_t cols, index_t stride, index_t skip) {
  return rows == 0 || cols == 0 ? skip : skip + (rows - 1) * stride + cols;
}

/// Whole numbers in [-2, 2].
template <class T>
both_sides<T> whole(const exec::cuda& policy, index_t rows, index_t cols, index_t stride,
                    index_t skip, std::uint64_t seed) {
  random_source random(seed);
  std::vector<T> values(static_cast<std::size_t>(reach(rows, cols, stride, skip)));
  for (T& x : values)
    x = convert_float<T>(static_cast<float>(static_cast<int>(random.below(5)) - 2));
  return {policy, rows, cols, stride, skip, std::move(values)};
}

template <class T>
both_sides<T> spread_out(const exec::cuda& policy, index_t rows, index_t cols, std::uint64_t seed,
                         testing::spread how) {
  return {policy, rows, cols, cols, 0, testing::numbers<T>(rows * cols, how, seed)};
}

enum class order { runs, shuffled, one_each, all_one };

std::vector<index_t> examples_of(index_t rows, index_t batch, order how, std::uint64_t seed) {
  random_source random(seed);
  std::vector<index_t> out(static_cast<std::size_t>(rows));
  for (index_t t = 0; t < rows; ++t) {
    index_t& i = out[static_cast<std::size_t>(t)];
    if (how == order::runs) i = t * batch / rows;
    if (how == order::shuffled) i = random.below(batch);
    if (how == order::one_each) i = t % batch;
    if (how == order::all_one) i = batch - 1;
  }
  return out;
}

/// Adds body(t) for every token to a copy of `before`; by the loop that defines the scores.
template <class Body>
std::vector<double> scores_by_loop(std::vector<double> before, const std::vector<index_t>& examples,
                                   const Body& body) {
  for (std::size_t t = 0; t < examples.size(); ++t)
    before[static_cast<std::size_t>(examples[t])] += body(static_cast<index_t>(t));
  return before;
}

std::vector<double> some_scores(index_t batch) {
  std::vector<double> out(static_cast<std::size_t>(batch));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<double>(i % 7) - 3;
  return out;
}

struct affine_size {
  index_t rows, in, out;
  index_t more_in = 0, more_out = 0;  // behind each row
  index_t skip = 0;                   // before each matrix
};

template <class T>
struct affine_case {
  both_sides<T> inputs, errors, weight, bias;
  bool biased;

  affine_case(const exec::cuda& policy, const affine_size& s, bool with_bias)
      : inputs(whole<T>(policy, s.rows, s.in, s.in + s.more_in, s.skip, 11)),
        errors(whole<T>(policy, s.rows, s.out, s.out + s.more_out, s.skip, 12)),
        weight(whole<T>(policy, s.out, s.in, s.in + s.more_in, s.skip, 13)),
        bias(whole<T>(policy, 1, s.out, s.out, s.skip, 14)),
        biased(with_bias) {}

  double token(index_t t) const {
    double sum = 0;
    for (index_t n = 0; n < weight.rows; ++n) {
      double y = biased ? bias.at(0, n) : 0;
      for (index_t k = 0; k < weight.cols; ++k) y += weight.at(n, k) * inputs.at(t, k);
      sum += errors.at(t, n) * y;
    }
    return sum;
  }
  void add(const exec::cuda& policy, const device_array<index_t>& examples,
           const device_array<double>& scores, ghost_workspace& workspace) const {
    vector_view<const T, device_space> b;
    if (biased) b = bias.row();
    add_ghost_scores(policy, device_affine_trace<T>{inputs.view(), errors.view(), examples.view()},
                     weight.view(), b, scores.view(), workspace);
  }
};

template <class T>
void check_affine(product_kernels kernels, const affine_size& size, bool biased, order how,
                  index_t batch, index_t most_parts = 0) {
  CAPTURE(size.rows);
  CAPTURE(size.in);
  CAPTURE(size.out);
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  ghost_workspace workspace(policy, size.rows, size.out, batch);
  if (kernels == product_kernels::wgmma && workspace.device().kernels() != kernels) return;
  workspace.device().use(kernels);
  if (most_parts > 0) workspace.device().limit_parts(most_parts);
  const affine_case<T> trace(policy, size, biased);
  const auto examples = examples_of(size.rows, batch, how, 15);
  const auto before = some_scores(batch);
  const device_array<index_t> on_examples(policy, std::span(examples));
  const device_array<double> scores(policy, std::span(before));
  trace.add(policy, on_examples, scores, workspace);
  workspace.check(policy);
  const auto want = scores_by_loop(before, examples, [&](index_t t) { return trace.token(t); });
  CHECK(testing::first_difference(scores.to_host(), want) == -1);
}

template <class T>
void check_affine_sizes(product_kernels kernels) {
  // Tiles are 128 x 256 and 64 or 32 deep (64 x 64 and 16 deep in float); four of them per block.
  check_affine<T>(kernels, {1, 8, 8}, false, order::all_one, 1);
  check_affine<T>(kernels, {1, 1, 1}, true, order::all_one, 3);
  check_affine<T>(kernels, {31, 64, 256}, false, order::one_each, 31);
  check_affine<T>(kernels, {128, 72, 264}, true, order::runs, 5);
  check_affine<T>(kernels, {129, 200, 16}, false, order::shuffled, 7);
  check_affine<T>(kernels, {260, 40, 1000}, false, order::one_each, 300);
  check_affine<T>(kernels, {100, 24, 2000}, false, order::one_each, 100);
  check_affine<T>(kernels, {300, 136, 520}, true, order::shuffled, 4);
  check_affine<T>(kernels, {33, 30, 129, 2, 7}, true, order::one_each, 33);  // ends within a piece
  check_affine<T>(kernels, {65, 33, 67, 0, 0}, true, order::one_each, 65);   // odd distances
  check_affine<T>(kernels, {40, 64, 70, 8, 10, 1}, false, order::runs, 3);   // odd beginnings
  check_affine<T>(kernels, {20, 0, 300}, true, order::runs, 3);              // the bias alone
  check_affine<T>(kernels, {20, 0, 300}, false, order::runs, 3);
  check_affine<T>(kernels, {0, 16, 16}, true, order::runs, 2);
  check_affine<T>(kernels, {16, 16, 0}, true, order::runs, 2);
}

}  // namespace

TEST_CASE("ghost scores: affine traces, exactly, by each kernel") {
  check_affine_sizes<bfloat16>(product_kernels::wgmma);
  check_affine_sizes<bfloat16>(product_kernels::mma);
  check_affine_sizes<float>(product_kernels::mma);
  check_affine<float16>(product_kernels::wgmma, {140, 72, 264}, true, order::shuffled, 9);
  check_affine<float16>(product_kernels::mma, {140, 72, 264}, true, order::shuffled, 9);
}

TEST_CASE("ghost scores: affine traces whose parts do not fit the workspace at once") {
  // 3 runs of 256 outputs (12 of 64 in float): 256 tokens at a time, then the rest.
  check_affine<bfloat16>(product_kernels::wgmma, {600, 24, 700}, false, order::shuffled, 5, 900);
  check_affine<bfloat16>(product_kernels::mma, {600, 24, 700}, true, order::runs, 5, 900);
  check_affine<float>(product_kernels::mma, {300, 5, 700}, true, order::shuffled, 5, 900);
}

namespace {

/// |score - loop| <= eps (in + 300) sum of |e| |P| |a| + 2^-126 sum of (|e| in + 1): sums of `in` products
/// and of 256 dots in float, each addition rounded or cut off; what is below float's range may vanish.
template <class T>
void check_affine_rounding(product_kernels kernels, index_t rows, index_t in, index_t out,
                           testing::spread how = testing::spread::normal) {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  ghost_workspace workspace(policy, rows, out, rows);
  if (kernels == product_kernels::wgmma && workspace.device().kernels() != kernels) return;
  workspace.device().use(kernels);
  const auto a = spread_out<T>(policy, rows, in, 21, how),
             e = spread_out<T>(policy, rows, out, 22, how),
             p = spread_out<T>(policy, out, in, 23, how);
  const auto examples = examples_of(rows, rows, order::one_each, 0);
  const device_array<index_t> on_examples(policy, std::span(examples));
  std::vector<double> first;
  for (int run = 0; run < 2; ++run) {
    device_array<double> scores(policy, rows);
    scores.fill_bytes(0);
    add_ghost_scores(policy, device_affine_trace<T>{a.view(), e.view(), on_examples.view()},
                     p.view(), {}, scores.view(), workspace);
    const auto got = scores.to_host();
    if (run == 1) CHECK(testing::first_difference(got, first) == -1);
    first = got;
  }
  index_t beyond = 0;
  for (index_t t = 0; t < rows; t += rows >= 1000 ? 371 : 1) {
    double want = 0, size = 0, vanished = 0;
    for (index_t n = 0; n < out; ++n) {
      double y = 0, most = 0;
      for (index_t k = 0; k < in; ++k) {
        y += p.at(n, k) * a.at(t, k);
        most += std::abs(p.at(n, k) * a.at(t, k));
      }
      want += e.at(t, n) * y;
      size += std::abs(e.at(t, n)) * most;
      vanished += std::abs(e.at(t, n)) * static_cast<double>(in) + 1;
    }
    const double allowed =
        std::numeric_limits<float>::epsilon() * static_cast<double>(in + 300) * size +
        0x1p-126 * vanished;
    if (!(std::abs(first[static_cast<std::size_t>(t)] - want) <= allowed)) ++beyond;
  }
  CHECK(beyond == 0);
}

}  // namespace

TEST_CASE("ghost scores: affine traces of any numbers; the same bits twice") {
  check_affine_rounding<bfloat16>(product_kernels::wgmma, 150, 200, 300);
  check_affine_rounding<bfloat16>(product_kernels::mma, 150, 200, 300);
  check_affine_rounding<float>(product_kernels::mma, 70, 100, 130);
  if (testing::is_small_run()) return;
  for (const auto kernels : {product_kernels::wgmma, product_kernels::mma}) {
    check_affine_rounding<bfloat16>(kernels, 8192, 3072, 1024);
    check_affine_rounding<bfloat16>(kernels, 1000, 3584, 18944);
    check_affine_rounding<float16>(kernels, 4100, 1000, 4104);
  }
}

namespace {

/// Embedding, scale and dense traces of one example per token, within eps (cols + 300) sum of |terms| and, for
/// what is below float's range, 2^-126 per product, times the largest number where another follows.
template <class T>
void check_rows_rounding(index_t rows, index_t cols, testing::spread how) {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  ghost_workspace workspace(policy, rows, 1, rows);
  const auto x = spread_out<T>(policy, rows, cols, 31, how),
             e = spread_out<T>(policy, rows, cols, 32, how),
             table = spread_out<T>(policy, rows, cols, 33, how),
             p = spread_out<T>(policy, 1, cols, 34, how);
  double largest = 0;
  for (index_t c = 0; c < cols; ++c) {
    largest = std::max(largest, std::abs(p.at(0, c)));
    for (index_t t = 0; t < rows; ++t)
      largest = std::max({largest, std::abs(x.at(t, c)), std::abs(e.at(t, c))});
  }
  const auto examples = examples_of(rows, rows, order::one_each, 0);
  const device_array<index_t> numbers(policy, std::span(examples));
  const auto run = [&](const auto& add, const auto& term) {
    device_array<double> scores(policy, rows);
    scores.fill_bytes(0);
    add(scores.view());
    const auto got = scores.to_host();
    index_t beyond = 0;
    for (index_t t = 0; t < rows; ++t) {
      double want = 0, size = 0;
      for (index_t c = 0; c < cols; ++c) {
        want += term(t, c);
        size += std::abs(term(t, c));
      }
      const double allowed =
          std::numeric_limits<float>::epsilon() * static_cast<double>(cols + 300) * size +
          0x1p-126 * static_cast<double>(cols) * (1 + largest);
      if (!(std::abs(got[static_cast<std::size_t>(t)] - want) <= allowed)) ++beyond;
    }
    CHECK(beyond == 0);
  };
  run(
      [&](auto scores) {
        add_ghost_scores(policy,
                         device_embedding_trace<T>{numbers.view(), e.view(), numbers.view()},
                         table.view(), scores, workspace);
      },
      [&](index_t t, index_t c) { return e.at(t, c) * table.at(t, c); });
  run(
      [&](auto scores) {
        add_ghost_scores(policy, device_scale_trace<T>{x.view(), e.view(), numbers.view()}, p.row(),
                         scores, workspace);
      },
      [&](index_t t, index_t c) { return x.at(t, c) * e.at(t, c) * p.at(0, c); });
  run(
      [&](auto scores) {
        add_ghost_scores(policy, device_dense_trace<T>{x.view(), numbers.view()}, p.row(), scores,
                         workspace);
      },
      [&](index_t t, index_t c) { return x.at(t, c) * p.at(0, c); });
}

}  // namespace

TEST_CASE("ghost scores: heavy tails, and all numbers equal") {
  for (const auto how : {testing::spread::heavy_tailed, testing::spread::all_equal}) {
    check_affine_rounding<bfloat16>(product_kernels::wgmma, 130, 72, 264, how);
    check_affine_rounding<bfloat16>(product_kernels::mma, 40, 72, 264, how);
    check_affine_rounding<float>(product_kernels::mma, 40, 72, 130, how);
    check_rows_rounding<bfloat16>(33, 1030, how);
    check_rows_rounding<float>(33, 1027, how);
  }
}

TEST_CASE("ghost scores: what is not finite stays within its example") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  constexpr double infinity = std::numeric_limits<double>::infinity();
  constexpr index_t rows = 130, in = 72, out = 264;  // beyond the tiles lie zeros
  for (const auto kernels : {product_kernels::wgmma, product_kernels::mma}) {
    ghost_workspace workspace(policy, rows, out, rows);
    if (kernels == product_kernels::wgmma && workspace.device().kernels() != kernels) continue;
    workspace.device().use(kernels);
    std::vector<bfloat16> a(rows * in, to_bfloat16(1.0f)), e(rows * out, to_bfloat16(1.0f)),
        p(out * in, to_bfloat16(1.0f));
    a[3 * in + 5] = to_bfloat16(std::nanf(""));
    a[129 * in + 71] = to_bfloat16(static_cast<float>(infinity));
    e[7 * out + 263] = to_bfloat16(static_cast<float>(-infinity));
    const both_sides<bfloat16> inputs(policy, rows, in, in, 0, a),
        errors(policy, rows, out, out, 0, e), weight(policy, out, in, in, 0, p);
    const auto examples = examples_of(rows, rows, order::one_each, 0);
    const device_array<index_t> on_examples(policy, std::span(examples));
    device_array<double> scores(policy, rows);
    scores.fill_bytes(0);
    add_ghost_scores(
        policy, device_affine_trace<bfloat16>{inputs.view(), errors.view(), on_examples.view()},
        weight.view(), {}, scores.view(), workspace);
    std::vector<double> want(rows, in * out);
    want[3] = std::nan("");
    want[7] = -infinity;
    want[129] = infinity;
    CHECK(testing::first_difference(scores.to_host(), want) == -1);
  }
}

namespace {

template <class T>
void check_rows(index_t rows, index_t cols, index_t more, index_t skip, order how, index_t batch,
                index_t most_parts = 0) {
  CAPTURE(rows);
  CAPTURE(cols);
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  ghost_workspace workspace(policy, rows, 1, batch);
  if (most_parts > 0) workspace.device().limit_parts(most_parts);
  constexpr index_t vocabulary = 37;
  const auto x = whole<T>(policy, rows, cols, cols + more, skip, 31);
  const auto e = whole<T>(policy, rows, cols, cols + more, skip, 32);
  const auto table = whole<T>(policy, vocabulary, cols, cols + more, skip, 33);
  const auto p = whole<T>(policy, 1, cols, cols, skip, 34);
  const auto ids = examples_of(rows, vocabulary, order::shuffled, 35);
  const auto examples = examples_of(rows, batch, how, 36);
  const device_array<index_t> on_ids(policy, std::span(ids)),
      on_examples(policy, std::span(examples));
  auto want = some_scores(batch);
  const device_array<double> scores(policy, std::span(std::as_const(want)));
  add_ghost_scores(policy, device_embedding_trace<T>{on_ids.view(), e.view(), on_examples.view()},
                   table.view(), scores.view(), workspace);
  add_ghost_scores(policy, device_scale_trace<T>{x.view(), e.view(), on_examples.view()}, p.row(),
                   scores.view(), workspace);
  add_ghost_scores(policy, device_dense_trace<T>{x.view(), on_examples.view()}, p.row(),
                   scores.view(), workspace);
  workspace.check(policy);
  want = scores_by_loop(want, examples, [&](index_t t) {
    double sum = 0;
    for (index_t c = 0; c < cols; ++c)
      sum += e.at(t, c) * table.at(ids[static_cast<std::size_t>(t)], c) +
             e.at(t, c) * x.at(t, c) * p.at(0, c) + x.at(t, c) * p.at(0, c);
    return sum;
  });
  CHECK(testing::first_difference(scores.to_host(), want) == -1);
}

template <class T>
void check_rows_sizes() {
  check_rows<T>(1, 1, 0, 0, order::all_one, 1);
  check_rows<T>(31, 32, 0, 0, order::one_each, 31);
  check_rows<T>(33, 33, 0, 0, order::runs, 4);
  check_rows<T>(12, 3072, 0, 0, order::shuffled, 4);   // several runs
  check_rows<T>(3, 2504, 8, 8, order::runs, 2);        // the last run is short
  check_rows<T>(3, 1027, 5, 0, order::runs, 2);        // 16 bytes at a time, and a rest
  check_rows<T>(5, 1001, 0, 1, order::one_each, 900);  // odd
  check_rows<T>(600, 24, 0, 0, order::shuffled, 3, 256);
  check_rows<T>(1500, 8, 0, 0, order::all_one, 1);  // several tokens a thread, many threads
  check_rows<T>(1501, 8, 0, 0, order::shuffled, 2);
  check_rows<T>(0, 24, 0, 0, order::runs, 3);
  check_rows<T>(4, 0, 0, 0, order::runs, 3);
}

}  // namespace

TEST_CASE("ghost scores: embedding, scale and dense traces, exactly") {
  check_rows_sizes<bfloat16>();
  check_rows_sizes<float>();
  check_rows<float16>(40, 1032, 0, 0, order::shuffled, 6);
}

TEST_CASE("ghost scores: ids and examples out of range are reported, not read") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  ghost_workspace workspace(policy, 4, 1, 3);
  const auto e = whole<float>(policy, 4, 8, 8, 0, 41), table = whole<float>(policy, 5, 8, 8, 0, 42);
  const auto score = [&](const std::vector<index_t>& ids, const std::vector<index_t>& examples) {
    const device_array<index_t> on_ids(policy, std::span(ids)),
        on_examples(policy, std::span(examples));
    device_array<double> scores(policy, 3);
    scores.fill_bytes(0);
    add_ghost_scores(policy,
                     device_embedding_trace<float>{on_ids.view(), e.view(), on_examples.view()},
                     table.view(), scores.view(), workspace);
    return scores.to_host();
  };
  const auto good = score({0, 1, 2, 3}, {0, 1, 2, 2});
  workspace.check(policy);

  const auto bad_ids = score({0, 5, 2, -1}, {0, 1, 2, 2});
  CHECK(bad_ids[0] == good[0]);
  CHECK(std::isnan(bad_ids[1]));
  CHECK(std::isnan(bad_ids[2]));
  try {
    workspace.check(policy);
    FAIL("nothing was reported");
  } catch (const invalid_argument& error) {
    CHECK(std::string(error.what()).find("first token = 1") != std::string::npos);
  }
  workspace.check(policy);  // told once

  const auto bad_examples = score({0, 1, 2, 3}, {0, 1, 3, -1});
  CHECK(bad_examples[0] == good[0]);
  CHECK(bad_examples[1] == good[1]);
  CHECK(bad_examples[2] == 0);
  CHECK_THROWS_AS(workspace.check(policy), invalid_argument);
  CHECK(testing::first_difference(score({0, 1, 2, 3}, {0, 1, 2, 2}), good) == -1);
}

TEST_CASE("ghost scores: captured into a graph, launched twice") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const affine_case<bfloat16> trace(policy, {130, 72, 264}, true);
  const auto x = whole<bfloat16>(policy, 130, 40, 40, 0, 51);
  const auto p = whole<bfloat16>(policy, 1, 40, 40, 0, 52);
  const auto examples = examples_of(130, 6, order::runs, 0);
  const device_array<index_t> on_examples(policy, std::span(examples));
  ghost_workspace workspace(policy, 130, 264, 6);
  device_array<double> scores(policy, 6);
  scores.fill_bytes(0);
  const auto add = [&] {
    trace.add(policy, on_examples, scores, workspace);
    add_ghost_scores(policy, device_dense_trace<bfloat16>{x.view(), on_examples.view()}, p.row(),
                     scores.view(), workspace);
  };
  add();
  const auto once = scores.to_host();
  testing::replay_captured(policy, 2, add);
  const auto thrice = scores.to_host();
  for (std::size_t i = 0; i < once.size(); ++i) CHECK(thrice[i] == 3 * once[i]);
}

TEST_CASE("ghost scores: a thread whose first use of the device they are") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const affine_case<bfloat16> trace(policy, {130, 72, 264}, false);
  const auto examples = examples_of(130, 6, order::runs, 0);
  const device_array<index_t> on_examples(policy, std::span(examples));
  ghost_workspace workspace(policy, 130, 264, 6);
  const std::vector<double> none(6, 0.0);
  const device_array<double> scores(policy, std::span(none));
  std::string failed;
  std::thread([&] {
    try {
      trace.add(policy, on_examples, scores, workspace);
    } catch (const std::exception& error) {
      failed = error.what();
    }
  }).join();
  CHECK(failed == "");
  const auto want = scores_by_loop(none, examples, [&](index_t t) { return trace.token(t); });
  CHECK(testing::first_difference(scores.to_host(), want) == -1);
}

TEST_CASE("ghost scores: what does not fit is refused, with its sizes") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  ghost_workspace workspace(policy, 4, 256, 2);
  const auto a = whole<float>(policy, 4, 6, 6, 0, 61), e = whole<float>(policy, 4, 5, 5, 0, 62),
             p = whole<float>(policy, 5, 6, 6, 0, 63);
  const std::vector<index_t> four = {0, 0, 1, 1};
  const device_array<index_t> examples(policy, std::span(four));
  const device_array<double> scores(policy, 2), many(policy, 3);
  const auto refusal = [&](auto&&... arguments) {
    try {
      add_ghost_scores(policy, arguments...);
    } catch (const invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const device_affine_trace<float> good{a.view(), e.view(), examples.view()};
  const vector_view<const float, device_space> none;
  CHECK(refusal(good, e.view(), none, scores.view(), workspace).find("weight rows = 4") !=
        std::string::npos);
  CHECK(refusal(good, p.view(), a.row(), scores.view(), workspace).find("bias = 6") !=
        std::string::npos);
  CHECK(refusal(good, p.view(), none, many.view(), workspace).find("batch = 3") !=
        std::string::npos);
  CHECK(refusal(device_affine_trace<float>{a.view(), e.view(), {examples.data(), 3}}, p.view(),
                none, scores.view(), workspace)
            .find("examples = 3") != std::string::npos);
  CHECK(refusal(device_affine_trace<float>{a.view().transposed(), e.view(), examples.view()},
                p.view(), none, scores.view(), workspace)
            .find("rows = 6") != std::string::npos);
  CHECK(refusal(good, p.view().transposed().transposed().middle_rows(0, 4), none, scores.view(),
                workspace)
            .find("out = 5") != std::string::npos);
  CHECK(refusal(device_scale_trace<float>{a.view(), e.view(), examples.view()}, a.row(),
                scores.view(), workspace)
            .find("gradient columns = 5") != std::string::npos);
  CHECK(refusal(device_dense_trace<float>{a.view(), examples.view()}, e.row(), scores.view(),
                workspace)
            .find("columns = 6") != std::string::npos);
  CHECK(refusal(device_embedding_trace<float>{{examples.data(), 4}, a.view(), examples.view()},
                e.view(), scores.view(), workspace)
            .find("width = 6") != std::string::npos);
  CHECK_THROWS_AS(ghost_workspace(policy, -1, 1, 1), invalid_argument);
  CHECK_THROWS_AS(ghost_workspace(policy, 1, 1, index_t{1} << 31), invalid_argument);
  CHECK(refusal(good, p.view(), none, scores.view(), workspace).empty());
}

namespace {

/// E is 0 up to token `from`, and equal numbers from there on, as A and P are.
void check_last_tokens(const exec::cuda& policy, index_t rows, index_t from, index_t out) {
  constexpr index_t in = 64;
  device_array<bfloat16> e(policy, rows * out), a(policy, rows * in), p(policy, out * in);
  a.fill_bytes(0x3f);
  p.fill_bytes(0x3f);
  e.fill_bytes(0);
  REQUIRE(cudaMemsetAsync(e.data() + from * out, 0x3f,
                          static_cast<std::size_t>((rows - from) * out) * sizeof(bfloat16),
                          policy.stream) == cudaSuccess);
  const double one = convert_float<double>(bfloat16{0x3f3f});
  std::vector<index_t> examples = examples_of(rows, rows, order::one_each, 0);
  const device_array<index_t> on_examples(policy, std::span(std::as_const(examples)));
  for (const auto kernels : {product_kernels::wgmma, product_kernels::mma}) {
    ghost_workspace workspace(policy, rows, out, rows);
    if (kernels == product_kernels::wgmma && workspace.device().kernels() != kernels) continue;
    workspace.device().use(kernels);
    device_array<double> scores(policy, rows);
    scores.fill_bytes(0);
    add_ghost_scores(policy,
                     device_affine_trace<bfloat16>{
                         {a.data(), rows, in}, {e.data(), rows, out}, on_examples.view()},
                     {p.data(), out, in}, {}, scores.view(), workspace);
    const auto got = scores.to_host();
    const double want = one * one * one * static_cast<double>(in) * static_cast<double>(out);
    const double allowed = std::numeric_limits<float>::epsilon() * (in + 300) * want;
    index_t beyond = 0;
    for (index_t t = 0; t < rows; ++t) {
      const double score = got[static_cast<std::size_t>(t)];
      beyond += t < from ? score != 0 : !(std::abs(score - want) <= allowed);
    }
    CHECK(beyond == 0);
  }
}

}  // namespace

TEST_CASE("ghost scores: the last tokens alone have an error") {
  const own_stream stream;
  check_last_tokens(stream.policy(), 140, 129, 520);
}

TEST_CASE("ghost scores: more than 2^31 and 2^32 elements") {
  const own_stream stream;
  constexpr index_t out = 131072;
  for (const index_t rows : {17000, 33000})
    if (testing::has_memory_for(static_cast<std::size_t>(rows * out) * 2))
      check_last_tokens(stream.policy(), rows, rows - 200, out);  // their rows begin beyond
}
