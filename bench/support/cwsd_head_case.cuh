// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <dualsft/cwsd_head.cuh>
#include <span>
#include <vector>

#include "device_bench.cuh"
#include "device_inputs.cuh"

namespace dualsft::bench {

/// out[i] = numbers(i % repeated), rounded to T.
template <class T>
__global__ void fill_repeating(T* out, index_t n, index_t repeated, drawn numbers) {
  const index_t stride = index_t{gridDim.x} * blockDim.x;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride)
    out[i] = convert_float<T>(numbers(i % repeated));
}

/// Block c: logits of class c for `rows` rows, z[i, c] = x_i w_c, by sums in double.
template <class T>
__global__ void plain_logits(const T* x, const T* w, index_t rows, index_t width, double* z) {
  __shared__ double sums[128];
  const index_t c = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  for (index_t i = 0; i < rows; ++i) {
    double sum = 0;
    for (index_t k = thread; k < width; k += 128)
      sum += convert_float<double>(x[i * width + k]) * convert_float<double>(w[c * width + k]);
    sums[thread] = sum;
    __syncthreads();
    if (thread == 0) {
      double all = 0;
      for (const double each : sums) all += each;
      z[i * gridDim.x + c] = convert_float<double>(convert_float<T>(all));
    }
    __syncthreads();
  }
}

struct cwsd_head_sizes {
  index_t rows, width, teacher_width, classes;

  /// 2 per entry and row of the four products without which there is nothing to give back.
  double operations() const {
    return 2 * static_cast<double>(rows) * static_cast<double>(classes) *
           static_cast<double>(teacher_width + 3 * width);
  }
};

/// Hidden states and heads of a teacher and a student, room for gradients, and a look at all of a step's
/// results. Rows repeat after `distinct_rows`, of which no chunk and no tile is a multiple: so losses of
/// all anchors and any entry of dW follow from the logits of few rows.
class cwsd_head_case {
 public:
  using T = bfloat16;
  static constexpr index_t distinct_rows = 61;

  static double bytes(const cwsd_head_sizes& n) {
    const auto of = [](index_t rows, index_t cols) {
      return static_cast<double>(rows) * static_cast<double>(cols);
    };
    return 2 * of(n.rows + n.classes, n.width + n.teacher_width) + 2 * of(n.rows, n.width) +
           4 * of(n.classes, n.width) + 16 * of(distinct_rows, n.classes);
  }

  cwsd_head_case(const exec::cuda& policy, const cwsd_head_sizes& sizes)
      : n_(sizes),
        x_(policy, n_.rows * n_.width),
        y_(policy, n_.rows * n_.teacher_width),
        w_(policy, n_.classes * n_.width),
        u_(policy, n_.classes * n_.teacher_width),
        dx_(policy, n_.rows * n_.width),
        dw_(policy, n_.classes * n_.width) {
    repeat(policy, x_, of_x, n_.width);
    repeat(policy, y_, of_y, n_.teacher_width);
    fill(policy, w_.view(), of_w_);
    fill(policy, u_.view(), {spread::normal, 4, of_w_.scale});
    for (index_t row = 0; row < n_.rows; row += pick<index_t>(512, 4)) begins_.push_back(row);
    begins_.push_back(n_.rows);
    anchors_ = {policy, static_cast<index_t>(begins_.size()) - 1};
    dx_.fill_bytes(0xff);
    dw_.fill_bytes(0);
  }

  std::span<const index_t> begins() const { return begins_; }
  cwsd_head_inputs<T> inputs() const {
    return {of<T>(y_, n_.rows), of<T>(u_, n_.classes), of<T>(x_, n_.rows), of<T>(w_, n_.classes)};
  }
  cwsd_head_outputs<T> outputs() const {
    return {anchors_.view(), of<T>(dx_, n_.rows), of<float>(dw_, n_.classes)};
  }

  /// After one step with scale 1 from a dW of zeros: all anchors, some of dX and dW. The rule's weight is
  /// its rows' mean.
  ///
  /// Allowed: what a class adds to a gradient is rounded to T, on its own and through its logit; errors of
  /// many add up like a random walk, so that 8 times the root of their squares is more than they reach.
  bool right(const exec::cuda& policy, const cwsd_rule& rule) const {
    const std::vector<cwsd_anchor> found = anchors_.to_host();
    std::vector<double> slopes;  // [period, V] of tau (p - q)
    const std::vector<cwsd_anchor> of_rows = plain_rows(policy, rule, slopes);
    const auto near = [](double a, double b) { return std::abs(a - b) <= 0x1p-12 * b + 0x1p-17; };
    std::vector<double> factors;  // [rows] of the slopes
    for (std::size_t a = 0; a + 1 < begins_.size(); ++a) {
      const index_t count = begins_[a + 1] - begins_[a];
      double weight = 0, divergence = 0;
      for (index_t row = begins_[a]; row < begins_[a + 1]; ++row) {
        const cwsd_anchor& one = of_rows[static_cast<std::size_t>(row % period())];
        weight += one.weight / static_cast<double>(count);
        divergence += one.divergence / static_cast<double>(count);
      }
      if (!near(found[a].weight, weight) || !near(found[a].divergence, divergence) ||
          !near(found[a].loss, weight * rule.tau * rule.tau * divergence))
        return false;
      factors.insert(factors.end(), static_cast<std::size_t>(count),
                     weight / static_cast<double>(count));
    }
    return hidden_gradient_is_right(policy, slopes, factors) &&
           head_gradient_is_right(policy, slopes, factors);
  }

 private:
  static constexpr drawn of_x{spread::normal, 1}, of_y{spread::normal, 2};

  index_t period() const { return std::min(n_.rows, pick(distinct_rows, index_t{5})); }

  template <class S>
  static matrix_view<S, device_space> of(const detail::device_array<S>& array, index_t rows) {
    return {array.data(), rows, array.size() / rows};
  }
  void repeat(const exec::cuda& policy, const detail::device_array<T>& to, const drawn& numbers,
              index_t width) const {
    detail::launch("fill", policy, {blocks_for(to.size()), 256}, fill_repeating<T>, to.data(),
                   to.size(), period() * width, numbers);
  }
  static double stored(float x) { return convert_float<double>(convert_float<T>(x)); }

  /// Losses and gradients of the rows that repeat, each an anchor of its own.
  std::vector<cwsd_anchor> plain_rows(const exec::cuda& policy, const cwsd_rule& rule,
                                      std::vector<double>& slopes) const {
    const auto logits = [&](const detail::device_array<T>& x, const detail::device_array<T>& w,
                            index_t width) {
      const detail::device_array<double> z(policy, period() * n_.classes);
      detail::launch("check", policy, {static_cast<unsigned>(n_.classes), 128}, plain_logits<T>,
                     x.data(), w.data(), period(), width, z.data());
      return z.to_host();
    };
    const std::vector<double> teacher = logits(y_, u_, n_.teacher_width),
                              student = logits(x_, w_, n_.width);
    slopes.resize(teacher.size());
    std::vector<cwsd_anchor> out;
    for (index_t i = 0; i < period(); ++i) {
      const auto row = [&](auto& of_all) {
        return matrix_view(of_all.data() + i * n_.classes, 1, n_.classes);
      };
      out.push_back(cwsd<double>(rule, row(teacher), row(student), row(slopes)));
      for (index_t c = 0; c < n_.classes; ++c)
        slopes[static_cast<std::size_t>(i * n_.classes + c)] /= out.back().weight;
    }
    return out;
  }

  bool hidden_gradient_is_right(const exec::cuda& policy, const std::vector<double>& slopes,
                                const std::vector<double>& factors) const {
    for (const index_t k : few(n_.width, 6)) {
      std::vector<double> column;
      for (index_t c = 0; c < n_.classes; ++c) column.push_back(stored(of_w_(c * n_.width + k)));
      for (const index_t row : few(n_.rows, 8)) {
        double sum = 0, squares = 0;
        for (index_t c = 0; c < n_.classes; ++c) {
          const double term = factors[static_cast<std::size_t>(row)] *
                              slopes[static_cast<std::size_t>(row % period() * n_.classes + c)] *
                              column[static_cast<std::size_t>(c)];
          sum += term;
          squares += term * term;
        }
        const double dx = convert_float<double>(read_at(policy, dx_.data(), row * n_.width + k));
        if (!(std::abs(dx - sum) <= 0x1p-8 * (std::abs(sum) + 8 * std::sqrt(squares))))
          return false;
      }
    }
    return true;
  }

  bool head_gradient_is_right(const exec::cuda& policy, const std::vector<double>& slopes,
                              const std::vector<double>& factors) const {
    std::vector<double> together(static_cast<std::size_t>(period()));  // of rows that are alike
    for (std::size_t row = 0; row < factors.size(); ++row)
      together[row % together.size()] += factors[row];
    for (const index_t c : few(n_.classes, 8))
      for (const index_t k : few(n_.width, 6)) {
        double sum = 0, squares = 0;
        for (index_t i = 0; i < period(); ++i) {
          const double term = together[static_cast<std::size_t>(i)] *
                              slopes[static_cast<std::size_t>(i * n_.classes + c)] *
                              stored(of_x(i * n_.width + k));
          sum += term;
          squares += term * term;
        }
        const double dw = static_cast<double>(read_at(policy, dw_.data(), c * n_.width + k));
        if (!(std::abs(dw - sum) <= 0x1p-8 * 8 * std::sqrt(squares))) return false;
      }
    return true;
  }

  cwsd_head_sizes n_;
  drawn of_w_{spread::normal, 3, pick(0x1p-5F, 1.0F)};  // logits of some units, at any size
  detail::device_array<T> x_, y_, w_, u_, dx_;
  detail::device_array<float> dw_;
  std::vector<index_t> begins_;
  detail::device_array<cwsd_anchor> anchors_;
};

}  // namespace dualsft::bench
