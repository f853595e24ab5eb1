// Measures: a batch's gradient added to the pool's G, and AdamW's second moment, on a device.
// Against: a copy within the device at the same moments (bytes read and written count on both sides).
// Must reach: 0.90 of the copy.
//
// n = 3,212,749,824 is Llama-3.2-3B; 25,165,824 its largest matrix but the embedding, whose sums (100 MB)
// and gradients (50 MB) lie behind a cold cache too.
#include <cmath>
#include <dualsft/accumulate.cuh>
#include <type_traits>
#include <vector>

#include "support/device_bench.cuh"
#include "support/device_inputs.cuh"

namespace {

using namespace dualsft;

enum class what { gradient, second_moment };
constexpr double beta2 = 0.999;

template <class Policy, class From, class Sum>
void apply(what which, const Policy& policy, const From& from, const Sum& sum) {
  if (which == what::gradient)
    accumulate(policy, from, sum);
  else
    accumulate_second_moment(policy, from, beta2, sum);
}

template <class T>
void accumulated(benchmark::State& state, what which, index_t n) {
  const exec::cuda policy = bench::policy();
  if (!bench::fits(state, static_cast<double>(n) * (sizeof(T) + sizeof(float)))) return;
  const bench::drawn gradients{bench::spread::heavy_tailed, 1}, sums{bench::spread::normal, 2};
  const detail::device_array<T> gradient(policy, n);
  const detail::device_array<float> sum(policy, n);
  bench::fill(policy, gradient.view(), gradients);
  bench::fill(policy, sum.view(), sums);
  const vector_view<const T, device_space> from = gradient.view();
  const auto once = [&](index_t) { apply(which, policy, from, sum.view()); };

  once(0);
  std::vector<T> some_gradients;
  std::vector<float> right, found;
  for (const index_t i : bench::places(n)) {
    some_gradients.push_back(convert_float<T>(gradients(i)));
    right.push_back(sums(i));
    found.push_back(bench::read_at(policy, sum.data(), i));
  }
  apply(which, exec::reference{}, vector_view<const T>(some_gradients), vector_view<float>(right));
  if (!bench::check(state, found == right, "the sums differ from the host's")) return;

  bench::device_timer timer(state);
  timer.moves(static_cast<double>(n) * (sizeof(T) + 2 * sizeof(float)));
  timer.at_least("ratio_to_copy", 0.90);
  timer.run(once);
}

}  // namespace

int main(int argc, char** argv) {
  for (const index_t n : {index_t{25165824}, index_t{1} << 30, index_t{3212749824}}) {
    const index_t size = bench::pick<index_t>(n, n % 1000 + 999);
    const std::string at = "/n:" + std::to_string(n);
    using benchmark::State;
    for (const what which : {what::gradient, what::second_moment}) {
      const std::string name = which == what::gradient ? "accumulate" : "second_moment";
      bench::add(name + "/bf16" + at, [=](State& s) { accumulated<bfloat16>(s, which, size); });
      bench::add(name + "/f32" + at, [=](State& s) { accumulated<float>(s, which, size); });
    }
  }
  return bench::run(argc, argv);
}
