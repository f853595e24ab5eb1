#pragma once
#include <played_device.hpp>
#include <tuple>
namespace cub {
struct DeviceTransform {
  template <class... Inputs, class Output, class Count, class Body>
  static cudaError_t Transform(std::tuple<Inputs...> inputs, Output output, Count count, Body body,
                               cudaStream_t stream) {
    played::enqueue(stream, [=] {
      for (Count i = 0; i < count; ++i)
        output[i] = std::apply([&](const auto&... each) { return body(each[i]...); }, inputs);
    });
    return cudaSuccess;
  }
};
}  // namespace cub
