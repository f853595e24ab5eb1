// Proves: two translation units that include every host header link, so that nothing in a header
// is defined twice. Against: the linker.
#include <everything.hpp>

int value_of_b();

int main() {
  return value_of_b() == 42 ? 0 : 1;
}
