// Self-distillation from bf16 logits, from naive to the library: sums and gradients of 8,192 pairs of rows
// of 128,256 classes. 6 V bytes per row at least: both rows read, the gradient written.
//
//   1 naive      a block per row, a class per thread; the rows are read for their maxima, for their sums,
//                for the divergence and for the gradient: 18 V bytes, much of it from the caches
//   2 online     sums below references that move: one reading for all sums, one for the gradient, 10 V
//                bytes (expected: 1.6 times faster)
//   3 vectors    loads and stores of 16 bytes, two of them of each row under way per thread
//                (expected: up to 2 times faster, and then at the limit of 10 V bytes)
//   4 backwards  a block of 1,024 threads to a multiprocessor; the second reading starts where the first
//                ended, so that much of it is still in the L2 cache (expected: nearer to 6 V than to 10 V
//                bytes from memory where the cache holds more than half of 132 pairs of rows, 34 MB)
//   5 two_blocks two blocks of 512, each with half of the shared memory: one sums while the other writes
//                (expected: hides what a row costs at its end, some 3 per cent, but twice as many rows
//                wait in the L2 cache)
//   6 library    the kernel of cwsd: step 4, and 45 per cent of each pair of rows stays in shared
//                memory (expected: 6 V bytes; four exponentials per class at 16 per clock take three
//                quarters of that time, beside it)
//
// No gain has been measured yet. Each step is compared with the host at two rows before it is timed.
#include <cub/block/block_reduce.cuh>
#include <string>
#include <vector>

#include "../support/cwsd_case.cuh"

namespace {

using namespace dualsft;
using detail::logit_rows;
using T = bfloat16;

constexpr cwsd_rule rule{.tau = 2, .weight = confidence::uniform};

template <class Fold>
__device__ float over_block(float x, const Fold& fold) {
  using reduce = cub::BlockReduce<float, 256>;
  __shared__ typename reduce::TempStorage storage;
  __shared__ float out;
  const float found = reduce(storage).Reduce(x, fold);
  if (threadIdx.x == 0) out = found;
  __syncthreads();
  const float all = out;
  __syncthreads();
  return all;
}

__global__ void naive(logit_rows<T> in) {
  const T* student = in.student + blockIdx.x * in.student_stride;
  const T* teacher = in.teacher + blockIdx.x * in.teacher_stride;
  const auto larger = [](float x, float y) { return fmaxf(x, y); };
  const auto sum = [](float x, float y) { return x + y; };
  float s_top = -INFINITY, t_top = -INFINITY;
  for (index_t c = threadIdx.x; c < in.classes; c += blockDim.x) {
    s_top = fmaxf(s_top, to_float(student[c]));
    t_top = fmaxf(t_top, to_float(teacher[c]));
  }
  s_top = over_block(s_top, larger);
  t_top = over_block(t_top, larger);
  float s_sum = 0, t_sum = 0;
  for (index_t c = threadIdx.x; c < in.classes; c += blockDim.x) {
    s_sum += exp2f((to_float(student[c]) - s_top) * in.per_logit);
    t_sum += exp2f((to_float(teacher[c]) - t_top) * in.per_logit);
  }
  s_sum = over_block(s_sum, sum);
  t_sum = over_block(t_sum, sum);
  float divergence = 0, entropy = 0;
  for (index_t c = threadIdx.x; c < in.classes; c += blockDim.x) {
    const float s = (to_float(student[c]) - s_top) * in.per_logit;
    const float t = (to_float(teacher[c]) - t_top) * in.per_logit;
    const float q = exp2f(t) / t_sum;
    divergence += q * (t - s + log2f(s_sum) - log2f(t_sum));
    entropy += q * (log2f(t_sum) - t);
  }
  divergence = over_block(divergence, sum);
  entropy = over_block(entropy, sum);
  if (threadIdx.x == 0)
    in.records[blockIdx.x] = {
        .sums = {.student = s_sum,
                 .teacher = t_sum,
                 .moment = (log2f(t_sum) - entropy) * t_sum,
                 .cross = (divergence + log2f(t_sum) - log2f(s_sum)) * t_sum}};
  const float factor = in.tasks[blockIdx.x].factor;
  for (index_t c = threadIdx.x; c < in.classes; c += blockDim.x) {
    const float p = exp2f((to_float(student[c]) - s_top) * in.per_logit) / s_sum;
    const float q = exp2f((to_float(teacher[c]) - t_top) * in.per_logit) / t_sum;
    in.gradient[blockIdx.x * in.gradient_stride + c] = to_bfloat16(factor * (p - q));
  }
}

template <int width>
__global__ void __launch_bounds__(256) two_readings(logit_rows<T> in) {
  using group = detail::logit_group<T, width>;
  constexpr int threads = 256, depth = 2;
  __shared__ detail::warps_sums shared;
  __shared__ detail::row_scale scale;
  const T* student = in.student + blockIdx.x * in.student_stride;
  const T* teacher = in.teacher + blockIdx.x * in.teacher_stride;
  T* gradient = in.gradient + blockIdx.x * in.gradient_stride;
  const int groups = static_cast<int>(in.classes / width);  // no rest at this size
  detail::referred_sums thread;
  const auto read = [&](int first, auto count, const auto& use) {
    group s[count], t[count];
#pragma unroll
    for (int d = 0; d < count; ++d) {
      s[d] = group::load(student + index_t{first + d * threads} * width);
      t[d] = group::load(teacher + index_t{first + d * threads} * width);
    }
#pragma unroll
    for (int d = 0; d < count; ++d) use(first + d * threads, s[d], t[d]);
  };
  detail::for_groups<depth, threads>(0, groups, [&](int first, auto count) {
    read(first, count, [&](int, const group& s, const group& t) {
      detail::absorb<detail::rows_read::both, group, width>(thread, s, t, in.per_logit);
    });
  });
  detail::sum_over_block<threads>(
      thread, in.per_logit, shared, [&](const detail::block_sums& block) {
        in.records[blockIdx.x] = block.row;
        const double factor = static_cast<double>(in.tasks[blockIdx.x].factor);
        scale = {.student_at = block.student_at,
                 .teacher_at = block.teacher_at,
                 .student = static_cast<float>(factor / block.row.sums.student),
                 .teacher = static_cast<float>(factor / block.row.sums.teacher)};
      });
  const detail::row_scale own = scale;
  detail::for_groups<depth, threads>(0, groups, [&](int first, auto count) {
    read(first, count, [&](int g, const group& s, const group& t) {
      detail::difference<group, width>(s, t, own, in.per_logit)
          .store(gradient + index_t{g} * width);
    });
  });
}

/// step(policy, rows, a counter that is 0)
template <class Step>
void add(const char* name, const Step& step) {
  const index_t rows = bench::pick<index_t>(8192, 5), classes = bench::pick<index_t>(128256, 2056);
  bench::add(std::string("ladder/cwsd/") + name, [=](benchmark::State& state) {
    const exec::cuda policy = bench::policy();
    if (!bench::fits(state, bench::cwsd_case<T>::bytes(rows, classes))) return;
    const bench::cwsd_case<T> at(policy, rows, classes);
    const std::vector<detail::row_task> tasks(static_cast<std::size_t>(rows), {2, 1});
    const detail::device_array<detail::row_task> own(policy,
                                                     std::span<const detail::row_task>(tasks));
    const detail::device_array<detail::row_record> records(policy, rows);
    const detail::device_array<unsigned long long> taken(policy, 1);
    const logit_rows<T> in{.teacher = at.teacher().data(),
                           .student = at.student().data(),
                           .gradient = at.gradient().data(),
                           .teacher_stride = classes,
                           .student_stride = classes,
                           .gradient_stride = classes,
                           .rows = rows,
                           .classes = classes,
                           .per_logit = detail::powers_per_logit(rule),
                           .tasks = own.data(),
                           .records = records.data()};
    const auto once = [&](index_t) { step(policy, in, taken.data()); };
    once(0);
    if (!bench::check(state, at.gradient_is_right(policy, rule, 1, true),
                      "gradients differ from the host's"))
      return;
    bench::device_timer timer(state);
    timer.moves(bench::cwsd_case<T>::bytes(rows, classes));
    timer.run(once);
  });
}

using rows_of = const logit_rows<T>&;
using counter = unsigned long long*;

void clear(const exec::cuda& policy, counter taken) {
  detail::cuda_check(cudaMemsetAsync(taken, 0, sizeof *taken, policy.stream), "ladder");
}

}  // namespace

int main(int argc, char** argv) {
  const auto per_row = [](rows_of in) {
    return detail::launch_shape{static_cast<unsigned>(in.rows), 256};
  };
  add("1_naive", [=](const exec::cuda& policy, rows_of in, counter) {
    detail::launch("ladder", policy, per_row(in), naive, in);
  });
  add("2_online", [=](const exec::cuda& policy, rows_of in, counter) {
    detail::launch("ladder", policy, per_row(in), two_readings<1>, in);
  });
  add("3_vectors", [=](const exec::cuda& policy, rows_of in, counter) {
    detail::launch("ladder", policy, per_row(in), two_readings<8>, in);
  });
  add("4_backwards", [](const exec::cuda& policy, rows_of in, counter taken) {
    clear(policy, taken);
    const auto blocks = static_cast<unsigned>(std::min<index_t>(in.rows, 132));
    detail::launch("ladder", policy, {blocks, 1024}, detail::distill_rows<T, 8, 1024>, in, 0,
                   taken);
  });
  add("5_two_blocks", [](const exec::cuda& policy, rows_of in, counter taken) {
    clear(policy, taken);
    detail::launch_distill_rows<T, 8, 512>("ladder", policy, in, taken);
  });
  add("6_library", [](const exec::cuda& policy, rows_of in, counter taken) {
    detail::launch_distill_rows("ladder", policy, in, taken);  // the kernel of cwsd
  });
  return bench::run(argc, argv);
}
