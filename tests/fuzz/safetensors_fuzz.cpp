// Proves: no sequence of bytes makes the safetensors reader, or that of the index of shards, crash,
// read out of bounds or throw anything but input_error; what it accepts can be read in full.
// Against: AddressSanitizer, UndefinedBehaviorSanitizer and the conditions in must().
#include <dualsft/io/safetensors.hpp>
#include <string>
#include <vector>

#include "memory_path.hpp"

using namespace dualsft;

namespace {

template <TensorElement T>
void read_as(const safetensors_reader& reader, const tensor_info& tensor) {
  std::vector<T> out(static_cast<std::size_t>(tensor.size));
  try {
    reader.read(tensor.name, std::span(out));
  } catch (const input_error&) {  // of another type
  }
  try {
    const auto view = reader.view<T>(tensor.name);
    for (index_t i = 0; i < view.size(); ++i) out[static_cast<std::size_t>(i)] = view[i];
  } catch (const input_error&) {  // of another type, or not aligned
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const memory_path file(data, size);
  try {
    const safetensors_reader reader(file.path());
    index_t covered = 0;
    for (const tensor_info& tensor : reader.tensors()) {
      must(reader.find(tensor.name) == &tensor);
      must(tensor.size >= 0 && tensor.bytes <= static_cast<index_t>(size));
      covered += tensor.bytes;
      read_as<double>(reader, tensor);
      read_as<float>(reader, tensor);
      read_as<float16>(reader, tensor);
      read_as<bfloat16>(reader, tensor);
      read_as<std::int64_t>(reader, tensor);
      read_as<std::uint8_t>(reader, tensor);
    }
    must(covered <= static_cast<index_t>(size));
  } catch (const input_error& error) {
    must(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }

  // The same bytes as an index. Only the parser: shards on this machine are not the fuzzer's.
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    detail::weight_map_parser parser(file.path());
    parser.read(text);
    for (const auto& [tensor, shard] : parser.entries)
      must(!shard.empty() && shard.front() != '/' && !shard.starts_with("../") && shard != ".." &&
           !shard.ends_with("/..") && shard.find("/../") == std::string::npos);
  } catch (const input_error& error) {
    must(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  return 0;
}
