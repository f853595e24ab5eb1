// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/models/detail/network_model.hpp>
#include <dualsft/models/labelled_data.hpp>
#include <utility>

namespace dualsft {

/// Softmax regression: the smallest model that has every ability of concepts.hpp.
///
///     z_i = W x_i + b,   l_i(theta) = log sum_c exp(z_ic) - z_i,y_i
///
/// Blocks: "weight" [classes, f] and "bias" [classes]. Convex in theta. One logit row per example;
/// its embedding is x_i itself.
///
/// Thread-safety: const members keep their scratch on the caller's side of the call. Copies share
/// the data and own their parameters.
/// Numerics: sums over a row in S, over rows and examples in double.
template <class S>
class softmax_regression : public detail::network_model<S, detail::labelled_input<S>> {
  using base = detail::network_model<S, detail::labelled_input<S>>;

 public:
  /// Parameters start as init(seed) leaves them.
  explicit softmax_regression(std::shared_ptr<const labelled_data<S>> data, std::uint64_t seed = 0)
      : base(parts(std::move(data))) {
    this->init(seed);
  }

  const labelled_data<S>& data() const { return *this->input().data(); }

 private:
  static typename base::fixed_parts parts(std::shared_ptr<const labelled_data<S>> data) {
    typename base::fixed_parts p{detail::labelled_input<S>(std::move(data)), {}, {}};
    p.shape.add_layer(p.layout, "", "", -1, p.input.data()->features, p.input.data()->classes);
    return p;
  }
};

}  // namespace dualsft
