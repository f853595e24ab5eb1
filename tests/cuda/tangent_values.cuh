#pragma once

#if defined(__NVCC__)
#pragma nv_diag_suppress 20012  // Eigen marks defaulted functions as the device's
#endif
#include <algorithm>
#include <cmath>
#include <dualsft/llm/detail/tangent_device_views.hpp>
#include <dualsft/llm/detail/tangent_kernels.hpp>
#include <vector>

#include "device_values.cuh"

/// Inputs, references and comparisons of the forward derivative's device tests.
namespace dualsft::testing {

using dualsft::detail::row_matrix;
using llm::tangent_rows;

/// How rows lie in memory.
struct lie {
  bool beside = false;  ///< tangents to the right of the values, else below
  index_t offset = 0;   ///< elements before the first row
  index_t extra = 0;    ///< elements behind each row
};

/// Rows of values and tangents on a device, in a buffer whose other elements are NaN.
template <class T>
class device_rows {
 public:
  /// \param both  [2 rows, cols], values above
  device_rows(const exec::cuda& policy, index_t rows, index_t cols, lie how,
              const std::vector<T>& both)
      : rows_(rows), cols_(cols), how_(how), stride_((how.beside ? 2 : 1) * cols + how.extra) {
    std::vector<T> buffer(
        static_cast<std::size_t>(how.offset + stride_ * (how.beside ? 1 : 2) * rows),
        convert_float<T>(std::nanf("")));
    for (index_t i = 0; i < 2 * rows; ++i)
      for (index_t j = 0; j < cols; ++j)
        buffer[place(i, j)] = both[static_cast<std::size_t>(i * cols + j)];
    data_ = {policy, std::span<const T>(buffer)};
    detail::cuda_check(cudaStreamSynchronize(policy.stream), "device_rows");
  }
  /// Unwritten.
  device_rows(const exec::cuda& policy, index_t rows, index_t cols, lie how)
      : device_rows(policy, rows, cols, how,
                    std::vector<T>(static_cast<std::size_t>(2 * rows * cols),
                                   convert_float<T>(std::nanf("")))) {}

  tangent_rows<T> view() const {
    T* first = data_.data() + how_.offset;
    return {{first, rows_, cols_, stride_, 1},
            {first + (how_.beside ? cols_ : rows_ * stride_), rows_, cols_, stride_, 1}};
  }
  tangent_rows<const T> read() const { return view(); }

  /// [2 rows, cols]; checks that nothing else was written.
  std::vector<T> to_host() const {
    const std::vector<T> buffer = data_.to_host();
    std::vector<T> out(static_cast<std::size_t>(2 * rows_ * cols_));
    std::vector<bool> ours(buffer.size(), false);
    for (index_t i = 0; i < 2 * rows_; ++i)
      for (index_t j = 0; j < cols_; ++j) {
        out[static_cast<std::size_t>(i * cols_ + j)] = buffer[place(i, j)];
        ours[place(i, j)] = true;
      }
    bool untouched = true;
    for (std::size_t k = 0; k < buffer.size(); ++k)
      untouched = untouched && (ours[k] || std::isnan(convert_float<float>(buffer[k])));
    CHECK(untouched);
    return out;
  }

 private:
  std::size_t place(index_t i, index_t j) const {
    const index_t at = how_.beside ? (i % rows_) * stride_ + (i / rows_) * cols_ : i * stride_;
    return static_cast<std::size_t>(how_.offset + at + j);
  }

  index_t rows_, cols_;
  lie how_;
  index_t stride_;
  detail::device_array<T> data_;
};

/// 16-byte rows if cols allows, else not; both arrangements.
inline std::vector<lie> ways_to_lie() {
  return {{}, {true, 0, 0}, {false, 16, 32}, {true, 0, 16}, {false, 1, 0}, {true, 3, 5}};
}

/// Heavy tails reach as far as products of two may in float16; of `special` numbers few are odd, so that
/// some rows have none.
template <class T>
std::vector<T> filled(index_t count, std::uint64_t seed, double scale = 1,
                      spread how = spread::normal) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const double odd[] = {std::nan(""), infinity, -0.0, -infinity, 0.0, 1e-40};
  random_source random(seed);
  std::vector<T> out(static_cast<std::size_t>(count));
  for (index_t i = 0; i < count; ++i) {
    double x = how == spread::all_equal ? 0.5 : scale * random.normal();
    if (how == spread::heavy_tailed) x *= std::pow(10.0, 3 * random.uniform() - 1.5) / scale;
    if (how == spread::special && i % 331 == 13)
      x = odd[(i / 331 + static_cast<index_t>(seed)) % 6];
    out[static_cast<std::size_t>(i)] = convert_float<T>(x);
  }
  return out;
}

template <class T>
row_matrix<double> in_double(const std::vector<T>& from, index_t cols) {
  row_matrix<double> out(cols > 0 ? static_cast<index_t>(from.size()) / cols : 0, cols);
  for (std::size_t i = 0; i < from.size(); ++i)
    out.data()[i] = static_cast<double>(convert_float<float>(from[i]));
  return out;
}
template <class T>
std::vector<double> in_double(const std::vector<T>& from) {
  std::vector<double> out;
  for (const T x : from) out.push_back(convert_float<double>(x));
  return out;
}

/// Of rounding to nearest in T: relative, and at the bottom of its range.
template <class T>
inline constexpr double unit = std::same_as<T, bfloat16>  ? 0x1p-8
                               : std::same_as<T, float16> ? 0x1p-11
                                                          : 0x1p-24;
template <class T>
inline constexpr double least = std::same_as<T, float16> ? 0x1p-25 : 0x1p-134;

/// |found - expected| <= unit |expected| + c 2^-24 terms + least: one rounding of a float sum whose
/// terms have the absolute sum `terms`. What is not finite is not finite on either side, and no
/// infinity has the other sign.
template <class T>
void check_rounded(const std::vector<T>& found, const row_matrix<double>& expected,
                   const row_matrix<double>& terms, double c) {
  REQUIRE(static_cast<index_t>(found.size()) == expected.size());
  for (index_t i = 0; i < expected.size(); ++i) {
    const double x = static_cast<double>(convert_float<float>(found[static_cast<std::size_t>(i)]));
    const double wanted = expected.data()[i];
    // An infinity may have become NaN on its way through a sum of both signs, but not the other one.
    if (std::isnan(wanted) ? !std::isfinite(x)
                           : std::isinf(wanted) && (x == wanted || std::isnan(x)))
      continue;
    const double allowed =
        unit<T> * std::fabs(wanted) + c * 0x1p-24 * terms.data()[i] * (1 + unit<T>)+least<T>;
    if (std::fabs(x - wanted) <= allowed) continue;
    CAPTURE(i);
    CAPTURE(expected.cols());
    CAPTURE(allowed);
    REQUIRE(x == wanted);  // shows both
  }
}

inline llm::detail::worker_pool& pool() {
  static llm::detail::worker_pool one(1);
  return one;
}

/// What work(policy) leaves, run at once and from a graph: read() after each.
template <class Work, class Read>
void check_capture(const own_stream& stream, Work&& work, Read&& read) {
  work(stream.policy());
  const auto once = read();
  replay_captured(stream.policy(), 1, [&] { work(stream.policy()); });
  CHECK(first_difference(once, read()) == -1);
}

}  // namespace dualsft::testing
