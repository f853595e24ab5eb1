// Proves: a member that has the name of an ability but does not fit it is one readable sentence.
// Against: the sentences of concepts.hpp; each variant spoils one member of a model that is right.
#include <dualsft/concepts.hpp>

// expected-error 1: "dualsft::GradientModel: the member `parameters` must be both"
// expected-error 2: "dualsft::GradientModel: the member `gradient_blocks` must be"
// expected-error 3: "dualsft::GradientModel: the member `example_gradient` must be"
// expected-error 4: "dualsft::GradientModel: the member `traces` must be"
// expected-error 5: "dualsft::GradientModel: the member `forward_derivatives` must be"
// expected-error 6: "dualsft::GradientModel: the member `accumulate_hessian_product` must be"
// expected-error 7: "dualsft::GradientModel: a model with a member `logits` must have all of"
// expected-error 8: "dualsft::GradientModel: the member `traces` must be"

#ifndef SHOULD_FAIL
#define SHOULD_FAIL 0
#endif

using dualsft::example_span;
using dualsft::index_t;

struct model {
  using scalar_type = double;
  const dualsft::parameter_layout& layout() const;
  void losses(example_span, std::span<double>) const;
  void accumulate_gradient(example_span, std::span<double>) const;

  std::span<double> parameters(index_t block);
#if SHOULD_FAIL != 1  // no const overload
  std::span<const double> parameters(index_t block) const;
#endif
#if SHOULD_FAIL == 2  // not const
  template <class Sink>
  void gradient_blocks(example_span, Sink&& sink);
#else
  template <class Sink>
  void gradient_blocks(example_span, Sink&& sink) const;
#endif
#if SHOULD_FAIL == 3  // returns what it should write
  std::span<double> example_gradient(index_t example) const;
#else
  void example_gradient(index_t example, std::span<double>) const;
#endif
#if SHOULD_FAIL == 4  // not const
  template <class Sink>
  void traces(example_span, Sink&& sink);
#elif SHOULD_FAIL == 8  // another scalar's traces
  struct float_sink {
    void operator()(const dualsft::affine_trace<float>&) const;
  };
  void traces(example_span, const float_sink&) const;
#else
  template <class Sink>
  void traces(example_span, Sink&& sink) const;
#endif
#if SHOULD_FAIL == 5  // out in float
  void forward_derivatives(example_span, std::span<const double>, std::span<float>) const;
#else
  void forward_derivatives(example_span, std::span<const double>, std::span<double>) const;
#endif
#if SHOULD_FAIL == 6  // x mutable
  void accumulate_hessian_product(example_span, std::span<double>, std::span<double>) const;
#else
  void accumulate_hessian_product(example_span, std::span<const double>, std::span<double>) const;
#endif
#if SHOULD_FAIL != 7
  index_t classes() const;
#endif
  index_t logit_rows(index_t example) const;
  void logits(example_span, dualsft::matrix_view<double>) const;
  void accumulate_logit_gradient(example_span, dualsft::matrix_view<const double>,
                                 std::span<double>) const;
};

static_assert(dualsft::check_gradient_model<model>());

int main() {}
