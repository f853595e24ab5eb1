// Proves: no sequence of bytes makes the .npy reader crash, read out of bounds or throw anything but
// input_error; what it accepts can be read in full, and again after writing.
// Against: AddressSanitizer, UndefinedBehaviorSanitizer and the conditions in must().
#include <algorithm>
#include <cmath>
#include <cstring>
#include <dualsft/io/npy.hpp>
#include <memory>
#include <string>
#include <vector>

#include "memory_path.hpp"

using namespace dualsft;

namespace {

template <NpyElement T>
void read_all(const npy_reader& reader) {
  // The file holds every element, so the file's own size bounds this.
  const auto n = static_cast<std::size_t>(reader.size());
  const auto out = std::make_unique<T[]>(n);
  reader.read(0, std::span(out.get(), n));
  if (reader.shape().size() == 2) {
    const index_t rows = reader.rows(), cols = reader.cols();
    const index_t height = rows - rows / 3, width = cols - cols / 3;
    const auto part = std::make_unique<T[]>(static_cast<std::size_t>(height * width));
    const matrix_view<T> transposed(part.get(), height, width, 1, height);
    reader.read_rectangle(rows / 3, cols / 3, transposed);
    for (index_t i = 0; i < height * std::min<index_t>(width, 1); ++i)
      for (index_t j = 0; j < width; ++j) {
        const index_t row = rows / 3 + i, col = cols / 3 + j;
        const index_t at = reader.order() == array_order::c ? row * cols + col : col * rows + row;
        must(std::memcmp(&transposed(i, j), &out[static_cast<std::size_t>(at)], sizeof(T)) == 0);
      }
  }
  if constexpr (!std::same_as<T, bool>) {
    try {
      const auto mapping = reader.map<T>();
      must(n == 0 || std::memcmp(mapping.elements().data(), out.get(), n * sizeof(T)) == 0);
    } catch (const input_error&) {  // not aligned
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const memory_path file(data, size);
  try {
    const npy_reader reader(file.path());
    switch (reader.type()) {
      case npy_type::float32: {
        read_all<float>(reader);
        std::vector<double> wide(static_cast<std::size_t>(reader.size()));
        reader.read(0, std::span(wide));
        require_finite(file.path(), vector_view<const double>(wide));
        break;
      }
      case npy_type::float64:
        read_all<double>(reader);
        break;
      case npy_type::int64:
        read_all<std::int64_t>(reader);
        break;
      case npy_type::boolean:
        read_all<bool>(reader);
        break;
    }
  } catch (const input_error& error) {
    must(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  return 0;
}
