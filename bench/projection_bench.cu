// Measures: p = v - (eta/2) C, its bf16 copy, the best 5 % of phi_P = eta G p and their mask, on a device:
// project_and_select, then write_mask.
// Against: a copy within the device at the same moments. Bytes: every input read once, every output
// written once, and what the mask reads again (G, p; for the joint order D' and Q too).
// In C++ beside it, where memory allows: phi_P written by one plain pass, then sorted by
// cub::DeviceRadixSort (a sort of the keys alone names no member yet).
// Must reach: 30 ms in all at d = 3,212,749,824 (Llama-3.2-3B).
#include <dualsft/projection.cuh>
#include <string>
#include <vector>

#include "support/device_bench.cuh"
#include "support/device_inputs.cuh"
#include "support/selection_check.cuh"
#ifdef __CUDACC__
#include <cub/device/device_radix_sort.cuh>
#endif

namespace {

using namespace dualsft;

constexpr index_t reference_size = 3212749824;

struct inputs {
  score_rule rule;
  bench::drawn v, gradient, curvature, hessian_gradient, squares;
  detail::device_array<float> v_, gradient_, curvature_, hessian_gradient_, squares_, effective_;
  detail::device_array<bfloat16> rounded_;

  inputs(const exec::cuda& policy, const score_rule& r, bench::spread how, index_t d)
      : rule(r),
        v{how, 1},
        gradient{how, 2},
        curvature{how, 3},
        hessian_gradient{how, 4},
        squares{how, 5},
        v_(policy, d),
        gradient_(policy, d),
        curvature_(policy, needs_curvature(r) ? d : 0),
        hessian_gradient_(policy, needs_hessian_gradient(r) ? d : 0),
        squares_(policy, needs_squares(r) ? d : 0),
        effective_(policy, r.order == score_order::joint ? d : 0),
        rounded_(policy, d) {
    bench::fill(policy, gradient_.view(), gradient);
    bench::fill_positive(policy, curvature_.view(), curvature);
    bench::fill(policy, hessian_gradient_.view(), hessian_gradient);
    bench::fill_positive(policy, squares_.view(), squares);
  }

  void refill(const exec::cuda& policy) const { bench::fill(policy, v_.view(), v); }

  device_rule_inputs read() const {
    return {gradient_.view(), curvature_.view(), hessian_gradient_.view(), squares_.view()};
  }
  device_projection_outputs written() const { return {effective_.view(), rounded_.view()}; }
  auto scores() const {
    return device_parameter_scores(rule, gradient_.view(), v_.view(), effective_.view(),
                                   squares_.view());
  }

  /// Of one coordinate.
  static double bytes(const score_rule& rule) {
    const int read = 2 + (needs_curvature(rule) ? 1 : 0) + (needs_hessian_gradient(rule) ? 1 : 0) +
                     (needs_squares(rule) ? 1 : 0);
    const bool joint = rule.order == score_order::joint;
    return 4.0 * read + (4 + 2 + (joint ? 4 : 0)) + (joint ? 16 : 8) + 0.125;
  }
  static double held(const score_rule& rule) {
    const int vectors = 2 + (needs_curvature(rule) ? 1 : 0) +
                        (needs_hessian_gradient(rule) ? 1 : 0) + (needs_squares(rule) ? 2 : 0);
    return 4.0 * vectors + 2 + 0.125 + 0.45;  // p in 16 bits, mask, workspace
  }

  bool p_is_right(const exec::cuda& policy) const {
    for (const index_t i : bench::places(v_.size())) {
      const double d = curvature_.size() > 0 ? bench::read_at(policy, curvature_.data(), i) : 1.0;
      const double hg =
          hessian_gradient_.size() > 0 ? bench::read_at(policy, hessian_gradient_.data(), i) : 0.0;
      const auto p =
          static_cast<float>(detail::project_coordinate(rule, v(i), gradient(i), d, hg).p);
      if (bench::read_at(policy, v_.data(), i) != p) return false;
      if (bench::read_at(policy, rounded_.data(), i) != to_bfloat16(p)) return false;
    }
    return true;
  }
};

#ifdef __CUDACC__
__global__ void project_and_score(const float* v, const float* gradient, const float* curvature,
                                  index_t n, float eta, float* p, float* phi) {
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const float g = gradient[i];
    p[i] = v[i] - 0.5F * eta * curvature[i] * g;
    phi[i] = eta * g * p[i];
  }
}
#endif

void project(benchmark::State& state, score_order order, step_geometry step, bench::spread how,
             index_t d, bool beside_sort) {
  const exec::cuda policy = bench::policy();
  const score_rule rule{order, step, 0x1p-10};
  const auto size = static_cast<double>(d);
  if (!bench::fits(state, size * (inputs::held(rule) + (beside_sort ? 12 : 0)))) return;
  const inputs data(policy, rule, how, d);
  topk_workspace workspace(policy, d);
  const detail::device_array<std::uint32_t> words(policy, (d + 31) / 32);
  const topk_options best{.k = d / 20};
  device_projection found;
  const auto once = [&](index_t) {
    found = project_and_select(policy, rule, data.read(), data.v_.view(), data.written(), best,
                               workspace);
    write_mask(policy, data.scores(), best.by, found.selection, 0, words.view());
  };

  data.refill(policy);
  once(0);
  if (!bench::check(state, data.p_is_right(policy), "p differs from the host's")) return;
  if (!bench::check(
          state,
          bench::is_right_selection(policy, data.scores(), best.k, found.selection, words.data()),
          "the selection is not the K best"))
    return;

  bench::device_timer timer(state);
  timer.moves(size * inputs::bytes(rule));
  if (d == reference_size) timer.at_most("ms", 30);
#ifdef __CUDACC__
  detail::device_array<float> phi, sorted;
  detail::device_array<unsigned char> storage;
  std::size_t storage_bytes = 0;
  const auto sort = [&](unsigned char* at) {
    detail::cuda_check(cub::DeviceRadixSort::SortKeysDescending(
                           at, storage_bytes, phi.data(), sorted.data(), d, 0, 32, policy.stream),
                       "cub");
  };
  if (beside_sort) {
    phi = {policy, d};
    sorted = {policy, d};
    sort(nullptr);
    storage = {policy, static_cast<index_t>(storage_bytes)};
    timer.against(
        "pass_and_cub_sort",
        [&](index_t) {
          detail::launch("bench", policy, {4096, 256}, project_and_score, data.v_.data(),
                         data.gradient_.data(), data.curvature_.data(), d,
                         static_cast<float>(rule.eta), data.v_.data(), phi.data());
          sort(storage.data());
        },
        [&](index_t) { data.refill(policy); });
  }
#endif
  timer.run(once, [&](index_t) { data.refill(policy); });
}

void add(score_order order, step_geometry step, bench::spread how, index_t d,
         bool beside_sort = false) {
  const std::string name = std::string("projection/") + std::string(name_of(order)) + "/" +
                           std::string(name_of(step)) + "/" + bench::name_of(how) +
                           (beside_sort ? "/beside_sort" : "") + "/d:" + std::to_string(d);
  const index_t size = bench::pick<index_t>(d, 20011);
  bench::add(
      name, [=](benchmark::State& state) { project(state, order, step, how, size, beside_sort); },
      beside_sort ? 5 : 10);
}

}  // namespace

int main(int argc, char** argv) {
  using enum bench::spread;
  for (const bench::spread how : {normal, heavy_tailed, zeros, all_equal})
    add(score_order::diagonal, step_geometry::plain, how, reference_size);
  for (const score_order order : {score_order::first, score_order::full, score_order::joint})
    add(order, step_geometry::plain, normal, reference_size);
  add(score_order::diagonal, step_geometry::adamw, normal, reference_size);
  for (const index_t d : {reference_size, index_t{1} << 30})
    add(score_order::diagonal, step_geometry::plain, normal, d, true);
  return bench::run(argc, argv);
}
