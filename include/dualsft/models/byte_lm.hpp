// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/models/byte_corpus.hpp>
#include <dualsft/models/detail/network_model.hpp>
#include <utility>
#include <vector>

namespace dualsft {

struct byte_lm_options {
  index_t window = 12;               ///< W, bytes of context
  index_t embedding = 24;            ///< e, width of a byte's embedding
  std::vector<index_t> hidden{128};  ///< widths of the hidden layers
  activation hidden_activation = activation::tanh;
  head_norm norm = head_norm::none;  ///< needs at least one hidden layer
  std::uint64_t seed = 0;
};

namespace detail {

/// The Input of network_model (see there) for text: one row per response byte.
class byte_window_input {
 public:
  static constexpr index_t begin_symbol = 256;  // stands before a record's first byte
  static constexpr index_t symbols = 257;

  byte_window_input(std::shared_ptr<const byte_corpus> corpus, index_t window, index_t table)
      : corpus_(std::move(corpus)), window_(window), table_(table) {}
  const std::shared_ptr<const byte_corpus>& corpus() const { return corpus_; }

  index_t examples() const { return corpus_->size(); }
  index_t rows(index_t example) const { return (*corpus_)[example].response_size(); }
  index_t target(index_t example, index_t row) const {
    const byte_record& record = (*corpus_)[example];
    return byte(record, record.response_begin + row);
  }
  index_t table() const { return table_; }
  index_t ids_per_row() const { return window_; }
  /// The W bytes before the row's target, oldest first.
  void ids(index_t example, index_t row, index_t* out) const {
    const byte_record& record = (*corpus_)[example];
    const index_t end = record.response_begin + row;
    for (index_t at = end - window_; at < end; ++at)
      *out++ = at < 0 ? begin_symbol : byte(record, at);
  }
  template <class S>
  void features(index_t, index_t, S*) const {}

 private:
  static index_t byte(const byte_record& record, index_t at) {
    return static_cast<unsigned char>(record.text[static_cast<std::size_t>(at)]);
  }

  std::shared_ptr<const byte_corpus> corpus_;
  index_t window_;
  index_t table_;
};

}  // namespace detail

/// A language model over bytes: each byte is predicted from the W bytes before it.
///
///     x_t = (E[c_{t-W}], ..., E[c_{t-1}]),  hidden layers as in mlp_classifier,  z_t = W n_t + b
///     l_i(theta) = mean over response bytes t of  log sum_c exp(z_tc) - z_t,c_t
///
/// Positions before the record's first byte hold a 257th symbol. There are 256 classes and no end
/// symbol: a record's loss is then exactly the mean negative log likelihood of its response bytes,
/// and pieces cut from a long text do not pretend to end.
///
/// Blocks: "embedding" [257, e], then those of mlp_classifier. It has every ability of
/// concepts.hpp: a logit row per response byte, exact Hessian products, the mean of n_t as an
/// embedding. The rows of a whole batch go through each matrix product together.
///
/// Thread-safety, cost, numerics: as mlp_classifier. A gradient takes about 6 flops per weight and
/// response byte; traces leave out the third that multiplies them up.
template <class S>
class byte_lm : public detail::network_model<S, detail::byte_window_input> {
  using base = detail::network_model<S, detail::byte_window_input>;

 public:
  /// Parameters start as init(options.seed) leaves them.
  explicit byte_lm(std::shared_ptr<const byte_corpus> corpus, const byte_lm_options& options = {})
      : base(parts(std::move(corpus), options)) {
    this->init(options.seed);
  }

  const byte_corpus& corpus() const { return *this->input().corpus(); }

 private:
  static typename base::fixed_parts parts(std::shared_ptr<const byte_corpus> corpus,
                                          const byte_lm_options& options) {
    expects(corpus != nullptr, "byte_lm", "the model needs a corpus");
    expects(options.window > 0 && options.embedding > 0, "byte_lm",
            "window and embedding must be positive", "window", options.window, "embedding",
            options.embedding);
    detail::expects_widths("byte_lm", options.hidden, options.norm);
    parameter_layout layout;
    const index_t table = layout.add("embedding", detail::byte_window_input::symbols,
                                     options.embedding, -1, "embedding");
    detail::network_shape shape;
    shape.hidden_activation = options.hidden_activation;
    shape.add_layers(layout, options.window * options.embedding, options.hidden, 256, options.norm);
    return {{std::move(corpus), options.window, table}, std::move(shape), std::move(layout)};
  }
};

}  // namespace dualsft
