// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <concepts>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/detail/ghost_device_float.cuh>
#include <dualsft/detail/ghost_device_mma.cuh>
#include <dualsft/detail/ghost_device_rows.cuh>
#include <dualsft/detail/ghost_device_sm90.cuh>
#include <dualsft/detail/ghost_device_sums.cuh>
#include <dualsft/float16.hpp>
#include <dualsft/views.hpp>
#include <span>

/// The memory that the kernels of ghost_scores.cuh work in, and the choice among them.
namespace dualsft::detail {

/// Which instructions form a 16-bit product A P^T.
enum class product_kernels { mma, wgmma };

class ghost_device {
 public:
  /// \param outputs  the most columns of any E of an affine trace
  ghost_device(const exec::cuda& policy, index_t tokens, index_t outputs, index_t batch)
      : batch_(batch),
        partial_(policy, partial_size(tokens, outputs)),
        tokens_(policy, tokens),
        ranges_(policy, batch),
        bad_(policy, 1) {
    int device = 0;
    cuda_check(cudaGetDevice(&device), "ghost_workspace");
    cuda_check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device),
               "ghost_workspace");
    kernels_ = has_wgmma("ghost_workspace") ? product_kernels::wgmma : product_kernels::mma;
    launch("ghost_workspace", policy,
           {dim3(static_cast<unsigned>(pieces_of(std::max<index_t>(batch, 1), 256))), dim3(256)},
           reset_ghost_ranges<token_range>, ranges_.data(), batch_, bad_.data());
  }

  index_t tokens() const { return tokens_.size(); }
  index_t batch() const { return batch_; }
  index_t memory_bytes() const {
    return static_cast<index_t>(partial_.bytes() + tokens_.bytes() + ranges_.bytes() +
                                bad_.bytes());
  }
  /// Whether an affine trace with so many outputs fits.
  bool takes_outputs(index_t outputs) const {
    return pieces_of(outputs, mma_tile::cols) * least_rows <= partial_.size();
  }

  product_kernels kernels() const { return kernels_; }

  // For tests and comparisons:
  void use(product_kernels kernels) { kernels_ = kernels; }
  void limit_parts(index_t parts) { most_parts_ = parts; }

  /// tokens[t] = e_t . (P a_t + p_b), then scores. The views have been checked.
  template <class T>
  void add_affine(const char* function, const exec::cuda& policy,
                  matrix_view<const T, device_space> inputs,
                  matrix_view<const T, device_space> errors,
                  vector_view<const index_t, device_space> examples,
                  matrix_view<const T, device_space> weight, const T* bias,
                  vector_view<double, device_space> scores) {
    constexpr index_t run = std::same_as<T, float> ? float_tile::cols : mma_tile::cols;
    const index_t runs = pieces_of(weight.rows(), run);
    const index_t step = chunk(inputs.rows(), runs);
    for (index_t first = 0; first < inputs.rows(); first += step) {
      const index_t rows = std::min(step, inputs.rows() - first);
      const affine_work<T> work{rows, inputs.cols(), weight.rows(), bias, partial_.data()};
      const T* const a = inputs.data() + first * inputs.row_stride();
      const T* const e = errors.data() + first * errors.row_stride();
      if constexpr (std::same_as<T, float>) {
        launch_affine_float(function, policy, a, inputs.row_stride(), weight.data(),
                            weight.row_stride(), e, errors.row_stride(), work);
      } else {
        form_product(function, policy, a, inputs.row_stride(), weight.data(), weight.row_stride(),
                     e, errors.row_stride(), work);
      }
      sum_runs(function, policy, runs, rows, first, examples, scores.size());
    }
    sum_tokens(function, policy, examples, scores);
  }

  /// tokens[t] = a dot of rows, then scores; `work` lacks what this object knows.
  template <class T>
  void add_row_dots(const char* function, const exec::cuda& policy, const row_dots<T>& dots,
                    vector_view<const index_t, device_space> examples,
                    vector_view<double, device_space> scores) {
    const index_t step = chunk(dots.rows, 1);
    for (index_t first = 0; first < dots.rows; first += step) {
      row_dots<T> work = dots;
      work.rows = std::min(step, dots.rows - first);
      work.run_cols = run_length<T>(work.rows, work.cols, partial_.size() / work.rows);
      work.left += first * work.left_stride;
      if (work.factors != nullptr) work.factors += first * work.factors_stride;
      if (work.ids != nullptr) work.ids += first;
      work.partial = partial_.data();
      work.first_bad = &bad_.data()->id;
      work.first_row = first;
      launch_row_dots(function, policy, work);
      sum_runs(function, policy, pieces_of(work.cols, work.run_cols), work.rows, first, examples,
               scores.size());
    }
    sum_tokens(function, policy, examples, scores);
  }

  /// What was out of range since the last call. Waits for the stream.
  bad_tokens take_bad(const exec::cuda& policy) {
    bad_tokens found{no_token, no_token};
    cuda_check(
        cudaMemcpyAsync(&found, bad_.data(), sizeof found, cudaMemcpyDeviceToHost, policy.stream),
        "ghost_workspace");
    launch("ghost_workspace", policy, {dim3(1), dim3(32)}, reset_ghost_ranges<token_range>,
           ranges_.data(), index_t{0}, bad_.data());
    cuda_check(cudaStreamSynchronize(policy.stream), "ghost_workspace");
    return found;
  }

 private:
  static constexpr index_t least_rows = 256, most_rows = 1 << 14;

  static index_t partial_size(index_t tokens, index_t outputs) {
    const index_t rows = std::min(pieces_of(tokens, least_rows) * least_rows, most_rows);
    return std::max<index_t>(rows * pieces_of(outputs, mma_tile::cols), 1 << 16);
  }

  /// How many rows at a time, of so many runs each.
  index_t chunk(index_t rows, index_t runs) const {
    const index_t parts = std::min(partial_.size(), most_parts_);
    const index_t most = std::max<index_t>(parts / std::max<index_t>(runs, 1), 1);
    if (rows <= most) return rows;
    return most >= least_rows ? most / least_rows * least_rows : most;
  }

  template <Storage16 T>
  void form_product(const char* function, const exec::cuda& policy, const T* inputs,
                    index_t inputs_stride, const T* weight, index_t weight_stride, const T* errors,
                    index_t errors_stride, const affine_work<T>& work) {
    if (kernels_ == product_kernels::mma ||
        !wgmma_takes(inputs, inputs_stride, weight, weight_stride, errors, errors_stride, work))
      launch_affine_mma(function, policy, inputs, inputs_stride, weight, weight_stride, errors,
                        errors_stride, work);
    else if (work.rows <= wgmma_tile::rows)
      launch_affine_wgmma<1>(function, policy, multiprocessors_, inputs, inputs_stride, weight,
                             weight_stride, errors, errors_stride, work);
    else
      launch_affine_wgmma<largest_cluster>(function, policy, multiprocessors_, inputs,
                                           inputs_stride, weight, weight_stride, errors,
                                           errors_stride, work);
  }

  void sum_runs(const char* function, const exec::cuda& policy, index_t runs, index_t rows,
                index_t first, vector_view<const index_t, device_space> examples, index_t batch) {
    launch(function, policy, {dim3(static_cast<unsigned>(pieces_of(rows, 8))), dim3(256)},
           sum_runs_kernel<float>, partial_.data(), runs, rows, first, examples.data(),
           examples.size(), batch, tokens_.data(), ranges_.data(), bad_.data());
  }

  void sum_tokens(const char* function, const exec::cuda& policy,
                  vector_view<const index_t, device_space> examples,
                  vector_view<double, device_space> scores) {
    if (scores.size() == 0) return;
    launch(function, policy,
           {dim3(static_cast<unsigned>(scores.size())),
            dim3(sum_threads(examples.size(), scores.size()))},
           sum_tokens_kernel<double>, tokens_.data(), examples.data(), scores.data(),
           scores.stride(), ranges_.data());
  }

  index_t batch_;
  device_array<float> partial_;  // [runs, rows at a time]
  device_array<double> tokens_;
  device_array<token_range> ranges_;
  device_array<bad_tokens> bad_;
  index_t most_parts_ = partial_.size();
  int multiprocessors_ = 0;
  product_kernels kernels_ = product_kernels::mma;
};

}  // namespace dualsft::detail
