// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/views.hpp>
#include <string_view>
#include <vector>

/// The contrast with Model Shapley: what opening a coordinate for training can gain, against what
/// deleting it from the checkpoint would lose. Curvature pulls the two in opposite directions.
namespace dualsft {

namespace detail {

inline void check_curvature(vector_view<const double> curvature, index_t size,
                            std::string_view function, std::string_view other) {
  expects(curvature.size() == size, function, "both vectors must have one entry per parameter",
          "D.size", curvature.size(), other, size);
  for (index_t j = 0; j < size; ++j)
    expects(curvature[j] > 0.0, function, "D must be positive", "j", j, "D[j]", curvature[j]);
}

}  // namespace detail

/// The most that a step along one coordinate can gain.
///
///     max over a of ( v_j a - D_j a^2 / 2 ) = v_j^2 / (2 D_j),   reached at a = v_j / D_j
///
/// \param v  [d], gradient of the validation objective
/// \param D  [d], curvature, > 0
/// \return   [d]; falls as D_j grows
/// \throws invalid_argument  if the sizes differ or a D_j is not positive
/// Cost: O(d). Source: DualSFT (75), (76).
inline std::vector<double> opening_values(vector_view<const double> v,
                                          vector_view<const double> D) {
  detail::check_curvature(D, v.size(), "opening_values", "v.size");
  std::vector<double> values(static_cast<std::size_t>(v.size()));
  for (index_t j = 0; j < v.size(); ++j)
    values[static_cast<std::size_t>(j)] = v[j] * v[j] / (2.0 * D[j]);
  return values;
}

/// What setting one coordinate to zero costs at a stationary checkpoint.
///
///     D_j theta_j^2 / 2
///
/// \param D      [d], curvature, > 0
/// \param theta  [d], the checkpoint
/// \return       [d]; grows with D_j
/// \throws invalid_argument  if the sizes differ or a D_j is not positive
/// Cost: O(d). Source: DualSFT (77), (78).
inline std::vector<double> deleting_values(vector_view<const double> D,
                                           vector_view<const double> theta) {
  detail::check_curvature(D, theta.size(), "deleting_values", "theta.size");
  std::vector<double> values(static_cast<std::size_t>(theta.size()));
  for (index_t j = 0; j < theta.size(); ++j)
    values[static_cast<std::size_t>(j)] = D[j] * theta[j] * theta[j] / 2.0;
  return values;
}

}  // namespace dualsft
