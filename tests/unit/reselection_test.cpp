// Proves: alternating re-selection maximises the bilinear objective over one side at a time and never
//         decreases it; the mask- and data-aware choices are the brute-force best.
// Against: exhaustive search over subsets and masks of a small explicit interaction matrix.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <dualsft/dual_scores.hpp>
#include <dualsft/models/quadratic.hpp>
#include <dualsft/reselection.hpp>

#include "support/explicit_gradients.hpp"

using namespace dualsft;
using testing::all_examples;
using testing::explicit_gradients;

namespace {

struct scene {
  quadratic<double> model{
      {.examples = 9, .layers = 2, .modules = 1, .rows = 2, .cols = 2, .seed = 2}};
  std::vector<index_t> pool = all_examples(8);
  dual_score_result<double> scores;
  std::vector<double> m;  // explicit M [8, 8]

  explicit scene(score_order order) {
    std::vector<double> v(8, 0.0);
    const std::vector<index_t> validation{8};
    model.accumulate_gradient(validation, v);
    const std::vector<double> curvature(8, 0.4);
    scores = dual_scores(exec::cpu{1}, model, pool, {order, step_geometry::plain, 0.05}, v,
                         std::span<const double>(curvature));
    m = explicit_gradients(model, pool);
    for (std::size_t k = 0; k < m.size(); ++k) m[k] *= 0.05 * scores.direction.p[k % 8];
  }

  double objective(unsigned rows, unsigned cols) const {
    double total = 0;
    for (unsigned i = 0; i < 8; ++i)
      for (unsigned j = 0; j < 8; ++j)
        if ((rows >> i & 1U) != 0 && (cols >> j & 1U) != 0) total += m[i * 8 + j];
    return total;
  }
};

template <class Range>
unsigned bits_of(const Range& members) {
  unsigned bits = 0;
  for (const index_t i : members) bits |= 1U << i;
  return bits;
}

}  // namespace

TEST_CASE("each half round is the brute-force best of its side") {
  for (const auto order : {score_order::first, score_order::diagonal}) {
    scene s(order);
    const std::vector<index_t> subset{1, 4, 6};
    const auto mask =
        reselect_parameters(exec::cpu{2}, s.model, subset, s.scores.direction, {.k = 3});
    double best = -1e300;
    for (unsigned cols = 0; cols < 256; ++cols)
      if (std::popcount(cols) == 3) best = std::max(best, s.objective(bits_of(subset), cols));
    CHECK(mask.objective == doctest::Approx(best).epsilon(1e-12));
    CHECK(s.objective(bits_of(subset), bits_of(mask.mask.selected.indices())) ==
          doctest::Approx(best).epsilon(1e-12));

    const index_set columns({0, 2, 7}, 8);
    const auto data =
        reselect_examples(exec::cpu{2}, s.model, s.pool, columns, s.scores.direction, 4);
    best = -1e300;
    for (unsigned rows = 0; rows < 256; ++rows)
      if (std::popcount(rows) == 4)
        best = std::max(best, s.objective(rows, bits_of(columns.indices())));
    CHECK(data.objective == doctest::Approx(best).epsilon(1e-12));
    CHECK(s.objective(bits_of(data.examples), bits_of(columns.indices())) ==
          doctest::Approx(best).epsilon(1e-12));
  }
}

TEST_CASE("rounds never decrease the objective and stop when nothing changes") {
  scene s(score_order::diagonal);
  dual_selection start{{0, 1, 2}, index_set({0, 1}, 8)};
  const auto result = reselect(exec::cpu{1}, s.model, s.pool, s.scores.direction, start, 20);
  CHECK(result.objective.front() ==
        doctest::Approx(s.objective(bits_of(start.examples), 3U)).epsilon(1e-12));
  for (std::size_t k = 1; k < result.objective.size(); ++k)
    CHECK(result.objective[k] >= result.objective[k - 1] - 1e-15);
  CHECK(result.objective.back() > result.objective.front());
  CHECK(result.rounds < 20);
  CHECK(result.selection.examples.size() == 3);
  CHECK(result.selection.mask.size() == 2);
  CHECK(result.objective.back() ==
        doctest::Approx(s.objective(bits_of(result.selection.examples),
                                    bits_of(result.selection.mask.indices())))
            .epsilon(1e-12));
  const auto none = reselect(exec::cpu{1}, s.model, s.pool, s.scores.direction, start, 0);
  CHECK(none.objective.size() == 1);
  CHECK(none.selection.mask == start.mask);
}

TEST_CASE("record numbers survive a pool that is not 0 .. N - 1") {
  scene s(score_order::first);
  const std::vector<index_t> pool{7, 3, 5, 0};
  const auto data =
      reselect_examples(exec::cpu{1}, s.model, pool, index_set::all(8), s.scores.direction, 2);
  for (std::size_t k = 0; k < 2; ++k)
    CHECK(data.examples[k] == pool[static_cast<std::size_t>(data.subset.indices[k])]);
}
