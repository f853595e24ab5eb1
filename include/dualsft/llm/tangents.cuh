// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/device_products.cuh>
#include <dualsft/execution.cuh>
#include <dualsft/llm/detail/tangent_device_elements.cuh>
#include <dualsft/llm/detail/tangent_device_linear.cuh>
#include <dualsft/llm/detail/tangent_device_norm.cuh>
#include <dualsft/llm/detail/tangent_device_views.hpp>
#include <dualsft/llm/model_config.hpp>

/// The forward derivative of a transformer on a device: what works on each token by itself. Every
/// function forms values and tangents R{.} (derivatives along a direction of parameter space) in
/// one pass; attention is in attention.cuh.
///
/// Activations are bfloat16, float16 or float. What is written may be what is read (the same
/// view), but may not overlap it otherwise. All are asynchronous and allocate nothing unless they
/// say so; all throw invalid_argument if shapes do not fit or rows are not contiguous, and
/// cuda_error.
/// Cost: limited by memory: every element is read once and written once, 16 bytes at a time where
/// each row begins at a multiple of 16 bytes and norms and heads consist of whole such packs.
/// Numerics: float; results are rounded once. Determinism: fixed trees of sums; equal alignment
/// gives equal bits.
/// Source: the equations of model_config.hpp, differentiated; as detail/tangent_kernels.hpp.
namespace dualsft::llm {

// ---- embedding ---------------------------------------------------------------------------------

/// h = [scale E[id]; scale P[id]]; with scale 1 also a choice among rows: those that the head
/// reads.
///
/// \param ids    [T] of std::int32_t or index_t; a row outside E becomes NaN
/// \param table  E and the direction's part P of it, [vocabulary, n]
/// \param h      [T, n]; not the table
template <TangentScalar T, class Id>
void embed_tangent(const exec::cuda& policy, const vector_view<Id, device_space>& ids,
                   const detail::read_rows<T>& table, double scale, const tangent_rows<T>& h) {
  constexpr const char* function = "embed_tangent";
  detail::expects_shape(function, "h", h, h.rows(), h.cols());
  detail::expects_shape(function, "table", table, table.rows(), h.cols());
  detail::expects_contiguous(function, "ids", ids, h.rows());
  detail::expects_blocks(function, "rows", h.rows());
  const auto from = detail::rows_of(table);
  const auto to = detail::rows_of(h);
  const detail::row_units units(h.cols(), detail::pack<T>,
                                detail::is_aligned(from) && detail::is_aligned(to));
  if (h.rows() == 0 || units.count == 0) return;
  using task = detail::embed_task<T, std::remove_const_t<Id>>;
  dualsft::detail::launch(
      function, policy, detail::shape_of(h.rows(), units, 512),
      detail::embed_rows<T, std::remove_const_t<Id>>,
      task{from, to, ids.data(), table.rows(), static_cast<float>(scale), units});
}

// ---- norms -------------------------------------------------------------------------------------

/// norm(x) = x / sqrt(mean(x^2) + epsilon) .* (w + offset), over rows or over the heads they
/// consist of.
template <class W>
struct tangent_norm {
  vector_view<const W, device_space> weight, rate;  ///< w and the direction's part of it [width]
  double epsilon = 1e-6;
  double offset = 0;  ///< 1 where the config says norm_plus_one
};

/// y = [norm(x); R{norm(x)}]
/// \param norm  of T or float; its width divides x's
/// \param x, y  [T, n]
template <TangentScalar T, class W>
void norm_tangent(const exec::cuda& policy, const tangent_norm<W>& norm,
                  const detail::read_rows<T>& x, const tangent_rows<T>& y) {
  const auto task = detail::norm_task_of<T, W>("norm_tangent", norm, x, y);
  detail::launch_norm<detail::norm_form::plain>("norm_tangent", policy, task);
}

/// h += x; y = norm(h): a residual connection and the norm behind it, in one pass. y is the norm
/// of the rounded h.
/// \param norm     over whole rows
/// \param x, h, y  [T, n]
template <TangentScalar T, class W>
void add_norm_tangent(const exec::cuda& policy, const detail::read_rows<T>& x,
                      const tangent_norm<W>& norm, const tangent_rows<T>& h,
                      const tangent_rows<T>& y) {
  constexpr const char* function = "add_norm_tangent";
  auto task = detail::norm_task_of<T, W>(function, norm, x, y);
  detail::add_residual(function, task, x, h);
  detail::launch_norm<detail::norm_form::residual>(function, policy, task);
}

/// h += post(x); y = norm(h), where the config says post_norms.
template <TangentScalar T, class W>
void add_norm_tangent(const exec::cuda& policy, const detail::read_rows<T>& x,
                      const tangent_norm<W>& post, const tangent_norm<W>& norm,
                      const tangent_rows<T>& h, const tangent_rows<T>& y) {
  constexpr const char* function = "add_norm_tangent";
  auto task = detail::norm_task_of<T, W>(function, norm, x, y);
  detail::add_residual(function, task, x, h);
  task.post = detail::norm_of(function, "post", post, h.cols());
  detail::launch_norm<detail::norm_form::post>(function, policy, task);
}

/// h += post(x), behind the last layer.
template <TangentScalar T, class W>
void add_post_tangent(const exec::cuda& policy, const detail::read_rows<T>& x,
                      const tangent_norm<W>& post, const tangent_rows<T>& h) {
  constexpr const char* function = "add_post_tangent";
  auto task = detail::norm_task_of<T, W>(function, post, x, h);
  detail::add_residual(function, task, x, h);
  task.post = task.norm;
  task.y = {};
  detail::launch_norm<detail::norm_form::post>(function, policy, task);
}

// ---- the gated MLP's middle --------------------------------------------------------------------

/// m = [f(g) .* u; f'(g) .* R{g} .* u + f(g) .* R{u}]
/// \param g, u, m  [T, n]; m may be g or u
template <TangentScalar T>
void gate_tangent(const exec::cuda& policy, gate_activation kind, const detail::read_rows<T>& g,
                  const detail::read_rows<T>& u, const tangent_rows<T>& m) {
  constexpr const char* function = "gate_tangent";
  detail::expects_shape(function, "m", m, m.rows(), m.cols());
  detail::expects_shape(function, "g", g, m.rows(), m.cols());
  detail::expects_shape(function, "u", u, m.rows(), m.cols());
  detail::expects_blocks(function, "rows", m.rows());
  const auto from_g = detail::rows_of(g), from_u = detail::rows_of(u);
  const auto to = detail::rows_of(m);
  const bool aligned =
      detail::is_aligned(from_g) && detail::is_aligned(from_u) && detail::is_aligned(to);
  const detail::row_units units(m.cols(), detail::pack<T>, aligned);
  if (m.rows() == 0 || units.count == 0) return;
  dualsft::detail::launch(function, policy, detail::shape_of(m.rows(), units, 256),
                          kind == gate_activation::silu
                              ? detail::gate_rows<gate_activation::silu, T>
                              : detail::gate_rows<gate_activation::gelu_tanh, T>,
                          detail::gate_task<T>{from_g, from_u, to, units});
}

// ---- rotary positions --------------------------------------------------------------------------

/// Element k of a head turns with element k + head_size / 2 by the angle of its token's position.
template <class Position>
struct tangent_rotation {
  vector_view<Position, device_space> positions;          ///< [T] of std::int32_t or index_t
  matrix_view<const float, device_space> cosines, sines;  ///< [positions, head_size / 2]
};

/// Every head of x and of R{x}, turned. A token whose position the tables lack becomes NaN.
/// \param x, y  [T, heads * head_size]
template <TangentScalar T, class Position>
void turn_tangent(const exec::cuda& policy, const tangent_rotation<Position>& rotation,
                  const detail::read_rows<T>& x, const tangent_rows<T>& y) {
  const auto task = detail::turn_task_of<T, T>("turn_tangent", rotation, x, y);
  detail::launch_turn<detail::head_norm::none>("turn_tangent", policy, task);
}

/// The same behind a norm over each head, where the config says qk_norm: the normed head is not
/// rounded.
/// \param norm  of width head_size
template <TangentScalar T, class W, class Position>
void turn_tangent(const exec::cuda& policy, const tangent_norm<W>& norm,
                  const tangent_rotation<Position>& rotation, const detail::read_rows<T>& x,
                  const tangent_rows<T>& y) {
  auto task = detail::turn_task_of<T, W>("turn_tangent", rotation, x, y);
  task.norm = detail::norm_of("turn_tangent", "norm", norm, 2 * task.half);
  detail::launch_turn<detail::head_norm::first>("turn_tangent", policy, task);
}

// ---- linear maps -------------------------------------------------------------------------------

/// A linear map and the direction's part of it. W and P may stand side by side, [P | W].
template <class T>
struct tangent_linear {
  matrix_view<const T, device_space> weight, rate;               ///< W, P [out, in]
  vector_view<const T, device_space> bias = {}, bias_rate = {};  ///< b, p [out], or both empty
};

/// y = or += [x W^T + b; R{x} W^T + x P^T + p]
///
/// \param products  of this stream
/// \param x, y      [T, in], [T, out]; y does not overlap x, and is of its type or float
/// \throws invalid_argument  also as device_products
///
/// Cost: 6 T in out operations; y is read again where something is added to it.
/// Numerics: the tangent is a sum of two products. Where x and R{x} stand side by side, [x |
/// R{x}], and [P | W] too, it is one product over 2 in terms: float to the end, one rounding. Else
/// R{x} W^T is formed first (with x W^T in one product, if x and y are stacked) and x P^T added to
/// it, so that a 16-bit y is rounded twice: off by up to half a unit in the last place of R{x}
/// W^T, which matters where the two cancel. Biases are what sums begin with, and cost no rounding,
/// unless y is added to.
template <TangentScalar T, TangentScalar Y>
requires(std::same_as<Y, T> || std::same_as<Y, float>) void linear_tangent(
    const exec::cuda& policy, dualsft::device_products& products, const tangent_linear<T>& map,
    const detail::read_rows<T>& x, const tangent_rows<Y>& y,
    dualsft::product_into how = dualsft::product_into::overwrite) {
  detail::linear_tangent_of<T, Y>("linear_tangent", policy, products, {map.weight, map.rate},
                                  map.bias, map.bias_rate, x, y, how);
}

}  // namespace dualsft::llm
