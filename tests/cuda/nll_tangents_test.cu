// Proves: the device's loss and its tangent, of whole rows and of chunks of columns, are the
// host's within a stated rounding; ignored rows are not read; means over examples. Against: the
// host's nll_rates and plain sums in double.
#include <doctest/doctest.h>

#include <dualsft/llm/nll_tangents.cuh>

#include "tangent_values.cuh"

using namespace dualsft;
using namespace dualsft::llm;
using namespace dualsft::testing;
using dualsft::detail::device_array;

namespace {

template <class T>
device_array<T> copied(const exec::cuda& policy, const std::vector<T>& from) {
  device_array<T> out(policy, std::span<const T>(from));
  dualsft::detail::cuda_check(cudaStreamSynchronize(policy.stream), "copied");
  return out;
}

/// Losses and their tangents, and how far float sums may be from them.
struct losses {
  std::vector<double> nll, rate, nll_error, rate_error;
};

/// A thread adds up to cols / 32 terms in float; each is off by 2 + |z - top| units of 2^-24.
template <class T>
losses plain_losses(const std::vector<T>& z, index_t cols, const std::vector<index_t>& labels) {
  losses out;
  row_matrix<double> wide = in_double(z, cols);
  const row_matrix<double> before = wide;
  std::vector<index_t> known = labels;
  for (index_t& label : known) label = std::max<index_t>(label, 0);
  llm::detail::nll_rates<double> host(known);
  host.add(testing::pool(), wide, 0);
  const auto rows = static_cast<index_t>(labels.size());
  for (index_t t = 0; t < rows; ++t) {
    const bool used = labels[static_cast<std::size_t>(t)] >= 0;
    const double top = before.row(t).maxCoeff();
    double sum = 0, weighted = 0, spread = 0;
    for (index_t v = 0; v < cols; ++v) {
      const double e = std::exp(before(t, v) - top);
      sum += e;
      if (e == 0) continue;
      weighted += e * std::fabs(before(rows + t, v));
      spread += e * (top - before(t, v)) * (1 + std::fabs(before(rows + t, v)));
    }
    const double units = (8 + static_cast<double>(cols) / 32) * 0x1p-24;
    out.nll.push_back(used ? std::log(sum) + top - before(t, known[static_cast<std::size_t>(t)])
                           : 0);
    out.rate.push_back(used ? host.rate(t) : 0);
    out.nll_error.push_back(units * (1 + spread / sum));
    out.rate_error.push_back(2 * units * (weighted + spread) / sum +
                             units * (1 + spread / sum) * weighted / sum);
  }
  return out;
}

void check_losses(const std::vector<double>& nll, const std::vector<double>& rate,
                  const losses& expected) {
  REQUIRE(nll.size() == expected.nll.size());
  for (std::size_t t = 0; t < nll.size(); ++t) {
    CAPTURE(t);
    CHECK(std::fabs(nll[t] - expected.nll[t]) <= expected.nll_error[t]);
    CHECK(std::fabs(rate[t] - expected.rate[t]) <= expected.rate_error[t]);
  }
}

/// Every third is ignored.
std::vector<index_t> some_labels(index_t rows, index_t vocabulary) {
  std::vector<index_t> labels;
  for (index_t t = 0; t < rows; ++t)
    labels.push_back(t % 3 == 1 ? -100 : (t == 0 ? vocabulary - 1 : 31 * t % vocabulary));
  return labels;
}

template <class T>
void check_rows(index_t rows, index_t vocabulary, double scale, lie how) {
  CAPTURE(rows);
  CAPTURE(vocabulary);
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const std::vector<index_t> labels = some_labels(rows, vocabulary);
  std::vector<T> z = filled<T>(2 * rows * vocabulary, 1, scale);
  const losses expected = plain_losses(z, vocabulary, labels);
  for (index_t t = 1; t < rows; t += 3)  // would show if it were read
    z[static_cast<std::size_t>(t * vocabulary)] = convert_float<T>(std::nanf(""));
  const device_rows<T> logits(policy, rows, vocabulary, how, z);
  const auto wide_labels = copied(policy, labels);
  const std::vector<std::int32_t> narrow(labels.begin(), labels.end());
  const auto narrow_labels = copied(policy, narrow);
  const device_array<double> nll(policy, rows), rate(policy, rows);

  nll_tangent(policy, wide_labels.view(), logits.view(), nll.view(), rate.view());
  const std::vector<double> values = nll.to_host(), rates = rate.to_host();
  check_losses(values, rates, expected);
  nll_tangent(policy, narrow_labels.view(), logits.read(), nll.view(), rate.view());
  CHECK(first_difference(nll.to_host(), values) == -1);
  CHECK(first_difference(rate.to_host(), rates) == -1);

  nll_tangents<std::int32_t> sums(policy, rows + 1);
  for (const index_t chunk : {vocabulary, (vocabulary + 1) / 2, index_t{40}})
    for (const bool backwards : {false, true}) {
      sums.begin(policy, narrow_labels.view(), vocabulary);
      const index_t chunks = (vocabulary + chunk - 1) / chunk;
      for (index_t c = 0; c < chunks; ++c) {
        const index_t first = chunk * (backwards ? chunks - 1 - c : c);
        const index_t cols = std::min(chunk, vocabulary - first);
        tangent_rows<T> part = logits.view();
        for (auto* m : {&part.values, &part.tangents})
          *m = {rows > 0 ? m->data() + first : nullptr, rows, cols, m->row_stride(), 1};
        sums.add(policy, part, first);
      }
      sums.finish(policy, nll.view(), rate.view());
      check_losses(nll.to_host(), rate.to_host(), expected);
    }
}

}  // namespace

TEST_CASE_TEMPLATE("losses and their tangents", T, float, bfloat16, float16) {
  for (const index_t vocabulary : {1, 2, 31, 32, 33, 255, 1000, 4104})
    check_rows<T>(5, vocabulary, 3, {});
  check_rows<T>(1, 20'000, 10, {});
  check_rows<T>(0, 40, 1, {});
  for (const lie how : ways_to_lie()) check_rows<T>(4, 320, 3, how);
  if (!is_small_run())
    for (const index_t vocabulary : {32'000, 128'256, 151'936, 262'144})
      check_rows<T>(64, vocabulary, 4, {});
}

TEST_CASE("logits that are equal, far apart, infinite or no numbers") {
  const exec::cuda policy;
  const auto labels = copied<index_t>(policy, {0, 1, 2, 0, 0, 0});
  const index_t cols = 40;
  std::vector<float> z(static_cast<std::size_t>(12 * cols), 0.25F);
  const auto at = [&](index_t row, index_t col) -> float& {
    return z[static_cast<std::size_t>(row * cols + col)];
  };
  at(1, 0) = 1e30F;  // takes all
  at(2, 7) = -std::numeric_limits<float>::infinity();
  at(3, 7) = std::numeric_limits<float>::infinity();
  at(4, 7) = std::nanf("");
  at(6 + 5, 7) = std::nanf("");
  at(6 + 1, 0) = 3;
  const device_rows<float> logits(policy, 6, cols, {}, z);
  const device_array<double> nll(policy, 6), rate(policy, 6);
  nll_tangent(policy, labels.view(), logits.view(), nll.view(), rate.view());
  const std::vector<double> values = nll.to_host(), rates = rate.to_host();
  CHECK(values[0] == doctest::Approx(std::log(40.0)).epsilon(1e-6));
  CHECK(std::fabs(rates[0]) < 1e-6);
  CHECK(values[1] == doctest::Approx(1e30).epsilon(1e-6));
  CHECK(rates[1] == 2.75);
  CHECK(values[2] == doctest::Approx(std::log(39.0)).epsilon(1e-6));
  CHECK(std::isnan(rates[3]));
  CHECK(std::isnan(rates[4]));
  CHECK(std::isfinite(values[5]));
  CHECK(std::isnan(rates[5]));
}

TEST_CASE("a label beyond the vocabulary shows") {
  const exec::cuda policy;
  const auto labels = copied<index_t>(policy, {3, 4});
  const device_rows<float> logits(policy, 2, 4, {}, filled<float>(16, 1));
  const device_array<double> nll(policy, 2), rate(policy, 2);
  const auto check = [&] {
    const std::vector<double> values = nll.to_host(), rates = rate.to_host();
    CHECK(std::isfinite(values[0]));
    CHECK(std::isfinite(rates[0]));
    CHECK(std::isnan(values[1]));
    CHECK(std::isnan(rates[1]));
  };
  nll_tangent(policy, labels.view(), logits.view(), nll.view(), rate.view());
  check();
  nll_tangents<> sums(policy, 2);
  sums.begin(policy, labels.view(), 4);
  sums.add(policy, logits.view(), 0);
  sums.finish(policy, nll.view(), rate.view());
  check();
}

TEST_CASE("means over examples") {
  const exec::cuda policy;
  const std::vector<index_t> begins{0, 1, 1, 4, 104, 108};
  std::vector<index_t> labels(108, 5);
  labels[2] = -100;
  for (std::size_t t = 104; t < 108; ++t) labels[t] = -1;
  std::vector<double> values;
  for (int t = 0; t < 108; ++t) values.push_back(t);
  const auto v = copied(policy, values);
  const auto l = copied(policy, labels), b = copied(policy, begins);
  const device_array<double> means(policy, 5);
  mean_by_example(policy, v.view(), l.view(), b.view(), means.view());
  const std::vector<double> found = means.to_host();
  CHECK(found[0] == 0);
  CHECK(std::isnan(found[1]));
  CHECK(found[2] == 2);  // of 1 and 3
  CHECK(found[3] == 53.5);
  CHECK(std::isnan(found[4]));
}

TEST_CASE("graphs capture the functions, and give the same bits") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const auto labels = copied<index_t>(policy, {3, -100, 60});
  const auto begins = copied<index_t>(policy, {0, 2, 3});
  const device_rows<bfloat16> z(policy, 3, 64, {}, filled<bfloat16>(384, 2));
  const device_array<double> nll(policy, 3), rate(policy, 3), means(policy, 2);
  nll_tangents<> sums(policy, 3);
  const auto twice = [&](auto&& work) {
    check_capture(stream, work, [&] { return means.to_host(); });
  };
  twice([&](const exec::cuda& on) {
    nll_tangent(on, labels.view(), z.view(), nll.view(), rate.view());
    mean_by_example(on, rate.view(), labels.view(), begins.view(), means.view());
  });
  twice([&](const exec::cuda& on) {
    sums.begin(on, labels.view(), 64);
    sums.add(on, z.view(), 0);
    sums.finish(on, nll.view(), rate.view());
    mean_by_example(on, nll.view(), labels.view(), begins.view(), means.view());
  });
}

TEST_CASE("more than 2^31 logits") {
  std::size_t free = 0, total = 0;
  REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
  const index_t vocabulary = 128'256, rows = 17'000;
  if (is_small_run() || free / 5 < static_cast<std::size_t>(rows * vocabulary)) {
    MESSAGE("skipped: this takes 10 GB");
    return;
  }
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  device_array<bfloat16> z(policy, 2 * rows * vocabulary);
  z.fill_bytes(0);
  const bfloat16 one = to_bfloat16(1.0F);
  REQUIRE(cudaMemcpyAsync(z.data() + z.size() - 1, &one, 2, cudaMemcpyHostToDevice,
                          policy.stream) == cudaSuccess);  // the last tangent
  const auto labels = copied(policy, std::vector<index_t>(static_cast<std::size_t>(rows), 5));
  const device_array<double> nll(policy, rows), rate(policy, rows);
  nll_tangent(policy, labels.view(),
              stacked(matrix_view<bfloat16, device_space>(z.data(), 2 * rows, vocabulary)),
              nll.view(), rate.view());
  const std::vector<double> values = nll.to_host(), rates = rate.to_host();
  for (std::size_t t = 0; t < values.size(); ++t) {
    REQUIRE(values[t] == doctest::Approx(std::log(static_cast<double>(vocabulary))).epsilon(1e-9));
    REQUIRE(rates[t] == (t + 1 < values.size() ? 0 : 1.0 / static_cast<double>(vocabulary)));
  }
}

TEST_CASE("what callers get wrong") {
  const exec::cuda policy;
  const auto labels = copied<index_t>(policy, {0, 1});
  const device_rows<float> z(policy, 2, 8, {}), none(policy, 2, 0, {});
  const device_array<double> two(policy, 2), three(policy, 3);
  CHECK_THROWS_WITH_AS(nll_tangent(policy, labels.view(), z.view(), three.view(), two.view()),
                       doctest::Contains("vector = nll, size = 3, expected = 2"), invalid_argument);
  CHECK_THROWS_WITH_AS(nll_tangent(policy, labels.view(), none.view(), two.view(), two.view()),
                       doctest::Contains("there must be logits"), invalid_argument);
  nll_tangents<> sums(policy, 2);
  sums.begin(policy, labels.view(), 10);
  CHECK_THROWS_WITH_AS(sums.add(policy, z.view(), 3),
                       doctest::Contains("(first = 3, cols = 8, vocabulary = 10)"),
                       invalid_argument);
  nll_tangents<> small(policy, 1);
  CHECK_THROWS_WITH_AS(small.begin(policy, labels.view(), 10),
                       doctest::Contains("(rows = 2, most_rows = 1)"), invalid_argument);
  CHECK_THROWS_WITH_AS(
      mean_by_example(policy, two.view(), labels.view(), labels.view(), two.view()),
      doctest::Contains("vector = begins, size = 2, expected = 3"), invalid_argument);
}
