// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <dualsft/cwsd.cuh>
#include <dualsft/detail/cwsd_device_head.cuh>
#include <dualsft/detail/cwsd_device_through_head.cuh>
#include <optional>
#include <span>
#include <vector>

/// cwsd.cuh from hidden states: logits are made, used and forgotten a chunk of rows at a time, so that no
/// more than a chunk of them exists.
namespace dualsft {

/// Of 16 bits or float; all row-major.
template <class T>
struct cwsd_head_inputs {
  matrix_view<const T, device_space> teacher_hidden;  ///< [rows, H_teacher]
  matrix_view<const T, device_space> teacher_head;    ///< [V, H_teacher]
  matrix_view<const T, device_space> student_hidden;  ///< [rows, H]
  matrix_view<const T, device_space> student_head;    ///< [V, H]; may be the teacher's
};

template <class T, class Hidden = T>
struct cwsd_head_outputs {
  vector_view<cwsd_anchor, device_space> anchors;       ///< [anchors]
  matrix_view<Hidden, device_space> hidden_gradient;    ///< [rows, H], overwritten; T or float
  matrix_view<float, device_space> head_gradient = {};  ///< [V, H], added to; or empty
};

/// Which rows count, and the memory of a chunk. Rows that do not count take no part at all: not in the
/// products either. Memory is taken and given back in the order of the policy's stream, which must
/// outlive it.
class cwsd_head_workspace {
 public:
  static constexpr index_t advised_bytes = index_t{512} << 20;

  /// \param begins  [anchors + 1], from 0 to the number of rows, never falling
  /// \param labels  [rows], or empty: all rows count
  /// \param bytes   for logits and products. The head's gradient is read and written once per chunk:
  ///                more bytes make that rarer.
  /// \throws invalid_argument  if begins or labels are not as above
  /// \throws cuda_error        if there is too little memory
  template <class Label = std::int64_t>
  cwsd_head_workspace(const exec::cuda& policy, std::span<const index_t> begins,
                      std::span<const Label> labels, index_t bytes = advised_bytes)
      : memory_(policy, bytes), products_(product_memory()) {
    constexpr const char* function = "cwsd_head_workspace";
    expects(!begins.empty() && begins.front() == 0, function, "begins must start with 0", "size",
            begins.size());
    rows_ = begins.back();
    expects(labels.empty() || static_cast<index_t>(labels.size()) == rows_, function,
            "there must be one label per row", "labels", labels.size(), "rows", rows_);
    std::vector<index_t> counted;
    begins_.push_back(0);
    for (std::size_t x = 0; x + 1 < begins.size(); ++x) {
      expects(begins[x] <= begins[x + 1], function, "begins must not fall", "anchor", x, "begins",
              begins[x], "next", begins[x + 1]);
      for (index_t row = begins[x]; row < begins[x + 1]; ++row)
        if (labels.empty() ||
            labels[static_cast<std::size_t>(row)] != static_cast<Label>(cwsd_ignored_label))
          counted.push_back(row);
      begins_.push_back(static_cast<index_t>(counted.size()));
    }
    counted_ = {policy, std::span<const index_t>(counted)};
    device_begins_ = {policy, std::span<const index_t>(begins_)};
    rows_workspace_.emplace(policy, static_cast<index_t>(counted.size()));
    // What was copied lies in memory that is given back here.
    detail::cuda_check(cudaStreamSynchronize(policy.stream), function);
  }

  index_t rows() const { return rows_; }
  index_t anchors() const { return device_begins_.size() - 1; }

  /// For the algorithms of this library.
  std::span<const index_t> begins() const { return begins_; }
  const index_t* device_begins() const { return device_begins_.data(); }
  const index_t* counted_rows() const { return counted_.data(); }
  index_t counted() const { return counted_.size(); }
  const cwsd_workspace& of_rows() const { return *rows_workspace_; }
  device_products& products() { return products_; }
  detail::memory_parts memory() const {
    const index_t taken = product_memory().size();
    return {memory_.data() + taken, memory_.size() - taken};
  }

 private:
  vector_view<unsigned char, device_space> product_memory() const {
    return memory_.view().subview(
        0, std::min(device_products::advised_workspace_bytes, memory_.size() / 4 / 256 * 256));
  }

  detail::device_array<unsigned char> memory_;
  device_products products_;
  index_t rows_ = 0;
  std::vector<index_t> begins_;
  detail::device_array<index_t> counted_, device_begins_;
  std::optional<cwsd_workspace> rows_workspace_;
};

/// Losses of all anchors, and options.scale times their gradients by the student's hidden states and head:
///
///     Z = X W^T of both, dZ as cwsd.cuh, dX = dZ W_student, dW += dZ^T X_student
///
/// \param options  .scaling is not used: w(x) is always applied
/// \throws invalid_argument  if shapes do not fit, or the workspace has no room for one row
/// \throws cuda_error        if a launch or a product fails
///
/// Cost: 8 H V operations per row that counts (with H_teacher = H), at the speed of cuBLASLt, and 8 V
/// bytes for the logits' way through cwsd, some 6 % of that time. Anchors with more rows than a chunk
/// need the teacher's product twice, because w(x) is known only after its last row; others are kept
/// whole. Asynchronous; allocates nothing.
/// Numerics: as cwsd.cuh and device_products.cuh; logits and their gradients are rounded to T,
/// dW stays in float.
/// Determinism: equal inputs and workspaces give equal bits.
/// Source: as cwsd.hpp; logits a chunk at a time as in the fused linear losses of Liger-Kernel.
template <class T, class Hidden>
void cwsd_through_head(const exec::cuda& policy, const cwsd_rule& rule,
                       const std::type_identity_t<cwsd_head_inputs<T>>& inputs,
                       const cwsd_head_outputs<T, Hidden>& outputs,
                       const device_cwsd_options& options, cwsd_head_workspace& workspace) {
  static_assert(std::is_same_v<T, float> || Storage16<T>,
                "dualsft::cwsd_through_head: hidden states are float, bfloat16 or float16");
  detail::head_walk<T, Hidden, cwsd_head_inputs<T>, cwsd_head_outputs<T, Hidden>,
                    cwsd_head_workspace>(policy, rule, inputs, outputs, workspace)
      .run(options.scale);
}

}  // namespace dualsft
