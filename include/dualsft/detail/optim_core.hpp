// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <dualsft/concepts.hpp>
#include <dualsft/config.hpp>
#include <dualsft/detail/optim_state_io.hpp>
#include <dualsft/error.hpp>
#include <dualsft/execution.hpp>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What the dense and the masked optimizers share: the step counter, the state arrays, the stream.
namespace dualsft::detail {

/// No update rule here keeps more than two arrays.
inline constexpr std::size_t most_state_arrays = 2;

template <class Real>
using state_pointers = std::array<Real*, most_state_arrays>;

/// The update of contiguous coordinates. A rule has
///
///     using scalar_type, options_type, coefficients;
///     static constexpr std::string_view name;                       // at most 8 characters
///     static void check(const options_type&);
///     static fields(const options_type&)  -> array of {name, double}: what a saved state must share
///     static state_names(const options_type&)  -> span of names, one per array of state
///     static coefficients at(const options_type&, index_t t, double learning_rate);
///     static void apply(exec::reference | exec::cpu, const coefficients&, index_t n, Real* theta,
///                       state_pointers<Real>, const Real* gradient);
///
/// and both apply() do the same roundings in the same order.
template <class Rule>
class optimizer_core {
 public:
  using scalar_type = typename Rule::scalar_type;
  using options_type = typename Rule::options_type;

  const options_type& options() const noexcept { return options_; }
  /// t, the number of steps begun.
  index_t steps() const noexcept { return t_; }
  /// d, the number of coordinates of theta.
  index_t size() const noexcept { return size_; }

  /// Starts step t + 1.
  /// \param learning_rate  finite, >= 0
  /// \throws invalid_argument  otherwise; the optimizer is then unchanged
  void begin_step(double learning_rate) {
    expects(std::isfinite(learning_rate) && learning_rate >= 0, Rule::name,
            "the learning rate must be finite and >= 0", "learning_rate", learning_rate);
    ++t_;
    covered_ = 0;
    coefficients_ = Rule::at(options_, t_, learning_rate);
  }

 protected:
  optimizer_core(index_t size, index_t selected, const options_type& options)
      : options_(options), size_(size), covered_(size) {
    expects(size >= 0, Rule::name, "the number of coordinates must not be negative", "d", size);
    Rule::check(options);
    for (std::size_t a = 0; a < Rule::state_names(options).size(); ++a)
      state_.emplace_back(static_cast<std::size_t>(selected), scalar_type{0});
  }

  /// Continues from a state that was made elsewhere.
  /// \param state  one array of K per array of state
  void adopt(index_t steps, std::vector<std::vector<scalar_type>> state) {
    expects(steps >= 0, Rule::name, "the number of steps must not be negative", "steps", steps);
    for (std::size_t a = 0; a < state_.size(); ++a)
      expects(state[a].size() == state_[a].size(), Rule::name,
              "the state must have one value per updated coordinate", "values", state[a].size(),
              "coordinates", state_[a].size());
    state_ = std::move(state);
    t_ = steps;
  }

  void check_range(index_t offset, std::size_t n) const {
    expects(0 <= offset && offset <= size_ && static_cast<index_t>(n) <= size_ - offset, Rule::name,
            "the updated range must lie in [0, d)", "offset", offset, "length", n, "d", size_);
  }

  /// Checks [offset, offset + n) and counts it as covered by this step.
  void cover(index_t offset, std::size_t n, std::size_t gradients, std::size_t expected_gradients) {
    const auto count = static_cast<index_t>(n);
    check_range(offset, n);
    expects(gradients == expected_gradients, Rule::name,
            "one gradient value per coordinate that is updated", "gradients", gradients, "expected",
            expected_gradients);
    expects(count <= size_ - covered_, Rule::name,
            "begin_step comes first, and a step updates each coordinate at most once", "updated",
            covered_, "length", n, "d", size_);
    covered_ += count;
  }

  state_pointers<scalar_type> state_at(index_t rank) {
    state_pointers<scalar_type> pointers{};
    for (std::size_t a = 0; a < state_.size(); ++a) pointers[a] = state_[a].data() + rank;
    return pointers;
  }

  index_t state_bytes() const {
    index_t bytes = 0;
    for (const auto& array : state_)
      bytes += static_cast<index_t>(array.capacity() * sizeof(scalar_type));
    return bytes;
  }

  void save_state(std::ostream& stream, const std::string& source, std::string_view placement,
                  index_t selected, std::uint64_t digest) const {
    state_writer out(stream, source);
    out.word(text_word("dualsft"));
    out.word(1);  // version
    out.word(text_word(Rule::name));
    out.word(text_word(placement));
    out.word(sizeof(scalar_type));
    out.word(static_cast<std::uint64_t>(size_));
    out.word(static_cast<std::uint64_t>(selected));
    out.word(digest);
    for (const auto& [name, value] : Rule::fields(options_)) out.number(value);
    out.word(static_cast<std::uint64_t>(t_));
    out.word(state_.size());
    for (const auto& array : state_) out.reals(std::span<const scalar_type>(array));
    out.finish();
  }

  /// Every size is this optimizer's own: the stream only has to agree with it.
  void load_state(std::istream& stream, const std::string& source, std::string_view placement,
                  index_t selected, std::uint64_t digest) {
    state_reader in(stream, source);
    in.expect_text("magic", "dualsft");
    in.expect("version", 1);
    in.expect_text("kind", Rule::name);
    in.expect_text("placement", placement);
    in.expect("scalar bytes", sizeof(scalar_type));
    in.expect("coordinates", static_cast<std::uint64_t>(size_));
    in.expect("selected", static_cast<std::uint64_t>(selected));
    in.expect("mask digest", digest);
    for (const auto& [name, value] : Rule::fields(options_)) in.expect_number(name, value);
    const std::uint64_t steps = in.word("steps");
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<index_t>::max());
    if (steps > most) in.fail("steps", std::to_string(steps), "at most " + std::to_string(most));
    in.expect("state arrays", state_.size());
    std::vector<std::vector<scalar_type>> state;
    const auto names = Rule::state_names(options_);
    for (std::size_t a = 0; a < state_.size(); ++a) {
      state.emplace_back(state_[a].size());
      in.reals(names[a], std::span<scalar_type>(state.back()));
    }
    in.finish();
    state_ = std::move(state);
    t_ = static_cast<index_t>(steps);
    covered_ = size_;  // nothing may be updated before the next begin_step
  }

  /// One rule's arrays by number, empty where the options need none.
  std::span<const scalar_type> state(std::size_t array) const {
    return array < state_.size() ? std::span<const scalar_type>(state_[array])
                                 : std::span<const scalar_type>();
  }

  const typename Rule::coefficients& coefficients() const { return coefficients_; }

  template <class Policy>
  static consteval void check_policy() {
    static_assert(HostPolicy<Policy>,
                  "dualsft::optimizer: no back end for this execution policy; exec::reference and "
                  "exec::cpu run on the host, exec::cuda needs the .cuh header");
  }

 private:
  options_type options_;
  index_t size_ = 0;
  index_t t_ = 0;
  index_t covered_ = 0;  // coordinates updated in this step
  typename Rule::coefficients coefficients_{};
  std::vector<std::vector<scalar_type>> state_;
};

/// begin_step, then `update(block, theta)` for every block of the model.
template <class Optimizer, TrainableModel Model, class Update>
void step_model(Optimizer& optimizer, Model& model, double learning_rate, Update&& update) {
  static_assert(std::same_as<typename Model::scalar_type, typename Optimizer::scalar_type>,
                "dualsft::optimizer: the model and the optimizer must share one scalar type");
  const parameter_layout& layout = model.layout();
  expects(layout.size() == optimizer.size(), "optimizer::step",
          "the model must have as many coordinates as the optimizer", "model", layout.size(),
          "optimizer", optimizer.size());
  optimizer.begin_step(learning_rate);
  for (index_t b = 0; b < layout.block_count(); ++b) update(layout.block(b), model.parameters(b));
}

}  // namespace dualsft::detail
