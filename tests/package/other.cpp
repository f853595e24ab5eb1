// A second translation unit: the umbrella is linked twice.
#include <dualsft/dualsft.hpp>

int size_seen_elsewhere();
int size_seen_elsewhere() {
  return 3;
}
