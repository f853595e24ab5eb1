// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/config.hpp>

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

/// Square roots of an array, correctly rounded on every path.
///
/// std::sqrt may have to set errno, which keeps g++ and clang from vectorising a loop over it, and
/// -fno-math-errno is the user's to choose; Eigen's packet root may be an approximation. So the
/// instruction is named here. A processor without one of these sets takes the plain loop.
namespace dualsft::detail {

inline void square_roots(index_t n, const float* x, float* roots) {
  index_t i = 0;
#if defined(__AVX512F__)
  // The zeroing form: g++ 12 warns about the plain one's undefined operand.
  for (; i + 16 <= n; i += 16)
    _mm512_storeu_ps(roots + i, _mm512_maskz_sqrt_ps(0xffff, _mm512_loadu_ps(x + i)));
#elif defined(__AVX__)
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(roots + i, _mm256_sqrt_ps(_mm256_loadu_ps(x + i)));
#elif defined(__SSE2__)
  for (; i + 4 <= n; i += 4) _mm_storeu_ps(roots + i, _mm_sqrt_ps(_mm_loadu_ps(x + i)));
#endif
  for (; i < n; ++i) roots[i] = std::sqrt(x[i]);
}

inline void square_roots(index_t n, const double* x, double* roots) {
  index_t i = 0;
#if defined(__AVX512F__)
  for (; i + 8 <= n; i += 8)
    _mm512_storeu_pd(roots + i, _mm512_maskz_sqrt_pd(0xff, _mm512_loadu_pd(x + i)));
#elif defined(__AVX__)
  for (; i + 4 <= n; i += 4) _mm256_storeu_pd(roots + i, _mm256_sqrt_pd(_mm256_loadu_pd(x + i)));
#elif defined(__SSE2__)
  for (; i + 2 <= n; i += 2) _mm_storeu_pd(roots + i, _mm_sqrt_pd(_mm_loadu_pd(x + i)));
#endif
  for (; i < n; ++i) roots[i] = std::sqrt(x[i]);
}

}  // namespace dualsft::detail
