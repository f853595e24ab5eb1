// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <dualsft/llm/attention.cuh>
#include <vector>

#include "device_bench.cuh"
#include "device_inputs.cuh"

/// Inputs of attention that the benchmark and the ladder share, and a look at some rows of its results.
namespace dualsft::bench {

struct attention_sizes {
  llm::attention_options options;
  std::vector<index_t> lengths;

  index_t rows() const {
    index_t sum = 0;
    for (const index_t n : lengths) sum += n;
    return sum;
  }
  /// Pairs of a query and a key that it sees, of one head.
  double pairs() const {
    double sum = 0;
    for (const index_t n : lengths) {
      const auto size = static_cast<double>(n);
      const auto most =
          options.window > 0 ? std::min(size, static_cast<double>(options.window)) : size;
      sum += most * (most + 1) / 2 + (size - most) * most;
    }
    return sum;
  }
  /// Operations of the two products without which there is no attention; with tangents, of six.
  double operations(bool tangent) const {
    return (tangent ? 12.0 : 4.0) * static_cast<double>(options.heads * options.head_size) *
           pairs();
  }
};

class attention_case {
 public:
  using T = bfloat16;

  attention_case(const exec::cuda& policy, const attention_sizes& sizes)
      : sizes_(sizes), starts_{0} {
    for (const index_t n : sizes.lengths) starts_.push_back(starts_.back() + n);
    begins_ = {policy, std::span<const index_t>(starts_)};
    for (int which = 0; which < 6; ++which) {
      in_[which] = {policy, sizes.rows() * cols(which)};
      fill(policy, in_[which].view(), drawing(which));
    }
    for (auto& out : out_) out = {policy, sizes.rows() * cols(0)};
    // starts_ was copied from the host.
    detail::cuda_check(cudaStreamSynchronize(policy.stream), "attention_case");
  }

  static double bytes(const attention_sizes& s) {
    return 2.0 * static_cast<double>(s.rows() * s.options.head_size *
                                     (4 * s.options.heads + 4 * s.options.kv_heads));
  }

  /// What a kernel takes.
  llm::detail::attention_arguments<T> arguments() const {
    llm::detail::attention_arguments<T> a;
    a.q = {in_[0].data(), cols(0)};
    a.k = {in_[1].data(), cols(1)};
    a.v = {in_[2].data(), cols(2)};
    a.tangent_q = {in_[3].data(), cols(0)};
    a.tangent_k = {in_[4].data(), cols(1)};
    a.tangent_v = {in_[5].data(), cols(2)};
    a.o = {out_[0].data(), cols(0)};
    a.tangent_o = {out_[1].data(), cols(0)};
    a.starts = begins_.data();
    a.sequences = begins_.size() - 1;
    a.heads = sizes_.options.heads;
    a.group = sizes_.options.heads / sizes_.options.kv_heads;
    a.head_size = sizes_.options.head_size;
    a.window = static_cast<int>(sizes_.options.window);
    a.scale = static_cast<float>(sizes_.options.scale);
    return a;
  }

  void forward(const exec::cuda& policy) const {
    llm::attention(policy, sizes_.options, begins_.view(), inputs(0), out(0));
  }
  void tangent(const exec::cuda& policy) const {
    llm::attention_tangent(policy, sizes_.options, begins_.view(), inputs(0), inputs(3), out(0),
                           out(1));
  }

  /// What was found earlier must not pass for a result.
  void forget() {
    for (auto& out : out_) out.fill_bytes(0xff);
  }

  /// Some rows against loops in double. Of a weighted mean of numbers of size 1 whose weights and itself
  /// are rounded to 8 bits; R{z} has a deviation of up to sqrt(2) here.
  bool right(const exec::cuda& policy, bool tangent) const {
    const index_t rows = sizes_.rows();
    for (int k = 0; k < 12; ++k) {
      const index_t i = k == 0 ? 0 : rows - 1 - (k - 1) * (rows / 12);
      const index_t head = k * 5 % sizes_.options.heads;
      const row_values found = loop(i, head);
      for (index_t d = 0; d < sizes_.options.head_size; ++d) {
        const index_t at = i * cols(0) + head * sizes_.options.head_size + d;
        const double o = to_float(read_at(policy, out_[0].data(), at));
        if (!(std::abs(o - found.o[d]) <= 0x1p-7 * (found.size + 1e-3))) return false;
        if (!tangent) continue;
        const double ro = to_float(read_at(policy, out_[1].data(), at));
        if (!(std::abs(ro - found.ro[d]) <= 0x1p-7 * (found.tangent_size + 1e-3))) return false;
      }
    }
    return true;
  }

 private:
  struct row_values {
    std::vector<double> o, ro;
    double size = 0, tangent_size = 0;
  };

  static drawn drawing(int which) {
    return {spread::normal, static_cast<std::uint64_t>(which) + 11};
  }
  index_t cols(int which) const {
    return (which % 3 == 0 ? sizes_.options.heads : sizes_.options.kv_heads) *
           sizes_.options.head_size;
  }
  matrix_view<const T, device_space> in(int which) const {
    return {in_[which].data(), sizes_.rows(), cols(which)};
  }
  llm::attention_inputs<T> inputs(int from) const { return {in(from), in(from + 1), in(from + 2)}; }
  matrix_view<T, device_space> out(int which) const {
    return {out_[which].data(), sizes_.rows(), cols(0)};
  }
  double value(int which, index_t i, index_t head, index_t d) const {
    const index_t at = i * cols(which) + head * sizes_.options.head_size + d;
    return to_float(to_bfloat16(drawing(which)(at)));
  }

  row_values loop(index_t i, index_t h) const {
    const llm::attention_options& s = sizes_.options;
    const index_t g = h / (s.heads / s.kv_heads);
    index_t low = *(std::upper_bound(starts_.begin(), starts_.end(), i) - 1);
    if (s.window > 0) low = std::max(low, i - s.window + 1);
    std::vector<double> p, rz;
    double top = -1e300, sum = 0, mean = 0, largest = 0;
    for (index_t j = low; j <= i; ++j) {
      double dot = 0, rdot = 0;
      for (index_t d = 0; d < s.head_size; ++d) {
        const double q = value(0, i, h, d), k = value(1, j, g, d);
        dot += q * k;
        rdot += value(3, i, h, d) * k + q * value(4, j, g, d);
      }
      p.push_back(dot * s.scale);
      rz.push_back(rdot * s.scale);
      top = std::max(top, p.back());
      largest = std::max(largest, std::abs(rz.back()));
    }
    for (double& x : p) sum += x = std::exp(x - top);
    for (std::size_t j = 0; j < p.size(); ++j) mean += (p[j] /= sum) * rz[j];
    row_values out{std::vector<double>(static_cast<std::size_t>(s.head_size)),
                   std::vector<double>(static_cast<std::size_t>(s.head_size))};
    out.size = 4;
    out.tangent_size = 4 * (2 * largest + 1);
    for (index_t d = 0; d < s.head_size; ++d)
      for (index_t j = low; j <= i; ++j) {
        const auto at = static_cast<std::size_t>(j - low);
        const double v = value(2, j, g, d);
        out.o[static_cast<std::size_t>(d)] += p[at] * v;
        out.ro[static_cast<std::size_t>(d)] += p[at] * ((rz[at] - mean) * v + value(5, j, g, d));
      }
    return out;
  }

  attention_sizes sizes_;
  std::vector<index_t> starts_;
  detail::device_array<index_t> begins_;
  detail::device_array<T> in_[6], out_[2];
};

}  // namespace dualsft::bench
