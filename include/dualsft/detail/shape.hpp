// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace dualsft::detail {

/// "(3, 4)", "(3,)", "()".
inline std::string shape_text(const std::vector<index_t>& shape) {
  std::string out = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) out += ", ";
    out += std::to_string(shape[i]);
  }
  return out + (shape.size() == 1 ? ",)" : ")");
}

/// "[0,8]", as JSON writes it. (Appended, because GCC 12 warns of `"[" + std::to_string(x)` at -O3.)
inline std::string range_text(index_t begin, index_t end) {
  std::string out(1, '[');
  out += std::to_string(begin);
  out += ',';
  out += std::to_string(end);
  out += ']';
  return out;
}

/// The product of the dimensions, or nothing if elements * bytes_each leaves 62 bits. Zeros do not
/// excuse the other dimensions: a shape that no machine can index is a corrupt one.
inline std::optional<index_t> element_count(const std::vector<index_t>& shape, index_t bytes_each) {
  const index_t most = (std::numeric_limits<index_t>::max() >> 1) / bytes_each;
  index_t count = 1;
  bool empty = false;
  for (const index_t n : shape) {
    if (n == 0) {
      empty = true;
      continue;
    }
    if (count > most / n) return std::nullopt;
    count *= n;
  }
  return empty ? 0 : count;
}

}  // namespace dualsft::detail
