// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/layout.hpp>
#include <dualsft/llm/detail/attention.hpp>
#include <dualsft/llm/detail/packed_tokens.hpp>
#include <dualsft/llm/detail/tangent_kernels.hpp>
#include <dualsft/llm/detail/trace_sink.hpp>
#include <dualsft/llm/parameter_names.hpp>
#include <vector>

/// One layer of a transformer on packed tokens: forward, backward as traces, and the derivative
/// along a direction of parameter space. Source: the families' published architectures; the
/// equations are in model_config.hpp.
namespace dualsft::llm::detail {

/// What a layer's backward pass needs of its forward pass. The rest is formed again.
template <class S>
struct layer_state {
  row_matrix<S> input, middle;  // the residual stream before attention and before the MLP
  row_matrix<S> raw_q, raw_k;   // before their norms, where there are any
  row_matrix<S> q, k, v, o;     // q and k turned
  row_matrix<S> raw_a, raw_m;   // before the post norms, where there are any
  row_matrix<S> gate, up;
  std::vector<S> inv_attention, inv_mlp, inv_q, inv_k, inv_a, inv_m, log_sums;
};

/// Scratch of the passes, kept from layer to layer.
template <class S>
struct layer_scratch {
  row_matrix<S> x, m, unit, e, dx, dm, dg, du, dq, dk, dv, d_raw_q, d_raw_k;
  std::vector<index_t> head_examples;
};

template <class S>
class decoder {
 public:
  decoder(const model_config& config, const transformer_map& map, const S* theta, worker_pool& pool,
          const rotation_table<S>& rotation, const rotation_table<S>& local)
      : config_(config),
        map_(map),
        theta_(theta),
        pool_(pool),
        rotation_(rotation),
        local_(local) {}

  /// h [T, width] becomes the layer's output; `state` keeps what backward needs.
  void forward(index_t l, const packed_tokens& tokens, row_matrix<S>& h, layer_state<S>& state,
               layer_scratch<S>& s) const {
    forward(l, tokens.positions, h, state, s, [&] {
      attention<S>(pool_, shape(l), tokens.starts)
          .forward(state.q, state.k, state.v, state.o, state.log_sums);
    });
  }

  /// The same with another attention: attend() fills state.o from state.q, k and v.
  template <class Attend>
  void forward(index_t l, const std::vector<index_t>& positions, row_matrix<S>& h,
               layer_state<S>& state, layer_scratch<S>& s, Attend&& attend) const {
    const layer_blocks& b = blocks(l);
    state.input = h;
    norm_at(b.attention_norm).forward(pool_, h, state.inv_attention, s.x);
    project_heads(b.q, b.q_bias, b.q_norm, s.x, state.raw_q, state.inv_q, state.q);
    project_heads(b.k, b.k_bias, b.k_norm, s.x, state.raw_k, state.inv_k, state.k);
    linear(pool_, s.x, matrix(b.v), bias(b.v_bias), state.v);
    turns(l).turn(pool_, positions, state.q, S(1));
    turns(l).turn(pool_, positions, state.k, S(1));
    attend();
    add_output(b.o, b.o_bias, b.attention_post_norm, state.o, state.raw_a, state.inv_a, h, s);

    state.middle = h;
    norm_at(b.mlp_norm).forward(pool_, h, state.inv_mlp, s.x);
    linear(pool_, s.x, matrix(b.gate), bias(b.gate_bias), state.gate);
    linear(pool_, s.x, matrix(b.up), bias(b.up_bias), state.up);
    gate_forward(pool_, config_.activation, state.gate, state.up, s.m);
    add_output(b.down, b.down_bias, b.mlp_post_norm, s.m, state.raw_m, state.inv_m, h, s);
  }

  /// dh = dl/d(output) becomes dl/d(input); use(trace) for every parameter of the layer.
  void backward(index_t l, const packed_tokens& tokens, layer_state<S>& state, row_matrix<S>& dh,
                layer_scratch<S>& s, trace_sink<S>& use) const {
    const layer_blocks& b = blocks(l);
    const auto& examples = tokens.examples;
    {
      const row_matrix<S>& e =
          output_error(b.mlp_post_norm, state.raw_m, state.inv_m, examples, dh, s, use);
      gate_forward(pool_, config_.activation, state.gate, state.up, s.m);
      use(affine(b.down, b.down_bias, s.m, e, examples));
      linear_back(pool_, e, matrix(b.down), s.dm);
    }
    gate_backward(pool_, config_.activation, state.gate, state.up, s.dm, s.dg, s.du);
    const norm<S> mlp_norm = norm_at(b.mlp_norm);
    mlp_norm.again(pool_, state.middle, state.inv_mlp, s.x);
    use(affine(b.gate, b.gate_bias, s.x, s.dg, examples));
    use(affine(b.up, b.up_bias, s.x, s.du, examples));
    linear_back(pool_, s.dg, matrix(b.gate), s.dx);
    linear_back(pool_, s.du, matrix(b.up), s.dx, into::add);
    mlp_norm.backward(pool_, state.middle, state.inv_mlp, s.dx, s.unit, dh, into::add);
    use(scale_trace<S>{b.mlp_norm, view_of(std::as_const(s.unit)), view_of(std::as_const(s.dx)),
                       examples});

    {
      const row_matrix<S>& e =
          output_error(b.attention_post_norm, state.raw_a, state.inv_a, examples, dh, s, use);
      use(affine(b.o, b.o_bias, state.o, e, examples));
      linear_back(pool_, e, matrix(b.o), s.dm);
    }
    attention<S>(pool_, shape(l), tokens.starts)
        .backward(state.q, state.k, state.v, state.log_sums, s.dm, s.dq, s.dk, s.dv);
    turns(l).turn(pool_, tokens.positions, s.dq, S(-1));
    turns(l).turn(pool_, tokens.positions, s.dk, S(-1));
    const row_matrix<S>& dq =
        head_error(b.q_norm, state.raw_q, state.inv_q, examples, s.dq, s.d_raw_q, s, use);
    const row_matrix<S>& dk =
        head_error(b.k_norm, state.raw_k, state.inv_k, examples, s.dk, s.d_raw_k, s, use);
    const norm<S> attention_norm = norm_at(b.attention_norm);
    attention_norm.again(pool_, state.input, state.inv_attention, s.x);
    use(affine(b.q, b.q_bias, s.x, dq, examples));
    use(affine(b.k, b.k_bias, s.x, dk, examples));
    use(affine(b.v, b.v_bias, s.x, s.dv, examples));
    linear_back(pool_, dq, matrix(b.q), s.dx);
    linear_back(pool_, dk, matrix(b.k), s.dx, into::add);
    linear_back(pool_, s.dv, matrix(b.v), s.dx, into::add);
    attention_norm.backward(pool_, state.input, state.inv_attention, s.dx, s.unit, dh, into::add);
    use(scale_trace<S>{b.attention_norm, view_of(std::as_const(s.unit)),
                       view_of(std::as_const(s.dx)), examples});
  }

  /// h [2 T, width], the values above and R{h}, their derivatives along p [d], below, becomes the
  /// same of the layer's output; nothing is kept.
  void tangent(index_t l, const packed_tokens& tokens, const S* p, row_matrix<S>& h,
               layer_scratch<S>& s) const {
    const layer_blocks& b = blocks(l);
    const auto normed = [&](index_t block, const row_matrix<S>& x, row_matrix<S>& y) {
      if (block >= 0) norm_tangent(pool_, norm_at(block), x, p + offset(block), y);
    };
    const auto mapped = [&](index_t weight, index_t bias_block, const row_matrix<S>& x,
                            row_matrix<S>& y, into how = into::overwrite) {
      linear_tangent(pool_, x, matrix(weight), matrix_of(p, weight), bias(bias_block),
                     bias_block < 0 ? nullptr : p + offset(bias_block), y, how);
    };
    const auto add_output = [&](index_t weight, index_t bias_block, index_t post_norm,
                                const row_matrix<S>& x) {
      if (post_norm < 0) return mapped(weight, bias_block, x, h, into::add);
      mapped(weight, bias_block, x, s.e);
      normed(post_norm, s.e, s.e);
      add_rows(h, s.e);
    };
    normed(b.attention_norm, h, s.x);
    mapped(b.q, b.q_bias, s.x, s.dq);
    mapped(b.k, b.k_bias, s.x, s.dk);
    mapped(b.v, b.v_bias, s.x, s.dv);
    normed(b.q_norm, s.dq, s.dq);
    normed(b.k_norm, s.dk, s.dk);
    turns(l).turn(pool_, tokens.positions, s.dq, S(1));
    turns(l).turn(pool_, tokens.positions, s.dk, S(1));
    attention<S>(pool_, shape(l), tokens.starts).tangent(s.dq, s.dk, s.dv, s.m);
    add_output(b.o, b.o_bias, b.attention_post_norm, s.m);

    normed(b.mlp_norm, h, s.x);
    mapped(b.gate, b.gate_bias, s.x, s.dg);
    mapped(b.up, b.up_bias, s.x, s.du);
    gate_tangent(pool_, config_.activation, s.dg, s.du);
    add_output(b.down, b.down_bias, b.mlp_post_norm, s.dg);
  }

  attention_shape shape(index_t l) const {
    return {config_.heads, config_.kv_heads, config_.head_size, config_.query_scale, window(l)};
  }
  norm<S> norm_at(index_t block) const {
    const parameter_block& b = map_.layout.block(block);
    return {theta_ + b.offset, b.rows, config_.norm_epsilon, S(config_.norm_plus_one ? 1 : 0)};
  }
  matrix_view<const S> matrix(index_t block) const { return matrix_of(theta_, block); }
  matrix_view<const S> matrix_of(const S* vector, index_t block) const {
    const parameter_block& b = map_.layout.block(block);
    return {vector + b.offset, b.rows, b.cols};
  }
  index_t offset(index_t block) const { return map_.layout.block(block).offset; }

 private:
  const layer_blocks& blocks(index_t l) const { return map_.layers[static_cast<std::size_t>(l)]; }
  const S* bias(index_t block) const { return block < 0 ? nullptr : theta_ + offset(block); }
  index_t window(index_t l) const { return config_.windows[static_cast<std::size_t>(l)]; }
  const rotation_table<S>& turns(index_t l) const { return window(l) > 0 ? local_ : rotation_; }

  static affine_trace<S> affine(index_t weight, index_t bias, const row_matrix<S>& x,
                                const row_matrix<S>& e, const std::vector<index_t>& examples) {
    return {weight, bias, view_of(x), view_of(e), examples};
  }

  void add_rows(row_matrix<S>& to, const row_matrix<S>& what) const {
    pool_.ranges(to.rows(), row_grain(to.cols()), [&](index_range range) {
      for (index_t t = range.begin; t < range.end; ++t) row_of(to, t) += row_of(what, t);
    });
  }

  void project_heads(index_t weight, index_t bias_block, index_t norm_block, const row_matrix<S>& x,
                     row_matrix<S>& raw, std::vector<S>& inv, row_matrix<S>& y) const {
    if (norm_block < 0) {
      linear(pool_, x, matrix(weight), bias(bias_block), y);
    } else {
      linear(pool_, x, matrix(weight), bias(bias_block), raw);
      norm_at(norm_block).forward(pool_, raw, inv, y);
    }
  }

  /// h += post(x W^T + b)
  void add_output(index_t weight, index_t bias_block, index_t norm_block, const row_matrix<S>& x,
                  row_matrix<S>& raw, std::vector<S>& inv, row_matrix<S>& h,
                  layer_scratch<S>& s) const {
    if (norm_block < 0) {
      linear(pool_, x, matrix(weight), bias(bias_block), h, into::add);
    } else {
      linear(pool_, x, matrix(weight), bias(bias_block), raw);
      norm_at(norm_block).forward(pool_, raw, inv, s.x);
      add_rows(h, s.x);
    }
  }

  /// dl/d(x W^T + b) from dh.
  const row_matrix<S>& output_error(index_t norm_block, const row_matrix<S>& raw,
                                    const std::vector<S>& inv, const std::vector<index_t>& examples,
                                    const row_matrix<S>& dh, layer_scratch<S>& s,
                                    trace_sink<S>& use) const {
    if (norm_block < 0) return dh;
    norm_at(norm_block).backward(pool_, raw, inv, dh, s.unit, s.e, into::overwrite);
    use(scale_trace<S>{norm_block, view_of(std::as_const(s.unit)), view_of(dh), examples});
    return s.e;
  }

  /// dl/d(raw head) from dl/d(normed head): the trace has a row per token and head.
  const row_matrix<S>& head_error(index_t norm_block, const row_matrix<S>& raw,
                                  const std::vector<S>& inv, const std::vector<index_t>& examples,
                                  const row_matrix<S>& e, row_matrix<S>& d_raw, layer_scratch<S>& s,
                                  trace_sink<S>& use) const {
    if (norm_block < 0) return e;
    const norm<S> n = norm_at(norm_block);
    n.backward(pool_, raw, inv, e, s.unit, d_raw, into::overwrite);
    const index_t heads = raw.cols() / n.width;
    s.head_examples.clear();
    for (const index_t i : examples)
      s.head_examples.insert(s.head_examples.end(), static_cast<std::size_t>(heads), i);
    const index_t pieces = n.pieces(raw);
    use(scale_trace<S>{norm_block, matrix_view<const S>(s.unit.data(), pieces, n.width),
                       matrix_view<const S>(e.data(), pieces, n.width), s.head_examples});
    return d_raw;
  }

  const model_config& config_;
  const transformer_map& map_;
  const S* theta_;
  worker_pool& pool_;
  const rotation_table<S>& rotation_;
  const rotation_table<S>& local_;
};

}  // namespace dualsft::llm::detail
