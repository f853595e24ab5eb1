// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <dualsft/detail/ghost.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/traces.hpp>
#include <span>

namespace dualsft::detail {

/// Adds the batch's gradient to a flat vector of doubles, from the same factors that the ghost
/// products read: G_W += E^T A. Products run in S over the rows of one trace, sums across traces
/// and batches in double. Shapes are checked by ghost_products, which sees every trace first.
template <class S>
class trace_gradient {
 public:
  /// \param threads  as for ghost_products
  trace_gradient(const parameter_layout& layout, std::span<double> sum, int threads = 1)
      : layout_(layout), sum_(sum), threads_(threads) {}

  void operator()(const affine_trace<S>& trace) {
    const contiguous_rows<S> inputs(trace.inputs);
    const contiguous_rows<S> errors(trace.output_gradients);
    const matrix_view<const S> e = errors.view();
    auto weight = matrix(trace.weight);  // (out, in)
    constexpr index_t least = 16;
    parallel_ranges(exec::cpu{threads_}, e.cols(), least, [&](int, index_range range) {
      row_matrix<S> product = row_matrix<S>::Zero(range.size(), weight.cols());
      add_at_b({e.data() + range.begin, e.rows(), range.size(), e.row_stride(), e.col_stride()},
               inputs.view(), view_of(product));
      weight.middleRows(range.begin, range.size()) += product.template cast<double>();
    });
    if (trace.bias >= 0) add_column_sums(errors.view(), at(trace.bias));
  }

  void operator()(const embedding_trace<S>& trace) {
    const contiguous_rows<S> errors(trace.output_gradients);
    auto table = matrix(trace.weight);
    for (index_t t = 0; t < trace.output_gradients.rows(); ++t)
      table.row(trace.ids[static_cast<std::size_t>(t)]) +=
          errors.get().row(t).template cast<double>();
  }

  void operator()(const scale_trace<S>& trace) {
    const contiguous_rows<S> inputs(trace.inputs);
    const contiguous_rows<S> errors(trace.output_gradients);
    add_column_dots(errors.view(), inputs.view(), at(trace.weight));
  }

  void operator()(const dense_trace<S>& trace) {
    const contiguous_rows<S> gradients(trace.gradients);
    for (index_t t = 0; t < trace.gradients.rows(); ++t)
      vector(trace.block) += gradients.get().row(t).template cast<double>();
  }

 private:
  Eigen::Map<row_matrix<double>> matrix(index_t block) {
    const parameter_block& b = layout_.block(block);
    return {sum_.data() + b.offset, b.rows, b.cols};
  }
  double* at(index_t block) { return sum_.data() + layout_.block(block).offset; }
  Eigen::Map<Eigen::Matrix<double, 1, Eigen::Dynamic>> vector(index_t block) {
    const parameter_block& b = layout_.block(block);
    return {sum_.data() + b.offset, b.size()};
  }

  const parameter_layout& layout_;
  std::span<double> sum_;
  int threads_;
};

/// Hands every trace to the ghost products and then to the gradient.
template <class S>
struct both_sinks {
  ghost_products<S>& products;
  trace_gradient<S>& gradient;

  template <class Trace>
  void operator()(const Trace& trace) {
    products(trace);
    gradient(trace);
  }
};

}  // namespace dualsft::detail
