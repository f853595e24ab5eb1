// Proves: both forms of a mask hold the same members, in numpy's bit order, tensor by tensor.
// Against: hand-packed bytes, and loops over a vector<bool>.
#include <doctest/doctest.h>

#include <cstdint>
#include <dualsft/mask.hpp>
#include <dualsft/random.hpp>
#include <vector>

using namespace dualsft;

namespace {

std::vector<bool> draw(index_t n, double density) {
  random_source random(static_cast<std::uint64_t>(n));
  std::vector<bool> members;
  for (index_t i = 0; i < n; ++i) members.push_back(random.uniform() < density);
  return members;
}

index_set as_set(const std::vector<bool>& members) {
  std::vector<index_t> indices;
  for (std::size_t i = 0; i < members.size(); ++i)
    if (members[i]) indices.push_back(static_cast<index_t>(i));
  return {indices, static_cast<index_t>(members.size())};
}

// Bit i - begin of the packed bytes is member i.
std::vector<std::uint8_t> packed(const std::vector<bool>& members, index_t begin, index_t end) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>((end - begin + 7) / 8));
  for (index_t i = begin; i < end; ++i)
    if (members[static_cast<std::size_t>(i)])
      bytes[static_cast<std::size_t>((i - begin) / 8)] |=
          static_cast<std::uint8_t>(1 << ((i - begin) % 8));
  return bytes;
}

}  // namespace

TEST_CASE("bytes as numpy packs them, bit order little") {
  // numpy.packbits([1,0,0,0,0,0,0,0, 0,1,1,0,0,0,0,0, 0,0,1], bitorder="little") = [1, 6, 4]
  const bit_mask mask(index_set({0, 9, 10, 18}, 19));
  CHECK(mask.packed() == std::vector<std::uint8_t>{1, 6, 4});
  CHECK(bit_mask::from_packed(mask.packed(), 19) == mask);
  CHECK(mask.slice(9, 11).packed() == std::vector<std::uint8_t>{3});
  CHECK(mask.memory_bytes() == 8);
  CHECK(memory_bytes(mask.to_index_set()) == 32);
}

TEST_CASE("every size: there and back, counts, membership, slices") {
  for (const index_t n : {0, 1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 255, 257, 1000})
    for (const double density : {0.0, 0.05, 0.6, 1.0}) {
      CAPTURE(n);
      CAPTURE(density);
      const auto members = draw(n, density);
      const index_set set = as_set(members);
      const bit_mask mask(set);
      CHECK(mask.size() == n);
      CHECK(mask.count() == set.size());
      CHECK(mask.to_index_set() == set);
      CHECK(mask.packed() == packed(members, 0, n));
      CHECK(bit_mask::from_packed(mask.packed(), n) == mask);
      bool same = true;
      for (index_t i = 0; i < n; ++i)
        same &= mask.contains(i) == members[static_cast<std::size_t>(i)];
      CHECK(same);
      for (index_t begin = 0; begin <= n; begin += 1 + n / 7)
        for (index_t end = begin; end <= n; end += 1 + n / 5) {
          CHECK(mask.count(begin, end) == static_cast<index_t>(set.within(begin, end).size()));
          CHECK(mask.slice(begin, end).packed() == packed(members, begin, end));
          CHECK(mask.slice(begin, end).size() == end - begin);
        }
    }
}

TEST_CASE("insert and erase") {
  bit_mask mask(130);
  mask.insert(129);
  mask.insert(64);
  mask.insert(64);
  CHECK(mask.count() == 2);
  mask.erase(64);
  mask.erase(3);
  CHECK(mask.to_index_set() == index_set({129}, 130));
}

TEST_CASE("tensors, layers and modules") {
  parameter_layout layout;
  layout.add("embedding", 5, 3);                // 0 .. 14
  layout.add("layer.1.up", 2, 4, 1, "mlp.up");  // 15 .. 22
  layout.add("layer.0.up", 2, 4, 0, "mlp.up");  // 23 .. 30
  layout.add("layer.0.bias", 3, 1, 0, "bias");  // 31 .. 33
  layout.add("empty", 0, 7, 0, "bias");
  const index_set set({1, 14, 15, 23, 24, 30, 33}, 34);
  const auto check = [](const density_summary& summary) {
    CHECK(summary.total == density_share{7, 34});
    CHECK(summary.blocks == std::vector<density_share>{{2, 15}, {1, 8}, {3, 8}, {1, 3}, {0, 0}});
    CHECK(summary.blocks[2].density() == 0.375);
    CHECK(summary.blocks[4].density() == 0);
    REQUIRE(summary.layers.size() == 3);
    CHECK(summary.layers[0].layer == -1);
    CHECK(summary.layers[1].layer == 0);
    CHECK(summary.layers[1].selected == 4);
    CHECK(summary.layers[1].size == 11);
    CHECK(summary.layers[2].selected == 1);
    REQUIRE(summary.modules.size() == 3);
    CHECK(summary.modules[1].module == "mlp.up");
    CHECK(summary.modules[1].selected == 4);
    CHECK(summary.modules[1].size == 16);
    CHECK(summary.modules[2].module == "bias");
    CHECK(summary.modules[2].selected == 1);
  };
  check(summarize_density(set, layout));
  check(summarize_density(bit_mask(set), layout));

  const auto& block = layout.block(2);
  CHECK(packed_block(set, block) == std::vector<std::uint8_t>{0b10000011});
  CHECK(packed_block(bit_mask(set), block) == packed_block(set, block));
  CHECK(packed_block(set, layout.block(0)) == std::vector<std::uint8_t>{2, 0b01000000});
  CHECK(packed_block(set, layout.block(4)).empty());
}

TEST_CASE("preconditions") {
  bit_mask mask(10);
  CHECK_THROWS_AS(bit_mask(-1), invalid_argument);
  CHECK_THROWS_AS(mask.insert(10), invalid_argument);
  CHECK_THROWS_AS(mask.erase(-1), invalid_argument);
  CHECK_THROWS_AS(mask.slice(3, 11), invalid_argument);
  CHECK_THROWS_AS(mask.count(5, 4), invalid_argument);
  const std::vector<std::uint8_t> bytes{0, 4};
  CHECK_THROWS_AS(bit_mask::from_packed(bytes, 10), invalid_argument);  // bit 10 is set
  CHECK_THROWS_AS(bit_mask::from_packed(bytes, 17), invalid_argument);
  CHECK_NOTHROW(bit_mask::from_packed(bytes, 11));
  parameter_layout layout;
  layout.add("w", 3, 3);
  CHECK_THROWS_AS(summarize_density(mask, layout), invalid_argument);
  CHECK_THROWS_AS(packed_block(index_set({}, 8), layout.block(0)), invalid_argument);
}
