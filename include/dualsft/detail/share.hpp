// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/config.hpp>

namespace dualsft::detail {

/// floor(ratio * total), of the product as double arithmetic makes it: 0.29 of 100 is 28, because
/// the product is 28.999999999999996. Python's int(ratio * total) is the same, so that sizes can be
/// predicted outside.
/// \param ratio  in [0, 1]
inline index_t share_of(double ratio, index_t total) {
  return static_cast<index_t>(std::floor(ratio * static_cast<double>(total)));
}

}  // namespace dualsft::detail
