// Proves: the shared matrix products are the products, strided or not, and neither they nor the
//         networks built on them depend on where in memory their operands lie.
// Against: plain loops; the same numbers at every offset from a 64-byte boundary, compared bit by bit.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <dualsft/detail/products.hpp>
#include <dualsft/models/byte_lm.hpp>
#include <dualsft/models/mlp_classifier.hpp>

#include "support/explicit_gradients.hpp"

using namespace dualsft;

namespace {

/// n values at `offset` elements behind a 64-byte boundary.
template <class S>
class placed {
 public:
  placed(std::size_t n, std::size_t offset) : storage_(n + 64 / sizeof(S) + offset, S{0}), n_(n) {
    const auto base = reinterpret_cast<std::uintptr_t>(storage_.data());
    first_ = (64 - base % 64) % 64 / sizeof(S) + offset;
  }
  std::span<S> span() { return {storage_.data() + first_, n_}; }

 private:
  std::vector<S> storage_;
  std::size_t n_;
  std::size_t first_;
};

template <class S>
bool same_bits(std::span<const S> a, std::span<const S> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

template <class S, class M>
void check_placement(const M& model, index_t records) {
  const auto examples = testing::all_examples(records);
  const auto d = static_cast<std::size_t>(model.layout().size());
  std::vector<S> x(d);
  for (std::size_t j = 0; j < d; ++j) x[j] = static_cast<S>(std::sin(static_cast<double>(j)));
  std::vector<S> gradient(d, S{0});
  std::vector<S> product(d, S{0});
  model.accumulate_gradient(examples, gradient);
  model.accumulate_hessian_product(examples, x, product);
  for (std::size_t offset = 0; offset < 17; ++offset) {
    CAPTURE(offset);
    placed<S> g(d, offset);
    placed<S> h(d, offset);
    model.accumulate_gradient(examples, g.span());
    model.accumulate_hessian_product(examples, x, h.span());
    CHECK(same_bits<S>(g.span(), gradient));
    CHECK(same_bits<S>(h.span(), product));
  }
}

}  // namespace

TEST_CASE("products and column sums are what they say, also between padded rows") {
  random_source random(1);
  for (const index_t m : {1, 3, 17})
    for (const index_t n : {1, 4, 33})
      for (const index_t k : {1, 5, 40}) {
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        // Multiples of 1/64 in [-8, 8): every sum below is exact, so equality is.
        const auto fill = [&](std::vector<double>& x) {
          for (double& v : x) v = static_cast<double>(random.below(1024) - 512) / 64;
        };
        std::vector<double> a(static_cast<std::size_t>(m * (k + 2)));
        std::vector<double> b(static_cast<std::size_t>(k * (n + 3)));
        fill(a);
        fill(b);
        const matrix_view<const double> av(a.data(), m, k, k + 2, 1);
        const matrix_view<const double> bv(b.data(), k, n, n + 3, 1);
        std::vector<double> at(static_cast<std::size_t>(m * k));  // transposed copies
        std::vector<double> bt(static_cast<std::size_t>(k * n));
        for (index_t i = 0; i < m; ++i)
          for (index_t l = 0; l < k; ++l) at[static_cast<std::size_t>(l * m + i)] = av(i, l);
        for (index_t l = 0; l < k; ++l)
          for (index_t j = 0; j < n; ++j) bt[static_cast<std::size_t>(j * k + l)] = bv(l, j);
        std::vector<double> out[3];
        for (auto& o : out) o.assign(static_cast<std::size_t>(m * (n + 1)), 1.0);
        const auto view = [&](int which) {
          return matrix_view<double>(out[which].data(), m, n, n + 1, 1);
        };
        detail::add_a_b(av, bv, view(0));
        detail::add_a_bt(av, matrix_view<const double>(bt.data(), n, k), view(1));
        detail::add_at_b(matrix_view<const double>(at.data(), k, m), bv, view(2));
        for (index_t i = 0; i < m; ++i) {
          for (index_t j = 0; j < n; ++j) {
            double sum = 1;
            for (index_t l = 0; l < k; ++l) sum += av(i, l) * bv(l, j);
            for (int which = 0; which < 3; ++which) CHECK(view(which)(i, j) == sum);
          }
          for (int which = 0; which < 3; ++which)  // the padding is not touched
            CHECK(out[which][static_cast<std::size_t>(i * (n + 1) + n)] == 1.0);
        }
        std::vector<double> sums(static_cast<std::size_t>(n), 0.5);
        detail::add_column_sums(bv, sums.data());
        std::vector<double> dots(static_cast<std::size_t>(n), 0.5);
        detail::add_column_dots(bv, bv, dots.data());
        for (index_t j = 0; j < n; ++j) {
          double sum = 0.5;
          double dot = 0.5;
          for (index_t l = 0; l < k; ++l) {
            sum += bv(l, j);
            dot += bv(l, j) * bv(l, j);
          }
          CHECK(sums[static_cast<std::size_t>(j)] == sum);
          CHECK(dots[static_cast<std::size_t>(j)] == dot);
        }
      }
}

TEST_CASE("gradients and Hessian products have the same bits wherever they are written") {
  check_placement<double>(mlp_classifier<double>(random_labelled_data<double>(
                                                     {.examples = 12, .features = 7, .classes = 3}),
                                                 {.norm = head_norm::rms}),
                          12);
  byte_corpus corpus;
  for (int i = 0; i < 5; ++i) corpus.add_text("hello world, this is " + std::to_string(i * i));
  check_placement<float>(byte_lm<float>(std::make_shared<const byte_corpus>(std::move(corpus)),
                                        {.window = 5, .embedding = 7, .hidden = {33}}),
                         5);
}
