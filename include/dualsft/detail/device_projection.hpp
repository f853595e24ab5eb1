// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/detail/device_scores.hpp>
#include <dualsft/float16.hpp>
#include <dualsft/projection.hpp>
#include <limits>

namespace dualsft::detail {

/// What project() finds out beside p.
struct projection_facts {
  double v_squares = 0;
  double c_squares = 0;
  index_t not_finite = std::numeric_limits<index_t>::max();    ///< the first, if any
  index_t not_positive = std::numeric_limits<index_t>::max();  ///< of D in the AdamW step, likewise

  DUALSFT_HOST_DEVICE void add(const projection_facts& other) {
    v_squares += other.v_squares;
    c_squares += other.c_squares;
    if (other.not_finite < not_finite) not_finite = other.not_finite;
    if (other.not_positive < not_positive) not_positive = other.not_positive;
  }
};

/// A rule whose order and step a kernel is compiled for: vectors that it does not need cost nothing.
template <score_order Order, step_geometry Step>
struct fixed_rule {
  double eta;
  DUALSFT_HOST_DEVICE constexpr operator score_rule() const { return {Order, Step, eta}; }
};

/// use(the rule, fixed)
template <class Use>
auto with_fixed_rule(const score_rule& rule, Use&& use) {
  const auto with_step = [&]<score_order Order>() {
    if (rule.step == step_geometry::adamw)
      return use(fixed_rule<Order, step_geometry::adamw>{rule.eta});
    return use(fixed_rule<Order, step_geometry::plain>{rule.eta});
  };
  switch (rule.order) {
    case score_order::first:
      return with_step.template operator()<score_order::first>();
    case score_order::full:
      return with_step.template operator()<score_order::full>();
    case score_order::joint:
      return with_step.template operator()<score_order::joint>();
    case score_order::diagonal:
      break;
  }
  return with_step.template operator()<score_order::diagonal>();
}

/// phi_P while p is formed: the first pass over all coordinates writes p over v, and a rounded copy
/// where one is wanted; later passes read p. Scores are those of the stored p.
template <class Rule>
struct projecting_scores_of {
  using facts = projection_facts;

  Rule rule;  // score_rule or a fixed one
  topk_by by = topk_by::value;
  const float* gradient = nullptr;
  float* v = nullptr;  ///< becomes p
  const float* curvature = nullptr;
  const float* hessian_gradient = nullptr;
  const float* squares = nullptr;        ///< joint order
  float* effective_curvature = nullptr;  ///< D', joint order
  bfloat16* rounded = nullptr;           ///< a copy of p, or null
  index_t count = 0;
  facts* found = nullptr;     ///< on the host
  bool* is_formed = nullptr;  ///< on the host

  index_t size() const { return count; }

  struct inputs {
    float v, gradient, curvature, hessian_gradient, squares;
  };
  DUALSFT_HOST_DEVICE inputs load(index_t j) const {
    return {v[j], gradient[j], needs_curvature(rule) ? curvature[j] : 1.0F,
            needs_hessian_gradient(rule) ? hessian_gradient[j] : 0.0F,
            needs_squares(rule) ? squares[j] : 0.0F};
  }

  /// Of coordinate j, without a trace: what a sample reads before the first pass.
  DUALSFT_HOST_DEVICE double score(index_t, const inputs& at) const {
    const projected out = project(at);
    return compared(at, static_cast<float>(out.p), static_cast<float>(out.curvature));
  }
  DUALSFT_HOST_DEVICE double operator()(index_t j) const { return score(j, load(j)); }

  /// Of coordinate j, for good.
  DUALSFT_HOST_DEVICE double form(index_t j, const inputs& at, facts& mine) const {
    // A product of 0 is 0 unless the other factor is not finite.
    const bool finite =
        0 * at.v + 0 * at.gradient + 0 * at.curvature + 0 * at.hessian_gradient == 0;
    if (!finite && j < mine.not_finite) mine.not_finite = j;
    if (kind().step == step_geometry::adamw && !(at.curvature > 0) && j < mine.not_positive)
      mine.not_positive = j;
    const projected out = project(at);
    const double vj = static_cast<double>(at.v);
    mine.v_squares += vj * vj;
    mine.c_squares += out.second_order * out.second_order;
    const auto p = static_cast<float>(out.p), w = static_cast<float>(out.curvature);
    v[j] = p;
    if (kind().order == score_order::joint) effective_curvature[j] = w;
    if (rounded != nullptr) rounded[j] = to_bfloat16(p);
    return compared(at, p, w);
  }

  /// Scores of the stored p.
  compared_scores<parameter_scores_at<float, float>> settled() const {
    return {{rule, gradient, v, effective_curvature, squares, count}, by};
  }
  bool is_settled() const { return *is_formed; }
  void settle(const facts& all) const {
    *found = all;
    *is_formed = true;
  }

  /// use(the same scores by a fixed rule): what the pass over all coordinates is worth compiling for.
  template <class Use>
  void with_fixed(Use&& use) const {
    with_fixed_rule(rule, [&]<class Fixed>(const Fixed& fixed) {
      use(projecting_scores_of<Fixed>{fixed, by, gradient, v, curvature, hessian_gradient, squares,
                                      effective_curvature, rounded, count, found, is_formed});
    });
  }

 private:
  DUALSFT_HOST_DEVICE constexpr score_rule kind() const { return rule; }
  DUALSFT_HOST_DEVICE projected project(const inputs& at) const {
    return project_coordinate(kind(), static_cast<double>(at.v), static_cast<double>(at.gradient),
                              static_cast<double>(at.curvature),
                              static_cast<double>(at.hessian_gradient));
  }
  DUALSFT_HOST_DEVICE double compared(const inputs& at, float p, float w) const {
    using columns = parameter_scores_at<float, float>;
    // Named: nvcc 13.0 makes a statement of a bare list in some translation units.
    const columns::inputs formed{at.gradient, p, w, at.squares};
    const double score = columns{kind(), nullptr, nullptr, nullptr, nullptr, 1}.score(0, formed);
    return by == topk_by::magnitude ? std::fabs(score) : score;
  }
};
using projecting_scores = projecting_scores_of<score_rule>;

}  // namespace dualsft::detail
