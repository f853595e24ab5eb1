// Proves: <g_i, P> of affine traces comes out right whatever tiles the product is cut into, with
// and without a bias, for any number of threads. Against: sum_t e_t . (P a_t + p) in double.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <dualsft/detail/ghost.hpp>
#include <dualsft/random.hpp>

using namespace dualsft;
using detail::row_matrix;
using detail::view_of;

namespace {

constexpr index_t examples = 3;

struct problem {
  parameter_layout layout;
  std::vector<float> direction;
  row_matrix<float> inputs, errors;
  std::vector<index_t> rows;

  problem(index_t tokens, index_t out, index_t in) : inputs(tokens, in), errors(tokens, out) {
    layout.add("w", out, in);
    layout.add("b", out, 1);
    random_source rng(3);
    const auto normal = [&] { return static_cast<float>(rng.normal()); };
    for (index_t j = 0; j < layout.size(); ++j) direction.push_back(normal());
    for (index_t i = 0; i < inputs.size(); ++i) inputs.data()[i] = normal();
    for (index_t i = 0; i < errors.size(); ++i) errors.data()[i] = normal();
    for (index_t t = 0; t < tokens; ++t) rows.push_back(t % examples);
  }

  std::vector<double> ghost(index_t bias, int threads) const {
    std::vector<double> out(examples);
    detail::ghost_products<float> sink(layout, direction, out, threads);
    sink(affine_trace<float>{0, bias, view_of(inputs), view_of(errors), rows});
    return out;
  }
};

}  // namespace

// Tolerance: eps times the sum of the sizes of all terms.
TEST_CASE("ghost products of every tiling are the sums that define them") {
  for (const auto& size_of : {std::array<index_t, 3>{0, 5, 3},
                              {1, 1, 1},
                              {3, 33, 2},
                              {257, 1, 31},
                              {255, 1025, 3},
                              {1000, 2050, 2},
                              {1025, 31, 2},
                              {2500, 1030, 1}}) {
    const index_t tokens = size_of[0], out = size_of[1], in = size_of[2];
    const problem p(tokens, out, in);
    for (const index_t bias : {-1, 1}) {
      std::vector<double> expected(examples), size(examples);
      for (index_t t = 0; t < tokens; ++t)
        for (index_t o = 0; o < out; ++o)
          for (index_t k = 0; k <= in; ++k) {
            if (k == in && bias < 0) continue;
            const auto at = static_cast<std::size_t>(k < in ? o * in + k : out * in + o);
            const double x = k < in ? static_cast<double>(p.inputs(t, k)) : 1;
            const double term =
                static_cast<double>(p.errors(t, o)) * static_cast<double>(p.direction[at]) * x;
            expected[static_cast<std::size_t>(t % examples)] += term;
            size[static_cast<std::size_t>(t % examples)] += std::abs(term);
          }
      for (const int threads : {1, 2, 3, 7}) {
        INFO(tokens, " x ", out, ", bias ", bias, ", threads ", threads);
        const auto found = p.ghost(bias, threads);
        for (std::size_t i = 0; i < expected.size(); ++i)
          CHECK(std::abs(found[i] - expected[i]) <= 1.2e-7 * size[i]);
        CHECK(found == p.ghost(bias, threads));  // bit for bit
      }
    }
  }
}
