// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/interaction.hpp>
#include <dualsft/random.hpp>
#include <vector>

/// Random local problems that own their arrays, for the tests of the theory headers.
namespace dualsft::test {

struct owned_problem {
  index_t n, d;
  std::vector<double> g, v, D, H;
  double eta;

  owned_problem(index_t examples, index_t parameters, random_source& random)
      : n(examples), d(parameters), eta(0.1 + 0.4 * random.uniform()) {
    const auto size = [](index_t k) { return static_cast<std::size_t>(k); };
    g.resize(size(n * d));
    H.resize(size(d * d));
    for (double& x : g) x = random.normal();
    for (index_t j = 0; j < d; ++j) {
      v.push_back(random.normal());
      D.push_back(0.5 + random.uniform());
      for (index_t k = 0; k <= j; ++k) {
        const double h = random.normal();
        H[size(j * d + k)] = h;
        H[size(k * d + j)] = h;
      }
    }
  }

  local_problem view() const {
    return {
        .gradients = {g.data(), n, d}, .v = v, .D = D, .H = {H.data(), d, d}, .HG = {}, .eta = eta};
  }
};

}  // namespace dualsft::test
