// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/cwsd.hpp>

/// What a device keeps of a pair of rows while it reads them. Logits z are counted in powers of two,
///
///     u = z log2(e) / tau - reference,
///
/// below a reference that is near the largest seen so far: then 2^u is a probability up to the sum that
/// it is divided by, and the logarithms of those sums, the KL divergence and the entropy come out small
/// where they are small.
namespace dualsft::detail {

/// Above minus infinity, and below every logit: 2^(lowest - x) = 0 without an infinity in sight.
inline constexpr float lowest_reference = -1e30F;

/// q of the teacher, p of the student; t and s their u.
template <class Real>
struct distillation_sums {
  Real student = 0;  ///< sum 2^s
  Real teacher = 0;  ///< sum 2^t
  Real moment = 0;   ///< sum 2^t t
  Real cross = 0;    ///< sum 2^t (t - s)

  DUALSFT_HOST_DEVICE distillation_sums& operator+=(const distillation_sums& other) {
    student += other.student;
    teacher += other.teacher;
    moment += other.moment;
    cross += other.cross;
    return *this;
  }

  /// The sums below other references: s and t grow by so much; the factors are 2 to these powers.
  /// Equal rows stay equal: what `cross` has of them is exactly 0.
  DUALSFT_HOST_DEVICE void move(Real s_by, Real s_factor, Real t_by, Real t_factor) {
    // A part that vanishes takes its infinities with it; a NaN stays in `teacher`.
    const bool any = teacher * t_factor > 0;
    cross = any ? t_factor * (cross + (t_by - s_by) * teacher) : 0;
    moment = any ? t_factor * (moment + t_by * teacher) : 0;
    teacher *= t_factor;
    student *= s_factor;
  }
};

/// The sums of a row, and the largest teacher logit in the units of its reference.
struct row_record {
  distillation_sums<double> sums;
  double top = 0;
};

struct row_statistics {
  double divergence = 0;  ///< KL(q || p)
  double entropy = 0;     ///< H(q)
  double top = 0;         ///< max q
};

/// Rounding may leave a divergence of nothing below 0; NaN stays.
DUALSFT_HOST_DEVICE inline double not_below_zero(double x) {
  return x < 0 ? 0 : x;
}

DUALSFT_HOST_DEVICE inline row_statistics statistics_of(const row_record& row) {
  constexpr double ln2 = 0.693147180559945309417;
  const distillation_sums<double>& sums = row.sums;
  const double log_teacher = std::log2(sums.teacher);
  return {.divergence = not_below_zero(
              ln2 * (sums.cross / sums.teacher - log_teacher + std::log2(sums.student))),
          .entropy = not_below_zero(ln2 * (log_teacher - sums.moment / sums.teacher)),
          .top = std::exp2(row.top) / sums.teacher};
}

/// What is to be done with a row.
struct row_task {
  float factor = 0;          ///< of p - q
  std::int32_t counted = 0;  ///< 0: ignored, its gradient is 0
};

}  // namespace dualsft::detail
