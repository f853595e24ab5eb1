// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/models/detail/network.hpp>

/// Derivatives of network.hpp along a direction p of parameter space (the R operator of Pearlmutter
/// 1994): the tangent of forward gives <g_i, p> without a backward pass, the tangent of backward
/// gives exact Hessian products. R{.} stands for d/dr (.) at theta + r p.
namespace dualsft::detail {

/// \param input_tangent  R{input} [T, in], or null if the input does not depend on theta
template <class S>
void network_tangent(const network_shape& shape, const S* theta, const S* p,
                     const row_matrix<S>& input, const row_matrix<S>* input_tangent,
                     const network_state<S>& state, network_state<S>& tangent) {
  tangent.pre.resize(shape.head());
  tangent.post.resize(shape.head());
  for (std::size_t l = 0; l < shape.layers.size(); ++l) {
    const network_layer& layer = shape.layers[l];
    row_matrix<S>& rate = l == shape.head() ? tangent.logits : tangent.pre[l];
    // R{W x + b} = P_W x + P_b + W R{x}
    affine<S>(state.input_of(shape, l, input), layer, p, rate);
    if (l > 0)
      add_a_bt(view_of(tangent.input_of(shape, l, input)), layer.weights(theta), view_of(rate));
    else if (input_tangent != nullptr)
      add_a_bt(view_of(*input_tangent), layer.weights(theta), view_of(rate));
    if (l == shape.head()) return;

    tangent.post[l] = rate;
    multiply_slope(shape.hidden_activation, state.pre[l], state.post[l], tangent.post[l]);
    if (shape.normed(l + 1)) {
      // R{rms} = mean(xhat .* R{x});  R{xhat} = (R{x} - xhat R{rms}) / rms
      tangent.rms = (state.unit.array() * tangent.post[l].array()).rowwise().mean();
      tangent.unit = tangent.post[l].array() - state.unit.array().colwise() * tangent.rms;
      tangent.unit.array().colwise() /= state.rms;
      tangent.scaled = tangent.unit.array().rowwise() * shape.scale(theta).array() +
                       state.unit.array().rowwise() * shape.scale(p).array();
    }
  }
}

/// out += R{gradient}: backward and its tangent side by side.
/// \param e, re                   logit gradients and their tangents; overwritten with scratch
/// \param input_tangent           as above
/// \param input_gradient_tangent  R{d / d input} [T, in], or null
/// \param out                     all d coordinates
template <class S>
void network_curvature(const network_shape& shape, const S* theta, const S* p,
                       const row_matrix<S>& input, const row_matrix<S>* input_tangent,
                       const network_state<S>& state, const network_state<S>& tangent,
                       row_matrix<S>& e, row_matrix<S>& re, row_matrix<S>* input_gradient_tangent,
                       S* out) {
  row_matrix<S> below, rate_below;
  for (std::size_t l = shape.head();; --l) {
    const network_layer& layer = shape.layers[l];
    const matrix_view<S> weight(out + layer.weight.offset, layer.weight.rows, layer.weight.cols);
    add_at_b(view_of(re), view_of(state.input_of(shape, l, input)), weight);
    if (l > 0)
      add_at_b(view_of(e), view_of(tangent.input_of(shape, l, input)), weight);
    else if (input_tangent != nullptr)
      add_at_b(view_of(e), view_of(*input_tangent), weight);
    add_column_sums<S>(view_of(re), out + layer.bias.offset);

    if (l == 0 && input_gradient_tangent == nullptr) return;
    back_through<S>(re, layer, theta, rate_below);
    add_a_b(view_of(e), layer.weights(p), view_of(rate_below));
    if (l == 0) {
      input_gradient_tangent->swap(rate_below);
      return;
    }
    back_through<S>(e, layer, theta, below);

    if (shape.normed(l)) {
      const auto xhat = state.unit.array();
      add_column_dots<S>(view_of(rate_below), view_of(state.unit), out + shape.norm_offset);
      add_column_dots<S>(view_of(below), view_of(tangent.unit), out + shape.norm_offset);
      // through n = s .* xhat
      const auto s = shape.scale(theta).array();
      rate_below.array().rowwise() *= s;
      rate_below.array() += below.array().rowwise() * shape.scale(p).array();
      below.array().rowwise() *= s;
      // through dx = (dxhat - xhat m) / rms with m = mean(xhat .* dxhat), product rule term by term
      const column_array<S> m = (xhat * below.array()).rowwise().mean();
      const column_array<S> rate_m =
          (tangent.unit.array() * below.array() + xhat * rate_below.array()).rowwise().mean();
      norm_backward(state, m, below);
      rate_below.array() -= tangent.unit.array().colwise() * m;
      rate_below.array() -= xhat.colwise() * rate_m;
      rate_below.array() -= below.array().colwise() * tangent.rms;
      rate_below.array().colwise() /= state.rms;
    }

    // R{dx .* f'(z)} = R{dx} .* f'(z) + dx .* f''(z) .* R{z}
    multiply_slope(shape.hidden_activation, state.pre[l - 1], state.post[l - 1], rate_below);
    rate_below.array() +=
        below.array() *
        activation_curvature(shape.hidden_activation, state.pre[l - 1], state.post[l - 1]).array() *
        tangent.pre[l - 1].array();
    multiply_slope(shape.hidden_activation, state.pre[l - 1], state.post[l - 1], below);
    e.swap(below);
    re.swap(rate_below);
  }
}

}  // namespace dualsft::detail
