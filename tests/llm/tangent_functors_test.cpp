// Proves: an element's arithmetic in the device's forward derivative (norms, gates, rotations, the
// loss) is the derivative of its values. Against: the host's kernels, differences of the values in
// double, limits.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <dualsft/llm/detail/tangent_device.hpp>
#include <dualsft/llm/detail/tangent_kernels.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <vector>

using namespace dualsft;
using namespace dualsft::llm;
using namespace dualsft::llm::detail;
using doctest::Approx;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// (f(x + h d) - f(x - h d)) / 2 h; off by some h^2 f''' and eps |f| / h.
template <class F>
double difference(F&& f) {
  constexpr double h = 1e-5;
  return (f(h) - f(-h)) / (2 * h);
}

template <class S>
row_matrix<S> normal(index_t rows, index_t cols, std::uint64_t seed) {
  random_source random(seed);
  row_matrix<S> out(rows, cols);
  for (index_t i = 0; i < out.size(); ++i) out.data()[i] = static_cast<S>(random.normal());
  return out;
}

worker_pool& pool() {
  static worker_pool one(1);
  return one;
}

constexpr gate_activation both_gates[] = {gate_activation::silu, gate_activation::gelu_tanh};

}  // namespace

TEST_CASE("gates are the host's, and their tangents the values' derivatives") {
  for (const gate_activation kind : both_gates) {
    const row_matrix<double> g = 3.0 * normal<double>(2, 200, 1), u = normal<double>(2, 200, 2);
    row_matrix<double> host = g;
    gate_tangent(pool(), kind, host, u);
    for (index_t i = 0; i < 200; ++i) {
      const auto at = [&](double h) {
        return gated(kind, g(0, i) + h * g(1, i), 0.0, u(0, i) + h * u(1, i), 0.0).value;
      };
      const value_tangent<double> m = gated(kind, g(0, i), g(1, i), u(0, i), u(1, i));
      CHECK(m.value == Approx(host(0, i)).epsilon(1e-13));
      CHECK(m.tangent == Approx(host(1, i)).epsilon(1e-12));
      CHECK(m.tangent == Approx(difference(at)).epsilon(1e-7));
      const auto f = [](double x) { return static_cast<float>(x); };
      const value_tangent<float> rounded =
          gated(kind, f(g(0, i)), f(g(1, i)), f(u(0, i)), f(u(1, i)));
      CHECK(rounded.value == Approx(m.value).epsilon(1e-5));  // 2^-24 (1 + |z|), some of them
      CHECK(rounded.tangent == Approx(m.tangent).epsilon(1e-5).scale(1 + std::fabs(g(1, i))));
    }
  }
}

TEST_CASE("gates far out: no overflow, no cancellation") {
  for (const gate_activation kind : both_gates) {
    for (const float x : {30.0F, 100.0F, 1e4F, 1e12F}) {
      const value_tangent<float> right = gated(kind, x, 1.0F, 2.0F, 0.0F);
      CHECK(right.value == 2 * x);
      CHECK(right.tangent == Approx(2));
      const value_tangent<float> left = gated(kind, -x, 1.0F, 2.0F, 3.0F);
      CHECK(std::fabs(left.value) < 1e-10F);
      CHECK(std::fabs(left.tangent) < 1e-8F);
    }
    const value_tangent<float> zero = gated(kind, 0.0F, 1.0F, 2.0F, 3.0F);
    CHECK(zero.value == 0);
    CHECK(zero.tangent == 1);  // f' = 1/2
    CHECK(std::isnan(gated(kind, std::nanf(""), 1.0F, 1.0F, 1.0F).value));
    CHECK(std::isnan(gated(kind, 1.0F, std::nanf(""), 1.0F, 1.0F).tangent));
  }
}

TEST_CASE("norms are the host's, and their tangents the values' derivatives") {
  for (const index_t width : {1, 2, 31, 64})
    for (const double offset : {0.0, 1.0}) {
      const row_matrix<double> x = normal<double>(2, width, 3), w = normal<double>(2, width, 4);
      const norm<double> n{w.data(), width, 1e-3, offset};
      row_matrix<double> host;
      norm_tangent(pool(), n, x, w.data() + width, host);
      const auto all = [&](double h) {
        norm_sums<double> sums;
        for (index_t i = 0; i < width; ++i) sums.add(x(0, i) + h * x(1, i), x(1, i));
        return norm_factors<double>(sums, width, 1e-3);
      };
      for (index_t i = 0; i < width; ++i) {
        const auto at = [&](double h) {
          return all(h)(x(0, i) + h * x(1, i), 0.0, w(0, i) + h * w(1, i) + offset, 0.0).value;
        };
        const value_tangent<double> y = all(0)(x(0, i), x(1, i), w(0, i) + offset, w(1, i));
        CHECK(y.value == Approx(host(0, i)).epsilon(1e-13));
        CHECK(y.tangent == Approx(host(1, i)).epsilon(1e-12));
        CHECK(y.tangent == Approx(difference(at)).epsilon(1e-7));
      }
    }
}

TEST_CASE("sums of a norm add up in any grouping") {
  norm_sums<double> all, left, right;
  for (int i = 0; i < 10; ++i) {
    all.add(i, 2);
    (i < 4 ? left : right).add(i, 2);
  }
  left.add(right);
  CHECK(left.squares == all.squares);
  CHECK(left.products == all.products);
}

TEST_CASE("turns are the host's") {
  const rotation_table<double> table(rope_config{}, 8, 5);
  row_matrix<double> x = normal<double>(2, 16, 5);
  const row_matrix<double> before = x;
  table.turn(pool(), {3}, x, 1.0);
  for (index_t t = 0; t < 2; ++t)
    for (index_t head = 0; head < 2; ++head)
      for (index_t k = 0; k < 4; ++k) {
        const std::size_t at = 3 * 4 + static_cast<std::size_t>(k);
        const turned<double> pair(before(t, 8 * head + k), before(t, 8 * head + 4 + k),
                                  table.cosines[at], table.sines[at]);
        CHECK(pair.a == Approx(x(t, 8 * head + k)).epsilon(1e-15));
        CHECK(pair.b == Approx(x(t, 8 * head + 4 + k)).epsilon(1e-15));
      }
}

TEST_CASE("the loss and its tangent, in pieces, are those of whole rows") {
  constexpr index_t vocabulary = 97;
  const row_matrix<float> z = 4.0F * normal<float>(2, vocabulary, 6);
  const std::vector<index_t> label{41};
  nll_rates<float> host(label);
  row_matrix<float> copy = z;
  host.add(pool(), copy, 0);
  const auto plain = [&](double h) {
    double sum = 0;
    for (index_t v = 0; v < vocabulary; ++v)
      sum += std::exp(static_cast<double>(z(0, v)) + h * static_cast<double>(z(1, v)));
    return std::log(sum) - static_cast<double>(z(0, 41)) - h * static_cast<double>(z(1, 41));
  };
  // Pieces of 10, in this order and from the end; a float sum of 10 is off by some 10 2^-24.
  for (const bool backwards : {false, true}) {
    nll_row row;
    row.label = z(0, 41);
    row.label_rate = z(1, 41);
    for (index_t piece = 0; piece < 10; ++piece) {
      const index_t first = 10 * (backwards ? 9 - piece : piece);
      softmax_sums<float> sums;
      for (index_t v = first; v < std::min(first + 10, vocabulary); ++v) {
        if (z(0, v) > sums.top) sums.raise(z(0, v));
        sums.add(z(0, v), z(1, v));
      }
      row.add(sums.top, static_cast<double>(sums.sum), static_cast<double>(sums.weighted));
    }
    CHECK(row.nll() == Approx(plain(0)).epsilon(1e-6));
    CHECK(row.rate() == Approx(difference(plain)).epsilon(1e-6));
    CHECK(row.rate() == Approx(host.rate(0)).epsilon(1e-6));
  }
}

TEST_CASE("logits of minus infinity weigh nothing, one of plus infinity shows") {
  softmax_sums<double> sums;
  sums.add(-infinity, 5);
  CHECK(sums.sum == 0);
  sums.raise(2);
  sums.add(2, 7);
  sums.add(-infinity, 5);
  CHECK(sums.sum == 1);
  CHECK(sums.weighted == 7);
  nll_row row;
  row.add(std::numeric_limits<float>::lowest(), 0, 0);  // a piece of minus infinities alone
  row.add(2, 1, 7);
  CHECK(row.nll() == 2);
  CHECK(row.rate() == 7);
  row.add(std::numeric_limits<float>::infinity(), 1, 1);
  CHECK(std::isnan(row.rate()));
}
