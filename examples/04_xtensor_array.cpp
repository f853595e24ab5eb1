// Score an xtensor array of gradients where it lies, and take the scores back as xtensors.
//
//   g++ -std=c++20 -O2 -I include -isystem /usr/include/eigen3 examples/04_xtensor_array.cpp
//
// Output:
// -0.00455 0.01365 0.0567 0.0311 (examples)
// 0.0222 0.0036 0.0711 (parameters)
// sums differ by less than 1e-15: yes
// an xarray gives the same: yes
#include <cmath>
#include <cstdio>
#include <dualsft/adapt/xtensor.hpp>
#include <dualsft/dense_scores.hpp>

using namespace dualsft;

int main() {
  // An example a row, a parameter a column; the last column belongs to something else.
  const xt::xtensor<double, 2> table{{1, 2, -1, 9}, {0, 1, 1, 9}, {3, -1, 4, 9}, {2, 0, 2, 9}};
  const xt::xtensor<double, 1> v{0.4, 0.2, 1.2};      // gradient of the validation loss
  const xt::xtensor<double, 1> curvature{1, 2, 0.5};  // D, the diagonal curvature proxy
  const dense_inputs<> inputs{.validation = as_view(v), .curvature = as_view(curvature)};
  const score_rule rule{.order = score_order::diagonal, .eta = 0.01};

  // A strided view of the table: nothing is copied.
  const auto gradients = xt::view(table, xt::all(), xt::range(0, 3));
  const dense_result scores = dense_scores(exec::cpu{}, as_view(gradients), inputs, rule);

  const auto rows = as_xtensor(scores.data_scores);  // an adaptor of the result
  const xt::xtensor<double, 1> columns = as_xtensor(scores.parameter_scores);  // a copy
  for (const double score : rows) std::printf("%.6g ", score);
  std::printf("(examples)\n");
  for (const double score : columns) std::printf("%.6g ", score);
  std::printf("(parameters)\n");
  std::printf("sums differ by less than 1e-15: %s\n",
              std::abs(xt::sum(rows)() - xt::sum(columns)()) < 1e-15 ? "yes" : "no");

  // An xarray learns its rank at run time, so it says which view it wants.
  const xt::xarray<double> dynamic = gradients;
  const dense_result again = dense_scores(exec::cpu{}, as_matrix_view(dynamic), inputs, rule);
  std::printf("an xarray gives the same: %s\n",
              xt::allclose(as_xtensor(again.data_scores), rows) ? "yes" : "no");
}
