// Masked AdamW, from naive to the library: one step over a random 5 % of d coordinates, bf16 weights and
// gradients, m and s in f32.
//
//   1 mask_times_dense  m and s of every coordinate, a byte per coordinate says who is selected: 23 bytes
//                       per coordinate move
//   2 dense_skipping    the same arrays, but only the selected are read: a 32-byte sector of eight floats
//                       holds a selected one with 34 %, of sixteen bf16 with 56 % (expected: 2.3 times
//                       as fast)
//   3 compact           m and s of the selected alone, their 64-bit indices in a list: (24 + what the
//                       sectors of weights and gradient take) bytes per selected coordinate
//                       (expected: about twice as fast, state 6.3 % of dense)
//   4 compact_32        32-bit indices, where d < 2^32: 4 bytes less of some 90   (expected: 4 %)
//   5 library           device_masked_adamw: 16-bit offsets within pages, a block of threads per page,
//                       2 bytes less again and no limit on d   (expected: 2 %)
//
// No gain has been measured yet. Each step is compared with the host's rule at all selected coordinates,
// and all others must keep their bits, before it is timed.
#include <cmath>
#include <dualsft/detail/launch.cuh>
#include <dualsft/optim/masked_adamw.cuh>
#include <dualsft/random.hpp>
#include <memory>
#include <string>
#include <vector>

#include "../support/device_bench.cuh"
#include "../support/device_inputs.cuh"

namespace {

using namespace dualsft;
using coefficients = adamw_rule<float>::coefficients;

constexpr double learning_rate = 1e-3;
constexpr adamw_options options{.weight_decay = 0.01};
constexpr unsigned threads = 256;

struct arrays {
  bfloat16* theta;
  const bfloat16* gradient;
  float* m;
  float* s;
};

__device__ void move(const arrays& at, index_t coordinate, index_t state, const coefficients& c) {
  at.theta[coordinate] =
      to_bfloat16(adamw_rule<float>::moved(c, to_float(at.theta[coordinate]), at.m[state],
                                           at.s[state], to_float(at.gradient[coordinate])));
}

/// All is read and written; what is not selected is written back as it was.
__global__ void mask_times_dense(arrays at, const std::uint8_t* mask, index_t d, coefficients c) {
  const index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= d) return;
  const bool selected = mask[i] != 0;
  float m = at.m[i], s = at.s[i];
  const bfloat16 before = at.theta[i];
  const float after = adamw_rule<float>::moved(c, to_float(before), m, s, to_float(at.gradient[i]));
  at.theta[i] = selected ? to_bfloat16(after) : before;
  at.m[i] = selected ? m : 0;
  at.s[i] = selected ? s : 0;
}

__global__ void dense_skipping(arrays at, const std::uint8_t* mask, index_t d, coefficients c) {
  const index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < d && mask[i] != 0) move(at, i, i, c);
}

template <class Index>
__global__ void compact(arrays at, const Index* selected, index_t k, coefficients c) {
  const index_t rank = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (rank < k) move(at, static_cast<index_t>(selected[rank]), rank, c);
}

/// What all steps work on; the mask in each form that one of them reads.
struct problem {
  static constexpr bench::drawn weights{bench::spread::normal, 1};
  static constexpr bench::drawn gradients{bench::spread::heavy_tailed, 2};

  index_t d = 0;
  std::vector<index_t> selected;
  detail::device_array<bfloat16> theta, gradient;
  detail::device_array<std::uint8_t> mask;
  detail::device_array<index_t> indices;
  detail::device_array<std::uint32_t> indices_32;
  detail::device_array<float> m, s;

  explicit problem(const exec::cuda& policy) : d(bench::pick(index_t{1} << 28, index_t{70001})) {
    random_source random(5);
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(d), 0);
    std::vector<std::uint32_t> narrow;
    const double scale = 1 / std::log(1 - 1.0 / 20);
    for (double next = std::floor(std::log(1 - random.uniform()) * scale);
         next < static_cast<double>(d);
         next += 1 + std::floor(std::log(1 - random.uniform()) * scale)) {
      selected.push_back(static_cast<index_t>(next));
      narrow.push_back(static_cast<std::uint32_t>(next));
      bytes[static_cast<std::size_t>(next)] = 1;
    }
    theta = {policy, d};
    gradient = {policy, d};
    m = {policy, d};
    s = {policy, d};
    mask = {policy, std::span<const std::uint8_t>(bytes)};
    indices = {policy, std::span<const index_t>(selected)};
    indices_32 = {policy, std::span<const std::uint32_t>(narrow)};
    bench::fill(policy, gradient.view(), gradients);
    detail::cuda_check(cudaStreamSynchronize(policy.stream), "ladder");
  }

  void reset(const exec::cuda& policy) {
    bench::fill(policy, theta.view(), weights);
    m.fill_bytes(0);
    s.fill_bytes(0);
  }
  arrays at() const { return {theta.data(), gradient.data(), m.data(), s.data()}; }
  index_t k() const { return static_cast<index_t>(selected.size()); }

  /// After one step.
  bool is_right() const {
    const std::vector<bfloat16> found = theta.to_host();
    const coefficients c = adamw_rule<float>::at(options, 1, learning_rate);
    std::size_t rank = 0;
    for (index_t i = 0; i < d; ++i) {
      const bfloat16 before = to_bfloat16(weights(i));
      bfloat16 right = before;
      if (rank < selected.size() && selected[rank] == i) {
        float m0 = 0, s0 = 0;
        right = to_bfloat16(adamw_rule<float>::moved(c, to_float(before), m0, s0,
                                                     to_float(to_bfloat16(gradients(i)))));
        ++rank;
      }
      if (!(found[static_cast<std::size_t>(i)] == right)) return false;
    }
    return rank == selected.size();
  }

  /// Sectors of 32 bytes that hold a selected one of numbers of `size` bytes.
  double sectors(index_t size) const {
    index_t count = 0, last = -1;
    for (const index_t i : selected) {
      count += i * size / 32 != last ? 1 : 0;
      last = i * size / 32;
    }
    return static_cast<double>(count);
  }
};

std::unique_ptr<problem> shared_problem;

/// \param prepare  called with the problem, makes the step
/// \param bytes    that the step has to move
template <class Prepare, class Bytes>
void add(const char* name, const Prepare& prepare, const Bytes& bytes) {
  bench::add(
      std::string("ladder/masked_adamw/") + name,
      [=](benchmark::State& state) {
        const exec::cuda policy = bench::policy();
        if (!shared_problem) {
          if (!bench::fits(state, 27.0 * static_cast<double>(index_t{1} << 28))) return;
          shared_problem = std::make_unique<problem>(policy);
          bench::at_end().push_back([] { shared_problem.reset(); });
        }
        problem& data = *shared_problem;
        data.reset(policy);
        const auto step = prepare(policy, data);
        step(1);
        if (!bench::check(state, data.is_right(), "weights differ from the host's")) return;
        bench::device_timer timer(state);
        timer.moves(bytes(data));
        timer.run([&](index_t round) { step(round + 2); });
      },
      10);
}

unsigned blocks_of(index_t n) {
  return static_cast<unsigned>((n + threads - 1) / threads);
}

}  // namespace

int main(int argc, char** argv) {
  const auto rule = [](index_t t) { return adamw_rule<float>::at(options, t, learning_rate); };
  add(
      "1_mask_times_dense",
      [=](const exec::cuda& policy, const problem& data) {
        return [&data, policy, rule](index_t t) {
          detail::launch("ladder", policy, {blocks_of(data.d), threads}, mask_times_dense,
                         data.at(), data.mask.data(), data.d, rule(t));
        };
      },
      [](const problem& data) { return 23.0 * static_cast<double>(data.d); });
  add(
      "2_dense_skipping",
      [=](const exec::cuda& policy, const problem& data) {
        return [&data, policy, rule](index_t t) {
          detail::launch("ladder", policy, {blocks_of(data.d), threads}, dense_skipping, data.at(),
                         data.mask.data(), data.d, rule(t));
        };
      },
      [](const problem& data) {
        return static_cast<double>(data.d) + 32 * (3 * data.sectors(2) + 4 * data.sectors(4));
      });
  add(
      "3_compact",
      [=](const exec::cuda& policy, const problem& data) {
        return [&data, policy, rule](index_t t) {
          detail::launch("ladder", policy, {blocks_of(data.k()), threads}, compact<index_t>,
                         data.at(), data.indices.data(), data.k(), rule(t));
        };
      },
      [](const problem& data) {
        return 24.0 * static_cast<double>(data.k()) + 32 * 3 * data.sectors(2);
      });
  add(
      "4_compact_32",
      [=](const exec::cuda& policy, const problem& data) {
        return [&data, policy, rule](index_t t) {
          detail::launch("ladder", policy, {blocks_of(data.k()), threads}, compact<std::uint32_t>,
                         data.at(), data.indices_32.data(), data.k(), rule(t));
        };
      },
      [](const problem& data) {
        return 20.0 * static_cast<double>(data.k()) + 32 * 3 * data.sectors(2);
      });
  add(
      "5_library",
      [](const exec::cuda& policy, const problem& data) {
        auto optimizer = std::make_shared<device_masked_adamw<bfloat16>>(
            policy, index_set(data.selected, data.d), options);
        return [&data, policy, optimizer](index_t) {
          optimizer->begin_step(learning_rate);
          optimizer->update(policy, 0, data.theta.view(),
                            vector_view<const bfloat16, device_space>(data.gradient.view()));
        };
      },
      [](const problem& data) {
        return 18.0 * static_cast<double>(data.k()) + 32 * 3 * data.sectors(2);
      });
  return bench::run(argc, argv);
}
