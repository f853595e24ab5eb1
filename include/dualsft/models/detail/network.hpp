// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/detail/products.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/traces.hpp>
#include <string>
#include <utility>
#include <vector>

/// The multilayer perceptron that all networks of models/ share, on T rows at once:
///
///     x_0 -> [ z_l = W_l x_l + b_l,  x_{l+1} = f(z_l) ] for the hidden layers
///         -> optionally  xhat = x / rms(x),  n = s .* xhat
///         -> logits = W n + b
///
/// Backward yields one trace per use of a parameter. A gradient is the sum of the traces' products,
/// a ghost score needs the traces alone, so there is one backward pass for both.
namespace dualsft {

/// Smooth activations only: Hessian products need the second derivative.
enum class activation {
  tanh,  ///< f(z) = tanh z
  silu,  ///< f(z) = z / (1 + exp(-z))
};

/// Whether the head reads the last hidden state itself or its normalised, scaled form.
enum class head_norm {
  none,
  rms,  ///< n = s .* x / sqrt(mean(x^2) + 1e-6), with the scale s a parameter
};

namespace detail {

template <class S>
using row_vector = Eigen::Matrix<S, 1, Eigen::Dynamic>;
template <class S>
using column_array = Eigen::Array<S, Eigen::Dynamic, 1>;
template <class S>
using const_matrix_map = Eigen::Map<const row_matrix<S>>;
template <class S>
using const_vector_map = Eigen::Map<const row_vector<S>>;

/// The views that networks hand out are dense and row-major, so they map back.
template <class S>
const_matrix_map<S> map_of(const matrix_view<const S>& v) {
  return {v.data(), v.rows(), v.cols()};
}

inline void expects_widths(const char* function, const std::vector<index_t>& hidden,
                           head_norm norm) {
  for (std::size_t l = 0; l < hidden.size(); ++l)
    expects(hidden[l] > 0, function, "a hidden layer must be at least 1 wide", "layer", l, "width",
            hidden[l]);
  expects(norm == head_norm::none || !hidden.empty(), function,
          "a normalised head needs a hidden layer", "hidden layers", hidden.size());
}

struct network_layer {
  parameter_block weight;  // [out, in]
  parameter_block bias;    // [out]
  index_t weight_number = -1;
  index_t bias_number = -1;

  template <class S>
  matrix_view<const S> weights(const S* theta) const {
    return {theta + weight.offset, weight.rows, weight.cols};
  }
  template <class S>
  const_vector_map<S> biases(const S* theta) const {
    return {theta + bias.offset, bias.rows};
  }
};

/// Which blocks of the layout make up the network; the last layer is the head.
struct network_shape {
  static constexpr double norm_epsilon = 1e-6;  // keeps rms(0) away from zero

  std::vector<network_layer> layers;
  activation hidden_activation = activation::tanh;
  index_t norm_number = -1;  // block of the scale s, -1 without a norm
  index_t norm_offset = 0;

  std::size_t head() const { return layers.size() - 1; }
  bool normed(std::size_t layer) const { return norm_number >= 0 && layer == head(); }
  index_t input_size() const { return layers.front().weight.cols; }
  index_t classes() const { return layers.back().weight.rows; }
  index_t head_input_size() const { return layers.back().weight.cols; }

  template <class S>
  const_vector_map<S> scale(const S* theta) const {
    return {theta + norm_offset, head_input_size()};
  }

  void add_layer(parameter_layout& layout, const std::string& prefix, const std::string& kind,
                 int layer, index_t in, index_t out) {
    network_layer added;
    added.weight_number = layout.add(prefix + "weight", out, in, layer, kind + "weight");
    added.bias_number = layout.add(prefix + "bias", out, 1, layer, kind + "bias");
    added.weight = layout.block(added.weight_number);
    added.bias = layout.block(added.bias_number);
    layers.push_back(std::move(added));
  }

  /// Hidden layers, the norm if wanted, and the head, behind what the layout already holds.
  void add_layers(parameter_layout& layout, index_t in, const std::vector<index_t>& hidden,
                  index_t classes, head_norm norm) {
    for (std::size_t l = 0; l < hidden.size(); ++l) {
      add_layer(layout, "layers." + std::to_string(l) + ".", "hidden.", static_cast<int>(l), in,
                hidden[l]);
      in = hidden[l];
    }
    if (norm == head_norm::rms) {
      norm_number = layout.add("norm.scale", in, 1, -1, "norm");
      norm_offset = layout.block(norm_number).offset;
    }
    add_layer(layout, "head.", "head.", -1, in, classes);
  }
};

/// What forward leaves behind for T rows. The same shape holds the tangents of all of it.
template <class S>
struct network_state {
  std::vector<row_matrix<S>> pre;   // z_l      [T, out_l], hidden layers
  std::vector<row_matrix<S>> post;  // x_{l+1}  [T, out_l]
  row_matrix<S> unit;               // xhat     [T, in of the head]
  row_matrix<S> scaled;             // n
  column_array<S> rms;              // [T]; as a tangent: its rate of change
  row_matrix<S> logits;             // [T, classes]

  const row_matrix<S>& input_of(const network_shape& shape, std::size_t layer,
                                const row_matrix<S>& input) const {
    if (layer == 0) return input;
    return shape.normed(layer) ? scaled : post[layer - 1];
  }
};

// ---- activation -------------------------------------------------------------------------------

template <class S>
void activate(activation f, const row_matrix<S>& z, row_matrix<S>& x) {
  if (f == activation::tanh)
    x = z.array().tanh();
  else
    x = z.array() * z.array().logistic();
}

/// dz = dx .* f'(z), in place
template <class S>
void multiply_slope(activation f, const row_matrix<S>& z, const row_matrix<S>& x,
                    row_matrix<S>& dx) {
  if (f == activation::tanh) {
    dx.array() *= S(1) - x.array().square();
    return;
  }
  Eigen::Array<S, 1, Eigen::Dynamic> q;  // one row at a time, so that it stays in cache
  for (index_t t = 0; t < z.rows(); ++t) {
    q = z.row(t).array().logistic();
    dx.row(t).array() *= q * (S(1) + z.row(t).array() * (S(1) - q));
  }
}

/// f''(z)
template <class S>
row_matrix<S> activation_curvature(activation f, const row_matrix<S>& z, const row_matrix<S>& x) {
  if (f == activation::tanh) return S(-2) * x.array() * (S(1) - x.array().square());
  return z.unaryExpr([](S zi) {
    const S q = S(1) / (S(1) + std::exp(-zi));
    return q * (S(1) - q) * (S(2) + zi * (S(1) - S(2) * q));
  });
}

// ---- forward and backward ---------------------------------------------------------------------

/// z = x W^T + b
template <class S>
void affine(const row_matrix<S>& x, const network_layer& layer, const S* theta, row_matrix<S>& z) {
  z.resize(x.rows(), layer.weight.rows);
  z.rowwise() = layer.biases(theta);
  add_a_bt(view_of(x), layer.weights(theta), view_of(z));
}

/// dx = e W
template <class S>
void back_through(const row_matrix<S>& e, const network_layer& layer, const S* theta,
                  row_matrix<S>& dx) {
  dx.setZero(e.rows(), layer.weight.cols);
  add_a_b(view_of(e), layer.weights(theta), view_of(dx));
}

/// Everything up to the head's input. input [T, in].
template <class S>
void network_hidden(const network_shape& shape, const S* theta, const row_matrix<S>& input,
                    network_state<S>& state) {
  state.pre.resize(shape.head());
  state.post.resize(shape.head());
  for (std::size_t l = 0; l < shape.head(); ++l) {
    const network_layer& layer = shape.layers[l];
    affine<S>(state.input_of(shape, l, input), layer, theta, state.pre[l]);
    activate(shape.hidden_activation, state.pre[l], state.post[l]);
  }
  if (shape.norm_number >= 0) {
    const row_matrix<S>& x = state.post.back();
    state.rms = (x.array().square().rowwise().mean() + S(network_shape::norm_epsilon)).sqrt();
    state.unit = x.array().colwise() / state.rms;
    state.scaled = state.unit.array().rowwise() * shape.scale(theta).array();
  }
}

template <class S>
void network_forward(const network_shape& shape, const S* theta, const row_matrix<S>& input,
                     network_state<S>& state) {
  network_hidden(shape, theta, input, state);
  affine<S>(state.input_of(shape, shape.head(), input), shape.layers.back(), theta, state.logits);
}

/// Gradient through xhat = x / rms(x), in place:  (dxhat - xhat m) / rms
/// \param m  [T]  mean(xhat .* dxhat)
template <class S>
void norm_backward(const network_state<S>& state, const column_array<S>& m, row_matrix<S>& dx) {
  dx.array() -= state.unit.array().colwise() * m;
  dx.array().colwise() /= state.rms;
}

/// Calls use(trace) for every parameter, from the head down.
/// \param e               logit gradients [T, classes]; overwritten with scratch
/// \param input_gradient  d / d input [T, in], or null if nothing below needs it
template <class S, class Use>
void network_backward(const network_shape& shape, const S* theta, const row_matrix<S>& input,
                      const network_state<S>& state, row_matrix<S>& e,
                      std::span<const index_t> examples, Use&& use, row_matrix<S>* input_gradient) {
  row_matrix<S> below;
  for (std::size_t l = shape.head();; --l) {
    const network_layer& layer = shape.layers[l];
    use(affine_trace<S>{layer.weight_number, layer.bias_number,
                        view_of(state.input_of(shape, l, input)), view_of(e), examples});
    if (l == 0) {
      if (input_gradient != nullptr) back_through<S>(e, layer, theta, *input_gradient);
      return;
    }
    back_through<S>(e, layer, theta, below);
    if (shape.normed(l)) {
      use(scale_trace<S>{shape.norm_number, view_of(state.unit), view_of(below), examples});
      below.array().rowwise() *= shape.scale(theta).array();
      norm_backward<S>(state, (state.unit.array() * below.array()).rowwise().mean(), below);
    }
    multiply_slope(shape.hidden_activation, state.pre[l - 1], state.post[l - 1], below);
    e.swap(below);
  }
}

/// Turns logits into probabilities, row by row, and gives each row's negative log likelihood.
/// \param nll  [T], written
template <class S>
void softmax_rows(row_matrix<S>& logits, std::span<const index_t> targets, std::vector<S>& nll) {
  nll.resize(targets.size());
  for (index_t t = 0; t < logits.rows(); ++t) {
    auto row = logits.row(t).array();
    const S largest = row.maxCoeff();
    const S target = row[targets[static_cast<std::size_t>(t)]];
    row = (row - largest).exp();
    const S sum = row.sum();
    nll[static_cast<std::size_t>(t)] = std::log(sum) - (target - largest);
    row *= S(1) / sum;
  }
}

// ---- traces to gradients ----------------------------------------------------------------------

/// Calls deliver(block, add) for each block that the trace speaks of; add(at) adds the product, the
/// gradient of that block summed over the trace's rows, to the array at `at`.
template <class S, class Deliver>
void trace_products(const affine_trace<S>& trace, Deliver&& deliver) {
  deliver(trace.weight, [&](S* at) {
    add_at_b(trace.output_gradients, trace.inputs,
             matrix_view<S>(at, trace.output_gradients.cols(), trace.inputs.cols()));
  });
  deliver(trace.bias, [&](S* at) { add_column_sums(trace.output_gradients, at); });
}

template <class S, class Deliver>
void trace_products(const scale_trace<S>& trace, Deliver&& deliver) {
  deliver(trace.weight, [&](S* at) { add_column_dots(trace.output_gradients, trace.inputs, at); });
}

template <class S, class Deliver>
void trace_products(const embedding_trace<S>& trace, Deliver&& deliver) {
  const auto e = map_of(trace.output_gradients);
  deliver(trace.weight, [&](S* at) {
    for (index_t t = 0; t < e.rows(); ++t)
      Eigen::Map<row_vector<S>>(at + trace.ids[static_cast<std::size_t>(t)] * e.cols(), e.cols()) +=
          e.row(t);
  });
}

}  // namespace detail
}  // namespace dualsft
