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

  /// What is read of one coordinate.
  struct inputs {
    Weight weight;
    Gradient gradient;
    float m, s, master;
  };

  /// \param rank        in [0, K)
  /// \param coordinate  in [0, d)
  DUALSFT_HOST_DEVICE inputs load(index_t rank, index_t coordinate) const {
    const index_t i = coordinate - offset;
    return {theta[i], gradient[i], m[rank], s[rank], masters != nullptr ? masters[rank] : 0.0F};
  }
  DUALSFT_HOST_DEVICE void store(index_t rank, index_t coordinate, inputs at) const {
    float weight = convert_float<float>(at.weight);
    // NaN: not known yet. (A weight that is NaN is one on either side.)
    if (masters != nullptr && at.master == at.master) weight = at.master;
    weight = adamw_rule<float>::moved(coefficients, weight, at.m, at.s,
                                      convert_float<float>(at.gradient));
    m[rank] = at.m;
    s[rank] = at.s;
    if (masters != nullptr) masters[rank] = weight;
    theta[coordinate - offset] = convert_float<Weight>(weight);
  }
};

}  // namespace dualsft::detail
