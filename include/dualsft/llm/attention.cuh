// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <dualsft/execution.cuh>
#include <dualsft/float16.hpp>
#include <dualsft/llm/detail/attention_device_plain.cuh>
#include <dualsft/llm/detail/attention_device_tensor.cuh>
#include <dualsft/views.hpp>
#include <type_traits>

/// Causal attention over packed sequences on a device, and its derivative along a direction.
///
/// Sequence s is rows [starts[s], starts[s + 1]) of every matrix, without padding; no row sees another
/// sequence. Query heads share key and value heads in groups.
namespace dualsft::llm {

struct attention_options {
  index_t heads = 0;      ///< of queries; a multiple of kv_heads
  index_t kv_heads = 0;   ///< of keys and values
  index_t head_size = 0;  ///< in [1, 256]; 16-bit values: a multiple of 8
  double scale = 1;       ///< > 0, in float too: what <q, k> is multiplied by
  index_t window = 0;     ///< keys that a row sees, itself included; 0: everything before
};

/// Queries [T, heads * head_size], keys and values [T, kv_heads * head_size], elements of a row side by
/// side: views into one matrix that has all three in its rows will do.
template <class T>
struct attention_inputs {
  matrix_view<const T, device_space> q, k, v;
};

/// float, or 16-bit values for the tensor cores.
template <class T>
concept AttentionScalar = std::same_as<T, float> || Storage16<T>;

namespace detail {

struct attention_check {
  const char* function;
  const attention_options& options;
  index_t rows;

  template <class T>
  void matrix(const char* name, const matrix_view<T, device_space>& m, index_t heads) const {
    const index_t cols = heads * options.head_size;
    expects(m.rows() == rows && m.cols() == cols, function,
            "each matrix must have the rows of o and head_size columns for each of its heads",
            "matrix", name, "rows", m.rows(), "cols", m.cols(), "rows of o", rows, "needed cols",
            cols);
    expects(m.col_stride() == 1, function, "the elements of a row must lie side by side", "matrix",
            name, "column stride", m.col_stride());
    if constexpr (Storage16<std::remove_const_t<T>>)
      expects(m.row_stride() % 8 == 0 && reinterpret_cast<std::uintptr_t>(m.data()) % 16 == 0,
              function, "rows of 16-bit values must begin at multiples of 16 bytes", "matrix", name,
              "row stride", m.row_stride(), "address mod 16",
              static_cast<index_t>(reinterpret_cast<std::uintptr_t>(m.data()) % 16));
  }

  template <class T>
  void inputs(const char* q, const char* k, const char* v, const attention_inputs<T>& in) const {
    matrix(q, in.q, options.heads);
    matrix(k, in.k, options.kv_heads);
    matrix(v, in.v, options.kv_heads);
  }

  template <class T>
  void sizes(const vector_view<const index_t, device_space>& starts) const {
    expects(options.kv_heads > 0 && options.heads > 0 && options.heads % options.kv_heads == 0,
            function, "heads must be a positive multiple of kv_heads", "heads", options.heads,
            "kv_heads", options.kv_heads);
    expects(options.head_size >= 1 && options.head_size <= 256, function,
            "head_size must lie in [1, 256]", "head_size", options.head_size);
    expects(!Storage16<T> || options.head_size % 8 == 0, function,
            "head_size must be a multiple of 8 for 16-bit values", "head_size", options.head_size);
    const auto scale = static_cast<float>(options.scale);  // what scores are multiplied by
    expects(scale > 0 && std::isfinite(scale), function,
            "scale must be positive and finite in float", "scale", options.scale);
    expects(options.window >= 0, function, "window must not be negative", "window", options.window);
    expects(rows <= most_rows, function, "there can be no more rows than 2^31 - 1024", "rows",
            rows);
    expects(starts.size() >= 1 && starts.contiguous(), function,
            "starts must be contiguous and hold one number more than there are sequences", "size",
            starts.size(), "stride", starts.stride());
  }
};

template <class T>
strided_rows<T> rows_of(const matrix_view<T, device_space>& m) {
  return {m.data(), m.row_stride()};
}

/// The rest of a kernel's arguments, of what was checked.
template <class T>
attention_arguments<T> completed(attention_arguments<T> a, const attention_options& options,
                                 const vector_view<const index_t, device_space>& starts,
                                 index_t rows) {
  a.starts = starts.data();
  a.sequences = starts.size() - 1;
  a.heads = options.heads;
  a.group = options.heads / options.kv_heads;
  a.head_size = options.head_size;
  a.window = static_cast<int>(options.window < rows ? options.window : 0);
  a.scale = static_cast<float>(options.scale);
  return a;
}

/// Without tangents, those of `a` are empty.
template <bool Tangent, class T>
void run_attention(const char* function, const exec::cuda& policy, const attention_arguments<T>& a,
                   index_t rows) {
  if (rows == 0 || a.sequences == 0) return;
  if constexpr (std::same_as<T, float>) {
    launch_plain_attention<Tangent>(function, policy, a, rows);
  } else {
    if constexpr (Tangent)
      if (a.head_size <= 128 && dualsft::detail::has_wgmma(function))
        return launch_group_attention(function, policy, a, rows);
    launch_tensor_attention<T, Tangent>(function, policy, a, rows);
  }
}

}  // namespace detail

/// o_i = sum_j P_ij v_j,  P = softmax over j <= i, j > i - window of  scale <q_i, k_j>
///
/// \param starts  [sequences + 1], not falling, from 0 to T; read on the device, not checked
/// \param inputs  q, k, v; not overlapping o
/// \param o       [T, heads * head_size]
/// \throws invalid_argument  if a shape does not fit, an option is out of range, elements of a row do
///                           not lie side by side, or rows of 16-bit values are not aligned to 16 bytes
/// \throws cuda_error        if the launch fails
///
/// Cost: 4 head_size operations per head and pair of a row and a key that it sees. One launch, no
/// workspace, no allocation. Asynchronous.
/// Numerics: scores, softmax and sums in float. 16-bit values: weights exp(score - largest so far) are
/// rounded to 16 bits before they multiply v; o is rounded once. What is not finite reaches only rows
/// that see it.
/// Determinism: each row is summed in the order of the keys, cut into tiles. With tangents the tiles of
/// sm_90a's kernel are larger than those for older devices, and bits differ between the two.
/// Source: the softmax that is rescaled while keys pass by: Milakov and Gimelshein, "Online normalizer
/// calculation for softmax", and Dao et al., "FlashAttention"; written from their formulas.
template <AttentionScalar T>
void attention(const exec::cuda& policy, const attention_options& options,
               vector_view<const index_t, device_space> starts,
               const std::type_identity_t<attention_inputs<T>>& inputs,
               matrix_view<T, device_space> o) {
  constexpr const char* function = "attention";
  const detail::attention_check check{function, options, o.rows()};
  check.sizes<T>(starts);
  check.inputs("q", "k", "v", inputs);
  check.matrix("o", o, options.heads);
  detail::attention_arguments<T> a;
  a.q = detail::rows_of(inputs.q);
  a.k = detail::rows_of(inputs.k);
  a.v = detail::rows_of(inputs.v);
  a.o = detail::rows_of(o);
  detail::run_attention<false>(function, policy, detail::completed(a, options, starts, o.rows()),
                               o.rows());
}

/// o, and its derivative when q, k and v move along their tangents:
///
///     R{P_ij} = P_ij (R{z_ij} - sum_j P_ij R{z_ij}),    R{z_ij} = scale (<R{q_i}, k_j> + <q_i, R{k_j}>)
///     R{o_i}  = sum_j R{P_ij} v_j + P_ij R{v_j}
///
/// \param tangents   R{q}, R{k}, R{v}, shaped as inputs
/// \param tangent_o  R{o}, shaped as o
/// Everything else as attention; o has the same definition and, up to the order of sums, value.
/// Cost: three times the operations of attention (no fewer products give a product's derivative), in
/// one pass over k and v. Heads of more than 128 columns form their scores twice: 4.5 times.
/// Numerics: weights times R{z_ij} - c are rounded to 16 bits, c near the row's mean of R{z}; in float16
/// they have to stay below 65504.
template <AttentionScalar T>
void attention_tangent(const exec::cuda& policy, const attention_options& options,
                       vector_view<const index_t, device_space> starts,
                       const std::type_identity_t<attention_inputs<T>>& inputs,
                       const std::type_identity_t<attention_inputs<T>>& tangents,
                       matrix_view<T, device_space> o, matrix_view<T, device_space> tangent_o) {
  constexpr const char* function = "attention_tangent";
  const detail::attention_check check{function, options, o.rows()};
  check.sizes<T>(starts);
  check.inputs("q", "k", "v", inputs);
  check.inputs("tangent q", "tangent k", "tangent v", tangents);
  check.matrix("o", o, options.heads);
  check.matrix("tangent o", tangent_o, options.heads);
  const detail::attention_arguments<T> a{.q = detail::rows_of(inputs.q),
                                         .k = detail::rows_of(inputs.k),
                                         .v = detail::rows_of(inputs.v),
                                         .tangent_q = detail::rows_of(tangents.q),
                                         .tangent_k = detail::rows_of(tangents.k),
                                         .tangent_v = detail::rows_of(tangents.v),
                                         .o = detail::rows_of(o),
                                         .tangent_o = detail::rows_of(tangent_o)};
  detail::run_attention<true>(function, policy, detail::completed(a, options, starts, o.rows()),
                              o.rows());
}

/// The same of matrices that have the values above and the tangents below: 2 T rows each.
/// \throws invalid_argument  as above, or if a number of rows is odd
template <AttentionScalar T>
void attention_tangent(const exec::cuda& policy, const attention_options& options,
                       vector_view<const index_t, device_space> starts,
                       const std::type_identity_t<attention_inputs<T>>& stacked,
                       matrix_view<T, device_space> stacked_o) {
  const auto half = [](const auto& m, index_t which) {
    expects(m.rows() % 2 == 0, "attention_tangent",
            "values above and tangents below must have the same rows", "rows together", m.rows());
    return m.middle_rows(which * (m.rows() / 2), m.rows() / 2);
  };
  const auto inputs = [&](index_t which) {
    return attention_inputs<T>{half(stacked.q, which), half(stacked.k, which),
                               half(stacked.v, which)};
  };
  attention_tangent<T>(policy, options, starts, inputs(0), inputs(1), half(stacked_o, 0),
                       half(stacked_o, 1));
}

}  // namespace dualsft::llm
