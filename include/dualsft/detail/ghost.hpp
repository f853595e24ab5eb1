// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <dualsft/detail/products.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/traces.hpp>
#include <span>
#include <vector>

namespace dualsft::detail {

/// A view whose rows are contiguous, as Eigen's products want them; copies only what is not.
template <class S>
class contiguous_rows {
 public:
  explicit contiguous_rows(matrix_view<const S> view) : view_(view) {
    if (view.col_stride() == 1 || view.cols() <= 1) return;
    copy_.resize(view.rows(), view.cols());
    for (index_t i = 0; i < view.rows(); ++i)
      for (index_t j = 0; j < view.cols(); ++j) copy_(i, j) = view(i, j);
    view_ = matrix_view<const S>(copy_.data(), view.rows(), view.cols());
  }

  matrix_view<const S> view() const { return view_; }
  const_row_map<S> get() const { return as_map(view_); }

 private:
  matrix_view<const S> view_;
  row_matrix<S> copy_;
};

/// Adds <g_i, P> of every trace to out[i], i the position in the batch: the sink of the ghost
/// strategy. Products run in S, the sum over tokens and traces in double. The product A P^T of an
/// affine trace is formed for a few hundred rows at a time so that it stays in cache.
template <class S>
class ghost_products {
 public:
  /// \param direction  P [d], flat
  /// \param out        [batch], added to
  /// \param threads    that an affine trace's rows are spread over: more than one where the model
  ///                   is called from one thread at a time
  ghost_products(const parameter_layout& layout, std::span<const S> direction,
                 std::span<double> out, int threads = 1)
      : layout_(layout), direction_(direction), out_(out), threads_(threads) {}

  void operator()(const affine_trace<S>& trace) {
    check(trace.inputs.rows(), trace.output_gradients.rows(), trace.examples);
    const matrix_view<const S> weight = matrix(trace.weight);  // (out, in)
    expects(weight.cols() == trace.inputs.cols() && weight.rows() == trace.output_gradients.cols(),
            "ghost_products", "an affine trace must fit its weight [out, in]", "block",
            layout_.block(trace.weight).name, "in", trace.inputs.cols(), "out",
            trace.output_gradients.cols());
    const contiguous_rows<S> inputs(trace.inputs);
    const contiguous_rows<S> errors(trace.output_gradients);
    dots_.assign(static_cast<std::size_t>(trace.inputs.rows()), 0.0);
    constexpr index_t most = 256;
    parallel_ranges(exec::cpu{threads_}, trace.inputs.rows(), most, [&](int, index_range range) {
      row_matrix<S> product;
      for (index_t first = range.begin; first < range.end; first += most) {
        const index_t rows = std::min(most, range.end - first);
        product.setZero(rows, weight.rows());
        if (trace.bias >= 0) product.rowwise() = vector(trace.bias, weight.rows());
        add_a_bt(inputs.view().middle_rows(first, rows), weight, view_of(product));
        const const_row_map<S> e = as_map(errors.view().middle_rows(first, rows));
        for (index_t t = 0; t < rows; ++t)
          dots_[static_cast<std::size_t>(first + t)] =
              static_cast<double>(e.row(t).dot(product.row(t)));
      }
    });
    for (index_t t = 0; t < trace.inputs.rows(); ++t)
      at(trace.examples, t) += dots_[static_cast<std::size_t>(t)];
  }

  void operator()(const embedding_trace<S>& trace) {
    check(static_cast<index_t>(trace.ids.size()), trace.output_gradients.rows(), trace.examples);
    const auto table = as_map(matrix(trace.weight));  // (vocabulary, width)
    expects(table.cols() == trace.output_gradients.cols(), "ghost_products",
            "an embedding trace must fit its table", "block", layout_.block(trace.weight).name,
            "width", trace.output_gradients.cols());
    const contiguous_rows<S> errors(trace.output_gradients);
    const auto e = errors.get();
    for (index_t t = 0; t < e.rows(); ++t) {
      const index_t id = trace.ids[static_cast<std::size_t>(t)];
      expects(0 <= id && id < table.rows(), "ghost_products", "ids must lie in the vocabulary",
              "id", id, "vocabulary", table.rows());
      at(trace.examples, t) += static_cast<double>(e.row(t).dot(table.row(id)));
    }
  }

  void operator()(const scale_trace<S>& trace) {
    check(trace.inputs.rows(), trace.output_gradients.rows(), trace.examples);
    expects(trace.inputs.cols() == layout_.block(trace.weight).size() &&
                trace.inputs.cols() == trace.output_gradients.cols(),
            "ghost_products", "a scale trace must fit its weight", "block",
            layout_.block(trace.weight).name, "columns", trace.inputs.cols());
    const contiguous_rows<S> inputs(trace.inputs);
    const contiguous_rows<S> errors(trace.output_gradients);
    const auto p = vector(trace.weight, trace.inputs.cols());
    for (index_t t = 0; t < trace.inputs.rows(); ++t)
      at(trace.examples, t) +=
          static_cast<double>(inputs.get().row(t).cwiseProduct(p).dot(errors.get().row(t)));
  }

  void operator()(const dense_trace<S>& trace) {
    check(trace.gradients.rows(), trace.gradients.rows(), trace.examples);
    expects(trace.gradients.cols() == layout_.block(trace.block).size(), "ghost_products",
            "a dense trace must span its block", "block", layout_.block(trace.block).name,
            "columns", trace.gradients.cols());
    const contiguous_rows<S> gradients(trace.gradients);
    const auto p = vector(trace.block, trace.gradients.cols());
    for (index_t t = 0; t < trace.gradients.rows(); ++t)
      at(trace.examples, t) += static_cast<double>(gradients.get().row(t).dot(p));
  }

 private:
  static void check(index_t rows, index_t gradient_rows, std::span<const index_t> examples) {
    expects(rows == gradient_rows && rows == static_cast<index_t>(examples.size()),
            "ghost_products", "a trace has one example per row", "rows", rows, "gradient rows",
            gradient_rows, "examples", examples.size());
  }

  matrix_view<const S> matrix(index_t block) const {
    const parameter_block& b = layout_.block(block);
    return {direction_.data() + b.offset, b.rows, b.cols};
  }

  Eigen::Map<const Eigen::Matrix<S, 1, Eigen::Dynamic>> vector(index_t block, index_t size) const {
    const parameter_block& b = layout_.block(block);
    expects(b.size() == size, "ghost_products", "a vector parameter must fit its trace", "block",
            b.name, "size", b.size(), "columns", size);
    return {direction_.data() + b.offset, size};
  }

  double& at(std::span<const index_t> examples, index_t row) {
    const index_t i = examples[static_cast<std::size_t>(row)];
    expects(0 <= i && i < static_cast<index_t>(out_.size()), "ghost_products",
            "examples are positions in the batch", "example", i, "batch", out_.size());
    return out_[static_cast<std::size_t>(i)];
  }

  const parameter_layout& layout_;
  std::span<const S> direction_;
  std::span<double> out_;
  int threads_;
  std::vector<double> dots_;
};

}  // namespace dualsft::detail
