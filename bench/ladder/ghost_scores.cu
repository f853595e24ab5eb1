// Ghost scores of a linear layer, from naive to the library: sum_n e_tn (P a_t)_n for every token t, bf16,
// 8,192 tokens, 3,072 inputs, 8,192 outputs (one of Llama-3.2-3B's): 412e9 operations.
//
//   1 product      the product is written, a thread per element; then rows are met with E
//   2 tile         64 x 64 of the product per block, 4 x 4 per thread, from shared memory; met with E in
//                  registers, so that the product is never written
//                  (expected: 4 to 8 times, each value that is read is used 64 times instead of once)
//   3 mma          the same by tensor cores: a warp's 16 x 64, copied and multiplied by turns
//                  (expected: 10 times and more; waits for memory most of the time)
//   4 sm_80        128 x 256 per block, four copies under way while the tensor cores work: the library's
//                  kernel for devices other than sm_90a  (expected: 2 to 3 times)
//   5 sm_90a       boxes copied by the copy engine, products of four warps straight from shared memory, E
//                  through the same stages  (expected: 1.5 times; bounded by the cache's bandwidth)
//   6 cluster      two blocks share the boxes of P: a third less to read from the cache
//                  (expected: a tenth; what cuBLASLt reaches for the product alone, less a few per cent)
//   7 library      add_ghost_scores, with the sums by example
//
// No gain has been measured yet. Each step's sums of some tokens are compared with sums in double before
// it is timed. Where there is no sm_90a, steps 5 and 6 are left out.
#include <algorithm>
#include <dualsft/detail/launch.cuh>
#include <dualsft/detail/tensor_core.cuh>
#include <dualsft/ghost_scores.cuh>
#include <string>

#include "../support/device_bench.cuh"
#include "../support/device_inputs.cuh"
#include "../support/ghost_check.cuh"

namespace {

using namespace dualsft;
using detail::pieces_of;

/// All of it is dense. `partial` has room for a run of 64 outputs per row.
struct problem {
  index_t tokens, in, out;
  const bfloat16 *a, *e, *p;
  bfloat16* product;
  float* partial;
};

__global__ void form_product(const problem of) {
  const index_t n = index_t{blockIdx.x} * blockDim.x + threadIdx.x, t = blockIdx.y;
  if (n >= of.out) return;
  float sum = 0;
  for (index_t k = 0; k < of.in; ++k)
    sum = fmaf(to_float(of.a[t * of.in + k]), to_float(of.p[n * of.in + k]), sum);
  of.product[t * of.out + n] = to_bfloat16(sum);
}

/// A warp per token; one run.
__global__ void meet_product(const problem of) {
  const index_t t = index_t{blockIdx.x} * 8 + threadIdx.x / 32;
  if (t >= of.tokens) return;
  float sum = 0;
  for (index_t n = threadIdx.x % 32; n < of.out; n += 32)
    sum = fmaf(to_float(of.product[t * of.out + n]), to_float(of.e[t * of.out + n]), sum);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x % 32 == 0) of.partial[t] = sum;
}

/// The mma's step: 64 tokens x 64 outputs per block, 64 inputs at a time, four warps of 16 tokens.
__global__ void __launch_bounds__(128) mma_tile(const problem of) {
  __shared__ __align__(16) bfloat16 a[64][72], p[64][72];  // 144 bytes a row: other banks each
  const index_t first_t = index_t{blockIdx.y} * 64, first_n = index_t{blockIdx.x} * 64;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  float c[8][4] = {};
  for (index_t k = 0; k < of.in; k += 64) {
    for (int piece = thread; piece < 64 * 8; piece += 128) {
      const int row = piece / 8, col = piece % 8 * 8;
      const bool inside = k + col < of.in;
      detail::cp_async_16(&a[row][col], of.a + (first_t + row) * of.in + k + col,
                          inside && first_t + row < of.tokens);
      detail::cp_async_16(&p[row][col], of.p + (first_n + row) * of.in + k + col,
                          inside && first_n + row < of.out);
    }
    detail::cp_async_commit();
    detail::cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int part = 0; part < 64; part += 16) {
      std::uint32_t of_a[4], of_p[4];
      detail::ldmatrix_x4(of_a, &a[warp * 16 + lane % 16][part + lane / 16 * 8]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        detail::ldmatrix_x4(of_p, &p[16 * j + lane / 16 * 8 + lane % 8][part + lane / 8 % 2 * 8]);
        detail::mma_m16n8k16<bfloat16>(c[2 * j], of_a, of_p[0], of_p[1]);
        detail::mma_m16n8k16<bfloat16>(c[2 * j + 1], of_a, of_p[2], of_p[3]);
      }
    }
    __syncthreads();
  }
  for (int half = 0; half < 2; ++half) {
    const index_t t = first_t + warp * 16 + lane / 4 + 8 * half;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const index_t n = first_n + j / 2 * 8 + lane % 4 * 2 + j % 2;
      const float y = half == 0 ? c[j / 2][j % 2] : c[j / 2][2 + j % 2];
      if (t < of.tokens && n < of.out) sum = fmaf(y, to_float(of.e[t * of.out + n]), sum);
    }
    sum = detail::sum_of_four_lanes(sum);
    if (lane % 4 == 0 && t < of.tokens) of.partial[index_t{blockIdx.x} * of.tokens + t] = sum;
  }
}

/// The second step's: as detail/ghost_device_float.cuh, from 16-bit values.
__global__ void __launch_bounds__(256) float_tile(const problem of) {
  __shared__ float a[16][68], p[16][68];
  const index_t first_t = index_t{blockIdx.y} * 64, first_n = index_t{blockIdx.x} * 64;
  const int x = static_cast<int>(threadIdx.x % 16), y = static_cast<int>(threadIdx.x / 16);
  float c[4][4] = {};
  for (index_t k = 0; k < of.in; k += 16) {
    for (int i = 0; i < 4; ++i) {
      const int row = y + 16 * i;
      const bool inside = k + x < of.in;
      a[x][row] = inside && first_t + row < of.tokens
                      ? to_float(of.a[(first_t + row) * of.in + k + x])
                      : 0.0f;
      p[x][row] =
          inside && first_n + row < of.out ? to_float(of.p[(first_n + row) * of.in + k + x]) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int d = 0; d < 16; ++d)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) c[i][j] = fmaf(a[d][y + 16 * i], p[d][x + 16 * j], c[i][j]);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const index_t t = first_t + y + 16 * i;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const index_t n = first_n + x + 16 * j;
      if (t < of.tokens && n < of.out) sum = fmaf(c[i][j], to_float(of.e[t * of.out + n]), sum);
    }
    for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (x == 0 && t < of.tokens) of.partial[index_t{blockIdx.x} * of.tokens + t] = sum;
  }
}

/// tokens[t] = the sum over runs.
__global__ void add_runs(const float* partial, index_t runs, index_t tokens, double* out) {
  const index_t t = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (t >= tokens) return;
  double sum = 0;
  for (index_t run = 0; run < runs; ++run) sum += static_cast<double>(partial[run * tokens + t]);
  out[t] = sum;
}

/// \param step  fills partial; returns how many runs
template <class Step>
void add(const char* name, const Step& step) {
  const index_t tokens = bench::pick<index_t>(8192, 136), in = bench::pick<index_t>(3072, 72),
                out = bench::pick<index_t>(8192, 264);
  bench::add(std::string("ladder/ghost_scores/") + name, [=](benchmark::State& state) {
    const exec::cuda policy = bench::policy();
    const detail::device_array<bfloat16> a(policy, tokens * in), e(policy, tokens * out),
        p(policy, out * in), product(policy, tokens * out);
    const detail::device_array<float> partial(policy, pieces_of(out, 64) * tokens);
    const detail::device_array<double> sums(policy, tokens);
    bench::fill(policy, a.view(), {bench::spread::normal, 1});
    bench::fill(policy, e.view(), {bench::spread::normal, 2, 0x1p-10f});
    bench::fill(policy, p.view(), {bench::spread::normal, 3, 0x1p-6f});
    const problem of{tokens, in, out, a.data(), e.data(), p.data(), product.data(), partial.data()};
    if (!detail::has_wgmma("ladder") && (name[0] == '5' || name[0] == '6')) {
      state.SkipWithError("left out: this is no sm_90a");
      return;
    }
    const auto right = [&](const auto& examples, const auto& scores) {
      const index_t runs = step(policy, of);
      detail::launch("ladder", policy, {static_cast<unsigned>(pieces_of(tokens, 256)), 256},
                     add_runs, partial.data(), runs, tokens, sums.data());
      // The library's last step, with what this one found as rows of one value.
      std::vector<float> found;
      for (const double sum : sums.to_host()) found.push_back(static_cast<float>(sum));
      const std::vector<float> one{1};
      const detail::device_array<float> rows(policy, std::span(std::as_const(found))),
          ones(policy, std::span(one));
      ghost_workspace workspace(policy, tokens, 1, scores.size());
      add_ghost_scores(policy, device_dense_trace<float>{{rows.data(), tokens, 1}, examples},
                       ones.view(), scores, workspace);
      workspace.check(policy);
    };
    // Step 1 rounds its product to bf16: 2^-9 of each term.
    const double slack = name[0] == '1' ? 0x1p-9 : 0;
    if (!bench::check(state,
                      bench::right_ghost_tokens<bfloat16>(policy, a.data(), e.data(), p.data(),
                                                          nullptr, tokens, in, out, right, slack),
                      "sums differ from those in double"))
      return;
    bench::device_timer timer(state);
    timer.computes(2.0 * static_cast<double>(tokens) * static_cast<double>(in) *
                   static_cast<double>(out));
    timer.run([&](index_t) { step(policy, of); });
  });
}

detail::affine_work<bfloat16> work_of(const problem& of) {
  return {of.tokens, of.in, of.out, nullptr, of.partial};
}

template <int Cluster>
index_t boxed(const exec::cuda& policy, const problem& of) {
  int multiprocessors = 0;
  detail::cuda_check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0),
                     "ladder");
  detail::launch_affine_wgmma<Cluster>("ladder", policy, multiprocessors, of.a, of.in, of.p, of.in,
                                       of.e, of.out, work_of(of));
  return pieces_of(of.out, 256);
}

dim3 tiles_of(const problem& of) {
  return {static_cast<unsigned>(pieces_of(of.out, 64)),
          static_cast<unsigned>(pieces_of(of.tokens, 64))};
}

void add_library() {
  const index_t tokens = bench::pick<index_t>(8192, 136), in = bench::pick<index_t>(3072, 72),
                out = bench::pick<index_t>(8192, 264);
  bench::add("ladder/ghost_scores/7_library", [=](benchmark::State& state) {
    const exec::cuda policy = bench::policy();
    const detail::device_array<bfloat16> a(policy, tokens * in), e(policy, tokens * out),
        p(policy, out * in);
    bench::fill(policy, a.view(), {bench::spread::normal, 1});
    bench::fill(policy, e.view(), {bench::spread::normal, 2, 0x1p-10f});
    bench::fill(policy, p.view(), {bench::spread::normal, 3, 0x1p-6f});
    std::vector<index_t> examples;
    for (index_t t = 0; t < tokens; ++t) examples.push_back(t * 8 / tokens);
    const detail::device_array<index_t> on_examples(policy, std::span(std::as_const(examples)));
    detail::device_array<double> scores(policy, 8);
    scores.fill_bytes(0);
    ghost_workspace workspace(policy, tokens, out, 8);
    const device_affine_trace<bfloat16> trace{
        {a.data(), tokens, in}, {e.data(), tokens, out}, on_examples.view()};
    const matrix_view<const bfloat16, device_space> weight(p.data(), out, in);
    if (!bench::check(state, bench::right_ghost_tokens(policy, trace, weight, {}, workspace),
                      "scores differ from sums in double"))
      return;
    bench::device_timer timer(state);
    timer.computes(2.0 * static_cast<double>(tokens) * static_cast<double>(in) *
                   static_cast<double>(out));
    timer.run(
        [&](index_t) { add_ghost_scores(policy, trace, weight, {}, scores.view(), workspace); });
  });
}

}  // namespace

int main(int argc, char** argv) {
  add("1_product", [](const exec::cuda& policy, const problem& of) {
    detail::launch(
        "ladder", policy,
        {dim3(static_cast<unsigned>(pieces_of(of.out, 256)), static_cast<unsigned>(of.tokens)),
         dim3(256)},
        form_product, of);
    detail::launch("ladder", policy, {static_cast<unsigned>(pieces_of(of.tokens, 8)), 256},
                   meet_product, of);
    return index_t{1};
  });
  add("2_tile", [](const exec::cuda& policy, const problem& of) {
    detail::launch("ladder", policy, {tiles_of(of), dim3(256)}, float_tile, of);
    return pieces_of(of.out, 64);
  });
  add("3_mma", [](const exec::cuda& policy, const problem& of) {
    detail::launch("ladder", policy, {tiles_of(of), dim3(128)}, mma_tile, of);
    return pieces_of(of.out, 64);
  });
  add("4_sm_80", [](const exec::cuda& policy, const problem& of) {
    detail::launch_affine_mma("ladder", policy, of.a, of.in, of.p, of.in, of.e, of.out,
                              work_of(of));
    return pieces_of(of.out, 256);
  });
  add("5_sm_90a", boxed<1>);
  add("6_cluster", boxed<2>);
  add_library();
  return bench::run(argc, argv);
}
