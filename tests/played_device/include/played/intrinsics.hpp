#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <played/block.hpp>
#include <played/types.hpp>
#include <stdexcept>
#include <type_traits>

// Functions of device code. Additions of floating-point numbers to shared places are left out on
// purpose: their order, and so their sum, would differ from run to run on a device.

inline void __syncthreads() {
  played::block::running().barrier();
}
inline void __syncwarp(unsigned mask = 0xffffffffU) {
  played::block::running().exchange(mask, 0);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {
  played::yield();
}

namespace played {

template <class T>
T picked(unsigned mask, const T& value, int source) {
  const auto all = block::running().exchange(mask, value);
  if (source < 0 || source > 31) return value;
  if ((all->lanes >> source & 1U) == 0)
    throw std::logic_error("a lane picks up what a lane outside the mask would have laid down");
  return all->template of<T>(source);
}

/// The first lane of the piece of `width` lanes that this lane is in.
inline int piece_begin(int width) {
  return block::running().lane() / width * width;
}

}  // namespace played

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  return played::picked(mask, value, played::piece_begin(width) + (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  const int source = played::block::running().lane() ^ lanes;
  return played::picked(mask, value, source < played::piece_begin(width) + width ? source : -1);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int source = played::block::running().lane() + static_cast<int>(by);
  return played::picked(mask, value, source < played::piece_begin(width) + width ? source : -1);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int source = played::block::running().lane() - static_cast<int>(by);
  return played::picked(mask, value, source >= played::piece_begin(width) ? source : -1);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const auto all = played::block::running().exchange(mask, predicate);
  unsigned out = 0;
  for (int lane = 0; lane < 32; ++lane)
    if ((all->lanes >> lane & 1U) != 0 && all->of<int>(lane) != 0) out |= 1U << lane;
  return out;
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate == 0) == 0;
}
template <class T>
requires std::is_integral_v<T> T __reduce_add_sync(unsigned mask, T value) {
  const auto all = played::block::running().exchange(mask, value);
  T out = 0;
  for (int lane = 0; lane < 32; ++lane)
    if ((all->lanes >> lane & 1U) != 0) out += all->template of<T>(lane);
  return out;
}
#define PLAYED_ATOMIC(name, expression)                                         \
  template <class T>                                                            \
  requires std::is_integral_v<T> T name(T* at, std::type_identity_t<T> value) { \
    const T before = *at;                                                       \
    *at = static_cast<T>(expression);                                           \
    return before;                                                              \
  }
PLAYED_ATOMIC(atomicAdd, before + value)
PLAYED_ATOMIC(atomicSub, before - value)
PLAYED_ATOMIC(atomicMin, value < before ? value : before)
PLAYED_ATOMIC(atomicMax, value > before ? value : before)
PLAYED_ATOMIC(atomicOr, before | value)
PLAYED_ATOMIC(atomicAnd, before& value)
PLAYED_ATOMIC(atomicXor, before ^ value)
PLAYED_ATOMIC(atomicExch, value)
#undef PLAYED_ATOMIC
template <class T>
requires std::is_integral_v<T> T atomicCAS(T* at, std::type_identity_t<T> expected,
                                           std::type_identity_t<T> value) {
  const T before = *at;
  if (before == expected) *at = value;
  return before;
}

namespace played {

/// A device refuses vectors at other addresses.
template <class T>
T* aligned(T* at) {
  if (reinterpret_cast<std::uintptr_t>(at) % alignof(T) != 0)
    throw std::logic_error("a misaligned access");
  return at;
}

}  // namespace played

template <class T>
T __ldg(const T* at) {
  return *played::aligned(at);
}
template <class T>
T __ldcs(const T* at) {
  return *played::aligned(at);
}
template <class T>
T __ldcg(const T* at) {
  return *played::aligned(at);
}
template <class T>
T __ldca(const T* at) {
  return *played::aligned(at);
}
template <class T>
T __ldcv(const T* at) {
  return *played::aligned(at);
}
template <class T>
T __ldlu(const T* at) {
  return *played::aligned(at);
}
template <class T>
void __stcs(T* at, std::type_identity_t<T> value) {
  *played::aligned(at) = value;
}
template <class T>
void __stcg(T* at, std::type_identity_t<T> value) {
  *played::aligned(at) = value;
}
template <class T>
void __stwb(T* at, std::type_identity_t<T> value) {
  *played::aligned(at) = value;
}
template <class T>
void __stwt(T* at, std::type_identity_t<T> value) {
  *played::aligned(at) = value;
}

inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __popcll(unsigned long long x) {
  return std::popcount(x);
}
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}
inline int __clzll(long long x) {
  return std::countl_zero(static_cast<unsigned long long>(x));
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}
inline long long __double_as_longlong(double x) {
  return std::bit_cast<long long>(x);
}
inline double __longlong_as_double(long long x) {
  return std::bit_cast<double>(x);
}

inline float __expf(float x) {
  return std::exp(x);
}
inline float __logf(float x) {
  return std::log(x);
}
inline float __log2f(float x) {
  return std::log2(x);
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __frcp_rn(float x) {
  return 1 / x;
}
inline float rsqrtf(float x) {
  return 1 / std::sqrt(x);
}
inline double rsqrt(double x) {
  return 1 / std::sqrt(x);
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float __saturatef(float x) {
  return x < 0 ? 0 : x > 1 ? 1 : x;
}
template <class T>
requires std::is_arithmetic_v<T> T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
requires std::is_arithmetic_v<T> T max(T a, T b) {
  return a < b ? b : a;
}
