// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <atomic>
#include <dualsft/detail/products.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/traces.hpp>
#include <span>
#include <utility>
#include <vector>

namespace dualsft::detail {

/// A view whose rows are contiguous, as Eigen's products want them; copies only what is not.
template <class S>
class contiguous_rows {
 public:
  explicit contiguous_rows(matrix_view<const S> view) : view_(view) {
    if (view.col_stride() == 1 || view.cols() <= 1) return;
    copy_.resize(view.rows(), view.cols());
    for (index_t i = 0; i < view.rows(); ++i)
      for (index_t j = 0; j < view.cols(); ++j) copy_(i, j) = view(i, j);
    view_ = matrix_view<const S>(copy_.data(), view.rows(), view.cols());
  }

  matrix_view<const S> view() const { return view_; }
  const_row_map<S> get() const { return as_map(view_); }

 private:
  matrix_view<const S> view_;
  row_matrix<S> copy_;
};

/// Adds <g_i, P> of every trace to out[i], i the position in the batch: the sink of the ghost
/// strategy. Products run in S, the sum over tokens and traces in double. The product A P^T of an
/// affine trace is formed in tiles, large because a tile of r rows and c columns packs r + c rows of
/// its operands, and which thread forms a tile does not matter to the result.
template <class S>
class ghost_products {
 public:
  /// \param direction  P [d], flat
  /// \param out        [batch], added to
  /// \param threads    that an affine trace's rows are spread over: more than one where the model
  ///                   is called from one thread at a time
  ghost_products(const parameter_layout& layout, std::span<const S> direction,
                 std::span<double> out, int threads = 1)
      : layout_(layout), direction_(direction), out_(out), threads_(threads) {}

  void operator()(const affine_trace<S>& trace) {
    check(trace.inputs.rows(), trace.output_gradients.rows(), trace.examples);
    const matrix_view<const S> weight = matrix(trace.weight);  // (out, in)
    expects(weight.cols() == trace.inputs.cols() && weight.rows() == trace.output_gradients.cols(),
            "ghost_products", "an affine trace must fit its weight [out, in]", "block",
            layout_.block(trace.weight).name, "in", trace.inputs.cols(), "out",
            trace.output_gradients.cols());
    const contiguous_rows<S> inputs(trace.inputs);
    const contiguous_rows<S> errors(trace.output_gradients);
    const tiling tiles(trace.inputs.rows(), weight.rows(), threads_);
    dots_.assign(static_cast<std::size_t>(tiles.cols * trace.inputs.rows()), 0.0);
    products_.resize(static_cast<std::size_t>(threads_));
    std::atomic<index_t> next{0};
    const int parts = static_cast<int>(std::min<index_t>(threads_, tiles.count()));
    parallel_parts(parts, [&](int part) {
      auto& space = products_[static_cast<std::size_t>(part)];
      for (index_t number = next++; number < tiles.count(); number = next++) {
        const auto [rows, cols] = tiles.at(number);
        if (space.size() < rows.size() * cols.size()) space.resize(rows.size() * cols.size());
        const matrix_view<S> product(space.data(), rows.size(), cols.size());
        as_map(product).setZero();
        if (trace.bias >= 0)
          as_map(product).rowwise() =
              vector(trace.bias, weight.rows()).segment(cols.begin, cols.size());
        add_a_bt<S>(inputs.view().middle_rows(rows.begin, rows.size()),
                    weight.middle_rows(cols.begin, cols.size()), product);
        const auto e = errors.get().block(rows.begin, cols.begin, rows.size(), cols.size());
        double* const dots = dots_.data() + number / tiles.rows * trace.inputs.rows() + rows.begin;
        for (index_t t = 0; t < rows.size(); ++t)
          dots[t] = static_cast<double>(e.row(t).dot(as_map(product).row(t)));
      }
    });
    for (std::size_t k = 0; k < dots_.size(); ++k)
      at(trace.examples, static_cast<index_t>(k) % trace.inputs.rows()) += dots_[k];
  }

  void operator()(const embedding_trace<S>& trace) {
    check(static_cast<index_t>(trace.ids.size()), trace.output_gradients.rows(), trace.examples);
    const auto table = as_map(matrix(trace.weight));  // (vocabulary, width)
    expects(table.cols() == trace.output_gradients.cols(), "ghost_products",
            "an embedding trace must fit its table", "block", layout_.block(trace.weight).name,
            "width", trace.output_gradients.cols());
    const contiguous_rows<S> errors(trace.output_gradients);
    const auto e = errors.get();
    for (index_t t = 0; t < e.rows(); ++t) {
      const index_t id = trace.ids[static_cast<std::size_t>(t)];
      expects(0 <= id && id < table.rows(), "ghost_products", "ids must lie in the vocabulary",
              "id", id, "vocabulary", table.rows());
      at(trace.examples, t) += static_cast<double>(e.row(t).dot(table.row(id)));
    }
  }

  void operator()(const scale_trace<S>& trace) {
    check(trace.inputs.rows(), trace.output_gradients.rows(), trace.examples);
    expects(trace.inputs.cols() == layout_.block(trace.weight).size() &&
                trace.inputs.cols() == trace.output_gradients.cols(),
            "ghost_products", "a scale trace must fit its weight", "block",
            layout_.block(trace.weight).name, "columns", trace.inputs.cols());
    const contiguous_rows<S> inputs(trace.inputs);
    const contiguous_rows<S> errors(trace.output_gradients);
    const auto p = vector(trace.weight, trace.inputs.cols());
    for (index_t t = 0; t < trace.inputs.rows(); ++t)
      at(trace.examples, t) +=
          static_cast<double>(inputs.get().row(t).cwiseProduct(p).dot(errors.get().row(t)));
  }

  void operator()(const dense_trace<S>& trace) {
    check(trace.gradients.rows(), trace.gradients.rows(), trace.examples);
    expects(trace.gradients.cols() == layout_.block(trace.block).size(), "ghost_products",
            "a dense trace must span its block", "block", layout_.block(trace.block).name,
            "columns", trace.gradients.cols());
    const contiguous_rows<S> gradients(trace.gradients);
    const auto p = vector(trace.block, trace.gradients.cols());
    for (index_t t = 0; t < trace.gradients.rows(); ++t)
      at(trace.examples, t) += static_cast<double>(gradients.get().row(t).dot(p));
  }

 private:
  /// A product cut into rows x cols tiles of up to about 1024 x 1024, in smaller runs of rows where
  /// the threads would not get equal shares; numbered down the columns.
  struct tiling {
    index_t row_count, col_count, rows, cols;

    tiling(index_t r, index_t c, index_t threads)
        : row_count(r), col_count(c), rows(pieces(r)), cols(pieces(c)) {
      while (count() < 4 * threads && count() % threads != 0 && r / (rows + 1) >= 64) ++rows;
    }
    index_t count() const { return rows * cols; }
    std::pair<index_range, index_range> at(index_t number) const {
      return {split_range(row_count, rows, number % rows),
              split_range(col_count, cols, number / rows, lanes)};
    }

   private:
    static constexpr index_t most = 1024, lanes = 16;
    static index_t pieces(index_t n) { return (n + most - 1) / most; }
  };

  static void check(index_t rows, index_t gradient_rows, std::span<const index_t> examples) {
    expects(rows == gradient_rows && rows == static_cast<index_t>(examples.size()),
            "ghost_products", "a trace has one example per row", "rows", rows, "gradient rows",
            gradient_rows, "examples", examples.size());
  }

  matrix_view<const S> matrix(index_t block) const {
    const parameter_block& b = layout_.block(block);
    return {direction_.data() + b.offset, b.rows, b.cols};
  }

  Eigen::Map<const Eigen::Matrix<S, 1, Eigen::Dynamic>> vector(index_t block, index_t size) const {
    const parameter_block& b = layout_.block(block);
    expects(b.size() == size, "ghost_products", "a vector parameter must fit its trace", "block",
            b.name, "size", b.size(), "columns", size);
    return {direction_.data() + b.offset, size};
  }

  double& at(std::span<const index_t> examples, index_t row) {
    const index_t i = examples[static_cast<std::size_t>(row)];
    expects(0 <= i && i < static_cast<index_t>(out_.size()), "ghost_products",
            "examples are positions in the batch", "example", i, "batch", out_.size());
    return out_[static_cast<std::size_t>(i)];
  }

  const parameter_layout& layout_;
  std::span<const S> direction_;
  std::span<double> out_;
  int threads_;
  std::vector<double> dots_;                                   // by run of columns, then by row
  std::vector<Eigen::Matrix<S, Eigen::Dynamic, 1>> products_;  // a tile for each thread
};

}  // namespace dualsft::detail
