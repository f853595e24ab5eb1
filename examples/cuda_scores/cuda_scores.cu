// A training loop of your own on a device: linear regression whose gradients a kernel forms; its parameters
// are scored, the best 5 % of them selected, and only these trained.
//
//   nvcc -std=c++20 --expt-relaxed-constexpr -I include examples/cuda_scores/cuda_scores.cu
//
// Exits with 77 where there is no device.
// Output:
//   trained 51 of 1024 parameters: validation loss 11.4 -> 1.7
#include <thrust/device_vector.h>

#include <cstdio>
#include <dualsft/accumulate.cuh>
#include <dualsft/adapt/thrust.hpp>
#include <dualsft/mask.hpp>
#include <dualsft/optim/masked_adamw.cuh>
#include <dualsft/projection.cuh>
#include <dualsft/random.hpp>
using namespace dualsft;

constexpr int d = 1024, batch = 64, batches = 64;  // one more batch validates

// residual_i = x_i . theta - y_i,  gradient_j = mean_i x_ij residual_i: a block of threads, a batch
__global__ void form_gradient(const float* x, const float* y, const float* theta, float* residual,
                              float* gradient) {
  for (int i = static_cast<int>(threadIdx.x); i < batch; i += static_cast<int>(blockDim.x)) {
    residual[i] = -y[i];
    for (int j = 0; j < d; ++j) residual[i] += x[i * d + j] * theta[j];
  }
  __syncthreads();
  for (int j = static_cast<int>(threadIdx.x); j < d; j += static_cast<int>(blockDim.x)) {
    gradient[j] = 0;
    for (int i = 0; i < batch; ++i) gradient[j] += x[i * d + j] * residual[i] / batch;
  }
}

int main() {
  if (int devices = 0; cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return 77;
  random_source random(1);
  std::vector<float> xs, ys((batches + 1) * batch);
  for (int i = 0; i < (batches + 1) * batch * d; ++i) {
    xs.push_back(static_cast<float>(random.normal()));
    if (i % 32 == 0)
      ys[static_cast<std::size_t>(i / d)] += xs.back();  // one parameter in 32 matters
  }
  const thrust::device_vector<float> x(xs.begin(), xs.end()), y(ys.begin(), ys.end());
  thrust::device_vector<float> theta(d), residual(batch), gradient(d), G(d), v(d);
  const exec::cuda policy;  // the default stream
  const auto run_batch = [&](int b) {
    form_gradient<<<1, 256>>>(x.data().get() + b * batch * d, y.data().get() + b * batch,
                              theta.data().get(), residual.data().get(), gradient.data().get());
  };
  const auto validation_loss = [&] {
    run_batch(batches);
    std::vector<float> r(batch);
    thrust::copy(residual.begin(), residual.end(), r.begin());
    double sum = 0;
    for (const float each : r) sum += each * each / 2 / batch;
    return sum;
  };

  for (int b = 0; b < batches; ++b) {  // pass 1: G, the sum of all gradients
    run_batch(b);
    accumulate(policy, as_device_view(gradient), as_device_view(G));
  }
  const double before = validation_loss();
  v = gradient;  // of the validation batch

  const score_rule rule{score_order::first, step_geometry::plain, 1e-3};
  topk_workspace workspace(policy, d);
  const device_projection scored =  // p takes v's place; the best 5 % of phi_P are found on the way
      project_and_select(policy, rule, {.gradient = as_device_view(std::as_const(G))},
                         as_device_view(v), {}, {d / 20}, workspace);
  thrust::device_vector<std::uint32_t> words(d / 32);
  write_mask(policy, device_parameter_scores(rule, as_device_view(G), as_device_view(v)),
             topk_by::value, scored.selection, 0, as_device_view(words));
  std::vector<std::uint32_t> bits(d / 32);
  thrust::copy(words.begin(), words.end(), bits.begin());
  const auto mask =
      bit_mask::from_packed({reinterpret_cast<const std::uint8_t*>(bits.data()), d / 8}, d);

  device_masked_adamw<float> optimizer(policy, mask.to_index_set());
  for (int step = 0; step < 400; ++step) {  // fine-tuning, on the mask alone
    run_batch(step % batches);
    optimizer.begin_step(0.02);
    optimizer.update(policy, 0, as_device_view(theta), as_device_view(gradient));
  }
  std::printf("trained %d of %d parameters: validation loss %.1f -> %.1f\n",
              static_cast<int>(scored.selection.selected), d, before, validation_loss());
  return 0;
}
