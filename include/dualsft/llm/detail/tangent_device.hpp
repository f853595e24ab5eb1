// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/llm/model_config.hpp>
#include <limits>

/// The arithmetic of tangents.cuh, an element at a time, so that it can be checked on the host too:
/// values and their derivatives R{.} along a direction. S is float on the device.
namespace dualsft::llm::detail {

template <class S>
struct value_tangent {
  S value, tangent;
};

/// exp; on the device the short form, whose error for x <= 0 is below 2^-23 of exp(0).
template <class S>
DUALSFT_HOST_DEVICE inline S quick_exp(S x) {
  return std::exp(x);
}
#if defined(__CUDA_ARCH__)
template <>
__device__ inline float quick_exp<float>(float x) {
  return __expf(x);
}
#endif

// ---- norms ------------------------------------------------------------------------------------

/// What a norm needs of its piece before it can form an element.
template <class S>
struct norm_sums {
  S squares = 0, products = 0;  ///< sum x^2, sum x R{x}

  DUALSFT_HOST_DEVICE void add(S x, S dx) {
    squares += x * x;
    products += x * dx;
  }
  DUALSFT_HOST_DEVICE void add(const norm_sums& other) {
    squares += other.squares;
    products += other.products;
  }
};

/// y = u scale, R{y} = (R{x} - u mean(u R{x})) inverse scale + u rate, with u = x inverse.
template <class S>
struct norm_factors {
  S inverse;  ///< 1 / sqrt(mean(x^2) + epsilon)
  S mean;     ///< mean(u R{x})

  DUALSFT_HOST_DEVICE norm_factors(const norm_sums<S>& sums, index_t width, S epsilon) {
    const S share = S(1) / static_cast<S>(width);
    inverse = S(1) / std::sqrt(sums.squares * share + epsilon);
    mean = sums.products * share * inverse;
  }

  DUALSFT_HOST_DEVICE value_tangent<S> operator()(S x, S dx, S scale, S rate) const {
    const S u = x * inverse;
    return {u * scale, (dx - u * mean) * inverse * scale + u * rate};
  }
};

// ---- the gated MLP's middle -------------------------------------------------------------------

/// f(g) u and f'(g) R{g} u + f(g) R{u}. Both activations are g s(z) with the logistic function s:
/// z = g, or 2 sqrt(2/pi) (g + 0.044715 g^3), as 1 + tanh(x) = 2 s(2 x).
template <class S>
DUALSFT_HOST_DEVICE inline value_tangent<S> gated(gate_activation kind, S g, S dg, S u, S du) {
  const S a = static_cast<S>(1.59576912160573071175978423973752);  // 2 sqrt(2 / pi)
  const S b = static_cast<S>(0.044715);
  const bool silu = kind == gate_activation::silu;
  const S z = silu ? g : a * (g + b * g * g * g);
  const S dz = silu ? S(1) : a * (S(1) + S(3) * b * g * g);
  // From exp(-|z|), neither s nor 1 - s cancels.
  const S e = std::exp(-std::fabs(z));
  const S larger = S(1) / (S(1) + e), smaller = e * larger;
  const bool positive = z >= 0;
  const S s = positive ? larger : smaller;
  const S f = g * s;
  const S slope = s + f * (positive ? smaller : larger) * dz;
  return {f * u, slope * dg * u + f * du};
}

// ---- rotary positions -------------------------------------------------------------------------

/// (a, b) turned by the angle whose cosine and sine are c and s.
template <class S>
struct turned {
  S a, b;
  DUALSFT_HOST_DEVICE turned(S from_a, S from_b, S c, S s)
      : a(from_a * c - from_b * s), b(from_b * c + from_a * s) {}
};

// ---- the loss ---------------------------------------------------------------------------------

/// sum exp(z - top) and sum exp(z - top) R{z}, with `top` at least every z so far.
template <class S>
struct softmax_sums {
  S top = std::numeric_limits<S>::lowest();
  S sum = 0, weighted = 0;

  /// Before elements above `top` are added.
  DUALSFT_HOST_DEVICE void raise(S to) {
    const S shrink = quick_exp(top - to);
    top = to;
    sum *= shrink;
    weighted *= shrink;
  }
  /// z <= top
  DUALSFT_HOST_DEVICE void add(S z, S dz) {
    const S e = quick_exp(z - top);
    sum += e;
    weighted += e * dz;
  }
};

/// A row of logits so far, in double where it is long.
struct nll_row {
  float top = std::numeric_limits<float>::lowest();
  float label = 0, label_rate = 0;  ///< z and R{z} at the label
  double sum = 0, weighted = 0;

  /// \param other  sums of further columns
  DUALSFT_HOST_DEVICE void add(float other_top, double other_sum, double other_weighted) {
    const float to = other_top > top ? other_top : top;
    const double mine = std::exp(static_cast<double>(top) - static_cast<double>(to));
    const double theirs = std::exp(static_cast<double>(other_top) - static_cast<double>(to));
    top = to;
    sum = sum * mine + other_sum * theirs;
    weighted = weighted * mine + other_weighted * theirs;
  }
  DUALSFT_HOST_DEVICE double nll() const {
    return std::log(sum) + (static_cast<double>(top) - static_cast<double>(label));
  }
  /// <softmax(z), R{z}> - R{z_label}
  DUALSFT_HOST_DEVICE double rate() const {
    return weighted / sum - static_cast<double>(label_rate);
  }
};

}  // namespace dualsft::llm::detail
