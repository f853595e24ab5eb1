// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/dense_scores.hpp>
#include <utility>

namespace dualsft {

/// dense_scores of a matrix that does not fit memory: the caller brings it panel by panel, each
/// panel some columns [N, w] of it, and every element is still read once.
///
///     dense_panels scoring({}, rule, rows, columns);
///     while (scoring.next_column() < columns) {
///       ... read panel [rows, w] and v, D, HG [w] of these columns ...
///       scoring.add(panel, inputs, parameter_scores_of_the_panel);
///     }
///     dense_result result = scoring.finish();
///
/// Panels rather than blocks of rows, because the second order needs whole columns. A file in C
/// order is then read in runs of w elements: make panels as wide as memory allows.
///
/// Cost: state of 8 N bytes, beside the scratch that dense_scores names.
/// Determinism: bits depend on the thread count and on the widths of the panels.
class dense_panels {
 public:
  /// \param rows, columns  N and d of the whole matrix
  /// \throws invalid_argument  if eta is not positive or a size is negative
  dense_panels(const exec::cpu& policy, const score_rule& rule, index_t rows, index_t columns)
      : policy_(policy), rule_(rule), columns_(columns) {
    detail::check_rule("dense_panels", rule);
    expects(rows >= 0 && columns >= 0, "dense_panels", "sizes must not be negative", "rows", rows,
            "columns", columns);
    result_.data_scores.assign(static_cast<std::size_t>(rows), 0.0);
  }

  /// Where the next panel begins; the number of columns once all have been added.
  index_t next_column() const noexcept { return next_; }

  /// The first column so far whose score is NaN or infinite, -1 if none: a reason to stop early.
  index_t first_non_finite() const noexcept { return sums_.first_non_finite; }

  /// \param panel             [N, w], columns [next_column(), next_column() + w)
  /// \param inputs            [w], of the same columns
  /// \param parameter_scores  [w], written
  /// \throws invalid_argument  if a shape is wrong; then nothing has been added
  template <class T, DenseScalar V = double>
  requires DenseScalar<std::remove_const_t<T>>
  void add(matrix_view<T> panel, const dense_inputs<V>& inputs,
           vector_view<double> parameter_scores) {
    const auto rows = static_cast<index_t>(result_.data_scores.size());
    expects(panel.rows() == rows, "dense_panels::add", "a panel has all rows of the matrix",
            "panel.rows", panel.rows(), "rows", rows);
    expects(panel.cols() <= columns_ - next_, "dense_panels::add",
            "no more columns than the matrix has", "panel.cols", panel.cols(), "left",
            columns_ - next_);
    expects(parameter_scores.size() == panel.cols(), "dense_panels::add",
            "one parameter score per column", "parameter_scores", parameter_scores.size(),
            "panel.cols", panel.cols());
    detail::check_dense_inputs("dense_panels::add", inputs, rule_, panel.cols());
    const matrix_view<const std::remove_const_t<T>> g = panel;
    detail::cpu::dense_columns(policy_, g, inputs, rule_, next_, result_.data_scores,
                               parameter_scores, sums_);
    next_ += panel.cols();
  }

  /// The result, without parameter_scores; the object is spent.
  /// \throws invalid_argument  unless every column has been added
  dense_result finish() {
    expects(next_ == columns_, "dense_panels::finish", "every column must have been added", "added",
            next_, "columns", columns_);
    detail::finish_dense(rule_, columns_, sums_, result_);
    return std::exchange(result_, {});
  }

 private:
  exec::cpu policy_;
  score_rule rule_;
  index_t columns_;
  index_t next_ = 0;
  detail::column_sums sums_;
  dense_result result_;
};

}  // namespace dualsft
