// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/layout.hpp>
#include <dualsft/llm/detail/row_kernels.hpp>
#include <dualsft/llm/detail/trace_sink.hpp>
#include <functional>
#include <span>
#include <vector>

/// Sinks that multiply traces out, on all threads: each thread owns columns of the output
/// gradients, so no two add to one element and sums run in the order of the tokens.
namespace dualsft::llm::detail {

/// `at` += the product of a trace, restricted to the trace's weight (its bias: see add_bias).
template <class S>
void add_product(worker_pool& pool, const affine_trace<S>& trace, S* at) {
  const index_t in = trace.inputs.cols();
  pool.ranges(trace.output_gradients.cols(), product_grain(2 * in * trace.inputs.rows()),
              [&](index_range range) {
                add_at_b<S>(columns_of(trace.output_gradients, range), trace.inputs,
                            matrix_view<S>(at + range.begin * in, range.size(), in));
              });
}
template <class S>
void add_product(worker_pool& pool, const embedding_trace<S>& trace, S* at) {
  const index_t width = trace.output_gradients.cols();
  pool.ranges(width, std::max<index_t>(64, row_grain(trace.output_gradients.rows())),
              [&](index_range range) {
                for (index_t t = 0; t < trace.output_gradients.rows(); ++t)
                  row_array<S>(at + trace.ids[static_cast<std::size_t>(t)] * width + range.begin,
                               range.size()) +=
                      const_row_array<S>(trace.output_gradients.data() +
                                             t * trace.output_gradients.row_stride() + range.begin,
                                         range.size());
              });
}
template <class S>
void add_product(worker_pool& pool, const scale_trace<S>& trace, S* at) {
  pool.ranges(trace.inputs.cols(), std::max<index_t>(64, row_grain(trace.inputs.rows())),
              [&](index_range range) {
                dualsft::detail::add_column_dots(columns_of(trace.output_gradients, range),
                                                 columns_of(trace.inputs, range), at + range.begin);
              });
}
template <class S>
void add_bias(worker_pool& pool, const affine_trace<S>& trace, S* at) {
  pool.ranges(trace.output_gradients.cols(),
              std::max<index_t>(64, row_grain(trace.output_gradients.rows())),
              [&](index_range range) {
                dualsft::detail::add_column_sums(columns_of(trace.output_gradients, range),
                                                 at + range.begin);
              });
}

/// Adds products to a vector over all d coordinates.
template <class S>
class gradient_sink final : public trace_sink<S> {
 public:
  gradient_sink(worker_pool& pool, const parameter_layout& layout, S* out)
      : pool_(pool), layout_(layout), out_(out) {}

  void operator()(const affine_trace<S>& trace) override {
    add_product(pool_, trace, at(trace.weight));
    if (trace.bias >= 0) add_bias(pool_, trace, at(trace.bias));
  }
  void operator()(const embedding_trace<S>& trace) override {
    add_product(pool_, trace, at(trace.weight));
  }
  void operator()(const scale_trace<S>& trace) override {
    add_product(pool_, trace, at(trace.weight));
  }

 private:
  S* at(index_t block) const { return out_ + layout_.block(block).offset; }

  worker_pool& pool_;
  const parameter_layout& layout_;
  S* out_;
};

/// Hands over one block at a time, each once. All blocks have one trace but the head, whose traces
/// come in pieces and, where it is tied, at the pass's two ends: it waits for the last of them.
template <class S>
class block_sink final : public trace_sink<S> {
 public:
  using taker = std::function<void(index_t, std::span<const S>)>;

  block_sink(worker_pool& pool, const parameter_layout& layout, index_t head, index_t embedding,
             taker take)
      : pool_(pool), layout_(layout), head_(head), embedding_(embedding), take_(std::move(take)) {}

  void operator()(const affine_trace<S>& trace) override {
    add(trace);
    if (trace.bias >= 0) deliver(trace.bias, [&](S* at) { add_bias(pool_, trace, at); });
  }
  void operator()(const embedding_trace<S>& trace) override { add(trace); }
  void operator()(const scale_trace<S>& trace) override { add(trace); }

  /// Behind the last trace.
  void finish() {
    if (gathered_.empty()) return;
    take_(head_, std::span<const S>(gathered_));
    gathered_ = {};
  }

  /// For a batch of nothing: zeros.
  void deliver_nothing() {
    for (index_t number = 0; number < layout_.block_count(); ++number) deliver(number, [](S*) {});
  }

 private:
  std::size_t size(index_t block) const {
    return static_cast<std::size_t>(layout_.block(block).size());
  }

  template <class Trace>
  void add(const Trace& trace) {
    if (trace.weight == head_) {
      if (gathered_.empty()) gathered_.assign(size(head_), S(0));
      add_product(pool_, trace, gathered_.data());
      return;
    }
    if (head_ != embedding_) finish();  // the head's pieces come first and together
    deliver(trace.weight, [&](S* at) { add_product(pool_, trace, at); });
  }

  template <class Add>
  void deliver(index_t block, Add&& add) {
    scratch_.assign(size(block), S(0));
    add(scratch_.data());
    take_(block, std::span<const S>(scratch_));
  }

  worker_pool& pool_;
  const parameter_layout& layout_;
  index_t head_, embedding_;
  taker take_;
  std::vector<S> gathered_, scratch_;
};

}  // namespace dualsft::llm::detail
