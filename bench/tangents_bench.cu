// Measures: the row-wise pieces of a transformer's forward derivative on a device (values and
// tangents), at 8,192 tokens of Llama-3.2-3B and Qwen2.5-7B in bf16; and three ways to form a
// linear map's tangent.
// Against: a copy within the device at the same moments (bytes read and written count on both
// sides); a bf16 product by cuBLASLt.
// Must reach: 0.90 of the copy; linear maps, 0.85 of the product.
//
// Linear maps: stacked_rows is [x; dx] W^T and then x P^T added; side_by_side is x W^T and
// [x | dx] [P | W]^T, which rounds the tangent once; stacked_weights is x [W; P]^T and then dx W^T
// added.
#include <algorithm>
#include <cmath>
#include <dualsft/llm/nll_tangents.cuh>
#include <dualsft/llm/tangents.cuh>
#include <string>
#include <vector>

#include "support/device_bench.cuh"
#include "support/device_inputs.cuh"

namespace {

using namespace dualsft;
using namespace dualsft::llm;
using T = bfloat16;
using dualsft::detail::device_array;

double to_double(T x) {
  return static_cast<double>(to_float(x));
}

std::vector<double> row_of(const exec::cuda& policy,
                           const matrix_view<const T, device_space>& matrix, index_t i) {
  std::vector<T> from(static_cast<std::size_t>(matrix.cols()));
  dualsft::detail::cuda_check(
      cudaMemcpyAsync(from.data(), matrix.data() + i * matrix.row_stride(), from.size() * sizeof(T),
                      cudaMemcpyDeviceToHost, policy.stream),
      "bench");
  dualsft::detail::cuda_check(cudaStreamSynchronize(policy.stream), "bench");
  std::vector<double> out;
  for (const T x : from) out.push_back(to_double(x));
  return out;
}

/// Tokens that are looked at.
std::vector<index_t> some_of(index_t tokens) {
  return bench::few(tokens, 4);
}

/// Values above tangents.
struct rows {
  index_t count, cols;
  bench::drawn numbers;
  device_array<T> data;

  rows(const exec::cuda& policy, index_t n, index_t width, std::uint64_t seed)
      : count(n), cols(width), numbers{bench::spread::normal, seed}, data(policy, 2 * n * width) {
    bench::fill(policy, data.view(), numbers);
  }
  tangent_rows<T> view() const {
    return stacked(matrix_view<T, device_space>(data.data(), 2 * count, cols));
  }
  tangent_rows<T> beside() const {
    return side_by_side(matrix_view<T, device_space>(data.data(), count, 2 * cols));
  }
  /// Row t of the values, t + count of the tangents.
  std::vector<double> row(const exec::cuda& policy, index_t t) const {
    return row_of(policy, {data.data(), 2 * count, cols}, t);
  }
  /// What it was filled with.
  double drawn(index_t t, index_t i) const { return to_double(to_bfloat16(numbers(t * cols + i))); }
};

/// As one rounding to bf16 and some of float leave it.
bool is_near(double found, double wanted, double size) {
  return std::fabs(found - wanted) <= 0x1p-8 * std::fabs(wanted) + 1e-4 * size;
}

double bytes_of(index_t elements) {
  return static_cast<double>(elements) * sizeof(T);
}

void finish(benchmark::State& state, double bytes, const std::function<void(index_t)>& once) {
  bench::device_timer timer(state);
  timer.moves(bytes);
  timer.at_least("ratio_to_copy", 0.90);
  timer.run(once);
}

// ---- norms -------------------------------------------------------------------------------------

/// One head's norm by its definition in double.
std::vector<llm::detail::value_tangent<double>> normed_head(const double* x, const double* dx,
                                                            const std::vector<double>& scale,
                                                            const std::vector<double>& rate) {
  llm::detail::norm_sums<double> sums;
  for (std::size_t i = 0; i < scale.size(); ++i) sums.add(x[i], dx[i]);
  const llm::detail::norm_factors<double> factors(sums, static_cast<index_t>(scale.size()), 1e-6);
  std::vector<llm::detail::value_tangent<double>> out;
  for (std::size_t i = 0; i < scale.size(); ++i)
    out.push_back(factors(x[i], dx[i], scale[i], rate[i]));
  return out;
}

enum class with { nothing, residual };

void norms(benchmark::State& state, index_t tokens, index_t heads, index_t width, with what) {
  const exec::cuda policy = bench::policy();
  const index_t cols = heads * width;
  if (!bench::fits(state, 3 * bytes_of(2 * tokens * cols))) return;
  const rows x(policy, tokens, cols, 1), h(policy, tokens, cols, 2), y(policy, tokens, cols, 3);
  const rows w(policy, 1, width, 4);
  const tangent_norm<T> norm{{w.data.data(), width}, {w.data.data() + width, width}, 1e-6, 0};
  const auto once = [&](index_t) {
    if (what == with::residual)
      add_norm_tangent<T>(policy, x.view(), norm, h.view(), y.view());
    else
      norm_tangent<T>(policy, norm, x.view(), y.view());
  };
  once(0);
  const std::vector<double> scale = w.row(policy, 0), rate = w.row(policy, 1);
  bool right = true;
  for (const index_t t : some_of(tokens)) {
    const rows& normed = what == with::residual ? h : x;
    const std::vector<double> a = normed.row(policy, t), da = normed.row(policy, tokens + t);
    for (index_t i = 0; what == with::residual && i < cols; ++i)
      right = right && is_near(a[i], h.drawn(t, i) + x.drawn(t, i), 0) &&
              is_near(da[i], h.drawn(tokens + t, i) + x.drawn(tokens + t, i), 0);
    const std::vector<double> b = y.row(policy, t), db = y.row(policy, tokens + t);
    for (std::size_t begin = 0; begin < a.size(); begin += scale.size()) {
      const auto wanted = normed_head(&a[begin], &da[begin], scale, rate);
      for (std::size_t i = 0; i < scale.size(); ++i)
        right = right && is_near(b[begin + i], wanted[i].value, 10) &&
                is_near(db[begin + i], wanted[i].tangent, 10);
    }
  }
  if (!bench::check(state, right, "a norm differs from the definition")) return;
  finish(state, (what == with::residual ? 4 : 2) * bytes_of(2 * tokens * cols), once);
}

// ---- gates, rotations, embedding ---------------------------------------------------------------

void gates(benchmark::State& state, gate_activation kind, index_t tokens, index_t cols) {
  const exec::cuda policy = bench::policy();
  if (!bench::fits(state, 3 * bytes_of(2 * tokens * cols))) return;
  const rows g(policy, tokens, cols, 1), u(policy, tokens, cols, 2), m(policy, tokens, cols, 3);
  const auto once = [&](index_t) { gate_tangent<T>(policy, kind, g.view(), u.view(), m.view()); };
  once(0);
  bool right = true;
  for (const index_t t : some_of(tokens)) {
    const std::vector<double> z = g.row(policy, t), dz = g.row(policy, tokens + t);
    const std::vector<double> v = u.row(policy, t), dv = u.row(policy, tokens + t);
    const std::vector<double> found = m.row(policy, t), tangent = m.row(policy, tokens + t);
    for (std::size_t i = 0; i < z.size(); ++i) {
      const auto wanted = llm::detail::gated(kind, z[i], dz[i], v[i], dv[i]);
      right =
          right && is_near(found[i], wanted.value, 10) && is_near(tangent[i], wanted.tangent, 10);
    }
  }
  if (!bench::check(state, right, "a gate differs from the definition")) return;
  finish(state, 3 * bytes_of(2 * tokens * cols), once);
}

enum class normed { no, yes };

void rotations(benchmark::State& state, index_t tokens, index_t heads, index_t head_size,
               normed how) {
  const exec::cuda policy = bench::policy();
  const index_t cols = heads * head_size, half = head_size / 2;
  if (!bench::fits(state, 2 * bytes_of(2 * tokens * cols))) return;
  const rows x(policy, tokens, cols, 1), y(policy, tokens, cols, 2), w(policy, 1, head_size, 3);
  std::vector<index_t> at;
  std::vector<float> cosines, sines;
  for (index_t t = 0; t < tokens; ++t) {
    at.push_back(t);
    for (index_t k = 0; k < half; ++k) {
      cosines.push_back(
          static_cast<float>(std::cos(0.01 * static_cast<double>(t * (k + 1) % 628))));
      sines.push_back(static_cast<float>(std::sin(0.01 * static_cast<double>(t * (k + 1) % 628))));
    }
  }
  const device_array<index_t> positions(policy, std::span<const index_t>(at));
  const device_array<float> c(policy, std::span<const float>(cosines));
  const device_array<float> s(policy, std::span<const float>(sines));
  const tangent_rotation<index_t> rotation{
      positions.view(), {c.data(), tokens, half}, {s.data(), tokens, half}};
  const tangent_norm<T> norm{
      {w.data.data(), head_size}, {w.data.data() + head_size, head_size}, 1e-6, 0};
  const auto once = [&](index_t) {
    if (how == normed::yes)
      turn_tangent<T>(policy, norm, rotation, x.view(), y.view());
    else
      turn_tangent<T>(policy, rotation, x.view(), y.view());
  };
  once(0);
  const std::vector<double> scale = w.row(policy, 0), rate = w.row(policy, 1);
  const auto size = static_cast<std::size_t>(head_size);
  bool right = true;
  for (const index_t t : some_of(tokens)) {
    std::vector<double> a = x.row(policy, t), da = x.row(policy, tokens + t);
    const std::vector<double> b = y.row(policy, t), db = y.row(policy, tokens + t);
    for (std::size_t begin = 0; begin < a.size(); begin += size) {
      if (how == normed::yes) {
        const auto head = normed_head(&a[begin], &da[begin], scale, rate);
        for (std::size_t i = 0; i < size; ++i) {
          a[begin + i] = head[i].value;
          da[begin + i] = head[i].tangent;
        }
      }
      for (std::size_t k = begin; k < begin + size / 2; ++k) {
        const std::size_t other = k + size / 2,
                          place = static_cast<std::size_t>(t * half) + k - begin;
        const auto cosine = static_cast<double>(cosines[place]);
        const auto sine = static_cast<double>(sines[place]);
        const llm::detail::turned<double> value(a[k], a[other], cosine, sine),
            tangent(da[k], da[other], cosine, sine);
        right = right && is_near(b[k], value.a, 5) && is_near(b[other], value.b, 5) &&
                is_near(db[k], tangent.a, 10) && is_near(db[other], tangent.b, 10);
      }
    }
  }
  if (!bench::check(state, right, "a rotation differs from the definition")) return;
  const double tables = static_cast<double>(2 * tokens * half) * sizeof(float);
  finish(state, 2 * bytes_of(2 * tokens * cols) + tables, once);
}

void embeddings(benchmark::State& state, index_t tokens, index_t vocabulary, index_t cols) {
  const exec::cuda policy = bench::policy();
  if (!bench::fits(state, bytes_of(2 * (vocabulary + tokens) * cols))) return;
  const rows table(policy, vocabulary, cols, 1), h(policy, tokens, cols, 2);
  std::vector<index_t> ids;
  for (index_t t = 0; t < tokens; ++t)
    ids.push_back(static_cast<index_t>(bench::hash_of(static_cast<std::uint64_t>(t)) %
                                       static_cast<std::uint64_t>(vocabulary)));
  const device_array<index_t> on_device(policy, std::span<const index_t>(ids));
  const auto once = [&](index_t) {
    embed_tangent<T>(policy, on_device.view(), table.view(), 1, h.view());
  };
  once(0);
  bool right = true;
  for (const index_t t : some_of(tokens)) {
    const index_t id = ids[static_cast<std::size_t>(t)];
    right = right && h.row(policy, t) == table.row(policy, id) &&
            h.row(policy, tokens + t) == table.row(policy, vocabulary + id);
  }
  if (!bench::check(state, right, "a row differs from the table's")) return;
  finish(state, 2 * bytes_of(2 * tokens * cols), once);
}

// ---- the loss ----------------------------------------------------------------------------------

void losses(benchmark::State& state, index_t tokens, index_t vocabulary, index_t chunk) {
  const exec::cuda policy = bench::policy();
  if (!bench::fits(state, bytes_of(2 * tokens * vocabulary))) return;
  const rows z(policy, tokens, vocabulary, 1);
  std::vector<index_t> labels;
  for (index_t t = 0; t < tokens; ++t) labels.push_back((17 + 31 * t) % vocabulary);
  const device_array<index_t> on_device(policy, std::span<const index_t>(labels));
  const device_array<double> nll(policy, tokens), rate(policy, tokens);
  nll_tangents<> sums(policy, tokens);
  const auto once = [&](index_t) {
    if (chunk >= vocabulary)
      return nll_tangent(policy, on_device.view(), z.view(), nll.view(), rate.view());
    sums.begin(policy, on_device.view(), vocabulary);
    for (index_t first = 0; first < vocabulary; first += chunk) {
      tangent_rows<T> part = z.view();
      for (auto* m : {&part.values, &part.tangents})
        *m = {m->data() + first, tokens, std::min(chunk, vocabulary - first), m->row_stride(), 1};
      sums.add(policy, part, first);
    }
    sums.finish(policy, nll.view(), rate.view());
  };
  once(0);
  const std::vector<double> losses = nll.to_host(), rates = rate.to_host();
  bool right = true;
  for (const index_t t : some_of(tokens)) {
    const std::vector<double> a = z.row(policy, t), da = z.row(policy, tokens + t);
    double sum = 0, weighted = 0;
    for (std::size_t v = 0; v < a.size(); ++v) {
      sum += std::exp(a[v]);
      weighted += std::exp(a[v]) * da[v];
    }
    const auto at = static_cast<std::size_t>(t);
    const std::size_t label = static_cast<std::size_t>(labels[at]);
    right = right && std::fabs(losses[at] - (std::log(sum) - a[label])) < 1e-4 &&
            std::fabs(rates[at] - (weighted / sum - da[label])) < 1e-4;
  }
  if (!bench::check(state, right, "a loss differs from the definition")) return;
  finish(state, bytes_of(2 * tokens * vocabulary), once);
}

// ---- linear maps -------------------------------------------------------------------------------

enum class way { stacked_rows, side_by_side, stacked_weights };

void linear_maps(benchmark::State& state, way how, index_t tokens, index_t in, index_t out) {
  const exec::cuda policy = bench::policy();
  if (!bench::fits(state, bytes_of(2 * (tokens * (in + out) + in * out)))) return;
  const bool beside = how == way::side_by_side;
  const rows x(policy, tokens, in, 1), weights(policy, out, in, 2), y(policy, tokens, out, 3);
  device_array<unsigned char> workspace(policy, device_products::advised_workspace_bytes);
  device_products products(workspace.view());
  const tangent_rows<T> xs = beside ? x.beside() : x.view();
  const tangent_rows<T> ws = beside ? weights.beside() : weights.view();  // beside: P, W
  const tangent_rows<T> ys = how == way::stacked_rows ? y.view() : y.beside();
  const tangent_linear<T> map = beside ? tangent_linear<T>{ws.tangents, ws.values}
                                       : tangent_linear<T>{ws.values, ws.tangents};
  const auto once = [&](index_t) {
    if (how != way::stacked_weights) return linear_tangent<T>(policy, products, map, xs, ys);
    const matrix_view<T, device_space> all_weights(weights.data.data(), 2 * out, in);
    const matrix_view<T, device_space> all_y(y.data.data(), tokens, 2 * out);
    products.a_bt("bench", policy, xs.values, all_weights, all_y);
    products.a_bt("bench", policy, xs.tangents, ws.values, ys.tangents,
                  {.into = product_into::add});
  };
  once(0);
  // Eight tokens and eight outputs: 64 values and as many tangents.
  struct both {
    std::vector<double> first, second;
  };
  const auto rows_at = [&](const matrix_view<const T, device_space>& first,
                           const matrix_view<const T, device_space>& second) {
    std::vector<both> read;
    for (const index_t i : bench::few(first.rows(), 8))
      read.push_back({row_of(policy, first, i), row_of(policy, second, i)});
    return read;
  };
  const std::vector<both> from = rows_at(xs.values, xs.tangents),
                          by = rows_at(map.weight, map.rate), to = rows_at(ys.values, ys.tangents);
  const std::vector<index_t> outputs = bench::few(out, 8);
  bool right = true;
  for (std::size_t t = 0; t < from.size(); ++t)
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      double value = 0, value_size = 0, of_x = 0, of_w = 0, size = 0;
      for (std::size_t i = 0; i < from[t].first.size(); ++i) {
        const double a = from[t].first[i], da = from[t].second[i];
        const double w = by[o].first[i], p = by[o].second[i];
        value += a * w;
        of_x += da * w;
        of_w += a * p;
        value_size += std::fabs(a * w);
        size += std::fabs(da * w) + std::fabs(a * p);
      }
      // One of the tangent's products may have been rounded before the other was added.
      const auto at = static_cast<std::size_t>(outputs[o]);
      const double first = std::max(std::fabs(of_x), std::fabs(of_w));
      const double rounding = 0x1p-8 * (first + std::fabs(of_x + of_w));
      right = right && is_near(to[t].first[at], value, value_size) &&
              std::fabs(to[t].second[at] - (of_x + of_w)) <= rounding + 1e-4 * size;
    }
  if (!bench::check(state, right, "a product differs from the definition")) return;
  bench::device_timer timer(state);
  timer.computes(6.0 * static_cast<double>(tokens) * static_cast<double>(in) *
                 static_cast<double>(out));
  timer.at_least("ratio_to_product", 0.85);
  timer.run(once);
}

struct shape {
  std::string name;
  index_t width, mlp_width, heads, head_size, vocabulary;
};

}  // namespace

int main(int argc, char** argv) {
  using benchmark::State;
  const auto small = [](index_t size, index_t small_size) { return bench::pick(size, small_size); };
  const index_t tokens = small(8192, 9);
  for (const shape& s : {shape{"llama_3b", 3072, 8192, 24 + 8, 128, 128'256},
                         shape{"qwen_7b", 3584, 18'944, 28 + 4, 128, 152'064}}) {
    const auto add = [&](const std::string& what, const std::function<void(State&)>& body) {
      bench::add("tangents/" + what + "/" + s.name, body);
    };
    const index_t width = small(s.width, 72), mlp = small(s.mlp_width, 96);
    const index_t heads = small(s.heads, 3), head = s.head_size;
    const index_t vocabulary = small(s.vocabulary, 520);
    add("norm", [=](State& st) { norms(st, tokens, 1, width, with::nothing); });
    add("add_norm", [=](State& st) { norms(st, tokens, 1, width, with::residual); });
    add("head_norm", [=](State& st) { norms(st, tokens, heads, head, with::nothing); });
    for (const gate_activation kind : {gate_activation::silu, gate_activation::gelu_tanh})
      add(kind == gate_activation::silu ? "silu_gate" : "gelu_gate",
          [=](State& st) { gates(st, kind, tokens, mlp); });
    add("turn", [=](State& st) { rotations(st, tokens, heads, head, normed::no); });
    add("norm_and_turn", [=](State& st) { rotations(st, tokens, heads, head, normed::yes); });
    add("embed", [=](State& st) { embeddings(st, tokens, vocabulary, width); });
    add("nll", [=](State& st) { losses(st, tokens, vocabulary, vocabulary); });
    const index_t chunk = small(8192, 104);
    add("nll_chunks", [=](State& st) { losses(st, tokens, vocabulary, chunk); });
    const std::pair<way, const char*> ways[] = {{way::stacked_rows, "stacked_rows"},
                                                {way::side_by_side, "side_by_side"},
                                                {way::stacked_weights, "stacked_weights"}};
    for (const auto& [how, name] : ways) {
      add(std::string("linear_up_") + name,
          [=, way_of = how](State& st) { linear_maps(st, way_of, tokens, width, mlp); });
      add(std::string("linear_down_") + name,
          [=, way_of = how](State& st) { linear_maps(st, way_of, tokens, mlp, width); });
    }
  }
  return bench::run(argc, argv);
}
