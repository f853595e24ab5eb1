// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <dualsft/io/mapped_file.hpp>
#include <dualsft/llm/detail/byte_alphabet.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

/// tokenizer.json texts that are made rather than read.
namespace dualsft::llm::detail {

inline bool is_folder(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

inline std::string special_token_json(int id, std::string_view text) {
  return "{\"id\":" + std::to_string(id) + ",\"content\":\"" + std::string(text) +
         "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
         "\"special\":true}";
}

inline std::string json_text(std::string_view text) {
  return nlohmann::json(text).dump();
}

/// Bytes as tokens in the byte alphabet, no merges, <|bos|> in front.
inline std::string bytes_json() {
  std::string out =
      "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[" +
      special_token_json(256, "<|bos|>") + "," + special_token_json(257, "<|eos|>") + "," +
      special_token_json(258, "<|pad|>") +
      "],\n\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"
      "false,"
      "\"trim_offsets\":true,\"use_regex\":false},\n\"post_processor\":{\"type\":"
      "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<|bos|>\",\"type_id\":0}},"
      "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"SpecialToken\":{\"id\":\"<|bos|>"
      "\","
      "\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\","
      "\"type_id\":1}}],\"special_tokens\":{\"<|bos|>\":{\"id\":\"<|bos|>\",\"ids\":[256],"
      "\"tokens\":[\"<|bos|>\"]}}},\n\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
      "\"trim_offsets\":true,\"use_regex\":true},\n\"model\":{\"type\":\"BPE\",\"dropout\":null,"
      "\"unk_token\":null,\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
      "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,\"vocab\":{";
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::string character;
    append_utf8(character, byte_alphabet::get().points[byte]);
    out.append(byte == 0 ? "" : ",").append(json_text(character)).append(":");
    out += std::to_string(byte);
  }
  return out + "},\"merges\":[]}}\n";
}

inline std::string_view file_text(const mapped_file& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

/// One tokenizer.json of GPT-2's two files.
inline std::string gpt2_json(const std::string& encoder_path, const std::string& merges_path) {
  const mapped_file encoder(encoder_path), merges(merges_path);
  std::string out =
      "{\"added_tokens\":[" + special_token_json(50256, "<|endoftext|>") +
      "],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":"
      "{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"merges\":[";
  std::string_view rest = file_text(merges);
  bool first = true;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (number == 1 && line.starts_with('#'))) continue;
    if (find_invalid_utf8(line) != line.npos)
      throw input_error(merges_path, "line " + std::to_string(number),
                        dualsft::detail::in_quotes(line), "UTF-8");
    out.append(first ? "" : ",").append(json_text(line));
    first = false;
  }
  return out.append("],\"vocab\":").append(file_text(encoder)).append("}}");
}

}  // namespace dualsft::llm::detail
