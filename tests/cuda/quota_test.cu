// Proves: topk_with_quotas on the device selects what the host selects, whatever the layout, the shares and
// the scores. Against: exec::cpu (itself checked against the definition).
#include <doctest/doctest.h>

#include <dualsft/quota.cuh>
#include <string>

#include "device_values.cuh"

using namespace dualsft;
using namespace dualsft::testing;

namespace {

/// Blocks of odd sizes, some empty, some of no layer.
parameter_layout layout_of(index_t layers, index_t scale, std::uint64_t seed) {
  random_source random(seed);
  parameter_layout out;
  const auto some = [&] { return random.below(scale) * (random.uniform() < 0.8 ? 1 : 0); };
  out.add("embedding", 1 + some(), 3);
  for (index_t l = 0; l < layers; ++l) {
    const std::string name = "layer " + std::to_string(l);
    for (const char* module : {"q", "k", "up"})
      out.add(name + module, some(), 5, static_cast<int>(l), module);
  }
  out.add("norm", 7, 1);
  return out;
}

index_set members_of(const std::vector<std::uint32_t>& words, index_t n) {
  std::vector<index_t> out;
  for (index_t i = 0; i < n; ++i)
    if ((words[static_cast<std::size_t>(i / 32)] >> (i % 32) & 1U) != 0) out.push_back(i);
  return {std::move(out), n};
}

}  // namespace

namespace {

void check(const exec::cuda& policy, const parameter_layout& layout, topk_workspace& workspace,
           spread how, std::uint64_t seed, const quota_options& options) {
  const index_t d = layout.size();
  CAPTURE(d);
  CAPTURE(options.k);
  CAPTURE(options.layer_share);
  CAPTURE(options.module_share);
  const std::vector<float> scores = numbers<float>(d, how, seed);
  const quota_result expected = topk_with_quotas(
      exec::cpu{1}, stored_scores<float>(vector_view<const float>(scores)), layout, options);
  const detail::device_array<float> there(policy, std::span<const float>(scores));
  const detail::device_array<std::uint32_t> words(policy, (d + 31) / 32);
  const detail::stored_scores_at<float> at{there.data(), d};
  device_quota_result found;
  CHECK(bytes_allocated(policy, [&] {
          found = topk_with_quotas(policy, at, layout, options, workspace, words.view());
        }) == 0);
  CHECK(found.from_layers == expected.from_layers);
  CHECK(found.from_modules == expected.from_modules);
  CHECK(found.from_all == expected.from_all);
  topk_result got = found.summary;
  got.selected = members_of(words.to_host(), d);
  CHECK(got == expected.selection);
  CHECK(found.selected == got.selected.size());
}

/// The best come first.
struct falling_scores {
  index_t count;
  index_t size() const { return count; }
  DUALSFT_HOST_DEVICE double operator()(index_t j) const { return -static_cast<double>(j); }
};

/// Layers of `much` and 1000 coordinates behind 7 of none: the first have 250 each, and the best of the
/// rest are those at the beginning.
void check_two_layers(const exec::cuda& policy, index_t much) {
  parameter_layout layout;
  layout.add("embedding", 7, 1);
  layout.add("large", much, 1, 0, "q");
  layout.add("far", 1000, 1, 1, "q");
  const falling_scores scores{layout.size()};
  topk_workspace workspace(policy, scores.count);
  const detail::device_array<std::uint32_t> words(policy, (scores.count + 31) / 32);
  const device_quota_result found =
      topk_with_quotas(policy, scores, layout, {1000, 0.5, 0}, workspace, words.view());
  CHECK(found.from_layers == 500);
  CHECK(found.from_modules == 0);
  CHECK(found.selected == 1000);
  CHECK(found.summary.kth == -749);
  CHECK(found.summary.next == -750);
  CHECK(count_selected(policy, vector_view<const std::uint32_t, device_space>(words.view()),
                       layout) == std::vector<index_t>{7, 743, 250});
  const index_t last = 7 + much + 249;  // selected, and none behind it
  CHECK((part_of(policy, words.data() + last / 32, 1)[0] >> (last % 32)) == 1);
}

}  // namespace

TEST_CASE("the host's selection") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  for (const std::uint64_t seed : {1, 2, 3, 4})
    for (const index_t scale : {4, 300, 30'000}) {
      if (is_small_run() && (scale > 300 || seed == 2 || seed == 3)) continue;
      const parameter_layout layout = layout_of(static_cast<index_t>(seed), scale, seed);
      const index_t d = layout.size();
      topk_workspace workspace(policy, d);
      for (const spread how :
           {spread::normal, spread::heavy_tailed, spread::all_equal, spread::special})
        for (const index_t k : {index_t{0}, index_t{1}, d / 7, d - 1, d})
          for (const auto& shares :
               {std::pair{0.0, 0.0}, std::pair{0.5, 0.0}, std::pair{0.3, 0.6}, std::pair{0.0, 1.0}})
            for (const topk_by by : {topk_by::value, topk_by::magnitude}) {
              if (is_small_run() && by == topk_by::magnitude && k != d / 7) continue;
              check(policy, layout, workspace, how, seed + 10,
                    {k, shares.first, shares.second, by});
            }
    }
}

TEST_CASE("more coordinates than the host sorts, by groups and in all") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  parameter_layout layout;
  layout.add("embedding", 70'001, 1);
  layout.add("q", 66'000, 1, 0, "q");
  layout.add("k", 33, 1, 0, "k");
  layout.add("second q", 65'537, 1, 1, "q");
  topk_workspace workspace(policy, layout.size());
  for (const spread how : {spread::heavy_tailed, spread::all_equal, spread::special})
    check(policy, layout, workspace, how, 5,
          {layout.size() / 9, 0.3, 0.3,
           how == spread::heavy_tailed ? topk_by::magnitude : topk_by::value});
}

TEST_CASE("more blocks than the workspace counts at a time") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  parameter_layout layout;
  for (index_t b = 0; b < 4100; ++b) layout.add("norm " + std::to_string(b), b % 3, 1);
  for (const char* name : {"q", "k"}) layout.add(name, 900, 1, 0, name);
  topk_workspace workspace(policy, layout.size());
  check(policy, layout, workspace, spread::normal, 5, {layout.size() / 2, 0.4, 0.4});
}

TEST_CASE("two layers, of which one is large") {
  const own_stream stream;
  check_two_layers(stream.policy(), 100'005);
}

TEST_CASE("more than 2^31 and 2^32 coordinates") {
  const own_stream stream;
  for (const int bits : {31, 32}) {
    const index_t much = (index_t{1} << bits) + 5;
    if (has_memory_for(static_cast<std::size_t>(much) * 6 / 10))
      check_two_layers(stream.policy(), much);
  }
}

TEST_CASE("what callers get wrong") {
  const exec::cuda policy;
  const parameter_layout layout = layout_of(1, 4, 1);
  const index_t d = layout.size();
  topk_workspace workspace(policy, d);
  const detail::device_array<float> scores(policy, d + 1);
  const detail::device_array<std::uint32_t> words(policy, (d + 31) / 32), few(policy, 0);
  const auto run = [&](index_t n, const quota_options& options, const auto& to) {
    topk_with_quotas(policy, detail::stored_scores_at<float>{scores.data(), n}, layout, options,
                     workspace, to.view());
  };
  CHECK_THROWS_WITH_AS(run(d + 1, {1}, words), doctest::Contains("as many coordinates"),
                       invalid_argument);
  CHECK_THROWS_WITH_AS(run(d, {d + 1}, words), doctest::Contains("k must satisfy 0 <= k <= d"),
                       invalid_argument);
  CHECK_THROWS_WITH_AS(run(d, {1, 0.7, 0.7}, words), doctest::Contains("layer_share = 0.7"),
                       invalid_argument);
  CHECK_THROWS_WITH_AS(run(d, {1}, few), doctest::Contains("one word per 32 coordinates"),
                       invalid_argument);
}
