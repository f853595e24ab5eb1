// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <dualsft/detail/device_projection.hpp>
#include <dualsft/execution.cuh>
#include <dualsft/projection.hpp>
#include <dualsft/topk.cuh>
#include <limits>
#include <string>

/// projection.hpp, parameter_scores.hpp and topk.hpp on the device, in one pass: p takes v's place while
/// phi_P is formed, compared and forgotten.
namespace dualsft {

/// The vectors of a rule, all [d] and contiguous; empty where it does not need one.
struct device_rule_inputs {
  vector_view<const float, device_space> gradient =
      {};  ///< G; empty at first order: phi_P is not asked for
  vector_view<const float, device_space> curvature = {};         ///< D; > 0 for the AdamW step
  vector_view<const float, device_space> hessian_gradient = {};  ///< H G, or H (D^-1 G)
  vector_view<const float, device_space> squares = {};           ///< Q, joint order
};

/// Where results go besides p.
struct device_projection_outputs {
  vector_view<float, device_space> effective_curvature = {};  ///< D' [d], joint order
  vector_view<bfloat16, device_space> rounded = {};           ///< p in 16 bits [d], or empty
};

struct device_projection {
  double second_order_share = 0;  ///< see projection
  device_topk_result selection;
};

/// p of the rule and the K best of phi_P.
///
/// \param v          [d], becomes p
/// \param options    .k in [0, d]
/// \param workspace  for at least d scores
/// \throws invalid_argument  if eta is not positive, a needed vector is missing or has another length,
///                           a view is strided, k is outside [0, d], or D is not positive where the
///                           AdamW step divides by it
/// \throws numerical_error   if v, G, or D or H G where they are read, is not finite, naming the coordinate.
///                           In the last two cases v is already overwritten. NaN in Q makes its own score
///                           NaN, which ranks last.
/// \throws cuda_error
///
/// Cost: one pass: 4 bytes per coordinate and vector that the rule reads, 4 for p, 2 for its copy; and
/// what topk needs beyond its first pass. Waits for the stream.
/// Numerics: double per coordinate, p stored in float; scores are the bits of parameter_scores over the
/// stored p and the selection that of topk over them.
/// Determinism: equal inputs give equal bits on equal devices. Against the host, compilers may round a product
/// and a sum of p once or twice; its copy and the selection are those of the stored p, to the bit.
/// Source: as projection.hpp, parameter_scores.hpp, topk.hpp.
inline device_projection project_and_select(const exec::cuda& policy, const score_rule& rule,
                                            const device_rule_inputs& inputs,
                                            vector_view<float, device_space> v,
                                            const device_projection_outputs& outputs,
                                            const topk_options& options,
                                            topk_workspace& workspace) {
  constexpr const char* function = "project_and_select";
  detail::check_rule(function, rule);
  const index_t d = v.size();
  const bool joint = rule.order == score_order::joint;
  const auto check = [&](const auto& view, bool needed, const char* name) {
    expects(view.contiguous(), function, "device views must be contiguous", "vector", name,
            "stride", view.stride());
    expects(view.size() == d || (!needed && view.size() == 0), function,
            "each vector that the rule needs must have one value per coordinate", "vector", name,
            "size", view.size(), "d", d);
  };
  check(v, true, "v");
  check(inputs.gradient, true, "G");
  check(inputs.curvature, needs_curvature(rule), "D");
  check(inputs.hessian_gradient, needs_hessian_gradient(rule), "H G");
  check(inputs.squares, needs_squares(rule), "Q");
  check(outputs.effective_curvature, joint, "D'");
  check(outputs.rounded, false, "rounded");
  expects(0 <= options.k && options.k <= d, function, "k must satisfy 0 <= k <= d", "k", options.k,
          "d", d);

  detail::projection_facts found;
  bool formed = false;
  const detail::projecting_scores scores{
      .rule = rule,
      .by = options.by,
      .gradient = inputs.gradient.data(),
      .v = v.data(),
      .curvature = needs_curvature(rule) ? inputs.curvature.data() : nullptr,
      .hessian_gradient = needs_hessian_gradient(rule) ? inputs.hessian_gradient.data() : nullptr,
      .squares = joint ? inputs.squares.data() : nullptr,
      .effective_curvature = joint ? outputs.effective_curvature.data() : nullptr,
      .rounded = outputs.rounded.size() > 0 ? outputs.rounded.data() : nullptr,
      .count = d,
      .found = &found,
      .is_formed = &formed};
  device_projection out;
  out.selection = detail::search_on(policy, std::span<const detail::projecting_scores>(&scores, 1),
                                    options.k, workspace);
  if (found.not_finite < d)
    throw numerical_error(std::string(function) +
                          ": v, G, D or H G is NaN or infinite at coordinate " +
                          std::to_string(found.not_finite));
  expects(found.not_positive >= d, function, "the AdamW step needs D > 0 everywhere", "coordinate",
          found.not_positive);
  out.second_order_share = detail::share_of_second_order(
      0.5 * rule.eta * std::sqrt(found.c_squares), std::sqrt(found.v_squares));
  return out;
}

/// phi_P of what project_and_select left: scores for topk and write_mask. Reads what it is given when it is
/// evaluated.
///
/// \param p                    [d]
/// \param effective_curvature  D' [d], joint order; else empty
/// \param squares              Q [d], joint order; else empty
/// \throws invalid_argument    if a length differs, a view is strided, or joint order lacks one
inline auto device_parameter_scores(const score_rule& rule,
                                    vector_view<const float, device_space> gradient,
                                    vector_view<const float, device_space> p,
                                    vector_view<const float, device_space> effective_curvature = {},
                                    vector_view<const float, device_space> squares = {}) {
  const bool joint = rule.order == score_order::joint;
  for (const auto& view : {gradient, p, effective_curvature, squares})
    expects(view.contiguous(), "device_parameter_scores", "device views must be contiguous",
            "stride", view.stride());
  expects(gradient.size() == p.size() &&
              (!joint || (effective_curvature.size() == p.size() && squares.size() == p.size())),
          "device_parameter_scores", "each vector must have one value per coordinate", "G",
          gradient.size(), "p", p.size(), "D'", effective_curvature.size(), "Q", squares.size());
  return detail::parameter_scores_at<float, float>{rule,
                                                   gradient.data(),
                                                   p.data(),
                                                   joint ? effective_curvature.data() : nullptr,
                                                   joint ? squares.data() : nullptr,
                                                   p.size()};
}

}  // namespace dualsft
