// Proves: a program outside the project builds with the package alone, and gets the headers of the
// version that the package reports. Against: the version that CMake read.
#include <dualsft/dualsft.hpp>
#include <string>
#include <vector>

int size_seen_elsewhere();

int main() {
  const std::string version = std::to_string(DUALSFT_VERSION_MAJOR) + "." +
                              std::to_string(DUALSFT_VERSION_MINOR) + "." +
                              std::to_string(DUALSFT_VERSION_PATCH);
  const std::vector<double> scores{1, 2, 3};
  const dualsft::vector_view<const double> view(scores);
  return version == EXPECTED_VERSION && view.size() == size_seen_elsewhere() ? 0 : 1;
}
