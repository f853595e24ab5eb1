// Proves: pass 1 adds every example's gradient once, in double, whatever batches and threads.
// Against: plain sums over the explicit gradient matrix; a model of known numbers for float drift.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/gradients.hpp>
#include <dualsft/models/softmax_regression.hpp>

#include "support/explicit_gradients.hpp"

using namespace dualsft;
using testing::all_examples;
using testing::explicit_gradients;

namespace {

softmax_regression<double> small_model(index_t n = 33) {
  return softmax_regression<double>(
      random_labelled_data<double>({.examples = n, .features = 5, .classes = 4, .seed = 3}), 7);
}

/// Every gradient is the constant `value` in float, delivered block by block or whole.
struct constant_float_model {
  using scalar_type = float;
  parameter_layout map;
  float value = 0.1F;
  constant_float_model() { map.add("w", 2, 1); }
  const parameter_layout& layout() const { return map; }
  void losses(example_span, std::span<double>) const {}
  void accumulate_gradient(example_span examples, std::span<float> out) const {
    for (std::size_t k = 0; k < examples.size(); ++k)
      for (float& x : out) x += value;
  }
};

/// A layout of two blocks of three, and one block delivered under a number and a size of choice.
struct careless_model {
  using scalar_type = double;
  parameter_layout map;
  index_t block = 0;
  std::vector<double> values;
  careless_model(index_t number, std::size_t size) : block(number), values(size, 1.0) {
    map.add("a", 3, 1);
    map.add("b", 3, 1);
  }
  const parameter_layout& layout() const { return map; }
  void losses(example_span, std::span<double>) const {}
  void accumulate_gradient(example_span, std::span<double>) const {}
  template <class Sink>
  void gradient_blocks(example_span, Sink&& sink) const {
    sink(block, std::span<const double>(values));
  }
};

}  // namespace

TEST_CASE("a model that delivers a block its layout does not have is refused") {
  const std::vector<index_t> examples{0};
  CHECK_NOTHROW(sum_gradients(exec::cpu{1}, careless_model(1, 3), examples));
  CHECK_THROWS_WITH_AS(sum_gradients(exec::cpu{1}, careless_model(1, 4), examples),
                       doctest::Contains("values = 4, size = 3"), invalid_argument);
  CHECK_THROWS_AS(sum_gradients(exec::cpu{1}, careless_model(0, 2), examples), invalid_argument);
  CHECK_THROWS_AS(sum_gradients(exec::cpu{1}, careless_model(2, 3), examples), invalid_argument);
  CHECK_THROWS_AS(sum_gradients(exec::cpu{1}, careless_model(-1, 3), examples), invalid_argument);
}

TEST_CASE("sums of gradients and squares equal the explicit matrix's") {
  const auto model = small_model();
  auto examples = all_examples(33);
  examples.push_back(4);  // a repeated record counts again
  const std::vector<double> g = explicit_gradients(model, examples);
  const auto d = static_cast<std::size_t>(model.layout().size());
  for (const int threads : {1, 2, 3, 64}) {
    for (const index_t batch : {1, 2, 7, 100}) {
      CAPTURE(threads);
      CAPTURE(batch);
      const gradient_sums sums = sum_gradients(exec::cpu{threads}, model, examples,
                                               {.batch_size = batch, .squares = true});
      CHECK(sums.examples == 34);
      for (std::size_t j = 0; j < d; ++j) {
        double sum = 0;
        double squares = 0;
        double magnitude = 0;
        for (std::size_t i = 0; i < 34; ++i) {
          sum += g[i * d + j];
          squares += g[i * d + j] * g[i * d + j];
          magnitude += std::abs(g[i * d + j]);
        }
        // Rounding of a sum of 34 terms, each good to a few eps of the example's own arithmetic.
        CHECK(std::abs(sums.sum[j] - sum) <= 100 * 2.3e-16 * magnitude);
        CHECK(std::abs(sums.squares[j] - squares) <= 100 * 2.3e-16 * squares);
      }
    }
  }
}

TEST_CASE("no examples sum to zero") {
  const auto model = small_model(3);
  const gradient_sums sums = sum_gradients(exec::cpu{2}, model, {}, {.squares = true});
  CHECK(sums.examples == 0);
  CHECK(sums.sum == std::vector<double>(static_cast<std::size_t>(model.layout().size()), 0.0));
  CHECK(sums.squares.size() == sums.sum.size());
  CHECK(mean_loss(exec::cpu{2}, model, {}) == 0.0);
}

TEST_CASE("a thousand batches of float gradients do not drift") {
  // Summing 0.1f a hundred thousand times in float is off by 1e-4 relative; in double it is exact
  // to the float's own value.
  const constant_float_model model;
  const auto examples = std::vector<index_t>(100000, 0);
  const gradient_sums sums = sum_gradients(exec::cpu{1}, model, examples, {.batch_size = 1});
  CHECK(sums.sum[0] == doctest::Approx(100000 * static_cast<double>(0.1F)).epsilon(1e-12));
}

TEST_CASE("equal threads give equal bits, and losses do not depend on threads or batches") {
  const auto model = small_model(100);
  const auto examples = all_examples(100);
  const auto sums = [&] { return sum_gradients(exec::cpu{3}, model, examples).sum; };
  CHECK(sums() == sums());
  const double reference = mean_loss(exec::reference{}, model, examples, 1);
  CHECK(mean_loss(exec::cpu{4}, model, examples, 9) == doctest::Approx(reference).epsilon(1e-14));
}

TEST_CASE("a pass cut at its batches gives the bits of the whole one") {
  const softmax_regression<double> model = small_model(50);
  const std::vector<index_t> pool = all_examples(50);
  const exec::cpu one{1};
  for (const bool squares : {false, true}) {
    const gradient_options options{.batch_size = 8, .squares = squares};
    const gradient_sums whole = sum_gradients(one, model, pool, options);
    gradient_sums sums;
    for (const auto& [first, count] : {std::pair{0, 16}, std::pair{16, 24}, std::pair{40, 10}})
      add_gradients(one, model,
                    example_span(pool).subspan(static_cast<std::size_t>(first),
                                               static_cast<std::size_t>(count)),
                    options, sums);
    CHECK(sums.examples == 50);
    CHECK(sums.sum == whole.sum);
    CHECK(sums.squares == whole.squares);
    CHECK_THROWS_WITH_AS(
        add_gradients(one, model, pool, {.batch_size = 8, .squares = !squares}, sums),
        doctest::Contains("squares are summed from the first call on or never"), invalid_argument);
  }
}

TEST_CASE("losses come with the gradients, in the order of the list") {
  const softmax_regression<double> model = small_model();
  const std::vector<index_t> examples{5, 3, 3, 30, 0, 11};
  std::vector<double> expected(examples.size());
  model.losses(examples, expected);
  std::vector<double> losses(examples.size());
  for (const int threads : {1, 3}) {
    sum_gradients(exec::cpu{threads}, model, examples, {.batch_size = 2, .losses = losses});
    CHECK(losses == expected);
  }
  CHECK_THROWS_WITH_AS(
      sum_gradients(exec::cpu{1}, model, examples, {.losses = std::span<double>(losses).first(2)}),
      doctest::Contains("losses must hold one number per example"), invalid_argument);
}

TEST_CASE("a batch size of zero is refused, and a throwing model's exception arrives") {
  const auto model = small_model();
  const auto examples = all_examples(33);
  CHECK_THROWS_WITH_AS(sum_gradients(exec::cpu{}, model, examples, {.batch_size = 0}),
                       "add_gradients: batch_size must be positive (batch_size = 0)",
                       invalid_argument);
  const std::vector<index_t> outside{0, 1, 99};
  CHECK_THROWS_AS(sum_gradients(exec::cpu{2}, model, outside, {.batch_size = 1}), invalid_argument);
}
