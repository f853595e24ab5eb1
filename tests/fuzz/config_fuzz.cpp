// Proves: no sequence of bytes makes the reader of config.json crash, recurse or allocate without
// bound, or throw anything but input_error; what it accepts is a valid configuration whose layout
// can be built.
// Against: AddressSanitizer, UndefinedBehaviorSanitizer and the conditions in must().
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <dualsft/llm/checkpoint.hpp>
#include <dualsft/llm/config_reader.hpp>
#include <dualsft/llm/parameter_names.hpp>
#include <string_view>

#include "memory_path.hpp"

using namespace dualsft;
using namespace dualsft::llm;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const model_config config = read_model_config_text(text, "config.json");
    config.validate();
    must(static_cast<index_t>(config.windows.size()) == config.layers);
    if (config.head_size <= 4096)
      for (const double f : config.rope.frequencies(config.head_size)) must(!std::isnan(f));
    if (config.layers <= 64) {
      const transformer_map map = map_transformer(config);
      must(map.layout.size() > 0);
      must(static_cast<index_t>(map.layers.size()) == config.layers);
    }
    // The text part of what was accepted means the same.
    const model_config again =
        read_model_config_text(text_model_config(text, "config.json"), "config.json");
    must(again.width == config.width && again.windows == config.windows &&
         again.eos_ids == config.eos_ids && again.tied_head == config.tied_head);
  } catch (const input_error& error) {
    must(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  return 0;
}
