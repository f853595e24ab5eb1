// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/order.hpp>
#include <limits>

/// What the conservation law compares and what comes of it, on every back end; conservation.hpp has
/// the law.
namespace dualsft {

struct conservation_check {
  double rows_total = 0;        ///< sum of data scores
  double columns_total = 0;     ///< sum of parameter scores
  double columns_absolute = 0;  ///< sum of |parameter scores|
  double expected_total = 0;    ///< what the two must make: see above
  double gap = 0;
  double tolerance = 0;  ///< the largest gap for which `holds` is true
  bool holds = false;
};

struct score_totals {
  double total = 0;
  double absolute = 0;
};

namespace detail {

inline conservation_check check_totals(score_order order, score_totals columns, double rows_total,
                                       double rows_absolute, double everything, double epsilon) {
  conservation_check check;
  check.rows_total = rows_total;
  check.columns_total = columns.total;
  check.columns_absolute = columns.absolute;
  const bool joint = order == score_order::joint;
  check.expected_total = joint ? everything : columns.total;
  const double difference =
      std::abs((joint ? rows_total + columns.total : rows_total) - check.expected_total);
  const double tiny = std::numeric_limits<double>::min();
  check.gap = difference / std::max(columns.absolute, tiny);
  check.tolerance = epsilon * std::max(1.0, rows_absolute / std::max(columns.absolute, tiny));
  check.holds = check.gap <= check.tolerance;
  return check;
}

}  // namespace detail

}  // namespace dualsft
