// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <dualsft/config.hpp>
#include <dualsft/layout.hpp>
#include <dualsft/traces.hpp>
#include <dualsft/views.hpp>
#include <span>

/// What a model is, in atoms. The least is four members:
///
///     using scalar_type = double;                                  // or float
///     const parameter_layout& layout() const;
///     void losses(span<const index_t> examples, span<double> out) const;
///     void accumulate_gradient(span<const index_t> examples, span<scalar_type> out) const;
///
/// An *example* is a record number of the model's own data; batches are lists of record numbers,
/// so pool, validation set and anchors are lists over one data store, wherever that lives.
///
/// Everything else is an ability that unlocks or speeds up a step; what it replaces is derived
/// from the least where that is possible:
///
/// | ability              | member                              | without it                     |
/// |----------------------|-------------------------------------|--------------------------------|
/// | HasParameters        | parameters(block)                   | no training, no differences    |
/// | HasGradientBlocks    | gradient_blocks(examples, sink)     | one scratch vector of d        |
/// | HasGradientLosses    | gradient_blocks(ex., sink, losses)  | a forward pass more for losses |
/// | HasExampleGradient   | example_gradient(example, out)      | accumulate_gradient of one     |
/// | HasTraces            | traces(examples, sink)              | no ghost strategy              |
/// | HasForwardDerivative | forward_derivatives(ex., dir., out) | no forward-derivative strategy |
/// | HasHessianProduct    | accumulate_hessian_product(...)     | central difference of gradients|
/// | HasLogits            | classes, logit_rows, logits, ...    | no CWSD                        |
/// | HasEmbedding         | embedding_size, embed               | no diversity diagnostic        |
///
/// Semantic requirements, which a compiler cannot check (tests/support/check_model.hpp can):
///  1. l_i(theta) is differentiable at the current theta, and gradients are gradients of what
///     losses() returns. The loss of an example does not depend on the batch it arrives in.
///  2. const members may be called from several threads at once. A model that spreads one call over
///     threads itself declares `static constexpr bool internally_threaded = true;` and is then
///     called from one thread at a time.
///  3. Outputs named accumulate_... are added to, all others are overwritten. An example may occur
///     twice in a batch and then counts twice.
///  4. parameters(block) spans exactly the block's coordinates, row-major, and stays valid until
///     the model is destroyed or assigned to; writing through it changes theta for every later call.
///  5. Members may throw; whatever has been computed before stays with the caller.
namespace dualsft {

using example_span = std::span<const index_t>;

// ---- atoms ------------------------------------------------------------------------------------

template <class M>
concept HasScalar =
    std::same_as<typename M::scalar_type, float> || std::same_as<typename M::scalar_type, double>;

template <class M>
concept HasLayout = requires(const M& m) {
  { m.layout() } -> std::same_as<const parameter_layout&>;
};

/// out[k] = l_{examples[k]}(theta)
template <class M>
concept HasLosses = requires(const M& m, example_span examples, std::span<double> out) {
  { m.losses(examples, out) } -> std::same_as<void>;
};

/// out[j] += sum_k d l_{examples[k]} / d theta_j  for all d coordinates
template <class M>
concept HasGradient = requires(const M& m, example_span examples,
                               std::span<typename M::scalar_type> out) {
  { m.accumulate_gradient(examples, out) } -> std::same_as<void>;
};

/// theta, block by block: mutable from a mutable model, read-only from a const one
template <class M>
concept HasParameters = requires(M& m, const M& c, index_t block) {
  { m.parameters(block) } -> std::same_as<std::span<typename M::scalar_type>>;
  { c.parameters(block) } -> std::same_as<std::span<const typename M::scalar_type>>;
};

namespace detail {

template <class S>
struct block_sink_archetype {
  void operator()(index_t block, std::span<const S> gradient) const;
};

template <class S>
struct trace_sink_archetype {
  void operator()(const affine_trace<S>&) const;
  void operator()(const embedding_trace<S>&) const;
  void operator()(const scale_trace<S>&) const;
  void operator()(const dense_trace<S>&) const;
};

}  // namespace detail

/// sink(block, gradient of the batch's summed loss restricted to that block), once per block, in
/// any order; the span is valid during the call. Lets a pass over the pool hold one block of
/// scratch.
template <class M>
concept HasGradientBlocks = requires(const M& m, example_span examples,
                                     detail::block_sink_archetype<typename M::scalar_type>& sink) {
  { m.gradient_blocks(examples, sink) } -> std::same_as<void>;
};

/// The same, with the examples' losses (overwritten) as a by-product.
template <class M>
concept HasGradientLosses = requires(const M& m, example_span examples,
                                     detail::block_sink_archetype<typename M::scalar_type>& sink,
                                     std::span<double> losses) {
  { m.gradient_blocks(examples, sink, losses) } -> std::same_as<void>;
};

/// out = g_i (overwritten)
template <class M>
concept HasExampleGradient = requires(const M& m, index_t example,
                                      std::span<typename M::scalar_type> out) {
  { m.example_gradient(example, out) } -> std::same_as<void>;
};

/// sink(trace) for every use of every parameter, see traces.hpp
template <class M>
concept HasTraces = requires(const M& m, example_span examples,
                             detail::trace_sink_archetype<typename M::scalar_type>& sink) {
  { m.traces(examples, sink) } -> std::same_as<void>;
};

/// out[k] = <g_{examples[k]}, direction>
template <class M>
concept HasForwardDerivative = requires(const M& m, example_span examples,
                                        std::span<const typename M::scalar_type> direction,
                                        std::span<double> out) {
  { m.forward_derivatives(examples, direction, out) } -> std::same_as<void>;
};

/// out += sum_k (hess l_{examples[k]}) x
template <class M>
concept HasHessianProduct = requires(const M& m, example_span examples,
                                     std::span<const typename M::scalar_type> x,
                                     std::span<typename M::scalar_type> out) {
  { m.accumulate_hessian_product(examples, x, out) } -> std::same_as<void>;
};

/// Logits z [rows, classes] of the examples' response tokens, example after example
/// (logit_rows(i) rows for example i), and the way back: out += sum over rows of
/// (d z_t / d theta)^T logit_gradient_t.
template <class M>
concept HasLogits = requires(const M& m, index_t example, example_span examples,
                             matrix_view<typename M::scalar_type> logits,
                             matrix_view<const typename M::scalar_type> logit_gradients,
                             std::span<typename M::scalar_type> out) {
  { m.classes() } -> std::same_as<index_t>;
  { m.logit_rows(example) } -> std::same_as<index_t>;
  { m.logits(examples, logits) } -> std::same_as<void>;
  { m.accumulate_logit_gradient(examples, logit_gradients, out) } -> std::same_as<void>;
};

/// A vector per example [rows = examples, cols = embedding_size()], such as the mean-pooled hidden
/// state; used by the diversity diagnostic.
template <class M>
concept HasEmbedding = requires(const M& m, example_span examples, matrix_view<double> out) {
  { m.embedding_size() } -> std::same_as<index_t>;
  { m.embed(examples, out) } -> std::same_as<void>;
};

// ---- composed ---------------------------------------------------------------------------------

/// The least that scoring needs.
template <class M>
concept GradientModel = HasScalar<M> && HasLayout<M> && HasLosses<M> && HasGradient<M>;

/// What training, and everything that moves theta, needs.
template <class M>
concept TrainableModel = GradientModel<M> && HasParameters<M>;

template <class M>
concept TraceModel = GradientModel<M> && HasTraces<M>;

template <class M>
concept ForwardDerivativeModel = GradientModel<M> && HasForwardDerivative<M>;

/// A Hessian product is given by the model or taken as a central difference of its gradient.
template <class M>
concept CurvatureModel = GradientModel<M> &&(HasHessianProduct<M> || HasParameters<M>);

/// Models that CWSD can distil.
template <class M>
concept LogitModel = GradientModel<M> && HasLogits<M>;

template <class M>
inline constexpr bool is_internally_threaded = [] {
  if constexpr (requires {
                  { M::internally_threaded } -> std::convertible_to<bool>;
                })
    return M::internally_threaded;
  else
    return false;
}();

// ---- diagnostics ------------------------------------------------------------------------------
// Put one beside your class:  static_assert(dualsft::check_gradient_model<my_model>());
// Each missing member is one readable sentence. So is a member that bears the name of an ability and
// is none: without a `const` it would be passed over in silence for another strategy.

namespace detail {

/// M offers the name: something that a pointer can be made to, or that a mutable M can be asked for.
template <class M>
concept NamesParameters = requires {
  &M::parameters;
}
|| requires(M& m, index_t block) {
  m.parameters(block);
};
template <class M>
concept NamesGradientBlocks = requires {
  &M::gradient_blocks;
}
|| requires(M& m, example_span examples, block_sink_archetype<typename M::scalar_type>& sink) {
  m.gradient_blocks(examples, sink);
};
template <class M>
concept NamesExampleGradient = requires {
  &M::example_gradient;
}
|| requires(M& m, index_t example, std::span<typename M::scalar_type> out) {
  m.example_gradient(example, out);
};
template <class M>
concept NamesTraces = requires {
  &M::traces;
}
|| requires(M& m, example_span examples, trace_sink_archetype<typename M::scalar_type>& sink) {
  m.traces(examples, sink);
};
template <class M>
concept NamesForwardDerivatives = requires {
  &M::forward_derivatives;
}
|| requires(M& m, example_span examples, std::span<const typename M::scalar_type> direction,
            std::span<double> out) {
  m.forward_derivatives(examples, direction, out);
};
template <class M>
concept NamesHessianProduct = requires {
  &M::accumulate_hessian_product;
}
|| requires(M& m, example_span examples, std::span<const typename M::scalar_type> x,
            std::span<typename M::scalar_type> out) {
  m.accumulate_hessian_product(examples, x, out);
};
template <class M>
concept NamesLogits = requires {
  &M::logits;
}
|| requires(M& m, example_span examples, matrix_view<typename M::scalar_type> out) {
  m.logits(examples, out);
};

template <class M>
consteval void check_abilities() {
  static_assert(!NamesParameters<M> || HasParameters<M>,
                "dualsft::GradientModel: the member `parameters` must be both "
                "`std::span<scalar_type> parameters(dualsft::index_t block)` and "
                "`std::span<const scalar_type> parameters(dualsft::index_t block) const`");
  static_assert(!NamesGradientBlocks<M> || HasGradientBlocks<M>,
                "dualsft::GradientModel: the member `gradient_blocks` must be `template <class "
                "Sink> void gradient_blocks(std::span<const dualsft::index_t> examples, Sink&& "
                "sink) const`, for a sink of (dualsft::index_t, std::span<const scalar_type>)");
  static_assert(!NamesExampleGradient<M> || HasExampleGradient<M>,
                "dualsft::GradientModel: the member `example_gradient` must be `void "
                "example_gradient(dualsft::index_t example, std::span<scalar_type> out) const`");
  static_assert(!NamesTraces<M> || HasTraces<M>,
                "dualsft::GradientModel: the member `traces` must be `template <class Sink> void "
                "traces(std::span<const dualsft::index_t> examples, Sink&& sink) const`, for a "
                "sink of every trace (see dualsft/traces.hpp)");
  static_assert(!NamesForwardDerivatives<M> || HasForwardDerivative<M>,
                "dualsft::GradientModel: the member `forward_derivatives` must be `void "
                "forward_derivatives(std::span<const dualsft::index_t> examples, std::span<const "
                "scalar_type> direction, std::span<double> out) const`");
  static_assert(!NamesHessianProduct<M> || HasHessianProduct<M>,
                "dualsft::GradientModel: the member `accumulate_hessian_product` must be `void "
                "accumulate_hessian_product(std::span<const dualsft::index_t> examples, "
                "std::span<const scalar_type> x, std::span<scalar_type> out) const`");
  static_assert(!NamesLogits<M> || HasLogits<M>,
                "dualsft::GradientModel: a model with a member `logits` must have all of "
                "dualsft::HasLogits: const members classes, logit_rows, logits, "
                "accumulate_logit_gradient");
}

}  // namespace detail

template <class M>
consteval bool check_gradient_model() {
  static_assert(
      requires { typename M::scalar_type; },
      "dualsft::GradientModel: the model must declare `using scalar_type = double;` (or float)");
  if constexpr (requires { typename M::scalar_type; }) {
    static_assert(HasScalar<M>, "dualsft::GradientModel: `scalar_type` must be float or double");
    static_assert(HasLayout<M>,
                  "dualsft::GradientModel: the model needs `const dualsft::parameter_layout& "
                  "layout() const`");
    static_assert(
        HasLosses<M>,
        "dualsft::GradientModel: the model needs `void losses(std::span<const dualsft::index_t> "
        "examples, std::span<double> out) const`");
    static_assert(
        HasGradient<M>,
        "dualsft::GradientModel: the model needs `void accumulate_gradient(std::span<const "
        "dualsft::index_t> examples, std::span<scalar_type> out) const`");
    detail::check_abilities<M>();
  }
  return GradientModel<M>;
}

template <class M>
consteval bool check_trainable_model() {
  check_gradient_model<M>();
  static_assert(HasParameters<M>,
                "dualsft::TrainableModel: the model needs `std::span<scalar_type> "
                "parameters(dualsft::index_t block)` and `std::span<const scalar_type> "
                "parameters(dualsft::index_t block) const`");
  return TrainableModel<M>;
}

template <class M>
consteval bool check_trace_model() {
  check_gradient_model<M>();
  static_assert(
      HasTraces<M>,
      "dualsft::TraceModel: the model needs `template <class Sink> void traces(std::span<const "
      "dualsft::index_t> examples, Sink&& sink) const` (see dualsft/traces.hpp)");
  return TraceModel<M>;
}

template <class M>
consteval bool check_forward_derivative_model() {
  check_gradient_model<M>();
  static_assert(
      HasForwardDerivative<M>,
      "dualsft::ForwardDerivativeModel: the model needs `void forward_derivatives(std::span<const "
      "dualsft::index_t> examples, std::span<const scalar_type> direction, std::span<double> out) "
      "const`");
  return ForwardDerivativeModel<M>;
}

template <class M>
consteval bool check_curvature_model() {
  check_gradient_model<M>();
  static_assert(
      HasHessianProduct<M> || HasParameters<M>,
      "dualsft::CurvatureModel: the model needs `void accumulate_hessian_product(std::span<const "
      "dualsft::index_t> examples, std::span<const scalar_type> x, std::span<scalar_type> out) "
      "const`, or `parameters(block)` so that a difference of gradients can be taken");
  return CurvatureModel<M>;
}

template <class M>
consteval bool check_logit_model() {
  check_gradient_model<M>();
  static_assert(
      HasLogits<M>,
      "dualsft::LogitModel: the model needs `index_t classes() const`, `index_t "
      "logit_rows(index_t example) const`, `void logits(examples, matrix_view<scalar_type>) const` "
      "and `void accumulate_logit_gradient(examples, matrix_view<const scalar_type>, "
      "std::span<scalar_type> out) const`");
  return LogitModel<M>;
}

template <class M>
consteval bool check_gradient_block_model() {
  check_gradient_model<M>();
  static_assert(HasGradientBlocks<M>,
                "dualsft::HasGradientBlocks: the model needs `template <class Sink> void "
                "gradient_blocks(std::span<const dualsft::index_t> examples, Sink&& sink) const`");
  return GradientModel<M> && HasGradientBlocks<M>;
}

template <class M>
consteval bool check_example_gradient_model() {
  check_gradient_model<M>();
  static_assert(HasExampleGradient<M>,
                "dualsft::HasExampleGradient: the model needs `void "
                "example_gradient(dualsft::index_t example, std::span<scalar_type> out) const`");
  return GradientModel<M> && HasExampleGradient<M>;
}

template <class M>
consteval bool check_embedding_model() {
  check_gradient_model<M>();
  static_assert(HasEmbedding<M>,
                "dualsft::HasEmbedding: the model needs `index_t embedding_size() const` and `void "
                "embed(examples, matrix_view<double> out) const`");
  return GradientModel<M> && HasEmbedding<M>;
}

}  // namespace dualsft
