// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <dualsft/concepts.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/random.hpp>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

/// Shared by the tests of the optimizers.
namespace dualsft::testing {

template <class Real>
using unsigned_of = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;

template <class Real>
unsigned_of<Real> bits(Real x) {
  return std::bit_cast<unsigned_of<Real>>(x);
}

/// The first index at which two arrays differ in a bit, -1 if none does.
template <class Real>
index_t first_difference(std::span<const Real> a, std::span<const Real> b) {
  if (a.size() != b.size()) return static_cast<index_t>(std::min(a.size(), b.size()));
  for (std::size_t i = 0; i < a.size(); ++i)
    if (bits(a[i]) != bits(b[i])) return static_cast<index_t>(i);
  return -1;
}

template <class Real>
index_t first_difference(const std::vector<Real>& a, const std::vector<Real>& b) {
  return first_difference(std::span<const Real>(a), std::span<const Real>(b));
}

/// Normal values over six decades, so that no rounding goes unnoticed.
template <class Real>
std::vector<Real> heavy_values(index_t n, random_source& random) {
  std::vector<Real> values(static_cast<std::size_t>(n));
  for (auto& x : values)
    x = static_cast<Real>(random.normal() * std::exp(4 * (2 * random.uniform() - 1)));
  return values;
}

/// Every coordinate with the given chance.
inline index_set random_mask(index_t d, double density, random_source& random) {
  std::vector<index_t> chosen;
  for (index_t i = 0; i < d; ++i)
    if (random.uniform() < density) chosen.push_back(i);
  return {std::move(chosen), d};
}

/// Cuts [0, d) into consecutive pieces of odd lengths, some of them empty.
inline std::vector<detail::index_range> odd_cuts(index_t d, random_source& random) {
  std::vector<detail::index_range> pieces{{0, 0}};
  for (index_t at = 0; at < d;) {
    const index_t length =
        std::min(d - at, random.below(3) == 0 ? random.below(7) : random.below(d / 3 + 2));
    pieces.push_back({at, at + length});
    at += length;
  }
  return pieces;
}

template <class Real>
std::span<Real> piece_of(std::vector<Real>& values, const detail::index_range& range) {
  return std::span<Real>(values).subspan(static_cast<std::size_t>(range.begin),
                                         static_cast<std::size_t>(range.size()));
}

template <class Real>
std::span<const Real> piece_of(const std::vector<Real>& values, const detail::index_range& range) {
  return std::span<const Real>(values).subspan(static_cast<std::size_t>(range.begin),
                                               static_cast<std::size_t>(range.size()));
}

/// A model that is nothing but parameters in separate blocks.
template <class Real>
class parameters_only {
 public:
  using scalar_type = Real;

  explicit parameters_only(std::span<const index_t> sizes) {
    for (const index_t size : sizes) {
      layout_.add("block" + std::to_string(blocks_.size()), size, 1);
      blocks_.emplace_back(static_cast<std::size_t>(size));
    }
  }
  const parameter_layout& layout() const { return layout_; }
  void losses(example_span, std::span<double>) const {}
  void accumulate_gradient(example_span, std::span<Real>) const {}
  std::span<Real> parameters(index_t b) { return blocks_[static_cast<std::size_t>(b)]; }
  std::span<const Real> parameters(index_t b) const { return blocks_[static_cast<std::size_t>(b)]; }

 private:
  parameter_layout layout_;
  std::vector<std::vector<Real>> blocks_;
};

static_assert(TrainableModel<parameters_only<float>>);

}  // namespace dualsft::testing
