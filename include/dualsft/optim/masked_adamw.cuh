// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/device_array.cuh>
#include <dualsft/detail/launch.cuh>
#include <dualsft/detail/masked_step.hpp>
#include <dualsft/execution.cuh>
#include <dualsft/optim/masked_adamw.hpp>
#include <limits>
#include <type_traits>
#include <utility>

/// AdamW on selected coordinates of weights that live on a device.
namespace dualsft {

/// Whether 16-bit weights are rounded from 32-bit ones that the optimizer keeps of the selected.
enum class master_weights { none, keep };

namespace detail {

inline constexpr int masked_threads = 256;
inline constexpr int masked_at_once = 4;  // members of a thread whose loads are under way together

/// step.load and step.store of the members of ranks [first, last); a block of threads per page.
template <class Step>
__global__ void __launch_bounds__(masked_threads, 4)
    step_members(const std::uint16_t* offsets, const index_t* page_begins, index_t first_page,
                 index_t first, index_t last, Step step) {
  const index_t page = first_page + blockIdx.x;
  const index_t begin = page_begins[page] > first ? page_begins[page] : first;
  const index_t end = page_begins[page + 1] < last ? page_begins[page + 1] : last;
  for (index_t rank = begin + threadIdx.x; rank < end; rank += masked_at_once * masked_threads) {
    index_t coordinate[masked_at_once];
    typename Step::inputs loaded[masked_at_once];
#pragma unroll
    for (int u = 0; u < masked_at_once; ++u)
      if (const index_t r = rank + u * masked_threads; r < end)
        coordinate[u] = (page << paged_index_set::page_bits) + offsets[r];
#pragma unroll
    for (int u = 0; u < masked_at_once; ++u)
      if (const index_t r = rank + u * masked_threads; r < end)
        loaded[u] = step.load(r, coordinate[u]);
#pragma unroll
    for (int u = 0; u < masked_at_once; ++u)
      if (const index_t r = rank + u * masked_threads; r < end)
        step.store(r, coordinate[u], loaded[u]);
  }
}

}  // namespace detail

/// AdamW over K selected coordinates of d, with state for these alone; driven like masked_adamw:
///
///     device_masked_adamw<bfloat16> optimizer(exec::cuda{stream}, mask);   // an index_set over [0, d)
///     optimizer.begin_step(schedule.rate(k));
///     optimizer.update(exec::cuda{stream}, offset, theta, gradient);       // each block, in any order
///
/// The gradient is read at the selected places of a dense block, in any of four types. Weights are
/// float, bfloat16 or float16; 16-bit ones are widened, moved and rounded to nearest, from 32-bit
/// masters if these are kept.
///
/// Memory on the device: 10 bytes per selected coordinate (14 with masters) and 8 per 65,536
/// coordinates; the host keeps 2 per selected coordinate. The stream given at construction must
/// outlive the optimizer; on it the memory is given back and to_host copies, so updates on other streams
/// must be over by then.
/// Cost of a step: limited by memory: 18 bytes per selected coordinate (26 with masters) and every
/// 32-byte sector of theta (twice) and of the gradient that holds one. Asynchronous.
/// Numerics: all in float; for float weights and gradients the bits of masked_adamw<float>.
/// Determinism: each coordinate by itself; nothing depends on the order of threads.
/// Source: as masked_adamw.
template <class Weight = float>
class device_masked_adamw : private detail::optimizer_core<adamw_rule<float>> {
  static_assert(std::same_as<Weight, float> || Storage16<Weight>,
                "dualsft::device_masked_adamw: weights are float, bfloat16 or float16");
  using core = detail::optimizer_core<adamw_rule<float>>;

 public:
  using core::begin_step;
  using core::options;
  using core::size;
  using core::steps;

  /// \throws invalid_argument  if an option is out of range, or float weights are to have masters
  /// \throws cuda_error        if there is too little memory
  explicit device_masked_adamw(const exec::cuda& policy, const index_set& selected,
                               const adamw_options& options = {},
                               master_weights masters = master_weights::none)
      : device_masked_adamw(policy, paged_index_set(selected), options, masters) {}
  explicit device_masked_adamw(const exec::cuda& policy, paged_index_set selected,
                               const adamw_options& options = {},
                               master_weights masters = master_weights::none)
      : device_masked_adamw(policy, masked_adamw<float>(std::move(selected), options), masters) {}

  /// Continues where an optimizer on the host stands.
  explicit device_masked_adamw(const exec::cuda& policy, const masked_adamw<float>& host,
                               master_weights masters = master_weights::none)
      : core(host.size(), 0, host.options()),
        selected_(host.selected()),
        offsets_(policy, selected_.offsets()),
        page_begins_(policy, selected_.page_begins()),
        m_(policy, host.first_moment()),
        s_(policy, host.second_moment()) {
    expects(masters == master_weights::none || Storage16<Weight>, "device_masked_adamw",
            "only 16-bit weights have masters");
    core::adopt(host.steps(), {{}, {}});
    if (masters == master_weights::keep) {
      masters_ = {policy, selected_.size()};
      masters_.fill_bytes(0xff);  // NaN: taken from the weights at their first step
    }
    // What was copied may lie in memory that the caller frees.
    detail::cuda_check(cudaStreamSynchronize(policy.stream), "device_masked_adamw");
  }

  const paged_index_set& selected() const noexcept { return selected_; }

  /// Updates the selected ones among coordinates [offset, offset + n).
  /// \param theta     [n], contiguous; its selected elements are overwritten
  /// \param gradient  [n], contiguous, not overlapping theta
  /// \throws invalid_argument  as masked_optimizer::update, or if a view is strided
  /// \throws cuda_error        if the launch fails
  template <class Gradient>
  requires GradientScalar<std::remove_const_t<Gradient>>
  void update(const exec::cuda& policy, index_t offset, vector_view<Weight, device_space> theta,
              vector_view<Gradient, device_space> gradient) {
    expects(theta.contiguous() && gradient.contiguous(), "device_masked_adamw",
            "device views must be contiguous", "theta stride", theta.stride(), "gradient stride",
            gradient.stride());
    const auto n = static_cast<std::size_t>(theta.size());
    core::cover(offset, n, static_cast<std::size_t>(gradient.size()), n);
    const index_t first = selected_.rank(offset);
    const index_t last = selected_.rank(offset + theta.size());
    if (first == last) return;
    const index_t first_page = offset >> paged_index_set::page_bits;
    const index_t last_page = (offset + theta.size() - 1) >> paged_index_set::page_bits;
    const index_t pages = last_page - first_page + 1;
    expects(pages <= std::numeric_limits<int>::max(), "device_masked_adamw",
            "a block may have 2^47 coordinates", "coordinates", theta.size());
    using step = detail::masked_step<Weight, std::remove_const_t<Gradient>>;
    detail::launch(
        "device_masked_adamw", policy, {static_cast<unsigned>(pages), detail::masked_threads},
        detail::step_members<step>, offsets_.data(), page_begins_.data(), first_page, first, last,
        step{core::coefficients(), theta.data(), gradient.data(), m_.data(), s_.data(),
             masters_.data(), offset});
  }

  /// The same optimizer on the host, to be saved or looked at. Waits for the stream of construction.
  masked_adamw<float> to_host() const {
    return {selected_, options(), steps(), m_.to_host(), s_.to_host()};
  }

  /// Bytes on the device.
  index_t memory_bytes() const {
    return static_cast<index_t>(offsets_.bytes() + page_begins_.bytes() + m_.bytes() + s_.bytes() +
                                masters_.bytes());
  }

 private:
  paged_index_set selected_;
  detail::device_array<std::uint16_t> offsets_;
  detail::device_array<index_t> page_begins_;
  detail::device_array<float> m_, s_, masters_;
};

}  // namespace dualsft
