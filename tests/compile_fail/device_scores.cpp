// Proves: the device's scores, losses, forward derivatives and products take no host memory: each call does
// not compile with one host view among its arguments. Against: the same calls with device memory.
// Compiled as C++ with a processor in the device's place.
#if !defined(SHOULD_FAIL)
#define SHOULD_FAIL 0
#endif
// A variant needs one of them: the rest would only be read.
#define DUALSFT_TAKES(variant) (SHOULD_FAIL == 0 || SHOULD_FAIL == variant)
#if DUALSFT_TAKES(1)
#include <dualsft/dense_scores.cuh>
#endif
#if DUALSFT_TAKES(2)
#include <dualsft/ghost_scores.cuh>
#endif
#if DUALSFT_TAKES(3)
#include <dualsft/cwsd.cuh>
#endif
#if DUALSFT_TAKES(4)
#include <dualsft/cwsd_head.cuh>
#endif
#if DUALSFT_TAKES(5)
#include <dualsft/llm/tangents.cuh>
#endif
#if DUALSFT_TAKES(6)
#include <dualsft/llm/attention.cuh>
#endif
#if DUALSFT_TAKES(7)
#include <dualsft/llm/nll_tangents.cuh>
#endif
#if DUALSFT_TAKES(8)
#include <dualsft/device_products.cuh>
#endif
#if DUALSFT_TAKES(9)
#include <dualsft/quota.cuh>
#endif
#include <dualsft/execution.cuh>
#include <vector>

// expected-error 1: "dualsft::host_space"
// expected-error 2: "dualsft::host_space"
// expected-error 3: "dualsft::host_space"
// expected-error 4: "dualsft::host_space"
// expected-error 5: "dualsft::host_space"
// expected-error 6: "dualsft::host_space"
// expected-error 7: "dualsft::host_space" or "no known conversion from 'vector_view<[...], space>'"
// expected-error 8: "dualsft::host_space"
// expected-error 9: "dualsft::host_space" or "no known conversion from 'vector_view<[...], space>'"

using namespace dualsft;

int main() {
  const exec::cuda policy;
  std::vector<float> host(32);
  [[maybe_unused]] const matrix_view<float, device_space> there(nullptr, 0, 0);
  [[maybe_unused]] const vector_view<const index_t, device_space> numbers;
  [[maybe_unused]] const vector_view<double, device_space> sums;
#if SHOULD_FAIL == 0
  using space = device_space;
#else
  using space = host_space;
#endif
  [[maybe_unused]] const matrix_view<float, space> place(host.data(), 4, 8);
#if DUALSFT_TAKES(1)
  dense_scores(policy, place, dense_inputs<float, device_space>{}, {});
#endif
#if DUALSFT_TAKES(2)
  ghost_workspace ghosts(policy, 1, 1, 1);
  add_ghost_scores(policy, device_affine_trace<float>{place, there, numbers}, there, {}, sums,
                   ghosts);
#endif
#if DUALSFT_TAKES(3)
  cwsd(policy, {}, there, place, cwsd_rows<>{numbers}, cwsd_outputs<float>{});
#endif
#if DUALSFT_TAKES(4)
  cwsd_head_workspace head(policy, std::span<const index_t>(), std::span<const std::int64_t>(),
                           1024);
  cwsd_through_head(policy, {}, cwsd_head_inputs<float>{there, place, there, there},
                    cwsd_head_outputs<float>{}, {}, head);
#endif
#if DUALSFT_TAKES(5)
  const llm::tangent_rows<float> rows{there, there};
  llm::gate_tangent<float>(policy, llm::gate_activation::silu, rows,
                           llm::tangent_rows<const float>{place, place}, rows);
#endif
#if DUALSFT_TAKES(6)
  llm::attention(policy, {1, 1, 8}, numbers, llm::attention_inputs<float>{there, place, there},
                 there);
#endif
#if DUALSFT_TAKES(7)
  llm::nll_tangent(policy, numbers, llm::tangent_rows<const float>{there, there},
                   vector_view<double, space>(), sums);
#endif
#if DUALSFT_TAKES(8)
  device_products products{vector_view<unsigned char, device_space>()};
  products.a_bt("", policy, there, there, place);
#endif
#if DUALSFT_TAKES(9)
  topk_workspace workspace(policy, 0);
  topk_with_quotas(policy, detail::stored_scores_at<float>{nullptr, 0}, parameter_layout(), {},
                   workspace, vector_view<std::uint32_t, space>());
#endif
}
