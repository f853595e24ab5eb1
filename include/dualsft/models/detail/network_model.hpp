// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/concepts.hpp>
#include <dualsft/models/detail/network.hpp>
#include <dualsft/models/detail/network_tangent.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <memory>
#include <utility>

/// Every ability of concepts.hpp for a perceptron over some kind of record: softmax regression, the
/// MLP classifier and the byte-level language model differ in their Input alone.
///
/// Input says what a record is:
///
///     index_t examples() const;                        number of records
///     index_t rows(index_t example) const;             rows (response tokens) of a record, >= 1
///     index_t target(index_t example, index_t row) const;
///     index_t table() const;                           block of the embedding table, or -1
///     index_t ids_per_row() const;                     table rows that make up an input, or 0
///     void ids(example, row, index_t* out) const;      with a table
///     void features(example, row, S* out) const;       without one
///
/// The rows of a batch are worked on in chunks, so that memory does not grow with the batch.
namespace dualsft::detail {

/// Rows of a batch, in the order of the batch.
template <class S>
struct row_chunk {
  row_matrix<S> input;               // [T, in]
  std::vector<index_t> ids;          // [T * ids_per_row], row after row
  std::vector<index_t> id_examples;  // [T * ids_per_row]
  std::vector<index_t> targets;      // [T]
  std::vector<index_t> examples;     // [T] position in the batch
  std::vector<double> shares;        // [T] 1 / rows of the example: a loss is a mean over rows
  index_t first = 0;                 // number of row 0 in the batch
};

template <class S, class Input>
class network_model {
 public:
  using scalar_type = S;

  const parameter_layout& layout() const { return fixed_->layout; }
  index_t example_count() const { return fixed_->input.examples(); }
  index_t classes() const { return shape().classes(); }
  index_t logit_rows(index_t example) const { return fixed_->input.rows(example); }

  /// The right class of one row of an example.
  index_t target(index_t example, index_t row) const { return fixed_->input.target(example, row); }

  std::span<S> parameters(index_t block) {
    const parameter_block& b = layout().block(block);
    return {theta_.data() + b.offset, static_cast<std::size_t>(b.size())};
  }
  std::span<const S> parameters(index_t block) const {
    const parameter_block& b = layout().block(block);
    return {theta_.data() + b.offset, static_cast<std::size_t>(b.size())};
  }

  /// Weights normal with variance 1 / fan_in, embeddings with variance 1, biases 0, norm scales 1.
  void init(std::uint64_t seed) {
    random_source rng(seed);
    std::fill(theta_.begin(), theta_.end(), S(0));
    if (const index_t table = fixed_->input.table(); table >= 0)
      for (S& x : parameters(table)) x = static_cast<S>(rng.normal());
    if (shape().norm_number >= 0) std::ranges::fill(parameters(shape().norm_number), S(1));
    for (const network_layer& layer : shape().layers) {
      const double scale =
          1.0 / std::sqrt(static_cast<double>(std::max<index_t>(1, layer.weight.cols)));
      for (S& x : parameters(layer.weight_number)) x = static_cast<S>(scale * rng.normal());
    }
  }

  void losses(example_span examples, std::span<double> out) const {
    expects_batch("losses", examples);
    expects_size("losses", "out must hold one loss per example", out.size(), examples.size());
    std::ranges::fill(out, 0.0);
    network_state<S> state;
    std::vector<S> nll;
    for_each_chunk(examples, chunk_rows, [&](const row_chunk<S>& chunk) {
      network_forward(shape(), theta(), chunk.input, state);
      softmax_rows(state.logits, chunk.targets, nll);
      for (std::size_t t = 0; t < nll.size(); ++t)
        out[static_cast<std::size_t>(chunk.examples[t])] +=
            chunk.shares[t] * static_cast<double>(nll[t]);
    });
  }

  void accumulate_gradient(example_span examples, std::span<S> out) const {
    expects_d("accumulate_gradient", out.size());
    traces(examples, add_to(out));
  }

  void example_gradient(index_t example, std::span<S> out) const {
    expects_batch("example_gradient", {&example, 1});
    expects_d("example_gradient", out.size());
    std::ranges::fill(out, S(0));
    accumulate_gradient({&example, 1}, out);
  }

  /// Holds the activations of the whole batch at once, and one block of gradient.
  template <class Sink>
  void gradient_blocks(example_span examples, Sink&& sink) const {
    expects_batch("gradient_blocks", examples);
    std::vector<S> scratch;
    const auto deliver = [&](index_t number, const auto& add) {
      scratch.assign(static_cast<std::size_t>(layout().block(number).size()), S(0));
      add(scratch.data());
      sink(number, std::span<const S>(scratch));
    };
    pass_buffers buffers;
    if (examples.empty())
      for (index_t number = 0; number < layout().block_count(); ++number)
        deliver(number, [](S*) {});
    for_each_chunk(examples, std::numeric_limits<index_t>::max(), [&](const row_chunk<S>& chunk) {
      backward(chunk, buffers, [&](const auto& trace) { trace_products(trace, deliver); });
    });
  }

  template <class Sink>
  void traces(example_span examples, Sink&& sink) const {
    expects_batch("traces", examples);
    pass_buffers buffers;
    for_each_chunk(examples, chunk_rows,
                   [&](const row_chunk<S>& chunk) { backward(chunk, buffers, sink); });
  }

  void forward_derivatives(example_span examples, std::span<const S> direction,
                           std::span<double> out) const {
    expects_batch("forward_derivatives", examples);
    expects_d("forward_derivatives", direction.size());
    expects_size("forward_derivatives", "out must hold one derivative per example", out.size(),
                 examples.size());
    std::ranges::fill(out, 0.0);
    network_state<S> state, tangent;
    row_matrix<S> input_tangent;
    std::vector<S> nll;
    for_each_chunk(examples, chunk_rows, [&](const row_chunk<S>& chunk) {
      forward_with_tangent(chunk, direction.data(), input_tangent, state, tangent, nll);
      // d nll_t = <softmax(z_t) - onehot(target), dz_t>
      for (std::size_t t = 0; t < nll.size(); ++t) {
        const auto row = static_cast<index_t>(t);
        const double rate =
            static_cast<double>(state.logits.row(row).dot(tangent.logits.row(row))) -
            static_cast<double>(tangent.logits(row, chunk.targets[t]));
        out[static_cast<std::size_t>(chunk.examples[t])] += chunk.shares[t] * rate;
      }
    });
  }

  /// Exact: the tangent of the backward pass, no differences.
  void accumulate_hessian_product(example_span examples, std::span<const S> x,
                                  std::span<S> out) const {
    expects_batch("accumulate_hessian_product", examples);
    expects_d("accumulate_hessian_product", x.size());
    expects_d("accumulate_hessian_product", out.size());
    network_state<S> state, tangent;
    row_matrix<S> input_tangent, below;
    std::vector<S> nll;
    for_each_chunk(examples, chunk_rows, [&](const row_chunk<S>& chunk) {
      forward_with_tangent(chunk, x.data(), input_tangent, state, tangent, nll);
      // R{softmax} = p .* (R{z} - <p, R{z}>)
      row_matrix<S>& p = state.logits;
      row_matrix<S>& rate = tangent.logits;
      for (index_t t = 0; t < p.rows(); ++t) {
        const auto w = static_cast<S>(chunk.shares[static_cast<std::size_t>(t)]);
        const S mean = p.row(t).dot(rate.row(t));
        rate.row(t) = (w * p.row(t).array() * (rate.row(t).array() - mean)).matrix();
      }
      to_logit_gradients(chunk, p);
      network_curvature(shape(), theta(), x.data(), chunk.input,
                        has_table() ? &input_tangent : nullptr, state, tangent, p, rate,
                        has_table() ? &below : nullptr, out.data());
      if (has_table()) add_to(out)(table_trace(chunk, below));
    });
  }

  /// \param out  [sum of logit_rows, classes], any strides
  void logits(example_span examples, matrix_view<S> out) const {
    expects_batch("logits", examples);
    expects_logits("logits", examples, out.rows(), out.cols());
    network_state<S> state;
    for_each_chunk(examples, chunk_rows, [&](const row_chunk<S>& chunk) {
      network_forward(shape(), theta(), chunk.input, state);
      for (index_t t = 0; t < state.logits.rows(); ++t)
        for (index_t c = 0; c < out.cols(); ++c) out(chunk.first + t, c) = state.logits(t, c);
    });
  }

  void accumulate_logit_gradient(example_span examples, matrix_view<const S> logit_gradients,
                                 std::span<S> out) const {
    expects_batch("accumulate_logit_gradient", examples);
    expects_logits("accumulate_logit_gradient", examples, logit_gradients.rows(),
                   logit_gradients.cols());
    expects_d("accumulate_logit_gradient", out.size());
    pass_buffers buffers;
    for_each_chunk(examples, chunk_rows, [&](const row_chunk<S>& chunk) {
      network_hidden(shape(), theta(), chunk.input, buffers.state);
      row_matrix<S>& e = buffers.state.logits;
      e.resize(chunk.input.rows(), classes());
      for (index_t t = 0; t < e.rows(); ++t)
        for (index_t c = 0; c < classes(); ++c) e(t, c) = logit_gradients(chunk.first + t, c);
      backward_from_logits(chunk, buffers, add_to(out));
    });
  }

  /// What the head reads, averaged over an example's rows.
  index_t embedding_size() const { return shape().head_input_size(); }
  void embed(example_span examples, matrix_view<double> out) const {
    expects_batch("embed", examples);
    expects(out.rows() == static_cast<index_t>(examples.size()) && out.cols() == embedding_size(),
            "embed", "out must be [examples, embedding_size]", "rows", out.rows(), "cols",
            out.cols(), "examples", examples.size(), "embedding_size", embedding_size());
    for (index_t i = 0; i < out.rows(); ++i)
      for (index_t c = 0; c < out.cols(); ++c) out(i, c) = 0.0;
    network_state<S> state;
    for_each_chunk(examples, chunk_rows, [&](const row_chunk<S>& chunk) {
      network_hidden(shape(), theta(), chunk.input, state);
      const row_matrix<S>& hidden = state.input_of(shape(), shape().head(), chunk.input);
      for (std::size_t t = 0; t < chunk.examples.size(); ++t)
        for (index_t c = 0; c < out.cols(); ++c)
          out(chunk.examples[t], c) +=
              chunk.shares[t] * static_cast<double>(hidden(static_cast<index_t>(t), c));
    });
  }

 protected:
  /// Shared by all copies of a model: a copy costs its parameters only.
  struct fixed_parts {
    Input input;
    network_shape shape;
    parameter_layout layout;
  };

  explicit network_model(fixed_parts parts)
      : fixed_(std::make_shared<const fixed_parts>(std::move(parts))),
        theta_(static_cast<std::size_t>(fixed_->layout.size())) {}

  const Input& input() const { return fixed_->input; }

 private:
  // Enough rows to keep the matrix products busy, few enough to stay in the second-level cache.
  static constexpr index_t chunk_rows = 256;

  const network_shape& shape() const { return fixed_->shape; }
  const S* theta() const { return theta_.data(); }
  bool has_table() const { return input().table() >= 0; }

  void expects_batch(const char* function, example_span examples) const {
    for (const index_t i : examples)
      expects(0 <= i && i < example_count(), function, "an example must lie in [0, examples)",
              "example", i, "examples", example_count());
  }
  void expects_d(const char* function, std::size_t size) const {
    expects_size(function, "a vector over the parameters must hold d elements", size,
                 theta_.size());
  }
  static void expects_size(const char* function, const char* rule, std::size_t size,
                           std::size_t wanted) {
    expects(size == wanted, function, rule, "size", size, "expected", wanted);
  }
  void expects_logits(const char* function, example_span examples, index_t rows,
                      index_t cols) const {
    const index_t wanted = row_count(examples);
    expects(rows == wanted && cols == classes(), function,
            "logits must be [sum of logit_rows, classes]", "rows", rows, "cols", cols, "expected",
            wanted, "classes", classes());
  }

  index_t row_count(example_span examples) const {
    index_t rows = 0;
    for (const index_t i : examples) rows += input().rows(i);
    return rows;
  }

  /// Calls body(chunk) with at most `most` rows at a time.
  template <class Body>
  void for_each_chunk(example_span examples, index_t most, Body&& body) const {
    const index_t total = row_count(examples);
    const index_t per_row = input().ids_per_row();
    row_chunk<S> chunk;
    std::size_t k = 0;  // position in the batch
    index_t row = 0;    // row of examples[k]
    while (chunk.first < total) {
      const index_t rows = std::min(most, total - chunk.first);
      const auto count = static_cast<std::size_t>(rows);
      chunk.input.resize(rows, shape().input_size());
      // assign, as GCC 12 sees overflows in vector::resize once that is inlined.
      chunk.targets.assign(count, 0);
      chunk.examples.assign(count, 0);
      chunk.shares.assign(count, 0);
      chunk.ids.assign(static_cast<std::size_t>(rows * per_row), 0);
      chunk.id_examples.assign(chunk.ids.size(), 0);
      for (std::size_t t = 0; t < count; ++t) {
        while (row == input().rows(examples[k])) {
          ++k;
          row = 0;
        }
        const index_t example = examples[k];
        chunk.targets[t] = input().target(example, row);
        chunk.examples[t] = static_cast<index_t>(k);
        chunk.shares[t] = 1.0 / static_cast<double>(input().rows(example));
        if (per_row > 0) {
          const std::size_t at = t * static_cast<std::size_t>(per_row);
          input().ids(example, row, chunk.ids.data() + at);
          std::fill_n(chunk.id_examples.begin() + static_cast<std::ptrdiff_t>(at), per_row,
                      static_cast<index_t>(k));
        } else {
          input().features(example, row, chunk.input.row(static_cast<index_t>(t)).data());
        }
        ++row;
      }
      if (per_row > 0) look_up(chunk, theta(), chunk.input);
      body(chunk);
      chunk.first += rows;
    }
  }

  /// out[t, :] = the table rows of row t, side by side. `vector` holds all d coordinates.
  void look_up(const row_chunk<S>& chunk, const S* vector, row_matrix<S>& out) const {
    const parameter_block& table = layout().block(input().table());
    out.resize(static_cast<index_t>(chunk.targets.size()), shape().input_size());
    S* to = out.data();
    for (const index_t id : chunk.ids)
      to = std::copy_n(vector + table.offset + id * table.cols, table.cols, to);
  }

  /// One trace for all window positions: [T, ids_per_row * width] is [T * ids_per_row, width].
  embedding_trace<S> table_trace(const row_chunk<S>& chunk, const row_matrix<S>& e) const {
    const index_t width = layout().block(input().table()).cols;
    return {input().table(), chunk.ids,
            matrix_view<const S>(e.data(), static_cast<index_t>(chunk.ids.size()), width),
            chunk.id_examples};
  }

  /// p [T, classes] becomes the gradient of each row's share of its example's loss.
  static void to_logit_gradients(const row_chunk<S>& chunk, row_matrix<S>& p) {
    for (std::size_t t = 0; t < chunk.targets.size(); ++t) {
      const auto row = static_cast<index_t>(t);
      const auto w = static_cast<S>(chunk.shares[t]);
      p.row(row) *= w;
      p(row, chunk.targets[t]) -= w;
    }
  }

  /// Scratch of one pass, kept from chunk to chunk.
  struct pass_buffers {
    network_state<S> state;
    row_matrix<S> below;
    std::vector<S> nll;
  };

  template <class Use>
  void backward(const row_chunk<S>& chunk, pass_buffers& buffers, Use&& use) const {
    network_forward(shape(), theta(), chunk.input, buffers.state);
    softmax_rows(buffers.state.logits, chunk.targets, buffers.nll);
    to_logit_gradients(chunk, buffers.state.logits);
    backward_from_logits(chunk, buffers, use);
  }

  /// state.logits hold the logit gradients; they are scratch from here on.
  template <class Use>
  void backward_from_logits(const row_chunk<S>& chunk, pass_buffers& buffers, Use&& use) const {
    network_state<S>& state = buffers.state;
    network_backward(shape(), theta(), chunk.input, state, state.logits, chunk.examples, use,
                     has_table() ? &buffers.below : nullptr);
    if (has_table()) use(table_trace(chunk, buffers.below));
  }

  /// A sink of traces that adds their products to a vector over all d coordinates.
  auto add_to(std::span<S> out) const {
    return [this, out](const auto& trace) {
      trace_products(trace, [&](index_t number, const auto& add) {
        add(out.data() + layout().block(number).offset);
      });
    };
  }

  void forward_with_tangent(const row_chunk<S>& chunk, const S* direction,
                            row_matrix<S>& input_tangent, network_state<S>& state,
                            network_state<S>& tangent, std::vector<S>& nll) const {
    network_forward(shape(), theta(), chunk.input, state);
    if (has_table()) look_up(chunk, direction, input_tangent);
    network_tangent(shape(), theta(), direction, chunk.input,
                    has_table() ? &input_tangent : nullptr, state, tangent);
    softmax_rows(state.logits, chunk.targets, nll);
  }

  std::shared_ptr<const fixed_parts> fixed_;
  std::vector<S> theta_;
};

}  // namespace dualsft::detail
