// p, its bf16 copy, the K-th best phi_P and the mask of the best 5 %, from naive to the library: the
// diagonal order, G, v and D in f32, phi_P in double.
//
//   1 pass_per_operation  C = D G, p = v - (eta/2) C, the copy and phi each by a kernel of its own; eight
//                         passes over the stored phi count 8-bit digits; the mask reads phi: 126 bytes
//                         per coordinate move
//   2 fused               one kernel forms p, its copy and phi: 98 bytes     (expected: a fifth less)
//   3 twelve_bits         six passes instead of eight: 82 bytes              (expected: a sixth less)
//   4 never_stored        phi is formed anew from G and p wherever it is read; its highest digit is
//                         counted while p is formed: 66 bytes                (expected: a fifth less)
//   5 library             project_and_select: a sample tells between which two scores the boundary lies,
//                         the pass that forms p gathers those between; with the mask 26 bytes
//                         (expected: 40 % of step 4's time)
//
// No gain has been measured yet. Each step's p is compared with the host's, its boundary and mask with the
// definition at every coordinate, before it is timed.
#include <dualsft/projection.cuh>
#include <functional>
#include <memory>
#include <string>

#include "../support/device_bench.cuh"
#include "../support/selection_check.cuh"
#include "radix_select.cuh"

namespace {

using namespace dualsft;
using namespace dualsft::ladder;

constexpr score_rule rule{score_order::diagonal, step_geometry::plain, 0x1p-10};
constexpr bench::drawn v_numbers{bench::spread::normal, 1}, gradients{bench::spread::normal, 2},
    curvatures{bench::spread::normal, 3};

/// What a step reads and writes.
struct arrays {
  float* v;  // becomes p
  const float* gradient;
  const float* curvature;
  bfloat16* rounded;
  double* c;
  double* phi;
  std::uint32_t* words;
  index_t n;
};

/// As parameter_scores_at, from p.
DUALSFT_HOST_DEVICE double score_of(float gradient, float p) {
  return detail::rounded_product(detail::rounded_product(rule.eta, double{gradient}), double{p});
}

struct stored_keys {
  const double* phi;
  __device__ unsigned long long operator()(index_t i) const { return bench::ordered(phi[i]); }
};
struct formed_keys {
  const float* gradient;
  const float* p;
  __device__ unsigned long long operator()(index_t i) const {
    return bench::ordered(score_of(gradient[i], p[i]));
  }
};

__global__ void multiply(arrays at) {
  const index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < at.n) at.c[i] = double{at.curvature[i]} * double{at.gradient[i]};
}
__global__ void subtract(arrays at) {
  const index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < at.n) at.v[i] = static_cast<float>(double{at.v[i]} - 0.5 * rule.eta * at.c[i]);
}
__global__ void round(arrays at) {
  const index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < at.n) at.rounded[i] = to_bfloat16(at.v[i]);
}
__global__ void score(arrays at) {
  const index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < at.n) at.phi[i] = score_of(at.gradient[i], at.v[i]);
}

__device__ double projected_at(const arrays& at, index_t i) {
  const float g = at.gradient[i];
  const auto p =
      static_cast<float>(double{at.v[i]} - 0.5 * rule.eta * (double{at.curvature[i]} * double{g}));
  at.v[i] = p;
  at.rounded[i] = to_bfloat16(p);
  return score_of(g, p);
}

__global__ void project_and_store(arrays at) {
  const index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < at.n) at.phi[i] = projected_at(at, i);
}

__global__ void project_and_count(arrays at, digit digit_at, unsigned long long* counts) {
  __shared__ unsigned mine[1 << most_digit_bits];
  clear_counts(mine, digit_at);
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < at.n; i += stride)
    atomicAdd(&mine[digit_at.of(bench::ordered(projected_at(at, i)))], 1U);
  add_counts(mine, digit_at, counts);
}

/// A warp per word; ties at the boundary are all set.
template <class Keys>
__global__ void write_words(Keys keys, index_t n, unsigned long long kth, std::uint32_t* words) {
  constexpr unsigned everyone = 0xffffffffU;
  const index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const unsigned bits = __ballot_sync(everyone, i < n && keys(i < n ? i : 0) >= kth);
  if (i % 32 == 0 && i < n) words[i / 32] = bits;
}

unsigned one_each(index_t n) {
  return static_cast<unsigned>((n + threads - 1) / threads);
}

using step = std::function<double(const exec::cuda&, const arrays&, index_t k)>;

template <class Keys>
double select(const exec::cuda& policy, const arrays& at, radix_search& search, const Keys& keys) {
  while (!search.done()) search.pass(count_in_shared<Keys>, keys, at.n);
  detail::launch("ladder", policy, {one_each(at.n), threads}, write_words<Keys>, keys, at.n,
                 search.prefix(), at.words);
  return double_of(search.prefix());
}

double pass_per_operation(const exec::cuda& policy, const arrays& at, index_t k) {
  for (const auto& kernel : {multiply, subtract, round, score})
    detail::launch("ladder", policy, {one_each(at.n), threads}, kernel, at);
  radix_search search(policy, 64, 8, k);
  return select(policy, at, search, stored_keys{at.phi});
}

template <int DigitBits>
double fused(const exec::cuda& policy, const arrays& at, index_t k) {
  detail::launch("ladder", policy, {one_each(at.n), threads}, project_and_store, at);
  radix_search search(policy, 64, DigitBits, k);
  return select(policy, at, search, stored_keys{at.phi});
}

double never_stored(const exec::cuda& policy, const arrays& at, index_t k) {
  radix_search search(policy, 64, 12, k);
  const digit highest = search.next();
  detail::launch("ladder", policy, {bench::blocks_for(at.n), threads}, project_and_count, at,
                 highest, search.counts());
  search.choose(highest);
  return select(policy, at, search, formed_keys{at.gradient, at.v});
}

class by_library {
 public:
  by_library(const exec::cuda& policy, index_t n) : workspace_(policy, n) {}

  double operator()(const exec::cuda& policy, const arrays& at, index_t k) {
    using view = vector_view<const float, device_space>;
    const vector_view<float, device_space> v(at.v, at.n);
    const view gradient(at.gradient, at.n);
    const device_projection found = project_and_select(
        policy, rule, {.gradient = gradient, .curvature = view(at.curvature, at.n)}, v,
        {.rounded = {at.rounded, at.n}}, {k}, workspace_);
    write_mask(policy, device_parameter_scores(rule, gradient, v), topk_by::value, found.selection,
               0, vector_view<std::uint32_t, device_space>(at.words, (at.n + 31) / 32));
    return found.selection.summary.kth.value();
  }

 private:
  topk_workspace workspace_;
};

bool p_is_right(const exec::cuda& policy, const arrays& at) {
  for (const index_t i : bench::places(at.n)) {
    const double d = bench::read_at(policy, at.curvature, i);
    const auto p =
        static_cast<float>(detail::project_coordinate(rule, v_numbers(i), gradients(i), d, 0).p);
    if (bench::read_at(policy, at.v, i) != p ||
        bench::read_at(policy, at.rounded, i) != to_bfloat16(p))
      return false;
  }
  return true;
}

/// \param stores     whether the step needs room for C and phi
/// \param ties_cut   whether it leaves out the last of equals at the boundary
/// \param moved      bytes per coordinate
template <class Prepare>
void add(const char* name, const Prepare& prepare, bool stores, bool ties_cut, double moved) {
  bench::add(
      std::string("ladder/projection/") + name,
      [=](benchmark::State& state) {
        const exec::cuda policy = bench::policy();
        const index_t n = bench::pick(index_t{1} << 28, index_t{5003}), k = n / 20;
        const auto size = static_cast<double>(n);
        if (!bench::fits(state, size * (stores ? 31 : 15))) return;
        const detail::device_array<float> v(policy, n), gradient(policy, n), curvature(policy, n);
        const detail::device_array<bfloat16> rounded(policy, n);
        const detail::device_array<double> c(policy, stores ? n : 0), phi(policy, stores ? n : 0);
        const detail::device_array<std::uint32_t> words(policy, (n + 31) / 32);
        bench::fill(policy, gradient.view(), gradients);
        bench::fill_positive(policy, curvature.view(), curvatures);
        const arrays at{v.data(), gradient.data(), curvature.data(), rounded.data(),
                        c.data(), phi.data(),      words.data(),     n};
        const auto refill = [&](index_t) { bench::fill(policy, v.view(), v_numbers); };
        const step one = prepare(policy, n);

        refill(0);
        const double kth = one(policy, at, k);
        const auto scores = device_parameter_scores(rule, gradient.view(), v.view());
        const auto counts = bench::around(policy, scores, kth);
        const auto above = static_cast<index_t>(counts[0]);
        const auto equal = static_cast<index_t>(counts[1]);
        if (!bench::check(state, p_is_right(policy, at), "p differs from the host's") ||
            !bench::check(state, above < k && k <= above + equal, "not the K-th best") ||
            // Where several are equal at the boundary, which of them the mask has is not looked at here.
            !bench::check(state,
                          (ties_cut && equal > 1) ||
                              bench::is_right_mask(policy, scores, above + equal, kth, n, at.words),
                          "the mask is not that of the K best"))
          return;
        bench::device_timer timer(state);
        timer.moves(moved * size);
        timer.run([&](index_t) { one(policy, at, k); }, refill);
      },
      5);
}

}  // namespace

int main(int argc, char** argv) {
  const auto plain = [](double (*which)(const exec::cuda&, const arrays&, index_t)) {
    return [which](const exec::cuda&, index_t) -> step { return which; };
  };
  add("1_pass_per_operation", plain(pass_per_operation), true, false, 126.125);
  add("2_fused", plain(fused<8>), true, false, 98.125);
  add("3_twelve_bits", plain(fused<12>), true, false, 82.125);
  add("4_never_stored", plain(never_stored), false, false, 66.125);
  add(
      "5_library",
      [](const exec::cuda& policy, index_t n) -> step {
        const auto library = std::make_shared<by_library>(policy, n);
        return [=](const exec::cuda& on, const arrays& at, index_t k) {
          return (*library)(on, at, k);
        };
      },
      false, true, 26.125);
  return bench::run(argc, argv);
}
