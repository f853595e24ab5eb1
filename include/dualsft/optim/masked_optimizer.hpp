// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <dualsft/detail/optim_core.hpp>
#include <dualsft/index_set.hpp>
#include <dualsft/optim/paged_index_set.hpp>
#include <istream>
#include <ostream>
#include <span>
#include <string>
#include <utility>

/// What every masked optimizer can do; masked_adamw.hpp and masked_sgd.hpp give it a rule.
namespace dualsft {

/// An optimizer that updates K selected coordinates of d and keeps state for these alone.
///
/// On the selected coordinates it does, bit for bit, what the dense optimizer of the same rule
/// does: gradient, state and decoupled weight decay act there. The others are never written, so
/// they keep their bits, NaN payloads and signs of zero included. It is driven like
/// dense_optimizer: begin_step, then update() for consecutive ranges of theta, or step().
///
/// The mask is kept as a paged_index_set (2 bytes per selected coordinate), so the index set it
/// was built from may go. State is indexed by rank, the number of selected coordinates below.
///
/// Cost of a step: one read of theta and gradient and one write of theta at the selected places
/// (every cache line that holds one), 2 + 2 * arrays * sizeof(Real) bytes of state traffic per
/// selected coordinate. Selected values are gathered into a small buffer, updated there by the
/// dense kernel, and put back; no heap use.
template <class Rule>
class masked_optimizer : public detail::optimizer_core<Rule> {
  using core = detail::optimizer_core<Rule>;

 public:
  using scalar_type = typename core::scalar_type;
  using options_type = typename core::options_type;

  /// \param selected  the K coordinates to update; its universe is d
  /// \throws invalid_argument  if an option is out of range
  explicit masked_optimizer(const index_set& selected, const options_type& options = {})
      : masked_optimizer(paged_index_set(selected), options) {}
  explicit masked_optimizer(paged_index_set selected, const options_type& options = {})
      : core(selected.universe(), selected.size(), options), selected_(std::move(selected)) {}

  const paged_index_set& selected() const noexcept { return selected_; }

  /// Updates the selected ones among coordinates [offset, offset + n).
  /// \param theta     [n], its selected elements are overwritten; must not overlap the gradient
  /// \param gradient  [n], read at the selected places only
  /// \throws invalid_argument  if the range leaves [0, d), the lengths differ, no step has begun,
  ///                           or the step has already updated as many coordinates as there are
  template <ExecutionPolicy Policy>
  void update(const Policy& policy, index_t offset, std::span<scalar_type> theta,
              std::span<const scalar_type> gradient) {
    core::template check_policy<Policy>();
    core::cover(offset, theta.size(), gradient.size(), theta.size());
    const scalar_type* values = gradient.data();
    run(policy, offset, theta, [values](index_t, index_t i) { return values[i]; });
  }

  /// The same from a compact gradient: element k belongs to the k-th selected coordinate at or
  /// behind `offset`.
  /// \param gradient  [selected().rank(offset + n) - selected().rank(offset)]
  template <ExecutionPolicy Policy>
  void update_compact(const Policy& policy, index_t offset, std::span<scalar_type> theta,
                      std::span<const scalar_type> gradient) {
    core::template check_policy<Policy>();
    core::check_range(offset, theta.size());
    const index_t first = selected_.rank(offset);
    const index_t last = selected_.rank(offset + static_cast<index_t>(theta.size()));
    core::cover(offset, theta.size(), gradient.size(), static_cast<std::size_t>(last - first));
    const scalar_type* values = gradient.data();
    run(policy, offset, theta,
        [values, first](index_t rank, index_t) { return values[rank - first]; });
  }

  /// One whole step over a flat theta [d] with a flat gradient [d].
  template <ExecutionPolicy Policy>
  void step(const Policy& policy, std::span<scalar_type> theta,
            std::span<const scalar_type> gradient, double learning_rate) {
    check_flat(theta.size(), gradient.size(), core::size());
    core::begin_step(learning_rate);
    update(policy, 0, theta, gradient);
  }

  /// One whole step of a model, with its flat gradient [d].
  template <ExecutionPolicy Policy, TrainableModel Model>
  void step(const Policy& policy, Model& model, std::span<const scalar_type> gradient,
            double learning_rate) {
    check_flat(static_cast<std::size_t>(model.layout().size()), gradient.size(), core::size());
    detail::step_model(*this, model, learning_rate,
                       [&](const parameter_block& block, std::span<scalar_type> theta) {
                         update(policy, block.offset, theta,
                                gradient.subspan(static_cast<std::size_t>(block.offset),
                                                 static_cast<std::size_t>(block.size())));
                       });
  }

  /// One whole step over a flat theta [d] with a compact gradient [K].
  template <ExecutionPolicy Policy>
  void step_compact(const Policy& policy, std::span<scalar_type> theta,
                    std::span<const scalar_type> gradient, double learning_rate) {
    check_flat(theta.size(), gradient.size(), selected_.size());
    core::begin_step(learning_rate);
    update_compact(policy, 0, theta, gradient);
  }

  /// One whole step of a model with a compact gradient [K].
  template <ExecutionPolicy Policy, TrainableModel Model>
  void step_compact(const Policy& policy, Model& model, std::span<const scalar_type> gradient,
                    double learning_rate) {
    check_flat(static_cast<std::size_t>(model.layout().size()), gradient.size(), selected_.size());
    detail::step_model(*this, model, learning_rate,
                       [&](const parameter_block& block, std::span<scalar_type> theta) {
                         const index_t first = selected_.rank(block.offset);
                         const index_t last = selected_.rank(block.offset + block.size());
                         update_compact(policy, block.offset, theta,
                                        gradient.subspan(static_cast<std::size_t>(first),
                                                         static_cast<std::size_t>(last - first)));
                       });
  }

  /// Bytes on the heap: state and mask.
  index_t memory_bytes() const { return core::state_bytes() + selected_.memory_bytes(); }

  /// Writes the step counter and the state, portable between machines. The mask is not written,
  /// only a digest of it.
  /// \param source  the stream's name, for messages
  /// \throws input_error  if the stream fails
  void save(std::ostream& stream, const std::string& source = "optimizer state") const {
    core::save_state(stream, source, "masked", selected_.size(), digest());
  }

  /// Continues where save() was called, bit for bit.
  /// \throws input_error  naming the field that is foreign, damaged or of another optimizer (kind,
  ///                      scalar, sizes, mask, options); the optimizer is then unchanged
  /// Memory: a second copy of the state until the stream has proved sound.
  void load(std::istream& stream, const std::string& source = "optimizer state") {
    core::load_state(stream, source, "masked", selected_.size(), digest());
  }

 private:
  /// Selected values per turn: theta and gradient fit in the first-level cache beside the state.
  static constexpr index_t turn = 1024;
  /// Selected values that are worth a thread.
  static constexpr index_t grain = 8 * turn;

  template <class Gradient>
  void run(const exec::reference& policy, index_t offset, std::span<scalar_type> theta,
           Gradient gradient_at) {
    const index_t first = selected_.rank(offset);
    const index_t last = selected_.rank(offset + static_cast<index_t>(theta.size()));
    selected_.for_each_run(first, last,
                           [&](index_t rank, index_t base, std::span<const std::uint16_t> offsets) {
                             for (const std::uint16_t o : offsets) {
                               const index_t i = base + o - offset;
                               const scalar_type g = gradient_at(rank, i);
                               Rule::apply(policy, core::coefficients(), 1, theta.data() + i,
                                           core::state_at(rank), &g);
                               ++rank;
                             }
                           });
  }

  template <class Gradient>
  void run(const exec::cpu& policy, index_t offset, std::span<scalar_type> theta,
           Gradient gradient_at) {
    const index_t first = selected_.rank(offset);
    const index_t last = selected_.rank(offset + static_cast<index_t>(theta.size()));
    scalar_type* const values = theta.data();
    detail::parallel_ranges(
        policy, last - first, grain, [&](int, const detail::index_range& range) {
          alignas(64) scalar_type t[turn];
          alignas(64) scalar_type g[turn];
          for (index_t k = first + range.begin; k < first + range.end; k += turn) {
            const index_t n = std::min(turn, first + range.end - k);
            selected_.for_each_run(
                k, k + n, [&](index_t rank, index_t base, std::span<const std::uint16_t> offsets) {
                  index_t at = rank - k;
                  for (const std::uint16_t o : offsets) {
                    const index_t i = base + o - offset;
                    t[at] = values[i];
                    g[at] = gradient_at(k + at, i);
                    ++at;
                  }
                });
            Rule::apply(policy, core::coefficients(), n, t, core::state_at(k), g);
            selected_.for_each_run(
                k, k + n, [&](index_t rank, index_t base, std::span<const std::uint16_t> offsets) {
                  index_t at = rank - k;
                  for (const std::uint16_t o : offsets) values[base + o - offset] = t[at++];
                });
          }
        });
  }

  std::uint64_t digest() const {
    detail::word_digest digest;
    selected_.for_each_run(0, selected_.size(),
                           [&](index_t, index_t base, std::span<const std::uint16_t> offsets) {
                             for (const std::uint16_t o : offsets)
                               digest.add(static_cast<std::uint64_t>(base + o));
                           });
    return digest.value();
  }

  void check_flat(std::size_t theta, std::size_t gradient, index_t expected) const {
    expects(
        static_cast<index_t>(theta) == core::size() && static_cast<index_t>(gradient) == expected,
        "optimizer::step", "theta must have d elements, and the gradient d or (compact) K", "theta",
        theta, "gradient", gradient, "d", core::size(), "K", selected_.size());
  }

  paged_index_set selected_;
};

}  // namespace dualsft
