// Proves: topk on the device selects what the host selects, bit for bit: every shape of scores, by value
// and by magnitude, in one vector and in shards, beyond 2^32 scores; its mask and counts are those of the
// selection; twice the same. Against: the definition; for many scores exec::cpu, itself checked against it.
#include <doctest/doctest.h>

#include <dualsft/mask.hpp>
#include <dualsft/topk.cuh>

#include "../support/topk_definition.hpp"
#include "device_values.cuh"

using namespace dualsft;
using namespace dualsft::testing;

namespace {

/// The members of a mask's words.
index_set members_of(const std::vector<std::uint32_t>& words, index_t n) {
  std::vector<index_t> out;
  for (index_t i = 0; i < 32 * static_cast<index_t>(words.size()); ++i)
    if ((words[static_cast<std::size_t>(i / 32)] >> (i % 32) & 1U) != 0) out.push_back(i);
  return {std::move(out), n};
}

template <class T>
std::vector<std::vector<T>> shapes(index_t n) {
  std::vector<std::vector<T>> out;
  for (const spread how :
       {spread::normal, spread::heavy_tailed, spread::all_equal, spread::special})
    out.push_back(numbers<T>(n, how, 5));
  std::vector<T> steps(static_cast<std::size_t>(n)), none(steps);
  for (index_t i = 0; i < n; ++i) {
    steps[static_cast<std::size_t>(i)] = static_cast<T>(i % 3);
    none[static_cast<std::size_t>(i)] = std::numeric_limits<T>::quiet_NaN();
  }
  out.push_back(steps);
  out.push_back(none);
  return out;
}

/// 53 random bits of the coordinate: scores that need no memory.
struct hashed_scores {
  index_t count;
  index_t size() const { return count; }
  DUALSFT_HOST_DEVICE double operator()(index_t j) const {
    auto x = static_cast<std::uint64_t>(j) * 0x9e3779b97f4a7c15ULL;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 32;
    return static_cast<double>(x >> 11);
  }
};

}  // namespace

TEST_CASE_TEMPLATE("the host's selection, mask and counts", T, float, double) {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  for (const index_t n : {1, 2, 31, 32, 33, 1000, 300'001, 3'000'000})
    for (const auto& scores : shapes<T>(n)) {
      if (is_small_run() && n > 1000) continue;
      const detail::device_array<T> there(policy, std::span<const T>(scores));
      const vector_view<const T, device_space> view = there.view();
      for (const index_t k : {index_t{0}, index_t{1}, n / 20, n - 1, n})
        for (const topk_by by : {topk_by::value, topk_by::magnitude}) {
          CAPTURE(n);
          CAPTURE(k);
          // The definition sorts; where that takes long, the host, which has been compared with it.
          const topk_result expected =
              n <= 1000 ? ranking({scores.begin(), scores.end()}, by).first(k)
                        : topk(exec::cpu{}, vector_view<const T>(scores), {k, by});
          const device_topk_result found = topk(policy, view, {k, by});
          CHECK(found.selected == expected.selected.size());
          const detail::stored_scores_at<T> at{there.data(), n};
          const detail::device_array<std::uint32_t> words(policy, (n + 31) / 32);
          write_mask(policy, at, by, found, 0, words.view());
          topk_result got = found.summary;
          got.selected = members_of(words.to_host(), n);
          CHECK(got == expected);

          // In three shards, one of them empty, with the mask written shard by shard.
          const index_t cut = n / 3 / 32 * 32;
          const detail::stored_scores_at<T> shards[] = {
              {there.data(), cut}, {there.data() + cut, 0}, {there.data() + cut, n - cut}};
          topk_workspace workspace(policy, n);
          const device_topk_result parts = topk(
              policy, std::span<const detail::stored_scores_at<T>>(shards), {k, by}, workspace);
          CHECK(parts.summary == found.summary);
          CHECK(parts.test.kth == found.test.kth);
          CHECK(parts.test.last_tie == found.test.last_tie);
          const detail::device_array<std::uint32_t> pieces(policy, (n + 31) / 32);
          write_mask(policy, shards[0], by, parts, 0, pieces.view().subview(0, cut / 32));
          write_mask(policy, shards[2], by, parts, cut,
                     pieces.view().subview(cut / 32, (n - cut + 31) / 32));
          CHECK(pieces.to_host() == words.to_host());

          parameter_layout layout;
          if (n / 7 > 0) layout.add("a", n / 7, 1);
          layout.add("b", n - n / 7, 1);
          const std::vector<index_t> counts = count_selected(
              policy, vector_view<const std::uint32_t, device_space>(words.view()), layout);
          CHECK(counts.front() ==
                static_cast<index_t>(expected.selected.within(0, layout.block(0).size()).size()));
          CHECK(counts.back() == static_cast<index_t>(expected.selected.within(n / 7, n).size()));
        }
    }
}

TEST_CASE("blocks that have two whole shares, one, and one in part") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t n = 2'100'001;
  const std::vector<float> scores = numbers<float>(n, spread::heavy_tailed, 9);
  const detail::device_array<float> there(policy, std::span<const float>(scores));
  const detail::stored_scores_at<float> at{there.data(), n};
  const topk_result expected = topk(exec::cpu{}, vector_view<const float>(scores), {n / 20});
  const device_topk_result found = topk(policy, there.view(), {n / 20});
  const detail::device_array<std::uint32_t> words(policy, (n + 31) / 32);
  write_mask(policy, at, topk_by::value, found, 0, words.view());
  topk_result got = found.summary;
  got.selected = members_of(words.to_host(), n);
  CHECK(got == expected);
}

TEST_CASE("a workspace made on another stream") {
  const own_stream one, other;
  const std::vector<float> scores = numbers<float>(1000, spread::normal, 1);
  topk_workspace workspace(one.policy(), 1000);
  const detail::device_array<float> there(other.policy(), std::span<const float>(scores));
  const detail::stored_scores_at<float> at{there.data(), 1000};
  const device_topk_result found = topk(
      other.policy(), std::span<const detail::stored_scores_at<float>>(&at, 1), {50}, workspace);
  topk_result expected = topk(exec::cpu{1}, vector_view<const float>(scores), {50});
  CHECK(found.summary.kth == expected.kth);
  CHECK(found.summary.next == expected.next);
}

TEST_CASE("more than 2^32 scores") {
  if (is_small_run()) return;
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const hashed_scores scores{(index_t{1} << 32) + 33};
  const index_t k = scores.count / 20;
  const topk_result expected =
      topk(exec::cpu{}, make_source(scores.count, [scores](index_t j) { return scores(j); }), {k});
  const device_topk_result found = topk(policy, std::span<const hashed_scores>(&scores, 1), {k});
  CHECK(found.summary.kth == expected.kth);
  CHECK(found.summary.next == expected.next);
  CHECK(found.selected == k);
  const detail::device_array<std::uint32_t> words(policy, (scores.count + 31) / 32);
  write_mask(policy, scores, topk_by::value, found, 0, words.view());
  parameter_layout one;
  one.add("all", scores.count, 1);
  CHECK(count_selected(policy, vector_view<const std::uint32_t, device_space>(words.view()), one)
            .front() == k);
}

TEST_CASE("nothing is allocated where a workspace is given") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t n = 140'000;  // the search by samples
  const std::vector<float> steps = shapes<float>(n)[4];
  for (const auto& scores : {numbers<float>(n, spread::heavy_tailed, 3), steps}) {
    const detail::device_array<float> there(policy, std::span<const float>(scores));
    const detail::stored_scores_at<float> at{there.data(), n};
    topk_workspace workspace(policy, n);
    CHECK(bytes_allocated(policy, [&] {
            topk(policy, std::span<const detail::stored_scores_at<float>>(&at, 1), {n / 20},
                 workspace);
          }) == 0);
  }
}

TEST_CASE("the helpers of these tests see an allocation") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const auto allocates = [&] { detail::device_array<float>(policy, 1000).fill_bytes(0); };
  CHECK(bytes_allocated(policy, allocates) >= 4000);
  CHECK(captured_graph(policy, allocates).allocations() == 1);
  CHECK_THROWS_AS(replay_captured(policy, 1, allocates), std::logic_error);
}

TEST_CASE("a mask's writing, captured into a graph") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const std::vector<float> scores = numbers<float>(1000, spread::normal, 1);
  const detail::device_array<float> there(policy, std::span<const float>(scores));
  const detail::stored_scores_at<float> at{there.data(), 1000};
  const device_topk_result found = topk(policy, there.view(), {50});
  const detail::device_array<std::uint32_t> words(policy, 32);
  replay_captured(policy, 2,
                  [&] { write_mask(policy, at, topk_by::value, found, 0, words.view()); });
  CHECK(members_of(words.to_host(), 1000) ==
        topk(exec::cpu{1}, vector_view<const float>(scores), {50}).selected);
}

TEST_CASE("what callers get wrong") {
  const exec::cuda policy;
  const detail::device_array<float> scores(policy, 10);
  const vector_view<const float, device_space> view = scores.view();
  CHECK_THROWS_WITH_AS(topk(policy, view, {11}), doctest::Contains("k = 11, n = 10"),
                       invalid_argument);
  CHECK_THROWS_WITH_AS(
      topk(policy, vector_view<const float, device_space>(scores.data(), 5, 2), {1}),
      doctest::Contains("contiguous"), invalid_argument);
  topk_workspace workspace(policy, 9);
  const detail::stored_scores_at<float> at{scores.data(), 10};
  CHECK_THROWS_WITH_AS(
      topk(policy, std::span<const detail::stored_scores_at<float>>(&at, 1), {1}, workspace),
      doctest::Contains("the workspace is for fewer scores"), invalid_argument);
}
