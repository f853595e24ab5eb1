// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/detail/dense_column.hpp>
#include <dualsft/detail/dense_tiles.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/projection.hpp>
#include <dualsft/views.hpp>
#include <limits>
#include <span>
#include <vector>

namespace dualsft::detail {

/// project_coordinate of column j, reading what the rule needs.
template <class Inputs>
projected project_column(const score_rule& rule, const Inputs& inputs, index_t j, double sum) {
  return project_coordinate(
      rule, static_cast<double>(inputs.validation[j]), sum,
      needs_curvature(rule) ? static_cast<double>(inputs.curvature[j]) : 1.0,
      needs_hessian_gradient(rule) ? static_cast<double>(inputs.hessian_gradient[j]) : 0.0);
}

/// The rule's factors and scores of a few columns from their sums g and squares q.
///
///     phi_D[i] = eta sum_j g_ij (a_j + b_j g_ij)      b = 0 unless joint
///
/// \param first   of these columns within inputs and phi
/// \param offset  of inputs and phi within the matrix (to name a column)
template <class Inputs>
column_sums finish_columns(const score_rule& rule, const Inputs& inputs, index_t offset,
                           index_t first, index_t count, const double* g, const double* q,
                           double* a, double* b, vector_view<double> phi) {
  column_sums sums;
  for (index_t k = 0; k < count; ++k) {
    const index_t j = first + k;
    const projected at = project_column(rule, inputs, j, g[k]);
    const column_factors factors = finish_column(
        rule, at, static_cast<double>(inputs.validation[j]), g[k], q[k], offset + j, sums);
    a[k] = factors.a;
    b[k] = factors.b;
    phi[j] = factors.score;
  }
  return sums;
}

/// sum_ij |terms| of the law over these columns, by definition: a second read.
template <HostPolicy Policy, class T, class Inputs>
double sum_of_terms(const Policy& policy, matrix_view<const T> x, const Inputs& inputs,
                    const score_rule& rule) {
  constexpr index_t width = 64;
  std::vector<double> partial(static_cast<std::size_t>(thread_count(policy)));
  parallel_ranges(policy, x.cols(), width, [&](int part, index_range range) {
    double terms = 0;
    for (index_t first = range.begin; first < range.end; first += width) {
      const index_t count = std::min(width, range.end - first);
      double sums[width] = {}, magnitudes[width] = {};
      for (index_t i = 0; i < x.rows(); ++i)
        for (index_t k = 0; k < count; ++k) {
          const auto value = static_cast<double>(x(i, first + k));
          sums[k] += value;
          magnitudes[k] += std::abs(value);
        }
      for (index_t k = 0; k < count; ++k) {
        const projected at = project_column(rule, inputs, first + k, sums[k]);
        // Orders but joint have no bend; the joint law has terms of twice this size.
        const double bend = std::abs(rule.eta * at.curvature) * magnitudes[k];
        terms += rule.eta * magnitudes[k] * 2 * (std::abs(at.p) + bend);
      }
    }
    partial[static_cast<std::size_t>(part)] = terms;
  });
  double terms = 0;
  for (const double part : partial) terms += part;
  return terms;
}

namespace cpu {

/// What the threads found, to be added in their order.
struct column_parts {
  std::vector<std::vector<double>> rows;  ///< sum_j x_ij (a_j + b_j x_ij) over a part's columns
  std::vector<column_sums> sums;

  explicit column_parts(int parts)
      : rows(static_cast<std::size_t>(parts)), sums(static_cast<std::size_t>(parts)) {}
};

/// Threads over ranges of columns, which do not wait for each other.
///
/// \tparam Waits  for the sums: the factors follow from them; otherwise `known` fills them
template <bool Waits, bool Quadratic, class T, class Finish, class Known>
column_parts sweep_columns(const exec::cpu& policy, matrix_view<const T> x, Finish&& finish,
                           Known&& known) {
  constexpr index_t least_columns = 256;  // of a thread
  column_parts parts(thread_count(policy));
  parallel_ranges(policy, x.cols(), least_columns, [&](int part, index_range range) {
    auto& rows = parts.rows[static_cast<std::size_t>(part)];
    rows.assign(static_cast<std::size_t>(x.rows()), 0.0);
    const auto into = [&](index_t first, index_t count, const double* g, const double* q, double* a,
                          double* b) {
      finish(parts.sums[static_cast<std::size_t>(part)], first, count, g, q, a, b);
    };
    if (x.col_stride() == 1) {
      const index_t whole = range.end - range.size() % tile_grain;
      if constexpr (Waits)
        walk_exchanging<Quadratic>(x, {range.begin, whole}, into, rows.data());
      else
        walk_known(x, {range.begin, whole}, known, into, rows.data());
      walk_packed<Quadratic>(x, {whole, range.end}, into, rows.data());
    } else if (x.row_stride() == 1) {
      walk_contiguous_columns<Quadratic>(x, range, into, rows.data());
    } else {
      walk_packed<Quadratic>(x, range, into, rows.data());
    }
  });
  return parts;
}

/// Scores of all columns of `x`; data_scores += the part of the rows that lies in them.
///
/// \param inputs  of these columns
/// \param offset  of these columns within the whole matrix
template <class T, class Inputs>
void dense_columns(const exec::cpu& policy, matrix_view<const T> x, const Inputs& inputs,
                   const score_rule& rule, index_t offset, std::span<double> data_scores,
                   vector_view<double> phi, column_sums& sums) {
  const auto finish = [&](column_sums& into, index_t first, index_t count, const double* g,
                          const double* q, double* a, double* b) {
    into.add(finish_columns(rule, inputs, offset, first, count, g, q, a, b, phi));
  };
  const auto known = [&](index_t first, index_t count, double* a) {
    for (index_t k = 0; k < count; ++k) a[k] = project_column(rule, inputs, first + k, 0.0).p;
  };
  const column_parts parts =
      rule.order == score_order::joint      ? sweep_columns<true, true>(policy, x, finish, known)
      : rule.order == score_order::diagonal ? sweep_columns<true, false>(policy, x, finish, known)
                                            : sweep_columns<false, false>(policy, x, finish, known);

  score_totals row_totals;
  for (std::size_t i = 0; i < data_scores.size(); ++i) {
    double score = 0;
    for (const auto& part : parts.rows)
      if (!part.empty()) score += part[i];
    score *= rule.eta;
    data_scores[i] += score;
    row_totals.total += score;
    row_totals.absolute += std::abs(score);
  }
  column_sums here;
  for (const column_sums& part : parts.sums) here.add(part);

  // The law holds for any columns by themselves. Nearly always the scores alone explain what
  // rounding left; only where they cancelled to almost nothing are the terms looked at again.
  const double other =
      rule.order == score_order::joint ? here.everything - row_totals.total : row_totals.total;
  const double left = std::abs(other - here.scores.total);
  here.terms = std::max(row_totals.absolute, here.scores.absolute);
  if (left >
      allowed_roundings(x.rows(), x.cols()) * std::numeric_limits<double>::epsilon() * here.terms)
    here.terms = std::max(here.terms, sum_of_terms(policy, x, inputs, rule));
  sums.add(here);
}

}  // namespace cpu
}  // namespace dualsft::detail
