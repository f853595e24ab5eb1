// Proves: host memory given to a device's algorithm, or device memory to the host's, does not compile; nor
// does a type of number that a loop is not made for. Against: calls that are right but for one argument.
// Compiled as C++ with a processor in the device's place.
#if !defined(SHOULD_FAIL)
#define SHOULD_FAIL 0
#endif
// A variant needs one of them: the rest would only be read.
#include <dualsft/accumulate.cuh>
#if SHOULD_FAIL == 0 || SHOULD_FAIL == 9
#include <dualsft/adapt/thrust.hpp>
#endif
#if SHOULD_FAIL == 0 || SHOULD_FAIL == 6 || SHOULD_FAIL == 7
#include <dualsft/optim/masked_adamw.cuh>
#endif
#if SHOULD_FAIL == 0 || SHOULD_FAIL == 4 || SHOULD_FAIL == 5 || SHOULD_FAIL == 8
#include <dualsft/projection.cuh>
#endif
#include <vector>

// expected-error 1: "device_space" or "no matching function for call to 'accumulate'"
// expected-error 2: "device_space" or "no matching function for call to 'accumulate'"
// expected-error 3: "constraints not satisfied" or "no matching function for call to 'accumulate'"
// expected-error 4: "exec::cuda needs the .cuh header" or "device_space" or "no matching function for call to 'topk'"
// expected-error 5: "could not convert" or "no matching function for call to 'project_and_select'"
// expected-error 6: "device_space" or "no matching member function for call to 'update'"
// expected-error 7: "weights are float, bfloat16 or float16"
// expected-error 8: "cannot convert" or "no matching function for call to 'write_mask'"
// expected-error 9: "constraints not satisfied" or "no matching function for call to 'as_device_view'"

using namespace dualsft;

int main() {
  [[maybe_unused]] const exec::cuda policy;
  std::vector<float> host(32);
  std::vector<std::uint32_t> words(1);
  [[maybe_unused]] const vector_view<float> here(host);
  [[maybe_unused]] const vector_view<float, device_space> there(nullptr, 0);
#if SHOULD_FAIL == 1
  accumulate(policy, here, there);
#elif SHOULD_FAIL == 2
  accumulate(exec::cpu{}, there, here);
#elif SHOULD_FAIL == 3
  accumulate(policy, there, vector_view<bfloat16, device_space>());  // no sums in 16 bits
#elif SHOULD_FAIL == 4
  topk(policy, here, {0});
#elif SHOULD_FAIL == 5
  topk_workspace workspace(policy, 0);
  project_and_select(policy, {}, {}, here, {}, {0}, workspace);
#elif SHOULD_FAIL == 6
  device_masked_adamw<float> optimizer(policy, index_set({}, 0));
  optimizer.update(policy, 0, here, there);
#elif SHOULD_FAIL == 7
  device_masked_adamw<double> wide(policy, index_set({}, 0));
#elif SHOULD_FAIL == 8
  write_mask(policy, detail::stored_scores_at<float>{nullptr, 0}, topk_by::value, {}, 0,
             vector_view<std::uint32_t>(words));
#elif SHOULD_FAIL == 9
  as_device_view(host);
#else
  accumulate(policy, there, there);
  topk(policy, there, {0});
  topk_workspace workspace(policy, 0);
  project_and_select(policy, {}, {}, there, {}, {0}, workspace);
  device_masked_adamw<float> optimizer(policy, index_set({}, 0));
  optimizer.begin_step(0.1);
  optimizer.update(policy, 0, there, there);
  write_mask(policy, detail::stored_scores_at<float>{nullptr, 0}, topk_by::value, {}, 0,
             vector_view<std::uint32_t, device_space>());
#endif
}
