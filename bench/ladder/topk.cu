// Top-K 5 % of stored scores (f32), from naive to the library: the K-th largest of n.
//
//   1 bytes_in_memory  radix select, four passes of 8-bit digits, every count an atomic addition in
//                      memory: scores crowd in few digits, so threads queue for the same word
//   2 bytes_in_shared  each block counts in its shared memory and adds once   (expected: 10 times and more)
//   3 eleven_bits      digits of 11 bits: three passes instead of four        (expected: a quarter less)
//   4 gathered         the second pass copies what has the first digit, so that the third reads that alone
//                      (expected: nearly a third less where the boundary's digit holds few)
//   5 library          topk: a sample of 131,072 tells between which two scores the boundary lies, one pass
//                      counts and gathers those between (expected: half of step 4); it also finds the
//                      next score, and the last index among equals
//
// No gain has been measured yet. Each step's result is compared with the definition, by counting, before
// it is timed.
#include <dualsft/topk.cuh>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "../support/device_bench.cuh"
#include "../support/selection_check.cuh"
#include "radix_select.cuh"

namespace {

using namespace dualsft;
using namespace dualsft::ladder;

struct keys_of {
  const float* scores;
  __device__ unsigned long long operator()(index_t i) const { return ordered_float(scores[i]); }
};

using count_kernel = radix_search::kernel<keys_of>;

float by_passes(const exec::cuda& policy, count_kernel count, int digit_bits, const float* scores,
                index_t n, index_t k) {
  radix_search search(policy, 32, digit_bits, k);
  while (!search.done()) search.pass(count, keys_of{scores}, n);
  return float_of(search.prefix());
}

/// A list in pieces, one per block of threads: blocks need not agree on where they write.
struct pieces {
  float* scores;
  unsigned* filled;  // [blocks]; more than `room`: the rest was lost
  unsigned room;     // of each piece
};

/// Counts one digit and copies every score that has the higher ones.
__global__ void count_and_gather(const float* scores, index_t n, digit at,
                                 unsigned long long* counts, pieces out) {
  __shared__ unsigned mine[1 << most_digit_bits];
  __shared__ unsigned filled;
  if (threadIdx.x == 0) filled = 0;
  clear_counts(mine, at);
  float* const here = out.scores + index_t{blockIdx.x} * out.room;
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const float score = scores[i];
    const unsigned long long key = ordered_float(score);
    if (!at.holds(key)) continue;
    atomicAdd(&mine[at.of(key)], 1U);
    const unsigned slot = atomicAdd(&filled, 1U);
    if (slot < out.room) here[slot] = score;
  }
  add_counts(mine, at, counts);
  if (threadIdx.x == 0) out.filled[blockIdx.x] = filled;
}

__global__ void count_gathered(pieces from, digit at, unsigned long long* counts) {
  __shared__ unsigned mine[1 << most_digit_bits];
  clear_counts(mine, at);
  const float* const here = from.scores + index_t{blockIdx.x} * from.room;
  for (unsigned i = threadIdx.x; i < from.filled[blockIdx.x]; i += blockDim.x) {
    const unsigned long long key = ordered_float(here[i]);
    if (at.holds(key)) atomicAdd(&mine[at.of(key)], 1U);
  }
  add_counts(mine, at, counts);
}

class gathered {
 public:
  gathered(const exec::cuda& policy, index_t n)
      : blocks_(bench::blocks_for(n)),
        room_(static_cast<unsigned>(n / 8 / blocks_ + threads)),
        list_(policy, index_t{blocks_} * room_),
        filled_(policy, blocks_) {}

  float operator()(const exec::cuda& policy, const float* scores, index_t n, index_t k) {
    radix_search search(policy, 32, 11, k);
    search.pass(count_in_shared<keys_of>, keys_of{scores}, n);
    const pieces list{list_.data(), filled_.data(), room_};
    digit at = search.next();
    detail::launch("ladder", policy, {blocks_, threads}, count_and_gather, scores, n, at,
                   search.counts(), list);
    search.choose(at);
    for (const unsigned filled : filled_.to_host())
      if (filled > room_) {  // too many for the list
        search.pass(count_in_shared<keys_of>, keys_of{scores}, n);
        return float_of(search.prefix());
      }
    at = search.next();
    detail::launch("ladder", policy, {blocks_, threads}, count_gathered, list, at, search.counts());
    search.choose(at);
    return float_of(search.prefix());
  }

 private:
  unsigned blocks_, room_;
  detail::device_array<float> list_;
  detail::device_array<unsigned> filled_;
};

using finder = std::function<double(const float* scores, index_t n, index_t k)>;

/// \param prepare  gives the finder, with the memory that it needs
template <class Prepare>
void add(const char* name, const Prepare& prepare) {
  bench::add(
      std::string("ladder/topk/") + name,
      [prepare](benchmark::State& state) {
        const exec::cuda policy = bench::policy();
        const index_t n = bench::pick(index_t{1} << 28, index_t{5003}), k = n / 20;
        const auto size = static_cast<double>(n);
        if (!bench::fits(state, 6 * size)) return;
        const detail::device_array<float> scores(policy, n);
        bench::fill(policy, scores.view(), {bench::spread::normal, 3});
        const finder find = prepare(policy, n);
        const double kth = find(scores.data(), n, k);
        const auto counts =
            bench::around(policy, detail::stored_scores_at<float>{scores.data(), n}, kth);
        if (!bench::check(state,
                          static_cast<index_t>(counts[0]) < k &&
                              static_cast<index_t>(counts[0] + counts[1]) >= k,
                          "not the K-th largest"))
          return;
        bench::device_timer timer(state);
        timer.moves(4 * size);
        timer.run([&](index_t) { find(scores.data(), n, k); });
      },
      5);
}

}  // namespace

int main(int argc, char** argv) {
  const auto passes = [](count_kernel count, int digit_bits) {
    return [=](const exec::cuda& policy, index_t) -> finder {
      return [=](const float* scores, index_t n, index_t k) {
        return double{by_passes(policy, count, digit_bits, scores, n, k)};
      };
    };
  };
  add("1_bytes_in_memory", passes(count_in_memory<keys_of>, 8));
  add("2_bytes_in_shared", passes(count_in_shared<keys_of>, 8));
  add("3_eleven_bits", passes(count_in_shared<keys_of>, 11));
  add("4_gathered", [](const exec::cuda& policy, index_t n) -> finder {
    const auto search = std::make_shared<gathered>(policy, n);
    return [=](const float* scores, index_t count, index_t k) {
      return double{(*search)(policy, scores, count, k)};
    };
  });
  add("5_library", [](const exec::cuda& policy, index_t n) -> finder {
    const auto workspace = std::make_shared<topk_workspace>(policy, n);
    return [=](const float* scores, index_t count, index_t k) {
      const detail::stored_scores_at<float> source{scores, count};
      return topk(policy, std::span<const detail::stored_scores_at<float>>(&source, 1), {k},
                  *workspace)
          .summary.kth.value();
    };
  });
  return bench::run(argc, argv);
}
