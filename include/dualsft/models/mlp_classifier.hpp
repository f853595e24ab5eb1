// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/models/detail/network_model.hpp>
#include <dualsft/models/labelled_data.hpp>
#include <utility>
#include <vector>

namespace dualsft {

struct mlp_options {
  std::vector<index_t> hidden{32};  ///< widths of the hidden layers, first to last
  activation hidden_activation = activation::tanh;
  head_norm norm = head_norm::none;  ///< needs at least one hidden layer
  std::uint64_t seed = 0;
};

/// A multilayer perceptron that classifies feature vectors.
///
///     x_0 = features,  x_{l+1} = f(W_l x_l + b_l),  z = W n + b,  n = x_L or its RMS norm
///     l_i(theta) = log sum_c exp(z_c) - z_{y_i}
///
/// Blocks: "layers.<l>.weight" [out, in] and "layers.<l>.bias" (kinds "hidden.weight" and
/// "hidden.bias", layer l), "norm.scale" (kind "norm") if asked for, "head.weight", "head.bias".
/// It has every ability of concepts.hpp; Hessian products are exact (forward over reverse). Its
/// embedding is n.
///
/// Thread-safety: const members keep their scratch on the caller's side of the call. Copies share
/// the data and own their parameters.
/// Cost: memory of one call is bounded by some hundred rows of activations, whatever the batch
/// (gradient_blocks: by the batch).
/// Numerics: products and row sums in S, sums over rows and examples of losses and derivatives in
/// double.
template <class S>
class mlp_classifier : public detail::network_model<S, detail::labelled_input<S>> {
  using base = detail::network_model<S, detail::labelled_input<S>>;

 public:
  /// Parameters start as init(options.seed) leaves them.
  explicit mlp_classifier(std::shared_ptr<const labelled_data<S>> data,
                          const mlp_options& options = {})
      : base(parts(std::move(data), options)) {
    this->init(options.seed);
  }

  const labelled_data<S>& data() const { return *this->input().data(); }

 private:
  static typename base::fixed_parts parts(std::shared_ptr<const labelled_data<S>> data,
                                          const mlp_options& options) {
    detail::expects_widths("mlp_classifier", options.hidden, options.norm);
    typename base::fixed_parts p{detail::labelled_input<S>(std::move(data)), {}, {}};
    p.shape.hidden_activation = options.hidden_activation;
    p.shape.add_layers(p.layout, p.input.data()->features, options.hidden, p.input.data()->classes,
                       options.norm);
    return p;
  }
};

}  // namespace dualsft
