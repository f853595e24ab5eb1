// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <compare>
#include <cstdint>
#include <dualsft/detail/device_products_shape.hpp>
#include <dualsft/execution.cuh>
#include <map>
#include <memory>
#include <string>
#include <type_traits>

namespace dualsft {

/// Products of row-major matrices on a device, by cuBLASLt:
///
///     a_bt   C [m, n] (+)= alpha A [m, k] B [n, k]^T
///     a_b    C [m, n] (+)= alpha A [m, k] B [k, n]
///     at_b   C [m, n] (+)= alpha A [k, m]^T B [k, n]
///
/// A and B are bfloat16, float16 or float; C is of their type or float. C must not overlap A or B.
/// The object belongs to the device that was current when it was made, and to one thread and one
/// stream at a time, because its products share the workspace.
/// Cost: nothing is allocated on the device after construction; the first product of a shape asks
/// cuBLASLt which algorithm to take, later ones find it here. Asynchronous. What a graph captures
/// should have run before: the first product of a shape may load code.
/// Numerics: float sums, float operands without TF32; 16-bit results are rounded once (partial sums
/// of a split k meet in float).
/// Determinism: equal shapes, strides and alignments on one device give equal bits.
/// Source: NVIDIA's cuBLASLt, which multiplies; here is what a row-major caller says to it.
class device_products {
 public:
  static constexpr index_t advised_workspace_bytes = index_t{32} << 20;

  /// \param workspace  used by every product, 256-byte aligned; empty is possible, and slower
  /// \throws invalid_argument  if the workspace is not aligned
  /// \throws cuda_error        if cuBLASLt cannot start
  explicit device_products(vector_view<unsigned char, device_space> workspace)
      : workspace_(workspace) {
    expects(workspace.contiguous() && aligned(workspace.data()) == most_aligned, "device_products",
            "the workspace must be contiguous and aligned to 256 bytes", "stride",
            workspace.stride(), "aligned to", aligned(workspace.data()));
    cublasLtHandle_t handle = nullptr;
    check(cublasLtCreate(&handle), "device_products");
    handle_.reset(handle);
  }

  /// \param function  named in errors
  /// \throws invalid_argument  if shapes do not fit, or a matrix is not row-major
  /// \throws cuda_error        if cuBLASLt has no algorithm for the product, or fails
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
  static constexpr std::uint32_t most_aligned = 256;  // what cuBLASLt distinguishes

  struct close {
    void operator()(cublasLtHandle_t handle) const { static_cast<void>(cublasLtDestroy(handle)); }
  };

  /// All that the choice of an algorithm depends on.
  struct request {
    detail::product_kind kind;
    cudaDataType_t in, out;
    index_t m, n, k;
    std::array<index_t, 3> strides;
    std::array<std::uint32_t, 3> alignments;
    auto operator<=>(const request&) const = default;
  };

  static std::uint32_t aligned(const void* data) {
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    return address == 0
               ? most_aligned
               : std::min(most_aligned, std::uint32_t{1} << std::min(std::countr_zero(address), 8));
  }

  template <class T>
  static constexpr cudaDataType_t type_of() {
    if constexpr (std::is_same_v<std::remove_const_t<T>, bfloat16>) return CUDA_R_16BF;
    if constexpr (std::is_same_v<std::remove_const_t<T>, float16>) return CUDA_R_16F;
    return CUDA_R_32F;
  }

  static void check(cublasStatus_t status, const char* function) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw cuda_error(std::string(function) + ": cuBLASLt: " + cublasLtGetStatusString(status),
                     status == CUBLAS_STATUS_ALLOC_FAILED    ? cudaErrorMemoryAllocation
                     : status == CUBLAS_STATUS_NOT_SUPPORTED ? cudaErrorNotSupported
                                                             : cudaErrorUnknown);
  }

  /// cuBLASLt's view of one product. It counts columns first: what is a row here is a column there,
  /// so it is asked for C^T, with B as the first operand.
  struct description {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t first, second, result;

    description(const request& r, const char* function) {
      check(cublasLtMatmulDescInit(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), function);
      const bool first_transposed = r.kind == detail::product_kind::a_bt;
      const bool second_transposed = r.kind == detail::product_kind::at_b;
      const cublasOperation_t of_first = first_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
      const cublasOperation_t of_second = second_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
      check(cublasLtMatmulDescSetAttribute(&product, CUBLASLT_MATMUL_DESC_TRANSA, &of_first,
                                           sizeof of_first),
            function);
      check(cublasLtMatmulDescSetAttribute(&product, CUBLASLT_MATMUL_DESC_TRANSB, &of_second,
                                           sizeof of_second),
            function);
      const auto lay = [&](cublasLtMatrixLayoutOpaque_t& layout, cudaDataType_t type, index_t row,
                           index_t rows, index_t stride) {
        check(cublasLtMatrixLayoutInit(&layout, type, static_cast<std::uint64_t>(row),
                                       static_cast<std::uint64_t>(rows), stride),
              function);
      };
      lay(second, r.in, second_transposed ? r.m : r.k, second_transposed ? r.k : r.m, r.strides[0]);
      lay(first, r.in, first_transposed ? r.k : r.n, first_transposed ? r.n : r.k, r.strides[1]);
      lay(result, r.out, r.n, r.m, r.strides[2]);
    }
  };

  cublasLtMatmulAlgo_t choose(const char* function, const request& r, description& d) const {
    cublasLtMatmulPreferenceOpaque_t preference;
    check(cublasLtMatmulPreferenceInit(&preference), function);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
      check(cublasLtMatmulPreferenceSetAttribute(&preference, what, &value, sizeof value),
            function);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_.size()));
    // The other schemes would add parts of 16-bit results in 16 bits.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, r.alignments[1]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, r.alignments[0]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, r.alignments[2]);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, r.alignments[2]);
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    check(cublasLtMatmulAlgoGetHeuristic(handle_.get(), &d.product, &d.first, &d.second, &d.result,
                                         &d.result, &preference, 1, &best, &found),
          function);
    check(found > 0 ? best.state : CUBLAS_STATUS_NOT_SUPPORTED, function);
    return best.algo;
  }

  template <class A, class B, class C>
  void multiply(const char* function, const exec::cuda& policy, detail::product_kind kind,
                const matrix_view<A, device_space>& a, const matrix_view<B, device_space>& b,
                const matrix_view<C, device_space>& c, const product_options& options) {
    const detail::product_shape shape = detail::checked_product(function, kind, a, b, c);
    if (shape.m == 0 || shape.n == 0) return;
    if (shape.k == 0) {  // the sum of nothing
      if (options.into == product_into::overwrite)
        detail::cuda_check(
            cudaMemset2DAsync(c.data(), bytes<C>(detail::leading_dimension(c)), 0,
                              bytes<C>(shape.n), static_cast<std::size_t>(shape.m), policy.stream),
            function);
      return;
    }
    const request wanted{.kind = kind,
                         .in = type_of<A>(),
                         .out = type_of<C>(),
                         .m = shape.m,
                         .n = shape.n,
                         .k = shape.k,
                         .strides = {detail::leading_dimension(a), detail::leading_dimension(b),
                                     detail::leading_dimension(c)},
                         .alignments = {aligned(a.data()), aligned(b.data()), aligned(c.data())}};
    description d(wanted, function);
    auto known = known_.find(wanted);
    if (known == known_.end()) known = known_.emplace(wanted, choose(function, wanted, d)).first;
    const float beta = options.into == product_into::add ? 1.0F : 0.0F;
    check(cublasLtMatmul(handle_.get(), &d.product, &options.alpha, b.data(), &d.first, a.data(),
                         &d.second, &beta, c.data(), &d.result, c.data(), &d.result, &known->second,
                         workspace_.data(), static_cast<std::size_t>(workspace_.size()),
                         policy.stream),
          function);
  }

  template <class T>
  static std::size_t bytes(index_t count) {
    return static_cast<std::size_t>(count) * sizeof(T);
  }

  std::unique_ptr<std::remove_pointer_t<cublasLtHandle_t>, close> handle_;
  vector_view<unsigned char, device_space> workspace_;
  std::map<request, cublasLtMatmulAlgo_t> known_;
};

}  // namespace dualsft
