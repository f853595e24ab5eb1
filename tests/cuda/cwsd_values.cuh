#pragma once

#include <cmath>
#include <cstdint>
#include <dualsft/cwsd.hpp>
#include <type_traits>
#include <vector>

#include "device_values.cuh"

/// Logits, and what the host makes of them.
namespace dualsft::testing {

template <class T>
struct logits {
  index_t rows = 0, classes = 0, stride = 0, offset = 0;
  std::vector<T> values;

  T& operator()(index_t row, index_t c) {
    return values[static_cast<std::size_t>(offset + row * stride + c)];
  }
  T operator()(index_t row, index_t c) const {
    return values[static_cast<std::size_t>(offset + row * stride + c)];
  }
};

/// `width`: how far apart logits are.
template <class T>
logits<T> made(index_t rows, index_t classes, index_t stride, index_t offset, double width,
               std::uint64_t seed) {
  logits<T> out{rows, classes, stride, offset, {}};
  out.values.resize(static_cast<std::size_t>(offset + rows * stride));
  random_source random(seed);
  for (T& x : out.values) x = convert_float<T>(width * random.normal());
  return out;
}

template <class T>
double unit() {  // of a rounding, relative
  return std::is_same_v<T, bfloat16> ? 0x1p-8 : std::is_same_v<T, float16> ? 0x1p-11 : 0x1p-24;
}
template <class T>
double smallest() {
  return std::is_same_v<T, float16> ? 0x1p-24 : 0x1p-126;
}

struct task {
  cwsd_rule rule;
  std::vector<index_t> begins;
  std::vector<std::int64_t> labels;  // or empty
  double scale = 1;
};

/// Of the mean entropy, from which every weight follows with a slope of at most 1.
inline double weight_error(index_t classes) {
  return 0x1p-20 * (1 + std::log(static_cast<double>(classes)));
}

inline bool counts(const task& t, index_t row) {
  return t.labels.empty() || t.labels[static_cast<std::size_t>(row)] != -100;
}

/// What the host says of anchor x, with its rows that count.
struct expected {
  cwsd_anchor anchor;
  std::vector<index_t> rows;
  std::vector<double> gradient, tolerance;
  double mean_difference = 0;  // mean_q |z_q - z_p| / tau
};

template <class T>
expected on_host(const task& t, std::size_t x, const logits<T>& teacher, const logits<T>& student) {
  expected out;
  for (index_t row = t.begins[x]; row < t.begins[x + 1]; ++row)
    if (counts(t, row)) out.rows.push_back(row);
  const auto n = static_cast<index_t>(out.rows.size());
  if (n == 0) return out;
  const index_t classes = teacher.classes;
  std::vector<double> q(static_cast<std::size_t>(n * classes)), p(q.size());
  out.gradient.resize(q.size());
  out.tolerance.resize(q.size());
  for (index_t i = 0; i < n; ++i)
    for (index_t c = 0; c < classes; ++c) {
      const auto at = static_cast<std::size_t>(i * classes + c);
      const index_t row = out.rows[static_cast<std::size_t>(i)];
      q[at] = convert_float<double>(teacher(row, c));
      p[at] = convert_float<double>(student(row, c));
    }
  out.anchor = cwsd<double>(t.rule, matrix_view<const double>(q.data(), n, classes),
                            matrix_view<const double>(p.data(), n, classes),
                            matrix_view<double>(out.gradient.data(), n, classes), t.scale);
  const double factor = std::abs(t.scale * t.rule.tau) / static_cast<double>(n);
  std::vector<double> qs(static_cast<std::size_t>(classes)), ps(qs.size());
  for (index_t i = 0; i < n; ++i) {
    const auto row = [&](const std::vector<double>& z) {
      return vector_view<const double>(z.data() + i * classes, classes);
    };
    detail::tempered_softmax(row(q), t.rule.tau, std::span<double>(qs));
    detail::tempered_softmax(row(p), t.rule.tau, std::span<double>(ps));
    for (index_t c = 0; c < classes; ++c) {
      const auto at = static_cast<std::size_t>(i * classes + c);
      const double qc = qs[static_cast<std::size_t>(c)], pc = ps[static_cast<std::size_t>(c)];
      const auto part = [](double y) { return y > 0 ? y * (1 - std::log(y)) : 0; };
      out.tolerance[at] =
          factor * ((out.anchor.weight + weight_error(classes)) * 0x1p-20 * (part(qc) + part(pc)) +
                    weight_error(classes) * std::abs(pc - qc)) +
          unit<T>() * std::abs(out.gradient[at]) + smallest<T>();
      if (qc > 0)
        out.mean_difference += qc * std::abs(q[at] - p[at]) / t.rule.tau / static_cast<double>(n);
    }
  }
  return out;
}

inline bool near(double a, double b, double tolerance) {
  return (a != a && b != b) || a == b || std::abs(a - b) <= tolerance;
}

inline std::vector<std::int64_t> some_labels(index_t rows, std::uint64_t seed) {
  random_source random(seed);
  std::vector<std::int64_t> out(static_cast<std::size_t>(rows));
  for (std::int64_t& label : out) label = random.uniform() < 0.4 ? -100 : 7;
  return out;
}

}  // namespace dualsft::testing
