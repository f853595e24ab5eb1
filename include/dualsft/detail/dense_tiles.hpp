// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/config.hpp>
#include <dualsft/detail/lanes.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/views.hpp>
#include <new>
#include <vector>

/// Walks over a range of columns of a matrix that load every element from memory once and still
/// give each column its sum before the column's elements are multiplied.
///
/// Several shapes of memory, one contract. A walk calls
///
///     finish(first, width, g, q, a, b)
///
/// for consecutive tiles of columns [first, first + width), with g[j] = sum_i x_ij and
/// q[j] = sum_i x_ij^2, and expects a (and b, if Quadratic) to be filled there; it adds
/// sum_j x_ij a_j (+ x_ij^2 b_j) to rows[i].
namespace dualsft::detail::cpu {

/// Tiles are multiples of this many columns: one cache line of float.
inline constexpr index_t tile_grain = 16;
/// Rows that share one load and store of the column sums. More would save instructions and lose
/// more: rows whose distance is a power of two compete for the same cache sets and memory banks.
inline constexpr index_t row_group = 2;
/// How many rows ahead the tile is prefetched: its rows are too short for the hardware to follow.
inline constexpr index_t rows_ahead = 2;

/// What one sweep over the rows of a tile does with the elements x it loads.
enum class sweep {
  sum,       ///< g += x, q += x^2
  multiply,  ///< rows += x a
  both,      ///< the two: for a direction that is known beforehand
  exchange,  ///< rows += y a for the previous tile y in `kept`; g += x, q += x^2; kept = x
};

/// R rows of a tile. Squares are summed only if Quadratic.
/// \param width  a multiple of tile_grain
template <sweep Work, bool Quadratic, int R, class T>
void sweep_rows(const T* x, index_t row_stride, index_t width, T* kept, index_t kept_stride,
                const double* a, const double* b, double* g, double* q, double* rows,
                const T* ahead) {
  constexpr bool sums = Work != sweep::multiply;
  constexpr bool multiplies = Work != sweep::sum;
  constexpr index_t line = 64 / static_cast<index_t>(sizeof(T));
  constexpr index_t steps = tile_grain / lane_count;
  lane_vector dots[R][steps];  // one chain of additions per step, so that none waits for another
  DUALSFT_UNROLL
  for (int r = 0; r < R; ++r) {
    DUALSFT_UNROLL
    for (index_t s = 0; s < steps; ++s) clear_lanes(dots[r][s]);
  }
  for (index_t block = 0; block < width; block += tile_grain) {
    if (ahead != nullptr)
      for (int r = 0; r < R; ++r)
        for (index_t j = block; j < block + tile_grain; j += line)
          prefetch_line(ahead + r * row_stride + j);
    DUALSFT_UNROLL
    for (index_t s = 0; s < steps; ++s) {
      const index_t j = block + s * lane_count;
      lane_vector aj, bj, gj, qj;
      if constexpr (multiplies) load_lanes(aj, a + j);
      if constexpr (multiplies && Quadratic) load_lanes(bj, b + j);
      if constexpr (sums) load_lanes(gj, g + j);
      if constexpr (sums && Quadratic) load_lanes(qj, q + j);
      DUALSFT_UNROLL
      for (int r = 0; r < R; ++r) {
        lane_vector xj;
        if constexpr (Work == sweep::exchange)
          load_lanes(xj, kept + r * kept_stride + j);
        else
          load_lanes(xj, x + r * row_stride + j);
        if constexpr (multiplies && Quadratic) {
          lane_vector factor = aj;
          multiply_add(factor, bj, xj);
          multiply_add(dots[r][s], factor, xj);
        } else if constexpr (multiplies) {
          multiply_add(dots[r][s], aj, xj);
        }
        if constexpr (Work == sweep::exchange) load_lanes(xj, x + r * row_stride + j);
        if constexpr (sums) add_lanes(gj, xj);
        if constexpr (sums && Quadratic) multiply_add(qj, xj, xj);
      }
      if constexpr (sums) store_lanes(g + j, gj);
      if constexpr (sums && Quadratic) store_lanes(q + j, qj);
    }
    // Last of all, because a load that follows a store at the same offset in another page waits.
    if constexpr (Work == sweep::exchange)
      for (int r = 0; r < R; ++r)
        for (index_t j = block; j < block + tile_grain; j += lane_count)
          copy_lanes(kept + r * kept_stride + j, x + r * row_stride + j);
  }
  if constexpr (multiplies)
    for (int r = 0; r < R; ++r) {
      for (index_t s = 1; s < steps; ++s) add_lanes(dots[r][0], dots[r][s]);
      rows[r] += sum_lanes(dots[r][0]);
    }
}

/// All rows of a tile.
/// \param next_tile  where the rows of the next tile start, or null
template <sweep Work, bool Quadratic, class T>
void sweep_tile(const T* x, index_t row_stride, index_t row_count, index_t width, T* kept,
                index_t kept_stride, const double* a, const double* b, double* g, double* q,
                double* rows, const T* next_tile) {
  const auto ahead_of = [&](index_t i) -> const T* {
    const index_t target = i + rows_ahead;
    if (target + row_group <= row_count) return x + target * row_stride;
    const index_t wrapped = target - row_count;
    const bool in_next = next_tile != nullptr && wrapped >= 0 && wrapped + row_group <= row_count;
    return in_next ? next_tile + wrapped * row_stride : nullptr;
  };
  index_t i = 0;
  for (; i + row_group <= row_count; i += row_group)
    sweep_rows<Work, Quadratic, row_group>(x + i * row_stride, row_stride, width,
                                           kept + i * kept_stride, kept_stride, a, b, g, q,
                                           rows + i, ahead_of(i));
  for (; i < row_count; ++i)
    sweep_rows<Work, Quadratic, 1, T>(x + i * row_stride, row_stride, width, kept + i * kept_stride,
                                      kept_stride, a, b, g, q, rows + i, nullptr);
}

/// Starts vectors at a cache line, so that no lane is loaded from two.
template <class T>
struct line_allocator {
  using value_type = T;
  static constexpr std::align_val_t line{64};
  line_allocator() = default;
  template <class U>
  explicit line_allocator(const line_allocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), line)); }
  void deallocate(T* p, std::size_t) noexcept { ::operator delete(p, line); }
  friend bool operator==(const line_allocator&, const line_allocator&) { return true; }
};
template <class T>
using line_vector = std::vector<T, line_allocator<T>>;

/// The numbers of one tile's columns.
struct tile_vectors {
  line_vector<double> g, q, a, b;
  explicit tile_vectors(index_t width)
      : g(static_cast<std::size_t>(width)), q(g.size()), a(g.size()), b(g.size()) {}
  void clear_sums() {
    std::fill(g.begin(), g.end(), 0.0);
    std::fill(q.begin(), q.end(), 0.0);
  }
};

/// Any strides: tiles are copied first. Also takes the columns that do not fill a tile grain.
template <bool Quadratic, class T, class Finish>
void walk_packed(matrix_view<const T> x, index_range columns, Finish& finish, double* rows) {
  constexpr index_t widest = 256 / static_cast<index_t>(sizeof(T));
  const index_t width =
      std::min(widest, (columns.size() + tile_grain - 1) / tile_grain * tile_grain);
  line_vector<T> tile(static_cast<std::size_t>(x.rows() * width));
  tile_vectors v(width);
  for (index_t first = columns.begin; first < columns.end; first += width) {
    const index_t count = std::min(width, columns.end - first);
    if (count < width) std::fill(tile.begin(), tile.end(), T{0});  // zeros add nothing
    for (index_t i = 0; i < x.rows(); ++i) {
      T* to = tile.data() + i * width;
      const T* from = x.data() + i * x.row_stride() + first * x.col_stride();
      for (index_t j = 0; j < count; ++j) to[j] = from[j * x.col_stride()];
    }
    v.clear_sums();
    sweep_tile<sweep::sum, Quadratic, T>(tile.data(), width, x.rows(), width, tile.data(), 0,
                                         nullptr, nullptr, v.g.data(), v.q.data(), rows, nullptr);
    finish(first, count, v.g.data(), v.q.data(), v.a.data(), v.b.data());
    sweep_tile<sweep::multiply, Quadratic, T>(tile.data(), width, x.rows(), width, tile.data(), 0,
                                              v.a.data(), v.b.data(), nullptr, nullptr, rows,
                                              nullptr);
  }
}

/// Rows are contiguous and a is known beforehand: `begin(first, width, a)` fills it, one loaded
/// element serves the sum and the product.
template <class T, class Begin, class Finish>
void walk_known(matrix_view<const T> x, index_range columns, Begin& begin, Finish& finish,
                double* rows) {
  constexpr index_t width = 4096;
  tile_vectors v(std::min(width, columns.size()));
  for (index_t first = columns.begin; first < columns.end; first += width) {
    const index_t count = std::min(width, columns.end - first);
    const T* from = x.data() + first;
    begin(first, count, v.a.data());
    v.clear_sums();
    sweep_tile<sweep::both, false, T>(from, x.row_stride(), x.rows(), count, nullptr, 0, v.a.data(),
                                      nullptr, v.g.data(), v.q.data(), rows,
                                      first + width < columns.end ? from + width : nullptr);
    finish(first, count, v.g.data(), v.q.data(), v.a.data(), v.b.data());
  }
}

/// Rows are contiguous and a follows from the sums. The tile that was summed last lies in a buffer
/// that fits the second-level cache; while the next tile streams in from memory to be summed, it
/// takes the buffer's place element by element as the old one is multiplied. So loads from memory
/// never pause, and a row stride that is a power of two, which would map a tile of the matrix
/// itself to a few cache sets, does no harm. Threads walk over columns of their own: sharing tiles
/// would make them wider, but then each waits for the slowest at every tile.
template <bool Quadratic, class T, class Finish>
void walk_exchanging(matrix_view<const T> x, index_range columns, Finish& finish, double* rows) {
  constexpr index_t cache_bytes = index_t{5} << 18;
  constexpr index_t narrowest = 256 / static_cast<index_t>(sizeof(T));
  constexpr index_t widest = 4096 / static_cast<index_t>(sizeof(T));
  const index_t fitting =
      cache_bytes / static_cast<index_t>(sizeof(T)) / std::max<index_t>(1, x.rows());
  const index_t width =
      std::min(std::clamp(fitting / tile_grain * tile_grain, narrowest, widest), columns.size());
  line_vector<T> kept(static_cast<std::size_t>(x.rows() * width));
  tile_vectors v(width);
  const auto multiply = [&](index_t first, index_t count) {
    sweep_tile<sweep::multiply, Quadratic, T>(kept.data() + first, width, x.rows(), count,
                                              kept.data(), 0, v.a.data() + first,
                                              v.b.data() + first, nullptr, nullptr, rows, nullptr);
  };
  index_t previous = 0;
  for (index_t first = columns.begin; first < columns.end; first += width) {
    const index_t count = std::min(width, columns.end - first);
    const T* from = x.data() + first;
    v.clear_sums();
    // The first of these multiplies zeros by zeros.
    sweep_tile<sweep::exchange, Quadratic, T>(
        from, x.row_stride(), x.rows(), count, kept.data(), width, v.a.data(), v.b.data(),
        v.g.data(), v.q.data(), rows, first + 2 * width <= columns.end ? from + width : nullptr);
    if (count < previous) multiply(count, previous - count);
    previous = count;
    finish(first, count, v.g.data(), v.q.data(), v.a.data(), v.b.data());
  }
  multiply(0, previous);
}

/// Sum and, if Quadratic, sum of squares of a contiguous column.
template <bool Quadratic, class T>
void sum_column(const T* x, index_t n, double& sum, double& squares) {
  constexpr index_t chains = 4;  // enough to hide the latency of an addition
  lane_vector s[chains], s2[chains];
  for (index_t c = 0; c < chains; ++c) clear_lanes(s[c]), clear_lanes(s2[c]);
  index_t i = 0;
  for (; i + chains * lane_count <= n; i += chains * lane_count) {
    DUALSFT_UNROLL
    for (index_t c = 0; c < chains; ++c) {
      lane_vector xi;
      load_lanes(xi, x + i + c * lane_count);
      add_lanes(s[c], xi);
      if constexpr (Quadratic) multiply_add(s2[c], xi, xi);
    }
  }
  for (index_t c = 1; c < chains; ++c) add_lanes(s[0], s[c]), add_lanes(s2[0], s2[c]);
  sum = sum_lanes(s[0]);
  squares = sum_lanes(s2[0]);
  for (; i < n; ++i) {
    const auto xi = static_cast<double>(x[i]);
    sum += xi;
    if constexpr (Quadratic) squares += xi * xi;
  }
}

/// rows += x a (+ x^2 b) for C contiguous columns.
template <bool Quadratic, int C, class T>
void multiply_columns(const T* x, index_t col_stride, index_t n, const double* a, const double* b,
                      double* rows) {
  lane_vector ac[C], bc[C];
  for (int c = 0; c < C; ++c) fill_lanes(ac[c], a[c]), fill_lanes(bc[c], b[c]);
  index_t i = 0;
  for (; i + lane_count <= n; i += lane_count) {
    lane_vector row;
    load_lanes(row, rows + i);
    for (int c = 0; c < C; ++c) {
      lane_vector xi;
      load_lanes(xi, x + c * col_stride + i);
      lane_vector factor = ac[c];
      if constexpr (Quadratic) multiply_add(factor, bc[c], xi);
      multiply_add(row, factor, xi);
    }
    store_lanes(rows + i, row);
  }
  for (; i < n; ++i)
    for (int c = 0; c < C; ++c) {
      const auto xi = static_cast<double>(x[c * col_stride + i]);
      rows[i] += xi * (Quadratic ? a[c] + b[c] * xi : a[c]);
    }
}

/// Columns are contiguous: a few of them at a time stay in cache between the sum and the product.
template <bool Quadratic, class T, class Finish>
void walk_contiguous_columns(matrix_view<const T> x, index_range columns, Finish& finish,
                             double* rows) {
  constexpr index_t cache_bytes = index_t{1} << 19;
  constexpr index_t unrolled = 4;
  const index_t n = x.rows();
  const index_t column_bytes = std::max<index_t>(1, n * static_cast<index_t>(sizeof(T)));
  const index_t width = std::clamp<index_t>(cache_bytes / column_bytes, unrolled, 64);
  tile_vectors v(width);
  for (index_t first = columns.begin; first < columns.end; first += width) {
    const index_t count = std::min(width, columns.end - first);
    const auto column = [&](index_t j) { return x.data() + (first + j) * x.col_stride(); };
    for (index_t j = 0; j < count; ++j)
      sum_column<Quadratic>(column(j), n, v.g[static_cast<std::size_t>(j)],
                            v.q[static_cast<std::size_t>(j)]);
    finish(first, count, v.g.data(), v.q.data(), v.a.data(), v.b.data());
    index_t j = 0;
    for (; j + unrolled <= count; j += unrolled)
      multiply_columns<Quadratic, unrolled>(column(j), x.col_stride(), n, v.a.data() + j,
                                            v.b.data() + j, rows);
    for (; j < count; ++j)
      multiply_columns<Quadratic, 1>(column(j), x.col_stride(), n, v.a.data() + j, v.b.data() + j,
                                     rows);
  }
}

}  // namespace dualsft::detail::cpu
