#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <dualsft/detail/device_array.cuh>
#include <dualsft/float16.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <vector>

/// Inputs and comparisons of the device's tests.
namespace dualsft::testing {

/// A stream of its own: work that ran on another would not be waited for.
class own_stream {
 public:
  own_stream() { detail::cuda_check(cudaStreamCreate(&stream_), "own_stream"); }
  own_stream(const own_stream&) = delete;
  own_stream& operator=(const own_stream&) = delete;
  ~own_stream() { cudaStreamDestroy(stream_); }
  exec::cuda policy() const { return {stream_}; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// Captures what work() puts on the stream into a graph and launches that `times` times: fails where work
/// allocates, waits or runs on another stream.
template <class Work>
void replay_captured(const exec::cuda& policy, int times, Work&& work) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  detail::cuda_check(cudaStreamBeginCapture(policy.stream, cudaStreamCaptureModeGlobal), "replay");
  work();
  detail::cuda_check(cudaStreamEndCapture(policy.stream, &graph), "replay");
  detail::cuda_check(cudaGraphInstantiate(&ready, graph, 0), "replay");
  for (int turn = 0; turn < times; ++turn)
    detail::cuda_check(cudaGraphLaunch(ready, policy.stream), "replay");
  detail::cuda_check(cudaStreamSynchronize(policy.stream), "replay");
  cudaGraphExecDestroy(ready);
  cudaGraphDestroy(graph);
}

/// Whether sizes that would take a sanitizer hours are left out.
inline bool is_small_run() {
  return std::getenv("DUALSFT_SMALL") != nullptr;
}

enum class spread { normal, heavy_tailed, all_equal, special };

/// n numbers; `special` ones have NaN, infinities, zeros of both signs and denormals among them.
template <class T>
std::vector<T> numbers(index_t n, spread how, std::uint64_t seed) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const double odd[] = {0.0, -0.0, infinity, -infinity, std::nan(""), 1e-310, -1e-40, 1e30};
  random_source random(seed);
  std::vector<T> out(static_cast<std::size_t>(n));
  for (index_t i = 0; i < n; ++i) {
    double x = how == spread::all_equal ? 0.5 : random.normal();
    if (how == spread::heavy_tailed) x *= std::pow(10.0, 20 * random.uniform() - 10);
    if (how == spread::special && i % 5 == 3) x = odd[(i / 5) % 8];
    out[static_cast<std::size_t>(i)] = convert_float<T>(x);
  }
  return out;
}

inline std::uint64_t bits_of(float x) {
  return x != x ? 1 : std::bit_cast<std::uint32_t>(x);  // which NaN is left open
}
inline std::uint64_t bits_of(double x) {
  return x != x ? 1 : std::bit_cast<std::uint64_t>(x);
}
inline std::uint64_t bits_of(bfloat16 x) {
  return bits_of(to_float(x));
}
inline std::uint64_t bits_of(float16 x) {
  return bits_of(to_float(x));
}

/// The first place where two arrays differ, or -1.
template <class T>
index_t first_difference(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (bits_of(a[i]) != bits_of(b[i])) return static_cast<index_t>(i);
  return -1;
}

}  // namespace dualsft::testing
