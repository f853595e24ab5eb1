// Proves: adamw is AdamW, and masked_adamw is adamw on the selected coordinates, to the last bit.
// Against: the textbook formula in double, PyTorch's numbers, hand arithmetic, a dense masked loop.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <dualsft/archetypes.hpp>
#include <dualsft/optim/adamw.hpp>
#include <dualsft/optim/masked_adamw.hpp>
#include <dualsft/parameters.hpp>
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

/// Dense AdamW as one writes it down, times a mask of zeros and ones in all four places: gradient,
/// both moments, decay. One rounding per operation.
template <class Real>
struct dense_times_mask {
  std::vector<Real> theta, m, s;
  double t = 0;

  DUALSFT_UNFUSED void step(const std::vector<Real>& gradient, const std::vector<Real>& mask,
                            const adamw_options& o, double lr) {
    DUALSFT_UNFUSED_BODY
    t += 1;
    const Real b1 = static_cast<Real>(o.beta1), a1 = static_cast<Real>(1 - o.beta1);
    const Real b2 = static_cast<Real>(o.beta2), a2 = static_cast<Real>(1 - o.beta2);
    const Real rate = static_cast<Real>(lr / (1 - std::pow(o.beta1, t)));
    const Real root = static_cast<Real>(std::sqrt(1 - std::pow(o.beta2, t)));
    const Real eps = static_cast<Real>(o.epsilon);
    const double shrink = lr * o.weight_decay;
    for (std::size_t i = 0; i < theta.size(); ++i) {
      const Real g = mask[i] * gradient[i];
      m[i] = mask[i] * (b1 * m[i] + a1 * g);
      s[i] = mask[i] * (b2 * s[i] + (a2 * g) * g);
      const Real decay = static_cast<Real>(1 - static_cast<double>(mask[i]) * shrink);
      const Real decayed = theta[i] * decay;
      const Real step = (rate * m[i]) / (std::sqrt(s[i]) / root + eps);
      theta[i] = decayed - step;
    }
  }
};

/// Loshchilov and Hutter's algorithm 2, in double.
struct textbook {
  double theta = 0, m = 0, s = 0, t = 0;
  void step(double g, const adamw_options& o, double lr) {
    t += 1;
    m = o.beta1 * m + (1 - o.beta1) * g;
    s = o.beta2 * s + (1 - o.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(o.beta1, t));
    const double s_hat = s / (1 - std::pow(o.beta2, t));
    theta -= lr * (m_hat / (std::sqrt(s_hat) + o.epsilon) + o.weight_decay * theta);
  }
};

}  // namespace

TEST_CASE_TEMPLATE("the first step is the hand-computed one", Real, float, double) {
  // g = 2: m_hat = 2, s_hat = 4, so the step is lr * 2 / (2 + eps); the decay is 0.1 * 0.5 of 1.
  adamw<Real> optimizer(2, {.epsilon = 1e-8, .weight_decay = 0.5});
  std::vector<Real> theta{1, 1}, gradient{2, -2};
  optimizer.step(exec::reference{}, std::span<Real>(theta), read(gradient), 0.1);
  const double eps = std::numeric_limits<Real>::epsilon();
  CHECK(std::abs(static_cast<double>(theta[0]) - 0.85) <= 4 * eps + 1e-9);
  CHECK(std::abs(static_cast<double>(theta[1]) - 1.05) <= 4 * eps + 1e-9);
  CHECK(static_cast<double>(optimizer.first_moment()[0]) == doctest::Approx(0.2));
  CHECK(static_cast<double>(optimizer.second_moment()[1]) == doctest::Approx(0.004));
  CHECK(optimizer.steps() == 1);
}

TEST_CASE_TEMPLATE("three steps give PyTorch's numbers", Real, float, double) {
  // torch 2.15.0, one thread: torch.optim.AdamW([p], betas=(0.9, 0.999), eps=1e-8,
  // weight_decay=0.1, foreach=False, fused=False), learning rates 1e-3, 2e-3, 5e-4, p in float64.
  const double expected[4] = {0.49795729629272945, -1.246198329905266, 2.9959861206226504,
                              0.006107153878363422};
  const double expected_m[4] = {0.109, -0.108, 1.51e-05, 0.122};
  const double expected_s[4] = {0.001077984437500001, 0.0008114377500000007, 1.3989001000000012e-10,
                                0.005241004000000005};
  const double gradients[3][4] = {
      {0.25, -0.5, 1e-4, 2.0}, {-0.125, -0.75, 3e-4, -1.0}, {1.0, 0.0, -2e-4, 0.5}};
  const double rates[3] = {1e-3, 2e-3, 5e-4};
  std::vector<Real> theta{Real(0.5), Real(-1.25), Real(3), Real(0.0078125)};
  adamw<Real> optimizer(4, {.weight_decay = 0.1});
  for (int k = 0; k < 3; ++k) {
    std::vector<Real> gradient(gradients[k], gradients[k] + 4);
    optimizer.step(exec::cpu{1}, std::span<Real>(theta), read(gradient), rates[k]);
  }
  // A step rounds theta about three times and itself (size < 3e-3) about ten times.
  const double eps = std::numeric_limits<Real>::epsilon();
  for (std::size_t i = 0; i < 4; ++i) {
    CAPTURE(i);
    CHECK(std::abs(static_cast<double>(theta[i]) - expected[i]) <=
          eps * (9 * std::abs(expected[i]) + 30 * 3e-3));
    CHECK(std::abs(static_cast<double>(optimizer.first_moment()[i]) - expected_m[i]) <=
          10 * eps * (std::abs(expected_m[i]) + 0.1));
    CHECK(std::abs(static_cast<double>(optimizer.second_moment()[i]) - expected_s[i]) <=
          // 1 - 0.999 is exact to eps / 1e-3 in Real
          20 * eps * expected_s[i]);
  }
}

TEST_CASE_TEMPLATE("the operations round one by one in the documented order", Real, float, double) {
  // NumPy 2.4.6, whose array operations never fuse, with the documented sequence typed in; small
  // dyadic inputs. A fused multiply-add, or another order, changes some of these bits.
  const std::uint64_t expected[2][8] = {
      {0xbf47f645, 0xbe4de619, 0x3ebf9239, 0xbf1f9532, 0xbd45de41, 0x3f08269a, 0xbef0f8a6,
       0x3de029fd},
      {0xbfe8fec8918d4983, 0xbfc9bcc33fb69c1d, 0x3fd7f2471222e50d, 0xbfe3f2a6570a45eb,
       0xbfa8bbc82b848827, 0x3fe104d3682bce4c, 0xbfde1f14afec745c, 0x3fbc053fae0da6d4}};
  // Repeated so that the vectorised part and the rest of a loop are both met.
  constexpr index_t d = 8 * 40 + 5;
  std::vector<Real> theta(d), gradient(d);
  for (index_t i = 0; i < d; ++i)
    theta[static_cast<std::size_t>(i)] = static_cast<Real>(37 * (i % 8) % 101 - 50) / 64;
  adamw<Real> optimizer(d, {.weight_decay = 0.1});
  for (index_t t = 1; t <= 3; ++t) {
    for (index_t i = 0; i < d; ++i)
      gradient[static_cast<std::size_t>(i)] = static_cast<Real>(53 * (i % 8 + t) % 97 - 48) / 1024;
    optimizer.step(exec::cpu{1}, std::span<Real>(theta), read(gradient), 1e-3);
  }
  for (std::size_t i = 0; i < d; ++i) {
    CAPTURE(i);
    CHECK(std::uint64_t{bits(theta[i])} == expected[sizeof(Real) == 8 ? 1 : 0][i % 8]);
  }
}

TEST_CASE_TEMPLATE("many steps follow the textbook", Real, float, double) {
  constexpr index_t d = 257;
  constexpr int steps = 200;
  random_source random(11);
  const adamw_options options{.beta1 = 0.8, .beta2 = 0.99, .epsilon = 1e-6, .weight_decay = 0.02};
  std::vector<Real> theta = heavy_values<Real>(d, random);
  std::vector<textbook> expected(d);
  for (std::size_t i = 0; i < d; ++i) expected[i].theta = static_cast<double>(theta[i]);
  std::vector<double> size(d);
  for (std::size_t i = 0; i < d; ++i) size[i] = std::abs(expected[i].theta) + 1;
  adamw<Real> optimizer(d, options);
  constexpr double lr = 3e-3;
  for (int k = 0; k < steps; ++k) {
    const std::vector<Real> gradient = heavy_values<Real>(d, random);
    optimizer.step(exec::cpu{1}, std::span<Real>(theta), read(gradient), lr);
    for (std::size_t i = 0; i < d; ++i)
      expected[i].step(static_cast<double>(gradient[i]), options, lr);
  }
  // Per step: three roundings of theta, and a step of at most 10 lr with a few roundings of its
  // own; the moments forget, so theirs do not pile up.
  const double eps = std::numeric_limits<Real>::epsilon();
  for (std::size_t i = 0; i < d; ++i) {
    CAPTURE(i);
    CHECK(std::abs(static_cast<double>(theta[i]) - expected[i].theta) <=
          steps * eps * (2 * size[i] + 100 * lr));
  }
}

TEST_CASE_TEMPLATE("reference and cpu agree bit for bit, whatever threads and cut", Real, float,
                   double) {
  random_source random(3);
  for (const index_t d : {0, 1, 2, 3, 31, 32, 33, 255, 257, 1000, 200001}) {
    CAPTURE(d);
    const std::vector<Real> start = heavy_values<Real>(d, random);
    std::vector<Real> a = start, b = start, c = start;
    adamw<Real> first(d, {.weight_decay = 0.1}), second = first, third = first;
    for (int k = 0; k < 3; ++k) {
      std::vector<Real> gradient = heavy_values<Real>(d, random);
      if (d > 2) gradient[1] = std::numeric_limits<Real>::quiet_NaN();
      if (d > 3 && k == 1) gradient[2] = std::numeric_limits<Real>::infinity();
      if (d > 30) gradient[30] = std::numeric_limits<Real>::denorm_min();
      if (d > 30 && k == 0) gradient[29] = Real(-0.0);
      first.step(exec::reference{}, std::span<Real>(a), read(gradient), 1e-3);
      second.step(exec::cpu{1}, std::span<Real>(b), read(gradient), 1e-3);
      third.begin_step(1e-3);
      for (const auto& piece : odd_cuts(d, random))
        third.update(exec::cpu{3}, piece.begin, piece_of(c, piece),
                     piece_of(std::as_const(gradient), piece));
    }
    if (d > 2) CHECK(std::isnan(a[1]));
    if (d > 2) {  // the sign and payload of a NaN are not defined; that it is one, is
      a[1] = b[1] = c[1] = 0;
      if (d > 3) a[2] = b[2] = c[2] = 0;
    }
    CHECK(first_difference(a, b) == -1);
    CHECK(first_difference(a, c) == -1);
    if (d > 3) CHECK(std::isfinite(a[0]));
  }
}

TEST_CASE_TEMPLATE("masked AdamW is dense AdamW times a mask, bit for bit", Real, float, double) {
  random_source random(7);
  const adamw_options options{.weight_decay = 0.05};
  for (const index_t d : {1, 33, 1000, 3 * 65536 + 17}) {
    for (const double density : {0.0, 0.05, 0.5, 1.0}) {
      CAPTURE(d);
      CAPTURE(density);
      const index_set selected = random_mask(d, density, random);
      std::vector<Real> mask(static_cast<std::size_t>(d), Real{0});
      for (const index_t i : selected.indices()) mask[static_cast<std::size_t>(i)] = 1;

      const std::vector<Real> start = heavy_values<Real>(d, random);
      dense_times_mask<Real> expected{start, std::vector<Real>(start.size()),
                                      std::vector<Real>(start.size())};
      adamw<Real> dense(d, options);
      std::vector<Real> dense_theta = start;
      masked_adamw<Real> whole(selected, options), cut = whole, compact = whole, plain = whole;
      std::vector<Real> whole_theta = start, cut_theta = start, compact_theta = start,
                        plain_theta = start;
      for (int k = 0; k < 4; ++k) {
        const double lr = 1e-3 / (1 + k);
        const std::vector<Real> gradient = heavy_values<Real>(d, random);
        expected.step(gradient, mask, options, lr);
        std::vector<Real> masked_gradient = gradient, picked;
        for (std::size_t i = 0; i < mask.size(); ++i) masked_gradient[i] *= mask[i];
        for (const index_t i : selected.indices())
          picked.push_back(gradient[static_cast<std::size_t>(i)]);

        dense.step(exec::cpu{2}, std::span<Real>(dense_theta), read(masked_gradient), lr);
        whole.step(exec::cpu{2}, std::span<Real>(whole_theta), read(gradient), lr);
        plain.step(exec::reference{}, std::span<Real>(plain_theta), read(gradient), lr);
        compact.begin_step(lr);
        cut.begin_step(lr);
        for (const auto& piece : odd_cuts(d, random)) {
          cut.update(exec::cpu{3}, piece.begin, piece_of(cut_theta, piece),
                     piece_of(std::as_const(gradient), piece));
          const index_t first = compact.selected().rank(piece.begin);
          const index_t last = compact.selected().rank(piece.end);
          compact.update_compact(exec::cpu{2}, piece.begin, piece_of(compact_theta, piece),
                                 piece_of(std::as_const(picked), {first, last}));
        }
      }
      CHECK(first_difference(expected.theta, whole_theta) == -1);
      CHECK(first_difference(whole_theta, plain_theta) == -1);
      CHECK(first_difference(whole_theta, cut_theta) == -1);
      CHECK(first_difference(whole_theta, compact_theta) == -1);
      index_t rank = 0;
      bool same = true;
      for (const index_t j : selected.indices()) {
        const auto i = static_cast<std::size_t>(j);
        const auto r = static_cast<std::size_t>(rank++);
        same = same && bits(dense_theta[i]) == bits(whole_theta[i]) &&
               bits(dense.first_moment()[i]) == bits(whole.first_moment()[r]) &&
               bits(expected.m[i]) == bits(whole.first_moment()[r]) &&
               bits(expected.s[i]) == bits(whole.second_moment()[r]) &&
               bits(dense.second_moment()[i]) == bits(whole.second_moment()[r]);
      }
      CHECK(same);
      CHECK(static_cast<index_t>(whole.first_moment().size()) == selected.size());
    }
  }
}

TEST_CASE_TEMPLATE("unselected coordinates keep every bit", Real, float, double) {
  random_source random(13);
  constexpr index_t d = 70001;
  const index_set selected = random_mask(d, 0.3, random);
  // Any bit pattern at all: NaN payloads, signalling ones, -0, denormals.
  std::vector<unsigned_of<Real>> start(d);
  for (auto& word : start) word = static_cast<unsigned_of<Real>>(random.bits());
  start[5] = bits(Real(-0.0));
  for (const index_t i : selected.indices()) start[static_cast<std::size_t>(i)] = bits(Real(1));
  std::vector<Real> theta(d), gradient(d, std::numeric_limits<Real>::quiet_NaN());
  std::memcpy(theta.data(), start.data(), d * sizeof(Real));
  for (const index_t i : selected.indices()) gradient[static_cast<std::size_t>(i)] = Real(0.5);
  masked_adamw<Real> optimizer(selected, {.weight_decay = 0.1});
  optimizer.step(exec::cpu{2}, std::span<Real>(theta), read(gradient), 1e-2);
  optimizer.step(exec::reference{}, std::span<Real>(theta), read(gradient), 1e-2);
  std::vector<unsigned_of<Real>> after(d);
  std::memcpy(after.data(), theta.data(), d * sizeof(Real));
  index_t moved = 0, spoilt = 0;
  for (std::size_t i = 0; i < d; ++i) {
    if (selected.contains(static_cast<index_t>(i)))
      moved += after[i] != start[i] ? 1 : 0;
    else
      spoilt += after[i] != start[i] ? 1 : 0;
  }
  CHECK(spoilt == 0);
  CHECK(moved == selected.size());
}

TEST_CASE_TEMPLATE("a model's step is the flat step", Real, float, double) {
  const std::vector<index_t> sizes{5, 0, 1000, 1, 333};
  constexpr index_t d = 1339;
  random_source random(17);
  const index_set selected = random_mask(d, 0.2, random);
  const std::vector<Real> start = heavy_values<Real>(d, random);
  parameters_only<Real> a(sizes), b(sizes), c(sizes);
  assign_parameters(a, read(start));
  assign_parameters(b, read(start));
  assign_parameters(c, read(start));
  std::vector<Real> flat = start, masked_flat = start;
  adamw<Real> dense(d), dense_flat(d);
  masked_adamw<Real> masked(selected), masked_flat_optimizer(selected), compact(selected);
  for (int k = 0; k < 3; ++k) {
    const std::vector<Real> gradient = heavy_values<Real>(d, random);
    std::vector<Real> picked;
    for (const index_t i : selected.indices())
      picked.push_back(gradient[static_cast<std::size_t>(i)]);
    dense.step(exec::cpu{2}, a, read(gradient), 1e-3);
    dense_flat.step(exec::cpu{2}, std::span<Real>(flat), read(gradient), 1e-3);
    masked.step(exec::cpu{2}, b, read(gradient), 1e-3);
    compact.step_compact(exec::cpu{2}, c, read(picked), 1e-3);
    masked_flat_optimizer.step_compact(exec::cpu{2}, std::span<Real>(masked_flat), read(picked),
                                       1e-3);
  }
  CHECK(first_difference(parameter_values(a), flat) == -1);
  CHECK(first_difference(parameter_values(b), masked_flat) == -1);
  CHECK(first_difference(parameter_values(c), masked_flat) == -1);
  CHECK(dense.steps() == 3);
}

TEST_CASE("the masked state is at most 7 % of the dense one at 5 %") {
  random_source random(19);
  constexpr index_t d = index_t{1} << 20;
  std::vector<index_t> chosen;
  for (index_t i = 0; i < d / 20; ++i) chosen.push_back(i * 20 + random.below(20));
  const index_set selected(std::move(chosen), d);
  CHECK(static_cast<double>(masked_adamw<float>(selected).memory_bytes()) <=
        0.07 * static_cast<double>(adamw<float>(d).memory_bytes()));
  CHECK(static_cast<double>(masked_adamw<double>(selected).memory_bytes()) <=
        0.07 * static_cast<double>(adamw<double>(d).memory_bytes()));
}

TEST_CASE("misuse is refused and changes nothing") {
  using span_t = std::span<double>;
  using read_t = std::span<const double>;
  CHECK_THROWS_AS(adamw<double>(-1), invalid_argument);
  CHECK_THROWS_WITH_AS(adamw<double>(1, {.beta1 = 1}),
                       "adamw: beta1 must lie in [0, 1) (beta1 = 1)", invalid_argument);
  CHECK_THROWS_AS(adamw<double>(1, {.beta2 = std::nan("")}), invalid_argument);
  CHECK_THROWS_AS(adamw<double>(1, {.epsilon = 0}), invalid_argument);
  CHECK_THROWS_AS(adamw<float>(1, {.epsilon = 1e-60}), invalid_argument);
  CHECK_THROWS_AS(adamw<double>(1, {.weight_decay = -1}), invalid_argument);

  std::vector<double> theta(10, 1.0);
  const std::vector<double> gradient(10, 1.0);
  const index_set selected({2, 7}, 10);
  const auto refuse = [&](auto& optimizer) {
    const auto update = [&](index_t offset, std::size_t n, std::size_t gradients) {
      optimizer.update(exec::cpu{1}, offset, span_t(theta).first(n),
                       read_t(gradient).first(gradients));
    };
    CHECK_THROWS_AS(update(0, 10, 10), invalid_argument);  // no step has begun
    CHECK_THROWS_AS(optimizer.begin_step(-1), invalid_argument);
    CHECK_THROWS_AS(optimizer.begin_step(std::nan("")), invalid_argument);
    CHECK_THROWS_AS(
        optimizer.step(exec::cpu{1}, span_t(theta).first(9), read_t(gradient).first(9), 0.1),
        invalid_argument);
    CHECK(optimizer.steps() == 0);
    optimizer.begin_step(0.1);
    CHECK_THROWS_AS(update(-1, 2, 2), invalid_argument);
    CHECK_THROWS_AS(update(9, 2, 2), invalid_argument);
    CHECK_THROWS_AS(update(std::numeric_limits<index_t>::max(), 2, 2), invalid_argument);
    CHECK_THROWS_AS(update(0, 5, 4), invalid_argument);
    CHECK(theta == std::vector<double>(10, 1.0));
    update(0, 10, 10);
    const auto once = theta;
    CHECK_THROWS_AS(update(0, 10, 10), invalid_argument);  // twice in one step
    CHECK(theta == once);
    std::ranges::fill(theta, 1.0);
  };
  adamw<double> dense(10);
  refuse(dense);
  masked_adamw<double> masked(selected);
  refuse(masked);
  masked.begin_step(0.1);
  CHECK_THROWS_AS(masked.update_compact(exec::cpu{1}, 0, span_t(theta), read_t(gradient).first(3)),
                  invalid_argument);
  CHECK_THROWS_AS(masked.update_compact(exec::cpu{1}, std::numeric_limits<index_t>::max(),
                                        span_t(theta), read_t(gradient).first(2)),
                  invalid_argument);
  CHECK(theta == std::vector<double>(10, 1.0));
  parameters_only<double> small(std::vector<index_t>{3});
  CHECK_THROWS_AS(dense.step(exec::cpu{1}, small, read_t(gradient), 0.1), invalid_argument);
  CHECK(dense.steps() == 1);
}

// Compiled and never called: the archetype has nothing beyond the concept.
inline void only_the_concept(archetypes::trainable_model<float>& model,
                             std::span<const float> gradient) {
  adamw<float>(1).step(exec::cpu{}, model, gradient, 0.1);
  masked_adamw<float>(index_set::all(1)).step(exec::reference{}, model, gradient, 0.1);
  masked_adamw<float>(index_set::all(1)).step_compact(exec::cpu{}, model, gradient, 0.1);
}
