// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <dualsft/cwsd.hpp>
#include <dualsft/detail/cwsd_device_anchors.cuh>
#include <dualsft/detail/cwsd_device_rows.cuh>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/execution.cuh>
#include <limits>
#include <numbers>
#include <type_traits>

/// cwsd.hpp on the device: many anchors at once, from logits of 16 or 32 bits.
namespace dualsft {

/// Which rows belong together, in the device's memory.
template <class Label = std::int64_t>
struct cwsd_rows {
  /// [anchors + 1], from 0 to the number of rows, never falling: anchor x has rows
  /// [begins[x], begins[x + 1]).
  vector_view<const index_t, device_space> begins;
  /// [rows], or empty: all rows count. Logits of rows labelled cwsd_ignored_label are not read.
  vector_view<const Label, device_space> labels = {};
};

enum class gradient_scaling {
  applied,  ///< w(x) is in the gradient; unless w(x) = 1, the teacher's logits are read first
  per_row   ///< it is not: multiply row t by row_scales[t], for example where dZ is used
};

template <class T>
struct cwsd_outputs {
  /// [anchors]; all zeros for an anchor without a row that counts.
  vector_view<cwsd_anchor, device_space> anchors;
  /// [rows, V], or empty; may be the student's logits. Rows that do not count become 0.
  matrix_view<T, device_space> gradient = {};
  /// [rows], per_row only: w(x), 0 for rows that do not count.
  vector_view<float, device_space> row_scales = {};
};

struct device_cwsd_options {
  double scale = 1;  ///< of the gradient: 1 / |A|, lambda, a loss scale
  gradient_scaling scaling = gradient_scaling::applied;
};

/// Memory that cwsd needs besides: 48 bytes per row. Taken and given back in the order of the policy's
/// stream, which must outlive it.
class cwsd_workspace {
 public:
  /// \throws cuda_error  if there is too little memory
  cwsd_workspace(const exec::cuda& policy, index_t most_rows)
      : tasks_(policy, most_rows), records_(policy, most_rows), taken_(policy, 1) {}

  index_t most_rows() const { return tasks_.size(); }

  /// For the algorithms of this library.
  detail::row_task* tasks() const { return tasks_.data(); }
  detail::row_record* records() const { return records_.data(); }
  unsigned long long* taken() const { return taken_.data(); }

 private:
  detail::device_array<detail::row_task> tasks_;
  detail::device_array<detail::row_record> records_;
  detail::device_array<unsigned long long> taken_;
};

namespace detail {

template <class T>
void check_logits(const char* name, const matrix_view<T, device_space>& logits, index_t rows,
                  index_t classes) {
  expects(logits.rows() == rows && logits.cols() == classes, "cwsd",
          "matrices of logits must have one shape", "matrix", name, "rows", logits.rows(), "cols",
          logits.cols(), "teacher rows", rows, "teacher cols", classes);
  expects(
      (classes <= 1 || logits.col_stride() == 1) && (rows <= 1 || logits.row_stride() >= classes),
      "cwsd", "rows of device matrices must be contiguous, and not overlap", "matrix", name,
      "row stride", logits.row_stride(), "column stride", logits.col_stride());
}

/// log2(e) / tau
inline float powers_per_logit(const cwsd_rule& rule) {
  expects(rule.tau > 0 && std::isfinite(rule.tau), "cwsd", "tau must be positive", "tau", rule.tau);
  return static_cast<float>(std::numbers::log2e / rule.tau);
}

}  // namespace detail

/// Losses of all anchors, and the student's logit gradient times options.scale.
///
/// \param teacher    [rows, V], of bfloat16, float16 or float; V < 2^30
/// \param student    [rows, V]
/// \param workspace  for at least as many rows; used by one stream at a time
/// \throws invalid_argument  if shapes differ, a view is not row-major, tau is not positive, or the
///                           workspace is too small
/// \throws cuda_error        if a launch fails
///
/// Cost: limited by memory. Of 16-bit logits 6 V bytes per row that counts are moved: both logits once,
/// the gradient once (8 V where w(x) is applied and is not 1; 4 V without a gradient), as long as what
/// detail/cwsd_device_rows.cuh leaves to the L2 cache stays there; 10 V if nothing did. Four
/// exponentials per class take three quarters of that time, beside it. Rows that start at multiples of
/// 16 bytes are read fastest. Asynchronous; allocates nothing.
/// Numerics: float, sums of a thread's classes in float, across warps and rows in double. With
/// e = 2^-20 and z in units of tau: p, q are exact to a factor 1 + e (1 + |z - max z|), divergence and
/// entropy to e (1 + mean_q |z_q - z_p|) and e (1 + H), both before they are averaged; probabilities
/// below 2^-126 count as 0. A gradient of 16 bits is rounded once: choose a scale that float16 can hold.
/// Logits of -inf are impossible classes; NaN and +inf make their anchor NaN and touch no other.
/// Finite |z| must stay below 2^127, and a row's largest z / tau above -2^98.
/// Determinism: equal inputs give equal bits, whatever the number of multiprocessors.
/// Source: as cwsd.hpp.
template <class T, class Label = std::int64_t>
void cwsd(const exec::cuda& policy, const cwsd_rule& rule,
          std::type_identity_t<matrix_view<const T, device_space>> teacher,
          std::type_identity_t<matrix_view<const T, device_space>> student,
          const cwsd_rows<Label>& rows, const cwsd_outputs<T>& outputs,
          const device_cwsd_options& options, cwsd_workspace& workspace) {
  static_assert(std::is_same_v<T, float> || Storage16<T>,
                "dualsft::cwsd: logits are float, bfloat16 or float16");
  constexpr const char* function = "cwsd";
  const index_t count = teacher.rows(), classes = teacher.cols();
  const index_t anchors = outputs.anchors.size();
  const bool wants_gradient = outputs.gradient.rows() > 0;
  const bool per_row = options.scaling == gradient_scaling::per_row;
  const float per_logit = detail::powers_per_logit(rule);
  detail::check_logits("teacher", teacher, count, classes);
  detail::check_logits("student", student, count, classes);
  if (wants_gradient) detail::check_logits("gradient", outputs.gradient, count, classes);
  expects((count == 0 || classes > 0) && classes < index_t{1} << 30, function,
          "V must lie in [1, 2^30)", "V", classes);
  expects(rows.begins.contiguous() && rows.labels.contiguous() && outputs.anchors.contiguous() &&
              outputs.row_scales.contiguous(),
          function, "device views must be contiguous", "begins stride", rows.begins.stride(),
          "labels stride", rows.labels.stride(), "anchors stride", outputs.anchors.stride(),
          "row_scales stride", outputs.row_scales.stride());
  expects(rows.begins.size() == anchors + 1, function,
          "begins must have one value more than there are anchors", "begins", rows.begins.size(),
          "anchors", anchors);
  expects(rows.labels.size() == 0 || rows.labels.size() == count, function,
          "there must be one label per row", "labels", rows.labels.size(), "rows", count);
  expects(outputs.row_scales.size() == (per_row ? count : 0), function,
          "row_scales must have one value per row if they are asked for, and none if not",
          "row_scales", outputs.row_scales.size(), "rows", count);
  expects(count <= workspace.most_rows(), function, "the workspace is for fewer rows", "rows",
          count, "workspace", workspace.most_rows());
  constexpr index_t most_blocks = std::numeric_limits<int>::max();
  expects(anchors <= most_blocks && count <= most_blocks, function,
          "there may be 2^31 - 1 anchors and rows", "anchors", anchors, "rows", count);
  if (anchors == 0) return;

  const detail::launch_shape per_anchor{static_cast<unsigned>(anchors), detail::anchor_threads};
  const detail::anchor_inputs at{.begins = rows.begins.data(),
                                 .records = workspace.records(),
                                 .tasks = workspace.tasks(),
                                 .rule = rule,
                                 .classes = classes};
  detail::launch(function, policy, per_anchor, detail::give_tasks<Label>, at.begins,
                 rows.labels.size() > 0 ? rows.labels.data() : nullptr, options.scale * rule.tau,
                 at.tasks);
  if (count > 0) {
    const detail::logit_rows<T> in{.teacher = teacher.data(),
                                   .student = student.data(),
                                   .gradient = wants_gradient ? outputs.gradient.data() : nullptr,
                                   .teacher_stride = teacher.row_stride(),
                                   .student_stride = student.row_stride(),
                                   .gradient_stride = outputs.gradient.row_stride(),
                                   .rows = count,
                                   .classes = classes,
                                   .per_logit = per_logit,
                                   .tasks = at.tasks,
                                   .records = workspace.records()};
    if (wants_gradient && !per_row && rule.weight != confidence::uniform) {
      detail::launch_read_teacher_rows(function, policy, in);
      detail::launch(function, policy, per_anchor, detail::weigh_tasks<detail::anchor_threads>, at);
    }
    detail::launch_distill_rows(function, policy, in, workspace.taken());
  }
  detail::launch(function, policy, per_anchor, detail::finish_anchors<detail::anchor_threads>, at,
                 outputs.anchors.data(), per_row ? outputs.row_scales.data() : nullptr);
}

/// The same with a workspace of its own.
template <class T, class Label = std::int64_t>
void cwsd(const exec::cuda& policy, const cwsd_rule& rule,
          std::type_identity_t<matrix_view<const T, device_space>> teacher,
          std::type_identity_t<matrix_view<const T, device_space>> student,
          const cwsd_rows<Label>& rows, const cwsd_outputs<T>& outputs,
          const device_cwsd_options& options = {}) {
  cwsd_workspace workspace(policy, teacher.rows());
  cwsd<T, Label>(policy, rule, teacher, student, rows, outputs, options, workspace);
}

}  // namespace dualsft
