// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <dualsft/llm/detail/row_kernels.hpp>
#include <limits>
#include <span>
#include <vector>

/// Values and their derivatives along a direction of parameter space, together: a stacked matrix has
/// 2 T rows, x of T tokens above and R{x} below. A linear map's W then meets both in one product,
/// for which it is packed once.
namespace dualsft::llm::detail {

/// y = or += [x W^T + b; R{x} W^T + x P^T + p] with P and p the direction's parts of W and b.
/// x [2 T, in], W and P [out, in], b and p [out] or null, y [2 T, out]
template <class S>
void linear_tangent(worker_pool& pool, const row_matrix<S>& x, matrix_view<const S> weight,
                    matrix_view<const S> weight_rate, const S* bias, const S* bias_rate,
                    row_matrix<S>& y, into how = into::overwrite) {
  const index_t tokens = x.rows() / 2;
  linear(pool, x, weight, static_cast<const S*>(nullptr), y, how);
  multiply<true, S>(pool, view_of(x).middle_rows(0, tokens), weight_rate,
                    view_of(y).middle_rows(tokens, tokens), into::add);
  if (bias == nullptr) return;
  pool.ranges(y.rows(), row_grain(y.cols()), [&](index_range range) {
    for (index_t t = range.begin; t < range.end; ++t)
      row_of(y, t) += const_row_array<S>(t < tokens ? bias : bias_rate, y.cols());
  });
}

/// y = [norm(x); R{norm(x)}]; `rate` is the direction's part of the norm's weight; y may be x.
template <class S>
void norm_tangent(worker_pool& pool, const norm<S>& n, const row_matrix<S>& x, const S* rate,
                  row_matrix<S>& y) {
  y.resize(x.rows(), x.cols());
  const index_t below = n.pieces(x) / 2;
  pool.ranges(below, row_grain(n.width), [&](index_range range) {
    Eigen::Array<S, 1, Eigen::Dynamic> u(n.width);
    for (index_t i = range.begin; i < range.end; ++i) {
      const S inv = n.inverse_size(n.piece(x, i));
      u = n.piece(x, i) * inv;
      const auto dx = n.piece(x, below + i);
      const S mean = (u * dx).sum() / static_cast<S>(n.width);
      n.piece(y, below + i) =
          (dx - u * mean) * inv * n.scale() + u * const_row_array<S>(rate, n.width);
      n.piece(y, i) = u * n.scale();
    }
  });
}

/// g = [f(g) .* u; f'(g) .* R{g} .* u + f(g) .* R{u}], of stacked g and u.
template <class S>
void gate_tangent(worker_pool& pool, gate_activation kind, row_matrix<S>& g,
                  const row_matrix<S>& u) {
  const index_t tokens = g.rows() / 2;
  pool.ranges(tokens, row_grain(g.cols()), [&](index_range range) {
    Eigen::Array<S, 1, Eigen::Dynamic> f(g.cols()), slope(g.cols());
    for (index_t t = range.begin; t < range.end; ++t) {
      gate_value<S>(kind, row_of(g, t), f, &slope);
      row_array<S> below = row_of(g, tokens + t);
      below = slope * below * row_of(u, t) + f * row_of(u, tokens + t);
      row_of(g, t) = f * row_of(u, t);
    }
  });
}

/// d nll_t = <softmax(z_t), R{z_t}> - R{z_t,label}, from stacked logits that come a few columns at a
/// time: sums are kept relative to the largest logit so far.
template <class S>
class nll_rates {
 public:
  explicit nll_rates(std::span<const index_t> labels) : labels_(labels), rows_(labels.size()) {}

  /// \param z      [2 T, columns], overwritten
  /// \param first  z's first column in the vocabulary
  void add(worker_pool& pool, row_matrix<S>& z, index_t first) {
    const auto tokens = static_cast<index_t>(rows_.size());
    pool.ranges(tokens, row_grain(z.cols()), [&](index_range range) {
      for (index_t t = range.begin; t < range.end; ++t) {
        sums& at = rows_[static_cast<std::size_t>(t)];
        row_array<S> row = row_of(z, t);
        const const_row_array<S> rate = row_of(std::as_const(z), tokens + t);
        const index_t label = labels_[static_cast<std::size_t>(t)] - first;
        if (0 <= label && label < z.cols()) at.label = static_cast<double>(rate(label));
        const S top = std::max(at.top, row.maxCoeff());
        const double shrink = std::exp(static_cast<double>(at.top) - static_cast<double>(top));
        row = (row - top).exp();
        at.top = top;
        at.sum = at.sum * shrink + static_cast<double>(row.sum());
        at.weighted = at.weighted * shrink + static_cast<double>((row * rate).sum());
      }
    });
  }

  /// Behind the last column.
  double rate(index_t row) const {
    const sums& at = rows_[static_cast<std::size_t>(row)];
    return at.weighted / at.sum - at.label;
  }

 private:
  struct sums {
    S top = std::numeric_limits<S>::lowest();
    double sum = 0, weighted = 0, label = 0;
  };

  std::span<const index_t> labels_;
  std::vector<sums> rows_;
};

}  // namespace dualsft::llm::detail
