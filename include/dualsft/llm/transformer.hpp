// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/concepts.hpp>
#include <dualsft/llm/detail/decoder.hpp>
#include <dualsft/llm/detail/gradient_sink.hpp>
#include <dualsft/llm/token_corpus.hpp>
#include <dualsft/random.hpp>
#include <memory>
#include <span>
#include <vector>

namespace dualsft::llm {

/// What the backward pass finds of the forward pass.
enum class activations {
  keep,       ///< every layer's: about 2 forward passes of time saved per 10, memory ~ layers
  recompute,  ///< the layers' inputs; each layer runs forward once more
};

struct transformer_options {
  int threads = 0;              ///< 0: what the machine reports
  index_t chunk_tokens = 2048;  ///< sequences go through together until they have so many tokens
  llm::activations activations = activations::keep;
  index_t positions =
      0;  ///< at least so many are prepared; the corpus's longest record in any case
};

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
/// recomputed, some chunk_tokens * (8 width + 4 mlp_width) for forward derivatives; and 2^22 logits.
/// Numerics: products and rows in S; a norm's mean, sums over tokens and examples of losses and
/// derivatives in double. Parameters stored as bf16 or fp16 are widened when read.
/// Determinism: equal bits for an equal number of threads.
/// Source: see model_config.hpp.
template <class S>
class transformer {
 public:
  using scalar_type = S;
  static constexpr bool internally_threaded = true;

  /// Parameters start as init(0) leaves them.
  /// \throws invalid_argument  if the config breaks a rule, or an id is not in the vocabulary
  transformer(const model_config& config, std::shared_ptr<const token_corpus> corpus,
              const transformer_options& options = {})
      : fixed_(std::make_shared<const fixed_parts>(config, std::move(corpus), options)),
        pool_(std::make_shared<detail::worker_pool>(
            dualsft::detail::thread_count(exec::cpu{options.threads}))),
        theta_(static_cast<std::size_t>(layout().size())) {
    init(0);
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
    expects_out("transformer::losses", examples, out.size());
    std::ranges::fill(out, 0.0);
    pass p;
    for_each_chunk(examples, [&](const detail::packed_tokens& tokens) {
      forward(tokens, p, keeping::nothing);
      for_each_logit_block(p, [&](index_range range, row_matrix& z, const row_matrix&) {
        add_losses(tokens, range, z, out);
      });
    });
  }

  void accumulate_gradient(example_span examples, std::span<S> out) const {
    expects_d("transformer::accumulate_gradient", out.size());
    traces(examples, detail::gradient_sink<S>(*pool_, layout(), out.data()));
  }

  void example_gradient(index_t example, std::span<S> out) const {
    expects_d("transformer::example_gradient", out.size());
    expects_examples("transformer::example_gradient", {&example, 1});
    std::ranges::fill(out, S(0));
    accumulate_gradient({&example, 1}, out);
  }

  /// The whole batch goes through together: memory of one block, but activations of all of it.
  template <class Sink>
  void gradient_blocks(example_span examples, Sink&& sink) const {
    expects_examples("transformer::gradient_blocks", examples);
    detail::block_sink<S, Sink> blocks(*pool_, layout(), map().head, map().embedding, sink);
    pass p;
    if (examples.empty()) {
      blocks.deliver_nothing();
      return;
    }
    for_each_chunk(
        examples,
        [&](const detail::packed_tokens& tokens) { backward_of_losses(tokens, p, blocks); },
        std::numeric_limits<index_t>::max());
    blocks.finish();
  }

  template <class Sink>
  void traces(example_span examples, Sink&& sink) const {
    expects_examples("transformer::traces", examples);
    pass p;
    for_each_chunk(examples, [&](const detail::packed_tokens& tokens) {
      backward_of_losses(tokens, p, sink);
    });
  }

  void forward_derivatives(example_span examples, std::span<const S> direction,
                           std::span<double> out) const {
    expects_d("transformer::forward_derivatives", direction.size());
    expects_out("transformer::forward_derivatives", examples, out.size());
    std::ranges::fill(out, 0.0);
    detail::layer_scratch<S> s, r;
    row_matrix h, rh, x, rx, z, rz;
    std::vector<double> rates;
    const detail::decoder<S> layers = decoder();
    for_each_chunk(
        examples,
        [&](const detail::packed_tokens& tokens) {
          embed_tokens(tokens, theta_.data(), h);
          embed_tokens(tokens, direction.data(), rh);
          for (index_t l = 0; l < config().layers; ++l)
            layers.tangent(l, tokens, direction.data(), h, rh, s, r);
          gather(tokens.rows, h, x);
          gather(tokens.rows, rh, rx);
          const detail::norm<S> norm = layers.norm_at(map().final_norm);
          std::vector<S> inv;
          norm.forward(*pool_, x, inv, s.x);
          norm.tangent(*pool_, x, inv, rx, direction.data() + layers.offset(map().final_norm), r.x);
          const auto weight = layers.matrix(map().head);
          const auto weight_rate = layers.matrix_of(direction.data(), map().head);
          for_each_row_block(s.x.rows(), [&](index_range range) {
            x = s.x.middleRows(range.begin, range.size());
            rx = r.x.middleRows(range.begin, range.size());
            detail::linear<S>(*pool_, x, weight, nullptr, z);
            detail::linear<S>(*pool_, x, weight_rate, nullptr, rz);
            detail::linear<S>(*pool_, rx, weight, nullptr, rz, detail::into::add);
            rates.assign(static_cast<std::size_t>(range.size()), 0);
            // d nll_t = <softmax(z_t) - onehot(label), dz_t>
            pool_->ranges(range.size(), 1, [&](index_range part) {
              for (index_t i = part.begin; i < part.end; ++i) {
                detail::row_array<S> row = detail::row_of(z, i);
                const S top = row.maxCoeff();
                row = (row - top).exp();
                const auto rate = detail::row_of(rz, i);
                rates[static_cast<std::size_t>(i)] =
                    static_cast<double>((row * rate).sum() / row.sum()) -
                    static_cast<double>(rz(i, target(tokens, range.begin + i)));
              }
            });
            for (index_t i = 0; i < range.size(); ++i)
              add_share(tokens, range.begin + i, rates[static_cast<std::size_t>(i)], out);
          });
        },
        tangent_tokens());
  }

  /// \param out  [sum of logit_rows, vocabulary], any strides
  void logits(example_span examples, matrix_view<S> out) const {
    expects_logits("transformer::logits", examples, out.rows(), out.cols());
    pass p;
    for_each_chunk(examples, [&](const detail::packed_tokens& tokens) {
      forward(tokens, p, keeping::nothing);
      for_each_logit_block(p, [&](index_range range, row_matrix& z, const row_matrix&) {
        for (index_t i = 0; i < range.size(); ++i)
          for (index_t c = 0; c < out.cols(); ++c)
            out(tokens.first_row + range.begin + i, c) = z(i, c);
      });
    });
  }

  void accumulate_logit_gradient(example_span examples, matrix_view<const S> logit_gradients,
                                 std::span<S> out) const {
    expects_logits("transformer::accumulate_logit_gradient", examples, logit_gradients.rows(),
                   logit_gradients.cols());
    expects_d("transformer::accumulate_logit_gradient", out.size());
    detail::gradient_sink<S> sink(*pool_, layout(), out.data());
    pass p;
    for_each_chunk(examples, [&](const detail::packed_tokens& tokens) {
      forward(tokens, p, keeping_for_backward());
      backward(
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
    expects_examples("transformer::embed", examples);
    expects(out.rows() == static_cast<index_t>(examples.size()) && out.cols() == embedding_size(),
            "transformer::embed", "out must be [examples, embedding_size]", "rows", out.rows(),
            "cols", out.cols(), "examples", examples.size(), "embedding_size", embedding_size());
    for (index_t i = 0; i < out.rows(); ++i)
      for (index_t c = 0; c < out.cols(); ++c) out(i, c) = 0.0;
    pass p;
    for_each_chunk(examples, [&](const detail::packed_tokens& tokens) {
      forward(tokens, p, keeping::nothing);
      for (std::size_t r = 0; r < tokens.rows.size(); ++r)
        for (index_t c = 0; c < out.cols(); ++c)
          out(tokens.row_examples[r], c) +=
              tokens.shares[r] * static_cast<double>(p.head_in(static_cast<index_t>(r), c));
    });
  }

 private:
  friend class generator<S>;
  using row_matrix = dualsft::detail::row_matrix<S>;
  using index_range = dualsft::detail::index_range;

  struct fixed_parts {
    model_config config;
    transformer_map map;
    std::shared_ptr<const token_corpus> corpus;
    transformer_options options;
    detail::rotation_table<S> rotation, local;

    fixed_parts(const model_config& c, std::shared_ptr<const token_corpus> records,
                const transformer_options& o)
        : config(c), map(map_transformer(c)), corpus(std::move(records)), options(o) {
      expects(corpus != nullptr, "transformer", "the model needs a corpus");
      expects(options.chunk_tokens >= 1, "transformer", "chunk_tokens must be positive",
              "chunk_tokens", options.chunk_tokens);
      std::size_t longest = 1;
      for (index_t i = 0; i < corpus->size(); ++i) {
        const token_record& record = (*corpus)[i];
        longest = std::max(longest, record.ids.size());
        for (const auto* list : {&record.ids, &record.labels})
          for (const token_id id : *list)
            expects(id < config.vocabulary, "transformer", "ids must lie in the vocabulary",
                    "record", i, "id", id, "vocabulary", config.vocabulary);
      }
      expects(options.positions >= 0, "transformer", "positions must not be negative", "positions",
              options.positions);
      const index_t positions = std::max(static_cast<index_t>(longest), options.positions);
      rotation = {config.rope, config.head_size, positions};
      local = {config.local_rope, config.head_size, positions};
    }
  };

  /// Buffers of one pass, kept from chunk to chunk.
  struct pass {
    row_matrix h, dh;
    std::vector<detail::layer_state<S>> layers;
    std::vector<row_matrix> inputs;  // of each layer, when it is to be run again
    detail::layer_scratch<S> scratch;
    row_matrix raw_head, head_in, block_in, logits, d_head, d_raw_head, unit;
    std::vector<S> inv_head;
  };

  enum class keeping { nothing, inputs, everything };
  enum class logits_first { no, yes };

  keeping keeping_for_backward() const {
    return fixed_->options.activations == activations::keep ? keeping::everything : keeping::inputs;
  }

  /// Nothing is kept from layer to layer, so small chunks cost no time and save memory.
  index_t tangent_tokens() const { return std::max<index_t>(1, fixed_->options.chunk_tokens / 8); }

  detail::decoder<S> decoder() const {
    return {config(), map(), theta_.data(), *pool_, fixed_->rotation, fixed_->local};
  }

  // ---- passes ---------------------------------------------------------------------------------

  /// h = s_e E[id], with E at its place in `vector` [d].
  void embed_tokens(const detail::packed_tokens& tokens, const S* vector, row_matrix& h) const {
    const parameter_block& table = layout().block(map().embedding);
    const auto scale = static_cast<S>(config().embedding_scale);
    h.resize(tokens.size(), config().width);
    for (index_t t = 0; t < h.rows(); ++t)
      detail::row_of(h, t) =
          scale * detail::const_row_array<S>(
                      vector + table.offset + tokens.ids[static_cast<std::size_t>(t)] * table.cols,
                      table.cols);
  }

  static void gather(const std::vector<index_t>& rows, const row_matrix& from, row_matrix& to) {
    to.resize(static_cast<index_t>(rows.size()), from.cols());
    for (std::size_t r = 0; r < rows.size(); ++r)
      to.row(static_cast<index_t>(r)) = from.row(rows[r]);
  }

  /// Up to what the head reads.
  void forward(const detail::packed_tokens& tokens, pass& p, keeping what) const {
    const auto count = static_cast<std::size_t>(config().layers);
    p.layers.resize(what == keeping::everything ? count : 1);
    p.inputs.resize(what == keeping::inputs ? count : 0);
    const detail::decoder<S> layers = decoder();
    embed_tokens(tokens, theta_.data(), p.h);
    for (std::size_t l = 0; l < count; ++l) {
      if (what == keeping::inputs) p.inputs[l] = p.h;
      layers.forward(static_cast<index_t>(l), tokens, p.h,
                     p.layers[what == keeping::everything ? l : 0], p.scratch);
    }
    gather(tokens.rows, p.h, p.raw_head);
    layers.norm_at(map().final_norm).forward(*pool_, p.raw_head, p.inv_head, p.head_in);
  }

  /// body(range of rows) such that a block of logits stays below 2^22 elements.
  template <class Body>
  void for_each_row_block(index_t rows, Body&& body) const {
    const index_t most = std::max<index_t>(16, (index_t{1} << 22) / classes());
    for (index_t first = 0; first < rows; first += most)
      body(index_range{first, std::min(rows, first + most)});
  }

  /// body(range of rows, their logits, what the head read)
  template <class Body>
  void for_each_logit_block(pass& p, Body&& body) const {
    const detail::decoder<S> layers = decoder();
    for_each_row_block(p.head_in.rows(), [&](index_range range) {
      p.block_in = p.head_in.middleRows(range.begin, range.size());
      detail::linear<S>(*pool_, p.block_in, layers.matrix(map().head), nullptr, p.logits);
      body(range, p.logits, p.block_in);
    });
  }

  template <class Use>
  void backward_of_losses(const detail::packed_tokens& tokens, pass& p, Use&& use) const {
    forward(tokens, p, keeping_for_backward());
    backward(
        tokens, p, use,
        [&](index_range range, row_matrix& z) {
          pool_->ranges(range.size(), 1, [&](index_range part) {
            for (index_t i = part.begin; i < part.end; ++i) {
              detail::row_array<S> row = detail::row_of(z, i);
              const index_t at = range.begin + i;
              const auto share = static_cast<S>(tokens.shares[static_cast<std::size_t>(at)]);
              const S top = row.maxCoeff();
              row = (row - top).exp();
              row *= share / row.sum();
              row(target(tokens, at)) -= share;
            }
          });
        },
        logits_first::yes);
  }

  /// \param errors  errors(range, z): z holds the range's logits if `first` says so, and shall hold
  ///                dl/dz
  template <class Use, class Errors>
  void backward(const detail::packed_tokens& tokens, pass& p, Use&& use, Errors&& errors,
                logits_first first) const {
    const detail::decoder<S> layers = decoder();
    const auto weight = layers.matrix(map().head);
    const std::span<const index_t> row_examples(tokens.row_examples);
    p.d_head.resize(p.head_in.rows(), config().width);
    for_each_row_block(p.head_in.rows(), [&](index_range range) {
      p.block_in = p.head_in.middleRows(range.begin, range.size());
      if (first == logits_first::yes)
        detail::linear<S>(*pool_, p.block_in, weight, nullptr, p.logits);
      errors(range, p.logits);
      use(affine_trace<S>{map().head, -1, view(p.block_in), view(p.logits),
                          row_examples.subspan(static_cast<std::size_t>(range.begin),
                                               static_cast<std::size_t>(range.size()))});
      detail::linear_back<S>(*pool_, p.logits, weight, p.block_in);
      p.d_head.middleRows(range.begin, range.size()) = p.block_in;
    });
    layers.norm_at(map().final_norm)
        .backward(*pool_, p.raw_head, p.inv_head, p.d_head, p.unit, p.d_raw_head,
                  detail::into::overwrite);
    use(scale_trace<S>{map().final_norm, view(p.unit), view(p.d_head), row_examples});
    p.dh.setZero(tokens.size(), config().width);
    for (std::size_t r = 0; r < tokens.rows.size(); ++r)
      p.dh.row(tokens.rows[r]) = p.d_raw_head.row(static_cast<index_t>(r));

    const bool again = !p.inputs.empty();
    for (index_t l = config().layers - 1; l >= 0; --l) {
      detail::layer_state<S>& state = p.layers[again ? 0 : static_cast<std::size_t>(l)];
      if (again) {
        p.h.swap(p.inputs[static_cast<std::size_t>(l)]);
        layers.forward(l, tokens, p.h, state, p.scratch);
      }
      layers.backward(l, tokens, state, p.dh, p.scratch, use);
    }
    p.dh *= static_cast<S>(config().embedding_scale);
    use(embedding_trace<S>{map().embedding, tokens.ids, view(p.dh), tokens.examples});
  }

  static matrix_view<const S> view(const row_matrix& m) { return dualsft::detail::view_of(m); }

  // ---- losses ---------------------------------------------------------------------------------

  static index_t target(const detail::packed_tokens& tokens, index_t row) {
    return tokens.targets[static_cast<std::size_t>(row)];
  }
  static void add_share(const detail::packed_tokens& tokens, index_t row, double value,
                        std::span<double> out) {
    const auto r = static_cast<std::size_t>(row);
    out[static_cast<std::size_t>(tokens.row_examples[r])] += tokens.shares[r] * value;
  }

  void add_losses(const detail::packed_tokens& tokens, index_range range, row_matrix& z,
                  std::span<double> out) const {
    std::vector<double> nll(static_cast<std::size_t>(range.size()));
    pool_->ranges(range.size(), 1, [&](index_range part) {
      for (index_t i = part.begin; i < part.end; ++i) {
        detail::row_array<S> row = detail::row_of(z, i);
        const S label = row(target(tokens, range.begin + i));
        const S top = row.maxCoeff();
        nll[static_cast<std::size_t>(i)] = std::log(static_cast<double>((row - top).exp().sum())) +
                                           static_cast<double>(top - label);
      }
    });
    for (index_t i = 0; i < range.size(); ++i)
      add_share(tokens, range.begin + i, nll[static_cast<std::size_t>(i)], out);
  }

  // ---- batches --------------------------------------------------------------------------------

  /// body(tokens) with whole sequences, up to `most` tokens of them.
  template <class Body>
  void for_each_chunk(example_span examples, Body&& body, index_t most = 0) const {
    if (most == 0) most = fixed_->options.chunk_tokens;
    detail::packed_tokens tokens;
    index_t rows_before = 0;
    const auto flush = [&] {
      if (tokens.size() > 0) body(std::as_const(tokens));
      rows_before += static_cast<index_t>(tokens.rows.size());
      tokens = {};
      tokens.first_row = rows_before;
    };
    for (std::size_t k = 0; k < examples.size(); ++k) {
      const token_record& record = corpus()[examples[k]];
      std::size_t length =
          record.labels.size() - 1;  // inputs: what stands before a predicted token
      while (record.labels[length] == ignored) --length;
      if (tokens.size() > 0 && tokens.size() + static_cast<index_t>(length) > most) flush();
      const double share = 1 / static_cast<double>(record.response_size());
      for (std::size_t t = 0; t < length; ++t) {
        if (record.labels[t + 1] != ignored) {
          tokens.rows.push_back(tokens.size());
          tokens.targets.push_back(record.labels[t + 1]);
          tokens.row_examples.push_back(static_cast<index_t>(k));
          tokens.shares.push_back(share);
        }
        tokens.ids.push_back(record.ids[t]);
        tokens.positions.push_back(static_cast<index_t>(t));
        tokens.examples.push_back(static_cast<index_t>(k));
      }
      tokens.starts.push_back(tokens.size());
    }
    flush();
  }

  void expects_examples(const char* function, example_span examples) const {
    for (const index_t i : examples)
      expects(0 <= i && i < example_count(), function, "an example must lie in [0, examples)",
              "example", i, "examples", example_count());
  }
  void expects_out(const char* function, example_span examples, std::size_t size) const {
    expects_examples(function, examples);
    expects(size == examples.size(), function, "out must hold one number per example", "size", size,
            "examples", examples.size());
  }
  void expects_d(const char* function, std::size_t size) const {
    expects(size == theta_.size(), function, "a vector over the parameters must hold d elements",
            "size", size, "d", theta_.size());
  }
  void expects_logits(const char* function, example_span examples, index_t rows,
                      index_t cols) const {
    expects_examples(function, examples);
    index_t wanted = 0;
    for (const index_t i : examples) wanted += logit_rows(i);
    expects(rows == wanted && cols == classes(), function,
            "logits must be [sum of logit_rows, vocabulary]", "rows", rows, "cols", cols,
            "expected", wanted, "vocabulary", classes());
  }

  std::shared_ptr<const fixed_parts> fixed_;
  std::shared_ptr<detail::worker_pool> pool_;
  std::vector<S> theta_;
};

}  // namespace dualsft::llm
