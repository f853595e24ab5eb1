// Proves: the self-distillation loss, its confidence weights and its logit gradient.
// Against: the defining equations summed plainly in long double, finite differences, hand values.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/cwsd.hpp>
#include <dualsft/random.hpp>
#include <vector>

using namespace dualsft;

namespace {

struct pair_of_logits {
  index_t tokens;
  index_t classes;
  std::vector<double> teacher, student;
  pair_of_logits(index_t t, index_t c, double scale, std::uint64_t seed) : tokens(t), classes(c) {
    random_source random(seed);
    for (index_t k = 0; k < t * c; ++k) {
      teacher.push_back(scale * random.normal());
      student.push_back(scale * random.normal());
    }
  }
  matrix_view<const double> q() const { return {teacher.data(), tokens, classes}; }
  matrix_view<const double> p() const { return {student.data(), tokens, classes}; }
};

std::vector<long double> plain_softmax(const double* z, index_t n, double tau) {
  std::vector<long double> out;
  long double sum = 0;
  for (index_t c = 0; c < n; ++c) {
    out.push_back(std::exp(static_cast<long double>(z[c]) / tau));
    sum += out.back();
  }
  for (auto& x : out) x /= sum;
  return out;
}

}  // namespace

TEST_CASE("loss and weights are the defining sums") {
  for (const index_t classes : {1, 2, 7, 257})
    for (const index_t tokens : {1, 3, 32}) {
      const pair_of_logits z(tokens, classes, 2.0, 11);
      const double tau = 2;
      long double divergence = 0;
      long double entropy = 0;
      long double top = 0;
      for (index_t t = 0; t < tokens; ++t) {
        const auto q = plain_softmax(z.teacher.data() + t * classes, classes, tau);
        const auto p = plain_softmax(z.student.data() + t * classes, classes, tau);
        long double largest = 0;
        for (std::size_t c = 0; c < q.size(); ++c) {
          divergence += q[c] * std::log(q[c] / p[c]);
          entropy -= q[c] * std::log(q[c]);
          largest = std::max(largest, q[c]);
        }
        top += largest;
      }
      divergence /= tokens;
      entropy /= tokens;
      top /= tokens;
      const long double expected[] = {
          classes > 1 ? 1 - entropy / std::log((long double)classes) : 1, std::exp(-entropy), top,
          1};
      const confidence kinds[] = {confidence::entropy, confidence::exp_entropy,
                                  confidence::max_probability, confidence::uniform};
      for (int k = 0; k < 4; ++k) {
        const cwsd_anchor a = cwsd<double>({tau, kinds[k]}, z.q(), z.p());
        CHECK(a.weight == doctest::Approx(static_cast<double>(expected[k])).epsilon(1e-13));
        CHECK(std::abs(a.divergence - static_cast<double>(divergence)) < 1e-13);
        CHECK(std::abs(a.loss - static_cast<double>(expected[k] * tau * tau * divergence)) < 1e-12);
      }
    }
}

TEST_CASE("the logit gradient is the finite difference of the loss") {
  pair_of_logits z(3, 5, 1.5, 2);
  const cwsd_rule rule{1.7, confidence::entropy};
  std::vector<double> gradient(15);
  cwsd<double>(rule, z.q(), z.p(), matrix_view<double>(gradient.data(), 3, 5), 2.5);
  for (std::size_t k = 0; k < 15; ++k) {
    const double h = 1e-5;
    auto moved = z;
    moved.student[k] += h;
    const double ahead = cwsd<double>(rule, z.q(), moved.p()).loss;
    moved.student[k] -= 2 * h;
    const double behind = cwsd<double>(rule, z.q(), moved.p()).loss;
    // Central difference: h^2 / 6 * third derivative (< 1) + eps / h.
    CHECK(std::abs(gradient[k] - 2.5 * (ahead - behind) / (2 * h)) < 1e-9);
  }
}

TEST_CASE("equal logits give nothing, a sure teacher full weight, a clueless one none") {
  const pair_of_logits z(4, 6, 3, 5);
  std::vector<double> gradient(24, 1.0);
  const cwsd_anchor same =
      cwsd<double>({}, z.q(), z.q(), matrix_view<double>(gradient.data(), 4, 6));
  CHECK(std::abs(same.loss) < 1e-15);
  for (const double g : gradient) CHECK(g == 0.0);
  const std::vector<double> sure{1000, 0, 0};
  const std::vector<double> flat{3, 3, 3};
  const matrix_view<const double> vs(sure.data(), 1, 3);
  const matrix_view<const double> vf(flat.data(), 1, 3);
  CHECK(cwsd<double>({}, vs, vf).weight == doctest::Approx(1.0));
  CHECK(std::abs(cwsd<double>({}, vf, vs).weight) < 1e-12);
  CHECK(std::isfinite(cwsd<double>({}, vs, vf).loss));  // q = 0 terms vanish, none becomes 0 log 0
}

TEST_CASE("the gradient may overwrite the student, and strides are honoured") {
  pair_of_logits z(5, 4, 1, 9);
  std::vector<double> apart(20);
  cwsd<double>({}, z.q(), z.p(), matrix_view<double>(apart.data(), 5, 4));
  std::vector<double> in_place = z.student;
  cwsd<double>({}, z.q(), matrix_view<const double>(in_place.data(), 5, 4),
               matrix_view<double>(in_place.data(), 5, 4));
  CHECK(apart == in_place);
  std::vector<double> columns(20);
  for (index_t t = 0; t < 5; ++t)
    for (index_t c = 0; c < 4; ++c)
      columns[static_cast<std::size_t>(c * 5 + t)] = z.student[static_cast<std::size_t>(t * 4 + c)];
  CHECK(cwsd<double>({}, z.q(), matrix_view<const double>(columns.data(), 5, 4, 1, 5)).loss ==
        cwsd<double>({}, z.q(), z.p()).loss);
}

TEST_CASE("broken preconditions are named") {
  const pair_of_logits z(2, 3, 1, 1);
  CHECK_THROWS_WITH_AS(cwsd<double>({.tau = 0}, z.q(), z.p()),
                       "cwsd: tau must be positive (tau = 0)", invalid_argument);
  CHECK_THROWS_AS(cwsd<double>({}, z.q(), z.p().middle_rows(0, 1)), invalid_argument);
  CHECK_THROWS_AS(cwsd<double>({}, z.q().middle_rows(0, 0), z.p().middle_rows(0, 0)),
                  invalid_argument);
}
