// Two row-wise pieces of a forward derivative, from naive to the library, bf16: a residual
// connection with the norm behind it (8,192 x 3,072), and the loss with its tangent (4,096 x
// 128,256).
//
//   norm 1 separate     h += x, then the norm's values, then its tangents, each a kernel with an
//                       element per access: rows are read 12 times and written 4 times, where 4
//                       and 4 are needed
//   norm 2 fused        one kernel, a block per row, which reads h again behind its sums (from the
//                       cache, as a rule), still by elements (expected: twice as fast)
//   norm 3 packs        16 bytes per access, four loads in flight per thread (expected: 1.3 times)
//   norm 4 library      add_norm_tangent: the row stays in registers between its sums and its
//                       result, and rows leave the first-level cache to the weights (expected: 1.1
//                       times, at the limit)
//
//   nll 1 three reads   the largest logit, the sum of exponentials, the weighted tangents: z is
//                       read three times, by elements
//   nll 2 one read      sums are kept relative to the largest logit so far (expected: 1.8 times)
//   nll 3 packs         16 bytes per access, one pair in flight, the largest of eight first, so
//                       that sums are scaled again once per eight (expected: 1.5 times)
//   nll 4 library       nll_tangent: two pairs in flight, registers for three blocks of 512
//                       threads per multiprocessor (expected: 1.1 times, at the limit)
//
// No gain has been measured yet. Each step is compared with plain loops in double before it is
// timed.
#include <cmath>
#include <dualsft/llm/nll_tangents.cuh>
#include <dualsft/llm/tangents.cuh>
#include <string>
#include <vector>

#include "../support/device_bench.cuh"
#include "../support/device_inputs.cuh"

namespace {

using namespace dualsft;
using dualsft::detail::device_array;
using llm::detail::nll_row;
using llm::detail::norm_factors;
using llm::detail::norm_sums;
using llm::detail::pack;
using llm::detail::packed;
using llm::detail::softmax_sums;
using T = bfloat16;

constexpr float epsilon = 1e-6F;
constexpr unsigned threads = 256;

// ---- the norm ----------------------------------------------------------------------------------

struct norm_arrays {
  const T *x, *w;  ///< [2 rows, n], values above; [2, n]
  T *h, *y;        ///< [2 rows, n]
  index_t rows, n;
};

__global__ void add_elements(norm_arrays at) {
  const index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < 2 * at.rows * at.n) at.h[i] = to_bfloat16(to_float(at.h[i]) + to_float(at.x[i]));
}

__device__ norm_factors<float> factors_of(const norm_arrays& at, index_t row,
                                          float2 (&partial)[32]) {
  norm_sums<float> sums;
  for (index_t i = threadIdx.x; i < at.n; i += blockDim.x)
    sums.add(to_float(at.h[row * at.n + i]), to_float(at.h[(at.rows + row) * at.n + i]));
  return {llm::detail::sum_of_block(sums, partial), at.n, epsilon};
}

enum class part { values, tangents, both };

template <part Part>
__device__ void write_norm(const norm_arrays& at, index_t row, const norm_factors<float>& factors) {
  for (index_t i = threadIdx.x; i < at.n; i += blockDim.x) {
    const index_t above = row * at.n + i, below = above + at.rows * at.n;
    const auto y = factors(to_float(at.h[above]), to_float(at.h[below]), to_float(at.w[i]),
                           to_float(at.w[at.n + i]));
    if (Part != part::tangents) at.y[above] = to_bfloat16(y.value);
    if (Part != part::values) at.y[below] = to_bfloat16(y.tangent);
  }
}

template <part Part>
__global__ void norm_elements(norm_arrays at) {
  __shared__ float2 partial[32];
  write_norm<Part>(at, blockIdx.x, factors_of(at, blockIdx.x, partial));
}

__global__ void fused_elements(norm_arrays at) {
  __shared__ float2 partial[32];
  const index_t row = blockIdx.x;
  for (index_t i = threadIdx.x; i < at.n; i += blockDim.x)
    for (const index_t j : {row * at.n + i, (at.rows + row) * at.n + i})
      at.h[j] = to_bfloat16(to_float(at.h[j]) + to_float(at.x[j]));
  write_norm<part::both>(at, row, factors_of(at, row, partial));
}

__global__ void fused_packs(norm_arrays at) {
  __shared__ float2 partial[32];
  const index_t above = blockIdx.x * at.n, below = above + at.rows * at.n;
  norm_sums<float> sums;
  for (index_t i = index_t{threadIdx.x} * pack<T>; i < at.n; i += index_t{blockDim.x} * pack<T>) {
    const packed<T> x = packed<T>::load(at.x + above + i), dx = packed<T>::load(at.x + below + i);
    packed<T> h = packed<T>::load(at.h + above + i), dh = packed<T>::load(at.h + below + i);
    float value[pack<T>], tangent[pack<T>];
    x.widen(value);
    dx.widen(tangent);
    llm::detail::add_rounded<T>(value, tangent, h, dh);
    llm::detail::add_to(sums, h, dh);
    h.store(at.h + above + i);
    dh.store(at.h + below + i);
  }
  const norm_factors<float> factors(llm::detail::sum_of_block(sums, partial), at.n, epsilon);
  const llm::detail::norm_at<T> norm{at.w, at.w + at.n, epsilon, 0};
  for (index_t i = index_t{threadIdx.x} * pack<T>; i < at.n; i += index_t{blockDim.x} * pack<T>) {
    float value[pack<T>], tangent[pack<T>];
    packed<T>::load(at.h + above + i).widen(value);
    packed<T>::load(at.h + below + i).widen(tangent);
    llm::detail::norm_pack<T, T>::load(norm, i).apply(factors, 0, value, tangent);
    packed<T>::narrow(value).store(at.y + above + i);
    packed<T>::narrow(tangent).store(at.y + below + i);
  }
}

void norm_step(int step, const exec::cuda& policy, const norm_arrays& at) {
  const auto blocks = static_cast<unsigned>(at.rows);
  const auto all = static_cast<unsigned>((2 * at.rows * at.n + threads - 1) / threads);
  if (step == 1) {
    detail::launch("ladder", policy, {all, threads}, add_elements, at);
    detail::launch("ladder", policy, {blocks, threads}, norm_elements<part::values>, at);
    detail::launch("ladder", policy, {blocks, threads}, norm_elements<part::tangents>, at);
  } else if (step == 2) {
    detail::launch("ladder", policy, {blocks, threads}, fused_elements, at);
  } else if (step == 3) {
    detail::launch("ladder", policy, {blocks, threads}, fused_packs, at);
  } else {
    const auto rows = [&](auto* from) {
      return llm::stacked(matrix_view<std::remove_pointer_t<decltype(from)>, device_space>(
          from, 2 * at.rows, at.n));
    };
    llm::add_norm_tangent<T>(policy, rows(at.x),
                             llm::tangent_norm<T>{{at.w, at.n}, {at.w + at.n, at.n}, 1e-6, 0},
                             rows(at.h), rows(at.y));
  }
}

std::vector<double> widened(const device_array<T>& from) {
  std::vector<double> out;
  for (const T x : from.to_host()) out.push_back(static_cast<double>(to_float(x)));
  return out;
}

void run_norm(benchmark::State& state, int step) {
  const exec::cuda policy = bench::policy();
  const index_t rows = bench::pick<index_t>(8192, 5), n = bench::pick<index_t>(3072, 320);
  const index_t size = 2 * rows * n;
  if (!bench::fits(state, 6.0 * static_cast<double>(size))) return;
  const device_array<T> x(policy, size), h(policy, size), y(policy, size), w(policy, 2 * n);
  bench::fill(policy, x.view(), {bench::spread::normal, 1});
  bench::fill(policy, h.view(), {bench::spread::normal, 2});
  bench::fill(policy, w.view(), {bench::spread::normal, 3});
  const norm_arrays at{x.data(), w.data(), h.data(), y.data(), rows, n};
  norm_step(step, policy, at);
  const std::vector<double> a = widened(h), b = widened(y), scale = widened(w);
  bool right = true;
  const auto place = [&](index_t row, index_t i) { return static_cast<std::size_t>(row * n + i); };
  const bench::drawn of_x{bench::spread::normal, 1}, of_h{bench::spread::normal, 2};
  for (index_t row = 0; row < rows; ++row) {
    norm_sums<double> sums;
    for (index_t i = 0; i < n; ++i) sums.add(a[place(row, i)], a[place(rows + row, i)]);
    const norm_factors<double> factors(sums, n, 1e-6);
    for (index_t i = 0; i < n; ++i) {
      const double sum = static_cast<double>(to_float(to_bfloat16(of_x(row * n + i)))) +
                         static_cast<double>(to_float(to_bfloat16(of_h(row * n + i))));
      const auto wanted = factors(a[place(row, i)], a[place(rows + row, i)], scale[place(0, i)],
                                  scale[place(1, i)]);
      right =
          right && std::fabs(a[place(row, i)] - sum) <= 0x1p-8 * std::fabs(sum) &&
          std::fabs(b[place(row, i)] - wanted.value) <= 0x1p-8 * std::fabs(wanted.value) + 1e-3 &&
          std::fabs(b[place(rows + row, i)] - wanted.tangent) <=
              0x1p-8 * std::fabs(wanted.tangent) + 1e-3;
    }
  }
  if (!bench::check(state, right, "a norm differs from a plain loop's")) return;
  bench::device_timer timer(state);
  timer.moves(8.0 * static_cast<double>(size));
  timer.run([&](index_t) { norm_step(step, policy, at); });
}

// ---- the loss ----------------------------------------------------------------------------------

struct nll_arrays {
  const T* z;  ///< [2 rows, n]
  const index_t* labels;
  double *nll, *rate;
  index_t rows, n;
};

/// The block's largest, then its sums relative to that.
__device__ void finish_row(const nll_arrays& at, index_t row, softmax_sums<float> mine) {
  __shared__ float tops[threads];
  __shared__ double2 parts[threads];
  tops[threadIdx.x] = mine.top;
  parts[threadIdx.x] =
      make_double2(static_cast<double>(mine.sum), static_cast<double>(mine.weighted));
  __syncthreads();
  if (threadIdx.x > 0) return;
  nll_row all;
  all.label = to_float(at.z[row * at.n + at.labels[row]]);
  all.label_rate = to_float(at.z[(at.rows + row) * at.n + at.labels[row]]);
  for (unsigned t = 0; t < blockDim.x; ++t) all.add(tops[t], parts[t].x, parts[t].y);
  at.nll[row] = all.nll();
  at.rate[row] = all.rate();
}

__global__ void three_reads(nll_arrays at) {
  const index_t row = blockIdx.x;
  const T *z = at.z + row * at.n, *dz = z + at.rows * at.n;
  softmax_sums<float> mine;
  for (index_t i = threadIdx.x; i < at.n; i += blockDim.x)
    mine.top = fmaxf(mine.top, to_float(z[i]));
  for (index_t i = threadIdx.x; i < at.n; i += blockDim.x)
    mine.sum += std::exp(to_float(z[i]) - mine.top);
  for (index_t i = threadIdx.x; i < at.n; i += blockDim.x)
    mine.weighted += std::exp(to_float(z[i]) - mine.top) * to_float(dz[i]);
  finish_row(at, row, mine);
}

__global__ void one_read(nll_arrays at) {
  const index_t row = blockIdx.x;
  const T *z = at.z + row * at.n, *dz = z + at.rows * at.n;
  softmax_sums<float> mine;
  for (index_t i = threadIdx.x; i < at.n; i += blockDim.x) {
    const float x = to_float(z[i]);
    if (x > mine.top) mine.raise(x);
    mine.add(x, to_float(dz[i]));
  }
  finish_row(at, row, mine);
}

__global__ void one_read_packs(nll_arrays at) {
  const index_t row = blockIdx.x;
  const T *z = at.z + row * at.n, *dz = z + at.rows * at.n;
  softmax_sums<float> mine;
  for (index_t i = index_t{threadIdx.x} * pack<T>; i < at.n; i += index_t{blockDim.x} * pack<T>) {
    float x[pack<T>], dx[pack<T>];
    const packed<T> value = packed<T>::load(z + i), tangent = packed<T>::load(dz + i);
    value.widen(x);
    tangent.widen(dx);
    float top = x[0];
    for (int e = 1; e < pack<T>; ++e) top = fmaxf(top, x[e]);
    if (top > mine.top) mine.raise(top);
    for (int e = 0; e < pack<T>; ++e) mine.add(x[e], dx[e]);
  }
  finish_row(at, row, mine);
}

void nll_step(int step, const exec::cuda& policy, const nll_arrays& at) {
  const auto blocks = static_cast<unsigned>(at.rows);
  if (step == 1) {
    detail::launch("ladder", policy, {blocks, threads}, three_reads, at);
  } else if (step == 2) {
    detail::launch("ladder", policy, {blocks, threads}, one_read, at);
  } else if (step == 3) {
    detail::launch("ladder", policy, {blocks, threads}, one_read_packs, at);
  } else {
    llm::nll_tangent(policy, vector_view<const index_t, device_space>(at.labels, at.rows),
                     llm::stacked(matrix_view<const T, device_space>(at.z, 2 * at.rows, at.n)),
                     vector_view<double, device_space>(at.nll, at.rows),
                     vector_view<double, device_space>(at.rate, at.rows));
  }
}

void run_nll(benchmark::State& state, int step) {
  const exec::cuda policy = bench::policy();
  const index_t rows = bench::pick<index_t>(4096, 3), n = bench::pick<index_t>(128'256, 4104);
  const index_t size = 2 * rows * n;
  if (!bench::fits(state, 2.0 * static_cast<double>(size))) return;
  const device_array<T> z(policy, size);
  bench::fill(policy, z.view(), {bench::spread::normal, 1, 4});
  const std::vector<index_t> same(static_cast<std::size_t>(rows), 17);
  const device_array<index_t> labels(policy, std::span<const index_t>(same));
  const device_array<double> nll(policy, rows), rate(policy, rows);
  const nll_arrays at{z.data(), labels.data(), nll.data(), rate.data(), rows, n};
  nll_step(step, policy, at);
  const std::vector<double> found = nll.to_host(), rates = rate.to_host();
  const bench::drawn numbers{bench::spread::normal, 1, 4};
  const auto number = [&](index_t row, index_t i) {
    return static_cast<double>(to_float(to_bfloat16(numbers(row * n + i))));
  };
  bool right = true;
  for (const index_t row : {index_t{0}, rows - 1}) {
    double sum = 0, weighted = 0;
    for (index_t i = 0; i < n; ++i) {
      sum += std::exp(number(row, i));
      weighted += std::exp(number(row, i)) * number(rows + row, i);
    }
    const auto t = static_cast<std::size_t>(row);
    right = right && std::fabs(found[t] - (std::log(sum) - number(row, 17))) < 1e-4 &&
            std::fabs(rates[t] - (weighted / sum - number(rows + row, 17))) < 1e-3;
  }
  if (!bench::check(state, right, "a loss differs from a plain loop's")) return;
  bench::device_timer timer(state);
  timer.moves(2.0 * static_cast<double>(size));
  timer.run([&](index_t) { nll_step(step, policy, at); });
}

}  // namespace

int main(int argc, char** argv) {
  const char* const norm_names[] = {"1_separate", "2_fused", "3_packs", "4_library"};
  const char* const nll_names[] = {"1_three_reads", "2_one_read", "3_packs", "4_library"};
  for (int step = 1; step <= 4; ++step)
    bench::add(std::string("ladder/tangents/norm_") + norm_names[step - 1],
               [=](benchmark::State& state) { run_norm(state, step); });
  for (int step = 1; step <= 4; ++step)
    bench::add(std::string("ladder/tangents/nll_") + nll_names[step - 1],
               [=](benchmark::State& state) { run_nll(state, step); });
  return bench::run(argc, argv);
}
