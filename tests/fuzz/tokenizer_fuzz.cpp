// Proves: no sequence of bytes makes the tokenizer.json reader crash, read out of bounds, run away or
// throw anything but input_error; what it accepts encodes and decodes texts with ids of its own.
// Against: AddressSanitizer, UndefinedBehaviorSanitizer, libFuzzer's limits and the conditions in
// must().
#include <dualsft/llm/tokenizer.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "memory_path.hpp"

using namespace dualsft;
using namespace dualsft::llm;
using namespace std::string_view_literals;

namespace {

void exercise(const tokenizer& t, std::string_view text) {
  try {
    const auto ids = t.encode(text, {.on_invalid = invalid_utf8::replace});
    for (const token_id id : ids) must(!t.token_of(id).empty() && t.id_of(t.token_of(id)) == id);
    must(ids == t.encode(text, {.on_invalid = invalid_utf8::replace}));  // cached words
    for (const bool skip : {false, true}) {
      const std::string back = t.decode(ids, {.skip_special_tokens = skip});
      must(llm::detail::find_invalid_utf8(back) == std::string::npos);
    }
  } catch (const input_error&) {  // a pattern too slow, a rule that grows
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const tokenizer t = tokenizer::from_json(text, "fuzz");
    exercise(t, "");
    exercise(
        t,
        " Hello  world's\n\n  12345 <s>a</s>\t\xC3\xA9 e\xCC\x81\xCC\xA3 <0x0A>\0 \xE2\x96\x81 ab abab "sv);
    exercise(t,
             "\xE6\x88\x91\xE4\xBB\xAC \xED\x95\x9C\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB "
             "\xF0\x9F\x98\x80\xFF\xC3");
    exercise(t, std::string(300, 'a') + std::string(100, ' ') + std::string(100, 'b'));
    exercise(t, text.substr(0, 4096));
    for (token_id id = 0; id < std::min<index_t>(t.vocabulary_size(), 512); ++id)
      (void)t.token_of(id);
    (void)t.bos_id();
    (void)t.eos_id();
  } catch (const input_error& error) {
    must(error.file() == "fuzz");
  }
  return 0;
}
