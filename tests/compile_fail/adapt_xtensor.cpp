// Proves: what lies nowhere in memory, and what would dangle, is no view of an xtensor array.
// Against: an expression, scattered rows, an array whose rank the compiler does not know, temporaries.
#include <dualsft/adapt/xtensor.hpp>
#include <vector>

// expected-error 1: "dualsft::as_view: this xtensor expression is computed when read, or scattered"
// expected-error 2: "dualsft::as_view: this xtensor expression is computed when read, or scattered"
// expected-error 3: "for an xarray, whose rank is known at run time, say as_matrix_view or as_vector_view"
// expected-error 4: "use of deleted function" or "call to deleted function"
// expected-error 5: "use of deleted function" or "call to deleted function"
// expected-error 6: "no matching function for call to 'as_xtensor"

using namespace dualsft;

int main() {
  xt::xtensor<double, 2> x{{1, 2}, {3, 4}, {5, 6}};
  xt::xarray<double> y = x;
#if SHOULD_FAIL == 1
  as_view(2 * x);
#elif SHOULD_FAIL == 2
  auto scattered = xt::view(x, xt::keep(0, 2), xt::all());
  as_matrix_view(scattered);
#elif SHOULD_FAIL == 3
  as_view(y);
#elif SHOULD_FAIL == 4
  as_view(xt::xtensor<double, 2>(x));
#elif SHOULD_FAIL == 5
  as_matrix_view(xt::view(xt::xarray<double>(y), xt::all(), xt::range(0, 1)));
#elif SHOULD_FAIL == 6
  as_xtensor(std::vector<double>(3));
#else
  std::vector<double> memory(3);
  as_view(x);
  as_matrix_view(xt::view(y, xt::all(), xt::range(0, 1)));
  as_xtensor(memory);
#endif
}
