// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <dualsft/concepts.hpp>
#include <dualsft/parameters.hpp>
#include <dualsft/random.hpp>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

/// Run-time checks of what concepts.hpp demands and a compiler cannot see, for any model:
///
///     dualsft::random_source rng(1);
///     const auto report = dualsft::testing::check_model(model, examples, rng);
///     if (!report.ok()) fail(report.text());
///
/// Everything is compared with something that does not share code with it: gradients with
/// differences of losses, Hessian products with differences of gradients, traces with plain loops.
/// Nothing is printed and no test framework is needed. The model's parameters are moved for
/// differences and put back bit for bit.
///
/// Errors are relative and never hide a wrong block behind a large one: vectors are compared block
/// by block,  err = max_b |a_b - b_b|_inf / (|b_b|_inf + share * |b|_inf).  Tolerances:
///
///     identities (two ways to add the same terms)   identity_slack   * eps(S)
///     five-point differences, step h = eps^(1/5)    difference_slack * eps(S)^(4/5)
///
/// the latter because truncation is O(h^4) and rounding O(eps / h), equal at that step. The slack
/// covers the lengths of the sums and the sizes of the fifth derivatives.
namespace dualsft::testing {

struct model_check_options {
  index_t directions = 4;           ///< random directions per check
  index_t most_coordinates = 1500;  ///< larger models: that many coordinates, evenly spread
  index_t most_hessian_size = 150;  ///< larger models: products along directions only
  double identity_slack = 100;      ///< see above
  double difference_slack = 1000;   ///< see above
  double block_share = 1e-3;        ///< what a block's error is forgiven of the whole's size
};

struct model_check {
  std::string name;
  double error = 0;
  double tolerance = 0;
  bool ok() const { return error <= tolerance; }  // NaN fails
};

struct model_report {
  std::vector<model_check> checks;

  bool ok() const {
    return !checks.empty() && std::ranges::all_of(checks, [](const auto& c) { return c.ok(); });
  }
  bool has(std::string_view name) const {
    return std::ranges::any_of(checks, [&](const auto& c) { return c.name == name; });
  }
  std::string text() const {
    std::string out;
    for (const model_check& c : checks)
      out += (c.ok() ? "ok    " : "WRONG ") + c.name + ": error " + number(c.error) +
             ", tolerance " + number(c.tolerance) + "\n";
    return out;
  }
  /// A check that runs several times keeps its worst error.
  void add(const std::string& name, double error, double tolerance) {
    if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
    for (model_check& c : checks)
      if (c.name == name) {
        c.error = std::max(c.error, error);
        return;
      }
    checks.push_back({name, error, tolerance});
  }

 private:
  static std::string number(double x) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.2e", x);
    return buffer;
  }
};

namespace detail {

using doubles = std::vector<double>;

template <class S>
doubles widen(const std::vector<S>& x) {
  return doubles(x.begin(), x.end());
}

inline double dot(const doubles& a, const doubles& b) {
  double sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) sum += a[j] * b[j];
  return sum;
}

inline double norm(const doubles& a) {
  return std::sqrt(dot(a, a));
}

/// |a - b| relative to `scale`; 0 if both are 0.
inline double relative(double a, double b, double scale) {
  if (a == b) return 0;
  return std::abs(a - b) / scale;
}

/// One model, one list of examples, and everything that the checks share.
template <class M>
class checker {
 public:
  using S = typename M::scalar_type;
  using reals = std::vector<S>;

  checker(M& model, example_span examples, random_source& rng, const model_check_options& options,
          model_report& report)
      : model_(model),
        examples_(examples.begin(), examples.end()),
        rng_(rng),
        options_(options),
        report_(report),
        d_(static_cast<std::size_t>(model.layout().size())) {
    const double eps = std::numeric_limits<S>::epsilon();
    exact_ = options.identity_slack * eps;
    difference_ = options.difference_slack * std::pow(eps, 0.8);
    step_ = std::pow(eps, 0.2);
  }

  // ---- the model's answers, in double ----------------------------------------------------------

  doubles losses(const std::vector<index_t>& batch) const {
    doubles out(batch.size(), nan());  // NaN: overwritten or noticed
    model_.losses(batch, out);
    return out;
  }
  double loss_sum() const {
    double sum = 0;
    for (const double l : losses(examples_)) sum += l;
    return sum;
  }
  doubles gradient(const std::vector<index_t>& batch) const {
    reals out(d_, S(0));
    model_.accumulate_gradient(batch, out);
    return widen(out);
  }
  doubles hessian_product(const std::vector<index_t>& batch, const reals& x) const {
    reals out(d_, S(0));
    model_.accumulate_hessian_product(batch, x, out);
    return widen(out);
  }

  static double nan() { return std::numeric_limits<double>::quiet_NaN(); }

  reals random_vector() {
    reals x(d_);
    for (S& xi : x) xi = static_cast<S>(rng_.normal());
    return x;
  }

  /// Unit length, half along `g` so that <g, p> is not lost among rounding errors.
  reals direction_near(const doubles& g) {
    const doubles u = widen(random_vector());
    const double g_norm = norm(g);
    const double u_norm = norm(u);
    reals p(d_);
    for (std::size_t j = 0; j < d_; ++j)
      p[j] = static_cast<S>((g_norm > 0 ? g[j] / g_norm : 0.0) + u[j] / u_norm);
    return p;
  }

  /// See the top of the file. Sizes that differ are an infinite error.
  double block_error(const doubles& a, const doubles& b) const {
    if (a.size() != d_ || b.size() != d_) return std::numeric_limits<double>::infinity();
    double whole = 0;
    for (const double x : b) whole = std::max(whole, std::abs(x));
    double worst = 0;
    for (const parameter_block& block : model_.layout().blocks()) {
      double difference = 0;
      double size = 0;
      for (index_t i = block.offset; i < block.offset + block.size(); ++i) {
        const auto j = static_cast<std::size_t>(i);
        if (std::isnan(a[j]) || std::isnan(b[j])) return std::numeric_limits<double>::infinity();
        difference = std::max(difference, std::abs(a[j] - b[j]));
        size = std::max(size, std::abs(b[j]));
      }
      if (difference > 0)
        worst = std::max(worst, difference / (size + options_.block_share * whole));
    }
    return worst;
  }

  // ---- differences -----------------------------------------------------------------------------

  /// d/dr f(theta + r p) at r = 0 by five points; f returns a vector of doubles.
  template <class F>
  doubles difference(parameter_guard<M>& theta, const reals& p, F&& f) const {
    constexpr double at[] = {-2, -1, 1, 2};
    constexpr double weight[] = {1.0 / 12, -8.0 / 12, 8.0 / 12, -1.0 / 12};
    doubles sum;
    for (int k = 0; k < 4; ++k) {
      theta.displace(p, at[k] * step_);
      const doubles value = f();
      if (sum.empty()) sum.assign(value.size(), 0.0);
      for (std::size_t i = 0; i < value.size(); ++i) sum[i] += weight[k] / step_ * value[i];
    }
    theta.restore();
    return sum;
  }

  // ---- the checks ------------------------------------------------------------------------------

  void parameters() {
    double error = 0;
    for (index_t b = 0; b < model_.layout().block_count(); ++b) {
      const auto size = static_cast<std::size_t>(model_.layout().block(b).size());
      if (model_.parameters(b).size() != size ||
          static_cast<const M&>(model_).parameters(b).size() != size ||
          static_cast<const M&>(model_).parameters(b).data() != model_.parameters(b).data())
        error = std::numeric_limits<double>::infinity();
    }
    report_.add("parameters span their blocks", error, 0);
  }

  void losses_of_batches() {
    const doubles together = losses(examples_);
    const double scale = 1e-300 + std::abs(*std::ranges::max_element(
                                      together, {}, [](double x) { return std::abs(x); }));
    for (std::size_t k = 0; k < examples_.size(); ++k)
      report_.add("a loss does not depend on its batch",
                  relative(losses({examples_[k]})[0], together[k], scale), exact_);
    std::vector<index_t> doubled(examples_.rbegin(), examples_.rend());
    doubled.insert(doubled.end(), examples_.begin(), examples_.end());
    const doubles again = losses(doubled);
    const std::size_t n = examples_.size();
    for (std::size_t k = 0; k < n; ++k) {
      report_.add("losses follow the order of the batch",
                  std::max(relative(again[n - 1 - k], together[k], scale),
                           relative(again[n + k], together[k], scale)),
                  exact_);
    }
    model_.losses(std::vector<index_t>{}, std::span<double>{});
  }

  void gradient_algebra() {
    const doubles g = gradient(examples_);
    doubles sum(d_, 0.0);
    for (const index_t i : examples_) {
      const doubles one = gradient({i});
      for (std::size_t j = 0; j < d_; ++j) sum[j] += one[j];
    }
    report_.add("gradients add over the batch", block_error(g, sum), exact_);

    std::vector<index_t> doubled = examples_;
    doubled.insert(doubled.end(), examples_.begin(), examples_.end());
    doubles twice = g;
    for (double& x : twice) x *= 2;
    report_.add("an example that occurs twice counts twice", block_error(gradient(doubled), twice),
                exact_);

    // The start is a multiple of the gradient's size: its rounding is part of `exact`.
    const double size = norm(g) / std::sqrt(static_cast<double>(std::max<std::size_t>(1, d_)));
    reals out = random_vector();
    for (S& x : out) x = static_cast<S>(size * static_cast<double>(x));
    doubles expected = widen(out);
    for (std::size_t j = 0; j < d_; ++j) expected[j] += g[j];
    model_.accumulate_gradient(examples_, out);
    report_.add("accumulate_gradient adds", block_error(widen(out), expected), exact_);

    const reals before = out;
    model_.accumulate_gradient(std::vector<index_t>{}, out);
    report_.add("an empty batch adds nothing", before == out ? 0 : 1, 0);
  }

  void gradient_by_directions() {
    parameter_guard<M> theta(model_);
    for (index_t k = 0; k < options_.directions; ++k) {
      std::vector<doubles> gradients;
      doubles whole(d_, 0.0);
      for (const index_t i : examples_) {
        gradients.push_back(gradient({i}));
        for (std::size_t j = 0; j < d_; ++j) whole[j] += gradients.back()[j];
      }
      const reals p = direction_near(whole);
      const doubles rates = difference(theta, p, [&] { return losses(examples_); });
      for (std::size_t i = 0; i < examples_.size(); ++i)
        report_.add("gradients are differences of losses along directions",
                    relative(rates[i], dot(gradients[i], widen(p)),
                             norm(gradients[i]) * norm(widen(p)) + 1e-300),
                    difference_);
    }
  }

  void gradient_by_coordinates() {
    parameter_guard<M> theta(model_);
    const doubles g = gradient(examples_);
    doubles measured = g;  // coordinates that are not visited count as right
    const std::size_t visited =
        std::min<std::size_t>(d_, static_cast<std::size_t>(options_.most_coordinates));
    for (std::size_t v = 0; v < visited; ++v) {
      const std::size_t j = v * d_ / visited;
      reals p(d_, S(0));
      p[j] = S(1);
      measured[j] = difference(theta, p, [&] { return doubles{loss_sum()}; })[0];
    }
    // Every coordinate has the whole loss's rounding error, so compare with the whole gradient.
    double largest = 0;
    for (const double x : g) largest = std::max(largest, std::abs(x));
    for (std::size_t j = 0; j < d_; ++j)
      report_.add("gradients are differences of losses along coordinates",
                  relative(measured[j], g[j], largest), difference_);
  }

  void example_gradients() {
    for (const index_t i : examples_) {
      reals out(d_, static_cast<S>(nan()));  // NaN: overwritten or noticed
      model_.example_gradient(i, out);
      report_.add("example_gradient is the gradient of a batch of one",
                  block_error(widen(out), gradient({i})), exact_);
    }
  }

  void gradient_blocks() {
    const auto count = static_cast<std::size_t>(model_.layout().block_count());
    const auto assemble = [&](const std::vector<index_t>& batch) {
      std::vector<int> times(count, 0);
      doubles out(d_, nan());
      model_.gradient_blocks(batch, [&](index_t number, std::span<const S> values) {
        const parameter_block& b = model_.layout().block(number);
        ++times[static_cast<std::size_t>(number)];
        if (static_cast<index_t>(values.size()) != b.size()) return;
        for (std::size_t j = 0; j < values.size(); ++j)
          out[static_cast<std::size_t>(b.offset) + j] = static_cast<double>(values[j]);
      });
      report_.add("gradient_blocks delivers every block once",
                  std::ranges::all_of(times, [](int t) { return t == 1; }) ? 0 : 1, 0);
      return out;
    };
    report_.add("gradient_blocks is the gradient",
                block_error(assemble(examples_), gradient(examples_)), exact_);
    report_.add("gradient_blocks of an empty batch is zero",
                block_error(assemble({}), doubles(d_, 0.0)), 0);
    if constexpr (HasGradientLosses<M>) {
      doubles beside(examples_.size(), nan()), alone(examples_.size());
      doubles sum(d_, 0.0);
      model_.gradient_blocks(
          examples_,
          [&](index_t number, std::span<const S> values) {
            const auto offset = static_cast<std::size_t>(model_.layout().block(number).offset);
            for (std::size_t j = 0; j < values.size(); ++j)
              sum[offset + j] += static_cast<double>(values[j]);
          },
          beside);
      model_.losses(examples_, alone);
      double worst = 0, largest = 0;
      for (std::size_t i = 0; i < alone.size(); ++i) {
        const double error = std::abs(beside[i] - alone[i]);
        worst = error <= worst ? worst : error;  // NaN counts
        largest = std::max(largest, std::abs(alone[i]));
      }
      report_.add("gradient_blocks' losses are the losses", worst / largest, exact_);
      report_.add("gradient_blocks with losses is the gradient",
                  block_error(sum, gradient(examples_)), exact_);
    }
  }

  /// The gradient of each position of the batch, by the definitions in traces.hpp.
  std::vector<doubles> assemble_traces(const std::vector<index_t>& batch) {
    std::vector<doubles> g(batch.size(), doubles(d_, 0.0));
    double structure = 0;
    const auto at = [&](std::span<const index_t> examples, index_t t, index_t block, index_t row,
                        index_t col) -> double& {
      const parameter_block& b = model_.layout().block(block);
      const auto position = static_cast<std::size_t>(examples[static_cast<std::size_t>(t)]);
      return g[position][static_cast<std::size_t>(b.offset + row * b.cols + col)];
    };
    const auto expect_that = [&](bool holds) {
      if (!holds) structure = 1;
      return holds;
    };
    const auto wide = [](S x) { return static_cast<double>(x); };
    model_.traces(batch, [&](const auto& trace) {
      using trace_type = std::remove_cvref_t<decltype(trace)>;
      const auto rows = static_cast<index_t>(trace.examples.size());
      for (const index_t k : trace.examples)
        if (!expect_that(0 <= k && k < static_cast<index_t>(batch.size()))) return;
      if constexpr (std::is_same_v<trace_type, affine_trace<S>>) {
        const parameter_block& w = model_.layout().block(trace.weight);
        const auto& a = trace.inputs;
        const auto& e = trace.output_gradients;
        if (!expect_that(a.rows() == rows && e.rows() == rows && a.cols() == w.cols &&
                         e.cols() == w.rows))
          return;
        for (index_t t = 0; t < rows; ++t)
          for (index_t o = 0; o < w.rows; ++o) {
            for (index_t i = 0; i < w.cols; ++i)
              at(trace.examples, t, trace.weight, o, i) += wide(e(t, o)) * wide(a(t, i));
            if (trace.bias >= 0) at(trace.examples, t, trace.bias, o, 0) += wide(e(t, o));
          }
      } else if constexpr (std::is_same_v<trace_type, embedding_trace<S>>) {
        const auto& e = trace.output_gradients;
        if (!expect_that(e.rows() == rows && static_cast<index_t>(trace.ids.size()) == rows &&
                         e.cols() == model_.layout().block(trace.weight).cols))
          return;
        for (index_t t = 0; t < rows; ++t)
          for (index_t c = 0; c < e.cols(); ++c)
            at(trace.examples, t, trace.weight, trace.ids[static_cast<std::size_t>(t)], c) +=
                wide(e(t, c));
      } else if constexpr (std::is_same_v<trace_type, scale_trace<S>>) {
        const auto& x = trace.inputs;
        const auto& e = trace.output_gradients;
        if (!expect_that(x.rows() == rows && e.rows() == rows && x.cols() == e.cols() &&
                         e.cols() == model_.layout().block(trace.weight).size()))
          return;
        for (index_t t = 0; t < rows; ++t)
          for (index_t c = 0; c < e.cols(); ++c)
            at(trace.examples, t, trace.weight, 0, c) += wide(e(t, c)) * wide(x(t, c));
      } else {
        static_assert(std::is_same_v<trace_type, dense_trace<S>>);
        const auto& rows_of = trace.gradients;
        if (!expect_that(rows_of.rows() == rows &&
                         rows_of.cols() == model_.layout().block(trace.block).size()))
          return;
        for (index_t t = 0; t < rows; ++t)
          for (index_t c = 0; c < rows_of.cols(); ++c)
            at(trace.examples, t, trace.block, 0, c) += wide(rows_of(t, c));
      }
    });
    report_.add("traces fit their blocks and their batch", structure, 0);
    return g;
  }

  void traces() {
    std::vector<index_t> batch = examples_;
    if (!batch.empty()) batch.push_back(batch.front());  // the same example at two positions
    const std::vector<doubles> assembled = assemble_traces(batch);
    for (std::size_t k = 0; k < batch.size(); ++k) {
      const doubles g = gradient({batch[k]});
      report_.add("traces multiply out to the example's gradient", block_error(assembled[k], g),
                  exact_);
    }
    for (index_t k = 0; k < options_.directions; ++k) {
      const doubles p = widen(random_vector());
      for (std::size_t i = 0; i < batch.size(); ++i) {
        const doubles g = gradient({batch[i]});
        report_.add("traces give <g_i, p>",
                    relative(dot(assembled[i], p), dot(g, p), norm(g) * norm(p) + 1e-300), exact_);
      }
    }
    model_.traces(std::vector<index_t>{}, [](const auto&) {});
  }

  void forward_derivatives() {
    for (index_t k = 0; k < options_.directions; ++k) {
      const reals p = random_vector();
      doubles out(examples_.size(), nan());  // NaN: overwritten or noticed
      model_.forward_derivatives(examples_, p, out);
      for (std::size_t i = 0; i < examples_.size(); ++i) {
        const doubles g = gradient({examples_[i]});
        const double scale = norm(g) * norm(widen(p)) + 1e-300;
        report_.add("forward derivatives are <g_i, p>", relative(out[i], dot(g, widen(p)), scale),
                    exact_);
      }
    }
  }

  void hessian_products() {
    const doubles nothing(d_, 0.0);
    for (index_t k = 0; k < options_.directions; ++k) {
      const reals x = random_vector();
      const reals y = random_vector();
      const doubles hx = hessian_product(examples_, x);
      const doubles hy = hessian_product(examples_, y);
      report_.add("the Hessian is symmetric",
                  relative(dot(widen(y), hx), dot(widen(x), hy),
                           norm(hx) * norm(widen(y)) + norm(hy) * norm(widen(x)) + 1e-300),
                  exact_);
      doubles sum(d_, 0.0);
      for (const index_t i : examples_) {
        const doubles one = hessian_product({i}, x);
        for (std::size_t j = 0; j < d_; ++j) sum[j] += one[j];
      }
      report_.add("Hessian products add over the batch", block_error(hx, sum), exact_);

      const double size = norm(hx) / std::sqrt(static_cast<double>(d_));
      reals out = random_vector();
      for (S& o : out) o = static_cast<S>(size * static_cast<double>(o));
      doubles expected = widen(out);
      for (std::size_t j = 0; j < d_; ++j) expected[j] += hx[j];
      model_.accumulate_hessian_product(examples_, x, out);
      report_.add("accumulate_hessian_product adds", block_error(widen(out), expected), exact_);
    }
  }

  void hessian_by_differences() {
    parameter_guard<M> theta(model_);
    for (index_t k = 0; k < options_.directions; ++k) {
      reals p = random_vector();
      const double length = norm(widen(p));
      for (S& x : p) x = static_cast<S>(static_cast<double>(x) / length);
      const doubles product = hessian_product(examples_, p);
      const doubles measured = difference(theta, p, [&] { return gradient(examples_); });
      report_.add("Hessian products are differences of gradients",
                  norm(minus(product, measured)) / (norm(measured) + 1e-300), difference_);
    }
    if (static_cast<index_t>(d_) > options_.most_hessian_size) return;

    // The whole matrix, column by column, against differences and against its own transpose.
    std::vector<doubles> columns;
    double largest = 0;
    for (std::size_t j = 0; j < d_; ++j) {
      reals basis(d_, S(0));
      basis[j] = S(1);
      columns.push_back(hessian_product(examples_, basis));
      for (const double h : columns.back()) largest = std::max(largest, std::abs(h));
    }
    double asymmetry = 0;
    double error = 0;
    for (std::size_t j = 0; j < d_; ++j) {
      reals basis(d_, S(0));
      basis[j] = S(1);
      const doubles measured = difference(theta, basis, [&] { return gradient(examples_); });
      for (std::size_t i = 0; i < d_; ++i) {
        asymmetry = std::max(asymmetry, relative(columns[j][i], columns[i][j], largest));
        error = std::max(error, relative(columns[j][i], measured[i], largest));
      }
    }
    report_.add("the Hessian, entry by entry, is symmetric", asymmetry, exact_);
    report_.add("the Hessian, entry by entry, is a difference of gradients", error, difference_);
  }

  static doubles minus(const doubles& a, const doubles& b) {
    doubles c(a.size());
    for (std::size_t j = 0; j < a.size(); ++j) c[j] = a[j] - b[j];
    return c;
  }

  void logits() {
    const index_t classes = model_.classes();
    index_t rows = 0;
    for (const index_t i : examples_) rows += model_.logit_rows(i);
    // Column-major with a gap between columns: strides must be honoured.
    const index_t stride = rows + 3;
    reals together(static_cast<std::size_t>(stride * classes), static_cast<S>(nan()));
    const matrix_view<S> all(together.data(), rows, classes, 1, stride);
    model_.logits(examples_, all);
    double largest = 1e-300;
    for (index_t t = 0; t < rows; ++t)
      for (index_t c = 0; c < classes; ++c)
        largest = std::max(largest, static_cast<double>(std::abs(all(t, c))));
    index_t first = 0;
    for (const index_t i : examples_) {
      const index_t own = model_.logit_rows(i);
      reals alone(static_cast<std::size_t>(own * classes));
      const matrix_view<S> one(alone.data(), own, classes);
      model_.logits(std::vector<index_t>{i}, one);
      for (index_t t = 0; t < own; ++t)
        for (index_t c = 0; c < classes; ++c)
          report_.add("logits do not depend on the batch",
                      relative(static_cast<double>(all(first + t, c)),
                               static_cast<double>(one(t, c)), largest),
                      exact_);
      first += own;
    }

    // out += J^T r is the gradient of <logits, r>, which differences can see.
    if constexpr (HasParameters<M>) {
      parameter_guard<M> theta(model_);
      reals r(static_cast<std::size_t>(rows * classes));
      for (S& x : r) x = static_cast<S>(rng_.normal());
      reals pulled(d_, S(0));
      model_.accumulate_logit_gradient(examples_, matrix_view<const S>(r.data(), rows, classes),
                                       pulled);
      for (index_t k = 0; k < options_.directions; ++k) {
        const reals p = direction_near(widen(pulled));
        const double rate = difference(theta, p, [&] {
          model_.logits(examples_, all);
          double sum = 0;
          for (index_t t = 0; t < rows; ++t)
            for (index_t c = 0; c < classes; ++c)
              sum += static_cast<double>(all(t, c)) *
                     static_cast<double>(r[static_cast<std::size_t>(t * classes + c)]);
          return doubles{sum};
        })[0];
        report_.add("logit gradients are pulled back",
                    relative(rate, dot(widen(pulled), widen(p)),
                             norm(widen(pulled)) * norm(widen(p)) + 1e-300),
                    difference_);
      }
    }
  }

  /// For losses that are mean cross-entropies: target(example, row) is the right class.
  template <class Target>
  void cross_entropy(Target&& target) {
    const index_t classes = model_.classes();
    const doubles expected = losses(examples_);
    double scale = 1e-300;
    for (const double l : expected) scale = std::max(scale, std::abs(l));
    for (std::size_t k = 0; k < examples_.size(); ++k) {
      const index_t i = examples_[k];
      const index_t rows = model_.logit_rows(i);
      reals z(static_cast<std::size_t>(rows * classes));
      model_.logits(std::vector<index_t>{i}, matrix_view<S>(z.data(), rows, classes));
      reals dz(z.size());
      double loss = 0;
      for (index_t t = 0; t < rows; ++t) {
        const S* row = z.data() + t * classes;
        double sum = 0;
        const double largest = static_cast<double>(*std::max_element(row, row + classes));
        for (index_t c = 0; c < classes; ++c)
          sum += std::exp(static_cast<double>(row[c]) - largest);
        const index_t right = target(i, t);
        loss +=
            (std::log(sum) + largest - static_cast<double>(row[right])) / static_cast<double>(rows);
        for (index_t c = 0; c < classes; ++c)
          dz[static_cast<std::size_t>(t * classes + c)] = static_cast<S>(
              (std::exp(static_cast<double>(row[c]) - largest) / sum - (c == right ? 1.0 : 0.0)) /
              static_cast<double>(rows));
      }
      report_.add("losses are cross-entropies of the logits", relative(loss, expected[k], scale),
                  exact_);
      reals out(d_, S(0));
      model_.accumulate_logit_gradient(std::vector<index_t>{i},
                                       matrix_view<const S>(dz.data(), rows, classes), out);
      report_.add("the cross-entropy's logit gradient gives the gradient",
                  block_error(widen(out), gradient({i})), exact_);
    }
  }

  void embeddings() {
    const index_t size = model_.embedding_size();
    const auto count = static_cast<index_t>(examples_.size());
    doubles together(static_cast<std::size_t>(count * size), nan());
    model_.embed(examples_, matrix_view<double>(together.data(), count, size));
    double largest = 1e-300;
    for (const double x : together) largest = std::max(largest, std::abs(x));
    for (index_t k = 0; k < count; ++k) {
      doubles alone(static_cast<std::size_t>(size), nan());
      model_.embed(std::vector<index_t>{examples_[static_cast<std::size_t>(k)]},
                   matrix_view<double>(alone.data(), 1, size));
      for (index_t c = 0; c < size; ++c)
        report_.add("an embedding does not depend on its batch",
                    relative(together[static_cast<std::size_t>(k * size + c)],
                             alone[static_cast<std::size_t>(c)], largest),
                    exact_);
    }
  }

 private:
  M& model_;
  std::vector<index_t> examples_;
  random_source& rng_;
  model_check_options options_;
  model_report& report_;
  std::size_t d_;
  double exact_ = 0;
  double difference_ = 0;
  double step_ = 0;
};

}  // namespace detail

/// Losses and gradients against each other, and what batches must do to them. Every model.
template <GradientModel M>
void check_gradients(M& model, example_span examples, random_source& rng,
                     const model_check_options& options, model_report& report) {
  detail::checker<M> check(model, examples, rng, options, report);
  check.losses_of_batches();
  check.gradient_algebra();
  if constexpr (HasParameters<M>) {
    check.parameters();
    check.gradient_by_directions();
    check.gradient_by_coordinates();
  }
  if constexpr (HasExampleGradient<M>) check.example_gradients();
  if constexpr (HasGradientBlocks<M>) check.gradient_blocks();
}

/// Traces, multiplied out by plain loops, against the gradients of the examples.
template <TraceModel M>
void check_traces(M& model, example_span examples, random_source& rng,
                  const model_check_options& options, model_report& report) {
  detail::checker<M>(model, examples, rng, options, report).traces();
}

/// Forward derivatives against <g_i, p>.
template <ForwardDerivativeModel M>
void check_forward_derivative(M& model, example_span examples, random_source& rng,
                              const model_check_options& options, model_report& report) {
  detail::checker<M>(model, examples, rng, options, report).forward_derivatives();
}

/// Hessian products: symmetric, additive, and (with parameters) differences of gradients.
template <GradientModel M>
requires HasHessianProduct<M>
void check_hessian_product(M& model, example_span examples, random_source& rng,
                           const model_check_options& options, model_report& report) {
  detail::checker<M> check(model, examples, rng, options, report);
  check.hessian_products();
  if constexpr (HasParameters<M>) check.hessian_by_differences();
}

/// Logits and the way back from them.
template <LogitModel M>
void check_logits(M& model, example_span examples, random_source& rng,
                  const model_check_options& options, model_report& report) {
  detail::checker<M>(model, examples, rng, options, report).logits();
}

/// For models whose loss is the mean cross-entropy of their logits.
/// \param target  target(example, row) is the right class of that row
template <LogitModel M, class Target>
void check_cross_entropy(M& model, example_span examples, Target&& target, random_source& rng,
                         const model_check_options& options, model_report& report) {
  detail::checker<M>(model, examples, rng, options, report).cross_entropy(target);
}

/// All checks that the model's abilities allow.
/// \param examples  at least one; a handful of different ones makes the checks sharp
template <GradientModel M>
model_report check_model(M& model, example_span examples, random_source& rng,
                         const model_check_options& options = {}) {
  expects(!examples.empty(), "check_model", "at least one example is needed");
  model_report report;
  check_gradients(model, examples, rng, options, report);
  if constexpr (HasTraces<M>) check_traces(model, examples, rng, options, report);
  if constexpr (HasForwardDerivative<M>)
    check_forward_derivative(model, examples, rng, options, report);
  if constexpr (HasHessianProduct<M>) check_hessian_product(model, examples, rng, options, report);
  if constexpr (HasLogits<M>) check_logits(model, examples, rng, options, report);
  if constexpr (HasEmbedding<M>)
    detail::checker<M>(model, examples, rng, options, report).embeddings();
  return report;
}

}  // namespace dualsft::testing
