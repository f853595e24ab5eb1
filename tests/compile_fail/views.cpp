// Proves: constness and memory space are part of a view's type, so mixing them does not compile.
// Against: functions that take one kind of view and are given another.
#include <dualsft/views.hpp>
#include <vector>

// expected-error 1: "could not convert" or "no matching function for call to 'write'"
// expected-error 2: "could not convert" or "no matching function for call to 'read'"
// expected-error 3: "could not convert" or "no matching function for call to 'read_device'"
// expected-error 4: "no match for 'operator[]'" or "does not provide a subscript operator" or "no viable overloaded operator[]"
// expected-error 5: "could not convert" or "no matching function for call to 'write'"
// expected-error 6: "could not convert" or "no matching function for call to 'read_matrix'"

using namespace dualsft;

void write(vector_view<double>) {}
void read(vector_view<const double>) {}
void read_device(vector_view<const double, device_space>) {}
void read_matrix(matrix_view<const double>) {}

int main() {
  std::vector<double> x(3);
  [[maybe_unused]] const vector_view<const double> constant(x);
  [[maybe_unused]] const vector_view<double, device_space> device(nullptr, 3);
  [[maybe_unused]] const matrix_view<double, device_space> device_matrix(nullptr, 3, 3);
#if SHOULD_FAIL == 1
  write(constant);
#elif SHOULD_FAIL == 2
  read(device);
#elif SHOULD_FAIL == 3
  read_device(vector_view<double>(x));
#elif SHOULD_FAIL == 4
  return device[0] > 0;
#elif SHOULD_FAIL == 5
  const std::vector<double> cx(3);
  write(cx);
#elif SHOULD_FAIL == 6
  read_matrix(device_matrix);
#else
  write(x);
  read(vector_view<double>(x));
  read_device(device);
  read_matrix(matrix_view<double>(x.data(), 1, 3));
#endif
}
