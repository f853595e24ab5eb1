// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/device_array.cuh>
#include <dualsft/execution.cuh>
#include <dualsft/llm/detail/tangent_device_nll.cuh>
#include <dualsft/llm/detail/tangent_device_tasks.cuh>
#include <dualsft/llm/detail/tangent_device_views.hpp>

/// The loss of predicted tokens and its derivative along a direction, from logits and their
/// tangents:
///
///     nll_t = log sum_v exp(z_tv) - z_t,label
///     R{nll_t} = <softmax(z_t), R{z_t}> - R{z_t,label}
///
/// Labels are std::int32_t or index_t. A negative one (-100, say) says that the row is ignored: it
/// is not read and gives 0. One beyond the vocabulary gives NaN. All is asynchronous.
/// Cost: limited by memory: logits and tangents are read once.
/// Numerics: exponentials relative to the largest logit so far; float within a thread's share of a
/// row, double beyond. Determinism: fixed trees of sums; equal chunks and alignment give equal
/// bits.
/// Source: as nll_rates in detail/tangent_kernels.hpp.
namespace dualsft::llm {

namespace detail {

template <class T, class Label>
nll_task<T, std::remove_const_t<Label>> nll_task_of(const char* function,
                                                    const vector_view<Label, device_space>& labels,
                                                    const tangent_rows<const T>& z) {
  expects_shape(function, "z", z, z.rows(), z.cols());
  expects_contiguous(function, "labels", labels, z.rows());
  expects_blocks(function, "rows", z.rows());
  expects(z.cols() <= index_t{1} << 30, function, "a row may have 2^30 columns", "cols", z.cols());
  nll_task<T, std::remove_const_t<Label>> task;
  task.z = rows_of(z);
  task.labels = labels.data();
  task.cols = static_cast<int>(z.cols());
  task.vocabulary = z.cols();
  return task;
}

}  // namespace detail

/// Of whole rows of logits.
///
/// \param labels     [T]
/// \param z          [T, vocabulary], vocabulary >= 1
/// \param nll, rate  [T], overwritten
/// \throws invalid_argument  if shapes do not fit or views are strided
/// \throws cuda_error        if a launch fails
template <class X, class Label>
requires TangentScalar<std::remove_const_t<X>>
void nll_tangent(const exec::cuda& policy, const vector_view<Label, device_space>& labels,
                 const tangent_rows<X>& z, const vector_view<double, device_space>& nll,
                 const vector_view<double, device_space>& rate) {
  constexpr const char* function = "nll_tangent";
  using T = std::remove_const_t<X>;
  auto task = detail::nll_task_of<T>(function, labels, z);
  expects(z.cols() > 0 || z.rows() == 0, function, "there must be logits", "cols", z.cols());
  detail::expects_contiguous(function, "nll", nll, z.rows());
  detail::expects_contiguous(function, "rate", rate, z.rows());
  task.nll = nll.data();
  task.rate = rate.data();
  detail::launch_nll(function, policy, z.rows(), task);
}

/// The same of logits that come a few columns at a time, so that the whole matrix never exists:
///
///     nll_tangents sums(policy, most_rows);
///     sums.begin(policy, labels, vocabulary);
///     for (each chunk of columns) { z = ...; sums.add(policy, z, first); }
///     sums.finish(policy, nll, rate);
///
/// Columns may come in any order, each once. Nothing is allocated after construction.
/// Memory: 32 bytes per row, taken and given back in the order of the constructor's stream, which
/// must outlive it.
template <class Label = index_t>
class nll_tangents {
 public:
  /// \throws cuda_error  if there is too little memory
  nll_tangents(const exec::cuda& policy, index_t most_rows) : sums_(policy, most_rows) {}

  /// \param labels  [T], T <= most_rows; must stay until finish() is done
  /// \throws invalid_argument  if there are more rows, or the view is strided
  void begin(const exec::cuda& policy, const vector_view<const Label, device_space>& labels,
             index_t vocabulary) {
    constexpr const char* function = "nll_tangents::begin";
    expects(labels.size() <= sums_.size(), function, "there are too many rows", "rows",
            labels.size(), "most_rows", sums_.size());
    detail::expects_contiguous(function, "labels", labels, labels.size());
    labels_ = labels;
    vocabulary_ = vocabulary;
    if (labels.size() == 0) return;
    dualsft::detail::launch(function, policy, {blocks(), 256U}, detail::reset_rows<detail::nll_row>,
                            sums_.data(), labels.size());
  }

  /// \param z      [T, columns], columns >= 0
  /// \param first  the first column's place in the vocabulary
  /// \throws invalid_argument  if shapes do not fit, or columns lie outside the vocabulary
  template <class X>
  requires TangentScalar<std::remove_const_t<X>>
  void add(const exec::cuda& policy, const tangent_rows<X>& z, index_t first) {
    constexpr const char* function = "nll_tangents::add";
    auto task = detail::nll_task_of<std::remove_const_t<X>>(function, labels_, z);
    expects(0 <= first && first <= vocabulary_ - z.cols(), function,
            "columns must lie in [0, vocabulary)", "first", first, "cols", z.cols(), "vocabulary",
            vocabulary_);
    if (z.cols() == 0) return;
    task.first = first;
    task.vocabulary = vocabulary_;
    task.sums = sums_.data();
    detail::launch_nll(function, policy, z.rows(), task);
  }

  /// \param nll, rate  [T], overwritten
  void finish(const exec::cuda& policy, const vector_view<double, device_space>& nll,
              const vector_view<double, device_space>& rate) const {
    constexpr const char* function = "nll_tangents::finish";
    detail::expects_contiguous(function, "nll", nll, labels_.size());
    detail::expects_contiguous(function, "rate", rate, labels_.size());
    if (labels_.size() == 0) return;
    dualsft::detail::launch(function, policy, {blocks(), 256U}, detail::finish_nll_rows<Label>,
                            sums_.data(), labels_.data(), labels_.size(), nll.data(), rate.data());
  }

 private:
  unsigned blocks() const { return static_cast<unsigned>((labels_.size() + 255) / 256); }

  dualsft::detail::device_array<detail::nll_row> sums_;
  vector_view<const Label, device_space> labels_;
  index_t vocabulary_ = 0;
};

/// The mean of each example's values over its rows that are not ignored; NaN where there are none.
///
/// \param values  [T]
/// \param labels  [T]
/// \param begins  [examples + 1]: example i has rows [begins[i], begins[i + 1])
/// \param means   [examples], overwritten
/// \throws invalid_argument  if shapes do not fit or views are strided
/// \throws cuda_error        if the launch fails
template <class Label>
void mean_by_example(const exec::cuda& policy,
                     const vector_view<const double, device_space>& values,
                     const vector_view<Label, device_space>& labels,
                     const vector_view<const index_t, device_space>& begins,
                     const vector_view<double, device_space>& means) {
  constexpr const char* function = "mean_by_example";
  detail::expects_contiguous(function, "values", values, values.size());
  detail::expects_contiguous(function, "labels", labels, values.size());
  detail::expects_contiguous(function, "begins", begins, means.size() + 1);
  detail::expects_contiguous(function, "means", means, means.size());
  if (means.size() == 0) return;
  detail::expects_blocks(function, "examples", means.size());
  dualsft::detail::launch(function, policy, {static_cast<unsigned>((means.size() + 7) / 8), 256U},
                          detail::mean_over_examples<std::remove_const_t<Label>>, values.data(),
                          labels.data(), begins.data(), means.size(), means.data());
}

}  // namespace dualsft::llm
