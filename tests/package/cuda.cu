// Proves: a CUDA program outside the project builds and links with the installed component "cuda" alone.
// Where there is a device, its sum is right. Against: a number.
#include <dualsft/accumulate.cuh>
#include <dualsft/device_products.cuh>

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return 0;
  using dualsft::device_space;
  const dualsft::exec::cuda policy;
  float* memory = nullptr;
  const float before[] = {1, 2, 4, 8};
  float after[4] = {};
  if (cudaMalloc(&memory, sizeof before) != cudaSuccess) return 1;
  cudaMemcpy(memory, before, sizeof before, cudaMemcpyHostToDevice);
  dualsft::accumulate(policy, dualsft::vector_view<const float, device_space>(memory, 2),
                      dualsft::vector_view<float, device_space>(memory + 2, 2));
  // From another library that the component brings: a product of nothing.
  const dualsft::matrix_view<float, device_space> empty(nullptr, 0, 0);
  dualsft::device_products(dualsft::vector_view<unsigned char, device_space>())
      .a_bt("consumer", policy, empty, empty, empty);
  cudaMemcpy(after, memory, sizeof after, cudaMemcpyDeviceToHost);
  cudaFree(memory);
  return after[2] == 5 && after[3] == 10 ? 0 : 1;
}
