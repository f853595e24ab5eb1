// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/llm/detail/decoder.hpp>
#include <dualsft/llm/token_corpus.hpp>
#include <dualsft/llm/transformer_options.hpp>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace dualsft::llm::detail {

/// A transformer's parameters and the passes over them that its abilities are made of.
template <class S>
class transformer_passes {
 public:
  using row_matrix = dualsft::detail::row_matrix<S>;

  struct fixed_parts {
    model_config config;
    transformer_map map;
    std::shared_ptr<const token_corpus> corpus;
    transformer_options options;
    rotation_table<S> rotation, local;

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
    std::vector<layer_state<S>> layers;
    std::vector<row_matrix> inputs;  // of each layer, when it is to be run again
    layer_scratch<S> scratch;
    row_matrix raw_head, head_in, block_in, logits, d_head, d_raw_head, unit;
    std::vector<S> inv_head;
  };

  enum class keeping { nothing, inputs, everything };
  enum class logits_first { no, yes };

  keeping keeping_for_backward() const {
    return fixed_->options.activations == activations::keep ? keeping::everything : keeping::inputs;
  }

  /// Nothing is kept from layer to layer, so chunks of some hundred tokens save memory for the time
  /// of packing the weights and the direction once for each.
  index_t tangent_tokens() const { return std::max<index_t>(1, fixed_->options.chunk_tokens / 4); }

  decoder<S> network() const {
    return {fixed_->config, fixed_->map, theta_.data(), *pool_, fixed_->rotation, fixed_->local};
  }

  // ---- passes ---------------------------------------------------------------------------------

  /// Rows [first, first + T) of h = s_e E[id], with E at its place in `vector` [d].
  void embed_tokens(const packed_tokens& tokens, const S* vector, row_matrix& h,
                    index_t first = 0) const {
    const parameter_block& table = fixed_->map.layout.block(fixed_->map.embedding);
    const auto scale = static_cast<S>(fixed_->config.embedding_scale);
    for (index_t t = 0; t < tokens.size(); ++t)
      row_of(h, first + t) =
          scale * const_row_array<S>(
                      vector + table.offset + tokens.ids[static_cast<std::size_t>(t)] * table.cols,
                      table.cols);
  }

  static void gather(const std::vector<index_t>& rows, const row_matrix& from, row_matrix& to) {
    to.resize(static_cast<index_t>(rows.size()), from.cols());
    for (std::size_t r = 0; r < rows.size(); ++r)
      to.row(static_cast<index_t>(r)) = from.row(rows[r]);
  }

  /// Up to what the head reads.
  void forward(const packed_tokens& tokens, pass& p, keeping what) const {
    const auto count = static_cast<std::size_t>(fixed_->config.layers);
    p.layers.resize(what == keeping::everything ? count : 1);
    p.inputs.resize(what == keeping::inputs ? count : 0);
    const decoder<S> layers = network();
    p.h.resize(tokens.size(), fixed_->config.width);
    embed_tokens(tokens, theta_.data(), p.h);
    for (std::size_t l = 0; l < count; ++l) {
      if (what == keeping::inputs) p.inputs[l] = p.h;
      layers.forward(static_cast<index_t>(l), tokens, p.h,
                     p.layers[what == keeping::everything ? l : 0], p.scratch);
    }
    gather(tokens.rows, p.h, p.raw_head);
    layers.norm_at(fixed_->map.final_norm).forward(*pool_, p.raw_head, p.inv_head, p.head_in);
  }

  /// body(tokens) with whole sequences, chunk_tokens (or `most`) of their tokens at a time.
  template <class Body>
  void chunks(std::span<const index_t> examples, Body&& body, index_t most = 0) const {
    for_each_chunk(*fixed_->corpus, examples, most > 0 ? most : fixed_->options.chunk_tokens, body);
  }

  /// body(range of rows): each block packs the head's weight again and passes over its gradient, so
  /// blocks have 1024 rows if their logits stay below 2^25, 512 else, and more if below 2^22.
  template <class Body>
  void for_each_row_block(index_t rows, Body&& body) const {
    const index_t vocabulary = fixed_->config.vocabulary;
    const index_t most = std::max((index_t{1} << 22) / vocabulary,
                                  std::clamp<index_t>((index_t{1} << 25) / vocabulary, 512, 1024));
    for (index_t first = 0; first < rows; first += most)
      body(index_range{first, std::min(rows, first + most)});
  }

  /// body(range of rows, their logits, what the head read)
  template <class Body>
  void for_each_logit_block(pass& p, Body&& body) const {
    const decoder<S> layers = network();
    for_each_row_block(p.head_in.rows(), [&](index_range range) {
      p.block_in = p.head_in.middleRows(range.begin, range.size());
      linear<S>(*pool_, p.block_in, layers.matrix(fixed_->map.head), nullptr, p.logits);
      body(range, p.logits, p.block_in);
    });
  }

  struct tangent_pass {
    row_matrix h, x, z;
    layer_scratch<S> scratch;
  };

  /// d nll of the predicted tokens along `direction` [d]. Logits exist for some columns of the
  /// vocabulary at a time.
  nll_rates<S> tangent(const packed_tokens& tokens, const S* direction, tangent_pass& p) const {
    const decoder<S> layers = network();
    const model_config& config = fixed_->config;
    p.h.resize(2 * tokens.size(), config.width);
    embed_tokens(tokens, theta_.data(), p.h);
    embed_tokens(tokens, direction, p.h, tokens.size());
    for (index_t l = 0; l < config.layers; ++l)
      layers.tangent(l, tokens, direction, p.h, p.scratch);

    const auto rows = static_cast<index_t>(tokens.rows.size());
    p.x.resize(2 * rows, config.width);
    for (index_t r = 0; r < rows; ++r) {
      const index_t from = tokens.rows[static_cast<std::size_t>(r)];
      p.x.row(r) = p.h.row(from);
      p.x.row(rows + r) = p.h.row(tokens.size() + from);
    }
    const index_t final_norm = fixed_->map.final_norm;
    norm_tangent(*pool_, layers.norm_at(final_norm), p.x, direction + layers.offset(final_norm),
                 p.x);
    nll_rates<S> rates(tokens.targets);
    const auto weight = layers.matrix(fixed_->map.head);
    const auto weight_rate = layers.matrix_of(direction, fixed_->map.head);
    constexpr index_t most = 1024;  // more, and a thread's logits leave its cache
    for (index_t first = 0; first < config.vocabulary; first += most) {
      const index_t count = std::min(most, config.vocabulary - first);
      linear_tangent<S>(*pool_, p.x, weight.middle_rows(first, count),
                        weight_rate.middle_rows(first, count), nullptr, nullptr, p.z);
      rates.add(*pool_, p.z, first);
    }
    return rates;
  }

  /// \param losses  added to, or empty
  void backward_of_losses(const packed_tokens& tokens, pass& p, trace_sink<S>& use,
                          std::span<double> losses = {}) const {
    forward(tokens, p, keeping_for_backward());
    backward(
        tokens, p, use,
        [&](index_range range, row_matrix& z) {
          std::vector<double> nll(static_cast<std::size_t>(range.size()));
          pool_->ranges(range.size(), row_grain(z.cols()), [&](index_range part) {
            for (index_t i = part.begin; i < part.end; ++i) {
              row_array<S> row = row_of(z, i);
              const index_t at = range.begin + i;
              const auto share = static_cast<S>(tokens.shares[static_cast<std::size_t>(at)]);
              const S top = row.maxCoeff();
              const S label = row(target_of(tokens, at));
              row = (row - top).exp();
              const S sum = row.sum();
              nll[static_cast<std::size_t>(i)] =
                  std::log(static_cast<double>(sum)) + static_cast<double>(top - label);
              row *= share / sum;
              row(target_of(tokens, at)) -= share;
            }
          });
          if (losses.empty()) return;
          for (index_t i = 0; i < range.size(); ++i)
            add_share(tokens, range.begin + i, nll[static_cast<std::size_t>(i)], losses);
        },
        logits_first::yes);
  }

  /// \param errors  errors(range, z): z holds the range's logits if `first` says so, and shall hold
  ///                dl/dz
  void backward(const packed_tokens& tokens, pass& p, trace_sink<S>& use,
                const std::function<void(index_range, row_matrix&)>& errors,
                logits_first first) const {
    const decoder<S> layers = network();
    const auto weight = layers.matrix(fixed_->map.head);
    const std::span<const index_t> row_examples(tokens.row_examples);
    p.d_head.resize(p.head_in.rows(), fixed_->config.width);
    for_each_row_block(p.head_in.rows(), [&](index_range range) {
      p.block_in = p.head_in.middleRows(range.begin, range.size());
      if (first == logits_first::yes) linear<S>(*pool_, p.block_in, weight, nullptr, p.logits);
      errors(range, p.logits);
      use(affine_trace<S>{fixed_->map.head, -1, view(p.block_in), view(p.logits),
                          row_examples.subspan(static_cast<std::size_t>(range.begin),
                                               static_cast<std::size_t>(range.size()))});
      linear_back<S>(*pool_, p.logits, weight, p.block_in);
      p.d_head.middleRows(range.begin, range.size()) = p.block_in;
    });
    layers.norm_at(fixed_->map.final_norm)
        .backward(*pool_, p.raw_head, p.inv_head, p.d_head, p.unit, p.d_raw_head, into::overwrite);
    use(scale_trace<S>{fixed_->map.final_norm, view(p.unit), view(p.d_head), row_examples});
    p.dh.setZero(tokens.size(), fixed_->config.width);
    for (std::size_t r = 0; r < tokens.rows.size(); ++r)
      p.dh.row(tokens.rows[r]) = p.d_raw_head.row(static_cast<index_t>(r));

    const bool again = !p.inputs.empty();
    for (index_t l = fixed_->config.layers - 1; l >= 0; --l) {
      layer_state<S>& state = p.layers[again ? 0 : static_cast<std::size_t>(l)];
      if (again) {
        p.h.swap(p.inputs[static_cast<std::size_t>(l)]);
        layers.forward(l, tokens, p.h, state, p.scratch);
      }
      layers.backward(l, tokens, state, p.dh, p.scratch, use);
    }
    p.dh *= static_cast<S>(fixed_->config.embedding_scale);
    use(embedding_trace<S>{fixed_->map.embedding, tokens.ids, view(p.dh), tokens.examples});
  }

  static matrix_view<const S> view(const row_matrix& m) { return dualsft::detail::view_of(m); }

  // ---- losses ---------------------------------------------------------------------------------

  static index_t target_of(const packed_tokens& tokens, index_t row) {
    return tokens.targets[static_cast<std::size_t>(row)];
  }
  static void add_share(const packed_tokens& tokens, index_t row, double value,
                        std::span<double> out) {
    const auto r = static_cast<std::size_t>(row);
    out[static_cast<std::size_t>(tokens.row_examples[r])] += tokens.shares[r] * value;
  }

  void add_losses(const packed_tokens& tokens, index_range range, row_matrix& z,
                  std::span<double> out) const {
    std::vector<double> nll(static_cast<std::size_t>(range.size()));
    pool_->ranges(range.size(), row_grain(z.cols()), [&](index_range part) {
      for (index_t i = part.begin; i < part.end; ++i) {
        row_array<S> row = row_of(z, i);
        const S label = row(target_of(tokens, range.begin + i));
        const S top = row.maxCoeff();
        nll[static_cast<std::size_t>(i)] = std::log(static_cast<double>((row - top).exp().sum())) +
                                           static_cast<double>(top - label);
      }
    });
    for (index_t i = 0; i < range.size(); ++i)
      add_share(tokens, range.begin + i, nll[static_cast<std::size_t>(i)], out);
  }

  // ---- what callers get wrong -------------------------------------------------------------------

  void expects_examples(const char* function, std::span<const index_t> examples) const {
    for (const index_t i : examples)
      expects(0 <= i && i < fixed_->corpus->size(), function,
              "an example must lie in [0, examples)", "example", i, "examples",
              fixed_->corpus->size());
  }
  void expects_out(const char* function, std::span<const index_t> examples,
                   std::size_t size) const {
    expects_examples(function, examples);
    expects(size == examples.size(), function, "out must hold one number per example", "size", size,
            "examples", examples.size());
  }
  void expects_d(const char* function, std::size_t size) const {
    expects(size == theta_.size(), function, "a vector over the parameters must hold d elements",
            "size", size, "d", theta_.size());
  }
  void expects_logits(const char* function, std::span<const index_t> examples, index_t rows,
                      index_t cols) const {
    expects_examples(function, examples);
    index_t wanted = 0;
    for (const index_t i : examples) wanted += (*fixed_->corpus)[i].response_size();
    expects(rows == wanted && cols == fixed_->config.vocabulary, function,
            "logits must be [sum of logit_rows, vocabulary]", "rows", rows, "cols", cols,
            "expected", wanted, "vocabulary", fixed_->config.vocabulary);
  }

 protected:
  transformer_passes(const model_config& config, std::shared_ptr<const token_corpus> corpus,
                     const transformer_options& options)
      : fixed_(std::make_shared<const fixed_parts>(config, std::move(corpus), options)),
        pool_(std::make_shared<worker_pool>(
            dualsft::detail::thread_count(exec::cpu{options.threads}))),
        theta_(static_cast<std::size_t>(fixed_->map.layout.size())) {}

  std::shared_ptr<const fixed_parts> fixed_;
  std::shared_ptr<worker_pool> pool_;
  std::vector<S> theta_;
};

}  // namespace dualsft::llm::detail
