// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <dualsft/concepts.hpp>
#include <dualsft/random.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace dualsft {

enum class quadratic_curvature {
  positive,    ///< A_i = B B^T / d with B standard normal: positive semi-definite
  indefinite,  ///< A_i = (B + B^T) / (2 sqrt(d)): eigenvalues of both signs
};

/// A grid of blocks, so that layers, module kinds and quotas have something to act on:
/// d = layers * modules * rows * cols.
struct quadratic_options {
  index_t examples = 8;
  index_t layers = 2;
  index_t modules = 2;  ///< blocks per layer, of kinds "module0", "module1", ...
  index_t rows = 2;     ///< of each block
  index_t cols = 3;
  quadratic_curvature curvature = quadratic_curvature::positive;
  std::uint64_t seed = 0;
};

/// The coefficients of N quadratic losses over one layout.
template <class S>
struct quadratic_data {
  parameter_layout layout;
  std::vector<S> hessians;  ///< [N, d, d] each symmetric
  std::vector<S> centres;   ///< [N, d]
};

/// A random quadratic per example, on which second-order statements are exact:
///
///     l_i(theta) = 1/2 (theta - c_i)^T A_i (theta - c_i),  g_i = A_i (theta - c_i),  hess l_i =
///     A_i
///
/// It has no logits and no embedding; its traces are the rows of g_i themselves (dense_trace).
///
/// Thread-safety: const members hold no state. Copies share A and c and own theta.
/// Cost: O(d^2) per example; memory O(N d^2), so keep d to some hundreds.
/// Numerics: losses and forward derivatives are summed in double, gradients in S.
template <class S>
class quadratic {
 public:
  using scalar_type = S;

  /// Centres standard normal, matrices as options.curvature says; theta as init(seed) leaves it.
  explicit quadratic(const quadratic_options& options = {})
      : quadratic(std::make_shared<const quadratic_data<S>>(random_data(options)), options.seed) {}

  /// Given coefficients; the matrices must be symmetric, which is not checked.
  explicit quadratic(std::shared_ptr<const quadratic_data<S>> data, std::uint64_t seed = 0)
      : data_(std::move(data)) {
    expects(data_ != nullptr, "quadratic", "the model needs data");
    d_ = data_->layout.size();
    expects(d_ > 0, "quadratic", "the layout must hold at least one coordinate", "d", d_);
    examples_ = static_cast<index_t>(data_->centres.size()) / d_;
    expects(static_cast<index_t>(data_->centres.size()) == examples_ * d_ &&
                static_cast<index_t>(data_->hessians.size()) == examples_ * d_ * d_,
            "quadratic", "centres must be [N, d] and hessians [N, d, d]", "centres",
            data_->centres.size(), "hessians", data_->hessians.size(), "d", d_);
    theta_.resize(static_cast<std::size_t>(d_));
    init(seed);
  }

  const parameter_layout& layout() const { return data_->layout; }
  index_t example_count() const { return examples_; }
  std::span<S> parameters(index_t block) {
    const parameter_block& b = layout().block(block);
    return {theta_.data() + b.offset, static_cast<std::size_t>(b.size())};
  }
  std::span<const S> parameters(index_t block) const {
    const parameter_block& b = layout().block(block);
    return {theta_.data() + b.offset, static_cast<std::size_t>(b.size())};
  }

  /// theta standard normal.
  void init(std::uint64_t seed) {
    random_source rng(seed, 1);
    for (S& x : theta_) x = static_cast<S>(rng.normal());
  }

  /// A_i [d, d] and c_i [d].
  matrix_view<const S> hessian(index_t example) const {
    expects_batch("quadratic::hessian", {&example, 1});
    return {data_->hessians.data() + example * d_ * d_, d_, d_};
  }
  vector_view<const S> centre(index_t example) const {
    expects_batch("quadratic::centre", {&example, 1});
    return {data_->centres.data() + example * d_, d_};
  }

  void losses(example_span examples, std::span<double> out) const {
    expects_batch("losses", examples);
    expects_size("losses", "out must hold one loss per example", out.size(), examples.size());
    vector g;
    for (std::size_t k = 0; k < examples.size(); ++k) {
      const vector offset = theta() - centre_of(examples[k]);
      g.noalias() = matrix_of(examples[k]) * offset;
      out[k] = 0.5 * offset.template cast<double>().dot(g.template cast<double>());
    }
  }

  void accumulate_gradient(example_span examples, std::span<S> out) const {
    expects_batch("accumulate_gradient", examples);
    expects_d("accumulate_gradient", out.size());
    vector_map sum(out.data(), d_);
    for (const index_t i : examples) sum += gradient_of(i);
  }

  void example_gradient(index_t example, std::span<S> out) const {
    expects_batch("example_gradient", {&example, 1});
    expects_d("example_gradient", out.size());
    vector_map(out.data(), d_) = gradient_of(example);
  }

  template <class Sink>
  void gradient_blocks(example_span examples, Sink&& sink) const {
    expects_batch("gradient_blocks", examples);
    std::vector<S> scratch;
    for (index_t number = 0; number < layout().block_count(); ++number) {
      const parameter_block& b = layout().block(number);
      scratch.assign(static_cast<std::size_t>(b.size()), S(0));
      vector_map sum(scratch.data(), b.size());
      for (const index_t i : examples)
        sum.noalias() +=
            matrix_of(i).middleRows(b.offset, b.size()) * (theta() - centre_of(i)).eval();
      sink(number, std::span<const S>(scratch));
    }
  }

  template <class Sink>
  void traces(example_span examples, Sink&& sink) const {
    expects_batch("traces", examples);
    if (examples.empty()) return;
    const auto count = static_cast<index_t>(examples.size());
    std::vector<S> gradients(static_cast<std::size_t>(count * d_));  // [B, d]
    std::vector<index_t> positions(examples.size());
    for (index_t k = 0; k < count; ++k) {
      positions[static_cast<std::size_t>(k)] = k;
      vector_map(gradients.data() + k * d_, d_) =
          gradient_of(examples[static_cast<std::size_t>(k)]);
    }
    for (index_t number = 0; number < layout().block_count(); ++number) {
      const parameter_block& b = layout().block(number);
      sink(dense_trace<S>{number,
                          matrix_view<const S>(gradients.data() + b.offset, count, b.size(), d_, 1),
                          positions});
    }
  }

  void forward_derivatives(example_span examples, std::span<const S> direction,
                           std::span<double> out) const {
    expects_batch("forward_derivatives", examples);
    expects_d("forward_derivatives", direction.size());
    expects_size("forward_derivatives", "out must hold one derivative per example", out.size(),
                 examples.size());
    // d l_i = <A_i p, theta - c_i>, the other association than <g_i, p>
    vector product;
    for (std::size_t k = 0; k < examples.size(); ++k) {
      product.noalias() = matrix_of(examples[k]) * Eigen::Map<const vector>(direction.data(), d_);
      out[k] = product.template cast<double>().dot(
          (theta() - centre_of(examples[k])).template cast<double>());
    }
  }

  void accumulate_hessian_product(example_span examples, std::span<const S> x,
                                  std::span<S> out) const {
    expects_batch("accumulate_hessian_product", examples);
    expects_d("accumulate_hessian_product", x.size());
    expects_d("accumulate_hessian_product", out.size());
    vector_map sum(out.data(), d_);
    for (const index_t i : examples)
      sum.noalias() += matrix_of(i) * Eigen::Map<const vector>(x.data(), d_);
  }

 private:
  using vector = Eigen::Matrix<S, Eigen::Dynamic, 1>;
  using vector_map = Eigen::Map<vector>;
  using matrix_map =
      Eigen::Map<const Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;

  static quadratic_data<S> random_data(const quadratic_options& options) {
    expects(options.examples >= 0 && options.layers > 0 && options.modules > 0 &&
                options.rows > 0 && options.cols > 0,
            "quadratic", "examples must be >= 0, layers, modules, rows and cols positive",
            "examples", options.examples, "layers", options.layers, "modules", options.modules,
            "rows", options.rows, "cols", options.cols);
    quadratic_data<S> data;
    for (index_t l = 0; l < options.layers; ++l)
      for (index_t m = 0; m < options.modules; ++m) {
        const std::string module = "module" + std::to_string(m);
        data.layout.add("layers." + std::to_string(l) + "." + module, options.rows, options.cols,
                        static_cast<int>(l), module);
      }
    const index_t d = data.layout.size();
    random_source rng(options.seed);
    Eigen::MatrixXd b(d, d);
    Eigen::MatrixXd a(d, d);
    data.hessians.reserve(static_cast<std::size_t>(options.examples * d * d));
    for (index_t i = 0; i < options.examples; ++i) {
      for (index_t c = 0; c < d; ++c)
        for (index_t r = 0; r < d; ++r) b(r, c) = rng.normal();
      const double scale = 1.0 / static_cast<double>(d);
      if (options.curvature == quadratic_curvature::positive)
        a = scale * b * b.transpose();
      else
        a = 0.5 * std::sqrt(scale) * (b + b.transpose());
      // From one triangle, so that rounding cannot break the symmetry.
      for (index_t r = 0; r < d; ++r)
        for (index_t c = 0; c < d; ++c)
          data.hessians.push_back(static_cast<S>(a(std::max(r, c), std::min(r, c))));
      for (index_t j = 0; j < d; ++j) data.centres.push_back(static_cast<S>(rng.normal()));
    }
    return data;
  }

  Eigen::Map<const vector> theta() const { return {theta_.data(), d_}; }
  Eigen::Map<const vector> centre_of(index_t i) const {
    return {data_->centres.data() + i * d_, d_};
  }
  matrix_map matrix_of(index_t i) const { return {data_->hessians.data() + i * d_ * d_, d_, d_}; }
  vector gradient_of(index_t i) const { return matrix_of(i) * (theta() - centre_of(i)).eval(); }

  void expects_batch(const char* function, example_span examples) const {
    for (const index_t i : examples)
      expects(0 <= i && i < examples_, function, "an example must lie in [0, examples)", "example",
              i, "examples", examples_);
  }
  void expects_d(const char* function, std::size_t size) const {
    expects_size(function, "a vector over the parameters must hold d elements", size,
                 theta_.size());
  }
  static void expects_size(const char* function, const char* rule, std::size_t size,
                           std::size_t wanted) {
    expects(size == wanted, function, rule, "size", size, "expected", wanted);
  }

  std::shared_ptr<const quadratic_data<S>> data_;
  index_t d_ = 0;
  index_t examples_ = 0;
  std::vector<S> theta_;
};

}  // namespace dualsft
