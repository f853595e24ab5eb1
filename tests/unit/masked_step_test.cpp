// Proves: what a device's masked AdamW does to a coordinate gives, run over a mask on the host, the
// bits of masked_adamw<float>; 16-bit weights with masters are the rounded float weights, and without
// masters they are rounded once per step. Against: masked_adamw<float>, adamw_rule's loops.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <dualsft/detail/masked_step.hpp>
#include <dualsft/optim/masked_adamw.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <vector>

using namespace dualsft;

namespace {

constexpr index_t d = 200'000;  // four pages
const adamw_options options{.weight_decay = 0.1};

index_set some(std::uint64_t seed) {
  random_source random(seed);
  std::vector<index_t> indices;
  for (index_t i = 0; i < d; ++i)
    if (i / 65536 != 2 && random.uniform() < 0.05) indices.push_back(i);  // one page is empty
  return {indices, d};
}

std::vector<float> normal(double scale, std::uint64_t seed) {
  random_source random(seed);
  std::vector<float> out;
  for (index_t i = 0; i < d; ++i) out.push_back(static_cast<float>(scale * random.normal()));
  return out;
}

/// The state that a device would hold, and its kernel's loop: blocks of pages, members of a page.
template <class Weight>
struct emulated {
  paged_index_set mask;
  std::vector<float> m, s, masters;
  index_t t = 0;

  emulated(const index_set& selected, bool keep)
      : mask(selected),
        m(static_cast<std::size_t>(selected.size())),
        s(m),
        masters(keep ? m.size() : 0, std::numeric_limits<float>::quiet_NaN()) {}

  template <class Gradient>
  void update(index_t offset, std::vector<Weight>& theta, const std::vector<Gradient>& gradient,
              index_t count) {
    const detail::masked_step<Weight, Gradient> body{adamw_rule<float>::at(options, t, 0.01),
                                                     theta.data() + offset,
                                                     gradient.data() + offset,
                                                     m.data(),
                                                     s.data(),
                                                     masters.empty() ? nullptr : masters.data(),
                                                     offset};
    const index_t first = mask.rank(offset), last = mask.rank(offset + count);
    for (index_t page = offset >> 16; page <= (offset + count - 1) >> 16; ++page) {
      const auto p = static_cast<std::size_t>(page);
      const index_t begin = std::max(first, mask.page_begins()[p]);
      const index_t end = std::min(last, mask.page_begins()[p + 1]);
      for (index_t rank = begin; rank < end; ++rank) {
        const index_t coordinate = (page << 16) + mask.offsets()[static_cast<std::size_t>(rank)];
        body.store(rank, coordinate, body.load(rank, coordinate));
      }
    }
  }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) return false;
  return a.size() == b.size();
}

}  // namespace

TEST_CASE("float weights: the bits of the host, in blocks of any size") {
  const index_set mask = some(1);
  masked_adamw<float> host(mask, options);
  emulated<float> device(mask, false);
  std::vector<float> a = normal(1, 2), b = a;
  for (int step = 0; step < 5; ++step) {
    const std::vector<float> g = normal(0.1, 10 + static_cast<std::uint64_t>(step));
    host.step(exec::cpu{2}, std::span<float>(a), std::span<const float>(g), 0.01);
    ++device.t;
    index_t offset = 0;
    for (const index_t count : {1, 70001, 3, 129994, 1}) {
      device.update(offset, b, g, count);
      offset += count;
    }
    REQUIRE(offset == d);
    REQUIRE(same_bits(a, b));
  }
  CHECK(same_bits({host.first_moment().begin(), host.first_moment().end()}, device.m));
  CHECK(same_bits({host.second_moment().begin(), host.second_moment().end()}, device.s));

  // And the host's optimizer goes on from a device's state.
  masked_adamw<float> resumed(device.mask, options, 5, device.m, device.s);
  const std::vector<float> g = normal(0.1, 20);
  host.step(exec::cpu{1}, std::span<float>(a), std::span<const float>(g), 0.01);
  resumed.step(exec::cpu{1}, std::span<float>(b), std::span<const float>(g), 0.01);
  CHECK(same_bits(a, b));
  CHECK_THROWS_AS(masked_adamw<float>(device.mask, options, 5, {1.0F}, device.s), invalid_argument);
  CHECK_THROWS_AS(masked_adamw<float>(device.mask, options, -1, device.m, device.s),
                  invalid_argument);
}

TEST_CASE(
    "16-bit weights: with masters the rounded float weights, without them rounded each step") {
  const index_set mask = some(3);
  const std::vector<float> start = normal(1, 4);
  std::vector<bfloat16> kept, bare;
  std::vector<float> whole;
  for (const float x : start) {
    kept.push_back(to_bfloat16(x));
    whole.push_back(to_float(kept.back()));
  }
  bare = kept;
  const std::vector<bfloat16> before = kept;
  masked_adamw<float> host(mask, options);
  emulated<bfloat16> with(mask, true), without(mask, false);
  std::vector<float> alone = whole, m(with.m), s(with.m);
  for (int step = 0; step < 4; ++step) {
    std::vector<bfloat16> g;
    for (const float x : normal(0.1, 30 + static_cast<std::uint64_t>(step)))
      g.push_back(to_bfloat16(x));
    std::vector<float> wide;
    for (const bfloat16 x : g) wide.push_back(to_float(x));
    host.step(exec::cpu{1}, std::span<float>(whole), std::span<const float>(wide), 0.01);
    ++with.t, ++without.t;
    with.update(0, kept, g, d);
    without.update(0, bare, g, d);
    const auto c = adamw_rule<float>::at(options, with.t, 0.01);
    for (std::size_t k = 0; k < m.size(); ++k) {
      const auto i = static_cast<std::size_t>(mask.indices()[k]);
      adamw_rule<float>::apply(exec::reference{}, c, 1, &alone[i], {&m[k], &s[k]}, &wide[i]);
      alone[i] = to_float(to_bfloat16(alone[i]));
    }
  }
  index_t outside_moved = 0, kept_differ = 0, bare_differ = 0;
  for (index_t j = 0; j < d; ++j) {
    const auto i = static_cast<std::size_t>(j);
    if (!mask.contains(j)) outside_moved += kept[i] != before[i] || bare[i] != before[i] ? 1 : 0;
    kept_differ += kept[i] != to_bfloat16(whole[i]) ? 1 : 0;
    bare_differ += bare[i] != to_bfloat16(alone[i]) ? 1 : 0;
  }
  CHECK(outside_moved == 0);
  CHECK(kept_differ == 0);
  CHECK(bare_differ == 0);
}
