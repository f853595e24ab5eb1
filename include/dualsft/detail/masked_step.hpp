// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/accumulate.hpp>
#include <dualsft/config.hpp>
#include <dualsft/float16.hpp>
#include <dualsft/optim/adamw.hpp>

namespace dualsft::detail {

/// What a device's masked AdamW does to one selected coordinate of a block.
template <class Weight, GradientScalar Gradient>
struct masked_step {
  adamw_rule<float>::coefficients coefficients;
  Weight* theta;             // of the block's first coordinate
  const Gradient* gradient;  // likewise
  float* m;                  // [K]
  float* s;                  // [K]
  float* masters;            // [K], or null
  index_t offset;            // of the block

  /// \param rank        in [0, K)
  /// \param coordinate  in [0, d)
  DUALSFT_HOST_DEVICE void operator()(index_t rank, index_t coordinate) const {
    const index_t i = coordinate - offset;
    float weight = convert_float<float>(theta[i]);
    if (masters != nullptr) {
      // NaN: not known yet. (A weight that is NaN is one on either side.)
      const float master = masters[rank];
      if (master == master) weight = master;
    }
    weight = adamw_rule<float>::moved(coefficients, weight, m[rank], s[rank],
                                      convert_float<float>(gradient[i]));
    if (masters != nullptr) masters[rank] = weight;
    theta[i] = convert_float<Weight>(weight);
  }
};

}  // namespace dualsft::detail
