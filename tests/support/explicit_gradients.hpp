#pragma once

#include <dualsft/concepts.hpp>
#include <numeric>
#include <vector>

/// The gradient matrix of a small model, row by row from the least that a model offers: what the
/// streaming engine must agree with and never forms.
namespace dualsft::testing {

inline std::vector<index_t> all_examples(index_t n) {
  std::vector<index_t> examples(static_cast<std::size_t>(n));
  std::iota(examples.begin(), examples.end(), index_t{0});
  return examples;
}

/// [examples, d], row-major, in double.
template <GradientModel M>
std::vector<double> explicit_gradients(const M& model, example_span examples) {
  using Real = typename M::scalar_type;
  std::vector<double> rows;
  for (const index_t& i : examples) {
    std::vector<Real> g(static_cast<std::size_t>(model.layout().size()), Real{0});
    model.accumulate_gradient(example_span(&i, 1), g);
    rows.insert(rows.end(), g.begin(), g.end());
  }
  return rows;
}

}  // namespace dualsft::testing
