// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/concepts.hpp>
#include <dualsft/execution.hpp>
#include <span>
#include <utility>
#include <vector>

/// Pass 1: sums over examples of gradients, and of their squares when asked for.
///
///     sum_j = sum_i g_ij          squares_j = sum_i g_ij^2
///
/// Examples go through the model in batches and are forgotten; the gradient matrix never exists.
/// State: d doubles (2 d with squares) for every thread that takes part; scratch: one block where
/// the model has gradient_blocks, else d scalars per thread for float models and none for double
/// ones.
///
/// Numerics: within a batch the model's own arithmetic; across batches double. Squares need every
/// example's own gradient, so they cost one backward pass per example.
/// Determinism: batches are cut into contiguous runs, one per thread, and the runs are added in
/// order: equal bits for an equal thread count.
/// Source: theory.md sections 1 (G is a sum, not a mean), 3 (Q), 5 (empirical Fisher).
namespace dualsft {

struct gradient_options {
  index_t batch_size = 32;
  bool squares = false;  ///< also accumulate sum_i g_ij^2 (joint order, empirical Fisher)
  /// [examples] or empty: overwritten with their losses, as a by-product where the model has
  /// HasGradientLosses, else by a forward pass of their own.
  std::span<double> losses = {};
};

struct gradient_sums {
  std::vector<double> sum;      ///< [d]
  std::vector<double> squares;  ///< [d], empty unless asked for
  index_t examples = 0;         ///< how many gradients were added
};

namespace detail {

/// Threads that may call the model at once.
template <class M, HostPolicy Policy>
int model_threads(const Policy& policy, index_t calls) {
  if (is_internally_threaded<M>) return calls > 0 ? 1 : 0;
  return static_cast<int>(std::min<index_t>(thread_count(policy), calls));
}

/// Threads that the sink of one call may use: those that the model leaves idle meanwhile.
template <class M, HostPolicy Policy>
int sink_threads(const Policy& policy) {
  return is_internally_threaded<M> ? thread_count(policy) : 1;
}

/// Calls body(part, first batch, last batch) over contiguous runs of ceil(n / batch_size) batches.
template <class M, HostPolicy Policy, class Body>
int parallel_batches(const Policy& policy, index_t n, index_t batch_size, Body&& body) {
  const index_t batches = (n + batch_size - 1) / batch_size;
  const int parts = model_threads<M>(policy, batches);
  parallel_parts(parts, [&](int part) { body(part, split_range(batches, parts, part)); });
  return parts;
}

inline example_span batch_of(example_span examples, index_t batch_size, index_t batch) {
  const auto first = static_cast<std::size_t>(batch * batch_size);
  return examples.subspan(first,
                          std::min(static_cast<std::size_t>(batch_size), examples.size() - first));
}

/// sink(offset, span) with the summed gradient of a batch, whole or block by block. `scratch` is
/// sized on first use and only where the model cannot deliver blocks.
/// \param losses  [batch] or empty, see gradient_options
/// \throws invalid_argument  if the model delivers a block that its layout does not have
template <GradientModel M, class Sink>
void visit_gradient(const M& model, example_span batch,
                    std::vector<typename M::scalar_type>& scratch, Sink&& sink,
                    std::span<double> losses = {}) {
  using Real = typename M::scalar_type;
  if (!losses.empty() && !HasGradientLosses<M>) model.losses(batch, losses);
  if constexpr (HasGradientBlocks<M>) {
    const parameter_layout& layout = model.layout();
    const auto deliver = [&](index_t block, std::span<const Real> gradient) {
      const parameter_block& where = layout.block(block);
      expects(static_cast<index_t>(gradient.size()) == where.size(), "gradient_blocks",
              "the model must give one value per coordinate of the block", "block", where.name,
              "values", gradient.size(), "size", where.size());
      sink(where.offset, gradient);
    };
    if constexpr (HasGradientLosses<M>) {
      if (!losses.empty()) {
        model.gradient_blocks(batch, deliver, losses);
        return;
      }
    }
    model.gradient_blocks(batch, deliver);
  } else {
    scratch.assign(static_cast<std::size_t>(model.layout().size()), Real{0});
    if constexpr (HasExampleGradient<M>) {
      if (batch.size() == 1)
        model.example_gradient(batch[0], scratch);
      else
        model.accumulate_gradient(batch, scratch);
    } else {
      model.accumulate_gradient(batch, scratch);
    }
    sink(index_t{0}, std::span<const Real>(scratch));
  }
}

}  // namespace detail

/// Adds to sums that are already there, so that a long pass can be cut where it suits: for lists cut
/// at multiples of the batch size, the cuts change nothing where the model is called from one thread
/// at a time, and only the order of the sum over threads elsewhere.
/// \param total  of earlier calls with the same options; empty before the first
/// \throws invalid_argument  if batch_size < 1, `losses` has another length than the list, or `total`
///                           is of another model or other options
template <HostPolicy Policy, GradientModel M>
void add_gradients(const Policy& policy, const M& model, example_span examples,
                   const gradient_options& options, gradient_sums& total) {
  using Real = typename M::scalar_type;
  expects(options.batch_size >= 1, "add_gradients", "batch_size must be positive", "batch_size",
          options.batch_size);
  expects(options.losses.empty() || options.losses.size() == examples.size(), "add_gradients",
          "losses must hold one number per example", "losses", options.losses.size(), "examples",
          examples.size());
  const auto d = static_cast<std::size_t>(model.layout().size());
  expects(total.sum.empty() || total.sum.size() == d, "add_gradients",
          "the sums must have one value per coordinate", "sums", total.sum.size(), "d", d);
  expects(total.sum.empty() || total.squares.size() == (options.squares ? d : 0), "add_gradients",
          "squares are summed from the first call on or never", "squares", total.squares.size());
  const index_t n = static_cast<index_t>(examples.size());
  const index_t batch_size = options.squares ? 1 : options.batch_size;

  const index_t batch_count = (n + batch_size - 1) / batch_size;
  std::vector<gradient_sums> partial(
      static_cast<std::size_t>(std::max(1, detail::model_threads<M>(policy, batch_count))));
  const index_t before = total.examples;
  partial.front() = std::move(total);
  detail::parallel_batches<M>(policy, n, batch_size, [&](int part, detail::index_range batches) {
    gradient_sums& mine = partial[static_cast<std::size_t>(part)];
    if (mine.sum.empty()) mine.sum.assign(d, 0.0);
    if (options.squares && mine.squares.empty()) mine.squares.assign(d, 0.0);
    std::vector<Real> scratch;
    for (index_t b = batches.begin; b < batches.end; ++b) {
      const example_span batch = detail::batch_of(examples, batch_size, b);
      const std::span<double> losses =
          options.losses.empty()
              ? options.losses
              : options.losses.subspan(static_cast<std::size_t>(b * batch_size), batch.size());
      if constexpr (std::same_as<Real, double> && !HasGradientBlocks<M>) {
        if (!options.squares) {  // the model adds into the state itself: no scratch at all
          if (!losses.empty()) model.losses(batch, losses);
          model.accumulate_gradient(batch, std::span<double>(mine.sum));
          continue;
        }
      }
      detail::visit_gradient(
          model, batch, scratch,
          [&](index_t offset, std::span<const Real> gradient) {
            double* sum = mine.sum.data() + offset;
            for (std::size_t j = 0; j < gradient.size(); ++j)
              sum[j] += static_cast<double>(gradient[j]);
            if (!options.squares) return;
            double* squares = mine.squares.data() + offset;
            for (std::size_t j = 0; j < gradient.size(); ++j)
              squares[j] += static_cast<double>(gradient[j]) * static_cast<double>(gradient[j]);
          },
          losses);
    }
  });

  total = std::move(partial.front());
  total.examples = before + n;
  if (total.sum.empty()) total.sum.assign(d, 0.0);
  if (options.squares && total.squares.empty()) total.squares.assign(d, 0.0);
  for (std::size_t part = 1; part < partial.size(); ++part) {
    for (std::size_t j = 0; j < partial[part].sum.size(); ++j) total.sum[j] += partial[part].sum[j];
    for (std::size_t j = 0; j < partial[part].squares.size(); ++j)
      total.squares[j] += partial[part].squares[j];
  }
}

/// \param examples  record numbers; a repeated one counts again
/// \return          sums over all of them; zeros for an empty list
/// \throws invalid_argument  if batch_size < 1 or `losses` has another length than the list
template <HostPolicy Policy, GradientModel M>
gradient_sums sum_gradients(const Policy& policy, const M& model, example_span examples,
                            const gradient_options& options = {}) {
  gradient_sums total;
  add_gradients(policy, model, examples, options, total);
  return total;
}

/// Any other policy: an error that says so. A back end of your own is an overload on your policy.
template <class Policy, GradientModel M>
requires(!HostPolicy<Policy>) gradient_sums
    sum_gradients(const Policy&, const M&, example_span, const gradient_options& = {}) {
  static_assert(
      detail::unsupported<Policy>,
      "dualsft::sum_gradients: no back end for this execution policy; exec::reference and "
      "exec::cpu run on the host, exec::cuda needs the .cuh header");
  return {};
}

/// Losses of the examples, in order, batch by batch over the policy's threads.
template <HostPolicy Policy, GradientModel M>
std::vector<double> losses_of(const Policy& policy, const M& model, example_span examples,
                              index_t batch_size = 32) {
  expects(batch_size >= 1, "losses_of", "batch_size must be positive", "batch_size", batch_size);
  std::vector<double> out(examples.size());
  detail::parallel_batches<M>(
      policy, static_cast<index_t>(examples.size()), batch_size,
      [&](int, detail::index_range batches) {
        for (index_t b = batches.begin; b < batches.end; ++b) {
          const example_span batch = detail::batch_of(examples, batch_size, b);
          model.losses(batch, std::span<double>(out).subspan(
                                  static_cast<std::size_t>(b * batch_size), batch.size()));
        }
      });
  return out;
}

/// Mean loss; 0 for an empty list. Summed in the order of the list, so free of the thread count.
template <HostPolicy Policy, GradientModel M>
double mean_loss(const Policy& policy, const M& model, example_span examples,
                 index_t batch_size = 32) {
  double total = 0;
  for (const double loss : losses_of(policy, model, examples, batch_size)) total += loss;
  return examples.empty() ? 0.0 : total / static_cast<double>(examples.size());
}

}  // namespace dualsft
