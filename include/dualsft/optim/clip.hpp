// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <dualsft/config.hpp>
#include <dualsft/detail/optim_norm.hpp>
#include <dualsft/error.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/optim/paged_index_set.hpp>
#include <span>
#include <string>

/// Gradient clipping by global norm, over all coordinates or over the selected ones.
namespace dualsft {

struct clip_options {
  double max_norm = 1;  ///< > 0; infinity measures without clipping
};

struct clip_result {
  double norm = 0;   ///< Euclidean norm before clipping
  double scale = 1;  ///< what the gradient was multiplied by, in (0, 1]
};

template <class S>
concept Selection = std::same_as<S, index_set> || std::same_as<S, paged_index_set>;

/// min(1, max_norm / (norm + 1e-6)), PyTorch's clip_grad_norm_.
inline double clip_scale(double norm, double max_norm) {
  return std::min(1.0, max_norm / (norm + 1e-6));
}

namespace detail {

template <class Policy>
consteval void check_clip_policy() {
  static_assert(HostPolicy<Policy>,
                "dualsft::clip_gradient_norm: no back end for this execution policy; "
                "exec::reference and exec::cpu run on the host, exec::cuda needs the .cuh header");
}

/// first_bad() finds the first non-finite element, -1 if there is none; asked for on failure only.
template <class FirstBad>
clip_result clip_by(double sum_of_squares, const clip_options& options, FirstBad&& first_bad) {
  const double norm = std::sqrt(sum_of_squares);
  if (!std::isfinite(norm)) [[unlikely]] {
    const index_t bad = first_bad();
    throw numerical_error(
        "clip_gradient_norm: the gradient's norm must be finite (norm = " + std::to_string(norm) +
        (bad < 0 ? ", every element is finite)"
                 : ", first non-finite element = " + std::to_string(bad) + ")"));
  }
  return {norm, clip_scale(norm, options.max_norm)};
}

template <class Real>
index_t first_non_finite(std::span<const Real> values) {
  const auto bad = std::ranges::find_if_not(values, [](Real x) { return std::isfinite(x); });
  return bad == values.end() ? -1 : bad - values.begin();
}

inline void check_clip(const clip_options& options, index_t elements, index_t expected) {
  expects(options.max_norm > 0, "clip_gradient_norm", "max_norm must be positive", "max_norm",
          options.max_norm);
  expects(elements == expected, "clip_gradient_norm",
          "the gradient must have one element per coordinate (or, compact, per selected one)",
          "elements", elements, "expected", expected);
}

}  // namespace detail

/// The sum of the squares of all elements, in double.
///
/// For gradients that come in pieces: add the pieces' sums in a fixed order, take the root, and
/// clip_scale() gives the factor.
/// Determinism: the same bits for every number of threads. exec::reference adds in index order.
template <ExecutionPolicy Policy, class Real>
double sum_of_squares(const Policy& policy, std::span<const Real> gradient) {
  detail::check_clip_policy<Policy>();
  if constexpr (std::same_as<Policy, exec::reference>) {
    double sum = 0;
    for (const Real x : gradient) sum += static_cast<double>(x) * static_cast<double>(x);
    return sum;
  } else {
    return detail::sum_over_chunks(policy, static_cast<index_t>(gradient.size()),
                                   [&](index_t begin, index_t end, detail::lane_sums& lanes) {
                                     detail::add_squares(gradient.data() + begin, begin, end,
                                                         lanes);
                                   });
  }
}

/// The sum of the squares of the selected elements, in double.
///
/// \param gradient  [d], d = the universe of `selected`; the others are not read
/// Determinism: the bits of the sum over the whole array with the others set to zero.
template <ExecutionPolicy Policy, class Real, Selection Selected>
double sum_of_squares(const Policy& policy, std::span<const Real> gradient,
                      const Selected& selected) {
  detail::check_clip_policy<Policy>();
  const auto d = static_cast<index_t>(gradient.size());
  expects(d == selected.universe(), "sum_of_squares",
          "the gradient must have one element per coordinate", "elements", d, "d",
          selected.universe());
  return detail::selected_squares(policy, selected, [gradient](index_t, index_t c) {
    return gradient[static_cast<std::size_t>(c)];
  });
}

/// Multiplies the gradient by min(1, max_norm / (norm + 1e-6)), where norm is its Euclidean norm.
///
/// \param gradient  [n], scaled in place
/// \return          the norm before, and the factor
/// \throws invalid_argument  if max_norm is not positive
/// \throws numerical_error   if the norm is NaN or infinite, naming the first such element; the
///                           gradient is then unchanged
/// Cost: one read of the gradient, and one more with a write if it is clipped.
/// Numerics: squares are added in double; the factor is rounded to Real once.
/// Determinism: the same bits for every number of threads.
template <ExecutionPolicy Policy, class Real>
clip_result clip_gradient_norm(const Policy& policy, std::span<Real> gradient,
                               const clip_options& options = {}) {
  const auto n = static_cast<index_t>(gradient.size());
  detail::check_clip(options, n, n);
  const std::span<const Real> read = gradient;
  const clip_result result = detail::clip_by(sum_of_squares(policy, read), options,
                                             [&] { return detail::first_non_finite(read); });
  if (result.scale < 1) {
    const auto scale = static_cast<Real>(result.scale);
    detail::parallel_ranges(policy, n, index_t{1} << 16, [&](int, const detail::index_range& r) {
      for (index_t i = r.begin; i < r.end; ++i) gradient[static_cast<std::size_t>(i)] *= scale;
    });
  }
  return result;
}

/// The same with the norm taken over the selected coordinates, and only these scaled.
///
/// Bit for bit what clipping the gradient times the mask gives at the selected coordinates; the
/// others are neither read nor written (a NaN there is not noticed).
///
/// \param gradient  [d], d = the universe of `selected`
template <ExecutionPolicy Policy, class Real, Selection Selected>
clip_result clip_gradient_norm(const Policy& policy, std::span<Real> gradient,
                               const Selected& selected, const clip_options& options = {}) {
  detail::check_clip_policy<Policy>();
  const auto d = static_cast<index_t>(gradient.size());
  detail::check_clip(options, d, selected.universe());
  Real* const values = gradient.data();
  const auto each_run = [&](index_t begin, index_t end, auto&& body) {
    detail::for_members(selected, begin, end, body);
  };
  const double sum = sum_of_squares(policy, std::span<const Real>(gradient), selected);
  const clip_result result = detail::clip_by(sum, options, [&] {
    index_t bad = -1;
    each_run(0, d, [&](index_t, index_t base, const auto& members) {
      for (const auto o : members) {
        const index_t c = base + static_cast<index_t>(o);
        if (bad < 0 && !std::isfinite(values[c])) bad = c;
      }
    });
    return bad;
  });
  if (result.scale < 1) {
    const auto scale = static_cast<Real>(result.scale);
    detail::parallel_ranges(
        policy, d, index_t{1} << 16, [&](int, const detail::index_range& range) {
          each_run(range.begin, range.end, [&](index_t, index_t base, const auto& members) {
            for (const auto o : members) values[base + static_cast<index_t>(o)] *= scale;
          });
        });
  }
  return result;
}

/// The same for a compact gradient [K], element k of which belongs to the k-th selected coordinate:
/// the same norm and the same values, bit for bit.
template <ExecutionPolicy Policy, class Real, Selection Selected>
clip_result clip_compact_gradient_norm(const Policy& policy, std::span<Real> gradient,
                                       const Selected& selected, const clip_options& options = {}) {
  detail::check_clip_policy<Policy>();
  const auto k = static_cast<index_t>(gradient.size());
  detail::check_clip(options, k, selected.size());
  const std::span<const Real> read = gradient;
  const double sum = detail::selected_squares(policy, selected, [read](index_t rank, index_t) {
    return read[static_cast<std::size_t>(rank)];
  });
  const clip_result result =
      detail::clip_by(sum, options, [&] { return detail::first_non_finite(read); });
  if (result.scale < 1) {
    const auto scale = static_cast<Real>(result.scale);
    detail::parallel_ranges(policy, k, index_t{1} << 16, [&](int, const detail::index_range& r) {
      for (index_t i = r.begin; i < r.end; ++i) gradient[static_cast<std::size_t>(i)] *= scale;
    });
  }
  return result;
}

}  // namespace dualsft
