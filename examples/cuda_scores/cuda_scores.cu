// A training loop of your own on a device: linear regression whose gradients a kernel forms, scored and
// fine-tuned on the best 5 % of its parameters.
//
//   nvcc -std=c++20 --expt-relaxed-constexpr -I include examples/cuda_scores/cuda_scores.cu
//
// Prints the selection and the loss before and after; exits with 77 where there is no device.
#include <thrust/device_vector.h>
#include <thrust/inner_product.h>
#include <thrust/transform.h>

#include <cstdio>
#include <dualsft/accumulate.cuh>
#include <dualsft/adapt/thrust.hpp>
#include <dualsft/mask.hpp>
#include <dualsft/optim/masked_adamw.cuh>
#include <dualsft/projection.cuh>
#include <dualsft/random.hpp>

using namespace dualsft;

constexpr int d = 4096, batch = 64;

// gradient[j] = mean over the batch of x_ij (x_i . theta - y_i); a block of threads per coordinate would
// be faster, and no shorter.
__global__ void gradient_of(const float* x, const float* y, const float* theta, float* residual,
                            float* gradient) {
  for (int i = static_cast<int>(threadIdx.x); i < batch; i += static_cast<int>(blockDim.x)) {
    float sum = -y[i];
    for (int j = 0; j < d; ++j) sum += x[i * d + j] * theta[j];
    residual[i] = sum;
  }
  __syncthreads();
  for (int j = static_cast<int>(threadIdx.x); j < d; j += static_cast<int>(blockDim.x)) {
    float sum = 0;
    for (int i = 0; i < batch; ++i) sum += x[i * d + j] * residual[i];
    gradient[j] = sum / batch;
  }
}

struct rms_of {  // D = sqrt(s / (1 - beta2^t)) + epsilon
  float correction;
  __host__ __device__ float operator()(float s) const { return sqrtf(s / correction) + 1e-8F; }
};

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skipped: this machine has no CUDA device");
    return 77;
  }
  constexpr int pool = 16;  // batches; one more validates
  random_source random(1);
  std::vector<float> x, y;
  for (int i = 0; i < (pool + 1) * batch; ++i) {
    float target = 0;
    for (int j = 0; j < d; ++j) {
      x.push_back(static_cast<float>(random.normal()));
      if (j % 32 == 0) target += x.back();  // the truth: one parameter in 32
    }
    y.push_back(target);
  }
  const thrust::device_vector<float> xs(x.begin(), x.end()), ys(y.begin(), y.end());
  thrust::device_vector<float> theta(d), residual(batch), gradient(d), sum(d), s(d), v(d),
      curvature(d);
  const exec::cuda policy;  // the default stream, which Thrust uses too
  const auto form_gradient = [&](int which) {
    gradient_of<<<1, 512>>>(xs.data().get() + which * batch * d, ys.data().get() + which * batch,
                            theta.data().get(), residual.data().get(), gradient.data().get());
  };
  const auto validation_loss = [&] {
    form_gradient(pool);
    return thrust::inner_product(residual.begin(), residual.end(), residual.begin(), 0.0F) / 2 /
           batch;
  };

  // Pass 1: G and the second moment over the pool; v from the validation batch.
  for (int b = 0; b < pool; ++b) {
    form_gradient(b);
    accumulate(policy, as_device_view(gradient), as_device_view(sum));
    accumulate_second_moment(policy, as_device_view(gradient), 0.9, as_device_view(s));
  }
  form_gradient(pool);
  v = gradient;
  thrust::transform(s.begin(), s.end(), curvature.begin(),
                    rms_of{static_cast<float>(1 - std::pow(0.9, pool))});

  // p takes v's place, and the best 5 % of phi_P are found, in one pass.
  const score_rule rule{score_order::diagonal, step_geometry::plain, 1e-3};
  topk_workspace workspace(policy, d);
  const device_projection scored = project_and_select(
      policy, rule, {.gradient = as_device_view(sum), .curvature = as_device_view(curvature)},
      as_device_view(v), {}, {d / 20}, workspace);
  thrust::device_vector<std::uint32_t> words(d / 32);
  write_mask(policy, device_parameter_scores(rule, as_device_view(sum), as_device_view(v)),
             topk_by::value, scored.selection, 0, as_device_view(words));
  std::vector<std::uint32_t> bits(words.size());
  thrust::copy(words.begin(), words.end(), bits.begin());
  const index_set mask =
      bit_mask::from_packed({reinterpret_cast<const std::uint8_t*>(bits.data()), 4 * bits.size()},
                            d)
          .to_index_set();

  // Fine-tuning, on these coordinates alone.
  const float before = validation_loss();
  device_masked_adamw<float> optimizer(policy, mask);
  for (int step = 0; step < 200; ++step) {
    form_gradient(step % pool);
    optimizer.begin_step(0.02);
    optimizer.update(policy, 0, as_device_view(theta), as_device_view(gradient));
  }
  std::printf("selected %lld of %d parameters, boundary gap %.3g; validation loss %.3f -> %.3f\n",
              static_cast<long long>(mask.size()), d, scored.selection.summary.gap, before,
              validation_loss());
  return 0;
}
