// The tests' main: 77 (skipped) where there is no device, so that no machine without one is told that
// its kernels work.
#define DOCTEST_CONFIG_IMPLEMENT
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <cstdio>

int main(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skipped: this machine has no CUDA device");
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
