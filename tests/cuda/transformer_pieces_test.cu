// Proves: the device's pieces make up a transformer's forward derivative, and its traces' ghost products
// give the same data scores: two of the four strategies, of every family's architecture. Against: the
// host's transformer in double.
#include <doctest/doctest.h>

#include <dualsft/ghost_scores.cuh>
#include <dualsft/llm/attention.cuh>
#include <dualsft/llm/nll_tangents.cuh>
#include <dualsft/llm/tangents.cuh>
#include <dualsft/llm/transformer.hpp>

#include "device_values.cuh"

using namespace dualsft;
using namespace dualsft::llm;
using namespace dualsft::testing;
namespace core = dualsft::detail;
namespace pieces = dualsft::llm::detail;
using core::device_array;

namespace {

model_config small_config() {
  model_config c;
  c.vocabulary = 37;
  c.width = 24;
  c.mlp_width = 40;
  c.layers = 2;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_size = 8;
  c.query_scale = 0.35;
  c.windows = {0, 0};
  return c;
}

/// What the families differ in, each at least once.
std::vector<model_config> configs() {
  std::vector<model_config> all(3, small_config());
  all[0].tied_head = true;
  all[0].rope = {10000, rope_rule::llama3, 8, 1, 4, 16};
  all[1].qkv_bias = all[1].output_bias = all[1].mlp_bias = true;
  model_config& gemma = all[2];
  gemma.qk_norm = gemma.post_norms = gemma.norm_plus_one = gemma.tied_head = true;
  gemma.embedding_scale = std::sqrt(24.0);
  gemma.activation = gate_activation::gelu_tanh;
  gemma.windows = {3, 0};
  gemma.local_rope.base = 100;
  gemma.kv_heads = 1;
  return all;
}

std::shared_ptr<const token_corpus> random_corpus(index_t vocabulary) {
  token_corpus corpus;
  random_source random(7);
  for (const index_t length : {9, 2, 40, 5}) {
    token_record record;
    for (index_t t = 0; t < length; ++t) {
      record.ids.push_back(static_cast<token_id>(random.below(vocabulary)));
      record.labels.push_back(length < 6 || t % 3 != 0 ? record.ids.back() : ignored);
    }
    corpus.add(record);
  }
  return std::make_shared<const token_corpus>(std::move(corpus));
}

template <class T>
device_array<T> on_device(const exec::cuda& policy, const std::vector<T>& values) {
  return {policy, std::span<const T>(values)};
}
device_array<index_t> on_device(const exec::cuda& policy, std::span<const index_t> values) {
  return {policy, values};
}

/// A transformer whose parameters and direction lie on the device, float.
class device_transformer {
 public:
  device_transformer(const exec::cuda& policy, const model_config& config,
                     const std::vector<float>& theta, const std::vector<float>& direction)
      : policy_(policy),
        config_(config),
        map_(map_transformer(config)),
        theta_(on_device(policy, theta)),
        direction_(on_device(policy, direction)),
        workspace_(policy, 1 << 20),
        products_(workspace_.view()) {}

  /// <g_i, direction> of every example.
  std::vector<double> forward_derivatives(const pieces::packed_tokens& tokens, index_t batch) {
    const index_t count = tokens.size();
    const auto ids = on_device(policy_, tokens.ids), starts = on_device(policy_, tokens.starts);
    positions_ = on_device(policy_, tokens.positions);
    const matrix h(policy_, 2 * count, config_.width), x(policy_, 2 * count, config_.width);
    embed_tangent(policy_, ids.view(), rows(map_.embedding), config_.embedding_scale, h.halves());
    for (index_t l = 0; l < config_.layers; ++l) add_layer(l, starts, h, x);

    const auto predicting = on_device(policy_, tokens.rows);
    const auto labels = on_device(policy_, tokens.targets);
    const auto read = static_cast<index_t>(tokens.rows.size());
    const matrix chosen(policy_, 2 * read, config_.width), z(policy_, 2 * read, config_.vocabulary);
    embed_tangent(policy_, predicting.view(), {h.halves().values, h.halves().tangents}, 1,
                  chosen.halves());
    norm_tangent(policy_, norm(map_.final_norm), chosen.halves(), chosen.halves());
    linear_tangent(policy_, products_, linear(map_.head, -1), chosen.halves(), z.halves());
    const device_array<double> nll(policy_, read), rate(policy_, read), means(policy_, batch);
    nll_tangent(policy_, labels.view(), z.halves(), nll.view(), rate.view());
    std::vector<index_t> begins{0};
    for (index_t i = 0; i < batch; ++i)
      begins.push_back(begins.back() +
                       std::count(tokens.row_examples.begin(), tokens.row_examples.end(), i));
    const auto at = on_device(policy_, begins);
    mean_by_example(policy_, rate.view(), labels.view(), at.view(), means.view());
    return means.to_host();
  }

  /// A trace of the host, sent here and scored.
  void add(const affine_trace<float>& trace, const device_array<double>& scores,
           ghost_workspace& space) {
    const matrix a(policy_, trace.inputs), e(policy_, trace.output_gradients);
    const auto examples = on_device(policy_, trace.examples);
    const tangent_linear<float> p = linear(trace.weight, trace.bias);
    add_ghost_scores(policy_, device_affine_trace<float>{a.all(), e.all(), examples.view()}, p.rate,
                     p.bias_rate, scores.view(), space);
  }
  void add(const embedding_trace<float>& trace, const device_array<double>& scores,
           ghost_workspace& space) {
    const matrix e(policy_, trace.output_gradients);
    const auto ids = on_device(policy_, trace.ids);
    const auto examples = on_device(policy_, trace.examples);
    add_ghost_scores(policy_, device_embedding_trace<float>{ids.view(), e.all(), examples.view()},
                     rows(trace.weight).tangents, scores.view(), space);
  }
  void add(const scale_trace<float>& trace, const device_array<double>& scores,
           ghost_workspace& space) {
    const matrix x(policy_, trace.inputs), e(policy_, trace.output_gradients);
    const auto examples = on_device(policy_, trace.examples);
    add_ghost_scores(policy_, device_scale_trace<float>{x.all(), e.all(), examples.view()},
                     norm(trace.weight).rate, scores.view(), space);
  }

 private:
  class matrix {
   public:
    matrix(const exec::cuda& policy, index_t rows, index_t cols)
        : values_(policy, rows * cols), rows_(rows), cols_(cols) {}
    matrix(const exec::cuda& policy, const matrix_view<const float>& from)
        : values_(on_device(policy, dense(from))), rows_(from.rows()), cols_(from.cols()) {}

    matrix_view<float, device_space> all() const { return {values_.data(), rows_, cols_}; }
    tangent_rows<float> halves() const { return stacked(all()); }

   private:
    static std::vector<float> dense(const matrix_view<const float>& from) {
      std::vector<float> out;
      for (index_t i = 0; i < from.rows(); ++i)
        for (index_t j = 0; j < from.cols(); ++j) out.push_back(from(i, j));
      return out;
    }
    device_array<float> values_;
    index_t rows_, cols_;
  };

  void add_layer(index_t l, const device_array<index_t>& starts, const matrix& h, const matrix& x) {
    const layer_blocks& b = map_.layers[static_cast<std::size_t>(l)];
    const index_t count = h.all().rows() / 2, q_width = config_.heads * config_.head_size,
                  kv_width = config_.kv_heads * config_.head_size;
    const matrix q(policy_, 2 * count, q_width), k(policy_, 2 * count, kv_width),
        v(policy_, 2 * count, kv_width), o(policy_, 2 * count, q_width),
        g(policy_, 2 * count, config_.mlp_width), u(policy_, 2 * count, config_.mlp_width),
        y(policy_, 2 * count, config_.width);
    const index_t window = config_.windows[static_cast<std::size_t>(l)];
    const pieces::rotation_table<float> turns(window > 0 ? config_.local_rope : config_.rope,
                                              config_.head_size, count);
    const auto cosines = on_device(policy_, turns.cosines), sines = on_device(policy_, turns.sines);
    const tangent_rotation<index_t> rotation{positions_.view(),
                                             {cosines.data(), count, config_.head_size / 2},
                                             {sines.data(), count, config_.head_size / 2}};
    const auto mapped = [&](index_t weight, index_t bias, const matrix& from, const matrix& to,
                            product_into how = product_into::overwrite) {
      linear_tangent(policy_, products_, linear(weight, bias), from.halves(), to.halves(), how);
    };
    const auto add_output = [&](index_t weight, index_t bias, index_t post, const matrix& from) {
      if (post < 0) return mapped(weight, bias, from, h, product_into::add);
      mapped(weight, bias, from, y);
      add_post_tangent(policy_, y.halves(), norm(post), h.halves());
    };
    const auto turned = [&](index_t head_norm, const matrix& heads) {
      if (head_norm < 0)
        turn_tangent(policy_, rotation, heads.halves(), heads.halves());
      else
        turn_tangent(policy_, norm(head_norm), rotation, heads.halves(), heads.halves());
    };
    norm_tangent(policy_, norm(b.attention_norm), h.halves(), x.halves());
    mapped(b.q, b.q_bias, x, q);
    mapped(b.k, b.k_bias, x, k);
    mapped(b.v, b.v_bias, x, v);
    turned(b.q_norm, q);
    turned(b.k_norm, k);
    attention_tangent<float>(
        policy_, {config_.heads, config_.kv_heads, config_.head_size, config_.query_scale, window},
        starts.view(), {q.all(), k.all(), v.all()}, o.all());
    add_output(b.o, b.o_bias, b.attention_post_norm, o);
    norm_tangent(policy_, norm(b.mlp_norm), h.halves(), x.halves());
    mapped(b.gate, b.gate_bias, x, g);
    mapped(b.up, b.up_bias, x, u);
    gate_tangent(policy_, config_.activation, g.halves(), u.halves(), g.halves());
    add_output(b.down, b.down_bias, b.mlp_post_norm, g);
  }

  const parameter_block& block(index_t number) const { return map_.layout.block(number); }
  tangent_rows<const float> rows(index_t number) const {
    const parameter_block& b = block(number);
    return {{theta_.data() + b.offset, b.rows, b.cols},
            {direction_.data() + b.offset, b.rows, b.cols}};
  }
  tangent_linear<float> linear(index_t weight, index_t bias) const {
    const tangent_rows<const float> w = rows(weight);
    if (bias < 0) return {w.values, w.tangents};
    const parameter_block& b = block(bias);
    return {w.values,
            w.tangents,
            {theta_.data() + b.offset, b.rows},
            {direction_.data() + b.offset, b.rows}};
  }
  tangent_norm<float> norm(index_t number) const {
    const parameter_block& b = block(number);
    return {{theta_.data() + b.offset, b.rows},
            {direction_.data() + b.offset, b.rows},
            config_.norm_epsilon,
            config_.norm_plus_one ? 1.0 : 0.0};
  }

  exec::cuda policy_;
  model_config config_;
  transformer_map map_;
  device_array<float> theta_, direction_;
  device_array<index_t> positions_;
  device_array<unsigned char> workspace_;
  device_products products_;
};

}  // namespace

TEST_CASE("forward derivatives and ghost scores of whole transformers") {
  for (const model_config& config : configs()) {
    const own_stream stream;
    const exec::cuda policy = stream.policy();
    const auto corpus = random_corpus(config.vocabulary);
    transformer<double> truth(config, corpus, {.threads = 1});
    transformer<float> model(config, corpus, {.threads = 1});
    random_source random(3);
    std::vector<double> p;
    std::vector<float> theta, direction;
    for (const parameter_block& b : truth.layout().blocks())
      for (index_t j = 0; j < b.size(); ++j) {
        const double scale =
            b.module == "embedding" ? 1 : 1 / std::sqrt(static_cast<double>(b.cols));
        const double x =
            b.cols > 1
                ? scale * random.normal()
                : (b.module.find("norm") != std::string::npos && !config.norm_plus_one ? 1.0
                                                                                       : 0.0) +
                      0.1 * random.normal();
        theta.push_back(static_cast<float>(x));
        direction.push_back(static_cast<float>(0.1 * random.normal()));
        p.push_back(static_cast<double>(direction.back()));
      }
    std::copy(theta.begin(), theta.end(), truth.parameters().begin());
    std::copy(theta.begin(), theta.end(), model.parameters().begin());

    std::vector<index_t> examples;
    for (index_t i = 0; i < corpus->size(); ++i) examples.push_back(i);
    std::vector<double> expected(examples.size());
    truth.forward_derivatives(examples, p, expected);
    device_transformer device(policy, config, theta, direction);
    std::vector<double> found;
    pieces::for_each_chunk(*corpus, examples, 1 << 20, [&](const pieces::packed_tokens& tokens) {
      found = device.forward_derivatives(tokens, corpus->size());
    });
    const device_array<double> scores(policy, corpus->size());
    core::cuda_check(cudaMemsetAsync(scores.data(), 0, scores.bytes(), policy.stream), "test");
    ghost_workspace space(policy, 1000, 1000, corpus->size());
    model.traces(examples, [&](const auto& trace) { device.add(trace, scores, space); });
    space.check(policy);
    const std::vector<double> ghost = scores.to_host();

    // Some 20 operations follow each other per layer, each to 2^-24 of what it adds up; sums over all
    // parameters of terms that are some ten times their total.
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CAPTURE(i);
      const double allowed = 2e-5 * (1 + std::abs(expected[i]));
      CHECK(std::abs(found[i] - expected[i]) < allowed);
      CHECK(std::abs(ghost[i] - expected[i]) < allowed);
    }
  }
}
