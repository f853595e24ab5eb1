// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <dualsft/concepts.hpp>
#include <dualsft/cwsd.hpp>
#include <dualsft/gradients.hpp>
#include <dualsft/parameters.hpp>
#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

/// Preservation losses L_prior: what pulls theta back towards the pre-trained theta_0.
///
///     none      0
///     L2        1/2 ||theta - theta_0||^2                       gradient theta - theta_0
///     Fisher    1/2 sum_j F_j (theta_j - theta_0j)^2            gradient F .* (theta - theta_0)
///     CWSD      (1/Z) sum over anchors of L(x), see cwsd.hpp    Z = |A|, or sum of w(x)
///
/// A preservation term is a type with
///     double value(policy, const M&) const
///     void accumulate_gradient(policy, const M&, double weight, span<double> out) const
/// and, where it is cheap, accumulate_hessian_product(policy, const M&, double weight,
/// span<const Real> x, span<double> out) const. objective.hpp differentiates what lacks the last.
/// Source: DualSFT equations (12), (56)-(65), Table 10; theory.md section 6.
namespace dualsft {

template <class T, class M>
concept PreservationTerm = requires(const T& term, const exec::cpu& policy, const M& model,
                                    std::span<double> out) {
  { term.value(policy, model) } -> std::convertible_to<double>;
  { term.accumulate_gradient(policy, model, 1.0, out) } -> std::same_as<void>;
};

struct no_preservation {
  template <HostPolicy Policy, GradientModel M>
  double value(const Policy&, const M&) const {
    return 0;
  }
  template <HostPolicy Policy, GradientModel M>
  void accumulate_gradient(const Policy&, const M&, double, std::span<double>) const {}
  template <HostPolicy Policy, GradientModel M>
  void accumulate_hessian_product(const Policy&, const M&, double,
                                  std::span<const typename M::scalar_type>,
                                  std::span<double>) const {}
};

/// 1/2 sum_j F_j (theta_j - theta_0j)^2; an empty F means ones, which is the L2 term.
template <class Real>
class anchored_preservation {
 public:
  /// \param theta_0  [d]
  /// \param fisher   F [d], for example the empirical Fisher at theta_0; empty for L2
  explicit anchored_preservation(std::vector<Real> theta_0, std::vector<double> fisher = {})
      : theta_0_(std::move(theta_0)), fisher_(std::move(fisher)) {
    expects(fisher_.empty() || fisher_.size() == theta_0_.size(), "anchored_preservation",
            "F must have one value per coordinate", "F", fisher_.size(), "d", theta_0_.size());
  }

  template <HostPolicy Policy, TrainableModel M>
  double value(const Policy&, const M& model) const {
    double total = 0;
    visit(model,
          [&](std::size_t, double weight, double moved) { total += 0.5 * weight * moved * moved; });
    return total;
  }

  template <HostPolicy Policy, TrainableModel M>
  void accumulate_gradient(const Policy&, const M& model, double weight,
                           std::span<double> out) const {
    check_length("out", out.size());
    visit(model, [&](std::size_t j, double f, double moved) { out[j] += weight * f * moved; });
  }

  template <HostPolicy Policy, TrainableModel M>
  void accumulate_hessian_product(const Policy&, const M&, double weight, std::span<const Real> x,
                                  std::span<double> out) const {
    check_length("x", x.size());
    check_length("out", out.size());
    for (std::size_t j = 0; j < out.size(); ++j)
      out[j] += weight * (fisher_.empty() ? 1.0 : fisher_[j]) * static_cast<double>(x[j]);
  }

 private:
  void check_length(std::string_view name, std::size_t length) const {
    expects(length == theta_0_.size(), "anchored_preservation",
            "vectors must have one value per coordinate", name, length, "d", theta_0_.size());
  }

  template <class M, class Visit>
  void visit(const M& model, Visit&& visit) const {
    const parameter_layout& layout = model.layout();
    expects(static_cast<index_t>(theta_0_.size()) == layout.size(), "anchored_preservation",
            "theta_0 must have one value per coordinate", "theta_0", theta_0_.size(), "d",
            layout.size());
    for (index_t b = 0; b < layout.block_count(); ++b) {
      const auto offset = static_cast<std::size_t>(layout.block(b).offset);
      const auto theta = model.parameters(b);
      expects(static_cast<index_t>(theta.size()) == layout.block(b).size(), "anchored_preservation",
              "the model must show one parameter per coordinate of the block", "block",
              layout.block(b).name, "parameters", theta.size(), "size", layout.block(b).size());
      for (std::size_t k = 0; k < theta.size(); ++k)
        visit(offset + k, fisher_.empty() ? 1.0 : fisher_[offset + k],
              static_cast<double>(theta[k]) - static_cast<double>(theta_0_[offset + k]));
    }
  }

  std::vector<Real> theta_0_;
  std::vector<double> fisher_;
};

enum class cwsd_normalisation {
  anchors,     ///< divide by |A| (the paper)
  confidence,  ///< divide by the sum of w(x) (the authors' code)
};

struct cwsd_options {
  cwsd_rule rule = {};
  cwsd_normalisation normalisation = cwsd_normalisation::anchors;
  index_t batch_size = 16;
};

/// CWSD over a list of anchors. The teacher's logits come from a callable, so the teacher may be a
/// second model, a model whose parameters are swapped for the call, or a file.
/// \throws invalid_argument  from the constructor, if there is no anchor or no teacher
template <LogitModel M>
class cwsd_preservation {
 public:
  using scalar_type = typename M::scalar_type;
  /// Fills [rows, classes] with the logits at theta_0 of the examples' response tokens.
  using teacher_type = std::function<void(example_span, matrix_view<scalar_type>)>;

  cwsd_preservation(std::vector<index_t> anchors, teacher_type teacher,
                    const cwsd_options& options = {})
      : anchors_(std::move(anchors)), teacher_(std::move(teacher)), options_(options) {
    expects(!anchors_.empty(), "cwsd_preservation", "the list of anchors must not be empty");
    expects(options.batch_size >= 1, "cwsd_preservation", "batch_size must be positive",
            "batch_size", options.batch_size);
    expects(static_cast<bool>(teacher_), "cwsd_preservation", "a teacher must be given");
  }

  template <HostPolicy Policy>
  double value(const Policy& policy, const M& model) const {
    return visit(policy, model, 0, {});
  }

  template <HostPolicy Policy>
  void accumulate_gradient(const Policy& policy, const M& model, double weight,
                           std::span<double> out) const {
    visit(policy, model, weight, out);
  }

 private:
  /// The loss; adds weight * gradient to `out` unless it is empty. Batches run one after another:
  /// the teacher may be one that swaps parameters; a batch's anchors are spread over the threads.
  template <HostPolicy Policy>
  double visit(const Policy& policy, const M& model, double weight, std::span<double> out) const {
    expects(out.empty() || static_cast<index_t>(out.size()) == model.layout().size(),
            "cwsd_preservation", "out must have one value per coordinate", "out", out.size(), "d",
            model.layout().size());
    const bool by_confidence = options_.normalisation == cwsd_normalisation::confidence;
    const index_t classes = model.classes();
    double loss = 0;
    double confidence = 0;
    std::vector<scalar_type> teacher;
    std::vector<scalar_type> student;
    std::vector<scalar_type> scratch(out.size());
    // A divisor that is known only behind the last anchor needs a sum of its own.
    std::vector<double> own(by_confidence ? out.size() : 0, 0.0);
    const std::span<double> sum = by_confidence ? std::span<double>(own) : out;
    const double factor = by_confidence ? 1.0 : weight / static_cast<double>(anchors_.size());
    const index_t batches =
        (static_cast<index_t>(anchors_.size()) + options_.batch_size - 1) / options_.batch_size;
    for (index_t b = 0; b < batches; ++b) {
      const example_span batch = detail::batch_of(anchors_, options_.batch_size, b);
      std::vector<index_t> starts{0};
      for (const index_t x : batch) starts.push_back(starts.back() + model.logit_rows(x));
      const index_t rows = starts.back();
      teacher.resize(static_cast<std::size_t>(rows * classes));
      student.resize(static_cast<std::size_t>(rows * classes));
      const matrix_view<scalar_type> z_teacher(teacher.data(), rows, classes);
      const matrix_view<scalar_type> z_student(student.data(), rows, classes);
      teacher_(batch, z_teacher);
      model.logits(batch, z_student);
      std::vector<cwsd_anchor> found(batch.size());
      detail::parallel_ranges(
          policy, static_cast<index_t>(batch.size()), 1, [&](int, detail::index_range range) {
            for (index_t i = range.begin; i < range.end; ++i) {
              const auto k = static_cast<std::size_t>(i);
              const index_t tokens = starts[k + 1] - starts[k];
              // The gradient takes the place of the student's logits, which are not needed again.
              const matrix_view<scalar_type> piece = z_student.middle_rows(starts[k], tokens);
              found[k] = cwsd<scalar_type>(options_.rule, z_teacher.middle_rows(starts[k], tokens),
                                           piece, out.empty() ? matrix_view<scalar_type>() : piece);
            }
          });
      for (const cwsd_anchor& anchor : found) {
        loss += anchor.loss;
        confidence += anchor.weight;
      }
      if (out.empty()) continue;
      std::ranges::fill(scratch, scalar_type{0});
      model.accumulate_logit_gradient(batch, matrix_view<const scalar_type>(z_student),
                                      std::span<scalar_type>(scratch));
      for (std::size_t j = 0; j < sum.size(); ++j)
        sum[j] += factor * static_cast<double>(scratch[j]);
    }
    const double divisor = by_confidence ? confidence : static_cast<double>(anchors_.size());
    if (divisor == 0) return 0;
    for (std::size_t j = 0; j < own.size(); ++j) out[j] += weight / divisor * own[j];
    return loss / divisor;
  }

  std::vector<index_t> anchors_;
  teacher_type teacher_;
  cwsd_options options_;
};

/// A teacher that is another model of the same kind, held at theta_0; it must outlive the result.
template <LogitModel M>
typename cwsd_preservation<M>::teacher_type model_teacher(const M& teacher) {
  return [&teacher](example_span examples, matrix_view<typename M::scalar_type> out) {
    teacher.logits(examples, out);
  };
}

/// A teacher for models that cannot be copied: theta_0 is swapped in for each batch of anchors and
/// theta put back bit for bit, at the price of two copies of d scalars per batch. The model must
/// not be in use elsewhere meanwhile.
template <class M>
requires LogitModel<M> && TrainableModel<M>
typename cwsd_preservation<M>::teacher_type swapping_teacher(
    M& model, std::vector<typename M::scalar_type> theta_0) {
  return [&model, theta_0 = std::move(theta_0)](example_span examples,
                                                matrix_view<typename M::scalar_type> out) {
    parameter_guard<M> guard(model);
    assign_parameters(model, std::span<const typename M::scalar_type>(theta_0));
    std::as_const(model).logits(examples, out);
  };
}

/// A preservation term by reference, so that an objective can be passed around by value.
template <class Prior>
struct preservation_reference {
  const Prior* prior;

  template <class Policy, class M>
  double value(const Policy& policy, const M& model) const {
    return prior->value(policy, model);
  }
  template <class Policy, class M>
  void accumulate_gradient(const Policy& policy, const M& model, double weight,
                           std::span<double> out) const {
    prior->accumulate_gradient(policy, model, weight, out);
  }
  template <class Policy, class M, class Real, class P = Prior>
  requires requires(const P& p, const Policy& policy, const M& model, std::span<const Real> x,
                    std::span<double> out) {
    p.accumulate_hessian_product(policy, model, 1.0, x, out);
  }
  void accumulate_hessian_product(const Policy& policy, const M& model, double weight,
                                  std::span<const Real> x, std::span<double> out) const {
    prior->accumulate_hessian_product(policy, model, weight, x, out);
  }
};

}  // namespace dualsft
