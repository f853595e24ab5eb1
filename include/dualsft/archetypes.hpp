// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/concepts.hpp>

/// The smallest type that each concept accepts: not copyable, not default-constructible by
/// algorithms, offering nothing beyond the contract. Members are declared only: algorithms are
/// instantiated with them in a compile-only test, so one that quietly needs more breaks the build.
namespace dualsft::archetypes {

/// What is common to all: no copies, no moves.
template <class S>
struct gradient_model {
  using scalar_type = S;
  gradient_model() = default;
  gradient_model(const gradient_model&) = delete;
  gradient_model& operator=(const gradient_model&) = delete;
  const parameter_layout& layout() const;
  void losses(example_span examples, std::span<double> out) const;
  void accumulate_gradient(example_span examples, std::span<S> out) const;
};

template <class S>
struct trainable_model : gradient_model<S> {
  std::span<S> parameters(index_t block);
  std::span<const S> parameters(index_t block) const;
};

template <class S>
struct trace_model : gradient_model<S> {
  template <class Sink>
  void traces(example_span, Sink&& sink) const {
    sink(affine_trace<S>{});
    sink(embedding_trace<S>{});
    sink(scale_trace<S>{});
    sink(dense_trace<S>{});
  }
};

template <class S>
struct block_model : gradient_model<S> {
  template <class Sink>
  void gradient_blocks(example_span, Sink&& sink) const {
    sink(index_t{0}, std::span<const S>{});
  }
};

template <class S>
struct example_gradient_model : gradient_model<S> {
  void example_gradient(index_t example, std::span<S> out) const;
};

template <class S>
struct forward_derivative_model : gradient_model<S> {
  void forward_derivatives(example_span examples, std::span<const S> direction,
                           std::span<double> out) const;
};

template <class S>
struct hessian_product_model : gradient_model<S> {
  void accumulate_hessian_product(example_span examples, std::span<const S> x,
                                  std::span<S> out) const;
};

template <class S>
struct logit_model : gradient_model<S> {
  index_t classes() const;
  index_t logit_rows(index_t example) const;
  void logits(example_span examples, matrix_view<S> out) const;
  void accumulate_logit_gradient(example_span examples, matrix_view<const S> logit_gradients,
                                 std::span<S> out) const;
};

template <class S>
struct embedding_model : gradient_model<S> {
  index_t embedding_size() const;
  void embed(example_span examples, matrix_view<double> out) const;
};

static_assert(GradientModel<gradient_model<float>> && GradientModel<gradient_model<double>>);
static_assert(TrainableModel<trainable_model<double>> && !TrainableModel<gradient_model<double>>);
static_assert(TraceModel<trace_model<float>> && !TraceModel<trainable_model<float>>);
static_assert(HasGradientBlocks<block_model<float>>);
static_assert(HasExampleGradient<example_gradient_model<float>>);
static_assert(ForwardDerivativeModel<forward_derivative_model<double>>);
static_assert(CurvatureModel<hessian_product_model<double>> &&
              CurvatureModel<trainable_model<double>> && !CurvatureModel<gradient_model<double>>);
static_assert(LogitModel<logit_model<float>> && !LogitModel<gradient_model<float>>);
static_assert(HasEmbedding<embedding_model<float>>);

}  // namespace dualsft::archetypes
