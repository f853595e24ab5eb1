// Proves: quotas give every layer and module kind its minimum and the rest to the global Top-K.
// Against: the three stages written as loops over sorted lists, and hand-computed cases.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <dualsft/quota.hpp>
#include <dualsft/random.hpp>
#include <dualsft/splits.hpp>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

using namespace dualsft;

namespace {

constexpr double missing = std::numeric_limits<double>::quiet_NaN();

// Hands out one unit at a time, round after round, in the groups' order: the definition of "as
// equally as sizes allow", except that the last, incomplete round goes to the first that can take
// it, which is what a round does anyway.
std::vector<index_t> one_by_one(index_t total, const std::vector<index_t>& sizes) {
  std::vector<index_t> shares(sizes.size(), 0);
  for (bool any = true; any && total > 0;) {
    any = false;
    for (std::size_t g = 0; g < sizes.size() && total > 0; ++g)
      if (shares[g] < sizes[g]) {
        ++shares[g];
        --total;
        any = true;
      }
  }
  return shares;
}

struct wanted_result {
  std::vector<index_t> selected;
  index_t counts[3] = {0, 0, 0};
  double kth = missing;
  double next = missing;
};

wanted_result by_loops(const std::vector<double>& raw, const parameter_layout& layout,
                       const quota_options& options, index_t for_layers, index_t for_modules) {
  std::vector<double> scores = raw;
  if (options.by == topk_by::magnitude)
    for (double& x : scores) x = std::fabs(x);
  std::vector<index_t> order;
  for (index_t i = 0; i < layout.size(); ++i)
    if (!std::isnan(scores[static_cast<std::size_t>(i)])) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](index_t i, index_t j) {
    return scores[static_cast<std::size_t>(i)] > scores[static_cast<std::size_t>(j)];
  });
  std::vector<bool> taken(scores.size());
  wanted_result result;
  const auto take = [&](int stage, index_t most, auto belongs) {
    for (const index_t i : order) {
      if (most == 0) break;
      if (taken[static_cast<std::size_t>(i)] || !belongs(layout.block(layout.block_of(i))))
        continue;
      taken[static_cast<std::size_t>(i)] = true;
      result.selected.push_back(i);
      ++result.counts[stage];
      --most;
      if (stage == 2) result.kth = scores[static_cast<std::size_t>(i)];
    }
  };
  const auto free_of = [&](auto belongs) {
    index_t free = 0;
    for (index_t i = 0; i < layout.size(); ++i)
      free += belongs(layout.block(layout.block_of(i))) && !taken[static_cast<std::size_t>(i)];
    return free;
  };

  std::vector<int> layers;
  std::vector<std::string> modules;
  for (const auto& block : layout.blocks()) {
    if (block.layer >= 0 && std::find(layers.begin(), layers.end(), block.layer) == layers.end())
      layers.push_back(block.layer);
    if (std::find(modules.begin(), modules.end(), block.module) == modules.end())
      modules.push_back(block.module);
  }
  std::sort(layers.begin(), layers.end());
  std::vector<index_t> sizes;
  for (const int layer : layers)
    sizes.push_back(free_of([&](const auto& block) { return block.layer == layer; }));
  auto shares = one_by_one(for_layers, sizes);
  for (std::size_t l = 0; l < layers.size(); ++l)
    take(0, shares[l], [&](const auto& block) { return block.layer == layers[l]; });
  sizes.clear();
  for (const auto& module : modules)
    sizes.push_back(free_of([&](const auto& block) { return block.module == module; }));
  shares = one_by_one(for_modules, sizes);
  for (std::size_t m = 0; m < modules.size(); ++m)
    take(1, shares[m], [&](const auto& block) { return block.module == modules[m]; });
  take(2, options.k - result.counts[0] - result.counts[1], [](const auto&) { return true; });
  for (const index_t i : order)
    if (!taken[static_cast<std::size_t>(i)]) {
      result.next = scores[static_cast<std::size_t>(i)];
      break;
    }
  std::sort(result.selected.begin(), result.selected.end());
  return result;
}

parameter_layout toy_layout(index_t unit) {
  parameter_layout layout;
  layout.add("embedding", 7 * unit, 3);
  layout.add("layer.1.up", 2 * unit, 4, 1, "up");
  layout.add("layer.0.up", 2 * unit, 4, 0, "up");
  layout.add("layer.0.empty", 0, 4, 0, "empty");
  layout.add("layer.0.down", 3 * unit, 5, 0, "down");
  layout.add("layer.2.bias", 2, 1, 2, "bias");
  layout.add("layer.1.down", 3 * unit, 5, 1, "down");
  layout.add("head", 5, unit);
  return layout;
}

}  // namespace

TEST_CASE("fair shares equal handing out one at a time") {
  CHECK(detail::fair_shares(10, {2, 100, 100}) == std::vector<index_t>{2, 4, 4});
  CHECK(detail::fair_shares(11, {100, 2, 100}) == std::vector<index_t>{5, 2, 4});
  CHECK(detail::fair_shares(50, {2, 3}) == std::vector<index_t>{2, 3});
  CHECK(detail::fair_shares(5, {}).empty());
  random_source random(2);
  for (int trial = 0; trial < 500; ++trial) {
    std::vector<index_t> sizes(static_cast<std::size_t>(random.below(9)));
    for (auto& size : sizes) size = random.below(12);
    const index_t total = random.below(60);
    CHECK(detail::fair_shares(total, sizes) == one_by_one(total, sizes));
  }
}

TEST_CASE("shares of K are rounded down as doubles multiply, the same as budgets") {
  CHECK(detail::share_of(0.29, 100) == 28);
  CHECK(detail::share_of(0.3, 10) == 3);
  CHECK(detail::share_of(0.39, 10) == 3);
  CHECK(detail::share_of(1.0, 3) == 3);
  CHECK(detail::share_of(0.7, 0) == 0);
  for (const double ratio : {0.05, 0.1, 0.29, 0.57, 0.7, 0.999})
    for (const index_t total : {1000, 1001, 12'345'678})
      CHECK(budget::ratio(ratio).of(total) == detail::share_of(ratio, total));
}

TEST_CASE("by hand") {
  parameter_layout layout;
  layout.add("a", 4, 1, 0, "x");  // 0 .. 3
  layout.add("b", 4, 1, 1, "y");  // 4 .. 7
  layout.add("c", 4, 1);          // 8 .. 11, no layer
  const std::vector<double> scores{9, 8, 7, 6, 1, 2, 3, 4, 0, 0, 5, -1};
  // 2 by layer: 0 and 7; 3 by module (x, y, c one each): 1, 6, 10; 1 from all: 2.
  const auto r = topk_with_quotas(exec::cpu{2}, stored_scores(scores), layout,
                                  {.k = 6, .layer_share = 0.4, .module_share = 0.5});
  CHECK(r.selection.selected == index_set({0, 1, 2, 6, 7, 10}, 12));
  CHECK(r.from_layers == 2);
  CHECK(r.from_modules == 3);
  CHECK(r.from_all == 1);
  CHECK(r.selection.kth == 7.0);
  CHECK(r.selection.next == 6.0);
  CHECK(r.selection.gap == 1);
  CHECK(r.selection.nan_count == 0);
}

TEST_CASE("random layouts, ties and NaN, every policy and thread count") {
  for (const index_t unit : {1, 4, 2500})
    for (int kind = 0; kind < 3; ++kind) {
      const parameter_layout layout = toy_layout(unit);
      random_source random(static_cast<std::uint64_t>(unit) + 31);
      std::vector<double> scores;
      index_t missing_count = 0;
      for (index_t i = 0; i < layout.size(); ++i) {
        double x = random.normal();
        if (kind == 1) x = std::floor(2 * x);
        if (kind == 2 && random.uniform() < 0.8) x = missing;
        missing_count += std::isnan(x) ? 1 : 0;
        scores.push_back(x);
      }
      for (const auto by : {topk_by::value, topk_by::magnitude})
        for (const double layer_share : {0.0, 0.25, 0.5, 1.0})
          for (const double module_share : {0.0, 0.25, 0.5})
            for (const index_t k : {index_t{0}, index_t{1}, layout.size() / 10, layout.size()}) {
              if (layer_share + module_share > 1) continue;
              if (unit > 100 && (layer_share != 0.25 || k < 2)) continue;
              CAPTURE(unit);
              CAPTURE(kind);
              CAPTURE(k);
              CAPTURE(layer_share);
              CAPTURE(module_share);
              const quota_options options{k, layer_share, module_share, by};
              // Quarters of k are exact in double.
              const auto for_layers =
                  static_cast<index_t>(std::floor(layer_share * static_cast<double>(k)));
              const auto for_modules =
                  static_cast<index_t>(std::floor(module_share * static_cast<double>(k)));
              const auto wanted = by_loops(scores, layout, options, for_layers, for_modules);
              const auto check = [&](const quota_result& found) {
                CHECK(std::ranges::equal(found.selection.selected.indices(), wanted.selected));
                CHECK(found.from_layers == wanted.counts[0]);
                CHECK(found.from_modules == wanted.counts[1]);
                CHECK(found.from_all == wanted.counts[2]);
                CHECK(found.selection.nan_count == missing_count);
                CHECK(found.selection.kth.has_value() == !std::isnan(wanted.kth));
                CHECK(found.selection.next.has_value() == !std::isnan(wanted.next));
                if (found.selection.kth) CHECK(*found.selection.kth == wanted.kth);
                if (found.selection.next) CHECK(*found.selection.next == wanted.next);
              };
              const stored_scores<double> source(scores);
              if (unit < 100) check(topk_with_quotas(exec::reference{}, source, layout, options));
              for (const int threads : {1, 3})
                check(topk_with_quotas(exec::cpu{threads}, source, layout, options));
            }
    }
}

TEST_CASE("no quotas: exactly topk") {
  const parameter_layout layout = toy_layout(50);
  random_source random(77);
  std::vector<double> scores;
  for (index_t i = 0; i < layout.size(); ++i) scores.push_back(std::floor(8 * random.normal()));
  const auto r = topk_with_quotas(exec::cpu{2}, stored_scores(scores), layout, {.k = 200});
  CHECK(r.selection == topk(exec::reference{}, scores, {.k = 200}));
  CHECK(r.from_all == 200);
}

TEST_CASE("preconditions") {
  const parameter_layout layout = toy_layout(1);
  const std::vector<double> scores(static_cast<std::size_t>(layout.size()));
  const stored_scores<double> source(scores);
  const auto call = [&](const quota_options& options) {
    return topk_with_quotas(exec::cpu{}, source, layout, options);
  };
  CHECK_THROWS_AS(call({.k = -1}), invalid_argument);
  CHECK_THROWS_AS(call({.k = layout.size() + 1}), invalid_argument);
  CHECK_THROWS_AS(call({.k = 1, .layer_share = -0.1}), invalid_argument);
  CHECK_THROWS_AS(call({.k = 1, .layer_share = 0.6, .module_share = 0.6}), invalid_argument);
  CHECK_THROWS_AS(call({.k = 1, .layer_share = missing}), invalid_argument);
  CHECK_NOTHROW(call({.k = 10, .layer_share = 0.9, .module_share = 0.1}));
  CHECK_THROWS_AS(
      topk_with_quotas(exec::cpu{}, stored_scores(std::vector<double>(3)), layout, {.k = 1}),
      invalid_argument);
}
