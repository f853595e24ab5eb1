// Accumulation, from naive to the library: G += g, bf16 into f32, 10 bytes per coordinate.
//
//   1 naive        one thread per coordinate: loads of 2 and 4 bytes, as many blocks as it takes
//   2 grid_stride  a fixed grid that strides: no block starts late   (expected: a few per cent)
//   3 vectors      8 coordinates per thread, loads and stores of 16 bytes: an eighth of the requests
//                  (expected: most of what is missing to 0.9 of the copy)
//   4 in_flight    four such groups of a piece of 8,192 coordinates per block, loaded before the first is
//                  used, and streamed past the caches
//                  (expected: 0.9 and more; the memory needs some 40 KB per multiprocessor under way)
//   5 library      accumulate
//
// No gain has been measured yet. Each step is compared with the definition, at every coordinate, before it
// is timed.
#include <bit>
#include <dualsft/accumulate.cuh>
#include <dualsft/detail/launch.cuh>
#include <string>

#include "../support/device_bench.cuh"
#include "../support/device_inputs.cuh"

namespace {

using namespace dualsft;

constexpr unsigned threads = 256;

DUALSFT_HOST_DEVICE float widened(unsigned bits) {
  return std::bit_cast<float>(bits << 16);
}

__global__ void naive(const bfloat16* g, float* sum, index_t n) {
  const index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) sum[i] += to_float(g[i]);
}

__global__ void grid_stride(const bfloat16* g, float* sum, index_t n) {
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride)
    sum[i] += to_float(g[i]);
}

/// Eight gradients lie in 16 bytes, the lower half of a word first.
__device__ void add_eight(const uint4& g, float4& low, float4& high) {
  low.x += widened(g.x & 0xffffU);
  low.y += widened(g.x >> 16);
  low.z += widened(g.y & 0xffffU);
  low.w += widened(g.y >> 16);
  high.x += widened(g.z & 0xffffU);
  high.y += widened(g.z >> 16);
  high.z += widened(g.w & 0xffffU);
  high.w += widened(g.w >> 16);
}

/// Both arrays begin at a multiple of 16 bytes; the rest of n beyond a multiple of 8 is the last block's.
__global__ void vectors(const bfloat16* g, float* sum, index_t n) {
  const auto* g8 = reinterpret_cast<const uint4*>(g);
  auto* sum4 = reinterpret_cast<float4*>(sum);
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n / 8; i += stride) {
    float4 low = sum4[2 * i], high = sum4[2 * i + 1];
    add_eight(g8[i], low, high);
    sum4[2 * i] = low;
    sum4[2 * i + 1] = high;
  }
  if (blockIdx.x + 1 == gridDim.x)
    for (index_t i = n / 8 * 8 + threadIdx.x; i < n; i += blockDim.x) sum[i] += to_float(g[i]);
}

__global__ void in_flight(const bfloat16* g, float* sum, index_t n) {
  constexpr int at_once = 4;
  const auto* g8 = reinterpret_cast<const uint4*>(g);
  auto* sum4 = reinterpret_cast<float4*>(sum);
  const index_t first = index_t{blockIdx.x} * (at_once * blockDim.x) + threadIdx.x;
  uint4 gradient[at_once];
  float4 low[at_once], high[at_once];
#pragma unroll
  for (int u = 0; u < at_once; ++u)
    if (const index_t i = first + u * blockDim.x; i < n / 8) {
      gradient[u] = __ldcs(g8 + i);
      low[u] = __ldcs(sum4 + 2 * i);
      high[u] = __ldcs(sum4 + 2 * i + 1);
    }
#pragma unroll
  for (int u = 0; u < at_once; ++u)
    if (const index_t i = first + u * blockDim.x; i < n / 8) {
      add_eight(gradient[u], low[u], high[u]);
      __stcs(sum4 + 2 * i, low[u]);
      __stcs(sum4 + 2 * i + 1, high[u]);
    }
  if (blockIdx.x + 1 == gridDim.x)
    for (index_t i = n / 8 * 8 + threadIdx.x; i < n; i += blockDim.x) sum[i] += to_float(g[i]);
}

constexpr bench::drawn gradients{bench::spread::heavy_tailed, 1}, sums{bench::spread::normal, 2};

__global__ void count_wrong(const float* sum, index_t n, bench::drawn g, bench::drawn before,
                            unsigned long long* wrong) {
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride)
    if (sum[i] != before(i) + to_float(to_bfloat16(g(i)))) atomicAdd(wrong, 1ULL);
}

template <class Step>
void add(const char* name, const Step& step) {
  const index_t n = bench::pick(index_t{1} << 30, index_t{8195});
  bench::add(std::string("ladder/accumulate/") + name, [step, n](benchmark::State& state) {
    const exec::cuda policy = bench::policy();
    const auto size = static_cast<double>(n);
    if (!bench::fits(state, 6 * size)) return;
    const detail::device_array<bfloat16> g(policy, n);
    const detail::device_array<float> sum(policy, n);
    detail::device_array<unsigned long long> wrong(policy, 1);
    bench::fill(policy, g.view(), gradients);
    bench::fill(policy, sum.view(), sums);
    wrong.fill_bytes(0);
    step(policy, g.data(), sum.data(), n);
    detail::launch("bench", policy, {bench::blocks_for(n), threads}, count_wrong, sum.data(), n,
                   gradients, sums, wrong.data());
    if (!bench::check(state, wrong.to_host()[0] == 0, "sums differ from their definition")) return;
    bench::device_timer timer(state);
    timer.moves(10 * size);
    timer.run([&](index_t) { step(policy, g.data(), sum.data(), n); });
  });
}

using kernel = void (*)(const bfloat16*, float*, index_t);

void add(const char* name, kernel which, index_t coordinates_per_block, unsigned most_blocks) {
  add(name, [=](const exec::cuda& policy, const bfloat16* g, float* sum, index_t n) {
    const index_t blocks = (n + coordinates_per_block - 1) / coordinates_per_block;
    detail::launch("ladder", policy,
                   {static_cast<unsigned>(std::min<index_t>(blocks, most_blocks)), threads}, which,
                   g, sum, n);
  });
}

}  // namespace

int main(int argc, char** argv) {
  constexpr unsigned any = 0x7fffffffU;
  constexpr unsigned resident = 132 * 8;  // 2,048 threads on each multiprocessor of an H200
  add("1_naive", naive, threads, any);
  add("2_grid_stride", grid_stride, threads, resident);
  add("3_vectors", vectors, 8 * threads, resident);
  add("4_in_flight", in_flight, 4 * 8 * threads, any);
  add("5_library", [](const exec::cuda& policy, const bfloat16* g, float* sum, index_t n) {
    accumulate(policy, vector_view<const bfloat16, device_space>(g, n),
               vector_view<float, device_space>(sum, n));
  });
  return bench::run(argc, argv);
}
