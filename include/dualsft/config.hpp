// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace dualsft {

/// Every size, offset and record number. A model of 3e9 coordinates is the normal case, so 32 bits
/// are never enough.
using index_t = std::int64_t;

}  // namespace dualsft

/// Marks a function whose floating-point result is defined operation by operation: the compiler
/// must not fuse a product and a sum into one rounding there. Used where two code paths, or two
/// machines, have to agree bit for bit (the optimizers). GCC takes it on the function; clang takes
/// the pragma DUALSFT_UNFUSED_BODY as the first statement of the body.
#if defined(__clang__)
#define DUALSFT_UNFUSED
#define DUALSFT_UNFUSED_BODY _Pragma("clang fp contract(off)")
#elif defined(__GNUC__)
#define DUALSFT_UNFUSED __attribute__((noinline, optimize("fp-contract=off")))
#define DUALSFT_UNFUSED_BODY
#else
#define DUALSFT_UNFUSED
#define DUALSFT_UNFUSED_BODY
#endif

/// Marks what a device runs as well; nothing to a compiler that knows no device.
#if defined(__CUDACC__)
#define DUALSFT_HOST_DEVICE __host__ __device__
#else
#define DUALSFT_HOST_DEVICE
#endif
