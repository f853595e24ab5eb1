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

/// sums: of each column; then of each column's squares.
template <class T>
__global__ void plain_column_sums(const T* g, index_t rows, index_t columns, double* sums) {
  const index_t j = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (j >= columns) return;
  double sum = 0, squares = 0;
  for (index_t i = 0; i < rows; ++i) {
    const double x = static_cast<double>(g[i * columns + j]);
    sum += x;
    squares += x * x;
  }
  sums[j] = sum;
  sums[columns + j] = squares;
}

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
    return n * d * sizeof(T) + 8 * n + d * (3 * 4 + 8 + 16) + 3e8 * n / 4096 * d / 1e6;
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

  /// A thousand parameter scores, eight data scores and the law of all of them against the definition in
  /// double. Half of the digits are asked for.
  bool right(const exec::cuda& policy) const {
    detail::column_sums all;
    return columns_are_right(policy) && rows_are_right(policy, all) && totals_are_right(all);
  }

  /// No score from before is left.
  void forget(const exec::cuda& policy) const {
    for (const auto* each : {&data_scores, &parameter_scores})
      detail::cuda_check(cudaMemsetAsync(each->data(), 0xff, each->bytes(), policy.stream),
                         "forget");
  }

 private:
  static inline const double tight = std::sqrt(std::numeric_limits<double>::epsilon());

  static double at(float x) { return static_cast<double>(x); }

  /// Column j as the definition finishes it, from its sum and the sum of its squares.
  detail::finished_column finished(index_t j, double sum, double squares,
                                   detail::column_sums& sums) const {
    const double curvature = needs_curvature(rule) ? at(std::abs(vector_d(j)) + 0x1p-20F) : 1.0;
    const double curved = needs_hessian_gradient(rule) ? at(vector_hg(j)) : 0.0;
    return detail::finish_device_column(rule, at(vector_v(j)), curvature, curved, sum, squares, j,
                                        sums);
  }

  bool columns_are_right(const exec::cuda& policy) const {
    for (const index_t j : places(columns)) {
      double sum = 0, squares = 0, magnitudes = 0;
      for (index_t i = 0; i < rows; ++i) {
        const double x = at(elements(i * columns + j));
        sum += x;
        squares += x * x;
        magnitudes += std::abs(x);
      }
      detail::column_sums sums;
      const detail::finished_column expected = finished(j, sum, squares, sums);
      const double scale = expected.weight * magnitudes + sums.terms;
      if (!(std::abs(read_at(policy, parameter_scores.data(), j) - expected.score) <=
            tight * scale))
        return false;
    }
    return true;
  }

  /// phi_D[i] = eta sum_j g_ij (a_j + b_j g_ij): it takes all columns' sums, which the host would need a
  /// minute for.
  bool rows_are_right(const exec::cuda& policy, detail::column_sums& all) const {
    const detail::device_array<double> on_device(policy, 2 * columns);
    detail::launch("check", policy, {static_cast<unsigned>((columns + 255) / 256), 256},
                   plain_column_sums<T>, g.data(), rows, columns, on_device.data());
    const std::vector<double> sums = on_device.to_host();
    const std::vector<index_t> some = few(rows, 8);
    std::vector<double> wanted(some.size()), sizes(some.size());
    for (index_t j = 0; j < columns; ++j) {
      const detail::finished_column column = finished(
          j, sums[static_cast<std::size_t>(j)], sums[static_cast<std::size_t>(columns + j)], all);
      for (std::size_t k = 0; k < some.size(); ++k) {
        const double x = at(elements(some[k] * columns + j));
        wanted[k] += rule.eta * x * (column.a + column.b * x);
        sizes[k] += rule.eta * std::abs(x) * (std::abs(column.a) + std::abs(column.b * x));
      }
    }
    for (std::size_t k = 0; k < some.size(); ++k)
      if (!(std::abs(read_at(policy, data_scores.data(), some[k]) - wanted[k]) <= tight * sizes[k]))
        return false;
    return true;
  }

  bool totals_are_right(const detail::column_sums& all) const {
    double row_total = 0, column_total = 0, absolute = 0;
    for (const double x : data_scores.to_host()) row_total += x, absolute += std::abs(x);
    for (const double x : parameter_scores.to_host()) column_total += x, absolute += std::abs(x);
    const double difference = rule.order == score_order::joint
                                  ? row_total + column_total - all.everything
                                  : row_total - column_total;
    return std::abs(difference) <= tight * absolute;
  }
};

}  // namespace dualsft::bench
