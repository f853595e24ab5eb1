// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cub/block/block_reduce.cuh>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/detail/device_scores.hpp>
#include <dualsft/detail/device_topk.hpp>
#include <dualsft/detail/launch.cuh>
#include <dualsft/execution.cuh>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

/// The primitives of device_topk.hpp as kernels, and what becomes of a selection.
namespace dualsft::detail {

inline constexpr int topk_threads = 256;
inline constexpr int topk_row = 4;  // neighbouring places of a thread: one address serves them all
inline constexpr index_t topk_share = index_t{topk_threads} * topk_row;

/// each(i, what was loaded, whether i < n) for i in [0, n) and, so that warps stay together, some beyond.
/// Shares of coordinates are dealt out to the blocks in turn. Loads come before what is done with them, so
/// that all are under way at once; narrow ones take two shares at a time: 32 bytes per thread, 32 KiB per
/// multiprocessor, are what keeps the memory busy.
template <class Scores, class Each>
__device__ void for_each_score(const Scores& scores, index_t n, const Each& each) {
  using inputs = score_inputs<Scores>;
  constexpr int shares = sizeof(inputs) <= 8 ? 2 : 1, at_once = shares * topk_row;
  const index_t stride = index_t{gridDim.x} * topk_share;
  for (index_t begin = blockIdx.x * topk_share; begin < n; begin += shares * stride) {
    int left[shares];  // of a share, from this thread's first place on
#pragma unroll
    for (int s = 0; s < shares; ++s) {
      const index_t all = n - begin - s * stride;
      left[s] = static_cast<int>(all < topk_share ? all > 0 ? all : 0 : topk_share) -
                static_cast<int>(threadIdx.x);
    }
    const auto place = [&](int u) {
      return begin + threadIdx.x + u / topk_row * stride + u % topk_row * topk_threads;
    };
    const auto is_there = [&](int u) { return u % topk_row * topk_threads < left[u / topk_row]; };
    inputs loaded[at_once];
#pragma unroll
    for (int u = 0; u < at_once; ++u)
      if (is_there(u)) loaded[u] = load_score(scores, place(u));
#pragma unroll
    for (int u = 0; u < at_once; ++u) each(place(u), loaded[u], is_there(u));
  }
}

/// Fixed by the size: what a block sees depends on no device. At most 2048, in which the four blocks that
/// a multiprocessor holds take 3.9 turns on 132 of them: the last turn is nearly full too.
inline unsigned blocks_for(index_t n) {
  return static_cast<unsigned>(std::clamp<index_t>((n + topk_share - 1) / topk_share, 1, 2048));
}

/// Where a sweep puts what lies in its bracket: a segment per block of threads.
struct near_segments {
  double* scores = nullptr;
  index_t* indices = nullptr;
  unsigned* filled = nullptr;  // [blocks]; more than the segment holds: the rest was lost
  unsigned segment = 0;        // 0: nothing is kept
};

/// Coordinates of scores that count from `begin`.
struct counted_indices {
  index_t begin;
  __device__ index_t operator()(index_t i) const { return begin + i; }
};
struct stored_indices {
  const index_t* indices;
  __device__ index_t operator()(index_t i) const { return indices[i]; }
};

inline constexpr std::size_t most_part_bytes = 128;

struct add_parts {
  template <class Facts>
  __device__ swept_part<Facts> operator()(swept_part<Facts> a, const swept_part<Facts>& b) const {
    a.add(b);
    return a;
  }
};
struct add_counts {
  __device__ index_t operator()(index_t a, index_t b) const { return a + b; }
};

template <class Scores, class Indices>
__global__ void __launch_bounds__(topk_threads, 4)
    sweep_scores(Scores scores, Indices index_of, index_t n, score_bracket range,
                 swept_part<facts_of<Scores>>* parts, near_segments to) {
  __shared__ unsigned filled;
  if (threadIdx.x == 0) filled = to.segment > 0 ? to.filled[blockIdx.x] : 0;
  __syncthreads();
  using part = swept_part<facts_of<Scores>>;
  part mine{};
  for_each_score(scores, n, [&](index_t i, const score_inputs<Scores>& loaded, bool there) {
    if (!there) return;
    double score;
    if constexpr (std::is_same_v<facts_of<Scores>, no_facts>)
      score = score_of(scores, i, loaded);
    else
      score = scores.form(i, loaded, mine.facts);
    if (!mine.tally.add(score, range) || to.segment == 0) return;
    const unsigned slot = atomicAdd(&filled, 1U);
    if (slot >= to.segment) return;
    const index_t at = index_t{blockIdx.x} * to.segment + slot;
    to.scores[at] = score;
    to.indices[at] = index_of(i);
  });
  using reduction = cub::BlockReduce<part, topk_threads>;
  __shared__ typename reduction::TempStorage storage;
  const part all = reduction(storage).Reduce(mine, add_parts{});
  __syncthreads();
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = all;
    if (to.segment > 0) to.filled[blockIdx.x] = filled;
  }
}

template <class Scores>
__global__ void read_scores(Scores scores, const index_t* places, index_t count, index_t run,
                            double* out) {
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t k = index_t{blockIdx.x} * blockDim.x + threadIdx.x; k < count * run; k += stride)
    out[k] = scores(places[k / run] + k % run);
}

/// A block of threads per chunk.
template <class Scores>
__global__ void count_equal_scores(Scores scores, index_t n, double x, index_t chunk,
                                   index_t* counts) {
  const index_t begin = blockIdx.x * chunk;
  const index_t end = begin + chunk < n ? begin + chunk : n;
  index_t mine = 0;
  for (index_t i = begin + threadIdx.x; i < end; i += blockDim.x) mine += scores(i) == x ? 1 : 0;
  using reduction = cub::BlockReduce<index_t, topk_threads>;
  __shared__ typename reduction::TempStorage storage;
  const index_t all = reduction(storage).Reduce(mine, add_counts{});
  if (threadIdx.x == 0) counts[blockIdx.x] = all;
}

inline constexpr int most_digit_bits = 12;

/// counts [2^bits] must be 0. Each block counts in shared memory: scores crowd in few digits.
template <class Scores>
__global__ void count_score_digits(Scores scores, index_t n, std::uint64_t prefix, int shift,
                                   int bits, unsigned long long* counts) {
  __shared__ unsigned mine[1 << most_digit_bits];
  const int buckets = 1 << bits;
  for (int b = static_cast<int>(threadIdx.x); b < buckets; b += topk_threads) mine[b] = 0;
  __syncthreads();
  for_each_score(scores, n, [&](index_t i, const score_inputs<Scores>& loaded, bool there) {
    const double score = there ? score_of(scores, i, loaded) : 0;
    if (!there || score != score) return;
    const std::uint64_t key = order_key(score) >> shift;
    if (bits + shift == 64 || key >> bits == prefix)
      atomicAdd(&mine[key & static_cast<std::uint64_t>(buckets - 1)], 1U);
  });
  __syncthreads();
  for (int b = static_cast<int>(threadIdx.x); b < buckets; b += topk_threads)
    if (mine[b] > 0) atomicAdd(&counts[b], static_cast<unsigned long long>(mine[b]));
}

/// What the segments hold, one behind the other: block b's from begins[b] on.
template <int Threads>
__global__ void gather_segments(near_segments from, const index_t* begins, placed_score* out) {
  const unsigned count = from.filled[blockIdx.x];
  for (unsigned i = threadIdx.x; i < count; i += Threads) {
    const index_t at = index_t{blockIdx.x} * from.segment + i;
    out[begins[blockIdx.x] + i] = {from.scores[at], from.indices[at]};
  }
}

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
    launch("topk", policy_, {static_cast<unsigned>(blocks_), topk_threads},
           sweep_scores<Scores, Indices>, scores, indices, scores.size(), range, parts, to);
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

// ---- what becomes of a selection ------------------------------------------------------------------

/// A warp per word of 32 coordinates.
template <class Scores>
__global__ void __launch_bounds__(topk_threads, 4)
    write_mask_words(Scores scores, index_t n, selection_test test, index_t first,
                     std::uint32_t* words) {
  for_each_score(scores, n, [&](index_t i, const score_inputs<Scores>& loaded, bool there) {
    const bool chosen = there && test(score_of(scores, i, loaded), first + i);
    const std::uint32_t bits = __ballot_sync(0xffffffffU, chosen);
    if (there && i % 32 == 0) words[i / 32] = bits;
  });
}

template <class Scores>
void launch_write_mask(const exec::cuda& policy, const Scores& scores, const selection_test& test,
                       index_t first, std::uint32_t* words) {
  if (scores.size() == 0) return;
  launch("write_mask", policy, {blocks_for(scores.size()), topk_threads}, write_mask_words<Scores>,
         scores, scores.size(), test, first, words);
}

/// counts[r] += set bits in [begins[r], begins[r + 1]); blockIdx.y is r.
template <int Threads>
__global__ void count_set_bits(const std::uint32_t* words, const index_t* begins,
                               unsigned long long* counts) {
  const index_t begin = begins[blockIdx.y], end = begins[blockIdx.y + 1];
  if (begin == end) return;
  index_t mine = 0;
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t w = begin / 32 + index_t{blockIdx.x} * blockDim.x + threadIdx.x; w <= (end - 1) / 32;
       w += stride) {
    std::uint32_t word = words[w];
    if (w == begin / 32) word &= 0xffffffffU << (begin % 32);
    if (w == (end - 1) / 32) word &= 0xffffffffU >> (31 - (end - 1) % 32);
    mine += __popc(word);
  }
  using reduction = cub::BlockReduce<index_t, Threads>;
  __shared__ typename reduction::TempStorage storage;
  const index_t all = reduction(storage).Reduce(mine, add_counts{});
  if (threadIdx.x == 0 && all > 0)
    atomicAdd(&counts[blockIdx.y], static_cast<unsigned long long>(all));
}

/// Of the ranges between neighbouring begins.
inline std::vector<index_t> count_bits(const exec::cuda& policy, const std::uint32_t* words,
                                       const std::vector<index_t>& begins) {
  constexpr unsigned columns = 64;
  constexpr std::size_t most_rows = 65535;  // of a grid
  device_array<index_t> counts(policy, static_cast<index_t>(begins.size()) - 1);
  const device_array<index_t> places(policy, std::span<const index_t>(begins));
  counts.fill_bytes(0);
  for (std::size_t first = 0; first + 1 < begins.size(); first += most_rows) {
    const auto rows = static_cast<unsigned>(std::min(most_rows, begins.size() - 1 - first));
    launch("count_selected", policy, {dim3(columns, rows), topk_threads},
           count_set_bits<topk_threads>, words, places.data() + first,
           reinterpret_cast<unsigned long long*>(counts.data() + first));
  }
  return counts.to_host();
}

}  // namespace dualsft::detail
