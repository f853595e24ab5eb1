// Proves: a_bt, a_b and at_b give A B^T, A B and A^T B for every type, row stride and offset, overwrite or
// add, touch nothing beside C, and refuse what does not fit. Against: sums in double.
#include <doctest/doctest.h>

#include <dualsft/device_products.cuh>

#include "device_values.cuh"

using namespace dualsft;
using namespace dualsft::testing;
using detail::product_kind;

namespace {

template <class T>
struct matrix {
  index_t rows, cols, stride, offset;
  std::vector<T> values;

  matrix(index_t rows_, index_t cols_, index_t pad, index_t offset_, std::uint64_t seed)
      : rows(rows_),
        cols(cols_),
        stride(cols_ + pad),
        offset(offset_),
        values(numbers<T>(rows_ * stride + offset_, spread::normal, seed)) {}
  double operator()(index_t i, index_t j) const {
    return convert_float<double>(values[static_cast<std::size_t>(offset + i * stride + j)]);
  }
  matrix_view<T, device_space> view(const detail::device_array<T>& at) const {
    return {at.data() + offset, rows, cols, stride, 1};
  }
};

template <class T>
double unit() {
  return std::is_same_v<T, bfloat16> ? 0x1p-8 : std::is_same_v<T, float16> ? 0x1p-11 : 0x1p-24;
}

template <class In, class Out>
void check(const detail::product_shape& s, product_kind kind, product_into into, index_t pad,
           index_t offset) {
  CAPTURE(s.m);
  CAPTURE(s.n);
  CAPTURE(s.k);
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const bool a_turned = kind == product_kind::at_b, b_turned = kind == product_kind::a_bt;
  const matrix<In> a(a_turned ? s.k : s.m, a_turned ? s.m : s.k, pad, offset, 1);
  const matrix<In> b(b_turned ? s.n : s.k, b_turned ? s.k : s.n, 2 * pad, offset, 2);
  const matrix<Out> c(s.m, s.n, pad, 2 * offset, 3);
  const detail::device_array<In> at(policy, std::span<const In>(a.values));
  const detail::device_array<In> bt(policy, std::span<const In>(b.values));
  const detail::device_array<Out> ct(policy, std::span<const Out>(c.values));
  const detail::device_array<unsigned char> workspace(policy,
                                                      device_products::advised_workspace_bytes);
  device_products products(workspace.view());
  const float alpha = 0.75F;
  const auto once = [&] {
    const product_options options{.alpha = alpha, .into = into};
    if (kind == product_kind::a_bt)
      products.a_bt("check", policy, a.view(at), b.view(bt), c.view(ct), options);
    else if (kind == product_kind::a_b)
      products.a_b("check", policy, a.view(at), b.view(bt), c.view(ct), options);
    else
      products.at_b("check", policy, a.view(at), b.view(bt), c.view(ct), options);
  };
  once();
  matrix<Out> found = c;
  found.values = ct.to_host();
  std::vector<bool> written(c.values.size());
  for (index_t i = 0; i < s.m; ++i)
    for (index_t j = 0; j < s.n; ++j) {
      double sum = 0, size = 0;
      for (index_t k = 0; k < s.k; ++k) {
        const double term = static_cast<double>(alpha) * (a_turned ? a(k, i) : a(i, k)) *
                            (b_turned ? b(j, k) : b(k, j));
        sum += term;
        size += std::abs(term);
      }
      if (into == product_into::add) sum += c(i, j), size += std::abs(c(i, j));
      // Sums of k terms in float in any order, and one rounding of the result.
      const double tolerance =
          0x1p-24 * (static_cast<double>(s.k) + 2) * size + unit<Out>() * std::abs(sum);
      REQUIRE(std::abs(found(i, j) - sum) <= tolerance);
      written[static_cast<std::size_t>(c.offset + i * c.stride + j)] = true;
    }
  bool beside = true;
  for (std::size_t i = 0; i < written.size(); ++i)
    beside = beside && (written[i] || bits_of(found.values[i]) == bits_of(c.values[i]));
  CHECK(beside);
  if (into == product_into::overwrite) {  // again: the algorithm is known now
    once();
    CHECK(first_difference(found.values, ct.to_host()) == -1);
  }
}

template <class In, class Out>
void check_types() {
  for (const product_kind kind : {product_kind::a_bt, product_kind::a_b, product_kind::at_b})
    for (const product_into into : {product_into::overwrite, product_into::add}) {
      check<In, Out>({1, 1, 1}, kind, into, 0, 0);
      check<In, Out>({33, 17, 40}, kind, into, 8, 8);
      check<In, Out>({5, 31, 7}, kind, into, 3, 1);  // rows start anywhere
      check<In, Out>({64, 1, 33}, kind, into, 0, 0);
      check<In, Out>({3, 4, 0}, kind, into, 1, 0);  // sums of nothing
      check<In, Out>({0, 4, 5}, kind, into, 0, 0);
      if (!is_small_run()) check<In, Out>({300, 257, 1000}, kind, into, 0, 0);
    }
}

}  // namespace

TEST_CASE("all types, kinds and strides") {
  check_types<bfloat16, float>();
  check_types<bfloat16, bfloat16>();
  check_types<float16, float>();
  check_types<float16, float16>();
  check_types<float, float>();
}

TEST_CASE("no workspace is enough") {
  const exec::cuda policy;
  device_products products({});
  const std::vector<float> ones(16, 1.0F);
  const detail::device_array<float> a(policy, std::span<const float>(ones));
  const detail::device_array<float> c(policy, 16);
  using view = matrix_view<float, device_space>;
  device_products moved(std::move(products));
  moved.a_b("here", policy, view(a.data(), 4, 4), view(a.data(), 4, 4), view(c.data(), 4, 4));
  CHECK(c.to_host() == std::vector<float>(16, 4.0F));
}

TEST_CASE("what callers get wrong") {
  const exec::cuda policy;
  const detail::device_array<float> memory(policy, 64);
  const detail::device_array<unsigned char> workspace(policy, 512);
  using view = matrix_view<float, device_space>;
  const view good(memory.data(), 3, 3);
  const auto refuses = [&](const char* what, const auto& call) {
    CHECK_THROWS_WITH_AS(call(), doctest::Contains(what), invalid_argument);
  };
  refuses("device_products: the workspace must be contiguous and aligned to 256 bytes",
          [&] { device_products(workspace.view().subview(1, 256)); });
  device_products products(workspace.view());
  refuses("here: the shapes of a product must fit (A rows = 3, A cols = 3, B rows = 3, B cols = 2",
          [&] { products.a_bt("here", policy, good, view(memory.data(), 3, 2), good); });
  refuses("here: the shapes",
          [&] { products.a_b("here", policy, good, view(memory.data(), 2, 3), good); });
  refuses("here: the shapes",
          [&] { products.at_b("here", policy, view(memory.data(), 2, 3), good, good); });
  refuses("rows of device matrices must be contiguous (matrix = B, column stride = 3)",
          [&] { products.a_b("here", policy, good, good.transposed(), good); });
  refuses("rows of device matrices must not overlap (matrix = C, row stride = 2, cols = 3)",
          [&] { products.a_b("here", policy, good, good, view(memory.data(), 3, 3, 2, 1)); });
}
