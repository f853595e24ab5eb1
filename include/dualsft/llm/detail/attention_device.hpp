// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>

/// What the device's attention kernels share: what they are given, and who sees whom.
namespace dualsft::llm::detail {

/// Rows of a matrix whose elements lie side by side.
template <class T>
struct strided_rows {
  T* data = nullptr;
  index_t stride = 0;

  DUALSFT_HOST_DEVICE T* row(index_t i) const { return data + i * stride; }
};

/// The arguments of a kernel; tangents are empty where there are none.
template <class T>
struct attention_arguments {
  strided_rows<const T> q, k, v, tangent_q, tangent_k, tangent_v;
  strided_rows<T> o, tangent_o;
  const index_t* starts = nullptr;  ///< [sequences + 1], on the device
  index_t sequences = 0;
  index_t heads = 0, group = 0, head_size = 0;
  int window = 0;  ///< 0: everything before
  float scale = 0;
};

/// Positions within a sequence are ints, so that they fit one register: all rows together are fewer.
inline constexpr index_t most_rows = (index_t{1} << 31) - 1024;

/// Keys [begin, end) of a sequence.
struct key_range {
  int begin = 0, end = 0;
};

/// What queries [first, first + rows) see between them of a sequence.
DUALSFT_HOST_DEVICE inline key_range seen_keys(int first, int rows, int size, int window) {
  const int end = first + rows < size ? first + rows : size;
  const int begin = window > 0 && first >= window ? first - window + 1 : 0;
  return {begin, end};
}

/// Whether some of queries [first, first + rows) does not see some of keys [key, key + keys).
DUALSFT_HOST_DEVICE inline bool has_unseen(int first, int rows, int key, int keys, int size,
                                           int window) {
  const int last = first + rows - 1;
  return key + keys - 1 > first || key + keys > size || (window > 0 && key <= last - window);
}

/// Tiles of `rows` queries are numbered through all sequences so that nobody has to add up their
/// counts: sequence s has the numbers from this one on, of which its last may be unused.
/// (floor((a + n) / r) + 1 - floor(a / r) >= ceil(n / r), for a start a and a length n.)
DUALSFT_HOST_DEVICE inline index_t first_tile(index_t start, index_t sequence, index_t rows) {
  return start / rows + sequence;
}

}  // namespace dualsft::llm::detail
