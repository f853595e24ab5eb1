// Measures: one step of masked AdamW over a random 5 % of d coordinates on a device, all at once and
// matrix by matrix as a backward pass delivers gradients.
// Against: a copy within the device at the same moments. Bytes: m and s read and written, an index of 2
// bytes, masters read and written, and each 32-byte sector of the gradient (read) and of the weights
// (read and written) that holds a selected coordinate. Beside it, interleaved, a plain kernel of dense
// AdamW with m and s of every coordinate.
// Must reach: 5 ms at d = 3,212,749,824 (Llama-3.2-3B), at most 2.6 GB of state.
#include <cmath>
#include <dualsft/optim/masked_adamw.cuh>
#include <dualsft/random.hpp>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "support/device_bench.cuh"
#include "support/device_inputs.cuh"

namespace {

using namespace dualsft;

constexpr index_t reference_size = 3212749824;
constexpr index_t matrix_size = index_t{8192} * 3072;  // 50 MB in 16 bits: Llama-3.2-3B's largest
constexpr double learning_rate = 1e-3;
constexpr adamw_options options{.weight_decay = 0.01};

/// Each coordinate with a probability of 1/20; gaps are drawn, so that the unselected cost nothing.
paged_index_set random_twentieth(index_t d) {
  random_source random(5);
  const double scale = 1 / std::log(1 - 1.0 / 20);
  std::vector<index_t> chosen;
  chosen.reserve(static_cast<std::size_t>(d) / 19);
  double next = std::floor(std::log(1 - random.uniform()) * scale);
  while (next < static_cast<double>(d)) {
    chosen.push_back(static_cast<index_t>(next));
    next += 1 + std::floor(std::log(1 - random.uniform()) * scale);
  }
  return paged_index_set(index_set(std::move(chosen), d));
}

/// Made once for each d: it takes the host seconds.
const paged_index_set& selected_of(index_t d) {
  static std::optional<paged_index_set> made;
  if (!made || made->universe() != d) made = random_twentieth(d);
  return *made;
}

/// 32-byte sectors that hold a selected one of coordinates of `size` bytes.
double sectors(const paged_index_set& selected, index_t size) {
  index_t count = 0, last = -1;
  selected.for_each_run(0, selected.size(), [&](index_t, index_t base, const auto& offsets) {
    for (const std::uint16_t offset : offsets) {
      const index_t sector = (base + offset) * size / 32;
      count += sector != last ? 1 : 0;
      last = sector;
    }
  });
  return static_cast<double>(count);
}

template <class T>
__global__ void dense_adamw(T* theta, const T* gradient, float* m, float* s, index_t n,
                            adamw_rule<float>::coefficients c) {
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride)
    theta[i] = convert_float<T>(adamw_rule<float>::moved(c, convert_float<float>(theta[i]), m[i],
                                                         s[i], convert_float<float>(gradient[i])));
}

/// One step of the host's optimizer on some coordinates, all selected.
/// \return  theta as the device stores it
std::vector<float> stepped_on_host(const std::vector<float>& theta, std::vector<float> gradient) {
  std::vector<float> out(theta);
  masked_adamw<float> host(index_set::all(static_cast<index_t>(theta.size())), options);
  host.step(exec::reference{}, std::span<float>(out), std::span<const float>(gradient),
            learning_rate);
  return out;
}

template <class T>
struct problem {
  bench::drawn weights{bench::spread::normal, 1}, gradients{bench::spread::heavy_tailed, 2};
  detail::device_array<T> theta, gradient;

  problem(const exec::cuda& policy, index_t d, index_t gradient_size)
      : theta(policy, d), gradient(policy, gradient_size) {
    bench::fill(policy, theta.view(), weights);
    bench::fill(policy, gradient.view(), gradients);
  }

  /// After one step: some selected coordinates, and their neighbours that are not.
  bool is_right(const exec::cuda& policy, const paged_index_set& selected) const {
    std::vector<float> before, moved, found;
    for (const index_t place : bench::places(theta.size())) {
      const bool chosen = selected.rank(place) != selected.rank(place + 1);
      const float w = convert_float<float>(convert_float<T>(weights(place)));
      const float now = convert_float<float>(bench::read_at(policy, theta.data(), place));
      if (!chosen && now != w) return false;
      if (!chosen) continue;
      before.push_back(w);
      moved.push_back(convert_float<float>(convert_float<T>(gradients(place % gradient.size()))));
      found.push_back(now);
    }
    std::vector<float> right = stepped_on_host(before, moved);
    for (float& x : right) x = convert_float<float>(convert_float<T>(x));
    return !found.empty() && found == right;
  }
};

enum class gradients { at_once, by_matrix };

template <class T>
void masked_step(benchmark::State& state, index_t d, master_weights masters, gradients arrive) {
  const exec::cuda policy = bench::policy();
  const bool whole = arrive == gradients::at_once;
  const index_t matrix = whole ? d : std::min(d, bench::pick<index_t>(matrix_size, 5000));
  if (!bench::fits(state, static_cast<double>(d) * (2.0 * sizeof(T) + 0.7 + (whole ? 8.0 : 0.0))))
    return;
  const paged_index_set& selected = selected_of(d);
  const problem<T> data(policy, d, matrix);
  device_masked_adamw<T> optimizer(policy, selected, options, masters);
  const auto step = [&](index_t) {
    optimizer.begin_step(learning_rate);
    for (index_t offset = 0; offset < d; offset += matrix) {
      const index_t n = std::min(matrix, d - offset);
      optimizer.update(policy, offset, data.theta.view().subview(offset, n),
                       vector_view<const T, device_space>(data.gradient.data(), n));
    }
  };
  step(0);
  if (!bench::check(state, data.is_right(policy, selected), "weights differ from the host's"))
    return;

  // Matrix by matrix each gradient is as warm as it was left: they share one place.
  bench::device_timer timer(state);
  const auto k = static_cast<double>(selected.size());
  const double touched = 32 * sectors(selected, sizeof(T));
  timer.moves(k * (16 + 2 + (masters == master_weights::keep ? 8 : 0)) + touched * (whole ? 3 : 2));
  if (d == reference_size) {
    timer.at_most("ms", 5);
    timer.at_most("state_bytes", 2.6e9);
  }
  timer.note("state_bytes", static_cast<double>(optimizer.memory_bytes()));
  detail::device_array<float> m, s;
  if (whole && masters == master_weights::none) {
    m = {policy, d};
    s = {policy, d};
    m.fill_bytes(0);
    s.fill_bytes(0);
    timer.against("dense_adamw", [&](index_t round) {
      detail::launch("bench", policy, {bench::pick(8192U, 8U), 256}, dense_adamw<T>,
                     data.theta.data(), data.gradient.data(), m.data(), s.data(), d,
                     adamw_rule<float>::at(options, round + 1, learning_rate));
    });
  }
  timer.run(step);
}

template <class T>
void add(const char* type, index_t d, master_weights masters, gradients arrive) {
  const std::string name =
      std::string("masked_adamw/") + type + (masters == master_weights::keep ? "/masters" : "") +
      (arrive == gradients::by_matrix ? "/by_matrix" : "") + "/d:" + std::to_string(d);
  const index_t size = bench::pick<index_t>(d, 70001);
  bench::add(
      name, [=](benchmark::State& state) { masked_step<T>(state, size, masters, arrive); }, 10);
}

}  // namespace

int main(int argc, char** argv) {
  for (const master_weights masters : {master_weights::none, master_weights::keep})
    for (const gradients arrive : {gradients::at_once, gradients::by_matrix})
      add<bfloat16>("bf16", reference_size, masters, arrive);
  add<float>("f32", index_t{1} << 30, master_weights::none, gradients::at_once);
  return bench::run(argc, argv);
}
