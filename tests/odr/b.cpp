// The second translation unit of a.cpp.
#include <everything.hpp>

int value_of_b();
int value_of_b() {
  return 42;
}
