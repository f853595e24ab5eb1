// Proves: accumulate and accumulate_second_moment add in the sum's type, with one rounding per
// operation, and what a device does to a coordinate gives the same bits. Against: volatile arithmetic
// written out, sums in double.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <dualsft/accumulate.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <vector>

using namespace dualsft;

namespace {

template <class T>
std::vector<T> made_up(index_t n, std::uint64_t seed) {
  random_source random(seed);
  std::vector<T> out;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const double special[] = {0.0, -0.0, infinity, -infinity, std::nan(""), 1e-310, 1e-40, 1e30};
  for (index_t i = 0; i < n; ++i) {
    // Magnitudes over 40 decades: the small ones vanish beside the large.
    double x = random.normal() * std::pow(10.0, 20 * random.uniform() - 10);
    if (i % 37 == 5) x = special[(i / 37) % 8];
    out.push_back(convert_float<T>(x));
  }
  return out;
}

template <class Real>
std::uint64_t bits(Real x) {
  if (std::isnan(x)) return 1;  // which NaN is left open
  if constexpr (sizeof(Real) == 4)
    return std::bit_cast<std::uint32_t>(x);
  else
    return std::bit_cast<std::uint64_t>(x);
}

template <class Real>
bool same(const std::vector<Real>& a, const std::vector<Real>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (bits(a[i]) != bits(b[i])) return false;
  return true;
}

/// Every operation stored, hence rounded.
template <class Real>
Real moment(Real s, Real g, double beta2) {
  const volatile Real keep = static_cast<Real>(beta2), gain = static_cast<Real>(1 - beta2);
  const volatile Real old = keep * s;
  const volatile Real part = gain * g;
  const volatile Real square = part * g;
  return old + square;
}

template <class T, class Sum>
void check_type() {
  for (const index_t n : {0, 1, 31, 32, 33, 1000, 70000}) {
    CAPTURE(n);
    const std::vector<T> g = made_up<T>(n, 1);
    const std::vector<Sum> before = made_up<Sum>(n, 2);
    std::vector<Sum> plain(before), squared(before), here(before), here_squared(before);
    for (std::size_t i = 0; i < g.size(); ++i) {
      const auto wide = convert_float<Sum>(g[i]);
      plain[i] = before[i] + wide;
      squared[i] = moment(before[i], wide, 0.999);
      here[i] = detail::add_gradient<Sum>{}(here[i], g[i]);
      here_squared[i] = detail::add_square<Sum>(0.999)(here_squared[i], g[i]);
    }
    CHECK(same(here, plain));
    CHECK(same(here_squared, squared));
    for (const int threads : {1, 2, 3}) {
      std::vector<Sum> sum(before), s(before);
      accumulate(exec::cpu{threads}, vector_view<const T>(g), vector_view<Sum>(sum));
      accumulate_second_moment(exec::cpu{threads}, vector_view<const T>(g), 0.999,
                               vector_view<Sum>(s));
      CHECK(same(sum, plain));
      CHECK(same(s, squared));
    }
    std::vector<Sum> sum(before), s(before);
    accumulate(exec::reference{}, vector_view<const T>(g), vector_view<Sum>(sum));
    accumulate_second_moment(exec::reference{}, vector_view<const T>(g), 0.999,
                             vector_view<Sum>(s));
    CHECK(same(sum, plain));
    CHECK(same(s, squared));
  }
}

}  // namespace

TEST_CASE("four types of gradients into two of sums, bit for bit") {
  check_type<float16, float>();
  check_type<bfloat16, float>();
  check_type<float, float>();
  check_type<double, float>();
  check_type<float16, double>();
  check_type<bfloat16, double>();
  check_type<float, double>();
  check_type<double, double>();
}

TEST_CASE("a pool of 16-bit gradients is summed in 32 bits: 70,000 equal ones do not stick") {
  // In 16 bits the sum would stop growing at 256 times one addend.
  const std::vector<bfloat16> g(3, to_bfloat16(1.0F));
  std::vector<float> sum(3, 0.0F);
  for (int i = 0; i < 70000; ++i)
    accumulate(exec::cpu{1}, vector_view<const bfloat16>(g), vector_view<float>(sum));
  for (const float x : sum) CHECK(x == 70000.0F);
}

TEST_CASE("strided views, and what callers get wrong") {
  const std::vector<float> g{1, 2, 3, 4, 5, 6};
  std::vector<double> sum(3, 0.5);
  accumulate(exec::cpu{}, vector_view<const float>(g.data() + 1, 3, 2), vector_view<double>(sum));
  CHECK(sum == std::vector<double>{2.5, 4.5, 6.5});
  CHECK_THROWS_WITH_AS(
      accumulate(exec::cpu{}, vector_view<const float>(g), vector_view<double>(sum)),
      doctest::Contains(
          "accumulate: gradient and sum must have one length (gradient = 6, sum = 3)"),
      invalid_argument);
  for (const double beta : {-0.1, 1.0, std::nan("")})
    CHECK_THROWS_WITH_AS(accumulate_second_moment(exec::cpu{}, vector_view<const double>(sum), beta,
                                                  vector_view<double>(sum)),
                         doctest::Contains("beta2 must lie in [0, 1)"), invalid_argument);
}
