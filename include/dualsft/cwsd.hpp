// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/execution.hpp>
#include <dualsft/order.hpp>
#include <dualsft/views.hpp>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

/// Confidence-weighted self-distillation: how far a student's next-token distributions have moved
/// from its frozen teacher's, weighted by how sure the teacher was.
///
///     q_t = softmax(z_teacher_t / tau),   p_t = softmax(z_student_t / tau)
///     L(x) = w(x) tau^2 mean_t KL(q_t || p_t)          t over the T_x response tokens of x
///     w(x) = 1 - mean_t H(q_t) / log V                 entropy          (H in nats, V classes)
///          = exp(-mean_t H(q_t))                       exp_entropy
///          = mean_t max_c q_tc                         max_probability  (the authors' code)
///          = 1                                         uniform
///     dL(x) / dz_student_t = w(x) tau (p_t - q_t) / T_x
///
/// Shapes: logits and their gradients [rows, V], rows grouped by anchor. Ranges: tau > 0; KL >= 0;
/// w in [0, 1]. Cost: two exponentials per logit, one pass over each row that fits in cache.
/// Numerics: double inside a row, with the row's maximum subtracted; terms with q = 0 contribute 0.
/// Determinism: anchors are independent; sums over tokens run in order.
/// Source: DualSFT equations (12), (56)-(65); theory.md section 6. The student is theta_w: at
/// theta_0 the divergence and its gradient vanish.
namespace dualsft {

enum class confidence { entropy, exp_entropy, max_probability, uniform };

namespace detail {
inline constexpr std::array<std::pair<std::string_view, confidence>, 4> confidence_names{
    {{"entropy", confidence::entropy},
     {"exp-entropy", confidence::exp_entropy},
     {"max-prob", confidence::max_probability},
     {"uniform", confidence::uniform}}};
}  // namespace detail

constexpr std::string_view name_of(confidence kind) {
  return detail::to_name(detail::confidence_names, kind);
}
constexpr std::optional<confidence> confidence_from(std::string_view name) {
  return detail::from_name(detail::confidence_names, name);
}

struct cwsd_rule {
  double tau = 2;
  confidence weight = confidence::entropy;
};

struct cwsd_anchor {
  double loss = 0;        ///< w(x) tau^2 mean_t KL
  double weight = 0;      ///< w(x)
  double divergence = 0;  ///< mean_t KL(q_t || p_t)
};

/// A device's rows with this label are no response tokens.
inline constexpr int cwsd_ignored_label = -100;

namespace detail {

/// softmax(z / tau) of one row into `out`; returns log of the normaliser in units of z / tau.
template <class S>
double tempered_softmax(vector_view<const S> logits, double tau, std::span<double> out) {
  double top = -std::numeric_limits<double>::infinity();
  for (index_t c = 0; c < logits.size(); ++c) {
    const double z = static_cast<double>(logits[c]) / tau;
    out[static_cast<std::size_t>(c)] = z;
    top = std::max(top, z);
  }
  double sum = 0;
  for (double& z : out) {
    z = std::exp(z - top);
    sum += z;
  }
  for (double& z : out) z /= sum;
  return top + std::log(sum);
}

DUALSFT_HOST_DEVICE inline double confidence_of(const cwsd_rule& rule, double mean_entropy,
                                                double mean_top, index_t classes) {
  switch (rule.weight) {
    case confidence::entropy:
      return classes > 1 ? 1 - mean_entropy / std::log(static_cast<double>(classes)) : 1.0;
    case confidence::exp_entropy:
      return std::exp(-mean_entropy);
    case confidence::max_probability:
      return mean_top;
    case confidence::uniform:
      break;
  }
  return 1;
}

}  // namespace detail

/// One anchor: its loss, and the student's logit gradient times `scale`.
///
/// \param teacher   [T_x, V]
/// \param student   [T_x, V]
/// \param gradient  [T_x, V], overwritten with scale * dL(x)/dz_student; may alias student; may be
///                  empty (0 x 0) when only the loss is wanted
/// \throws invalid_argument  if shapes differ, T_x = 0, V = 0 or tau is not positive
template <class S>
cwsd_anchor cwsd(const cwsd_rule& rule, matrix_view<const S> teacher, matrix_view<const S> student,
                 matrix_view<S> gradient = {}, double scale = 1) {
  const index_t tokens = teacher.rows();
  const index_t classes = teacher.cols();
  expects(rule.tau > 0 && std::isfinite(rule.tau), "cwsd", "tau must be positive", "tau", rule.tau);
  expects(tokens > 0 && classes > 0, "cwsd", "an anchor needs tokens and classes", "tokens", tokens,
          "classes", classes);
  expects(student.rows() == tokens && student.cols() == classes, "cwsd",
          "teacher and student logits must have one shape", "student rows", student.rows(),
          "student cols", student.cols(), "tokens", tokens, "classes", classes);
  const bool wants_gradient = gradient.rows() > 0;
  expects(!wants_gradient || (gradient.rows() == tokens && gradient.cols() == classes), "cwsd",
          "the gradient must have the logits' shape", "rows", gradient.rows(), "cols",
          gradient.cols());

  std::vector<double> q(static_cast<std::size_t>(classes));
  std::vector<double> p(static_cast<std::size_t>(classes));
  const double count = static_cast<double>(tokens);
  double divergence = 0;
  double entropy = 0;
  double top = 0;
  for (index_t t = 0; t < tokens; ++t) {
    const double log_q = detail::tempered_softmax(teacher.row(t), rule.tau, q);
    const double log_p = detail::tempered_softmax(student.row(t), rule.tau, p);
    double largest = 0;
    for (index_t c = 0; c < classes; ++c) {
      const double qc = q[static_cast<std::size_t>(c)];
      largest = std::max(largest, qc);
      if (qc > 0) {
        const double log_qc = static_cast<double>(teacher(t, c)) / rule.tau - log_q;
        const double log_pc = static_cast<double>(student(t, c)) / rule.tau - log_p;
        divergence += qc * (log_qc - log_pc);
        entropy -= qc * log_qc;
      }
      if (wants_gradient)
        gradient(t, c) =
            static_cast<S>(scale * rule.tau / count * (p[static_cast<std::size_t>(c)] - qc));
    }
    top += largest;
  }
  cwsd_anchor anchor;
  anchor.divergence = divergence / count;
  anchor.weight = detail::confidence_of(rule, entropy / count, top / count, classes);
  anchor.loss = anchor.weight * rule.tau * rule.tau * anchor.divergence;
  if (wants_gradient)  // w(x) is known only after the last token
    for (index_t t = 0; t < tokens; ++t)
      for (index_t c = 0; c < classes; ++c)
        gradient(t, c) = static_cast<S>(static_cast<double>(gradient(t, c)) * anchor.weight);
  return anchor;
}

}  // namespace dualsft
