// Proves: views keep shape, strides and memory space, and refuse what lies outside.
// Against: hand-computed elements.
#include <doctest/doctest.h>

#include <dualsft/views.hpp>
#include <type_traits>
#include <vector>

using namespace dualsft;

TEST_CASE("vector views are made from what is contiguous and keep const out") {
  std::vector<double> x{1, 2, 3, 4};
  const std::vector<double>& cx = x;
  vector_view<double> view(x);
  vector_view<const double> read = view;
  CHECK(read.size() == 4);
  CHECK(read[3] == 4);
  CHECK(vector_view(cx).size() == 4);
  static_assert(std::is_same_v<decltype(vector_view(cx)), vector_view<const double>>);
  static_assert(!std::is_constructible_v<vector_view<double>, const std::vector<double>&>);
  static_assert(!std::is_constructible_v<vector_view<double>, std::vector<float>&>);
  static_assert(!std::is_convertible_v<vector_view<const double>, vector_view<double>>);
}

// A view may be a constant: its precondition is checked while compiling.
constexpr double constants[] = {1, 2, 3, 4, 5, 6};
constexpr vector_view<const double> every_other(constants, 3, 2);
static_assert(every_other.size() == 3 && every_other[2] == 5);
constexpr matrix_view<const double> two_by_three(constants, 2, 3);
static_assert(two_by_three(1, 0) == 4);

TEST_CASE("memory spaces do not mix") {
  using host = vector_view<const float, host_space>;
  using device = vector_view<const float, device_space>;
  static_assert(!std::is_convertible_v<device, host> && !std::is_convertible_v<host, device>);
  static_assert(!std::is_constructible_v<device, std::vector<float>&>);
  static_assert(std::is_convertible_v<vector_view<float, device_space>, device>);
}

TEST_CASE("strides address sub-arrays") {
  std::vector<int> x{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  matrix_view<int> rows(x.data(), 3, 4);
  matrix_view<int> cols(x.data(), 3, 4, 1, 3);
  CHECK(rows(1, 2) == 6);
  CHECK(cols(1, 2) == 7);
  CHECK(rows.col(3)[2] == 11);
  CHECK(rows.transposed()(3, 2) == 11);
  CHECK(rows.middle_rows(1, 2)(0, 0) == 4);
  CHECK(rows.col(1).subview(1, 2)[1] == 9);
  CHECK_FALSE(rows.col(1).contiguous());
  CHECK_THROWS_AS(rows.col(1).span(), invalid_argument);
  CHECK(rows.row(1).span()[1] == 5);
}

TEST_CASE("broken preconditions name the function and the values") {
  std::vector<int> x(4);
  CHECK_THROWS_WITH_AS(
      vector_view<int>(x).subview(3, 2),
      doctest::Contains("vector_view::subview: [offset, offset + count) must lie in [0, "
                        "size) (offset = 3, count = 2, size = 4)"),
      invalid_argument);
  CHECK_THROWS_AS(vector_view<int>(x.data(), -1), invalid_argument);
  CHECK_THROWS_AS(matrix_view<int>(x.data(), 2, 2).row(2), invalid_argument);
}
