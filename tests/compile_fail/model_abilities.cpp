// Proves: each ability that a model lacks is one readable sentence.
// Against: the sentences that concepts.hpp promises; the archetypes have exactly one ability each.
#include <dualsft/archetypes.hpp>

// expected-error 1: "dualsft::TrainableModel: the model needs `std::span<scalar_type> parameters(dualsft::index_t block)` and `std::span<const scalar_type> parameters(dualsft::index_t block) const`"
// expected-error 2: "dualsft::TraceModel: the model needs `template <class Sink> void traces(std::span<const dualsft::index_t> examples, Sink&& sink) const` (see dualsft/traces.hpp)"
// expected-error 3: "dualsft::ForwardDerivativeModel: the model needs `void forward_derivatives(std::span<const dualsft::index_t> examples, std::span<const scalar_type> direction, std::span<double> out) const`"
// expected-error 4: "dualsft::CurvatureModel: the model needs `void accumulate_hessian_product(std::span<const dualsft::index_t> examples, std::span<const scalar_type> x, std::span<scalar_type> out) const`, or `parameters(block)` so that a difference of gradients can be taken"
// expected-error 5: "dualsft::LogitModel: the model needs `index_t classes() const`, `index_t logit_rows(index_t example) const`"
// expected-error 6: "dualsft::HasGradientBlocks: the model needs `template <class Sink> void gradient_blocks(std::span<const dualsft::index_t> examples, Sink&& sink) const`"
// expected-error 7: "dualsft::HasExampleGradient: the model needs `void example_gradient(dualsft::index_t example, std::span<scalar_type> out) const`"
// expected-error 8: "dualsft::HasEmbedding: the model needs `index_t embedding_size() const`"

namespace archetypes = dualsft::archetypes;
using bare = archetypes::gradient_model<double>;

template <bool Lacking, class Good>
using model = std::conditional_t<Lacking, bare, Good>;

#ifndef SHOULD_FAIL
#define SHOULD_FAIL 0
#endif

static_assert(
    dualsft::check_trainable_model<model<SHOULD_FAIL == 1, archetypes::trainable_model<double>>>());
static_assert(
    dualsft::check_trace_model<model<SHOULD_FAIL == 2, archetypes::trace_model<double>>>());
static_assert(dualsft::check_forward_derivative_model<
              model<SHOULD_FAIL == 3, archetypes::forward_derivative_model<double>>>());
static_assert(dualsft::check_curvature_model<
              model<SHOULD_FAIL == 4, archetypes::hessian_product_model<double>>>());
static_assert(dualsft::check_curvature_model<archetypes::trainable_model<double>>());
static_assert(
    dualsft::check_logit_model<model<SHOULD_FAIL == 5, archetypes::logit_model<double>>>());
static_assert(dualsft::check_gradient_block_model<
              model<SHOULD_FAIL == 6, archetypes::block_model<double>>>());
static_assert(dualsft::check_example_gradient_model<
              model<SHOULD_FAIL == 7, archetypes::example_gradient_model<double>>>());
static_assert(
    dualsft::check_embedding_model<model<SHOULD_FAIL == 8, archetypes::embedding_model<double>>>());

int main() {}
