// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/llm/detail/row_kernels.hpp>
#include <limits>
#include <span>
#include <vector>

/// Causal attention over packed sequences, without padding: sequence s is rows
/// [starts[s], starts[s + 1]) of every matrix, and no row sees another sequence.
///
///     P = softmax over j <= i, j > i - window of  scale <q_i, k_j>,    o_i = sum_j P_ij v_j
///
/// Query heads share key and value heads in groups (GQA). Scores exist for a few query rows of one
/// head at a time; the backward pass forms them again from q, k and the row's log-sum-exp, so memory
/// grows with the tokens, not with their square. Tasks (a sequence and a head) do not share results,
/// so these depend neither on the number of threads nor on who does what.
namespace dualsft::llm::detail {

struct attention_shape {
  index_t heads = 0;
  index_t kv_heads = 0;
  index_t head_size = 0;
  double scale = 1;
  index_t window = 0;  ///< 0: everything before

  index_t group() const { return heads / kv_heads; }
};

template <class S>
class attention {
 public:
  attention(worker_pool& pool, const attention_shape& shape, std::span<const index_t> starts)
      : pool_(pool), shape_(shape), starts_(starts) {}

  /// o = attention; log_sums [T * heads] are kept for backward.
  void forward(const row_matrix<S>& q, const row_matrix<S>& k, const row_matrix<S>& v,
               row_matrix<S>& o, std::vector<S>& log_sums) {
    o.resize(q.rows(), q.cols());
    log_sums.resize(static_cast<std::size_t>(q.rows() * shape_.heads));
    for_each_task(shape_.heads, [&](index_t s, index_t h, scratch& at) {
      const index_t g = h / shape_.group();
      const auto queries = head(q, s, h), keys = head(k, s, g), values = head(v, s, g);
      const auto outputs = head(o, s, h);
      for_each_block(s, [&](block b) {
        const auto p = at.matrix(0, b);
        scores(queries, keys, b, p);
        softmax(p, b, [&](index_t i) -> S& { return log_sum(log_sums, s, h, i); });
        const auto out = outputs.middle_rows(b.first, b.rows);
        as_map(out).setZero();
        add_a_b<S>(p, values.middle_rows(b.low, b.keys), out);
      });
    });
  }

  /// dq, dk, dv from e = dl/do.
  void backward(const row_matrix<S>& q, const row_matrix<S>& k, const row_matrix<S>& v,
                std::vector<S>& log_sums, const row_matrix<S>& e, row_matrix<S>& dq,
                row_matrix<S>& dk, row_matrix<S>& dv) {
    dq.resize(q.rows(), q.cols());
    dk.resize(k.rows(), k.cols());
    dv.resize(v.rows(), v.cols());
    for_each_task(shape_.kv_heads, [&](index_t s, index_t g, scratch& at) {
      const auto keys = head(k, s, g), values = head(v, s, g);
      const auto dkeys = head(dk, s, g), dvalues = head(dv, s, g);
      as_map(dkeys).setZero();
      as_map(dvalues).setZero();
      for (index_t h = g * shape_.group(); h < (g + 1) * shape_.group(); ++h) {
        const auto queries = head(q, s, h), errors = head(e, s, h);
        const auto dqueries = head(dq, s, h);
        for_each_block(s, [&](block b) {
          const auto p = at.matrix(0, b), d = at.matrix(1, b);
          scores(queries, keys, b, p);
          from_log_sums(p, b, [&](index_t i) { return log_sum(log_sums, s, h, i); });
          const auto block_errors = errors.middle_rows(b.first, b.rows);
          const auto block_keys = keys.middle_rows(b.low, b.keys);
          as_map(d).setZero();
          add_a_bt<S>(block_errors, values.middle_rows(b.low, b.keys), d);
          for (index_t r = 0; r < b.rows; ++r) {  // d = P .* (d - sum_j P d) * scale
            const const_row_array<S> pr(p.data() + r * p.row_stride(), b.keys);
            row_array<S> dr(d.data() + r * d.row_stride(), b.keys);
            const S mean = (pr * dr).sum();
            dr = pr * (dr - mean) * static_cast<S>(shape_.scale);
          }
          const auto out = dqueries.middle_rows(b.first, b.rows);
          as_map(out).setZero();
          add_a_b<S>(d, block_keys, out);
          add_at_b<S>(d, queries.middle_rows(b.first, b.rows), dkeys.middle_rows(b.low, b.keys));
          add_at_b<S>(p, block_errors, dvalues.middle_rows(b.low, b.keys));
        });
      }
    });
  }

  /// o from q, k and v, each with its derivative along a direction below it: 2 T rows.
  void tangent(const row_matrix<S>& q, const row_matrix<S>& k, const row_matrix<S>& v,
               row_matrix<S>& o) {
    o.resize(q.rows(), q.cols());
    const index_t below = q.rows() / 2;
    for_each_task(shape_.heads, [&](index_t s, index_t h, scratch& at) {
      const index_t g = h / shape_.group();
      const auto queries = head(q, s, h), keys = head(k, s, g), values = head(v, s, g);
      const auto rqueries = head(q, s, h, below), rkeys = head(k, s, g, below);
      const auto rvalues = head(v, s, g, below);
      const auto outputs = head(o, s, h), routputs = head(o, s, h, below);
      for_each_block(s, [&](block b) {
        const auto p = at.matrix(0, b), rp = at.matrix(1, b);
        scores(queries, keys, b, p);
        scores(rqueries, keys, b, rp);
        add_a_bt<S>(queries.middle_rows(b.first, b.rows), rkeys.middle_rows(b.low, b.keys), rp);
        S unused;
        softmax(p, b, [&](index_t) -> S& { return unused; });
        for (index_t r = 0; r < b.rows; ++r) {  // R{P} = P .* (R{z} - sum_j P R{z})
          const const_row_array<S> pr(p.data() + r * p.row_stride(), b.keys);
          row_array<S> rr(rp.data() + r * rp.row_stride(), b.keys);
          rr *= static_cast<S>(shape_.scale);
          const S mean = (pr * rr).sum();
          rr = pr * (rr - mean);
        }
        const auto out = outputs.middle_rows(b.first, b.rows);
        const auto rout = routputs.middle_rows(b.first, b.rows);
        as_map(out).setZero();
        as_map(rout).setZero();
        add_a_b<S>(p, values.middle_rows(b.low, b.keys), out);
        add_a_b<S>(rp, values.middle_rows(b.low, b.keys), rout);
        add_a_b<S>(p, rvalues.middle_rows(b.low, b.keys), rout);
      });
    });
  }

 private:
  static constexpr index_t block_rows = 64;

  /// Query rows [first, first + rows) of a sequence and the keys [low, low + keys) that any of them
  /// sees.
  struct block {
    index_t first = 0, rows = 0, low = 0, keys = 0;
  };

  /// Aligned storage: the order of Eigen's row sums depends on where a row starts.
  struct scratch {
    Eigen::Matrix<S, Eigen::Dynamic, 1> space[2];
    matrix_view<S> matrix(int which, block b) {
      auto& v = space[which];
      if (v.size() < b.rows * b.keys) v.resize(b.rows * b.keys);
      return {v.data(), b.rows, b.keys};
    }
  };

  template <class Body>
  void for_each_task(index_t heads, Body&& body) {
    const index_t sequences = static_cast<index_t>(starts_.size()) - 1;
    std::vector<scratch> own(static_cast<std::size_t>(pool_.threads()));
    index_t pairs = 0;
    for (index_t s = 0; s < sequences; ++s) pairs += size(s) * size(s);
    const index_t each = 2 * shape_.head_size * pairs / std::max<index_t>(1, sequences);
    const index_t grain = (index_t{1} << 21) / std::max<index_t>(1, each);
    pool_.tasks(sequences * heads, grain, [&](index_t task, int part) {
      body(task / heads, task % heads, own[static_cast<std::size_t>(part)]);
    });
  }

  template <class Body>
  void for_each_block(index_t s, Body&& body) const {
    const index_t n = size(s);
    for (index_t first = 0; first < n; first += block_rows) {
      const index_t rows = std::min(block_rows, n - first);
      const index_t low = shape_.window > 0 ? std::max<index_t>(0, first - shape_.window + 1) : 0;
      body(block{first, rows, low, first + rows - low});
    }
  }

  index_t start(index_t s) const { return starts_[static_cast<std::size_t>(s)]; }
  index_t size(index_t s) const { return start(s + 1) - start(s); }

  /// \param first  row of the first token: half way down in a stacked matrix
  template <class Matrix>
  auto head(Matrix& m, index_t s, index_t h, index_t first = 0) const {
    using element = std::conditional_t<std::is_const_v<Matrix>, const S, S>;
    return matrix_view<element>(m.data() + (first + start(s)) * m.cols() + h * shape_.head_size,
                                size(s), shape_.head_size, m.cols(), 1);
  }

  S& log_sum(std::vector<S>& sums, index_t s, index_t h, index_t i) const {
    return sums[static_cast<std::size_t>((start(s) + i) * shape_.heads + h)];
  }

  static void scores(matrix_view<const S> queries, matrix_view<const S> keys, block b,
                     matrix_view<S> out) {
    as_map(out).setZero();
    add_a_bt<S>(queries.middle_rows(b.first, b.rows), keys.middle_rows(b.low, b.keys), out);
  }

  /// Which columns of row r of a block its query sees: [from, to).
  index_range seen(block b, index_t r) const {
    const index_t i = b.first + r;
    const index_t from = shape_.window > 0 ? std::max(b.low, i - shape_.window + 1) : b.low;
    return {from - b.low, i + 1 - b.low};
  }

  /// Zeros outside what a row sees; body(row as array, its query) inside.
  template <class Body>
  void masked_rows(matrix_view<S> p, block b, Body&& body) const {
    for (index_t r = 0; r < b.rows; ++r) {
      S* const row = p.data() + r * p.row_stride();
      const index_range at = seen(b, r);
      std::fill(row, row + at.begin, S(0));
      std::fill(row + at.end, row + b.keys, S(0));
      body(row_array<S>(row + at.begin, at.size()), b.first + r);
    }
  }

  template <class LogSum>
  void softmax(matrix_view<S> p, block b, LogSum&& log_sum_of) const {
    masked_rows(p, b, [&](row_array<S> row, index_t i) {
      row *= static_cast<S>(shape_.scale);
      const S top = row.maxCoeff();
      row = (row - top).exp();
      const S sum = row.sum();
      row /= sum;
      log_sum_of(i) = top + std::log(sum);
    });
  }

  template <class LogSum>
  void from_log_sums(matrix_view<S> p, block b, LogSum&& log_sum_of) const {
    masked_rows(p, b, [&](row_array<S> row, index_t i) {
      row = (row * static_cast<S>(shape_.scale) - log_sum_of(i)).exp();
    });
  }

  worker_pool& pool_;
  attention_shape shape_;
  std::span<const index_t> starts_;
};

}  // namespace dualsft::llm::detail
