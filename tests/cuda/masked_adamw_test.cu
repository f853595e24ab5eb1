// Proves: device_masked_adamw gives the bits of the host's masked_adamw<float>, block by block, with
// state that goes to the host and back; 16-bit weights with masters are its rounded weights; nothing
// unselected is written, of up to more than 2^32 coordinates. Against: masked_adamw<float>.
#include <doctest/doctest.h>

#include <dualsft/optim/masked_adamw.cuh>

#include "device_values.cuh"

using namespace dualsft;
using namespace dualsft::testing;

namespace {

const adamw_options options{.weight_decay = 0.1};

index_set some(index_t d, double share, std::uint64_t seed) {
  random_source random(seed);
  std::vector<index_t> indices;
  for (index_t i = 0; i < d; ++i)
    if (random.uniform() < share) indices.push_back(i);
  return {indices, d};
}

template <class T>
std::vector<T> rounded(const std::vector<float>& from) {
  std::vector<T> out;
  for (const float x : from) out.push_back(convert_float<T>(x));
  return out;
}
template <class T>
std::vector<float> widened(const std::vector<T>& from) {
  std::vector<float> out;
  for (const T x : from) out.push_back(convert_float<float>(x));
  return out;
}

template <class Weight, class Gradient>
void check_type(master_weights masters) {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  for (const index_t d : {1, 31, 65536, 300'001})
    for (const double share : {0.0, 0.05, 1.0}) {
      if (is_small_run() && d > 65536) continue;
      CAPTURE(d);
      CAPTURE(share);
      const index_set mask = some(d, share, 1);
      const std::vector<Weight> start = numbers<Weight>(d, spread::normal, 2);
      std::vector<float> whole = widened(start);
      masked_adamw<float> host(mask, options);
      device_masked_adamw<Weight> optimizer(policy, mask, options, masters);
      const detail::device_array<Weight> theta(policy, std::span<const Weight>(start));
      for (int step = 0; step < 4; ++step) {
        const std::vector<Gradient> g =
            numbers<Gradient>(d, spread::heavy_tailed, 10 + static_cast<std::uint64_t>(step));
        const std::vector<float> wide = widened(g);
        host.step(exec::cpu{1}, std::span<float>(whole), std::span<const float>(wide), 0.01);
        const detail::device_array<Gradient> gradient(policy, std::span<const Gradient>(g));
        optimizer.begin_step(0.01);
        const index_t cut = d / 3;
        for (const auto& [offset, count] : {std::pair{index_t{0}, cut}, std::pair{cut, d - cut}})
          optimizer.update(
              policy, offset, theta.view().subview(offset, count),
              vector_view<const Gradient, device_space>(gradient.view().subview(offset, count)));
        if (step == 1) {  // to the host and back
          const masked_adamw<float> copy = optimizer.to_host();
          CHECK(copy.steps() == 2);
          if (masters == master_weights::none)
            optimizer = device_masked_adamw<Weight>(policy, copy, masters);
        }
      }
      const masked_adamw<float> end = optimizer.to_host();
      const auto list = [](std::span<const float> x) {
        return std::vector<float>(x.begin(), x.end());
      };
      const std::vector<Weight> found = theta.to_host();
      if constexpr (std::same_as<Weight, float>) {
        CHECK(first_difference(found, whole) == -1);
        CHECK(first_difference(list(end.first_moment()), list(host.first_moment())) == -1);
        CHECK(first_difference(list(end.second_moment()), list(host.second_moment())) == -1);
      } else if (masters == master_weights::keep) {
        CHECK(first_difference(found, rounded<Weight>(whole)) == -1);
      }
      for (index_t j = 0; j < d; ++j)
        if (!mask.contains(j))
          REQUIRE(found[static_cast<std::size_t>(j)] == start[static_cast<std::size_t>(j)]);
      CHECK(optimizer.memory_bytes() == mask.size() * (masters == master_weights::keep ? 14 : 10) +
                                            (d / 65536 + 1 + (d % 65536 != 0)) * 8);
    }
}

}  // namespace

TEST_CASE("float weights, any gradient: the bits of the host") {
  check_type<float, float>(master_weights::none);
  check_type<float, bfloat16>(master_weights::none);
}

TEST_CASE("16-bit weights") {
  check_type<bfloat16, bfloat16>(master_weights::keep);
  check_type<bfloat16, float>(master_weights::none);
  check_type<float16, float16>(master_weights::keep);
}

TEST_CASE("gradients that are NaN, infinite, zero or denormal: what the host makes of them") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t d = 1000;
  const index_set mask = some(d, 0.5, 1);
  const std::vector<float> start = numbers<float>(d, spread::special, 2);
  std::vector<float> whole(start);
  masked_adamw<float> host(mask, options);
  device_masked_adamw<float> optimizer(policy, mask, options);
  device_masked_adamw<bfloat16> narrow(policy, mask, options, master_weights::keep);
  const std::vector<bfloat16> narrow_start = rounded<bfloat16>(start);
  std::vector<float> narrow_whole = widened(narrow_start);
  masked_adamw<float> narrow_host(mask, options);
  const detail::device_array<float> theta(policy, std::span<const float>(start));
  const detail::device_array<bfloat16> narrow_theta(policy,
                                                    std::span<const bfloat16>(narrow_start));
  for (std::uint64_t step = 0; step < 3; ++step) {
    const std::vector<float> g = numbers<float>(d, spread::special, 10 + step);
    const std::vector<bfloat16> narrow_g = rounded<bfloat16>(g);
    const std::vector<float> wide = widened(narrow_g);
    host.step(exec::cpu{1}, std::span<float>(whole), std::span<const float>(g), 0.01);
    narrow_host.step(exec::cpu{1}, std::span<float>(narrow_whole), std::span<const float>(wide),
                     0.01);
    const detail::device_array<float> gradient(policy, std::span<const float>(g));
    const detail::device_array<bfloat16> narrow_gradient(policy,
                                                         std::span<const bfloat16>(narrow_g));
    optimizer.begin_step(0.01);
    optimizer.update(policy, 0, theta.view(), gradient.view());
    narrow.begin_step(0.01);
    narrow.update(policy, 0, narrow_theta.view(), narrow_gradient.view());
    CHECK(first_difference(theta.to_host(), whole) == -1);
    CHECK(first_difference(narrow_theta.to_host(), rounded<bfloat16>(narrow_whole)) == -1);
  }
  const masked_adamw<float> end = optimizer.to_host();
  const auto list = [](std::span<const float> x) { return std::vector<float>(x.begin(), x.end()); };
  CHECK(first_difference(list(end.first_moment()), list(host.first_moment())) == -1);
  CHECK(first_difference(list(end.second_moment()), list(host.second_moment())) == -1);
}

namespace {

/// A few selected of d coordinates, most of them far out: bits as where they are all there is.
void check_few(const exec::cuda& policy, index_t d) {
  CAPTURE(d);
  const std::vector<index_t> at{0, 5, d / 2 - 17, d / 2 - 16, d - 34, d - 33, d - 1};
  const auto n = static_cast<index_t>(at.size());
  const index_set mask(at, d);
  std::vector<float> whole = widened(numbers<bfloat16>(n, spread::normal, 2));
  const std::vector<bfloat16> start = rounded<bfloat16>(whole),
                              g = numbers<bfloat16>(n, spread::heavy_tailed, 3);
  const std::vector<float> wide = widened(g);
  std::vector<index_t> all(at.size());
  for (index_t i = 0; i < n; ++i) all[static_cast<std::size_t>(i)] = i;
  masked_adamw<float> host(index_set(all, n), options);
  device_masked_adamw<bfloat16> optimizer(policy, mask, options, master_weights::keep);
  detail::device_array<bfloat16> theta(policy, d), gradient(policy, d);
  theta.fill_bytes(0x3f);
  gradient.fill_bytes(0x3f);
  for (std::size_t i = 0; i < at.size(); ++i) {
    set_part(policy, theta.data() + at[i], std::vector<bfloat16>{start[i]});
    set_part(policy, gradient.data() + at[i], std::vector<bfloat16>{g[i]});
  }
  const vector_view<const bfloat16, device_space> from = gradient.view();
  for (const index_t cut : {d, d - 40}) {  // at once, and in two blocks
    host.step(exec::cpu{1}, std::span<float>(whole), std::span<const float>(wide), 0.01);
    optimizer.begin_step(0.01);
    optimizer.update(policy, 0, theta.view().subview(0, cut), from.subview(0, cut));
    if (cut < d)
      optimizer.update(policy, cut, theta.view().subview(cut, d - cut), from.subview(cut, d - cut));
  }
  const std::vector<bfloat16> expected = rounded<bfloat16>(whole);
  for (std::size_t i = 0; i < at.size(); ++i)
    CHECK(part_of(policy, theta.data() + at[i], 1)[0] == expected[i]);
  for (const index_t other : {index_t{1}, d / 2 - 18, d / 2, d - 35, d - 32, d - 2})
    CHECK(part_of(policy, theta.data() + other, 1)[0] == bfloat16{0x3f3f});
}

}  // namespace

TEST_CASE("few selected, far apart") {
  const own_stream stream;
  check_few(stream.policy(), 200'033);
}

TEST_CASE("more than 2^31 and 2^32 coordinates") {
  const own_stream stream;
  for (const int bits : {31, 32}) {
    const index_t d = (index_t{1} << bits) + 33;
    if (has_memory_for(static_cast<std::size_t>(d) * 4)) check_few(stream.policy(), d);
  }
}

TEST_CASE("captured into a graph: one step's update of every block") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t d = 70'000;
  const index_set mask = some(d, 0.05, 1);
  const std::vector<float> start = numbers<float>(d, spread::normal, 2);
  const std::vector<float> g = numbers<float>(d, spread::normal, 3);
  std::vector<float> whole(start);
  masked_adamw<float> host(mask, options);
  device_masked_adamw<float> optimizer(policy, mask, options);
  const detail::device_array<float> theta(policy, std::span<const float>(start)),
      gradient(policy, std::span<const float>(g));
  host.step(exec::cpu{1}, std::span<float>(whole), std::span<const float>(g), 0.01);
  optimizer.begin_step(0.01);
  replay_captured(policy, 1, [&] { optimizer.update(policy, 0, theta.view(), gradient.view()); });
  CHECK(first_difference(theta.to_host(), whole) == -1);
}

TEST_CASE("what callers get wrong") {
  const exec::cuda policy;
  const index_set mask({0, 2}, 4);
  CHECK_THROWS_WITH_AS(device_masked_adamw<float>(policy, mask, {}, master_weights::keep),
                       doctest::Contains("only 16-bit weights have masters"), invalid_argument);
  device_masked_adamw<float> optimizer(policy, mask);
  const detail::device_array<float> theta(policy, 5), gradient(policy, 5);
  const vector_view<const float, device_space> g = gradient.view();
  CHECK_THROWS_WITH_AS(optimizer.update(policy, 0, theta.view().subview(0, 4), g.subview(0, 4)),
                       doctest::Contains("begin_step comes first"), invalid_argument);
  optimizer.begin_step(0.1);
  CHECK_THROWS_WITH_AS(optimizer.update(policy, 0, theta.view(), g),
                       doctest::Contains("must lie in [0, d)"), invalid_argument);
  CHECK_THROWS_WITH_AS(optimizer.update(policy, 0, theta.view().subview(0, 4), g.subview(0, 3)),
                       doctest::Contains("one gradient value per coordinate"), invalid_argument);
}
