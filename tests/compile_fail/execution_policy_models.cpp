// Proves: what takes a model says in a sentence that it has no back end for a policy.
// Against: the sentences of the headers, and a policy that they do not know.
#include <dualsft/archetypes.hpp>
#include <dualsft/optim/sgd.hpp>
#include <dualsft/pipeline.hpp>

// expected-error 1: "dualsft::sum_gradients: no back end for this execution policy; exec::reference and exec::cpu run on the host, exec::cuda needs the .cuh header"
// expected-error 2: "dualsft::data_scores: no back end for this execution policy; exec::reference and exec::cpu run on the host, exec::cuda needs the .cuh header"
// expected-error 3: "dualsft::dual_scores: no back end for this execution policy; exec::reference and exec::cpu run on the host, exec::cuda needs the .cuh header"
// expected-error 4: "dualsft::train: no back end for this execution policy; exec::reference and exec::cpu run on the host, exec::cuda needs the .cuh header"
// expected-error 5: "dualsft::dual_sft: no back end for this execution policy; exec::reference and exec::cpu run on the host, exec::cuda needs the .cuh header"

#ifndef SHOULD_FAIL
#define SHOULD_FAIL 0
#endif

using namespace dualsft;

struct abacus {
  using memory_space = host_space;
};

// The way to a back end of one's own: an overload on the policy is taken before the sentence.
template <GradientModel M>
gradient_sums sum_gradients(const abacus&, const M&, example_span, const gradient_options&) {
  return {};
}

struct tally {
  using memory_space = host_space;
};

template <class Policy>
void use(const Policy& policy, archetypes::trainable_model<double>& model) {
  const std::vector<double> v;
  sgd<double> optimizer(0);
#if SHOULD_FAIL == 1
  sum_gradients(tally{}, model, {});
#elif SHOULD_FAIL == 2
  data_scores(tally{}, model, {}, projection<double>{});
#elif SHOULD_FAIL == 3
  dual_scores(tally{}, model, {}, {}, v);
#elif SHOULD_FAIL == 4
  train(tally{}, model, optimizer, {});
#elif SHOULD_FAIL == 5
  dual_sft(tally{}, model, data_split{});
#else
  sum_gradients(policy, model, {}, {});
#endif
}

int main() {
  archetypes::trainable_model<double>* model = nullptr;
  use(abacus{}, *model);
}
