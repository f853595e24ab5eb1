// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

/// The choices that name a scoring rule; theory.md section 2 and docs/theory.md give the formulas.
namespace dualsft {

/// How much of the expansion of J the interaction matrix keeps.
enum class score_order {
  first,     ///< M_ij = eta g_ij v_j
  diagonal,  ///< M_ij = eta g_ij (v_j - (eta/2) D_j G_j)
  full,      ///< M_ij = eta g_ij (v_j - (eta/2) (H G)_j)
  joint,     ///< Shapley values of the game whose players are examples and parameters together
};

/// The step whose effect on J is scored.
enum class step_geometry {
  plain,  ///< Delta = -eta z
  adamw,  ///< Delta = -eta D^-1 z, the step AdamW takes
};

namespace detail {

template <class Enum, std::size_t N>
constexpr std::optional<Enum> from_name(
    const std::array<std::pair<std::string_view, Enum>, N>& names, std::string_view name) {
  for (const auto& [text, value] : names)
    if (text == name) return value;
  return std::nullopt;
}

template <class Enum, std::size_t N>
constexpr std::string_view to_name(const std::array<std::pair<std::string_view, Enum>, N>& names,
                                   Enum wanted) {
  for (const auto& [text, value] : names)
    if (value == wanted) return text;
  return "unknown";
}

inline constexpr std::array<std::pair<std::string_view, score_order>, 4> score_order_names{
    {{"first", score_order::first},
     {"diagonal", score_order::diagonal},
     {"full", score_order::full},
     {"joint", score_order::joint}}};

inline constexpr std::array<std::pair<std::string_view, step_geometry>, 2> step_geometry_names{
    {{"sgd", step_geometry::plain}, {"adamw", step_geometry::adamw}}};

/// ||(eta/2) C|| / ||v|| of the two norms. Nothing (C = 0) is no share of anything, also where
/// v = 0; something against v = 0 is infinitely much; NaN stays NaN.
constexpr double share_of_second_order(double correction, double slope) {
  if (correction == 0) return 0;
  return slope == 0 ? correction * std::numeric_limits<double>::infinity() : correction / slope;
}

}  // namespace detail

/// The names that files and command lines use.
constexpr std::string_view name_of(score_order order) {
  return detail::to_name(detail::score_order_names, order);
}
constexpr std::string_view name_of(step_geometry step) {
  return detail::to_name(detail::step_geometry_names, step);
}
constexpr std::optional<score_order> score_order_from(std::string_view name) {
  return detail::from_name(detail::score_order_names, name);
}
constexpr std::optional<step_geometry> step_geometry_from(std::string_view name) {
  return detail::from_name(detail::step_geometry_names, name);
}

}  // namespace dualsft
