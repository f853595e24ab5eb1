// Proves: accumulate and accumulate_second_moment on the device give the host's bits, at every size and
// offset, on the stream they were given, and twice the same. Against: the definition in
// support/accumulate_cases.hpp, as the host's.
#include <doctest/doctest.h>

#include <dualsft/accumulate.cuh>

#include "../support/accumulate_cases.hpp"
#include "device_values.cuh"

using namespace dualsft;
using namespace dualsft::testing;

namespace {

template <class T, class Sum>
void check_type() {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  std::vector<index_t> sizes{0, 1, 31, 32, 33, 1000};
  if (!is_small_run()) sizes.push_back(1 << 20);
  check_accumulate<T, Sum>(sizes, [&](const std::vector<T>& g, const std::vector<Sum>& before,
                                      index_t skip, double beta2) {
    const index_t count = static_cast<index_t>(g.size()) - skip;
    const detail::device_array<T> gradient(policy, std::span<const T>(g));
    const vector_view<const T, device_space> from = gradient.view().subview(skip, count);
    accumulated<Sum> out;
    for (int again = 0; again < 2; ++again) {
      const detail::device_array<Sum> sum(policy, std::span<const Sum>(before)),
          s(policy, std::span<const Sum>(before));
      accumulate(policy, from, sum.view().subview(skip, count));
      accumulate_second_moment(policy, from, beta2, s.view().subview(skip, count));
      const accumulated<Sum> found{sum.to_host(), s.to_host()};
      if (again == 1) {
        CHECK(first_difference(found.sum, out.sum) == -1);
        CHECK(first_difference(found.s, out.s) == -1);
      }
      out = found;
    }
    return out;
  });
}

}  // namespace

TEST_CASE("four types of gradients into two of sums: the host's bits") {
  check_type<float16, float>();
  check_type<bfloat16, float>();
  check_type<float, float>();
  check_type<double, float>();
  check_type<bfloat16, double>();
  check_type<float, double>();
}

TEST_CASE("captured into a graph and replayed") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const std::vector<float> g = numbers<float>(1000, spread::normal, 1);
  const detail::device_array<float> gradient(policy, std::span<const float>(g));
  detail::device_array<float> sum(policy, 1000), s(policy, 1000);
  sum.fill_bytes(0);
  s.fill_bytes(0);
  std::vector<float> host_sum(1000), host_s(1000);
  replay_captured(policy, 3, [&] {
    accumulate(policy, gradient.view(), sum.view());
    accumulate_second_moment(policy, gradient.view(), 0.9, s.view());
  });
  for (int turn = 0; turn < 3; ++turn) {
    accumulate(exec::reference{}, vector_view<const float>(g), vector_view<float>(host_sum));
    accumulate_second_moment(exec::reference{}, vector_view<const float>(g), 0.9,
                             vector_view<float>(host_s));
  }
  CHECK(first_difference(sum.to_host(), host_sum) == -1);
  CHECK(first_difference(s.to_host(), host_s) == -1);
}

TEST_CASE("more than 2^32 coordinates: the last are added to, and nothing twice") {
  const index_t n = (index_t{1} << 32) + 33;
  if (!has_memory_for(static_cast<std::size_t>(n) * 6)) return;
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  detail::device_array<bfloat16> gradient(policy, n);
  detail::device_array<float> sum(policy, n);
  gradient.fill_bytes(0x3f);  // 0x3f3f: 0.74609375
  const vector_view<const bfloat16, device_space> g = gradient.view();
  const std::vector<bfloat16> one(1, bfloat16{0x3f3f});
  std::vector<float> expected(1), expected_s(1);
  accumulate(exec::reference{}, vector_view<const bfloat16>(one), vector_view<float>(expected));
  accumulate_second_moment(exec::reference{}, vector_view<const bfloat16>(one), 0.9,
                           vector_view<float>(expected_s));
  const auto check = [&](const std::vector<float>& wanted) {
    for (const index_t at : {index_t{0}, index_t{1} << 31, (index_t{1} << 32) - 1, n - 1})
      CHECK(part_of(policy, sum.data() + at, 1) == wanted);
  };
  sum.fill_bytes(0);
  accumulate(policy, g, sum.view());
  check(expected);
  sum.fill_bytes(0);
  accumulate_second_moment(policy, g, 0.9, sum.view());
  check(expected_s);
}

TEST_CASE("what callers get wrong") {
  const exec::cuda policy;
  const detail::device_array<float> a(policy, 8), b(policy, 9);
  CHECK_THROWS_WITH_AS(
      accumulate(policy, vector_view<const float, device_space>(a.view()), b.view()),
      doctest::Contains("gradient = 8, sum = 9"), invalid_argument);
  CHECK_THROWS_WITH_AS(accumulate(policy, vector_view<const float, device_space>(a.data(), 4, 2),
                                  vector_view<float, device_space>(b.data(), 4)),
                       doctest::Contains("device views must be contiguous (gradient stride = 2"),
                       invalid_argument);
}
