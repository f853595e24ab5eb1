// Proves: each member that GradientModel asks for and a model lacks is one readable sentence.
// Against: the sentences that concepts.hpp promises.
#include <dualsft/concepts.hpp>

// expected-error 1: "dualsft::GradientModel: the model must declare `using scalar_type = double;` (or float)"
// expected-error 2: "dualsft::GradientModel: `scalar_type` must be float or double"
// expected-error 3: "dualsft::GradientModel: the model needs `const dualsft::parameter_layout& layout() const`"
// expected-error 4: "dualsft::GradientModel: the model needs `void losses(std::span<const dualsft::index_t> examples, std::span<double> out) const`"
// expected-error 5: "dualsft::GradientModel: the model needs `void accumulate_gradient(std::span<const dualsft::index_t> examples, std::span<scalar_type> out) const`"
// expected-error 6: "dualsft::GradientModel: the model needs `const dualsft::parameter_layout& layout() const`"
// expected-error 7: "dualsft::GradientModel: the model needs `void losses(std::span<const dualsft::index_t> examples, std::span<double> out) const`"

#ifndef SHOULD_FAIL
#define SHOULD_FAIL 0
#endif

struct model {
#if SHOULD_FAIL == 2
  using scalar_type = int;
#elif SHOULD_FAIL != 1
  using scalar_type = double;
#endif
#if SHOULD_FAIL == 6
  dualsft::parameter_layout layout() const;  // a copy, not a reference
#elif SHOULD_FAIL != 3
  const dualsft::parameter_layout& layout() const;
#endif
#if SHOULD_FAIL == 7
  void losses(dualsft::example_span examples, std::span<double> out);  // not const
#elif SHOULD_FAIL != 4
  void losses(dualsft::example_span examples, std::span<double> out) const;
#endif
#if SHOULD_FAIL == 2
  void accumulate_gradient(dualsft::example_span examples, std::span<int> out) const;
#elif SHOULD_FAIL != 5
  void accumulate_gradient(dualsft::example_span examples, std::span<double> out) const;
#endif
};

static_assert(dualsft::check_gradient_model<model>());

int main() {}
