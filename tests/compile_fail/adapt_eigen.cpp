// Proves: what lies nowhere in memory, and what would dangle, is no view of an Eigen array.
// Against: an expression, a temporary, a copy held by a Ref, a mapping of bytes as bool.
#include <dualsft/adapt/eigen.hpp>
#include <dualsft/io/npy.hpp>
#include <vector>

// expected-error 1: "dualsft::as_view: this Eigen expression is computed when read and lies nowhere in memory"
// expected-error 2: "use of deleted function" or "call to deleted function"
// expected-error 3: "use of deleted function" or "call to deleted function"
// expected-error 4: "no matching function for call to 'as_eigen"
// expected-error 5: "dualsft::npy_mapping: a byte of a file need not be a valid bool"

using namespace dualsft;

int main() {
  Eigen::MatrixXd x = Eigen::MatrixXd::Zero(3, 2);
#if SHOULD_FAIL == 1
  as_view(2 * x);
#elif SHOULD_FAIL == 2
  as_view(Eigen::MatrixXd(x));
#elif SHOULD_FAIL == 3
  as_view(Eigen::Ref<const Eigen::MatrixXd>(x));
#elif SHOULD_FAIL == 4
  as_eigen(std::vector<double>(3));
#elif SHOULD_FAIL == 5
  npy_reader("x.npy").map<bool>().elements();
#else
  std::vector<double> memory(3);
  as_view(x);
  as_view(x.row(0));
  as_view(Eigen::Ref<Eigen::MatrixXd>(x));
  as_eigen(memory);
#endif
}
