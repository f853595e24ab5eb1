// Proves: ids and decoded texts are those of the `tokenizers` package, for files of every family and
// for each setting that is supported; what is not supported, or broken, is refused by name.
// Against: what tokenizers 0.22.1 gave (data/make_tokenizers.py), and tables of broken files.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dualsft/llm/tokenizer.hpp>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <support/scratch_folder.hpp>
#include <thread>

using namespace dualsft;
using namespace dualsft::llm;
using namespace std::string_literals;
using nlohmann::json;
using namespace nlohmann::literals;

namespace {

namespace parts = dualsft::llm::detail;

const std::string data_folder = DUALSFT_SOURCE_DIR "/tests/llm/data/tokenizers/";
const std::string shared_folder = DUALSFT_SOURCE_DIR "/../shared/data/";

bool exists(const std::string& path) {
  return std::ifstream(path).good();
}

std::string fnv(std::string_view bytes) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

std::string fnv(const std::vector<token_id>& ids) {
  return fnv(bytes_of(std::span<const token_id>(ids)));
}

const json& expected() {
  static const json document = json::parse(file_bytes(data_folder + "expected.json"));
  return document;
}

json base_file(const std::string& name) {
  return json::parse(file_bytes(data_folder + name + ".json"));
}

tokenizer tokenizer_of(const json& test) {
  json file = base_file(test["base"]);
  file.merge_patch(test["patch"]);
  return tokenizer::from_json(file.dump(), test["name"]);
}

// The texts of make_tokenizers.py: random_texts.
std::vector<std::vector<std::string>> random_texts(bool any_point) {
  std::uint64_t state = 20240229;
  const auto draw = [&state](std::uint64_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
  };
  const json& pieces = expected()["pieces"];
  std::vector<std::vector<std::string>> out;
  for (int b = 0; b < expected()["blocks"].get<int>(); ++b) {
    out.emplace_back();
    for (int i = 0; i < expected()["block"].get<int>(); ++i) {
      std::string& text = out.back().emplace_back();
      const std::uint64_t parts = 1 + draw(14);
      for (std::uint64_t p = 0; p < parts; ++p) {
        const json& piece = pieces[draw(pieces.size())];
        if (!piece.is_null()) {
          text += piece.get<std::string>();
          continue;
        }
        const auto c = static_cast<std::uint32_t>(draw(0x30000));
        if (any_point && (c < 0xD800 || c >= 0xE000))
          parts::append_utf8(text, c);
        else
          text += 'z';
      }
    }
  }
  return out;
}

json smallest() {
  return json::parse(R"({"added_tokens": [], "model": {"type": "BPE",
      "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}})");
}

// What tokenizer::from_json says of the file, "" if nothing.
std::string complaint(const std::string& text) {
  try {
    tokenizer::from_json(text, "F");
  } catch (const input_error& error) {
    CHECK(error.file() == "F");
    CHECK(!error.field().empty());
    return error.what();
  }
  return "";
}

std::string complaint(const json& patch) {
  json file = smallest();
  file.merge_patch(patch);
  return complaint(file.dump());
}

bool says(const std::string& text, std::string_view part) {
  const bool found = text.find(part) != text.npos;
  if (!found) MESSAGE("\"" << text << "\" lacks \"" << part << "\"");
  return found;
}

}  // namespace

TEST_CASE("hard strings give the ids of the tokenizers package, in every case") {
  const json& strings = expected()["strings"];
  for (const json& test : expected()["cases"]) {
    CAPTURE(test["name"]);
    const tokenizer t = tokenizer_of(test);
    std::vector<token_id> plain;
    for (std::size_t i = 0; i < strings.size(); ++i) {
      const std::string text = strings[i];
      CAPTURE(dualsft::detail::in_quotes(text));
      const std::vector<token_id> ids = t.encode(text);
      if (test.contains("ids"))
        CHECK(json(ids).dump() == test["ids"][i].dump());
      else
        CHECK(fnv(ids).substr(0, 8) == test["hashes"][i]);
      const std::string decoded =
          t.decode(ids) + "|" + t.decode(ids, {.skip_special_tokens = true});
      CHECK_MESSAGE(fnv(decoded).substr(0, 8) == test["decoded"][i],
                    dualsft::detail::in_quotes(decoded));
      const auto rest = t.encode(text, {.add_special_tokens = false});
      plain.insert(plain.end(), rest.begin(), rest.end());
    }
    if (test.contains("plain")) CHECK(fnv(plain) == test["plain"]);
  }
}

TEST_CASE("random texts give the ids of the tokenizers package, in every case") {
  const auto any = random_texts(true), known = random_texts(false);
  for (const json& test : expected()["cases"]) {
    CAPTURE(test["name"]);
    const tokenizer t = tokenizer_of(test);
    const auto& blocks = test["any_point"].get<bool>() ? any : known;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      CAPTURE(b);
      std::vector<token_id> all;
      for (const std::string& text : blocks[b]) {
        const auto ids = t.encode(text);
        all.insert(all.end(), ids.begin(), ids.end());
      }
      CHECK(fnv(all) == test["random"][b]);
    }
  }
}

TEST_CASE("whole files give the ids of the tokenizers package") {
  if (!exists(shared_folder + "text/wikitext2_test.txt")) {
    MESSAGE("skipped: no ../shared/data beside the repository");
    return;
  }
  std::map<std::string, tokenizer> made;
  made.emplace("gpt2_published",
               tokenizer::from_gpt2_files(shared_folder + "tokenizer/gpt2/encoder.json",
                                          shared_folder + "tokenizer/gpt2/vocab.bpe"));
  for (const json& test : expected()["cases"]) made.emplace(test["name"], tokenizer_of(test));
  for (const json& row : expected()["files"]) {
    CAPTURE(row["case"]);
    CAPTURE(row["file"]);
    const std::string text = file_bytes(shared_folder + row["file"].get<std::string>());
    const tokenizer& t = made.at(row["case"]);
    const auto ids = t.encode(text);
    CHECK(ids.size() == row["count"].get<std::size_t>());
    CHECK(fnv(ids) == row["hash"]);
    // Byte-level tokens lose nothing.
    const std::string name = row["case"];
    if (name == "gpt2_published" || name == "llama3")
      CHECK(t.decode(ids, {.skip_special_tokens = true}) == text);
  }
}

TEST_CASE("the scanners match as PCRE2 does") {
  const auto pieces = [](const parts::text_pattern& pattern, const std::string& text) {
    std::vector<std::string> out;
    parts::split_text(text, pattern, parts::split_behavior::isolated, false,
                      [&](std::string_view piece) { out.emplace_back(piece); });
    return out;
  };
  const std::pair<parts::known_pattern, std::string_view> known[] = {
      {parts::known_pattern::gpt2, parts::gpt2_pattern},
      {parts::known_pattern::llama3, parts::llama3_pattern},
      {parts::known_pattern::qwen2, parts::qwen2_pattern}};
  for (const auto& [name, source] : known) {
    const parts::text_pattern scanner(name);
    // An empty group keeps the meaning and hides the pattern's name.
    const json described = {{"Regex", "(?:)" + std::string(source)}};
    const parts::text_pattern engine(parts::json_field(described, "F", "pattern"));
    for (const auto& block : random_texts(false))
      for (const std::string& text : block) {
        if (pieces(scanner, text) == pieces(engine, text)) continue;
        FAIL_CHECK(dualsft::detail::in_quotes(text));
      }
  }
}

TEST_CASE("classes of characters are PCRE2's, where its Unicode knows the character") {
  char version[32] = "";
  pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
  if (std::atoi(version) > 16) {
    MESSAGE("skipped: PCRE2 knows Unicode " << version << ", the tables know 16");
    return;
  }
  const std::string nowhere = "F", field = "pattern";
  const std::pair<const char*, parts::char_class> classes[] = {
      {"\\p{L}", parts::is_letter}, {"\\p{N}", parts::is_number}, {"\\s", parts::is_space}};
  std::string all;
  for (std::uint32_t c = 0; c < 0x110000; ++c)
    if (c < 0xD800 || c >= 0xE000) parts::append_utf8(all, c);
  const auto members = [&](const char* pattern) {
    std::vector<bool> out(0x110000);
    parts::regex(pattern, nowhere, field).for_each_match(all, [&](std::size_t begin, std::size_t) {
      out[parts::decode_utf8(all.data() + begin).value] = true;
    });
    return out;
  };
  const std::vector<bool> unassigned = members("\\p{Cn}");
  for (const auto& [pattern, bit] : classes) {
    const std::vector<bool> engine = members(pattern);
    int differing = 0;
    for (std::uint32_t c = 0; c < 0x110000; ++c)
      differing += !unassigned[c] && engine[c] != ((parts::char_classes()[c] & bit) != 0);
    CHECK(differing == 0);
  }
}

TEST_CASE("NFC is that of the tokenizers package, for every character and among others") {
  std::string all, space;
  for (std::uint32_t point = 0; point < 0x30000; ++point) {
    if (point >= 0xD800 && point < 0xE000) continue;
    std::string c;
    parts::append_utf8(c, point);
    for (const std::string& text :
         {c, "a\u0346" + c, c + "\u0301", c + "\u0323\u0302", "\u1100" + c + "\u11a8"})
      all.append(parts::to_nfc(text, space)).append("\n");
  }
  CHECK(fnv(all) == expected()["nfc"]);
}

TEST_CASE("bytes: ids are the bytes, and the written file gives the same ids") {
  const tokenizer t = tokenizer::bytes();
  CHECK(t.vocabulary_size() == 259);
  CHECK(t.encode("h\xC3\xA9\n"s + '\0') == std::vector<token_id>{256, 'h', 0xC3, 0xA9, '\n', 0});
  CHECK(t.encode("", {.add_special_tokens = false}).empty());
  CHECK(t.encode("a<|eos|>", {.add_special_tokens = false}) == std::vector<token_id>{'a', 257});
  CHECK(t.bos_id() == 256);
  CHECK(t.eos_id() == 257);
  CHECK(t.id_of("<|pad|>") == 258);
  for (const json& text : expected()["strings"]) {
    const auto ids = t.encode(text.get<std::string>());
    CHECK(t.decode(ids, {.skip_special_tokens = true}).find('<') <= std::string::npos);
    if (text.get<std::string>().find("<|") == std::string::npos)
      CHECK(t.decode(ids, {.skip_special_tokens = true}) == text.get<std::string>());
  }
  const scratch_folder folder;
  t.save(folder / "tokenizer.json");
  const tokenizer again = tokenizer::from_file(folder / "");
  for (const auto& block : random_texts(true))
    for (const std::string& text : block) CHECK(again.encode(text) == t.encode(text));
  // Its hash is that of the file which tokenizers 0.22.1 read, with the ids above.
  CHECK(fnv(file_bytes(folder / "tokenizer.json")) == "484ed5790060283f");
  CHECK_THROWS_AS(again.save(folder / "x.json"), invalid_argument);
}

TEST_CASE("text that is not UTF-8 is refused with its place, or mended") {
  const tokenizer t = tokenizer::bytes();
  const auto mended = [&](std::string_view text) {
    return t.decode(
        t.encode(text, {.add_special_tokens = false, .on_invalid = invalid_utf8::replace}));
  };
  const std::string bad = "\xEF\xBF\xBD";
  // The examples of the Unicode standard, tables 3-8 to 3-11.
  CHECK(mended("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") ==
        bad + bad + bad + bad + bad + bad + bad + bad + "A");
  CHECK(mended("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") ==
        bad + bad + bad + bad + bad + bad + bad + bad + "A");
  CHECK(mended("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") ==
        bad + bad + bad + bad + bad + "A" + bad + bad + "B");
  CHECK(mended("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == bad + bad + bad + bad + "A");
  CHECK(mended("ok \xE2\x82") == "ok " + bad);
  for (const std::string_view text :
       {"abc\xFFxyz", "abc\xC3", "abc\xED\xA0\x80", "abc\xF5\x80\x80\x80"}) {
    CHECK_THROWS_WITH_AS(t.encode(text),
                         "tokenizer::encode: the text must be UTF-8 (first bad byte at = 3)",
                         invalid_argument);
  }
  CHECK_THROWS_AS(t.encode("12345678\x80"), invalid_argument);
}

TEST_CASE("ids, tokens and their kinds") {
  const tokenizer t = tokenizer::from_file(data_folder + "llama3.json");
  CHECK(t.vocabulary_size() == 905);
  CHECK(t.token_of(900) == "<|begin_of_text|>");
  CHECK(t.id_of("<|eot_id|>") == 904);
  CHECK(t.id_of("\xC4\xA0the").has_value());
  CHECK(t.token_of(*t.id_of("\xC4\xA0the")) == "\xC4\xA0the");
  CHECK(!t.id_of("no such token"));
  CHECK(t.is_special(904));
  CHECK(!t.is_special(0));
  CHECK(!t.is_special(905));
  CHECK(t.bos_id() == 900);
  CHECK(t.eos_id() == 901);
  CHECK_THROWS_AS(t.token_of(905), invalid_argument);
  CHECK_THROWS_AS(t.decode(std::vector<token_id>{-1}), invalid_argument);
  CHECK(t.decode(std::vector<token_id>{905, 2'000'000'000}).empty());

  const tokenizer gap = tokenizer::from_json(
      R"({"added_tokens": [{"id": 9, "content": "ab"}, {"id": 10, "content": "<s>", "special": true}],
          "model": {"vocab": {"a": 0, "b": 1, "ab": 9}, "merges": ["a b"]}})",
      "F");
  CHECK(gap.vocabulary_size() == 11);
  CHECK(gap.encode("<s>aab") == std::vector<token_id>{10, 0, 9});
  CHECK(gap.token_of(5).empty());
  CHECK(gap.decode(std::vector<token_id>{9, 5, 10}) == "ab <s>");
  CHECK(!gap.eos_id());
}

TEST_CASE("merges spelt either way are the same") {
  for (const char* name : {"gpt2", "llama2"}) {
    json file = base_file(name);
    for (json& merge : file["model"]["merges"])
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    const tokenizer a = tokenizer::from_file(data_folder + name + ".json");
    const tokenizer b = tokenizer::from_json(file.dump(), name);
    for (const auto& block : random_texts(true))
      for (const std::string& text : block) CHECK(a.encode(text) == b.encode(text));
  }
}

TEST_CASE("many threads share one tokenizer") {
  const tokenizer a = tokenizer::from_file(data_folder + "gpt2.json");
  const tokenizer b = tokenizer::from_file(data_folder + "llama2.json");
  const auto blocks = random_texts(true);
  std::vector<std::vector<token_id>> of_a, of_b;
  for (const std::string& text : blocks[0]) {
    of_a.push_back(a.encode(text));
    of_b.push_back(b.encode(text));
  }
  int wrong[4] = {};
  std::vector<std::thread> threads;
  for (int& count : wrong)
    threads.emplace_back([&] {
      for (int round = 0; round < 5; ++round)
        for (std::size_t i = 0; i < blocks[0].size(); ++i) {
          count += a.encode(blocks[0][i]) != of_a[i];
          count += b.encode(blocks[0][i]) != of_b[i];
        }
    });
  for (std::thread& thread : threads) thread.join();
  for (const int count : wrong) CHECK(count == 0);
}

TEST_CASE("a long word is merged as a short one is, and in time") {
  // Against the definition: of all pairs the lowest rank, leftmost, one merge at a time.
  const json file = base_file("llama2");
  std::map<std::pair<std::string, std::string>, std::size_t> ranks;
  for (std::size_t i = 0; i < file["model"]["merges"].size(); ++i)
    ranks[{file["model"]["merges"][i][0], file["model"]["merges"][i][1]}] = i;
  const tokenizer t = tokenizer::from_file(data_folder + "llama2.json");
  std::mt19937 random(7);
  for (const std::size_t size : {1u, 2u, 63u, 64u, 65u, 66u, 200u, 700u}) {
    std::string text;
    while (text.size() < size) text += "etaoinshrdlu"[random() % 12];
    std::vector<std::string> symbols{"\xE2\x96\x81"};
    for (const char c : text) symbols.emplace_back(1, c);
    for (;;) {
      std::size_t best = SIZE_MAX, place = 0;
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
        const auto found = ranks.find({symbols[i], symbols[i + 1]});
        if (found == ranks.end() || found->second >= best) continue;
        best = found->second;
        place = i;
      }
      if (best == SIZE_MAX) break;
      symbols[place] += symbols[place + 1];
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(place) + 1);
    }
    std::vector<token_id> ids;
    for (const std::string& symbol : symbols) ids.push_back(t.id_of(symbol).value());
    CHECK(t.encode(text, {.add_special_tokens = false}) == ids);
  }
  // Quadratic merging of one word of 500 kB would take half an hour.
  std::string long_text;
  while (long_text.size() < 500'000) long_text += "etaoinshrdlu"[random() % 12];
  const auto begin = std::chrono::steady_clock::now();
  CHECK(t.decode(t.encode(long_text), {.skip_special_tokens = true}) == long_text);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  CHECK(seconds.count() < 60);
}

TEST_CASE("what is not supported is refused by name") {
  const auto refuses = [](const json& patch, std::string_view field, std::string_view name) {
    const std::string text = complaint(patch);
    CHECK(says(text, "F: " + std::string(field) + ": found "));
    CHECK(says(text, name));
  };
  refuses({{"model", {{"type", "Unigram"}}}}, "model.type", "'Unigram'");
  refuses({{"model", {{"type", "WordPiece"}}}}, "model.type", "'WordPiece'");
  refuses({{"normalizer", {{"type", "NFKC"}}}}, "normalizer.type", "'NFKC'");
  refuses({{"normalizer",
            {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}}}},
          "normalizer.normalizers[1].type", "'Lowercase'");
  refuses({{"pre_tokenizer", {{"type", "Whitespace"}}}}, "pre_tokenizer.type", "'Whitespace'");
  refuses(
      {{"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Punctuation"}}}}}}},
      "pre_tokenizer.pretokenizers[0].type", "'Punctuation'");
  refuses({{"pre_tokenizer",
            {{"type", "Sequence"},
             {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "Metaspace"}}}}}}},
          "pre_tokenizer.pretokenizers[1].type", "'Metaspace' behind ByteLevel");
  refuses({{"post_processor", {{"type", "BertProcessing"}}}}, "post_processor.type",
          "'BertProcessing'");
  refuses({{"decoder", {{"type", "WordPiece"}}}}, "decoder.type", "'WordPiece'");
  refuses({{"model", {{"dropout", 0.1}}}}, "model.dropout", "random");
  refuses({{"model", {{"continuing_subword_prefix", "##"}}}}, "model.continuing_subword_prefix",
          "'##'");
  refuses({{"model", {{"end_of_word_suffix", "</w>"}}}}, "model.end_of_word_suffix", "'</w>'");
}

TEST_CASE("broken files are refused with the place") {
  const auto refuses = [](const json& patch, std::string_view part, std::string_view more = "") {
    const std::string text = complaint(patch);
    CHECK(says(text, part));
    CHECK(says(text, more));
  };
  // merges
  json none = smallest();
  none["model"].erase("merges");
  CHECK(says(complaint(none.dump()), "F: model.merges: found nothing"));
  refuses(R"({"model": {"merges": [["a", "b"], ["a", "c"]]}})"_json, "model.merges[1]",
          "the part 'c'");
  refuses(R"({"model": {"merges": [["b", "a"]]}})"_json, "model.merges[0]", "'ba' as its result");
  refuses({{"model", {{"merges", {"a b", "ab ab"}}}}}, "model.merges[1]", "'abab' as its result");
  refuses(R"({"model": {"vocab": {"": 3}, "merges": [["a", ""]]}})"_json, "model.merges[0]",
          "an empty part");
  refuses({{"model", {{"merges", {"ab"}}}}}, "model.merges[0]", "'ab'");
  refuses({{"model", {{"merges", {"a b b"}}}}}, "model.merges[0]", "one space between");
  refuses({{"model", {{"merges", {json::array({"a"})}}}}}, "model.merges[0]", "fewer than two");
  refuses(R"({"model": {"merges": [["a", "b", "ab"]]}})"_json, "model.merges[0]", "a third part");
  refuses(R"({"model": {"merges": [["a", 1]]}})"_json, "model.merges[0]", "two strings");
  refuses(R"({"model": {"merges": [["a", "b"], 7]}})"_json, "model.merges[1]", "found 7");
  refuses({{"model", {{"merges", "a b"}}}}, "model.merges");
  // vocabulary
  refuses({{"model", {{"vocab", {{"c", 1}}}}}}, "the id 1, which 'b' has too");
  refuses({{"model", {{"vocab", {{"c", -1}}}}}}, "model.vocab['c']", "found -1");
  refuses({{"model", {{"vocab", {{"c", 2147483648}}}}}}, "model.vocab['c']", "below 2^31");
  refuses({{"model", {{"vocab", {{"c", 2147483647}}}}}}, "the id 2147483647", "for so few tokens");
  refuses({{"model", {{"vocab", {{"c", 1.5}}}}}}, "model.vocab['c']", "1.5");
  refuses({{"model", {{"vocab", {{"c", "1"}}}}}}, "model.vocab['c']", "a string");
  refuses({{"model", {{"vocab", {{"c", json::array()}}}}}}, "model.vocab['c']", "a list");
  refuses({{"model", {{"vocab", json::array({"a"})}}}}, "model.vocab", "an object of tokens");
  refuses({{"model", {{"vocab", 5}}}}, "model.vocab", "an object of tokens");
  CHECK(says(complaint(R"({"model": {"vocab": {"a": 0, "a": 1}, "merges": []}})"s),
             "the token twice"));
  CHECK(
      says(complaint(R"({"model": {"vocab": {}, "vocab": {}, "merges": []}})"s), "the key twice"));
  // added tokens
  const auto added = [](int id, const char* text) {
    return json{{"id", id}, {"content", text}, {"special", true}};
  };
  refuses({{"added_tokens", {added(4, "<s>")}}}, "added_tokens[0].id: found 4, expected 3");
  refuses({{"added_tokens", {added(3, "ab")}}}, "added_tokens[0].id: found 3, expected 2",
          "in model.vocab");
  refuses({{"added_tokens", {added(3, "<s>"), added(4, "<s>")}}}, "added_tokens[1].content",
          "a second time");
  refuses({{"added_tokens", {added(3, "")}}}, "added_tokens[0].content", "0 bytes");
  refuses({{"added_tokens", {added(-1, "<s>")}}}, "added_tokens[0].id: found -1");
  refuses({{"added_tokens", {{{"id", 3}}}}}, "added_tokens[0].content", "nothing");
  refuses({{"added_tokens", {{{"id", 3}, {"content", "x"}, {"special", 1}}}}},
          "added_tokens[0].special", "true or false");
  refuses({{"added_tokens", 3}}, "added_tokens", "a list");
  // the frame
  const auto frame = [](const json& single, const json& tokens) {
    return json{{"post_processor",
                 {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", tokens}}}};
  };
  const json bos = {{"SpecialToken", {{"id", "s"}}}}, text = {{"Sequence", {{"id", "A"}}}};
  refuses(frame({bos, text}, json::object()), "post_processor.single[0].SpecialToken.id", "'s'");
  refuses(frame({bos, text}, {{"s", {{"ids", {99}}}}}), "post_processor.special_tokens['s'].ids[0]",
          "99");
  refuses(frame(json::array({bos}), {{"s", {{"ids", {0}}}}}), "post_processor.single",
          "no Sequence");
  refuses(frame({text, text}, json::object()), "post_processor.single[1].Sequence.id",
          "behind the text");
  CHECK(complaint(frame({bos, text}, {{"s", {{"ids", {0}}}}})) == "");
  // the rest
  refuses({{"pre_tokenizer",
            {{"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}}}},
          "pre_tokenizer.pattern.Regex");
  refuses({{"pre_tokenizer",
            {{"type", "Split"}, {"pattern", {{"String", ""}}}, {"behavior", "Isolated"}}}},
          "pre_tokenizer.pattern.String", "an empty string");
  refuses({{"pre_tokenizer",
            {{"type", "Split"}, {"pattern", {{"String", "x"}}}, {"behavior", "Sideways"}}}},
          "pre_tokenizer.behavior", "'Sideways'");
  refuses({{"pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "xy"}}}},
          "pre_tokenizer.replacement", "'xy'");
  refuses({{"pre_tokenizer", {{"type", 3}}}}, "pre_tokenizer.type", "a number");
  refuses({{"normalizer", "NFC"}}, "normalizer", "a string");
  refuses({{"model", json::array()}}, "F: model: found a array");
  CHECK(says(complaint(""s), "F: JSON: found"));
  CHECK(says(complaint("[]"s), "F: JSON: found a list"));
  CHECK(says(complaint("{\"a\": \xFF}"s), "F: JSON: found"));
  CHECK(says(complaint(R"({"a": "\ud800"})"s), "F: JSON: found"));
  CHECK(says(complaint("{}\0"s), "a zero byte"));
  CHECK(says(complaint("{\"a\":" + std::string(100'000, '[')), "nested deeper"));
  CHECK(says(complaint("{\"a\":" + std::string(1'000'000, '{')), "F: JSON: found"));
  CHECK(says(complaint(R"({"model": {"vocab": )" + std::string(100'000, '[') + "1"),
             "F: JSON: found"));
  CHECK_THROWS_AS(tokenizer::from_file(data_folder + "absent.json"), input_error);
}

TEST_CASE("patterns that mean something else to PCRE2 are refused, slow ones stopped") {
  const auto file = [](const std::string& pattern) {
    json out = smallest();
    out["pre_tokenizer"] = {
        {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
    return out.dump();
  };
  for (const char* pattern :
       {"\\w+", "\\b", "\\h", "^a", "a$", "[[:alpha:]]", "[a&&b]", "(?m:a)", "(?<n>a)", "\\1",
        "a{,3}", "a{1,3}+", "(*LIMIT_MATCH=1)a", "[\\S]", "[]a]", "\\x41", "\\R", "a\\"}) {
    CAPTURE(pattern);
    CHECK(says(complaint(file(pattern)), "F: pre_tokenizer.pattern.Regex: found '"));
  }
  for (const char* pattern :
       {"\\p{Han}+|\\p{^L}", "[^\\s\\p{L}]+", "(?i:a)(?=b)", "\\u4e00|\\x{41}", "\\S\\s"})
    CHECK(complaint(file(pattern)) == "");
  const tokenizer slow = tokenizer::from_json(file("(a|aa)+[^a]"), "F");
  CHECK_THROWS_AS(slow.encode(std::string(40, 'a')), input_error);
  const tokenizer deep = tokenizer::from_json(file("(?:a|ab)*c|x"), "F");
  CHECK_NOTHROW(deep.encode(std::string(100'000, 'a') + "c"));
  json grows = smallest();
  for (int i = 0; i < 40; ++i)
    grows["normalizer"]["normalizers"].push_back(
        {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}});
  grows["normalizer"]["type"] = "Sequence";
  CHECK_THROWS_AS(tokenizer::from_json(grows.dump(), "F").encode("a"), input_error);
  json unknown = smallest();
  unknown["model"]["unk_token"] = "<unk>";
  CHECK_THROWS_AS(tokenizer::from_json(unknown.dump(), "F").encode("c"), input_error);
  CHECK(tokenizer::from_json(unknown.dump(), "F").encode("ab") == std::vector<token_id>{2});
}
