// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/concepts.hpp>
#include <dualsft/llm/detail/gradient_sink.hpp>
#include <dualsft/llm/detail/transformer_passes.hpp>
#include <dualsft/llm/token_corpus.hpp>
#include <dualsft/random.hpp>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <vector>

namespace dualsft::llm {

template <class S>
class generator;

/// A decoder-only transformer over a corpus of token sequences: any config that model_config.hpp
/// describes, with every ability of concepts.hpp but its own Hessian product (a central difference
/// of gradients is derived from the others).
///
///     l_i(theta) = mean over predicted tokens t of  log sum_c exp(z_tc) - z_t,label(t)
///
/// Sequences of different lengths are packed one behind the other, never padded; tokens behind the
/// last predicted one are left out, and logits exist for predicted tokens only.
///
/// Traces cover every parameter: an affine trace per linear map with its bias, a scale trace per
/// norm weight (a row per head for the norms of q and k), an embedding trace, and for the head an
/// affine trace per few hundred rows; a tied head's traces name the embedding.
///
/// Thread-safety: a call spreads itself over `threads` threads; one call at a time per model and its
/// copies (others wait). Copies share config, corpus and threads and own their parameters.
/// Cost: 2 d flops per token forward, 4 d more for gradients, 2 d more for traces alone, 6 d for
/// forward derivatives. Memory of a call: chunk_tokens * layers * (4 width + 2 (heads + kv_heads)
/// head_size + 2 mlp_width) scalars with activations kept, chunk_tokens * layers * width when
/// recomputed, chunk_tokens / 2 * (4 width + 2 (heads + kv_heads) head_size + 2 mlp_width + 1024) for
/// forward derivatives; and the logits of some 1024 predicted tokens (512 if they exceed 2^25).
/// Numerics: products and rows in S; a norm's mean, sums over tokens and examples of losses and
/// derivatives in double. Parameters stored as bf16 or fp16 are widened when read.
/// Determinism: equal bits for an equal number of threads.
/// Source: see model_config.hpp.
template <class S>
class transformer : private detail::transformer_passes<S> {
  using passes = detail::transformer_passes<S>;
  using passes::fixed_;
  using passes::pool_;
  using passes::theta_;
  using typename passes::keeping;
  using typename passes::logits_first;
  using typename passes::pass;
  using typename passes::row_matrix;
  using index_range = dualsft::detail::index_range;
  friend class generator<S>;

 public:
  using scalar_type = S;
  static constexpr bool internally_threaded = true;

  /// Parameters start as init(0) leaves them (d random numbers), or zero: options.initialise.
  /// \throws invalid_argument  if the config breaks a rule, or an id is not in the vocabulary
  transformer(const model_config& config, std::shared_ptr<const token_corpus> corpus,
              const transformer_options& options = {})
      : passes(config, std::move(corpus), options) {
    if (options.initialise) init(0);
  }

  const model_config& config() const { return fixed_->config; }
  /// Positions that rotations are prepared for.
  index_t positions() const { return fixed_->rotation.positions(); }
  const transformer_map& map() const { return fixed_->map; }
  const token_corpus& corpus() const { return *fixed_->corpus; }
  const parameter_layout& layout() const { return fixed_->map.layout; }
  index_t example_count() const { return corpus().size(); }
  index_t classes() const { return config().vocabulary; }
  index_t logit_rows(index_t example) const { return corpus()[example].response_size(); }

  /// The token that row `row` of an example's logits should name.
  index_t target(index_t example, index_t row) const {
    expects(0 <= row && row < logit_rows(example), "transformer::target",
            "a row must lie in [0, logit_rows)", "row", row, "example", example);
    const std::vector<token_id>& labels = corpus()[example].labels;
    std::size_t t = 1;
    for (; row > 0 || labels[t] == ignored; ++t) row -= labels[t] != ignored ? 1 : 0;
    return labels[t];
  }

  std::span<S> parameters(index_t block) {
    const parameter_block& b = layout().block(block);
    return {theta_.data() + b.offset, static_cast<std::size_t>(b.size())};
  }
  std::span<const S> parameters(index_t block) const {
    const parameter_block& b = layout().block(block);
    return {theta_.data() + b.offset, static_cast<std::size_t>(b.size())};
  }
  /// All of theta [d], in the order of the layout.
  std::span<S> parameters() { return theta_; }
  std::span<const S> parameters() const { return theta_; }

  /// Matrices normal with standard deviation 0.02, biases 0, norms such that they scale by 1.
  void init(std::uint64_t seed) {
    random_source rng(seed);
    for (index_t number = 0; number < layout().block_count(); ++number) {
      const parameter_block& b = layout().block(number);
      const bool is_norm = b.module.find("norm") != std::string::npos;
      if (b.cols > 1)
        for (S& x : parameters(number)) x = static_cast<S>(0.02 * rng.normal());
      else
        std::ranges::fill(parameters(number), S(is_norm && !config().norm_plus_one ? 1 : 0));
    }
  }

  void losses(example_span examples, std::span<double> out) const {
    this->expects_out("transformer::losses", examples, out.size());
    std::ranges::fill(out, 0.0);
    pass p;
    this->chunks(examples, [&](const detail::packed_tokens& tokens) {
      this->forward(tokens, p, keeping::nothing);
      this->for_each_logit_block(p, [&](index_range range, row_matrix& z, const row_matrix&) {
        this->add_losses(tokens, range, z, out);
      });
    });
  }

  void accumulate_gradient(example_span examples, std::span<S> out) const {
    this->expects_d("transformer::accumulate_gradient", out.size());
    detail::gradient_sink<S> sink(*pool_, layout(), out.data());
    all_traces("transformer::accumulate_gradient", examples, sink);
  }

  void example_gradient(index_t example, std::span<S> out) const {
    this->expects_d("transformer::example_gradient", out.size());
    this->expects_examples("transformer::example_gradient", {&example, 1});
    std::ranges::fill(out, S(0));
    accumulate_gradient({&example, 1}, out);
  }

  /// The whole batch goes through together: memory of one block, but activations of all of it.
  /// \param losses  [examples], overwritten with their losses; or empty
  template <class Sink>
  void gradient_blocks(example_span examples, Sink&& sink, std::span<double> losses = {}) const {
    this->expects_examples("transformer::gradient_blocks", examples);
    if (!losses.empty()) this->expects_out("transformer::gradient_blocks", examples, losses.size());
    std::ranges::fill(losses, 0.0);
    detail::block_sink<S> blocks(*pool_, layout(), map().head, map().embedding, std::ref(sink));
    all_blocks(examples, blocks, losses);
  }

  template <class Sink>
  void traces(example_span examples, Sink&& sink) const {
    detail::forwarding_sink<S, std::remove_reference_t<Sink>> any(sink);
    all_traces("transformer::traces", examples, any);
  }

  void forward_derivatives(example_span examples, std::span<const S> direction,
                           std::span<double> out) const {
    this->expects_d("transformer::forward_derivatives", direction.size());
    this->expects_out("transformer::forward_derivatives", examples, out.size());
    std::ranges::fill(out, 0.0);
    typename passes::tangent_pass p;
    this->chunks(
        examples,
        [&](const detail::packed_tokens& tokens) {
          const detail::nll_rates<S> rates = this->tangent(tokens, direction.data(), p);
          for (index_t r = 0; r < static_cast<index_t>(tokens.rows.size()); ++r)
            this->add_share(tokens, r, rates.rate(r), out);
        },
        this->tangent_tokens());
  }

  /// \param out  [sum of logit_rows, vocabulary], any strides
  void logits(example_span examples, matrix_view<S> out) const {
    this->expects_logits("transformer::logits", examples, out.rows(), out.cols());
    pass p;
    this->chunks(examples, [&](const detail::packed_tokens& tokens) {
      this->forward(tokens, p, keeping::nothing);
      this->for_each_logit_block(p, [&](index_range range, row_matrix& z, const row_matrix&) {
        for (index_t i = 0; i < range.size(); ++i)
          for (index_t c = 0; c < out.cols(); ++c)
            out(tokens.first_row + range.begin + i, c) = z(i, c);
      });
    });
  }

  void accumulate_logit_gradient(example_span examples, matrix_view<const S> logit_gradients,
                                 std::span<S> out) const {
    this->expects_logits("transformer::accumulate_logit_gradient", examples, logit_gradients.rows(),
                         logit_gradients.cols());
    this->expects_d("transformer::accumulate_logit_gradient", out.size());
    detail::gradient_sink<S> sink(*pool_, layout(), out.data());
    pass p;
    this->chunks(examples, [&](const detail::packed_tokens& tokens) {
      this->forward(tokens, p, this->keeping_for_backward());
      this->backward(
          tokens, p, sink,
          [&](index_range range, row_matrix& z) {
            z.resize(range.size(), classes());
            for (index_t i = 0; i < range.size(); ++i)
              for (index_t c = 0; c < classes(); ++c)
                z(i, c) = logit_gradients(tokens.first_row + range.begin + i, c);
          },
          logits_first::no);
    });
  }

  /// What the head reads, averaged over an example's predicted tokens.
  index_t embedding_size() const { return config().width; }
  void embed(example_span examples, matrix_view<double> out) const {
    this->expects_examples("transformer::embed", examples);
    expects(out.rows() == static_cast<index_t>(examples.size()) && out.cols() == embedding_size(),
            "transformer::embed", "out must be [examples, embedding_size]", "rows", out.rows(),
            "cols", out.cols(), "examples", examples.size(), "embedding_size", embedding_size());
    for (index_t i = 0; i < out.rows(); ++i)
      for (index_t c = 0; c < out.cols(); ++c) out(i, c) = 0.0;
    pass p;
    this->chunks(examples, [&](const detail::packed_tokens& tokens) {
      this->forward(tokens, p, keeping::nothing);
      for (std::size_t r = 0; r < tokens.rows.size(); ++r)
        for (index_t c = 0; c < out.cols(); ++c)
          out(tokens.row_examples[r], c) +=
              tokens.shares[r] * static_cast<double>(p.head_in(static_cast<index_t>(r), c));
    });
  }

 private:
  void all_traces(const char* function, example_span examples, detail::trace_sink<S>& sink) const {
    this->expects_examples(function, examples);
    pass p;
    this->chunks(examples, [&](const detail::packed_tokens& tokens) {
      this->backward_of_losses(tokens, p, sink);
    });
  }

  void all_blocks(example_span examples, detail::block_sink<S>& blocks,
                  std::span<double> losses) const {
    if (examples.empty()) return blocks.deliver_nothing();
    pass p;
    this->chunks(
        examples,
        [&](const detail::packed_tokens& tokens) {
          this->backward_of_losses(tokens, p, blocks, losses);
        },
        std::numeric_limits<index_t>::max());
    blocks.finish();
  }
};

}  // namespace dualsft::llm
