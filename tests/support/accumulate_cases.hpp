#pragma once

#include <doctest/doctest.h>

#include <vector>

#include "number_families.hpp"

/// What accumulate and accumulate_second_moment have to give, whoever runs them.
namespace dualsft::testing {

/// s = beta2 s + (1 - beta2) g^2 with every operation stored, hence rounded.
template <class Real>
Real moment_by_definition(Real s, Real g, double beta2) {
  const volatile Real keep = static_cast<Real>(beta2), gain = static_cast<Real>(1 - beta2);
  const volatile Real old = keep * s;
  const volatile Real part = gain * g;
  const volatile Real square = part * g;
  return old + square;
}

template <class Sum>
struct accumulated {
  std::vector<Sum> sum, s;
};

/// Each run(g, before, skip, beta2) returns accumulated<Sum>: `before` with g added from element `skip` on, and
/// `before` as second moments. Sizes, odd places, families of numbers: to the bit.
template <class T, class Sum, class... Run>
void check_accumulate(const std::vector<index_t>& sizes, const Run&... run) {
  for (const spread how :
       {spread::normal, spread::heavy_tailed, spread::all_equal, spread::special})
    for (const index_t n : sizes)
      for (const index_t skip : {0, 1, 3}) {
        if (skip > n) continue;
        CAPTURE(n);
        CAPTURE(skip);
        const std::vector<T> g = numbers<T>(n, how, 1);
        const std::vector<Sum> before = numbers<Sum>(n, how, 2);
        std::vector<Sum> sum(before), s(before);
        for (auto i = static_cast<std::size_t>(skip); i < g.size(); ++i) {
          const auto wide = convert_float<Sum>(g[i]);
          sum[i] = before[i] + wide;
          s[i] = moment_by_definition(before[i], wide, 0.999);
        }
        const auto check = [&](const accumulated<Sum>& found) {
          CHECK(first_difference(found.sum, sum) == -1);
          CHECK(first_difference(found.s, s) == -1);
        };
        (check(run(g, before, skip, 0.999)), ...);
      }
}

}  // namespace dualsft::testing
