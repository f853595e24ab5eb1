// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/cwsd.cuh>
#include <dualsft/detail/cwsd_device_head.cuh>
#include <dualsft/device_products.cuh>
#include <limits>
#include <span>
#include <vector>

namespace dualsft::detail {

/// cwsd_through_head, chunk by chunk; w(x) is in the gradients.
/// \param Inputs, Outputs, Workspace  those of cwsd_head.cuh
template <class T, class Hidden, class Inputs, class Outputs, class Workspace>
class head_walk {
  static constexpr const char* function = "cwsd_through_head";

 public:
  head_walk(const exec::cuda& policy, const cwsd_rule& rule, const Inputs& inputs,
            const Outputs& outputs, Workspace& workspace)
      : policy_(policy),
        rule_(rule),
        in_(inputs),
        out_(outputs),
        workspace_(workspace),
        per_logit_(powers_per_logit(rule)),
        classes_(inputs.student_head.rows()),
        stride_(logit_stride<T>(classes_)) {
    check();
    memory_parts memory = workspace.memory();
    const index_t teacher_width = in_.teacher_hidden.cols(), width = in_.student_hidden.cols();
    const index_t row_bytes =
        static_cast<index_t>(sizeof(T)) * (2 * stride_ + teacher_width + width) +
        static_cast<index_t>(sizeof(Hidden)) * width;
    constexpr index_t parts = 5;
    most_rows_ = std::max<index_t>(0, memory.left() - parts * 256) / row_bytes;
    expects(most_rows_ > 0, function, "the workspace has no room for one row", "bytes",
            memory.left(), "bytes per row", row_bytes + parts * 256);
    most_rows_ = std::min({most_rows_, std::max<index_t>(1, workspace.counted()),
                           index_t{std::numeric_limits<int>::max()}});
    teacher_logits_ = memory.template take<T>(most_rows_ * stride_);
    student_logits_ = memory.template take<T>(most_rows_ * stride_);
    teacher_hidden_ = memory.template take<T>(most_rows_ * teacher_width);
    student_hidden_ = memory.template take<T>(most_rows_ * width);
    hidden_gradient_ = memory.template take<Hidden>(most_rows_ * width);
  }

  void run(double scale) {
    const auto anchors = static_cast<unsigned>(workspace_.anchors());
    if (anchors == 0) return;
    const launch_shape per_anchor{anchors, anchor_threads};
    launch(function, policy_, per_anchor, give_tasks<std::int64_t>, workspace_.device_begins(),
           static_cast<const std::int64_t*>(nullptr), scale * rule_.tau,
           workspace_.of_rows().tasks());
    if (workspace_.counted() < out_.hidden_gradient.rows()) clear_hidden_gradient();
    const std::vector<head_chunk> chunks = chunks_of(workspace_.begins(), most_rows_);
    for (std::size_t i = 0; i < chunks.size();) {
      std::size_t last = i + 1;  // the parts of one anchor go together
      while (!chunks[i].whole && last < chunks.size() && !chunks[last].whole &&
             chunks[last].first_anchor == chunks[i].first_anchor)
        ++last;
      const std::span<const head_chunk> group(chunks.data() + i, last - i);
      if (rule_.weight != confidence::uniform) weigh(group);
      for (const head_chunk& chunk : group) {
        if (group.size() > 1 || rule_.weight == confidence::uniform) make_teacher_logits(chunk);
        distill(chunk);
      }
      i = last;
    }
    launch(function, policy_, per_anchor, finish_anchors<anchor_threads>, anchors_from(0),
           out_.anchors.data(), static_cast<float*>(nullptr));
  }

 private:
  void check() const {
    const index_t rows = workspace_.rows();
    const auto fits = [&](const auto& matrix, index_t wanted_rows, index_t wanted_cols,
                          const char* name) {
      expects(matrix.rows() == wanted_rows && matrix.cols() == wanted_cols, function,
              "shapes must fit", "matrix", name, "rows", matrix.rows(), "cols", matrix.cols(),
              "wanted rows", wanted_rows, "wanted cols", wanted_cols);
      expects((matrix.cols() <= 1 || matrix.col_stride() == 1) &&
                  leading_dimension(matrix) >= matrix.cols(),
              function, "rows of device matrices must be contiguous, and not overlap", "matrix",
              name, "row stride", matrix.row_stride(), "column stride", matrix.col_stride());
    };
    const index_t width = in_.student_hidden.cols();
    fits(in_.student_hidden, rows, width, "student hidden");
    fits(in_.student_head, classes_, width, "student head");
    fits(in_.teacher_hidden, rows, in_.teacher_hidden.cols(), "teacher hidden");
    fits(in_.teacher_head, classes_, in_.teacher_hidden.cols(), "teacher head");
    fits(out_.hidden_gradient, rows, width, "hidden gradient");
    if (out_.head_gradient.rows() > 0) fits(out_.head_gradient, classes_, width, "head gradient");
    expects(out_.anchors.contiguous() && out_.anchors.size() == workspace_.anchors(), function,
            "there must be one result per anchor of the workspace", "results", out_.anchors.size(),
            "anchors", workspace_.anchors());
    expects(workspace_.anchors() <= std::numeric_limits<int>::max(), function,
            "there may be 2^31 - 1 anchors", "anchors", workspace_.anchors());
    expects(classes_ > 0 && classes_ < index_t{1} << 30, function, "V must lie in [1, 2^30)", "V",
            classes_);
  }

  void clear_hidden_gradient() {
    const matrix_view<Hidden, device_space>& to = out_.hidden_gradient;
    if (to.rows() == 0 || to.cols() == 0) return;
    cuda_check(cudaMemset2DAsync(to.data(),
                                 static_cast<std::size_t>(leading_dimension(to)) * sizeof(Hidden),
                                 0, static_cast<std::size_t>(to.cols()) * sizeof(Hidden),
                                 static_cast<std::size_t>(to.rows()), policy_.stream),
               function);
  }

  /// Hidden states of a chunk, side by side.
  matrix_view<const T, device_space> gathered(const head_chunk& chunk,
                                              const matrix_view<const T, device_space>& hidden,
                                              T* to) {
    const index_t rows = chunk.last_row - chunk.first_row;
    launch(function, policy_, {static_cast<unsigned>(rows), 256}, gather_rows<T>,
           workspace_.counted_rows() + chunk.first_row, hidden.data(), hidden.row_stride(),
           hidden.cols(), to);
    return {to, rows, hidden.cols()};
  }

  matrix_view<T, device_space> logits(const head_chunk& chunk, T* data) const {
    return {data, chunk.last_row - chunk.first_row, classes_, stride_, 1};
  }

  void make_teacher_logits(const head_chunk& chunk) {
    workspace_.products().a_bt(function, policy_,
                               gathered(chunk, in_.teacher_hidden, teacher_hidden_),
                               in_.teacher_head, logits(chunk, teacher_logits_));
  }

  logit_rows<T> rows_of(const head_chunk& chunk) const {
    return {.teacher = teacher_logits_,
            .student = student_logits_,
            .gradient = student_logits_,
            .teacher_stride = stride_,
            .student_stride = stride_,
            .gradient_stride = stride_,
            .rows = chunk.last_row - chunk.first_row,
            .classes = classes_,
            .per_logit = per_logit_,
            .tasks = workspace_.of_rows().tasks() + chunk.first_row,
            .records = workspace_.of_rows().records() + chunk.first_row};
  }

  anchor_inputs anchors_from(index_t first) const {
    return {.begins = workspace_.device_begins() + first,
            .records = workspace_.of_rows().records(),
            .tasks = workspace_.of_rows().tasks(),
            .rule = rule_,
            .classes = classes_};
  }

  /// w(x) of the group's anchors; leaves the logits of its last chunk behind.
  void weigh(std::span<const head_chunk> group) {
    for (const head_chunk& chunk : group) {
      make_teacher_logits(chunk);
      launch_read_teacher_rows(function, policy_, rows_of(chunk));
    }
    const index_t first = group.front().first_anchor, last = group.front().last_anchor;
    launch(function, policy_, {static_cast<unsigned>(last - first), anchor_threads},
           weigh_tasks<anchor_threads>, anchors_from(first));
  }

  void distill(const head_chunk& chunk) {
    device_products& products = workspace_.products();
    const auto hidden = gathered(chunk, in_.student_hidden, student_hidden_);
    const auto gradient = logits(chunk, student_logits_);
    products.a_bt(function, policy_, hidden, in_.student_head, gradient);
    launch_distill_rows(function, policy_, rows_of(chunk), workspace_.of_rows().taken());
    const matrix_view<Hidden, device_space> to(hidden_gradient_, gradient.rows(), hidden.cols());
    products.a_b(function, policy_, gradient, in_.student_head, to);
    launch(function, policy_, {static_cast<unsigned>(to.rows()), 256}, scatter_rows<Hidden>,
           workspace_.counted_rows() + chunk.first_row, to.data(), to.cols(),
           out_.hidden_gradient.data(), out_.hidden_gradient.row_stride());
    if (out_.head_gradient.rows() > 0)
      products.at_b(function, policy_, gradient, hidden, out_.head_gradient,
                    {.into = product_into::add});
  }

  const exec::cuda policy_;
  const cwsd_rule rule_;
  const Inputs in_;
  const Outputs out_;
  Workspace& workspace_;
  const float per_logit_;
  const index_t classes_, stride_;
  index_t most_rows_ = 0;
  T* teacher_logits_ = nullptr;
  T* student_logits_ = nullptr;
  T* teacher_hidden_ = nullptr;
  T* student_hidden_ = nullptr;
  Hidden* hidden_gradient_ = nullptr;
};

}  // namespace dualsft::detail
