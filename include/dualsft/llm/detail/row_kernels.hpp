// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <dualsft/detail/products.hpp>
#include <dualsft/llm/detail/worker_pool.hpp>
#include <dualsft/llm/model_config.hpp>
#include <dualsft/views.hpp>
#include <vector>

/// What a decoder does to each token by itself: linear maps, norms, gates and rotations, with their
/// derivatives. Matrices are row-major, a token per row.
namespace dualsft::llm::detail {

using dualsft::detail::add_a_b;
using dualsft::detail::add_a_bt;
using dualsft::detail::add_at_b;
using dualsft::detail::as_map;
using dualsft::detail::row_matrix;
using dualsft::detail::view_of;

/// Rows (or columns) of a product that are worth a thread: waking one takes microseconds, and far
/// longer where other programs want the processor too.
/// \param each  multiplications and additions per row
inline index_t product_grain(index_t each) {
  return std::max<index_t>(16, (index_t{1} << 21) / std::max<index_t>(1, each));
}
/// Rows of elementwise work that are worth a thread.
inline index_t row_grain(index_t width) {
  return std::max<index_t>(1, (index_t{1} << 14) / std::max<index_t>(1, width));
}

template <class S>
using row_array = Eigen::Map<Eigen::Array<S, 1, Eigen::Dynamic>>;
template <class S>
using const_row_array = Eigen::Map<const Eigen::Array<S, 1, Eigen::Dynamic>>;

template <class S>
row_array<S> row_of(row_matrix<S>& m, index_t t) {
  return {m.data() + t * m.cols(), m.cols()};
}
template <class S>
const_row_array<S> row_of(const row_matrix<S>& m, index_t t) {
  return {m.data() + t * m.cols(), m.cols()};
}

// ---- linear maps ------------------------------------------------------------------------------

enum class into { overwrite, add };

template <class S>
matrix_view<S> columns_of(matrix_view<S> m, index_range range) {
  return {m.data() + range.begin, m.rows(), range.size(), m.row_stride(), m.col_stride()};
}

/// out = or += a b^T (Transposed) or a b, on all threads: each takes rows of `out` or, where there
/// are more of them, columns, so that the larger operand is packed once.
template <bool Transposed, class S>
void multiply(worker_pool& pool, matrix_view<const S> a, matrix_view<const S> b, matrix_view<S> out,
              into how) {
  const auto part = [&](matrix_view<const S> left, matrix_view<const S> right, matrix_view<S> to) {
    if (how == into::overwrite) as_map(to).setZero();
    if constexpr (Transposed)
      add_a_bt<S>(left, right, to);
    else
      add_a_b<S>(left, right, to);
  };
  if (out.rows() >= out.cols())
    pool.ranges(out.rows(), product_grain(2 * a.cols() * out.cols()), [&](index_range range) {
      part(a.middle_rows(range.begin, range.size()), b, out.middle_rows(range.begin, range.size()));
    });
  else
    pool.ranges(out.cols(), product_grain(2 * a.cols() * out.rows()), [&](index_range range) {
      part(a, Transposed ? b.middle_rows(range.begin, range.size()) : columns_of(b, range),
           columns_of(out, range));
    });
}

/// y = x W^T + b, or y += ...      x [T, in], W [out, in], b [out] or null
template <class S>
void linear(worker_pool& pool, const row_matrix<S>& x, matrix_view<const S> weight, const S* bias,
            row_matrix<S>& y, into how = into::overwrite) {
  if (how == into::overwrite) y.resize(x.rows(), weight.rows());
  multiply<true, S>(pool, view_of(x), weight, view_of(y), how);
  if (bias != nullptr)
    pool.ranges(y.rows(), row_grain(y.cols()), [&](index_range range) {
      for (index_t t = range.begin; t < range.end; ++t)
        row_of(y, t) += const_row_array<S>(bias, y.cols());
    });
}

/// dx = e W, or dx += e W          e [T, out], W [out, in]
template <class S>
void linear_back(worker_pool& pool, const row_matrix<S>& e, matrix_view<const S> weight,
                 row_matrix<S>& dx, into how = into::overwrite) {
  if (how == into::overwrite) dx.resize(e.rows(), weight.cols());
  multiply<false, S>(pool, view_of(e), weight, view_of(dx), how);
}

// ---- norms ------------------------------------------------------------------------------------

/// y = x inv .* scale with inv = 1 / sqrt(mean(x^2) + epsilon), over pieces of `width` elements: rows
/// of x, or the heads that a row consists of. `scale` is w or 1 + w, as the config says.
template <class S>
struct norm {
  const S* weight = nullptr;
  index_t width = 0;
  double epsilon = 0;
  S offset = 0;  ///< 1 where the scale is 1 + w

  auto scale() const { return const_row_array<S>(weight, width) + offset; }
  index_t pieces(const row_matrix<S>& x) const { return x.size() / width; }
  row_array<S> piece(row_matrix<S>& x, index_t i) const { return {x.data() + i * width, width}; }
  const_row_array<S> piece(const row_matrix<S>& x, index_t i) const {
    return {x.data() + i * width, width};
  }

  /// 1 / sqrt(mean(x^2) + epsilon)
  S inverse_size(const const_row_array<S>& x) const {
    const double mean = static_cast<double>(x.square().sum()) / static_cast<double>(width);
    return static_cast<S>(1 / std::sqrt(mean + epsilon));
  }

  /// \param inv  [pieces]
  void forward(worker_pool& pool, const row_matrix<S>& x, std::vector<S>& inv,
               row_matrix<S>& y) const {
    inv.resize(static_cast<std::size_t>(pieces(x)));
    y.resize(x.rows(), x.cols());
    pool.ranges(pieces(x), row_grain(width), [&](index_range range) {
      for (index_t i = range.begin; i < range.end; ++i) {
        const S r = inverse_size(piece(x, i));
        inv[static_cast<std::size_t>(i)] = r;
        piece(y, i) = piece(x, i) * r * scale();
      }
    });
  }

  /// y again, from what forward left.
  void again(worker_pool& pool, const row_matrix<S>& x, const std::vector<S>& inv,
             row_matrix<S>& y) const {
    y.resize(x.rows(), x.cols());
    pool.ranges(pieces(x), row_grain(width), [&](index_range range) {
      for (index_t i = range.begin; i < range.end; ++i)
        piece(y, i) = piece(x, i) * inv[static_cast<std::size_t>(i)] * scale();
    });
  }

  /// \param e     dl/dy
  /// \param unit  x inv, for the trace of the weight
  /// \param dx    dl/dx, overwritten or added to; may be e
  void backward(worker_pool& pool, const row_matrix<S>& x, const std::vector<S>& inv,
                const row_matrix<S>& e, row_matrix<S>& unit, row_matrix<S>& dx, into how) const {
    unit.resize(x.rows(), x.cols());
    if (how == into::overwrite) dx.resize(x.rows(), x.cols());
    pool.ranges(pieces(x), row_grain(width), [&](index_range range) {
      Eigen::Array<S, 1, Eigen::Dynamic> d(width);
      for (index_t i = range.begin; i < range.end; ++i) {
        const S r = inv[static_cast<std::size_t>(i)];
        row_array<S> u = piece(unit, i);
        u = piece(x, i) * r;
        d = piece(e, i) * scale();
        const S mean = (u * d).sum() / static_cast<S>(width);
        if (how == into::overwrite)
          piece(dx, i) = (d - u * mean) * r;
        else
          piece(dx, i) += (d - u * mean) * r;
      }
    });
  }
};

// ---- the gated MLP's middle -------------------------------------------------------------------

/// f(z), f'(z) of a row; f'' is not needed.
template <class S, class Z>
auto gate_value(gate_activation kind, const Z& z, Eigen::Array<S, 1, Eigen::Dynamic>& f,
                Eigen::Array<S, 1, Eigen::Dynamic>* slope) {
  if (kind == gate_activation::silu) {
    f = (S(1) + (-z).exp()).inverse();  // the sigmoid s
    if (slope != nullptr) *slope = f * (S(1) + z * (S(1) - f));
    f *= z;
    return;
  }
  const S a = static_cast<S>(0.79788456080286535587989211986876);  // sqrt(2 / pi)
  const S b = static_cast<S>(0.044715);
  f = (a * (z + b * z.cube())).tanh();
  if (slope != nullptr)
    *slope =
        S(0.5) * (S(1) + f) + S(0.5) * z * (S(1) - f.square()) * a * (S(1) + S(3) * b * z.square());
  f = S(0.5) * z * (S(1) + f);
}

/// m = f(g) .* u
template <class S>
void gate_forward(worker_pool& pool, gate_activation kind, const row_matrix<S>& g,
                  const row_matrix<S>& u, row_matrix<S>& m) {
  m.resize(g.rows(), g.cols());
  pool.ranges(g.rows(), row_grain(g.cols()), [&](index_range range) {
    Eigen::Array<S, 1, Eigen::Dynamic> f(g.cols());
    for (index_t t = range.begin; t < range.end; ++t) {
      gate_value<S>(kind, row_of(g, t), f, nullptr);
      row_of(m, t) = f * row_of(u, t);
    }
  });
}

/// m = f(g) .* u again; dg, du from dm.
template <class S>
void gate_backward(worker_pool& pool, gate_activation kind, const row_matrix<S>& g,
                   const row_matrix<S>& u, const row_matrix<S>& dm, row_matrix<S>& dg,
                   row_matrix<S>& du) {
  dg.resize(g.rows(), g.cols());
  du.resize(g.rows(), g.cols());
  pool.ranges(g.rows(), row_grain(g.cols()), [&](index_range range) {
    Eigen::Array<S, 1, Eigen::Dynamic> f(g.cols()), slope(g.cols());
    for (index_t t = range.begin; t < range.end; ++t) {
      gate_value<S>(kind, row_of(g, t), f, &slope);
      row_of(du, t) = row_of(dm, t) * f;
      row_of(dg, t) = row_of(dm, t) * row_of(u, t) * slope;
    }
  });
}

// ---- rotary positions -------------------------------------------------------------------------

/// cos and sin of position * f_k [positions, head_size / 2], computed in double.
template <class S>
struct rotation_table {
  index_t half = 0;
  std::vector<S> cosines, sines;

  index_t positions() const { return static_cast<index_t>(cosines.size()) / half; }

  rotation_table() = default;
  rotation_table(const rope_config& rope, index_t head_size, index_t positions)
      : half(head_size / 2) {
    const std::vector<double> f = rope.frequencies(head_size);
    cosines.reserve(static_cast<std::size_t>(positions * half));
    sines.reserve(static_cast<std::size_t>(positions * half));
    for (index_t p = 0; p < positions; ++p)
      for (const double x : f) {
        cosines.push_back(static_cast<S>(std::cos(static_cast<double>(p) * x)));
        sines.push_back(static_cast<S>(std::sin(static_cast<double>(p) * x)));
      }
  }

  /// Turns every head of x [T, heads * head_size] by its token's position, or back by `sense` -1;
  /// of a stacked x [2 T, .] both halves.
  /// Element k of a head turns with element k + head_size / 2.
  void turn(worker_pool& pool, const std::vector<index_t>& positions, row_matrix<S>& x,
            S sense) const {
    pool.ranges(x.rows(), row_grain(x.cols()), [&](index_range range) {
      for (index_t t = range.begin; t < range.end; ++t) {
        const index_t at = positions[static_cast<std::size_t>(t) % positions.size()] * half;
        const S* c = cosines.data() + at;
        const S* s = sines.data() + at;
        for (S* head = x.data() + t * x.cols(); head < x.data() + (t + 1) * x.cols();
             head += 2 * half)
          for (index_t k = 0; k < half; ++k) {
            const S a = head[k], b = head[k + half];
            head[k] = a * c[k] - sense * b * s[k];
            head[k + half] = b * c[k] + sense * a * s[k];
          }
      }
    });
  }
};

}  // namespace dualsft::llm::detail
