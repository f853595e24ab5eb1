// Proves: the device's norms, gates, rotations, embedding rows and linear maps give values and
// tangents within a stated rounding of the host's, wherever rows lie, and the same bits twice.
// Against: the host's kernels in double.
#include <doctest/doctest.h>

#include <dualsft/llm/tangents.cuh>

#include "tangent_values.cuh"

using namespace dualsft;
using namespace dualsft::llm;
using namespace dualsft::testing;
using dualsft::detail::device_array;

namespace {

template <class T>
device_array<T> copied(const exec::cuda& policy, const std::vector<T>& from) {
  device_array<T> out(policy, std::span<const T>(from));
  dualsft::detail::cuda_check(cudaStreamSynchronize(policy.stream), "copied");
  return out;
}

// ---- norms -------------------------------------------------------------------------------------

/// w and its rate, on both sides.
template <class W>
struct norm_pair {
  double epsilon, offset;
  std::vector<W> w;
  index_t width;
  device_array<W> on_device;

  norm_pair(const exec::cuda& policy, index_t n, double plus, std::uint64_t seed,
            spread how = spread::normal)
      : epsilon(1e-3),
        offset(plus),
        w(filled<W>(2 * n, seed, 1, how)),
        width(n),
        on_device(copied(policy, w)) {}

  tangent_norm<W> view() const {
    const vector_view<W, device_space> all = on_device.view();
    return {all.subview(0, width), all.subview(width, width), epsilon, offset};
  }
  /// [2 rows, cols] -> the same of the norm, and the absolute sums that it is made of.
  std::pair<row_matrix<double>, row_matrix<double>> of(const row_matrix<double>& x) const {
    const std::vector<double> wide = in_double(w);
    const llm::detail::norm<double> n{wide.data(), width, epsilon, offset};
    row_matrix<double> y, terms(x.rows(), x.cols());
    llm::detail::norm_tangent(testing::pool(), n, x, wide.data() + width, y);
    const index_t below = x.size() / 2;
    for (index_t begin = 0; begin < below; begin += width) {
      double squares = 0, products = 0;
      for (index_t i = begin; i < begin + width; ++i) {
        squares += x.data()[i] * x.data()[i];
        products += std::fabs(x.data()[i] * x.data()[below + i]);
      }
      const double inv = 1 / std::sqrt(squares / static_cast<double>(width) + epsilon);
      const double mean = products / static_cast<double>(width) * inv;
      for (index_t i = begin; i < begin + width; ++i) {
        const double u = std::fabs(x.data()[i]) * inv;
        const double scale = std::fabs(wide[static_cast<std::size_t>(i - begin)]) + offset;
        terms.data()[i] = u * scale;
        terms.data()[below + i] = (std::fabs(x.data()[below + i]) + u * mean) * inv * scale +
                                  u * std::fabs(wide[static_cast<std::size_t>(width + i - begin)]);
      }
    }
    return {y, terms};
  }
};

constexpr double norm_c = 64;  // sums of up to 32 elements by a thread, then trees

template <class T, class W>
void check_norm(index_t rows, index_t heads, index_t width, lie from, lie to,
                spread how = spread::normal) {
  CAPTURE(rows);
  CAPTURE(heads);
  CAPTURE(width);
  CAPTURE(from.beside);
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const std::vector<T> x = filled<T>(2 * rows * heads * width, 1, 2, how);
  const norm_pair<W> norm(policy, width, 1, 2, how);
  const auto [expected, terms] = norm.of(in_double(x, heads * width));
  const device_rows<T> in(policy, rows, heads * width, from, x),
      out(policy, rows, heads * width, to);
  norm_tangent<T>(policy, norm.view(), in.read(), out.view());
  const std::vector<T> y = out.to_host();
  check_rounded(y, expected, terms, norm_c);
  CHECK(first_difference(in.to_host(), x) == -1);
  norm_tangent<T>(policy, norm.view(), in.read(), in.view());  // over its input
  check_rounded(in.to_host(), expected, terms, norm_c);
  if (from.beside == to.beside && from.offset == to.offset && from.extra == to.extra)
    CHECK(first_difference(in.to_host(), y) == -1);
}

template <class T, class W>
void check_residual(index_t rows, index_t width, lie how, spread family = spread::normal) {
  CAPTURE(rows);
  CAPTURE(width);
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const std::vector<T> x = filled<T>(2 * rows * width, 3, 1, family),
                       h = filled<T>(2 * rows * width, 4, 3, family);
  const norm_pair<W> norm(policy, width, 0, 5, family), post(policy, width, 1, 6, family);
  const device_rows<T> in(policy, rows, width, how, x);
  const row_matrix<double> h_before = in_double(h, width), added = in_double(x, width);
  const auto [posted, post_terms] = post.of(added);

  const auto check = [&](const device_rows<T>& stream_rows, const device_rows<T>& normed,
                         const row_matrix<double>& add, const row_matrix<double>& add_terms) {
    const std::vector<T> sum = stream_rows.to_host();
    const row_matrix<double> wanted = h_before + add;
    const row_matrix<double> terms =
        (h_before.array().abs() + add.array().abs() + add_terms.array()).matrix();
    check_rounded(sum, wanted, terms, norm_c);
    // y is the norm of what h holds: the very bits, if it is formed by itself.
    const device_rows<T> again(policy, rows, width, how);
    norm_tangent<T>(policy, norm.view(), stream_rows.read(), again.view());
    CHECK(first_difference(again.to_host(), normed.to_host()) == -1);
  };
  {
    const device_rows<T> sum(policy, rows, width, how, h), y(policy, rows, width, how);
    add_norm_tangent<T>(policy, in.read(), norm.view(), sum.view(), y.view());
    check(sum, y, added, row_matrix<double>::Zero(added.rows(), added.cols()));
  }
  {
    const device_rows<T> sum(policy, rows, width, how, h), y(policy, rows, width, how);
    add_norm_tangent<T>(policy, in.read(), post.view(), norm.view(), sum.view(), y.view());
    check(sum, y, posted, post_terms);
    const device_rows<T> alone(policy, rows, width, how, h);
    add_post_tangent<T>(policy, in.read(), post.view(), alone.view());
    CHECK(first_difference(alone.to_host(), sum.to_host()) == -1);
  }
  CHECK(first_difference(in.to_host(), x) == -1);
}

}  // namespace

TEST_CASE_TEMPLATE("norms of rows", T, float, bfloat16, float16) {
  for (const index_t width : {1, 2, 7, 16, 33, 64, 255, 256, 264, 1024, 2056}) {
    check_norm<T, T>(3, 1, width, {}, {});
    check_norm<T, float>(1, 1, width, {}, {});
  }
  check_norm<T, T>(0, 1, 64, {}, {});
  check_norm<T, T>(2, 1, 4096, {}, {});   // two or four packs per thread
  check_norm<T, T>(2, 1, 8192, {}, {});   // as many as registers hold, in float
  check_norm<T, T>(1, 1, 16384, {}, {});  // in 16 bits
  check_norm<T, T>(1, 1, 16392, {}, {});  // read again
  for (const lie from : ways_to_lie())
    for (const lie to : {lie{}, from}) check_norm<T, T>(5, 1, 96, from, to);
  if (!is_small_run()) check_norm<T, T>(5000, 1, 3072, {}, {});
}

TEST_CASE_TEMPLATE("norms of heads", T, float, bfloat16, float16) {
  for (const index_t width : {8, 40, 64, 128, 256, 512}) {
    check_norm<T, T>(5, 3, width, {}, {});
    check_norm<T, float>(5, 3, width, {true, 0, 0}, {true, 0, 0});
  }
  check_norm<T, T>(3, 5, 31, {}, {});
  check_norm<T, T>(130, 2, 64, {}, {});
  if (!is_small_run()) check_norm<T, T>(3000, 24, 128, {}, {});
}

TEST_CASE_TEMPLATE("residual connections", T, float, bfloat16, float16) {
  for (const index_t width : {1, 31, 64, 1024, 3000, 4096}) check_residual<T, T>(2, width, {});
  check_residual<T, float>(3, 2560, {});
  check_residual<T, T>(1, 16392, {});
  for (const lie how : ways_to_lie()) check_residual<T, T>(3, 128, how);
  if (!is_small_run()) check_residual<T, T>(2000, 5376, {});
}

// ---- gates -------------------------------------------------------------------------------------

namespace {

template <class T>
void check_gate(gate_activation kind, index_t rows, index_t cols, lie how,
                spread family = spread::normal) {
  CAPTURE(rows);
  CAPTURE(cols);
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const std::vector<T> g = filled<T>(2 * rows * cols, 7, 4, family),
                       u = filled<T>(2 * rows * cols, 8, 1, family);
  row_matrix<double> expected = in_double(g, cols);
  const row_matrix<double> z = in_double(g, cols), wide = in_double(u, cols);
  llm::detail::gate_tangent(testing::pool(), kind, expected, wide);
  row_matrix<double> terms(2 * rows, cols);
  for (index_t t = 0; t < rows; ++t)
    for (index_t j = 0; j < cols; ++j) {
      // f and f' are sums of no more than these; exp(-|z|) is off by |z| units, z of GELU by 4
      // more.
      const double x = std::fabs(z(t, j)), off = 4 + x + x * x * x / 8;
      // (The host's 1 + tanh knows nothing below 2^-53.)
      terms(t, j) = std::fabs(expected(t, j)) * off + 0x1p-27 * x * std::fabs(wide(t, j));
      terms(rows + t, j) = ((1 + x * off) * std::fabs(z(rows + t, j) * wide(t, j)) +
                            x * std::fabs(wide(rows + t, j))) *
                           off;
    }
  const device_rows<T> in_g(policy, rows, cols, how, g), in_u(policy, rows, cols, how, u);
  const device_rows<T> out(policy, rows, cols, how);
  gate_tangent<T>(policy, kind, in_g.read(), in_u.read(), out.view());
  const std::vector<T> m = out.to_host();
  check_rounded(m, expected, terms, 4);
  gate_tangent<T>(policy, kind, in_g.read(), in_u.read(), in_g.view());
  CHECK(first_difference(in_g.to_host(), m) == -1);
  CHECK(first_difference(in_u.to_host(), u) == -1);
}

}  // namespace

TEST_CASE_TEMPLATE("gates", T, float, bfloat16, float16) {
  for (const gate_activation kind : {gate_activation::silu, gate_activation::gelu_tanh}) {
    for (const index_t cols : {1, 31, 32, 33, 2048, 2060}) check_gate<T>(kind, 3, cols, {});
    for (const lie how : ways_to_lie()) check_gate<T>(kind, 4, 72, how);
    check_gate<T>(kind, 0, 8, {});
    check_gate<T>(kind, 8, 0, {});
    if (!is_small_run()) check_gate<T>(kind, 3000, 8192, {});
  }
}

TEST_CASE_TEMPLATE("values and tangents may lie apart", T, float, bfloat16) {
  const exec::cuda policy;  // 8 rows: the tangents' first is aligned where the others are not
  const std::vector<T> g = filled<T>(2 * 8 * 64, 1), u = filled<T>(2 * 8 * 64, 2);
  const norm_pair<T> norm(policy, 64, 1, 3);
  const auto result = [&](lie values, lie tangents) {
    const auto apart = [&](const device_rows<T>& a, const device_rows<T>& b) {
      return tangent_rows<T>{a.view().values, b.view().tangents};
    };
    const device_rows<T> g0(policy, 8, 64, values, g), g1(policy, 8, 64, tangents, g);
    const device_rows<T> u0(policy, 8, 64, values, u), u1(policy, 8, 64, tangents, u);
    const device_rows<T> m0(policy, 8, 64, values), m1(policy, 8, 64, tangents);
    gate_tangent<T>(policy, gate_activation::silu, apart(g0, g1), apart(u0, u1), apart(m0, m1));
    std::vector<T> out = m0.to_host();
    const std::vector<T> below = m1.to_host();
    std::copy(below.begin() + 8 * 64, below.end(), out.begin() + 8 * 64);
    norm_tangent<T>(policy, norm.view(), apart(g0, g1), apart(m0, m1));
    const auto [expected, terms] = norm.of(in_double(g, 64));
    std::vector<T> normed = m0.to_host();
    const std::vector<T> rates = m1.to_host();
    std::copy(rates.begin() + 8 * 64, rates.end(), normed.begin() + 8 * 64);
    check_rounded(normed, expected, terms, norm_c);
    return out;
  };
  const std::vector<T> together = result({}, {});
  CHECK(first_difference(result({}, {true, 0, 16}), together) == -1);
  CHECK(first_difference(result({}, {false, 0, 1}), together) == -1);
  CHECK(first_difference(result({false, 0, 1}, {}), together) == -1);
  CHECK(first_difference(result({}, {false, 1, 16}), together) == -1);
}

// ---- rotations ---------------------------------------------------------------------------------

namespace {

template <class T, class W, class Position>
void check_turn(index_t rows, index_t heads, index_t head_size, lie how, index_t table_extra,
                spread family = spread::normal) {
  CAPTURE(rows);
  CAPTURE(heads);
  CAPTURE(head_size);
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t half = head_size / 2, known = 50, cols = heads * head_size;
  llm::detail::rotation_table<double> table(rope_config{}, head_size, known);
  const index_t stride = half + table_extra;
  std::vector<float> cosines(static_cast<std::size_t>(known * stride), std::nanf(""));
  std::vector<float> sines = cosines;
  for (index_t p = 0; p < known; ++p)
    for (index_t k = 0; k < half; ++k) {
      const auto from = static_cast<std::size_t>(p * half + k);
      const auto to = static_cast<std::size_t>(p * stride + k);
      table.cosines[from] = cosines[to] = static_cast<float>(table.cosines[from]);
      table.sines[from] = sines[to] = static_cast<float>(table.sines[from]);
    }
  std::vector<Position> positions;
  std::vector<index_t> wide_positions;
  for (index_t t = 0; t < rows; ++t) {
    positions.push_back(static_cast<Position>(7 * t % known));
    wide_positions.push_back(7 * t % known);
  }
  const auto on_device = copied(policy, positions);
  const auto c = copied(policy, cosines), s = copied(policy, sines);
  const tangent_rotation<Position> rotation{
      on_device.view(), {c.data(), known, half, stride, 1}, {s.data(), known, half, stride, 1}};
  const std::vector<T> x = filled<T>(2 * rows * cols, 9, 2, family);
  const device_rows<T> in(policy, rows, cols, how, x), out(policy, rows, cols, how);

  const auto turned_terms = [&](const row_matrix<double>& terms) {
    row_matrix<double> result = terms;
    for (index_t i = 0; i < terms.rows(); ++i)
      for (index_t j = 0; j < cols; ++j)
        result(i, j) += terms(i, j % head_size < half ? j + half : j - half);
    return result;
  };
  row_matrix<double> expected = in_double(x, cols);
  row_matrix<double> terms = turned_terms(expected.array().abs().matrix());
  table.turn(testing::pool(), wide_positions, expected, 1);
  turn_tangent<T>(policy, rotation, in.read(), out.view());
  const std::vector<T> y = out.to_host();
  check_rounded(y, expected, terms, 4);

  const norm_pair<W> norm(policy, head_size, 0, 10, family);
  std::tie(expected, terms) = norm.of(in_double(x, cols));
  table.turn(testing::pool(), wide_positions, expected, 1);
  turn_tangent<T>(policy, norm.view(), rotation, in.read(), out.view());
  const std::vector<T> normed = out.to_host();
  check_rounded(normed, expected, turned_terms(terms), norm_c + 4);

  turn_tangent<T>(policy, norm.view(), rotation, in.read(), in.view());
  CHECK(first_difference(in.to_host(), normed) == -1);
}

}  // namespace

TEST_CASE_TEMPLATE("rotations, with and without norms of heads", T, float, bfloat16, float16) {
  for (const index_t head_size : {2, 6, 16, 64, 80, 128, 256, 512, 600})
    check_turn<T, T, index_t>(5, 3, head_size, {}, 0);
  for (const lie how : ways_to_lie()) check_turn<T, float, std::int32_t>(4, 2, 64, how, 4);
  check_turn<T, T, index_t>(4, 2, 64, {}, 1);
  check_turn<T, T, index_t>(0, 2, 64, {}, 0);
  check_turn<T, T, index_t>(70, 4, 64, {}, 0);
  if (!is_small_run()) check_turn<T, T, index_t>(2000, 32, 128, {}, 0);
}

TEST_CASE("a position outside the tables shows") {
  const exec::cuda policy;
  const auto positions = copied<std::int32_t>(policy, {0, 2, -1});
  for (const index_t half : {4, 3}) {
    const auto table = copied(policy, std::vector<float>(static_cast<std::size_t>(2 * half), 1));
    const matrix_view<const float, device_space> rows(table.data(), 2, half);
    const tangent_rotation<std::int32_t> rotation{positions.view(), rows, rows};
    const device_rows<float> x(policy, 3, 2 * half, {}, filled<float>(12 * half, 1));
    turn_tangent<float>(policy, rotation, x.read(), x.view());
    const std::vector<float> y = x.to_host();
    for (std::size_t i = 0; i < y.size(); ++i)
      CHECK(std::isnan(y[i]) == (static_cast<index_t>(i) / (2 * half) % 3 > 0));
  }
}

// ---- embedding ---------------------------------------------------------------------------------

namespace {

template <class T, class Id>
void check_embedding(index_t rows, index_t cols, double scale, lie table_lies, lie how) {
  CAPTURE(rows);
  CAPTURE(cols);
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t known = 13;
  const std::vector<T> e = filled<T>(2 * known * cols, 11);
  std::vector<Id> ids;
  for (index_t t = 0; t < rows; ++t) ids.push_back(static_cast<Id>(5 * t % known));
  if (rows > 3) ids[2] = static_cast<Id>(-1), ids[3] = static_cast<Id>(known);
  const auto on_device = copied(policy, ids);
  const device_rows<T> table(policy, known, cols, table_lies, e), h(policy, rows, cols, how);
  embed_tangent<T>(policy, on_device.view(), table.read(), scale, h.view());
  const std::vector<T> found = h.to_host();
  for (index_t i = 0; i < 2 * rows; ++i)
    for (index_t j = 0; j < cols; ++j) {
      const auto id = static_cast<index_t>(ids[static_cast<std::size_t>(i % rows)]);
      const T x = found[static_cast<std::size_t>(i * cols + j)];
      if (id < 0 || id >= known) {
        CHECK(std::isnan(convert_float<float>(x)));
        continue;
      }
      const T from = e[static_cast<std::size_t>((i < rows ? id : known + id) * cols + j)];
      const float wanted = static_cast<float>(scale) * convert_float<float>(from);
      REQUIRE(bits_of(x) == bits_of(convert_float<T>(wanted)));
    }
}

}  // namespace

TEST_CASE_TEMPLATE("embedding rows", T, float, bfloat16, float16) {
  for (const double scale : {1.0, 33.9411})
    for (const index_t cols : {1, 31, 64, 72, 4104}) {
      check_embedding<T, index_t>(7, cols, scale, {}, {});
      check_embedding<T, std::int32_t>(1, cols, scale, {true, 0, 0}, {false, 1, 0});
    }
  for (const lie how : ways_to_lie()) check_embedding<T, index_t>(6, 64, 2, how, how);
  check_embedding<T, index_t>(0, 64, 1, {}, {});
}

// ---- linear maps -------------------------------------------------------------------------------

namespace {

enum class biases { none, some };

template <class T, class Y = T>
void check_linear(index_t rows, index_t in, index_t out, biases biased, product_into how, lie lies,
                  lie map_lies, spread family = spread::normal) {
  CAPTURE(rows);
  CAPTURE(lies.beside);
  CAPTURE(map_lies.beside);
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  device_array<unsigned char> workspace(policy, device_products::advised_workspace_bytes);
  device_products products(workspace.view());
  const std::vector<T> x = filled<T>(2 * rows * in, 12, 1, family),
                       w = filled<T>(2 * out * in, 13, 1, family);
  const std::vector<T> b = filled<T>(2 * out, 14, 1, family);
  const std::vector<Y> before = filled<Y>(2 * rows * out, 15, 1, family);
  const auto bias = copied(policy, b);
  // P first, as it stands on the left.
  const device_rows<T> x_rows(policy, rows, in, lies, x), map(policy, out, in, map_lies, w);
  const device_rows<Y> y_rows(policy, rows, out, lies, before);
  tangent_linear<T> m{map.read().tangents, map.read().values};
  const index_t weight_at = out, rate_at = 0;  // rows of w
  const vector_view<T, device_space> all = bias.view();
  if (biased == biases::some) m.bias = all.subview(0, out), m.bias_rate = all.subview(out, out);
  linear_tangent<T>(policy, products, m, x_rows.read(), y_rows.view(), how);

  const row_matrix<double> wide_x = in_double(x, in), wide_w = in_double(w, in);
  row_matrix<double> expected(2 * rows, out), terms(2 * rows, out);
  for (index_t t = 0; t < 2 * rows; ++t)
    for (index_t o = 0; o < out; ++o) {
      double sum = 0, size = 0;
      const auto add = [&](double term) {
        sum += term;
        size += std::fabs(term);
      };
      const auto at = [&](const auto& from, index_t i) {
        return static_cast<double>(convert_float<float>(from[static_cast<std::size_t>(i)]));
      };
      if (how == product_into::add) add(at(before, t * out + o));
      if (biased == biases::some) add(at(b, t < rows ? o : out + o));
      // What is rounded on the way, at most twice: the sum so far.
      for (index_t i = 0; i < in; ++i) add(wide_x(t, i) * wide_w(weight_at + o, i));
      if (t >= rows)
        for (index_t i = 0; i < in; ++i) add(wide_x(t - rows, i) * wide_w(rate_at + o, i));
      expected(t, o) = sum;
      terms(t, o) = size;
    }
  // Side by side and without a sum before a bias: one rounding, float sums of 2 in + 2 terms. Else
  // one or two more of a partial sum, which is at most `terms`. (Tensor cores cut off where float
  // sums round: two units a term.)
  const bool once =
      lies.beside && map_lies.beside && !(biased == biases::some && how == product_into::add);
  const double more = once ? 0 : 2 * unit<Y> * 0x1p24;
  check_rounded(y_rows.to_host(), expected, terms, static_cast<double>(4 * in + 4) + more);
  CHECK(first_difference(x_rows.to_host(), x) == -1);
}

}  // namespace

TEST_CASE_TEMPLATE("linear maps", T, float, bfloat16, float16) {
  for (const biases biased : {biases::none, biases::some})
    for (const product_into how : {product_into::overwrite, product_into::add})
      for (const lie lies : {lie{}, lie{true, 0, 0}, lie{false, 0, 8}})
        for (const lie map_lies : {lie{}, lie{true, 0, 0}})
          check_linear<T>(5, 24, 16, biased, how, lies, map_lies);
  check_linear<T>(1, 8, 8, biases::some, product_into::overwrite, {}, {});
  check_linear<T, float>(3, 16, 24, biases::some, product_into::add, {}, {});
  check_linear<T, float>(3, 16, 24, biases::some, product_into::overwrite, {true, 0, 0}, {});
  check_linear<T>(1, 8, 8, biases::none, product_into::add, {true, 0, 0}, {true, 0, 0});
  check_linear<T>(0, 8, 8, biases::some, product_into::overwrite, {}, {});
}

// ---- all ---------------------------------------------------------------------------------------

TEST_CASE_TEMPLATE("heavy tails, all equal, not finite", T, float, bfloat16, float16) {
  for (const spread how : {spread::heavy_tailed, spread::all_equal, spread::special}) {
    CAPTURE(static_cast<int>(how));
    for (const lie lies : {lie{}, lie{false, 1, 0}}) {  // packs, elements
      check_norm<T, T>(9, 1, 264, lies, lies, how);
      check_norm<T, T>(9, 3, 64, lies, lies, how);
      check_residual<T, T>(9, 264, lies, how);
      for (const gate_activation kind : {gate_activation::silu, gate_activation::gelu_tanh})
        check_gate<T>(kind, 9, 264, lies, how);
      check_turn<T, T, index_t>(9, 3, 64, lies, 0, how);
    }
    check_linear<T>(20, 24, 40, biases::some, product_into::add, {}, {}, how);
    check_linear<T>(20, 24, 40, biases::none, product_into::overwrite, {true, 0, 0}, {true, 0, 0},
                    how);
  }
}

// ---- differences -------------------------------------------------------------------------------

namespace {

/// a + b or a - b of stacked values [v; dv]: v + sign dv, above whatever.
std::vector<float> moved(const std::vector<float>& both, float sign) {
  std::vector<float> out(both);
  const std::size_t below = both.size() / 2;
  for (std::size_t i = 0; i < below; ++i) out[i] += sign * both[below + i];
  return out;
}

/// Small whole numbers: no sum of their products is rounded.
std::vector<float> whole(index_t count, std::uint64_t seed) {
  random_source random(seed);
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& x : out) x = static_cast<float>(random.below(9)) - 4;
  return out;
}

}  // namespace

// A function of degree two or less has (f(x + dx) - f(x - dx)) / 2 = f'(x) dx at any step, here 1: with
// whole numbers to the bit.
TEST_CASE("tangents of linear maps and embedding rows are differences of their values") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t rows = 5, in = 24, out = 16;
  const std::vector<float> x = whole(2 * rows * in, 1), w = whole(2 * out * in, 2),
                           b = whole(2 * out, 3);
  device_array<unsigned char> workspace(policy, device_products::advised_workspace_bytes);
  device_products products(workspace.view());
  const auto linear = [&](float sign) {
    const device_rows<float> at(policy, rows, in, {}, moved(x, sign)),
        map(policy, out, in, {}, moved(w, sign)), y(policy, rows, out, {});
    const auto bias = copied(policy, moved(b, sign));
    tangent_linear<float> m{map.read().values, map.read().tangents};
    m.bias = bias.view().subview(0, out), m.bias_rate = bias.view().subview(out, out);
    linear_tangent<float>(policy, products, m, at.read(), y.view());
    return y.to_host();
  };
  const index_t known = 7, cols = 31;
  const std::vector<float> e = whole(2 * known * cols, 4);
  const auto ids = copied<index_t>(policy, {3, 0, 6, 3, 5});
  const auto embedded = [&](float sign) {
    const device_rows<float> table(policy, known, cols, {}, moved(e, sign)),
        h(policy, rows, cols, {});
    embed_tangent<float>(policy, ids.view(), table.read(), 3, h.view());
    return h.to_host();
  };
  const auto check = [](const std::vector<float>& here, const std::vector<float>& ahead,
                        const std::vector<float>& behind) {
    const std::size_t below = here.size() / 2;
    for (std::size_t i = 0; i < below; ++i) REQUIRE((ahead[i] - behind[i]) / 2 == here[below + i]);
  };
  check(linear(0), linear(1), linear(-1));
  check(embedded(0), embedded(1), embedded(-1));
}

TEST_CASE("tangents of rotations are differences of their values") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t rows = 5, heads = 2, head_size = 16, half = 8, cols = heads * head_size;
  const llm::detail::rotation_table<double> table(rope_config{}, head_size, 50);
  const std::vector<float> cosines(table.cosines.begin(), table.cosines.end()),
      sines(table.sines.begin(), table.sines.end());
  const std::vector<index_t> positions{0, 7, 49, 3, 21};
  const auto on_device = copied(policy, positions);
  const auto c = copied(policy, cosines), s = copied(policy, sines);
  const tangent_rotation<index_t> rotation{
      on_device.view(), {c.data(), 50, half}, {s.data(), 50, half}};
  // A rotation alone is linear; each of three results is two products and a sum, rounded.
  const std::vector<float> x = whole(2 * rows * cols, 1);
  const auto turned = [&](float sign) {
    const device_rows<float> at(policy, rows, cols, {}, moved(x, sign)), y(policy, rows, cols, {});
    turn_tangent<float>(policy, rotation, at.read(), y.view());
    return y.to_host();
  };
  const std::vector<float> here = turned(0), ahead = turned(1), behind = turned(-1);
  const std::size_t below = here.size() / 2;
  for (std::size_t i = 0; i < below; ++i)
    REQUIRE(std::abs((ahead[i] - behind[i]) / 2 - here[below + i]) <= 3 * 3 * 0x1p-24F * 16);

  // Behind a norm of heads it is not: what the device is compared with, in double.
  const norm_pair<float> norm(policy, head_size, 0, 10);
  const row_matrix<double> both = in_double(filled<float>(2 * rows * cols, 9), cols);
  const auto by_definition = [&](double step) {
    row_matrix<double> at = both;
    at.topRows(rows) += step * both.bottomRows(rows);
    norm_pair<double> near{policy, head_size, 0, 10};  // weights move too
    near.w = in_double(norm.w);
    for (std::size_t k = 0; k < static_cast<std::size_t>(head_size); ++k)
      near.w[k] += step * near.w[k + static_cast<std::size_t>(head_size)];
    row_matrix<double> y = near.of(at).first;
    table.turn(testing::pool(), positions, y, 1);
    return y;
  };
  const double step = 1e-5;
  const row_matrix<double> middle = by_definition(0), up = by_definition(step),
                           down = by_definition(-step);
  // step^2 / 6 of a third derivative, which a mean square of 1 keeps below 1e3, and the values' own
  // rounding over step.
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j)
      REQUIRE(std::abs((up(i, j) - down(i, j)) / (2 * step) - middle(rows + i, j)) <
              1e3 * step * step + 1e-15 / step);
}

TEST_CASE("graphs capture the functions, and give the same bits") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  using T = bfloat16;
  const norm_pair<T> norm(policy, 64, 1, 1);
  const device_rows<T> x(policy, 4, 64, {}, filled<T>(512, 2)), y(policy, 4, 64, {});
  const device_rows<T> h(policy, 4, 64, {}), z(policy, 4, 64, {});
  const auto ids = copied<index_t>(policy, {3, 2, 1, 0});
  const auto table = copied(policy, std::vector<float>(4 * 16, 0.5F));
  const matrix_view<const float, device_space> angles(table.data(), 4, 16);
  const tangent_rotation<index_t> rotation{ids.view(), angles, angles};
  device_array<unsigned char> workspace(policy, 1 << 20);
  device_products products(workspace.view());
  const device_rows<T> map(policy, 64, 64, {}, filled<T>(2 * 64 * 64, 3));
  check_capture(
      stream,
      [&](const exec::cuda& on) {
        embed_tangent<T>(on, ids.view(), x.read(), 2, h.view());
        add_norm_tangent<T>(on, x.read(), norm.view(), h.view(), y.view());
        add_norm_tangent<T>(on, x.read(), norm.view(), norm.view(), h.view(), y.view());
        turn_tangent<T>(on, rotation, y.read(), y.view());
        gate_tangent<T>(on, gate_activation::silu, y.read(), h.read(), y.view());
        linear_tangent<T>(on, products, {map.read().values, map.read().tangents}, y.read(),
                          z.view());
      },
      [&] { return z.to_host(); });
}

namespace {

/// Rows of numbers that are equal, but for the last row: what is done with each row alone gives the bits
/// of two rows.
class far_rows {
 public:
  using T = bfloat16;

  far_rows(const exec::cuda& policy, index_t rows, index_t cols)
      : rows_(rows), cols_(cols), values_(policy, rows * cols), tangents_(policy, rows * cols) {}

  void fill(const exec::cuda& policy, std::uint64_t seed) {
    values_.fill_bytes(0x3f);
    tangents_.fill_bytes(0x3e);
    set_part(policy, values_.data() + (rows_ - 1) * cols_, filled<T>(cols_, seed));
    set_part(policy, tangents_.data() + (rows_ - 1) * cols_, filled<T>(cols_, seed + 1));
  }
  tangent_rows<T> view() const {
    return {{values_.data(), rows_, cols_}, {tangents_.data(), rows_, cols_}};
  }
  tangent_rows<const T> read() const { return view(); }
  /// Row t of the values, then of the tangents.
  std::vector<T> row(const exec::cuda& policy, index_t t) const {
    std::vector<T> out = part_of(policy, values_.data() + t * cols_, cols_);
    const std::vector<T> below = part_of(policy, tangents_.data() + t * cols_, cols_);
    out.insert(out.end(), below.begin(), below.end());
    return out;
  }

 private:
  index_t rows_, cols_;
  device_array<T> values_, tangents_;
};

/// work(x, h, y) on as many rows as there are, and on two: rows of the last argument are the same.
template <class Work>
void check_far(const exec::cuda& policy, std::vector<far_rows>& far, index_t rows, index_t cols,
               const Work& work) {
  std::vector<far_rows> near;
  for (std::size_t i = 0; i < far.size(); ++i) {
    near.emplace_back(policy, 2, cols);
    near[i].fill(policy, 10 * i);
    far[i].fill(policy, 10 * i);
  }
  work(near, index_t{2});
  work(far, rows);
  for (std::size_t i = 0; i < far.size(); ++i) {
    const std::vector<bfloat16> usual = near[i].row(policy, 0), last = near[i].row(policy, 1);
    for (const index_t t : {index_t{0}, index_t{1}, rows / 2, rows - 2})
      CHECK(first_difference(far[i].row(policy, t), usual) == -1);
    CHECK(first_difference(far[i].row(policy, rows - 1), last) == -1);
  }
}

void check_far_in_place(const exec::cuda& policy, index_t rows, index_t cols) {
  const norm_pair<bfloat16> norm(policy, cols, 0, 1);
  std::vector<far_rows> one;
  one.emplace_back(policy, rows, cols);
  check_far(policy, one, rows, cols, [&](std::vector<far_rows>& x, index_t) {
    norm_tangent<bfloat16>(policy, norm.view(), x[0].read(), x[0].view());
    gate_tangent<bfloat16>(policy, gate_activation::silu, x[0].read(), x[0].read(), x[0].view());
  });
}

void check_far_rest(const exec::cuda& policy, index_t rows, index_t cols) {
  const norm_pair<bfloat16> norm(policy, cols, 0, 1);
  std::vector<far_rows> three;
  for (int i = 0; i < 3; ++i) three.emplace_back(policy, rows, cols);
  check_far(policy, three, rows, cols, [&](std::vector<far_rows>& x, index_t) {
    add_norm_tangent<bfloat16>(policy, x[0].read(), norm.view(), x[1].view(), x[2].view());
  });
  const index_t half = 32;
  const std::vector<float> angles = filled<float>(3 * half, 7);
  const auto table = copied(policy, angles);
  const matrix_view<const float, device_space> turns(table.data(), 3, half);
  check_far(policy, three, rows, cols, [&](std::vector<far_rows>& x, index_t n) {
    std::vector<std::int32_t> places(static_cast<std::size_t>(n), 1);
    places.back() = 2;
    const auto positions = copied(policy, places);
    turn_tangent<bfloat16>(policy, tangent_rotation<std::int32_t>{positions.view(), turns, turns},
                           x[0].read(), x[1].view());
  });
  // Rows of a table: the last, and others, in reverse.
  check_far(policy, three, rows, cols, [&](std::vector<far_rows>& x, index_t n) {
    std::vector<index_t> ids(static_cast<std::size_t>(n));
    for (index_t t = 0; t < n; ++t) ids[static_cast<std::size_t>(t)] = n - 1 - t;
    std::swap(ids.front(), ids.back());
    const auto there = copied(policy, ids);
    embed_tangent<bfloat16>(policy, there.view(), x[0].read(), 1, x[1].view());
  });
  // A linear map that picks: R{y} = R{x} W^T + x P^T of at most two terms, exact in whole numbers.
  const index_t out = 8;
  std::vector<bfloat16> w(static_cast<std::size_t>(2 * out * cols));
  for (index_t o = 0; o < out; ++o) {
    w[static_cast<std::size_t>(o * cols + cols - 1 - o)] = to_bfloat16(1.0F);
    w[static_cast<std::size_t>((out + o) * cols + o)] = to_bfloat16(2.0F);
  }
  const device_rows<bfloat16> map(policy, out, cols, {}, w), y(policy, rows, out, {});
  three[0].fill(policy, 0);
  std::vector<bfloat16> last(static_cast<std::size_t>(cols));
  for (std::size_t k = 0; k < last.size(); ++k) last[k] = to_bfloat16(static_cast<float>(k % 7));
  const tangent_rows<bfloat16> x = three[0].view();
  set_part(policy, x.values.data() + (rows - 1) * cols, last);
  set_part(policy, x.tangents.data() + (rows - 1) * cols, last);
  device_array<unsigned char> workspace(policy, device_products::advised_workspace_bytes);
  device_products products(workspace.view());
  linear_tangent<bfloat16>(policy, products, {map.read().values, map.read().tangents}, x, y.view());
  const std::vector<bfloat16> found = y.to_host();
  for (index_t o = 0; o < out; ++o) {
    const auto at = [&](index_t t) {
      return to_float(found[static_cast<std::size_t>(t * out + o)]);
    };
    const auto of_last = [&](index_t k) { return to_float(last[static_cast<std::size_t>(k)]); };
    CHECK(at(rows - 1) == of_last(cols - 1 - o));
    CHECK(at(2 * rows - 1) == of_last(cols - 1 - o) + 2 * of_last(o));
    for (const index_t t : {index_t{0}, rows / 2, rows - 2}) {
      CHECK(at(t) == to_float(bfloat16{0x3f3f}));
      CHECK(at(rows + t) ==
            to_float(to_bfloat16(to_float(bfloat16{0x3e3e}) + 2 * to_float(bfloat16{0x3f3f}))));
    }
  }
}

}  // namespace

TEST_CASE("many rows, of which the last differs") {
  const own_stream stream;
  check_far_in_place(stream.policy(), 9, 128);
  check_far_rest(stream.policy(), 9, 128);
}

TEST_CASE("more than 2^31 elements: residual connections, rotations, embeddings, linear maps") {
  const index_t cols = 8192, rows = (index_t{1} << 18) + 3;
  if (!has_memory_for(static_cast<std::size_t>(rows * cols) * 12)) return;
  const own_stream stream;
  check_far_rest(stream.policy(), rows, cols);
}

TEST_CASE("more than 2^32 elements: norms and gates") {
  const index_t cols = 8192, rows = (index_t{1} << 19) + 3;
  if (!has_memory_for(static_cast<std::size_t>(rows * cols) * 4)) return;
  const own_stream stream;
  check_far_in_place(stream.policy(), rows, cols);
}

TEST_CASE("what callers get wrong") {
  const exec::cuda policy;
  using T = bfloat16;
  const norm_pair<T> norm(policy, 8, 0, 1);
  const device_rows<T> x(policy, 2, 16, {}), narrow(policy, 2, 12, {}), few(policy, 1, 16, {});
  const auto ids = copied<index_t>(policy, {0, 1});
  CHECK_THROWS_WITH_AS(norm_tangent<T>(policy, norm.view(), narrow.read(), narrow.view()),
                       doctest::Contains("width must divide the row (width = 8, cols = 12)"),
                       invalid_argument);
  CHECK_THROWS_WITH_AS(norm_tangent<T>(policy, norm.view(), few.read(), x.view()),
                       doctest::Contains("expected rows = 2"), invalid_argument);
  CHECK_THROWS_WITH_AS(add_norm_tangent<T>(policy, x.read(), norm.view(), x.view(), x.view()),
                       doctest::Contains("takes whole rows"), invalid_argument);
  CHECK_THROWS_WITH_AS(
      gate_tangent<T>(policy, gate_activation::silu, x.read(), narrow.read(), x.view()),
      doctest::Contains("cols = 12"), invalid_argument);
  CHECK_THROWS_WITH_AS(embed_tangent<T>(policy, ids.view(), x.read(), 1, few.view()),
                       doctest::Contains("vector = ids, size = 2, expected = 1"), invalid_argument);
  const auto table = copied(policy, std::vector<float>(24, 1));
  const matrix_view<const float, device_space> five(table.data(), 2, 5), four(table.data(), 2, 4);
  CHECK_THROWS_WITH_AS(turn_tangent<T>(policy, tangent_rotation<index_t>{ids.view(), five, five},
                                       x.read(), x.view()),
                       doctest::Contains("head_size = 10"), invalid_argument);
  CHECK_THROWS_WITH_AS(turn_tangent<T>(policy, tangent_rotation<index_t>{ids.view(), five, four},
                                       x.read(), x.view()),
                       doctest::Contains("same shape"), invalid_argument);
  const tangent_rows<T> columns{x.view().values.transposed(), x.view().tangents.transposed()};
  CHECK_THROWS_WITH_AS(gate_tangent<T>(policy, gate_activation::silu, columns, columns, columns),
                       doctest::Contains("column stride = 16"), invalid_argument);
  CHECK_THROWS_WITH_AS(stacked(few.view().values), doctest::Contains("rows = 1"), invalid_argument);
  CHECK_THROWS_WITH_AS(side_by_side(matrix_view<T, device_space>(nullptr, 1, 3)),
                       doctest::Contains("cols = 3"), invalid_argument);
}
