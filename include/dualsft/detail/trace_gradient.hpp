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
  trace_gradient(const parameter_layout& layout, std::span<double> sum)
      : layout_(layout), sum_(sum) {}

  void operator()(const affine_trace<S>& trace) {
    const contiguous_rows<S> inputs(trace.inputs);
    const contiguous_rows<S> errors(trace.output_gradients);
    product_.setZero(errors.view().cols(), inputs.view().cols());  // (out, in)
    add_at_b(errors.view(), inputs.view(), view_of(product_));
    matrix(trace.weight) += product_.template cast<double>();
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
  row_matrix<S> product_;
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
