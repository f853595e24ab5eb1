// Proves: a policy without a back end is an error that says so, and host algorithms refuse views of
// device memory; nothing falls back silently.
// Against: the sentences of topk.hpp and dense_scores.hpp, and a policy that they do not know.
#include <dualsft/dense_scores.hpp>
#include <dualsft/topk.hpp>
#include <vector>

// expected-error 1: "dualsft::topk: no back end for this execution policy; exec::reference and exec::cpu run on the host, exec::cuda needs the .cuh header"
// expected-error 2: "dualsft::dense_scores: no back end for this execution policy; exec::reference and exec::cpu run on the host, exec::cuda needs the .cuh header"
// expected-error 3: "no matching function for call to 'topk" or "no matching function for call to ‘topk"
// expected-error 4: "no matching function for call to 'dense_scores" or "no matching function for call to ‘dense_scores"
// expected-error 5: "no matching function for call to 'topk" or "no matching function for call to ‘topk"

using namespace dualsft;

struct abacus {
  using memory_space = host_space;
};
static_assert(ExecutionPolicy<abacus> && !HostPolicy<abacus>);

struct not_a_source {};

int main() {
  std::vector<double> x(6, 1.0);
  [[maybe_unused]] const vector_view<const double, device_space> device_scores(x.data(), 6);
  [[maybe_unused]] const matrix_view<const double, device_space> device_gradients(x.data(), 2, 3);
  const dense_inputs<double> inputs{.validation = vector_view<const double>(x).subview(0, 3)};
#if SHOULD_FAIL == 1
  topk(abacus{}, stored_scores<double>(vector_view<const double>(x)), {.k = 2});
#elif SHOULD_FAIL == 2
  dense_scores(abacus{}, matrix_view<const double>(x.data(), 2, 3), inputs, {});
#elif SHOULD_FAIL == 3
  topk(exec::cpu{}, device_scores, {.k = 2});
#elif SHOULD_FAIL == 4
  dense_scores(exec::cpu{}, device_gradients, inputs, {});
#elif SHOULD_FAIL == 5
  topk(exec::cpu{}, not_a_source{}, {.k = 2});
#else
  topk(exec::cpu{}, vector_view<const double>(x), {.k = 2});
  dense_scores(exec::reference{}, matrix_view<const double>(x.data(), 2, 3), inputs, {});
#endif
}
