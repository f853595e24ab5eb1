// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/interaction.hpp>
#include <dualsft/random.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Shapley values of any game on sets: exactly by its definition, or by sampling permutations.
namespace dualsft {

/// A cooperative game: players() >= 0, and value(members) for members[k] != 0 = "k has joined".
///
/// value must be a pure function: equal sets have equal values. value(nobody) need not be zero.
template <class Game>
concept SetGame = requires(const Game& game, std::span<const std::uint8_t> members) {
  { game.players() } -> std::same_as<index_t>;
  { game.value(members) } -> std::convertible_to<double>;
};

/// The most players whose 2^n sets exact_shapley goes through.
inline constexpr index_t most_exact_players = 20;

struct shapley_result {
  std::vector<double> values;       ///< phi [n]
  double value_of_nobody = 0.0;     ///< U(empty set)
  double value_of_everybody = 0.0;  ///< U(all players)
  double efficiency_defect = 0.0;   ///< | sum phi - (U(all) - U(empty)) |; rounding only
};

struct sampled_shapley_result : shapley_result {
  std::vector<double> standard_errors;  ///< [n], of the mean over independent draws
  index_t permutations = 0;             ///< orders that were walked, reversed ones included
};

enum class permutation_draw {
  independent,  ///< every order is drawn afresh
  antithetic,   ///< every drawn order is walked forwards and backwards; exact for pair terms
};

struct sampled_shapley_options {
  index_t permutations = 1000;  ///< >= 2; even and >= 4 if antithetic
  permutation_draw draw = permutation_draw::antithetic;
};

namespace detail {

template <SetGame Game>
double finite_value(const Game& game, std::span<const std::uint8_t> members,
                    std::string_view function) {
  const double value = static_cast<double>(game.value(members));
  if (!std::isfinite(value)) {
    index_t size = 0;
    for (const std::uint8_t m : members) size += m != 0 ? 1 : 0;
    throw numerical_error(std::string(function) + ": the game's value is not finite for a set of " +
                          std::to_string(size) + " of " + std::to_string(members.size()) +
                          " players");
  }
  return value;
}

inline double efficiency_defect(const shapley_result& result) {
  compensated_sum sum;
  for (const double phi : result.values) sum.add(phi);
  sum.add(result.value_of_nobody);
  sum.add(-result.value_of_everybody);
  return std::abs(sum.value());
}

}  // namespace detail

/// The Shapley values of a game, by its definition.
///
///     phi_k = sum_{S without k}  |S|! (n - 1 - |S|)! / n!  ( U(S + k) - U(S) )
///
/// \param game  n = game.players() in [0, 20]
/// \throws invalid_argument  if n is outside [0, 20]
/// \throws numerical_error   if a value of the game is NaN or infinite
///
/// Cost: 2^n evaluations of the game, each set once; O(n 2^n) additions; 8 * 2^n bytes.
/// Numerics: per set size a compensated mean, then the mean over sizes: no factorial is formed.
/// Source: Shapley 1953; DualSFT (27).
template <SetGame Game>
shapley_result exact_shapley(const Game& game) {
  const index_t n = game.players();
  expects(0 <= n && n <= most_exact_players, "exact_shapley",
          "the number of players must lie in [0, 20]; use sampled_shapley", "players", n);
  const std::uint32_t sets = std::uint32_t{1} << n;
  std::vector<std::uint8_t> members(detail::at(n), 0);
  std::vector<double> values(sets);
  for (std::uint32_t set = 0; set < sets; ++set) {
    for (index_t k = 0; k < n; ++k)
      members[detail::at(k)] = static_cast<std::uint8_t>((set >> k) & 1U);
    values[set] = detail::finite_value(game, members, "exact_shapley");
  }

  shapley_result result;
  result.value_of_nobody = values.front();
  result.value_of_everybody = values.back();
  result.values.resize(detail::at(n));
  for (index_t k = 0; k < n; ++k) {
    // |S|! (n-1-|S|)! / n! = 1 / (n * number of sets of size |S| without k)
    std::vector<detail::compensated_sum> by_size(detail::at(n));
    std::vector<double> count(detail::at(n), 0.0);
    const std::uint32_t bit = std::uint32_t{1} << k;
    for (std::uint32_t set = 0; set < sets; ++set) {
      if ((set & bit) != 0) continue;
      const auto size = static_cast<std::size_t>(std::popcount(set));
      by_size[size].add(values[set | bit]);
      by_size[size].add(-values[set]);
      count[size] += 1.0;
    }
    detail::compensated_sum phi;
    for (std::size_t size = 0; size < by_size.size(); ++size)
      phi.add(by_size[size].value() / count[size]);
    result.values[detail::at(k)] = phi.value() / static_cast<double>(n);
  }
  result.efficiency_defect = detail::efficiency_defect(result);
  return result;
}

/// Shapley values estimated as the mean marginal contribution over random orders of arrival.
///
///     phi_k = E[ U(before k, and k) - U(before k) ]       over uniform permutations
///
/// \param game     any number of players
/// \param random   advanced by n - 1 draws or a few more per drawn permutation
/// \param options  .permutations orders to walk, .draw
/// \return         unbiased values with a standard error each: sample standard deviation of the
///                 draws (pairs of orders if antithetic) over the root of their number
/// \throws invalid_argument  if there are fewer than two draws, or an odd number to pair
/// \throws numerical_error   if a value of the game is NaN or infinite
///
/// Cost: permutations * n evaluations, O(n) memory. Deterministic for a given random source.
/// Numerics: contributions along an order telescope, so efficiency holds to rounding.
/// Source: DualSFT (28); antithetic pairs make every pair term exact, by Lemma 1.
template <SetGame Game>
sampled_shapley_result sampled_shapley(const Game& game, random_source& random,
                                       const sampled_shapley_options& options = {}) {
  constexpr std::string_view function = "sampled_shapley";
  const index_t n = game.players();
  const bool paired = options.draw == permutation_draw::antithetic;
  expects(n >= 0, function, "the number of players must not be negative", "players", n);
  expects(options.permutations >= (paired ? 4 : 2), function,
          "a standard error needs two draws: 2 permutations, or 4 if antithetic", "permutations",
          options.permutations);
  expects(!paired || options.permutations % 2 == 0, function,
          "antithetic permutations come in pairs", "permutations", options.permutations);

  const index_t draws = paired ? options.permutations / 2 : options.permutations;
  std::vector<index_t> order(detail::at(n));
  for (index_t k = 0; k < n; ++k) order[detail::at(k)] = k;
  std::vector<std::uint8_t> members(detail::at(n), 0);
  std::vector<double> sample(detail::at(n));
  std::vector<double> mean(detail::at(n), 0.0);
  std::vector<double> squares(detail::at(n), 0.0);  // Welford: sum of squared deviations

  sampled_shapley_result result;
  result.permutations = options.permutations;
  result.value_of_nobody = detail::finite_value(game, members, function);
  members.assign(members.size(), 1);
  result.value_of_everybody = detail::finite_value(game, members, function);

  const auto walk = [&](auto first, auto last, double weight) {
    members.assign(members.size(), 0);
    double before = result.value_of_nobody;
    for (; first != last; ++first) {
      members[detail::at(*first)] = 1;
      const double after = detail::finite_value(game, members, function);
      sample[detail::at(*first)] += weight * (after - before);
      before = after;
    }
  };
  for (index_t draw = 1; draw <= draws; ++draw) {
    random.shuffle(std::span<index_t>(order));
    sample.assign(sample.size(), 0.0);
    walk(order.begin(), order.end(), paired ? 0.5 : 1.0);
    if (paired) walk(order.rbegin(), order.rend(), 0.5);
    for (std::size_t k = 0; k < sample.size(); ++k) {
      const double deviation = sample[k] - mean[k];
      mean[k] += deviation / static_cast<double>(draw);
      squares[k] += deviation * (sample[k] - mean[k]);
    }
  }
  result.values = std::move(mean);
  result.standard_errors.resize(detail::at(n));
  const auto m = static_cast<double>(draws);
  for (std::size_t k = 0; k < squares.size(); ++k)
    result.standard_errors[k] = std::sqrt(squares[k] / (m * (m - 1.0)));
  result.efficiency_defect = detail::efficiency_defect(result);
  return result;
}

}  // namespace dualsft
