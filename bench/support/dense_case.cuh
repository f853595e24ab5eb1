// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/dense_scores.cuh>
#include <limits>
#include <vector>

#include "device_bench.cuh"
#include "device_inputs.cuh"

/// A matrix of gradients on the device, its vectors, and a look at some of the scores.
namespace dualsft::bench {

template <class T>
struct dense_case {
  index_t rows, columns;
  score_rule rule;
  detail::device_array<T> g;
  detail::device_array<float> v, d, hg;
  detail::device_array<double> data_scores, parameter_scores;

  static constexpr drawn elements{spread::normal, 1}, vector_v{spread::normal, 2},
      vector_d{spread::normal, 3}, vector_hg{spread::normal, 4};

  static double bytes(index_t rows, index_t columns) {
    const double n = static_cast<double>(rows), d = static_cast<double>(columns);
    return n * d * sizeof(T) + 8 * n + d * (3 * 4 + 8) + 3e8 * n / 4096 * d / 1e6;
  }

  dense_case(const exec::cuda& policy, index_t n, index_t m, const score_rule& how)
      : rows(n),
        columns(m),
        rule(how),
        g(policy, n * m),
        v(policy, m),
        d(policy, m),
        hg(policy, m),
        data_scores(policy, n),
        parameter_scores(policy, m) {
    fill(policy, g.view(), elements);
    fill(policy, v.view(), vector_v);
    fill_positive(policy, d.view(), vector_d);
    fill(policy, hg.view(), vector_hg);
  }

  matrix_view<const T, device_space> matrix() const { return {g.data(), rows, columns}; }
  dense_inputs<float, device_space> inputs() const { return {v.view(), d.view(), hg.view()}; }
  dense_outputs outputs() const { return {data_scores.view(), parameter_scores.view()}; }

  /// What the loop has to load at least, and the vectors.
  double moved_bytes() const {
    const double n = static_cast<double>(rows), m = static_cast<double>(columns);
    return n * m * sizeof(T) + 8 * n +
           m * (8 + 4 + (needs_curvature(rule) ? 4 : 0) + (needs_hessian_gradient(rule) ? 4 : 0));
  }

  /// A thousand parameter scores against the definition in double, and all data scores by their total:
  /// the law says what it has to be. Half of the digits are asked for.
  bool right(const exec::cuda& policy) const {
    const double tight = std::sqrt(std::numeric_limits<double>::epsilon());
    const auto at = [](float x) { return static_cast<double>(x); };
    for (const index_t j : places(columns)) {
      double sum = 0, squares = 0, magnitudes = 0;
      for (index_t i = 0; i < rows; ++i) {
        const double x = at(elements(i * columns + j));
        sum += x;
        squares += x * x;
        magnitudes += std::abs(x);
      }
      detail::column_sums sums;
      const double curvature = needs_curvature(rule) ? at(std::abs(vector_d(j)) + 0x1p-20F) : 1.0;
      const detail::finished_column expected = detail::finish_device_column(
          rule, at(vector_v(j)), curvature, needs_hessian_gradient(rule) ? at(vector_hg(j)) : 0.0,
          sum, squares, j, sums);
      const double scale = expected.weight * magnitudes + sums.terms;
      if (!(std::abs(read_at(policy, parameter_scores.data(), j) - expected.score) <=
            tight * scale))
        return false;
    }
    double row_total = 0, column_total = 0, absolute = 0;
    for (const double x : data_scores.to_host()) row_total += x, absolute += std::abs(x);
    for (const double x : parameter_scores.to_host()) column_total += x, absolute += std::abs(x);
    if (rule.order == score_order::joint) return std::isfinite(row_total);
    return std::abs(row_total - column_total) <= tight * absolute;
  }

  /// No score from before is left.
  void forget(const exec::cuda& policy) const {
    for (const auto* each : {&data_scores, &parameter_scores})
      detail::cuda_check(cudaMemsetAsync(each->data(), 0xff, each->bytes(), policy.stream),
                         "forget");
  }
};

}  // namespace dualsft::bench
