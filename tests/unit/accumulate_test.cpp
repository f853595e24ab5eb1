// Proves: accumulate and accumulate_second_moment add in the sum's type, with one rounding per
// operation, and what a device does to a coordinate gives the same bits. Against: volatile arithmetic
// written out (support/accumulate_cases.hpp).
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/accumulate.hpp>
#include <vector>

#include "support/accumulate_cases.hpp"

using namespace dualsft;
using namespace dualsft::testing;

namespace {

template <class T, class Sum>
void check_type() {
  using sums = accumulated<Sum>;
  const auto by = [](const auto& policy) {
    return [policy](const std::vector<T>& g, const std::vector<Sum>& before, index_t skip,
                    double beta2) {
      const auto count = static_cast<index_t>(g.size()) - skip;
      sums out{before, before};
      const vector_view<const T> from = vector_view<const T>(g).subview(skip, count);
      accumulate(policy, from, vector_view<Sum>(out.sum).subview(skip, count));
      accumulate_second_moment(policy, from, beta2, vector_view<Sum>(out.s).subview(skip, count));
      return out;
    };
  };
  const auto as_on_a_device = [](const std::vector<T>& g, const std::vector<Sum>& before,
                                 index_t skip, double beta2) {
    sums out{before, before};
    for (auto i = static_cast<std::size_t>(skip); i < g.size(); ++i) {
      out.sum[i] = detail::add_gradient<Sum>{}(out.sum[i], g[i]);
      out.s[i] = detail::add_square<Sum>(beta2)(out.s[i], g[i]);
    }
    return out;
  };
  check_accumulate<T, Sum>({0, 1, 31, 32, 33, 1000, 70000}, by(exec::reference{}), by(exec::cpu{1}),
                           by(exec::cpu{2}), by(exec::cpu{3}), as_on_a_device);
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
