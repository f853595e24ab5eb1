// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/detail/rounded.hpp>
#include <dualsft/projection.hpp>
#include <dualsft/topk_types.hpp>
#include <limits>
#include <type_traits>
#include <utility>

/// Scores as functions of the coordinate, for a device: pointers and numbers that a kernel takes by
/// value. Each is size() and operator(), and gives the bits of its counterpart on the host. Those that
/// read memory are in two halves, load(j) and score(j, what was loaded), so that a thread can have
/// several loads under way before it writes anything.
namespace dualsft::detail {

template <class Scores>
DUALSFT_HOST_DEVICE auto load_score(const Scores& scores, index_t j) {
  if constexpr (requires { scores.load(j); })
    return scores.load(j);
  else
    return scores(j);
}
/// What load_score of `Scores` gives.
template <class Scores>
using score_inputs = decltype(load_score(std::declval<const Scores&>(), index_t{}));

template <class Scores>
DUALSFT_HOST_DEVICE double score_of(const Scores& scores, index_t j,
                                    const score_inputs<Scores>& loaded) {
  if constexpr (requires { scores.load(j); })
    return scores.score(j, loaded);
  else
    return loaded;
}

/// Scores that lie in memory.
template <class T>
struct stored_scores_at {
  const T* scores;
  index_t count;

  index_t size() const { return count; }
  DUALSFT_HOST_DEVICE T load(index_t j) const { return scores[j]; }
  DUALSFT_HOST_DEVICE double score(index_t, T loaded) const { return static_cast<double>(loaded); }
  DUALSFT_HOST_DEVICE double operator()(index_t j) const { return score(j, load(j)); }
};

/// phi_P[j] of parameter_scores.hpp.
template <class Sum, class Real>
struct parameter_scores_at {
  score_rule rule;
  const Sum* gradient;
  const Real* p;
  const Real* curvature;  // joint order
  const Sum* squares;     // joint order
  index_t count;

  index_t size() const { return count; }

  struct inputs {
    Sum gradient;
    Real p;
    Real curvature;
    Sum squares;
  };
  DUALSFT_HOST_DEVICE inputs load(index_t j) const {
    const bool joint = rule.order == score_order::joint;
    return {gradient[j], p[j], joint ? curvature[j] : Real(0), joint ? squares[j] : Sum(0)};
  }
  DUALSFT_HOST_DEVICE double score(index_t, const inputs& at) const {
    const double eta = rule.eta, g = static_cast<double>(at.gradient);
    const double scaled = rounded_product(eta, g);
    if (rule.order != score_order::joint) return rounded_product(scaled, static_cast<double>(at.p));
    const double w = static_cast<double>(at.curvature);
    const double inner =
        rounded_sum(static_cast<double>(at.p), rounded_product(rounded_product(eta / 6, w), g));
    const double outer =
        rounded_product(rounded_product(eta * eta / 12, w), static_cast<double>(at.squares));
    return rounded_sum(rounded_product(scaled, inner), -outer);
  }
  DUALSFT_HOST_DEVICE double operator()(index_t j) const { return score(j, load(j)); }
};

/// The same as topk compares them.
template <class Scores>
struct compared_scores {
  Scores scores;
  topk_by by;

  index_t size() const { return scores.size(); }
  DUALSFT_HOST_DEVICE auto load(index_t j) const { return load_score(scores, j); }
  DUALSFT_HOST_DEVICE double score(index_t j, const score_inputs<Scores>& loaded) const {
    const double score = score_of(scores, j, loaded);
    return by == topk_by::magnitude ? std::fabs(score) : score;
  }
  DUALSFT_HOST_DEVICE double operator()(index_t j) const { return score(j, load(j)); }
};

/// Coordinates [begin, begin + count) of other scores.
template <class Scores>
struct part_of_scores {
  Scores scores;
  index_t begin;
  index_t count;

  index_t size() const { return count; }
  DUALSFT_HOST_DEVICE auto load(index_t j) const { return load_score(scores, begin + j); }
  DUALSFT_HOST_DEVICE double score(index_t j, const score_inputs<Scores>& loaded) const {
    return score_of(scores, begin + j, loaded);
  }
  DUALSFT_HOST_DEVICE double operator()(index_t j) const { return score(j, load(j)); }
};

/// Other scores, NaN where a bit is set: coordinate j's is bit j % 32 of word j / 32.
template <class Scores>
struct unmarked_scores {
  Scores scores;
  const std::uint32_t* marks;

  struct inputs {
    score_inputs<Scores> scored;
    std::uint32_t word;
  };
  index_t size() const { return scores.size(); }
  DUALSFT_HOST_DEVICE inputs load(index_t j) const {
    return {load_score(scores, j), marks[j / 32]};
  }
  DUALSFT_HOST_DEVICE double score(index_t j, const inputs& loaded) const {
    if ((loaded.word >> (j % 32) & 1U) != 0) return std::numeric_limits<double>::quiet_NaN();
    return score_of(scores, j, loaded.scored);
  }
  DUALSFT_HOST_DEVICE double operator()(index_t j) const { return score(j, load(j)); }
};

}  // namespace dualsft::detail
