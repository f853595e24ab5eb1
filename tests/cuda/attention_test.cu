// Proves: attention and its derivative on the device are their definitions, within the rounding of 16-bit
// weights. Against: loops in double; these against differences of the forward loop.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <dualsft/llm/attention.cuh>

#include "device_values.cuh"

using namespace dualsft;
using llm::attention;
using llm::attention_inputs;
using llm::attention_options;
using llm::attention_tangent;
using namespace dualsft::testing;

namespace {

using values = std::vector<double>;

/// Six dense matrices, and the numbers in double that their storage holds.
struct problem {
  attention_options options;
  std::vector<index_t> starts;
  std::array<values, 6> m;  ///< q, k, v, their tangents

  index_t rows() const { return starts.back(); }
  index_t heads(std::size_t which) const {
    return which % 3 == 0 ? options.heads : options.kv_heads;
  }
  index_t cols(std::size_t which) const { return heads(which) * options.head_size; }
  double at(std::size_t which, index_t i, index_t head, index_t d) const {
    return m[which][static_cast<std::size_t>(i * cols(which) + head * options.head_size + d)];
  }
};

template <class T>
problem make_problem(const attention_options& options, const std::vector<index_t>& starts,
                     std::uint64_t seed = 1) {
  problem p{options, starts, {}};
  for (std::size_t which = 0; which < 6; ++which) {
    const std::vector<T> stored =
        numbers<T>(p.rows() * p.cols(which), spread::normal, seed + which);
    for (const T x : stored) p.m[which].push_back(convert_float<double>(x));
  }
  return p;
}

/// o, R{o}, and how far off rounding may bring each.
struct outcome {
  values o, ro, o_error, ro_error;
};

/// Roundings: weights and x to `unit` (0: no storage between), results to `stored`, sums in float.
/// c of a tile lies between the smallest and largest R{z} of the row, so |R{z} - c| <= their distance;
/// without tiles c = 0.
outcome by_definition(const problem& p, double unit, double stored, bool tiles) {
  const attention_options& s = p.options;
  const auto n = static_cast<std::size_t>(p.rows() * p.cols(0));
  outcome out{values(n), values(n), values(n), values(n)};
  for (std::size_t sequence = 0; sequence + 1 < p.starts.size(); ++sequence)
    for (index_t i = p.starts[sequence]; i < p.starts[sequence + 1]; ++i)
      for (index_t h = 0; h < s.heads; ++h) {
        const index_t g = h / (s.heads / s.kv_heads);
        const index_t low =
            s.window > 0 ? std::max(p.starts[sequence], i - s.window + 1) : p.starts[sequence];
        values z, rz;
        double z_size = 0, rz_size = 0;
        for (index_t j = low; j <= i; ++j) {
          double dot = 0, rdot = 0, size = 0, rsize = 0;
          for (index_t d = 0; d < s.head_size; ++d) {
            const double q = p.at(0, i, h, d), k = p.at(1, j, g, d);
            const double rq = p.at(3, i, h, d), rk = p.at(4, j, g, d);
            dot += q * k;
            rdot += rq * k + q * rk;
            size += std::abs(q * k);
            rsize += std::abs(rq * k) + std::abs(q * rk);
          }
          z.push_back(dot * s.scale);
          rz.push_back(rdot * s.scale);
          z_size = std::max(z_size, size * s.scale);
          rz_size = std::max(rz_size, rsize * s.scale);
        }
        const double top = *std::max_element(z.begin(), z.end());
        double sum = 0, mean = 0;
        for (double& x : z) sum += x = std::exp(x - top);
        for (std::size_t j = 0; j < z.size(); ++j) mean += (z[j] /= sum) * rz[j];
        const auto [least, most] = std::minmax_element(rz.begin(), rz.end());
        const double reach = tiles ? *most - *least : std::max(std::abs(*least), std::abs(*most));
        const double eps =
            2 * static_cast<double>(s.head_size + i - low + 8) * 0x1p-24;  // of a sum in float
        for (index_t d = 0; d < s.head_size; ++d) {
          double o = 0, ro = 0, v_size = 0, rv_size = 0;
          for (index_t j = low; j <= i; ++j) {
            const auto at = static_cast<std::size_t>(j - low);
            const double v = p.at(2, j, g, d), rv = p.at(5, j, g, d);
            o += z[at] * v;
            ro += z[at] * (rz[at] - mean) * v + z[at] * rv;
            v_size += z[at] * std::abs(v);
            rv_size += z[at] * std::abs(rv);
          }
          const auto at = static_cast<std::size_t>(i * p.cols(0) + h * s.head_size + d);
          const double weight = unit + 2 * eps * z_size + eps;  // relative error of a weight
          out.o[at] = o;
          out.ro[at] = ro;
          out.o_error[at] = 1.02 * (weight * v_size + stored * std::abs(o)) + 1e-37;
          out.ro_error[at] = 1.02 * (weight * (2 * reach * v_size + rv_size) +
                                     2 * eps * rz_size * v_size + stored * std::abs(ro)) +
                             1e-37;
        }
      }
  return out;
}

template <class T>
constexpr double unit_of = std::same_as<T, bfloat16>  ? 0x1p-8
                           : std::same_as<T, float16> ? 0x1p-11
                                                      : 0.0;

template <class T>
outcome expected_of(const problem& p) {
  return by_definition(p, unit_of<T>, std::same_as<T, float> ? 0x1p-24 : unit_of<T>,
                       !std::same_as<T, float>);
}

template <class T>
std::vector<T> narrowed(const values& from) {
  std::vector<T> out;
  for (const double x : from) out.push_back(convert_float<T>(x));
  return out;
}

template <class T>
using device_matrix = matrix_view<T, device_space>;

/// A problem's matrices on a device, each with rows of its own.
template <class T>
struct on_device {
  on_device(const exec::cuda& policy, const problem& p)
      : options(p.options), rows(p.rows()), starts(policy, std::span<const index_t>(p.starts)) {
    for (std::size_t which = 0; which < 6; ++which) {
      const std::vector<T> from = narrowed<T>(p.m[which]);
      m.emplace_back(policy, std::span<const T>(from));
      cols[which] = p.cols(which);
      detail::cuda_check(cudaStreamSynchronize(policy.stream), "on_device");
    }
    for (int which = 0; which < 2; ++which) {
      out.emplace_back(policy, rows * cols[0]);
      out.back().fill_bytes(0xff);
    }
  }

  device_matrix<const T> in(std::size_t which) const {
    return {m[which].data(), rows, cols[which]};
  }
  attention_inputs<T> inputs(std::size_t from) const {
    return {in(from), in(from + 1), in(from + 2)};
  }
  device_matrix<T> result(std::size_t which) const { return {out[which].data(), rows, cols[0]}; }
  vector_view<const index_t, device_space> begins() const { return starts.view(); }

  std::vector<T> forward(const exec::cuda& policy) const {
    attention(policy, options, begins(), inputs(0), result(0));
    return out[0].to_host();
  }
  std::array<std::vector<T>, 2> tangent(const exec::cuda& policy) const {
    attention_tangent(policy, options, begins(), inputs(0), inputs(3), result(0), result(1));
    return {out[0].to_host(), out[1].to_host()};
  }
  /// By the kernel of devices before sm_90a, which a new one leaves aside for heads of up to 128.
  std::array<std::vector<T>, 2> tangent_by_warps(const exec::cuda& policy) {
    const auto rows_of = [&](std::size_t which) { return llm::detail::rows_of(in(which)); };
    const llm::detail::attention_arguments<T> a{.q = rows_of(0),
                                                .k = rows_of(1),
                                                .v = rows_of(2),
                                                .tangent_q = rows_of(3),
                                                .tangent_k = rows_of(4),
                                                .tangent_v = rows_of(5),
                                                .o = llm::detail::rows_of(result(0)),
                                                .tangent_o = llm::detail::rows_of(result(1))};
    for (auto& one : out) one.fill_bytes(0xff);
    llm::detail::launch_tensor_attention<T, true>(
        "test", policy, llm::detail::completed(a, options, begins(), rows), rows);
    return {out[0].to_host(), out[1].to_host()};
  }

  attention_options options;
  index_t rows;
  detail::device_array<index_t> starts;
  std::vector<detail::device_array<T>> m, out;
  std::array<index_t, 6> cols{};
};

/// The first element that is further off than it may be, or not finite where the other is; or -1.
template <class T>
index_t first_wrong(const std::vector<T>& found, const values& expected, const values& error) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double x = convert_float<double>(found[i]);
    const bool same =
        std::isfinite(expected[i]) ? std::abs(x - expected[i]) <= error[i] : !std::isfinite(x);
    if (!same) return static_cast<index_t>(i);
  }
  return -1;
}

template <class T>
void check(const exec::cuda& policy, const problem& p) {
  CAPTURE(p.options.heads);
  CAPTURE(p.options.kv_heads);
  CAPTURE(p.options.head_size);
  CAPTURE(p.options.window);
  CAPTURE(p.rows());
  const outcome expected = expected_of<T>(p);
  on_device<T> there(policy, p);
  const std::vector<T> forward = there.forward(policy);
  CHECK(first_wrong(forward, expected.o, expected.o_error) == -1);
  if constexpr (!std::same_as<T, float>)
    if (p.options.head_size <= 128 && detail::has_wgmma("test")) {
      const auto [o, ro] = there.tangent_by_warps(policy);
      CHECK(first_wrong(o, expected.o, expected.o_error) == -1);
      CHECK(first_wrong(ro, expected.ro, expected.ro_error) == -1);
    }
  const auto [o, ro] = there.tangent(policy);
  CHECK(first_wrong(o, expected.o, expected.o_error) == -1);
  CHECK(first_wrong(ro, expected.ro, expected.ro_error) == -1);
  CHECK(first_difference(there.forward(policy), forward) == -1);
  const auto again = there.tangent(policy);
  CHECK(first_difference(again[0], o) == -1);
  CHECK(first_difference(again[1], ro) == -1);
}

attention_options options_of(index_t heads, index_t kv_heads, index_t head_size,
                             index_t window = 0) {
  return {heads, kv_heads, head_size, 1 / std::sqrt(static_cast<double>(head_size)), window};
}

/// A start for each length, and the end.
std::vector<index_t> starts_of(const std::vector<index_t>& lengths) {
  std::vector<index_t> out{0};
  for (const index_t n : lengths) out.push_back(out.back() + n);
  return out;
}

}  // namespace

TEST_CASE("the loop's derivative is the limit of differences") {
  for (const index_t window : {0, 3}) {
    const problem p = make_problem<double>(options_of(4, 2, 5, window), {0, 1, 1, 8, 20});
    const outcome here = by_definition(p, 0, 0, false);
    const double step = 1e-5;
    problem ahead = p, behind = p;
    for (std::size_t which = 0; which < 3; ++which)
      for (std::size_t i = 0; i < p.m[which].size(); ++i) {
        ahead.m[which][i] += step * p.m[which + 3][i];
        behind.m[which][i] -= step * p.m[which + 3][i];
      }
    const values up = by_definition(ahead, 0, 0, false).o;
    const values down = by_definition(behind, 0, 0, false).o;
    // step^2 / 6 times the third derivative, which grows with the cube of R{z} (here below 10), and
    // the sums' own rounding over step.
    for (std::size_t i = 0; i < up.size(); ++i)
      CHECK(std::abs((up[i] - down[i]) / (2 * step) - here.ro[i]) <
            1e3 * step * step + 1e-15 / step);
  }
}

TEST_CASE("what is said of tiles") {
  for (const int size : {1, 5, 33, 64})
    for (const int window : {0, 1, 7, 40})
      for (int first = 0; first < size; first += 16) {
        const auto sees = [&](int i, int j) {
          return j <= i && j < size && (window == 0 || j > i - window);
        };
        int low = size, high = 0;
        for (int j = 0; j < size; ++j)
          for (int i = first; i < std::min(first + 16, size); ++i)
            if (sees(i, j)) low = std::min(low, j), high = std::max(high, j + 1);
        const llm::detail::key_range seen = llm::detail::seen_keys(first, 16, size, window);
        CHECK(seen.begin == low);
        CHECK(seen.end == high);
        for (int key = 0; key < size; key += 8) {
          bool all = true;
          for (int i = first; i < first + 16; ++i)
            for (int j = key; j < key + 8; ++j) all = all && sees(i, j);
          CHECK(llm::detail::has_unseen(first, 16, key, 8, size, window) == !all);
        }
      }
  for (index_t start = 0; start < 70; ++start)
    for (index_t n = 0; n < 70; ++n)
      CHECK(llm::detail::first_tile(start + n, 5, 32) - llm::detail::first_tile(start, 4, 32) >=
            (n + 31) / 32);
}

TEST_CASE("plain float: any head size, groups, windows, ragged sequences") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const std::vector<index_t> starts = starts_of({1, 0, 2, 0, 33, 12});
  for (const index_t head_size : {1, 7, 32, 33, 128, 256})
    check<float>(policy, make_problem<float>(options_of(2, 1, head_size, head_size % 9), starts));
  for (const index_t window : {0, 1, 7, 64})
    check<float>(policy, make_problem<float>(options_of(4, 2, 16, window), starts));
}

TEST_CASE_TEMPLATE("tensor cores: groups, windows, ragged sequences", T, bfloat16, float16) {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const std::vector<index_t> small = starts_of({1, 0, 33, 0, 0, 2, 129, 16});
  const std::vector<index_t> large = starts_of({1, 0, 333, 0, 0, 2, 128, 129, 1000, 16});
  const std::vector<index_t>& starts = is_small_run() ? small : large;
  for (const index_t window : {0, 1, 7, 64, 1000}) {
    if (is_small_run() && std::same_as<T, float16> && window != 7) continue;
    check<T>(policy, make_problem<T>(options_of(2, 1, 64, window), starts));
  }
  for (const index_t group : {1, 2, 4, 8})
    check<T>(policy, make_problem<T>(options_of(group == 1 ? 2 : group, group == 1 ? 2 : 1, 32, 40),
                                     starts_of({3, 40})));
}

TEST_CASE_TEMPLATE("tensor cores: head sizes", T, bfloat16, float16) {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const std::vector<index_t> small = starts_of({5, 150}), large = starts_of({5, 700, 0, 64});
  for (const index_t head_size : {8, 64, 72, 128, 136, 256}) {
    if (is_small_run() && std::same_as<T, float16> && head_size != 128) continue;
    const bool short_one = is_small_run() && head_size % 64 != 0;
    check<T>(policy, make_problem<T>(options_of(1, 1, head_size, head_size == 136 ? 20 : 0),
                                     short_one        ? starts_of({40})
                                     : is_small_run() ? small
                                                      : large));
  }
}

TEST_CASE("tensor cores: what keys have in common costs no precision") {
  const own_stream stream;
  problem p = make_problem<bfloat16>(options_of(1, 1, 64), starts_of({70, 30}));
  for (std::size_t i = 0; i < p.m[1].size(); ++i)
    for (const std::size_t which : {1, 4}) {  // R{z} becomes some 100 larger, its differences not
      const double offset = i % 64 == 3 ? 32 : 0;
      p.m[which][i] = to_float(to_bfloat16(p.m[which][i] + offset));
    }
  check<bfloat16>(stream.policy(), p);
}

TEST_CASE("scores of any size: large ones choose one key, equal ones all") {
  const own_stream stream;
  problem p = make_problem<bfloat16>(options_of(1, 1, 16), starts_of({50}));
  p.options.scale = 8;
  check<bfloat16>(stream.policy(), p);
  std::fill(p.m[0].begin(), p.m[0].end(), 0.0);
  check<bfloat16>(stream.policy(), p);
}

TEST_CASE("what is not finite reaches the rows that see it") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const std::vector<index_t> starts = starts_of({20, is_small_run() ? 30 : 300, 3});
  for (const index_t window : {0, 11})
    for (std::size_t which = 0; which < 6; ++which)
      for (const double odd : {infinity, -infinity, std::nan("")}) {
        if (is_small_run() && odd < 0) continue;
        CAPTURE(which);
        CAPTURE(odd);
        problem p = make_problem<float>(options_of(2, 1, 16, window), starts);
        for (values& m : p.m)
          for (double& x : m) x = to_float(to_bfloat16(x));
        for (const index_t row : {index_t{4}, index_t{32}, p.rows() - 4, p.rows() - 3})
          p.m[which][static_cast<std::size_t>(row * p.cols(which) + row % 16)] = odd;
        const outcome expected = expected_of<bfloat16>(p);
        const auto tensor = on_device<bfloat16>(policy, p).tangent(policy);
        const auto forward = on_device<bfloat16>(policy, p).forward(policy);
        const auto plain = on_device<float>(policy, p).tangent(policy);
        CHECK(first_wrong(tensor[0], expected.o, expected.o_error) == -1);
        CHECK(first_wrong(tensor[1], expected.ro, expected.ro_error) == -1);
        const auto by_warps = on_device<bfloat16>(policy, p).tangent_by_warps(policy);
        CHECK(first_wrong(by_warps[0], expected.o, expected.o_error) == -1);
        CHECK(first_wrong(by_warps[1], expected.ro, expected.ro_error) == -1);
        CHECK(first_wrong(forward, expected.o, expected.o_error) == -1);
        CHECK(first_wrong(plain[0], expected.o, expected.o_error) == -1);
        const values loose = expected_of<float>(p).ro_error;
        CHECK(first_wrong(plain[1], expected.ro, loose) == -1);
      }
}

TEST_CASE("views into one matrix of q, k and v; stacked values and tangents") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const problem p = make_problem<bfloat16>(options_of(4, 2, 32, 9), starts_of({3, 37}));
  const on_device<bfloat16> there(policy, p);
  const auto expected = there.tangent(policy);

  const index_t width = p.cols(0) + 2 * p.cols(1) + 8;
  std::vector<bfloat16> fused(static_cast<std::size_t>(2 * p.rows() * width), bfloat16{0x7fff});
  for (std::size_t which = 0; which < 6; ++which) {
    const index_t begin = which % 3 == 0 ? 0 : p.cols(0) + (which % 3 - 1) * p.cols(1);
    for (index_t i = 0; i < p.rows(); ++i)
      for (index_t j = 0; j < p.cols(which); ++j)
        fused[static_cast<std::size_t>((i + (which >= 3 ? p.rows() : 0)) * width + begin + j)] =
            to_bfloat16(p.m[which][static_cast<std::size_t>(i * p.cols(which) + j)]);
  }
  const detail::device_array<bfloat16> qkv(policy, std::span<const bfloat16>(fused));
  const auto part = [&](index_t begin, index_t cols) {
    return device_matrix<const bfloat16>(qkv.data() + begin, 2 * p.rows(), cols, width, 1);
  };
  const index_t out_width = p.cols(0) + 16;
  detail::device_array<bfloat16> out(policy, 2 * p.rows() * out_width);
  out.fill_bytes(0x11);
  attention_tangent(
      policy, p.options, there.begins(),
      {part(0, p.cols(0)), part(p.cols(0), p.cols(1)), part(p.cols(0) + p.cols(1), p.cols(1))},
      device_matrix<bfloat16>(out.data() + 8, 2 * p.rows(), p.cols(0), out_width, 1));
  const std::vector<bfloat16> found = out.to_host();
  for (index_t i = 0; i < 2 * p.rows(); ++i)
    for (index_t j = 0; j < out_width; ++j) {
      const bool inside = 8 <= j && j < 8 + p.cols(0);
      const std::vector<bfloat16>& from = expected[i < p.rows() ? 0 : 1];
      const bfloat16 wanted = inside
                                  ? from[static_cast<std::size_t>(i % p.rows() * p.cols(0) + j - 8)]
                                  : bfloat16{0x1111};
      if (found[static_cast<std::size_t>(i * out_width + j)] != wanted) {
        CAPTURE(i);
        CAPTURE(j);
        FAIL_CHECK("differs");
      }
    }
}

TEST_CASE("many sequences") {
  const own_stream stream;
  std::vector<index_t> lengths;
  for (index_t s = 0; s < (is_small_run() ? 70 : 1500); ++s) lengths.push_back(s % 3);
  lengths.push_back(40);
  check<float>(stream.policy(), make_problem<float>(options_of(1, 1, 8), starts_of(lengths)));
  check<bfloat16>(stream.policy(), make_problem<bfloat16>(options_of(1, 1, 8), starts_of(lengths)));
}

TEST_CASE("nothing to do") {
  const exec::cuda policy;
  const problem p = make_problem<float>(options_of(1, 1, 8), {0, 0, 0});
  CHECK(on_device<float>(policy, p).forward(policy).empty());
  CHECK(on_device<bfloat16>(policy, p).tangent(policy)[1].empty());
}

TEST_CASE("in a graph") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const problem p = make_problem<bfloat16>(options_of(2, 1, 64, 30), starts_of({3, 60}));
  on_device<bfloat16> there(policy, p);
  const auto expected = there.tangent(policy);
  for (auto& m : there.out) m.fill_bytes(0xff);
  detail::cuda_check(cudaStreamSynchronize(policy.stream), "test");
  replay_captured(policy, 1, [&] {
    attention_tangent(policy, there.options, there.begins(), there.inputs(0), there.inputs(3),
                      there.result(0), there.result(1));
  });
  CHECK(first_difference(there.out[0].to_host(), expected[0]) == -1);
  CHECK(first_difference(there.out[1].to_host(), expected[1]) == -1);
}

TEST_CASE("rows beyond 2^32 elements") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t stride = (index_t{1} << 30) + 8;
  std::size_t free = 0, total = 0;
  detail::cuda_check(cudaMemGetInfo(&free, &total), "test");
  const problem p = make_problem<bfloat16>(options_of(1, 1, 64), starts_of({2, 5}));
  const index_t needed = (p.rows() - 1) * stride + 8 * 64;
  if (is_small_run() || free < static_cast<std::size_t>(needed) * 2 + (std::size_t{1} << 30)) {
    MESSAGE("left out: too little memory");
    return;
  }
  const on_device<bfloat16> there(policy, p);
  const auto expected = there.tangent(policy);
  const detail::device_array<bfloat16> wide(policy, needed);  // eight matrices side by side
  const auto part = [&](std::size_t which) {
    return device_matrix<bfloat16>(wide.data() + 64 * which, p.rows(), 64, stride, 1);
  };
  const auto copy = [&](bfloat16* to, const bfloat16* from) {
    detail::cuda_check(cudaMemcpyAsync(to, from, 128, cudaMemcpyDeviceToDevice, policy.stream),
                       "test");
  };
  for (std::size_t which = 0; which < 6; ++which)
    for (index_t i = 0; i < p.rows(); ++i)
      copy(part(which).data() + i * stride, there.m[which].data() + 64 * i);
  const auto inputs = [&](std::size_t from) {
    return attention_inputs<bfloat16>{part(from), part(from + 1), part(from + 2)};
  };
  attention_tangent(policy, p.options, there.begins(), inputs(0), inputs(3), part(6), part(7));
  for (std::size_t which = 0; which < 2; ++which) {
    for (index_t i = 0; i < p.rows(); ++i)
      copy(there.out[which].data() + 64 * i, part(6 + which).data() + i * stride);
    CHECK(first_difference(there.out[which].to_host(), expected[which]) == -1);
  }
}

TEST_CASE("what callers get wrong") {
  const exec::cuda policy;
  const problem p = make_problem<bfloat16>(options_of(2, 1, 8), starts_of({4}));
  on_device<bfloat16> there(policy, p);
  const auto refused = [&](const char* text, attention_options options) {
    CHECK_THROWS_WITH_AS(
        attention(policy, options, there.begins(), there.inputs(0), there.result(0)),
        doctest::Contains(text), invalid_argument);
    CHECK_THROWS_WITH_AS(attention_tangent(policy, options, there.begins(), there.inputs(0),
                                           there.inputs(3), there.result(0), there.result(1)),
                         doctest::Contains(text), invalid_argument);
  };
  refused("heads = 3, kv_heads = 2", {3, 2, 8});
  refused("heads = 0", {0, 1, 8});
  refused("head_size = 257", {2, 1, 257});
  refused("head_size = 0", {2, 1, 0});
  refused("multiple of 8 for 16-bit values (head_size = 12)", {2, 1, 12});
  refused("scale = 0", {2, 1, 8, 0});
  refused("scale = 1e-60", {2, 1, 8, 1e-60});
  refused("scale = 1e+60", {2, 1, 8, 1e60});
  refused("window = -1", {2, 1, 8, 1, -1});
  refused("matrix = q, rows = 4, cols = 16, rows of o = 4, needed cols = 32", {4, 1, 8});
  refused("matrix = k", {2, 2, 8});

  const attention_inputs<bfloat16> in = there.inputs(0);
  const auto refused_view = [&](const char* text, const device_matrix<const bfloat16>& v) {
    CHECK_THROWS_WITH_AS(
        attention(policy, p.options, there.begins(), {in.q, in.k, v}, there.result(0)),
        doctest::Contains(text), invalid_argument);
  };
  refused_view("matrix = v, rows = 3", in.v.middle_rows(0, 3));
  refused_view("column stride = 4", {in.v.data(), 4, 8, 8, 4});
  refused_view("row stride = 12", {in.v.data(), 4, 8, 12, 1});
  refused_view("address mod 16 = 2", {in.v.data() + 1, 4, 8, 8, 1});
  CHECK_THROWS_WITH_AS(
      attention(policy, p.options, vector_view<const index_t, device_space>(), in, there.result(0)),
      doctest::Contains("starts"), invalid_argument);
  CHECK_THROWS_WITH_AS(
      attention_tangent(policy, p.options, there.begins(),
                        {in.q.middle_rows(0, 3), in.k.middle_rows(0, 3), in.v.middle_rows(0, 3)},
                        there.result(0).middle_rows(0, 3)),
      doctest::Contains("rows together = 3"), invalid_argument);
}
