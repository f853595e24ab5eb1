// Measures: the exact Top-K 5 % of stored scores (f32) on a device: the test that says who is selected.
// Against: a copy within the device at the same moments; bytes: every score read once (what is compared
// is at least that). Beside it, interleaved, at 2^28, 2^31 and Llama-3.2-3B's size where memory allows:
// cub::DeviceRadixSort and thrust::sort of the keys, which name no member (thrust allocates each time),
// and cub::DeviceTopK where a newer CUB has it, which decides ties differently each time and tells no
// boundary.
#include <algorithm>
#include <dualsft/topk.cuh>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "support/device_bench.cuh"
#include "support/device_inputs.cuh"
#include "support/selection_check.cuh"
#ifdef __CUDACC__
#include <thrust/device_ptr.h>
#include <thrust/execution_policy.h>
#include <thrust/sort.h>

#include <cub/device/device_radix_sort.cuh>
#if __has_include(<cub/device/device_topk.cuh>)
#include <cub/device/device_topk.cuh>
#include <cuda/stream_ref>
#define CUB_TOPK_IS_THERE
#endif
#endif

namespace {

using namespace dualsft;

using source = detail::stored_scores_at<float>;

struct setting {
  index_t n;
  bench::spread how = bench::spread::normal;
  topk_by by = topk_by::value;
  int shards = 1;
  bool beside_sorts = false;
};

/// `shards` runs of neighbours, of unequal lengths.
std::vector<source> cut(const float* scores, index_t n, int shards) {
  std::vector<source> out;
  index_t begin = 0;
  for (int s = 1; s <= shards; ++s) {
    const index_t end = s == shards ? n : n / shards * s + s;
    out.push_back({scores + begin, end - begin});
    begin = end;
  }
  return out;
}

#ifdef __CUDACC__
/// What sorts or selects keys out of place, interleaved with the search.
class beside {
 public:
  beside(const exec::cuda& policy, const float* scores, index_t n, index_t k)
      : policy_(policy), scores_(scores), n_(n), k_(k), out_(policy, n) {
    std::size_t bytes = 0;
    cub_sort(nullptr, bytes);
    std::size_t most = bytes;
#ifdef CUB_TOPK_IS_THERE
    top_k(nullptr, bytes);
    most = std::max(most, bytes);
#endif
    storage_ = {policy, static_cast<index_t>(most)};
  }

  void in(bench::device_timer& timer) {
    timer.against("cub_sort", [this](index_t) {
      std::size_t bytes = storage_.bytes();
      cub_sort(storage_.data(), bytes);
    });
    const thrust::device_ptr<float> keys(out_.data());
    timer.against(
        "thrust_sort",
        [this, keys](index_t) {
          thrust::sort(thrust::cuda::par_nosync.on(policy_.stream), keys, keys + n_);
        },
        [this](index_t) {
          detail::cuda_check(cudaMemcpyAsync(out_.data(), scores_, out_.bytes(),
                                             cudaMemcpyDeviceToDevice, policy_.stream),
                             "bench");
        });
#ifdef CUB_TOPK_IS_THERE
    timer.against("cub_topk", [this](index_t) {
      std::size_t bytes = storage_.bytes();
      top_k(storage_.data(), bytes);
    });
#endif
  }

 private:
  void cub_sort(void* at, std::size_t& bytes) const {
    detail::cuda_check(cub::DeviceRadixSort::SortKeysDescending(at, bytes, scores_, out_.data(), n_,
                                                                0, 32, policy_.stream),
                       "cub");
  }
#ifdef CUB_TOPK_IS_THERE
  void top_k(void* at, std::size_t& bytes) const {
    const auto environment = ::cuda::std::execution::env{
        ::cuda::stream_ref{policy_.stream},
        ::cuda::execution::require(::cuda::execution::determinism::not_guaranteed,
                                   ::cuda::execution::output_ordering::unsorted)};
    detail::cuda_check(
        cub::DeviceTopK::MaxKeys(at, bytes, scores_, out_.data(), n_, k_, environment), "cub");
  }
#endif

  exec::cuda policy_;
  const float* scores_;
  index_t n_, k_;
  detail::device_array<float> out_;
  detail::device_array<unsigned char> storage_;
};
#endif

void select(benchmark::State& state, const setting& at) {
  const exec::cuda policy = bench::policy();
  const auto size = static_cast<double>(at.n);
  if (!bench::fits(state, size * (at.beside_sorts ? 17 : 5))) return;
  const detail::device_array<float> scores(policy, at.n);
  bench::fill(policy, scores.view(), {at.how, 3});
  const std::vector<source> shards = cut(scores.data(), at.n, at.shards);
  topk_workspace workspace(policy, at.n);
  const topk_options best{.k = at.n / 20, .by = at.by};
  device_topk_result found;
  const auto once = [&](index_t) {
    found = topk(policy, std::span<const source>(shards), best, workspace);
  };
  once(0);
  const detail::compared_scores<source> compared{{scores.data(), at.n}, at.by};
  if (!bench::check(state, bench::is_right_selection(policy, compared, best.k, found),
                    "the selection is not the K best"))
    return;

  bench::device_timer timer(state);
  timer.moves(size * sizeof(float));
#ifdef __CUDACC__
  std::optional<beside> others;
  if (at.beside_sorts) others.emplace(policy, scores.data(), at.n, best.k).in(timer);
#endif
  timer.run(once);
}

void add(const setting& at) {
  const std::string name =
      std::string("topk/") + bench::name_of(at.how) +
      (at.by == topk_by::magnitude ? "/magnitude" : "/value") +
      (at.shards > 1 ? "/shards:" + std::to_string(at.shards) : std::string()) +
      (at.beside_sorts ? "/beside_sorts" : "") + "/n:" + std::to_string(at.n);
  setting here = at;
  here.n = bench::pick<index_t>(at.n, 5003);
  bench::add(
      name, [here](benchmark::State& state) { select(state, here); }, at.beside_sorts ? 5 : 10);
}

}  // namespace

int main(int argc, char** argv) {
  using enum bench::spread;
  for (const int power : {20, 24, 28, 30, 32}) add({.n = index_t{1} << power});
  for (const bench::spread how : {heavy_tailed, zeros, all_equal})
    add({.n = index_t{1} << 30, .how = how});
  add({.n = index_t{1} << 30, .by = topk_by::magnitude});
  add({.n = index_t{1} << 30, .shards = bench::pick(7, 2)});
  for (const index_t n : {index_t{1} << 28, index_t{1} << 31, index_t{3212749824}})
    add({.n = n, .beside_sorts = true});
  return bench::run(argc, argv);
}
