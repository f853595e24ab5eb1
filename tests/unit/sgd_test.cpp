// Proves: sgd is SGD with momentum and decoupled decay, and masked_sgd is sgd on the selected ones.
// Against: the textbook formula in double, PyTorch's numbers, the dense optimizer bit for bit.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/optim/masked_sgd.hpp>
#include <dualsft/optim/sgd.hpp>
#include <limits>
#include <support/optim.hpp>
#include <utility>
#include <vector>

using namespace dualsft;
using namespace dualsft::testing;

namespace {

template <class Real>
std::span<const Real> read(const std::vector<Real>& values) {
  return values;
}

const sgd_options choices[] = {
    {},
    {.weight_decay = 0.1},
    {.momentum = 0.9},
    {.momentum = 0.9, .kind = momentum_kind::nesterov, .weight_decay = 0.1},
};

}  // namespace

TEST_CASE_TEMPLATE("three steps give PyTorch's numbers", Real, float, double) {
  // torch 2.15.0, one thread: torch.optim.SGD([p], momentum=0.9, nesterov=..., foreach=False,
  // fused=False), learning rates 1e-3, 2e-3, 5e-4, p in float64. No weight decay: PyTorch's differs.
  const double heavy[4] = {0.49900500000000003, -1.2465600000000001, 2.9999990445, 0.0036025};
  const double nesterov[4] = {0.4986045, -1.244904, 2.99999854005, 0.0037735};
  const double velocity[4] = {1.09, -1.08, 0.000151, 1.2200000000000002};
  const double gradients[3][4] = {
      {0.25, -0.5, 1e-4, 2.0}, {-0.125, -0.75, 3e-4, -1.0}, {1.0, 0.0, -2e-4, 0.5}};
  const double rates[3] = {1e-3, 2e-3, 5e-4};
  // Each step rounds theta twice and a velocity of at most 3 a few times.
  const double eps = std::numeric_limits<Real>::epsilon();
  for (const auto kind : {momentum_kind::heavy_ball, momentum_kind::nesterov}) {
    const double* expected = kind == momentum_kind::nesterov ? nesterov : heavy;
    std::vector<Real> theta{Real(0.5), Real(-1.25), Real(3), Real(0.0078125)};
    sgd<Real> optimizer(4, {.momentum = 0.9, .kind = kind});
    for (int k = 0; k < 3; ++k) {
      std::vector<Real> gradient(gradients[k], gradients[k] + 4);
      optimizer.step(exec::cpu{1}, std::span<Real>(theta), read(gradient), rates[k]);
    }
    for (std::size_t i = 0; i < 4; ++i) {
      CAPTURE(i);
      CHECK(std::abs(static_cast<double>(theta[i]) - expected[i]) <=
            eps * (6 * std::abs(expected[i]) + 30 * 6e-3));
      CHECK(std::abs(static_cast<double>(optimizer.velocity()[i]) - velocity[i]) <= 20 * eps);
    }
  }
}

TEST_CASE_TEMPLATE("many steps follow the textbook", Real, float, double) {
  constexpr index_t d = 33;
  constexpr int steps = 100;
  constexpr double lr = 1e-2;
  for (const sgd_options& options : choices) {
    random_source random(5);
    std::vector<Real> theta(d, Real(1));
    std::vector<double> expected(d, 1.0), b(d, 0.0);
    sgd<Real> optimizer(d, options);
    for (int k = 0; k < steps; ++k) {
      std::vector<Real> gradient(d);
      for (auto& g : gradient) g = static_cast<Real>(random.normal());
      optimizer.step(exec::cpu{1}, std::span<Real>(theta), read(gradient), lr);
      for (std::size_t i = 0; i < d; ++i) {
        const auto g = static_cast<double>(gradient[i]);
        b[i] = options.momentum * b[i] + g;
        const double along =
            options.kind == momentum_kind::nesterov ? g + options.momentum * b[i] : b[i];
        expected[i] -= lr * (along + options.weight_decay * expected[i]);
      }
    }
    // Per step: three roundings of theta (|theta| < 10), and a step of at most 40 lr.
    const double eps = std::numeric_limits<Real>::epsilon();
    for (std::size_t i = 0; i < d; ++i)
      CHECK(std::abs(static_cast<double>(theta[i]) - expected[i]) <= steps * eps * (10 + 100 * lr));
  }
}

TEST_CASE_TEMPLATE("policies, threads, cuts and masks change no bit", Real, float, double) {
  random_source random(23);
  for (const sgd_options& options : choices)
    for (const index_t d : {0, 1, 2, 3, 31, 32, 33, 255, 257, 1000, 140000})
      for (const double density : {0.0, 0.1, 1.0}) {
        CAPTURE(d);
        CAPTURE(density);
        const index_set selected = random_mask(d, density, random);
        const std::vector<Real> start = heavy_values<Real>(d, random);
        std::vector<Real> a = start, b = start, c = start, e = start, f = start;
        sgd<Real> reference(d, options), cpu = reference;
        masked_sgd<Real> masked(selected, options), masked_reference = masked, compact = masked;
        for (int k = 0; k < 3; ++k) {
          const std::vector<Real> gradient = heavy_values<Real>(d, random);
          std::vector<Real> picked;
          for (const index_t i : selected.indices())
            picked.push_back(gradient[static_cast<std::size_t>(i)]);
          reference.step(exec::reference{}, std::span<Real>(a), read(gradient), 1e-2);
          cpu.begin_step(1e-2);
          masked.begin_step(1e-2);
          for (const auto& piece : odd_cuts(d, random)) {
            cpu.update(exec::cpu{3}, piece.begin, piece_of(b, piece),
                       piece_of(std::as_const(gradient), piece));
            masked.update(exec::cpu{3}, piece.begin, piece_of(c, piece),
                          piece_of(std::as_const(gradient), piece));
          }
          masked_reference.step(exec::reference{}, std::span<Real>(e), read(gradient), 1e-2);
          compact.step_compact(exec::cpu{2}, std::span<Real>(f), read(picked), 1e-2);
        }
        CHECK(first_difference(a, b) == -1);
        CHECK(first_difference(c, e) == -1);
        CHECK(first_difference(c, f) == -1);
        std::vector<Real> expected = start;
        index_t rank = 0;
        bool same_velocity = true;
        for (const index_t j : selected.indices()) {
          const auto i = static_cast<std::size_t>(j);
          expected[i] = a[i];
          if (options.momentum > 0)
            same_velocity =
                same_velocity && bits(reference.velocity()[i]) ==
                                     bits(masked.velocity()[static_cast<std::size_t>(rank++)]);
        }
        CHECK(first_difference(expected, c) == -1);
        CHECK(same_velocity);
        if (options.momentum == 0) CHECK(masked.velocity().empty());
      }
}

TEST_CASE("options out of range are refused") {
  CHECK_THROWS_AS(sgd<float>(1, {.momentum = 1}), invalid_argument);
  CHECK_THROWS_AS(sgd<float>(1, {.momentum = -0.1}), invalid_argument);
  CHECK_THROWS_AS(sgd<float>(1, {.kind = momentum_kind::nesterov}), invalid_argument);
  CHECK_THROWS_AS(sgd<float>(1, {.weight_decay = -1}), invalid_argument);
  CHECK(sgd<float>(1000).memory_bytes() == 0);
}
