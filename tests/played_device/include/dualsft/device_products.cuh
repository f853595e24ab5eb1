// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/detail/device_products_shape.hpp>
#include <dualsft/detail/launch.cuh>
#include <dualsft/float16.hpp>
#include <type_traits>

/// The products of the library's header of this name without cuBLASLt: one kernel of plain loops. Sums
/// in double, rounded once; the workspace is checked and not used.
namespace dualsft::detail {

struct played_product {
  product_kind kind;
  bool adds;
  product_shape shape;
  float alpha;
  index_t a_stride, b_stride, c_stride;
};

/// A thread per row of C.
template <class In, class Out>
__global__ void multiply_rows(played_product p, const In* a, const In* b, Out* c) {
  const index_t stride = static_cast<index_t>(blockDim.x) * gridDim.x;
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.shape.m;
       i += stride)
    for (index_t j = 0; j < p.shape.n; ++j) {
      double sum = 0;
      for (index_t k = 0; k < p.shape.k; ++k) {
        const In x = p.kind == product_kind::at_b ? a[k * p.a_stride + i] : a[i * p.a_stride + k];
        const In y = p.kind == product_kind::a_bt ? b[j * p.b_stride + k] : b[k * p.b_stride + j];
        sum += convert_float<double>(x) * convert_float<double>(y);
      }
      Out& out = c[i * p.c_stride + j];
      sum *= static_cast<double>(p.alpha);
      out = convert_float<Out>(p.adds ? sum + convert_float<double>(out) : sum);
    }
}

}  // namespace dualsft::detail

namespace dualsft {

class device_products {
 public:
  static constexpr index_t advised_workspace_bytes = 1024;

  explicit device_products(vector_view<unsigned char, device_space> workspace) {
    const auto address = reinterpret_cast<std::uintptr_t>(workspace.data());
    expects(workspace.contiguous() && address % 256 == 0, "device_products",
            "the workspace must be contiguous and aligned to 256 bytes", "stride",
            workspace.stride(), "beyond", address % 256);
  }
  device_products(device_products&&) = default;
  device_products& operator=(device_products&&) = default;

  template <class A, class B, class C>
  requires ProductTypes<A, B, C>
  void a_bt(const char* function, const exec::cuda& policy, const matrix_view<A, device_space>& a,
            const matrix_view<B, device_space>& b, const matrix_view<C, device_space>& c,
            const product_options& options = {}) {
    multiply(function, policy, detail::product_kind::a_bt, a, b, c, options);
  }

  template <class A, class B, class C>
  requires ProductTypes<A, B, C>
  void a_b(const char* function, const exec::cuda& policy, const matrix_view<A, device_space>& a,
           const matrix_view<B, device_space>& b, const matrix_view<C, device_space>& c,
           const product_options& options = {}) {
    multiply(function, policy, detail::product_kind::a_b, a, b, c, options);
  }

  template <class A, class B, class C>
  requires ProductTypes<A, B, C>
  void at_b(const char* function, const exec::cuda& policy, const matrix_view<A, device_space>& a,
            const matrix_view<B, device_space>& b, const matrix_view<C, device_space>& c,
            const product_options& options = {}) {
    multiply(function, policy, detail::product_kind::at_b, a, b, c, options);
  }

 private:
  template <class A, class B, class C>
  void multiply(const char* function, const exec::cuda& policy, detail::product_kind kind,
                const matrix_view<A, device_space>& a, const matrix_view<B, device_space>& b,
                const matrix_view<C, device_space>& c, const product_options& options) {
    const detail::product_shape shape = detail::checked_product(function, kind, a, b, c);
    if (shape.m == 0 || shape.n == 0) return;
    const detail::played_product p{kind,
                                   options.into == product_into::add,
                                   shape,
                                   options.alpha,
                                   detail::leading_dimension(a),
                                   detail::leading_dimension(b),
                                   detail::leading_dimension(c)};
    constexpr unsigned threads = 32;
    const auto blocks = static_cast<unsigned>((shape.m + threads - 1) / threads);
    detail::launch(function, policy, {blocks, threads},
                   detail::multiply_rows<std::remove_const_t<A>, C>, p, a.data(), b.data(),
                   c.data());
  }
};

}  // namespace dualsft
