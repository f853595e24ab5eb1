// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/optim_core.hpp>
#include <istream>
#include <ostream>
#include <span>
#include <string>

/// What every dense optimizer can do; adamw.hpp and sgd.hpp give it a rule.
namespace dualsft {

/// An optimizer that updates all d coordinates and keeps state for each.
///
/// A step is begun once and then handed theta piece by piece, in any order and any cut, because
/// models keep theta in blocks:
///
///     optimizer.begin_step(learning_rate);
///     for (each block) optimizer.update(exec::cpu{}, offset, theta_of_block, gradient_of_block);
///
/// or all at once with step(). Coordinates that no update() reaches keep theta and state.
///
/// Numerics: the rule's operations, in its documented order, each rounded once. Updates are
/// elementwise, so the result does not depend on the policy, the threads or the cut, to the last
/// bit (fast-math compiler options void this). A NaN gradient makes its own coordinate NaN and no
/// other. Members other than const ones must not run at the same time.
template <class Rule>
class dense_optimizer : public detail::optimizer_core<Rule> {
  using core = detail::optimizer_core<Rule>;

 public:
  using scalar_type = typename core::scalar_type;
  using options_type = typename core::options_type;

  /// \param size  d, >= 0
  /// \throws invalid_argument  if the size or an option is out of range
  explicit dense_optimizer(index_t size, const options_type& options = {})
      : core(size, size, options) {}

  /// Updates coordinates [offset, offset + n).
  /// \param theta     [n], overwritten; must not overlap the gradient
  /// \param gradient  [n]
  /// \throws invalid_argument  if the range leaves [0, d), the lengths differ, no step has begun,
  ///                           or the step has already updated as many coordinates as there are
  /// Cost: O(n), no heap use.
  template <ExecutionPolicy Policy>
  void update(const Policy& policy, index_t offset, std::span<scalar_type> theta,
              std::span<const scalar_type> gradient) {
    core::template check_policy<Policy>();
    core::cover(offset, theta.size(), gradient.size(), theta.size());
    constexpr index_t grain = index_t{1} << 16;
    detail::parallel_ranges(
        policy, static_cast<index_t>(theta.size()), grain,
        [&](int, const detail::index_range& range) {
          Rule::apply(policy, core::coefficients(), range.size(), theta.data() + range.begin,
                      core::state_at(offset + range.begin), gradient.data() + range.begin);
        });
  }

  /// One whole step over a flat theta [d].
  template <ExecutionPolicy Policy>
  void step(const Policy& policy, std::span<scalar_type> theta,
            std::span<const scalar_type> gradient, double learning_rate) {
    check_flat(theta.size(), gradient.size());
    core::begin_step(learning_rate);
    update(policy, 0, theta, gradient);
  }

  /// One whole step of a model, with its flat gradient [d].
  template <ExecutionPolicy Policy, TrainableModel Model>
  void step(const Policy& policy, Model& model, std::span<const scalar_type> gradient,
            double learning_rate) {
    check_flat(static_cast<std::size_t>(model.layout().size()), gradient.size());
    detail::step_model(*this, model, learning_rate,
                       [&](const parameter_block& block, std::span<scalar_type> theta) {
                         update(policy, block.offset, theta,
                                gradient.subspan(static_cast<std::size_t>(block.offset),
                                                 static_cast<std::size_t>(block.size())));
                       });
  }

  /// Bytes of state on the heap.
  index_t memory_bytes() const { return core::state_bytes(); }

  /// Writes the step counter and the state, portable between machines.
  /// \param source  the stream's name, for messages
  /// \throws input_error  if the stream fails
  void save(std::ostream& stream, const std::string& source = "optimizer state") const {
    core::save_state(stream, source, "dense", core::size(), 0);
  }

  /// Continues where save() was called, bit for bit.
  /// \throws input_error  naming the field that is foreign, damaged or of another optimizer (kind,
  ///                      scalar, size, options); the optimizer is then unchanged
  /// Memory: a second copy of the state until the stream has proved sound.
  void load(std::istream& stream, const std::string& source = "optimizer state") {
    core::load_state(stream, source, "dense", core::size(), 0);
  }

 private:
  void check_flat(std::size_t theta, std::size_t gradient) const {
    const auto d = static_cast<std::size_t>(core::size());
    expects(theta == d && gradient == d, "optimizer::step",
            "theta and gradient must have d elements", "theta", theta, "gradient", gradient, "d",
            d);
  }
};

}  // namespace dualsft
