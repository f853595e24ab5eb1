// Measures: ghost data scores of one batch on a device: A P^T met with E in the product's epilogue, then
// summed by example; rows of embeddings, norms and dense gradients.
// Against: cuBLASLt forming the same product alone (in bf16), and that product followed by the row dot
// with E; rows against a copy within the device at the same moments.
// Must reach: 0.85 of cuBLASLt's rate for the product alone.
//
// Shapes are those of the linear layers of Llama-3.2-3B and Qwen2.5-7B, 8 examples of 1,024 tokens.
#include <dualsft/device_products.cuh>
#include <dualsft/ghost_scores.cuh>
#include <string>

#include "support/device_bench.cuh"
#include "support/device_inputs.cuh"
#include "support/ghost_check.cuh"

namespace {

using namespace dualsft;

struct layer {
  const char* name;
  index_t in, out;
  bool biased = false;
};

template <class T>
matrix_view<const T, device_space> rows_of(const detail::device_array<T>& from, index_t rows,
                                           index_t cols) {
  return {from.data(), rows, cols};
}

std::vector<index_t> runs_of(index_t tokens, index_t batch) {
  std::vector<index_t> out(static_cast<std::size_t>(tokens));
  for (index_t t = 0; t < tokens; ++t) out[static_cast<std::size_t>(t)] = t * batch / tokens;
  return out;
}

void affine(benchmark::State& state, const layer& of, index_t tokens) {
  const exec::cuda policy = bench::policy();
  const index_t in = of.in, out = of.out, batch = 8;
  const auto real = [](index_t n) { return static_cast<double>(n); };
  if (!bench::fits(state, 2 * (real(tokens) * real(in + 2 * out) + real(in * out)))) return;
  const detail::device_array<bfloat16> a(policy, tokens * in), e(policy, tokens * out),
      p(policy, out * in), bias(policy, out), product(policy, tokens * out), ones(policy, out);
  bench::fill(policy, a.view(), {bench::spread::normal, 1});
  bench::fill(policy, e.view(), {bench::spread::normal, 2, 0x1p-10f});
  bench::fill(policy, p.view(), {bench::spread::normal, 3, 0x1p-6f});
  bench::fill(policy, bias.view(), {bench::spread::normal, 4});
  bench::fill(policy, ones.view(), {bench::spread::all_equal, 5, 2});
  const auto examples = runs_of(tokens, batch);
  const detail::device_array<index_t> on_examples(policy, std::span(examples));
  detail::device_array<double> scores(policy, batch);
  scores.fill_bytes(0);
  ghost_workspace workspace(policy, tokens, out, batch);
  vector_view<const bfloat16, device_space> b;
  if (of.biased) b = bias.view();
  const device_affine_trace<bfloat16> trace{rows_of(a, tokens, in), rows_of(e, tokens, out),
                                            on_examples.view()};
  const auto weight = rows_of(p, out, in);

  if (!bench::check(state, bench::right_ghost_tokens(policy, trace, weight, b, workspace),
                    "scores differ from sums in double"))
    return;

  const detail::device_array<unsigned char> space(policy, device_products::advised_workspace_bytes);
  device_products products(space.view());
  const matrix_view<bfloat16, device_space> y(product.data(), tokens, out);
  bench::device_timer timer(state);
  timer.computes(2.0 * real(tokens) * real(in) * real(out));
  timer.against("cublaslt",
                [&](index_t) { products.a_bt("bench", policy, trace.inputs, weight, y); });
  timer.against("cublaslt_then_dot", [&](index_t) {
    products.a_bt("bench", policy, trace.inputs, weight, y);
    add_ghost_scores(policy,
                     device_scale_trace<bfloat16>{y, trace.output_gradients, on_examples.view()},
                     ones.view(), scores.view(), workspace);
  });
  timer.at_least("ratio_to_cublaslt", 0.85);
  timer.run([&](index_t) { add_ghost_scores(policy, trace, weight, b, scores.view(), workspace); });
}

enum class rows_kind { embedding, scale, dense };

void rows(benchmark::State& state, rows_kind kind, index_t tokens, index_t cols,
          index_t vocabulary) {
  const exec::cuda policy = bench::policy();
  const detail::device_array<bfloat16> x(policy, tokens * cols), e(policy, tokens * cols),
      table(policy, vocabulary * cols);
  bench::fill(policy, x.view(), {bench::spread::normal, 1});
  bench::fill(policy, e.view(), {bench::spread::normal, 2});
  bench::fill(policy, table.view(), {bench::spread::normal, 3});
  std::vector<index_t> ids(static_cast<std::size_t>(tokens));
  for (std::size_t t = 0; t < ids.size(); ++t)
    ids[t] = static_cast<index_t>(bench::hash_of(t) % static_cast<std::uint64_t>(vocabulary));
  const auto examples = runs_of(tokens, std::min<index_t>(tokens, 8));
  const detail::device_array<index_t> on_ids(policy, std::span(std::as_const(ids)));
  const detail::device_array<index_t> on_examples(policy, std::span(examples));
  detail::device_array<double> scores(policy, 8);
  scores.fill_bytes(0);
  ghost_workspace workspace(policy, tokens, 1, 8);
  const vector_view<const bfloat16, device_space> p(table.data(), cols);
  const auto add = [&](index_t) {
    if (kind == rows_kind::embedding)
      add_ghost_scores(policy,
                       device_embedding_trace<bfloat16>{on_ids.view(), rows_of(e, tokens, cols),
                                                        on_examples.view()},
                       rows_of(table, vocabulary, cols), scores.view(), workspace);
    else if (kind == rows_kind::scale)
      add_ghost_scores(policy,
                       device_scale_trace<bfloat16>{rows_of(x, tokens, cols),
                                                    rows_of(e, tokens, cols), on_examples.view()},
                       p, scores.view(), workspace);
    else
      add_ghost_scores(policy,
                       device_dense_trace<bfloat16>{rows_of(x, tokens, cols), on_examples.view()},
                       p, scores.view(), workspace);
  };
  add(0);
  double want = 0, size = 0;  // of example 0
  const auto at = [](int seed, index_t i) {
    const bench::drawn numbers{bench::spread::normal, static_cast<std::uint64_t>(seed)};
    return static_cast<double>(to_float(to_bfloat16(numbers(i))));
  };
  for (std::size_t t = 0; t < examples.size() && examples[t] == 0; ++t)
    for (index_t c = 0; c < cols; ++c) {
      const index_t here = static_cast<index_t>(t) * cols + c;
      const double term = kind == rows_kind::embedding ? at(2, here) * at(3, ids[t] * cols + c)
                          : kind == rows_kind::scale   ? at(2, here) * at(1, here) * at(3, c)
                                                       : at(1, here) * at(3, c);
      want += term;
      size += std::abs(term);
    }
  if (!bench::check(state, std::abs(scores.to_host()[0] - want) <= 64 * 0x1p-23 * size,
                    "a score differs from its sum in double"))
    return;
  const auto row_bytes = static_cast<double>(tokens) * static_cast<double>(cols) * 2;
  bench::device_timer timer(state);
  timer.moves(kind == rows_kind::dense ? row_bytes : 2 * row_bytes);
  timer.run(add);
}

}  // namespace

int main(int argc, char** argv) {
  using benchmark::State;
  const layer layers[] = {
      {"llama3b/q_o", 3072, 3072},     {"llama3b/kv", 3072, 1024},
      {"llama3b/gate_up", 3072, 8192}, {"llama3b/down", 8192, 3072},
      {"llama3b/head", 3072, 128256},  {"qwen7b/q", 3584, 3584, true},
      {"qwen7b/kv", 3584, 512, true},  {"qwen7b/gate_up", 3584, 18944},
      {"qwen7b/down", 18944, 3584},    {"qwen7b/head", 3584, 152064},
  };
  const auto small = [](index_t n) { return bench::pick<index_t>(n, n % 97 / 8 * 8 + 72); };
  for (layer each : layers) {
    each.in = small(each.in);
    each.out = small(each.out);
    const index_t tokens = bench::pick<index_t>(8192, 130);
    bench::add(std::string("ghost_scores/") + each.name + "/bf16/tokens:" + std::to_string(tokens),
               [=](State& s) { affine(s, each, tokens); });
  }
  const index_t tokens = bench::pick<index_t>(8192, 30), cols = bench::pick<index_t>(3072, 100);
  const index_t vocabulary = bench::pick<index_t>(128256, 50);
  bench::add("ghost_scores/embedding/bf16",
             [=](State& s) { rows(s, rows_kind::embedding, tokens, cols, vocabulary); });
  bench::add("ghost_scores/scale/bf16",
             [=](State& s) { rows(s, rows_kind::scale, tokens, cols, 1); });
  const index_t block = bench::pick<index_t>(25165824, 5000);
  bench::add("ghost_scores/dense/bf16", [=](State& s) { rows(s, rows_kind::dense, 8, block, 1); });
  return bench::run(argc, argv);
}
