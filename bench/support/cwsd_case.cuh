// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/cwsd.cuh>
#include <vector>

#include "device_bench.cuh"
#include "device_inputs.cuh"

namespace dualsft::bench {

/// Logits of a teacher and a student, and room for a gradient; anchors of 512 rows, but the first and
/// the last have one, so that a host can check them.
template <class T>
class cwsd_case {
 public:
  static double bytes(index_t rows, index_t classes) {
    return 3.0 * static_cast<double>(rows) * static_cast<double>(classes) * sizeof(T);
  }

  cwsd_case(const exec::cuda& policy, index_t rows, index_t classes)
      : rows_(rows),
        classes_(classes),
        teacher_(policy, rows * classes),
        student_(policy, rows * classes),
        gradient_(policy, rows * classes) {
    fill(policy, teacher_.view(), of_teacher);
    fill(policy, student_.view(), of_student);
    begins_.push_back(0);
    for (index_t row = 1; row < rows - 1; row += 512) begins_.push_back(row);
    if (rows > 1) begins_.push_back(rows - 1);
    begins_.push_back(rows);
    device_begins_ = {policy, std::span<const index_t>(begins_)};
    anchors_ = {policy, device_begins_.size() - 1};
    gradient_.fill_bytes(0xff);
  }

  index_t rows() const { return rows_; }
  index_t classes() const { return classes_; }
  matrix_view<T, device_space> view(const detail::device_array<T>& of) const {
    return {of.data(), rows_, classes_};
  }
  matrix_view<T, device_space> teacher() const { return view(teacher_); }
  matrix_view<T, device_space> student() const { return view(student_); }
  matrix_view<T, device_space> gradient() const { return view(gradient_); }
  vector_view<const index_t, device_space> begins() const { return device_begins_.view(); }
  vector_view<cwsd_anchor, device_space> anchors() const { return anchors_.view(); }

  /// The gradient of rows that are anchors of their own, of `scale`; unless `weighted` without w(x).
  bool gradient_is_right(const exec::cuda& policy, const cwsd_rule& rule, double scale,
                         bool weighted) const {
    for (const index_t row : {index_t{0}, rows_ - 1}) {
      std::vector<double> wanted(static_cast<std::size_t>(classes_));
      const cwsd_anchor anchor = on_host(rule, row, scale, wanted);
      const double size = std::abs(scale * rule.tau);
      for (index_t c = 0; c < classes_; c += classes_ < 1000 ? 1 : 997) {
        const double w = weighted ? 1 : anchor.weight;
        const double want = wanted[static_cast<std::size_t>(c)] / w;
        const double found =
            convert_float<double>(read_at(policy, gradient_.data(), row * classes_ + c));
        if (!(std::abs(found - want) <= 0x1p-7 * std::abs(want) + 1e-6 * size)) return false;
      }
    }
    return true;
  }

  bool anchors_are_right(const cwsd_rule& rule) const {
    const std::vector<cwsd_anchor> found = anchors_.to_host();
    std::vector<double> gradient(static_cast<std::size_t>(classes_));
    const auto near = [](double a, double b) { return std::abs(a - b) <= 1e-5 * (1 + b); };
    const cwsd_anchor first = on_host(rule, 0, 1, gradient),
                      last = on_host(rule, rows_ - 1, 1, gradient);
    return near(found.front().loss, first.loss) && near(found.front().weight, first.weight) &&
           near(found.back().loss, last.loss) && near(found.back().weight, last.weight);
  }

 private:
  static constexpr drawn of_teacher{spread::normal, 1, 4}, of_student{spread::normal, 2, 4};

  cwsd_anchor on_host(const cwsd_rule& rule, index_t row, double scale,
                      std::vector<double>& gradient) const {
    std::vector<double> q, p;
    for (index_t c = 0; c < classes_; ++c) {
      q.push_back(convert_float<double>(convert_float<T>(of_teacher(row * classes_ + c))));
      p.push_back(convert_float<double>(convert_float<T>(of_student(row * classes_ + c))));
    }
    using view = matrix_view<const double>;
    return cwsd<double>(rule, view(q.data(), 1, classes_), view(p.data(), 1, classes_),
                        matrix_view<double>(gradient.data(), 1, classes_), scale);
  }

  index_t rows_, classes_;
  detail::device_array<T> teacher_, student_, gradient_;
  std::vector<index_t> begins_;
  detail::device_array<index_t> device_begins_;
  detail::device_array<cwsd_anchor> anchors_;
};

}  // namespace dualsft::bench
