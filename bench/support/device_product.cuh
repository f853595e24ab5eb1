// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/device_array.cuh>
#include <dualsft/device_products.cuh>
#include <dualsft/float16.hpp>

#include "device_inputs.cuh"

namespace dualsft::bench {

/// C = A B^T of two n x n matrices of random bf16 numbers, by cuBLASLt: what the device's tensor cores
/// reach in an ordinary program. Zeros would draw less power, and be faster.
class device_product {
 public:
  device_product(const exec::cuda& policy, index_t n)
      : n_(n),
        workspace_(policy, device_products::advised_workspace_bytes),
        a_(policy, n * n),
        b_(policy, n * n),
        c_(policy, n * n),
        products_(workspace_.view()) {
    fill(policy, a_.view(), {spread::normal, 101});
    fill(policy, b_.view(), {spread::normal, 102});
  }

  double operations() const {
    const auto n = static_cast<double>(n_);
    return 2 * n * n * n;
  }

  void run(const exec::cuda& policy) {
    using view = matrix_view<const bfloat16, device_space>;
    products_.a_bt("device_product", policy, view(a_.data(), n_, n_), view(b_.data(), n_, n_),
                   matrix_view<bfloat16, device_space>(c_.data(), n_, n_));
  }

 private:
  index_t n_;
  detail::device_array<unsigned char> workspace_;
  detail::device_array<bfloat16> a_, b_, c_;
  device_products products_;
};

}  // namespace dualsft::bench
