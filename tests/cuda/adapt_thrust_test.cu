// Proves: algorithms run straight on Thrust's device vectors. Against: sums on the host.
#include <doctest/doctest.h>
#include <thrust/device_vector.h>

#include <dualsft/accumulate.cuh>
#include <dualsft/adapt/thrust.hpp>
#include <dualsft/topk.cuh>

#include "device_values.cuh"

using namespace dualsft;
using namespace dualsft::testing;

TEST_CASE("accumulate and topk over thrust::device_vector and raw pointers") {
  const index_t n = 10'000;
  const std::vector<float> g = numbers<float>(n, spread::normal, 1);
  const thrust::device_vector<float> gradient(g.begin(), g.end());
  thrust::device_vector<float> sum(static_cast<std::size_t>(n), 1.0F);
  cudaStreamSynchronize(nullptr);  // Thrust fills on the default stream
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  accumulate(policy, as_device_view(gradient), as_device_view(sum));
  float* const raw = thrust::raw_pointer_cast(sum.data());
  accumulate(policy, as_device_view(gradient), vector_view<float, device_space>(raw, n));
  const device_topk_result best = topk(policy, as_device_view(std::as_const(sum)), {100});

  std::vector<float> expected(g);
  for (std::size_t i = 0; i < g.size(); ++i) expected[i] = 1.0F + g[i] + g[i];
  std::vector<float> found(expected.size());
  thrust::copy(sum.begin(), sum.end(), found.begin());
  CHECK(first_difference(found, expected) == -1);
  const topk_result host = topk(exec::cpu{}, vector_view<const float>(expected), {100});
  CHECK(best.summary.kth == host.kth);
  CHECK(best.summary.next == host.next);
}
