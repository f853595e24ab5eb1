// Score an Eigen matrix of gradients where it lies, and work with the scores as Eigen vectors.
//
//   g++ -std=c++20 -O2 -I include -isystem /usr/include/eigen3 examples/03_eigen_matrix.cpp
//
// Output:
// best example 2 scores 0.058, best parameter 2 scores 0.072
// rows sum to 0.1, columns to 0.1
// the upper half alone: -0.004 0.014
// a column-major copy gives the same: yes
#include <Eigen/Core>
#include <cstdio>
#include <dualsft/adapt/eigen.hpp>
#include <dualsft/dense_scores.hpp>

using namespace dualsft;

int main() {
  using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  row_major gradients(4, 3);  // an example a row, a parameter a column
  gradients << 1, 2, -1,      //
      0, 1, 1,                //
      3, -1, 4,               //
      2, 0, 2;
  const Eigen::Vector3d v(0.4, 0.2, 1.2);  // gradient of the validation loss
  const score_rule rule{.order = score_order::first, .eta = 0.01};

  // as_view copies nothing: G may be a Matrix, a Map of foreign memory, or a block of either.
  const dense_result scores =
      dense_scores(exec::cpu{}, as_view(gradients), dense_inputs<>{.validation = as_view(v)}, rule);

  const auto rows = as_eigen(scores.data_scores);  // a Map of the result
  const auto columns = as_eigen(scores.parameter_scores);
  Eigen::Index best_example = 0, best_parameter = 0;
  const double example_score = rows.maxCoeff(&best_example);
  const double parameter_score = columns.maxCoeff(&best_parameter);
  std::printf("best example %td scores %.4g, best parameter %td scores %.4g\n", best_example,
              example_score, best_parameter, parameter_score);
  std::printf("rows sum to %.4g, columns to %.4g\n", rows.sum(), columns.sum());

  const dense_result half = dense_scores(exec::cpu{}, as_view(gradients.topRows(2)),
                                         dense_inputs<>{.validation = as_view(v)}, rule);
  std::printf("the upper half alone: %.4g %.4g\n", half.data_scores[0], half.data_scores[1]);

  const Eigen::MatrixXf column_major = gradients;
  const dense_result again = dense_scores(exec::cpu{}, as_view(column_major),
                                          dense_inputs<>{.validation = as_view(v)}, rule);
  std::printf("a column-major copy gives the same: %s\n",
              as_eigen(again.data_scores).isApprox(rows, 1e-12) ? "yes" : "no");
}
