// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/device_scores.hpp>
#include <dualsft/detail/device_topk.hpp>
#include <dualsft/detail/mask_device.cuh>
#include <dualsft/detail/topk_device.cuh>
#include <dualsft/execution.cuh>
#include <dualsft/layout.hpp>
#include <dualsft/topk.hpp>
#include <span>
#include <vector>

/// topk.hpp on the device: the same selection, said as a test that each coordinate passes or fails, so
/// that nothing of the size of the mask needs to exist until it is asked for.
///
/// Source: as topk.hpp. The K-th score is bracketed by a sample before the pass that counts, where radix
/// selection takes a pass for each digit; digits remain for samples that mislead.
namespace dualsft {

/// Who is selected: score > kth, or score == kth at an index of at most test.last_tie.
struct device_topk_result {
  topk_result summary;  ///< topk_result's numbers; its `selected` is empty
  index_t selected = 0;
  detail::selection_test test;
};

/// Memory that a search needs, taken once: 0.4 bytes per score, and at most some 70 MB besides. For
/// d = 3.2e9 that is 1.3 GB, beside 45 GB of v (which becomes p), G, D in float and p in 16 bits. Searches may
/// run on any stream, one at a time; the stream of construction must outlive it.
class topk_workspace {
 public:
  /// \param scores  of the largest vector, over all its shards, that will be searched
  /// \throws cuda_error  if there is too little memory
  topk_workspace(const exec::cuda& policy, index_t scores) : device_(policy, scores) {}

  index_t memory_bytes() const { return device_.memory_bytes(); }

  /// For the algorithms of this library.
  detail::topk_device& device() { return device_; }

 private:
  detail::topk_device device_;
};

namespace detail {

/// \param shards  scores as topk compares them
template <class Scores>
device_topk_result search_on(const exec::cuda& policy, std::span<const Scores> shards, index_t k,
                             topk_workspace& workspace) {
  index_t n = 0;
  for (const Scores& shard : shards) n += shard.size();
  topk_device& device = workspace.device();
  expects(0 <= k && k <= n, "topk", "k must satisfy 0 <= k <= n", "k", k, "n", n);
  expects(n <= device.most_scores(), "topk", "the workspace is for fewer scores", "n", n,
          "workspace", device.most_scores());
  device.on(policy);
  device_topk_outcome found =
      device_topk_search<topk_device, Scores>(device, shards, k, {.sample = topk_device::most_read})
          .run();
  return {std::move(found.result), found.selected, found.test};
}

}  // namespace detail

/// The K largest of scores that a device evaluates, in one vector or in shards of one.
///
/// \param shards   functions of the coordinate: detail/device_scores.hpp has those of memory and of G
///                 and p. Coordinates count through the shards.
/// \return         see device_topk_result; the numbers are those of topk(exec::reference{}, ...)
/// \throws invalid_argument  if k is outside [0, n], or the workspace is for fewer scores
/// \throws cuda_error
///
/// Cost: as a rule one pass over all scores; equal scores beyond the workspace cost two, a sample that
/// misleads up to eight more. Waits for the stream.
/// Numerics, Determinism: as topk; the order in which threads collect scores does not reach the result.
template <class Scores>
device_topk_result topk(const exec::cuda& policy, std::span<const Scores> shards,
                        const topk_options& options, topk_workspace& workspace) {
  std::vector<detail::compared_scores<Scores>> compared;
  for (const Scores& shard : shards) compared.push_back({shard, options.by});
  return detail::search_on<detail::compared_scores<Scores>>(policy, compared, options.k, workspace);
}

template <class Scores>
device_topk_result topk(const exec::cuda& policy, std::span<const Scores> shards,
                        const topk_options& options) {
  index_t n = 0;
  for (const Scores& shard : shards) n += shard.size();
  topk_workspace workspace(policy, n);
  return topk(policy, shards, options, workspace);
}

/// The same over scores in the device's memory.
/// \throws invalid_argument  if the view is strided
template <class T>
requires std::same_as < std::remove_const_t<T>,
float > || std::same_as<std::remove_const_t<T>, double> device_topk_result
           topk(const exec::cuda& policy, vector_view<T, device_space> scores,
                const topk_options& options) {
  expects(scores.contiguous(), "topk", "device views must be contiguous", "stride",
          scores.stride());
  using source = detail::stored_scores_at<std::remove_const_t<T>>;
  const source at{scores.data(), scores.size()};
  return topk(policy, std::span<const source>(&at, 1), options);
}

/// The selection as bits: coordinate i at bit i % 32 of word i / 32, the order of
/// numpy.packbits(mask, bitorder="little").
///
/// \param first  the coordinate, counted through the shards, of this shard's scores[0]
/// \param words  [ceil(n / 32)], overwritten; bits beyond n are 0
/// \throws invalid_argument  if there are not as many words
/// Cost: one pass over the scores. Asynchronous.
template <class Scores>
void write_mask(const exec::cuda& policy, const Scores& scores, topk_by by,
                const device_topk_result& selection, index_t first,
                vector_view<std::uint32_t, device_space> words) {
  const index_t n = scores.size();
  expects(words.contiguous() && words.size() == (n + 31) / 32, "write_mask",
          "there must be one word per 32 coordinates", "words", words.size(), "n", n);
  // No score passes a test that nothing has set.
  detail::launch_write_mask(policy, detail::compared_scores<Scores>{scores, by},
                            selection.selected > 0 ? selection.test : detail::selection_test{},
                            first, words.data());
}

namespace detail {

/// Where each block begins, and where the last one ends.
inline std::vector<index_t> block_begins(const parameter_layout& layout) {
  std::vector<index_t> begins;
  for (const parameter_block& block : layout.blocks()) begins.push_back(block.offset);
  begins.push_back(layout.size());
  return begins;
}

}  // namespace detail

/// How many bits are set in each block of a layout.
/// \param words  [ceil(d / 32)]
/// \throws invalid_argument  if there are not as many words
/// Cost: d / 8 bytes. Waits for the stream.
inline std::vector<index_t> count_selected(const exec::cuda& policy,
                                           vector_view<const std::uint32_t, device_space> words,
                                           const parameter_layout& layout) {
  expects(words.contiguous() && words.size() == (layout.size() + 31) / 32, "count_selected",
          "there must be one word per 32 coordinates", "words", words.size(), "d", layout.size());
  return detail::count_bits(policy, words.data(), detail::block_begins(layout));
}

}  // namespace dualsft
