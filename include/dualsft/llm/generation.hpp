// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/llm/transformer.hpp>
#include <functional>
#include <span>
#include <vector>

namespace dualsft::llm {

struct generation_options {
  index_t max_tokens = 256;          ///< at most so many are added
  std::vector<token_id> stop_ids{};  ///< generation ends before any of these; usually eos
  std::function<void()> on_token{};  ///< called for each token; may throw to stop
};

/// Greedy continuation of a prompt, with the keys and values of what was read kept, so that each new
/// token costs one token's forward pass.
///
///     x_{n+1} = argmax_c z_c(x_1 .. x_n)          equal logits: the lower id
///
/// Not thread-safe; holds a reference to the model, whose parameters must not change meanwhile.
/// Cost: 2 d flops per token; memory 2 layers * tokens * kv_heads * head_size scalars, and as much
/// again for room to grow.
template <class S>
class generator {
 public:
  explicit generator(const transformer<S>& model)
      : model_(model), caches_(static_cast<std::size_t>(model.config().layers)) {}

  /// The tokens that follow `prompt`, without it and without the stop token.
  /// \throws invalid_argument  if the prompt is empty, an id is not in the vocabulary, or prompt and
  ///                           max_tokens exceed the positions that the model prepared
  std::vector<token_id> greedy(std::span<const token_id> prompt,
                               const generation_options& options = {}) {
    expects(!prompt.empty(), "generator::greedy", "the prompt needs at least one token");
    expects(options.max_tokens >= 0, "generator::greedy", "max_tokens must not be negative",
            "max_tokens", options.max_tokens);
    const auto length = static_cast<index_t>(prompt.size());
    expects(length + options.max_tokens <= model_.positions(), "generator::greedy",
            "prompt and max_tokens must fit the model's positions (transformer_options::positions)",
            "prompt", length, "max_tokens", options.max_tokens, "positions", model_.positions());
    for (const token_id id : prompt)
      expects(0 <= id && id < model_.classes(), "generator::greedy",
              "ids must lie in the vocabulary", "id", id, "vocabulary", model_.classes());

    seen_ = 0;
    reserve(length);
    std::vector<token_id> out;
    if (options.max_tokens == 0) return out;
    for (token_id next = read(prompt);; next = read({&out.back(), 1})) {
      if (std::ranges::find(options.stop_ids, next) != options.stop_ids.end()) return out;
      out.push_back(next);
      if (options.on_token) options.on_token();
      if (static_cast<index_t>(out.size()) == options.max_tokens) return out;
    }
  }

 private:
  using row_matrix = dualsft::detail::row_matrix<S>;

  /// Of one layer; keys are turned by their positions.
  struct cache {
    row_matrix keys, values;
  };

  /// Room for so many tokens, with what is kept put back; doubled, so that growth costs little.
  void reserve(index_t tokens) {
    for (cache& c : caches_) {
      if (seen_ == 0) c.keys.resize(0, kv_width()), c.values.resize(0, kv_width());
      if (c.keys.rows() >= tokens) continue;
      const index_t rows = std::max(tokens, 2 * c.keys.rows());
      c.keys.conservativeResize(rows, kv_width());
      c.values.conservativeResize(rows, kv_width());
    }
  }

  index_t kv_width() const { return model_.config().kv_heads * model_.config().head_size; }

  /// Takes the tokens in and says which comes next.
  token_id read(std::span<const token_id> ids) {
    reserve(seen_ + static_cast<index_t>(ids.size()));
    const detail::decoder<S> layers = model_.network();
    detail::packed_tokens tokens;
    for (std::size_t t = 0; t < ids.size(); ++t) {
      tokens.ids.push_back(ids[t]);
      tokens.positions.push_back(seen_ + static_cast<index_t>(t));
    }
    h_.resize(tokens.size(), model_.config().width);
    model_.embed_tokens(tokens, model_.parameters().data(), h_);
    for (index_t l = 0; l < model_.config().layers; ++l)
      layers.forward(l, tokens.positions, h_, state_, scratch_, [&] {
        cache& c = caches_[static_cast<std::size_t>(l)];
        c.keys.middleRows(seen_, h_.rows()) = state_.k;
        c.values.middleRows(seen_, h_.rows()) = state_.v;
        attend(layers.shape(l), c);
      });
    seen_ += h_.rows();
    const row_matrix last = h_.bottomRows(1);
    std::vector<S> inv;
    layers.norm_at(model_.map().final_norm).forward(*model_.pool_, last, inv, scratch_.x);
    detail::linear<S>(*model_.pool_, scratch_.x, layers.matrix(model_.map().head), nullptr,
                      logits_);
    index_t best = 0;
    for (index_t c = 1; c < logits_.cols(); ++c)
      if (logits_(0, c) > logits_(0, best)) best = c;
    return static_cast<token_id>(best);
  }

  /// state_.o from state_.q and all keys up to each query's own.
  void attend(const detail::attention_shape& shape, cache& c) {
    state_.o.resize(state_.q.rows(), state_.q.cols());
    const index_t each = 4 * state_.q.rows() * seen_ * shape.head_size;
    const index_t grain = (index_t{1} << 21) / std::max<index_t>(1, each);
    model_.pool_->tasks(shape.heads, grain, [&](index_t head, int) {
      const index_t size = shape.head_size, kv = head / shape.group() * size;
      Eigen::Array<S, Eigen::Dynamic, 1> p;
      for (index_t t = 0; t < state_.q.rows(); ++t) {
        const index_t end = seen_ + t + 1;
        const index_t first = shape.window > 0 ? std::max<index_t>(0, end - shape.window) : 0;
        const auto keys = c.keys.block(first, kv, end - first, size);
        const auto values = c.values.block(first, kv, end - first, size);
        p = (keys * state_.q.row(t).segment(head * size, size).transpose()).array() *
            static_cast<S>(shape.scale);
        p = (p - p.maxCoeff()).exp();
        p /= p.sum();
        state_.o.row(t).segment(head * size, size) = p.matrix().transpose() * values;
      }
    });
  }

  const transformer<S>& model_;
  std::vector<cache> caches_;
  index_t seen_ = 0;  // tokens in the caches
  row_matrix h_, logits_;
  detail::layer_state<S> state_;
  detail::layer_scratch<S> scratch_;
};

}  // namespace dualsft::llm
