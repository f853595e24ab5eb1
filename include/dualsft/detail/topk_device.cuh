// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/detail/device_scores.hpp>
#include <dualsft/detail/device_topk.hpp>
#include <dualsft/detail/launch.cuh>
#include <dualsft/detail/mask_device.cuh>
#include <dualsft/detail/topk_kernels.cuh>
#include <dualsft/execution.cuh>
#include <span>
#include <utility>
#include <vector>

/// The device that device_topk_search drives: its memory, and the launches of its primitives.
namespace dualsft::detail {

/// The device that device_topk_search drives, and its memory.
class topk_device {
 public:
  static constexpr index_t most_read = index_t{1} << 17;   // scores of a sample
  static constexpr index_t most_taken = index_t{1} << 16;  // of a list, to the host
  static constexpr index_t equal_chunk = index_t{1} << 16;

  /// Two lists take turns: the larger has room for a 64th of all scores, a quarter more to spare.
  struct list {
    int which = -1;
    index_t size = 0;  // without what was lost
    std::vector<unsigned> filled;
  };

  topk_device(const exec::cuda& policy, index_t scores)
      : policy_(policy),
        most_scores_(scores),
        room_(std::min(scores, std::max(most_read, scores / 64))),
        blocks_(blocks_for(scores)),
        places_(policy, most_read / sample_run),
        begins_(policy, blocks_),
        counts_(policy, std::max<index_t>(index_t{1} << most_digit_bits,
                                          (scores + equal_chunk - 1) / equal_chunk)),
        read_(policy, most_read),
        taken_(policy, most_taken),
        parts_(policy, blocks_ * static_cast<index_t>(most_part_bytes)) {
    for (const int which : {0, 1}) {
      const index_t room = which == 0 ? room_ : std::max(most_taken, room_ / 4);
      // A block sees runs of neighbours: few scores fill few segments.
      const index_t segment = (room + room / 4) / blocks_ + topk_share;
      segments_[which] = static_cast<unsigned>(segment);
      scores_[which] = {policy, segment * blocks_};
      indices_[which] = {policy, segment * blocks_};
      filled_[which] = {policy, blocks_};
    }
  }

  /// What follows runs on this stream, after what is under way on the one before: there the memory was
  /// taken.
  void on(const exec::cuda& policy) {
    if (policy.stream != policy_.stream) cuda_check(cudaStreamSynchronize(policy_.stream), "topk");
    policy_ = policy;
  }

  index_t most_scores() const { return most_scores_; }
  index_t room() const { return room_; }
  index_t size(const list& of) const { return of.size; }
  index_t slots(const list& of) const {
    return blocks_ * segments_[static_cast<std::size_t>(of.which)];
  }
  index_t memory_bytes() const {
    std::size_t bytes = places_.bytes() + begins_.bytes() + counts_.bytes() + read_.bytes() +
                        taken_.bytes() + parts_.bytes();
    for (const std::size_t which : {std::size_t{0}, std::size_t{1}})
      bytes += scores_[which].bytes() + indices_[which].bytes() + filled_[which].bytes();
    return static_cast<index_t>(bytes);
  }

  template <class Scores>
  std::vector<double> read(const Scores& scores, const std::vector<index_t>& places, index_t run) {
    const auto count = static_cast<index_t>(places.size());
    to_device(places_, std::span<const index_t>(places));
    with_settled(scores, [&](const auto& source) {
      launch("topk", policy_, {blocks_for(count * run), topk_threads},
             read_scores<std::remove_cvref_t<decltype(source)>>, source, places_.data(), count, run,
             read_.data());
    });
    return to_host(read_, count * run);
  }
  std::vector<double> read(const list& from, const std::vector<index_t>& places, index_t run) {
    return read(scores_in(from), places, run);
  }

  template <class Scores>
  score_tally sweep(const Scores& scores, index_t begin, const score_bracket& range) {
    return swept(scores, counted_indices{begin}, range, {});
  }
  template <class Scores>
  score_tally sweep(const Scores& scores, index_t begin, const score_bracket& range, list& to) {
    if (to.which < 0) start(to, 0);
    const score_tally all = swept(scores, counted_indices{begin}, range, segments(to));
    note(to);
    return all;
  }
  score_tally sweep(const list& from, const score_bracket& range, list& to) {
    if (to.which < 0) start(to, 1 - from.which);
    const score_tally all =
        swept(scores_in(from), stored_indices{indices_[at(from)].data()}, range, segments(to));
    note(to);
    return all;
  }

  template <class Scores>
  std::vector<index_t> count_equal(const Scores& scores, double x, index_t chunk) {
    const index_t chunks = (scores.size() + chunk - 1) / chunk;
    if (chunks == 0) return {};
    with_settled(scores, [&](const auto& source) {
      launch("topk", policy_, {static_cast<unsigned>(chunks), topk_threads},
             count_equal_scores<std::remove_cvref_t<decltype(source)>>, source, source.size(), x,
             chunk, counts_.data());
    });
    return to_host(counts_, chunks);
  }

  template <class Scores>
  std::vector<index_t> count_digits(const Scores& scores, std::uint64_t prefix, int shift,
                                    int bits) {
    static_assert(sizeof(unsigned long long) == sizeof(index_t));
    const index_t buckets = index_t{1} << bits;
    cuda_check(cudaMemsetAsync(counts_.data(), 0,
                               static_cast<std::size_t>(buckets) * sizeof(index_t), policy_.stream),
               "topk");
    with_settled(scores, [&](const auto& source) {
      launch("topk", policy_, {blocks_for(source.size()), topk_threads},
             count_score_digits<std::remove_cvref_t<decltype(source)>>, source, source.size(),
             prefix, shift, bits, reinterpret_cast<unsigned long long*>(counts_.data()));
    });
    return to_host(counts_, buckets);
  }

  /// The set bits of a mask between neighbouring begins: as count_bits, in the memory that is here, a few
  /// thousand ranges at a time.
  std::vector<index_t> count_ranges(const std::uint32_t* words,
                                    const std::vector<index_t>& begins) {
    std::vector<index_t> out;
    const auto room = static_cast<std::size_t>(std::min(places_.size() - 1, counts_.size()));
    for (std::size_t first = 0; first + 1 < begins.size();) {
      const std::size_t ranges = std::min({room, most_counted_ranges, begins.size() - 1 - first});
      to_device(places_, std::span<const index_t>(begins).subspan(first, ranges + 1));
      launch_count_bits(policy_, words, places_.data(), ranges, counts_.data());
      const std::vector<index_t> part = to_host(counts_, static_cast<index_t>(ranges));
      out.insert(out.end(), part.begin(), part.end());
      first += ranges;
    }
    return out;
  }

  /// \pre  size(from) <= most_taken
  std::vector<placed_score> take(const list& from) {
    std::vector<index_t> begins(static_cast<std::size_t>(blocks_), 0);
    for (std::size_t b = 1; b < begins.size(); ++b)
      begins[b] = begins[b - 1] + index_t{from.filled[b - 1]};
    to_device(begins_, std::span<const index_t>(begins));
    launch("topk", policy_, {static_cast<unsigned>(blocks_), topk_threads},
           gather_segments<topk_threads>, segments(from), begins_.data(), taken_.data());
    return to_host(taken_, from.size);
  }

 private:
  static std::size_t at(const list& of) { return static_cast<std::size_t>(of.which); }
  stored_scores_at<double> scores_in(const list& from) const {
    return {scores_[at(from)].data(), slots(from)};
  }
  near_segments segments(const list& of) const {
    return {scores_[at(of)].data(), indices_[at(of)].data(), filled_[at(of)].data(),
            segments_[at(of)]};
  }

  void start(list& fresh, int which) {
    fresh.which = which;
    const auto w = static_cast<std::size_t>(which);
    cuda_check(cudaMemsetAsync(scores_[w].data(), 0xff, scores_[w].bytes(), policy_.stream),
               "topk");  // NaN: empty slots
    cuda_check(cudaMemsetAsync(filled_[w].data(), 0, filled_[w].bytes(), policy_.stream), "topk");
  }

  void note(list& of) {
    of.filled = to_host(filled_[at(of)], blocks_);
    of.size = 0;
    for (const unsigned filled : of.filled) of.size += std::min(filled, segments_[at(of)]);
  }

  template <class Scores, class Indices>
  score_tally swept(const Scores& scores, const Indices& indices, const score_bracket& range,
                    const near_segments& to) {
    return with_settled(scores,
                        [&](const auto& source) { return pass(source, indices, range, to); });
  }

  template <class Scores, class Indices>
  score_tally pass(const Scores& scores, const Indices& indices, const score_bracket& range,
                   const near_segments& to) {
    using part = swept_part<facts_of<Scores>>;
    static_assert(sizeof(part) <= most_part_bytes);
    auto* const parts = reinterpret_cast<part*>(parts_.data());
    const auto run = [&]<class Source>(const Source& source) {
      launch("topk", policy_, {static_cast<unsigned>(blocks_), topk_threads},
             sweep_scores<Source, Indices>, source, indices, source.size(), range, parts, to);
    };
    if constexpr (requires { scores.with_fixed(run); })
      scores.with_fixed(run);
    else
      run(scores);
    std::vector<part> found(static_cast<std::size_t>(blocks_));
    cuda_check(cudaMemcpyAsync(found.data(), parts, sizeof(part) * found.size(),
                               cudaMemcpyDeviceToHost, policy_.stream),
               "topk");
    cuda_check(cudaStreamSynchronize(policy_.stream), "topk");
    part all{};
    for (const part& each : found) all.add(each);
    settle(scores, all.facts);
    return all.tally;
  }

  template <class T>
  void to_device(const device_array<T>& to, std::span<const T> from) {
    if (from.empty()) return;
    cuda_check(cudaMemcpyAsync(to.data(), from.data(), from.size_bytes(), cudaMemcpyHostToDevice,
                               policy_.stream),
               "topk");
  }
  /// Waits for the stream.
  template <class T>
  std::vector<T> to_host(const device_array<T>& from, index_t count) {
    std::vector<T> out(static_cast<std::size_t>(count));
    if (count > 0)
      cuda_check(cudaMemcpyAsync(out.data(), from.data(), out.size() * sizeof(T),
                                 cudaMemcpyDeviceToHost, policy_.stream),
                 "topk");
    cuda_check(cudaStreamSynchronize(policy_.stream), "topk");
    return out;
  }

  exec::cuda policy_;
  index_t most_scores_;
  index_t room_;
  index_t blocks_;  // of a sweep, and so segments of a list
  device_array<index_t> places_, begins_, counts_;
  device_array<double> read_;
  device_array<placed_score> taken_;
  device_array<std::byte> parts_;
  device_array<double> scores_[2];
  device_array<index_t> indices_[2];
  device_array<unsigned> filled_[2];
  unsigned segments_[2] = {};
};

}  // namespace dualsft::detail
