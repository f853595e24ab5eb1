// Proves: every form of record becomes the segments and tokens that the documentation states; a bad
// record is refused with file, line and field, or counted by reason; records keep their numbers and
// their bytes; templates and truncation do what they say.
// Against: texts written out by hand for each form; a table of hostile lines; the same records as
// JSONL, as a list on one line and as a pretty-printed list.
#include <doctest/doctest.h>

#include <dualsft/llm/record_tokens.hpp>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "support/scratch_folder.hpp"

using namespace dualsft;
using namespace dualsft::llm;
using nlohmann::json;

namespace {

record_set read_text(const std::string& text, const record_options& options = {}) {
  const scratch_folder folder;
  return read_records(folder.put("train.jsonl", text), options);
}

/// The segments of a record as one text: «» around what is predicted.
std::string shown(const text_record& record) {
  std::string out;
  for (const segment& s : record.segments) out += s.predicted ? "«" + s.text + "»" : s.text;
  return out;
}

std::string shown(const std::string& line, const record_options& options = {}) {
  const record_set set = read_text(line, options);
  REQUIRE(set.records.size() == 1);
  return shown(set.records[0]);
}

/// "fault: field: found" of the error that a file gives.
std::string refusal(const std::string& text, const record_options& options = {}) {
  const scratch_folder folder;
  const std::string path = folder.put("train.jsonl", text);
  try {
    read_records(path, options);
  } catch (const record_error& error) {
    CHECK(error.file() == path);
    return std::string(name_of(error.fault())) + ": " + error.field() + ": " + error.found();
  } catch (const input_error& error) {
    CHECK(error.file() == path);
    return "file: " + error.field() + ": " + error.found();
  }
  return "accepted";
}

bool starts(const std::string& text, std::string_view with) {
  const bool well = text.starts_with(with);
  if (!well) MESSAGE("in: " << text);
  return well;
}

record_options with_template(const std::string& text) {
  record_options options;
  options.own_template = prompt_template::from_text(text, "t.txt");
  return options;
}

/// One id per byte.
struct byte_encoder {
  std::vector<token_id> encode(std::string_view text) const {
    std::vector<token_id> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
};

struct plain_option {
  bool add_special_tokens = true;
};

/// Adds 1000 in front unless told not to, as tokenizers do.
struct eager_encoder {
  std::vector<token_id> encode(std::string_view text, plain_option option = {}) const {
    std::vector<token_id> ids = byte_encoder{}.encode(text);
    if (option.add_special_tokens) ids.insert(ids.begin(), 1000);
    return ids;
  }
};

text_record record_of(std::vector<segment> segments) {
  text_record record;
  record.segments = std::move(segments);
  return record;
}

using ids = std::vector<token_id>;

}  // namespace

TEST_CASE("each form becomes the text that is documented") {
  CHECK(shown(R"({"prompt": "2+2=", "response": "4"})") == "2+2=«4»");
  CHECK(shown(R"({"question": "Who?", "answer": "Me.\n#### 1"})") ==
        "Question: Who?\nAnswer:\n«Me.\n#### 1»");
  CHECK(shown(R"({"text": "Once upon"})") == "«Once upon»");
  const std::string bare =
      "Below is an instruction that describes a task. Write a response that appropriately "
      "completes the request.\n\n### Instruction:\nAdd\n\n### Response:\n«3»";
  CHECK(shown(R"({"instruction": "Add", "input": "", "output": "3"})") == bare);
  CHECK(shown(R"({"instruction": "Add", "output": "3"})") == bare);
  CHECK(shown(R"({"instruction": "Add", "input": null, "output": "3"})") == bare);
  CHECK(shown(R"({"instruction": "Add", "input": "1 2", "output": "3"})") ==
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n### "
        "Instruction:\nAdd\n\n### Input:\n1 2\n\n### Response:\n«3»");
  CHECK(shown(R"({"text": "\u0000\ud83d\ude00\u00e9é"})") == std::string("«\0😀éé»", 13));
}

TEST_CASE("every answer of a conversation is predicted, and nothing else") {
  const std::string expected =
      "S\n\n### Instruction:\nQ1\n\n### Response:\n«A1»\n\n### Instruction:\nQ2\n\n### "
      "Response:\n«A2»";
  CHECK(shown(R"({"messages": [{"role": "system", "content": "S"}, )"
              R"({"role": "user", "content": "Q1"}, {"role": "assistant", "content": "A1"}, )"
              R"({"role": "user", "content": "Q2"}, {"role": "assistant", "content": "A2"}]})") ==
        expected);
  // ShareGPT's names; a last question that nobody answered is dropped.
  CHECK(shown(R"({"id": "x", "conversations": [{"from": "system", "value": "S"}, )"
              R"({"from": "human", "value": "Q1"}, {"from": "gpt", "value": "A1"}, )"
              R"({"from": "human", "value": "Q2"}, {"from": "gpt", "value": "A2"}, )"
              R"({"from": "human", "value": "Q3"}]})") == expected);
  CHECK(shown(R"({"messages": [{"role": "assistant", "content": "A"}, )"
              R"({"role": "assistant", "content": "B"}]})") == "«A»\n\n«B»");
  // Neighbouring prompts are one segment.
  CHECK(read_text(R"({"messages": [{"role": "system", "content": "S"}, )"
                  R"({"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]})")
            .records[0]
            .segments.size() == 2);
}

TEST_CASE("choice of form") {
  CHECK(shown(R"({"prompt": "p", "response": "r", "text": "t"})") == "p«r»");
  CHECK(shown(R"({"prompt": "p", "text": "t", "id": 7, "extra": [1, {"a": null}]})") == "«t»");
  CHECK(shown(R"({"prompt": "p", "response": null, "text": "t"})") == "«t»");
  CHECK(shown(R"({"prompt": "", "response": "r"})") == "«r»");
}

TEST_CASE("tokens that are there already") {
  const text_record record =
      read_text(R"({"input_ids": [5, 6, 7], "labels": [-100, 6, -100], "attention_mask": [1]})")
          .records[0];
  CHECK(record.tokenized());
  CHECK(record.ids == ids{5, 6, 7});
  CHECK(record.labels == ids{ignored, 6, ignored});

  const auto line = [](const char* a, const char* b) {
    return std::string(R"({"input_ids": )") + a + R"(, "labels": )" + b + "}";
  };
  CHECK(starts(refusal(line("[1, 2]", "[1]")), "wrong value: line 1, field labels: 1 elements"));
  CHECK(starts(refusal(line("[1, -2]", "[1, 2]")), "wrong value: line 1, field input_ids[1]: -2"));
  CHECK(starts(refusal(line("[1, 2.5]", "[1, 2]")), "wrong value: line 1, field input_ids[1]"));
  CHECK(starts(refusal(line("[1, 2147483648]", "[1, 2]")),
               "wrong value: line 1, field input_ids[1]: 2147483648"));
  CHECK(starts(refusal(line("[1, -100]", "[1, 2]")), "wrong value: line 1, field input_ids[1]"));
  CHECK(starts(refusal(line("[1, 2]", "[1, -1]")), "wrong value: line 1, field labels[1]: -1"));
  CHECK(starts(refusal(line("[1, 2, 3]", "[2, 3, -100]")),  // shifted
               "wrong value: line 1, field labels[0]: 2"));
  CHECK(starts(refusal(line("[1, 2]", "[1, -100]")), "empty response: line 1, field labels"));
  CHECK(starts(refusal(line("[]", "[]")), "empty response: line 1, field labels"));
  CHECK(starts(refusal(line("\"ab\"", "[1]")), "wrong value: line 1, field input_ids: 'ab'"));
  CHECK(starts(refusal(R"({"input_ids": [1, 2]})"), "unknown form: line 1, field labels: nothing"));
}

TEST_CASE("a list, on one line or on many, holds the same records as lines do") {
  const json records = {{{"prompt", "a, ] } \" \\"}, {"response", "b\n"}},
                        {{"text", "[{,"}},
                        {{"question", "q"}, {"answer", "é"}}};
  std::string lines;
  for (const json& r : records) lines += r.dump() + "\r\n\n";
  const record_set from_lines = read_text(lines);
  REQUIRE(from_lines.records.size() == 3);
  for (const std::string& text :
       {records.dump(), records.dump(2), "\xef\xbb\xbf \n" + records.dump(4) + "\n\n"}) {
    const record_set from_list = read_text(text);
    REQUIRE(from_list.records.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(shown(from_list.records[i]) == shown(from_lines.records[i]));
      CHECK(from_list.records[i].number == static_cast<index_t>(i));
    }
  }
  CHECK(from_lines.records[2].line == 5);
  CHECK(read_text(records.dump(2)).records[1].line == 6);
}

TEST_CASE("a record can be written out again as it was") {
  const scratch_folder folder;
  const std::string lines =
      "\xef\xbb\xbf{\"text\":  \"x\\n\",\"n\":1.50}\r\n  {\"text\":\"y\"}  \n";
  const record_file jsonl(folder.put("a.jsonl", lines));
  std::vector<std::string> out;
  jsonl.for_each({}, [&](const text_record& r) { out.push_back(jsonl.line_of(r)); });
  CHECK(out == std::vector<std::string>{"{\"text\":  \"x\\n\",\"n\":1.50}", "{\"text\":\"y\"}"});

  const record_file list(
      folder.put("b.json", "[\n  {\n    \"text\": \"a  b\",\r\n    \"n\": 1e2\n  }\n]"));
  out.clear();
  list.for_each({}, [&](const text_record& r) { out.push_back(list.line_of(r)); });
  CHECK(out == std::vector<std::string>{"{ \"text\": \"a  b\", \"n\": 1e2 }"});
}

TEST_CASE("hostile lines: each is refused with its line, field and fault") {
  const std::string good = "{\"text\": \"ok\"}\n";
  const std::pair<std::string, const char*> cases[] = {
      {"{\"text\": \"a\"", "malformed: line 2: "},
      {"{\"text\": \"a\"} {\"text\": \"b\"}", "malformed: line 2: "},
      {"{\"text\": \"\xff\"}", "malformed: line 2: "},
      {"{\"text\": \"\xed\xa0\x80\"}", "malformed: line 2: "},  // a surrogate in UTF-8
      {"{\"text\": \"\xc0\x80\"}", "malformed: line 2: "},      // an overlong zero
      {"{\"text\": \"\\ud800\"}", "malformed: line 2: "},
      {"{\"text\": \"\\udc00\\ud800\"}", "malformed: line 2: "},
      {std::string("{\"text\": \"a\0\"}", 13), "malformed: line 2: a zero byte"},
      {"\xef\xbb\xbf{\"text\": \"a\"}", "malformed: line 2: a byte order mark"},
      {"{\"text\": \"a\", \"text\": \"b\"}", "malformed: line 2, field 'text': the key twice"},
      {"{\"text\": \"a\", \"x\": {\"y\": 1, \"y\": 2}}", "malformed: line 2, field 'y'"},
      {"{\"text\": NaN}", "malformed: line 2: "},
      {"{\"text\": 1e999}", "malformed: line 2: "},
      {"{'text': 'a'}", "malformed: line 2: "},
      {"{\"x\": " + std::string(10000, '['), "malformed: line 2: values nested deeper than 32"},
      {"3", "unknown form: line 2: 3"},
      {"[]", "unknown form: line 2: a list"},
      {"\"text\"", "unknown form: line 2: 'text'"},
      {"{}", "unknown form: line 2: an empty object"},
      {"{\"txt\": \"a\", \"b\\n\": 1}", "unknown form: line 2: the keys 'b\\x0a', 'txt'"},
      {"{\"prompt\": \"a\"}", "unknown form: line 2, field response: nothing"},
      {"{\"response\": \"a\"}", "unknown form: line 2, field prompt: nothing"},
      {"{\"prompt\": \"a\", \"response\": null}", "unknown form: line 2, field response: null"},
      {"{\"instruction\": \"a\", \"response\": \"b\"}", "unknown form: line 2, field output"},
      {"{\"question\": \"a\", \"answer\": 4}", "wrong value: line 2, field answer: 4"},
      {"{\"instruction\": 1, \"output\": \"b\"}", "wrong value: line 2, field instruction: 1"},
      {"{\"instruction\": \"a\", \"input\": {}, \"output\": \"b\"}",
       "wrong value: line 2, field input: an object"},
      {"{\"text\": [\"a\"]}", "wrong value: line 2, field text: a list"},
      {"{\"text\": \"\"}", "empty response: line 2, field text: an empty text"},
      {"{\"prompt\": \"a\", \"response\": \"\"}",
       "empty response: line 2, field response: an empty"},
      {"{\"question\": \"a\", \"answer\": \" \\n\"}", "empty response: line 2, field answer: only"},
      {"{\"messages\": {}}", "wrong value: line 2, field messages: an object"},
      {"{\"messages\": []}", "empty response: line 2, field messages: no turn"},
      {"{\"messages\": [3]}", "wrong value: line 2, field messages[0]: 3"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}",
       "empty response: line 2, field messages"},
      {"{\"messages\": [{\"role\": \"tool\", \"content\": \"q\"}]}",
       "wrong value: line 2, field messages[0].role: 'tool'"},
      {"{\"messages\": [{\"from\": \"user\", \"value\": \"q\"}]}",
       "wrong value: line 2, field messages[0].role: nothing"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": null}]}",
       "wrong value: line 2, field messages[0].content: null"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, "
       "{\"role\": \"assistant\", \"content\": \"\"}]}",
       "empty response: line 2, field messages[1].content"},
      {"{\"conversations\": [{\"from\": \"gpt\", \"value\": [1]}]}",
       "wrong value: line 2, field conversations[0].value: a list"},
  };
  for (const auto& [line, expected] : cases) {
    const std::string shortened = line.substr(0, 100);  // clang 14 captures no structured binding
    CAPTURE(shortened);
    CHECK(starts(refusal(good + line + "\n" + good), expected));

    record_options skip;
    skip.bad = bad_records::skip;
    const record_set set = read_text(good + line + "\n" + good, skip);
    REQUIRE(set.records.size() == 2);
    CHECK(set.records[1].number == 2);  // numbers count bad records too
    CHECK(set.records[1].line == 3);
    CHECK(set.skipped.count() == 1);
    REQUIRE(set.skipped.messages().size() == 1);
    CHECK(set.skipped.messages()[0].find("line 2") != std::string::npos);
  }
}

TEST_CASE("hostile files: what is between records cannot be skipped") {
  record_options skip;
  skip.bad = bad_records::skip;
  const std::pair<std::string, const char*> cases[] = {
      {"", "file: line 1: nothing"},
      {" \n\t\r\n", "file: line 3: nothing"},
      {"\xef\xbb\xbf", "file: line 1: nothing"},
      {std::string("\xff\xfe{\0", 4), "file: encoding: UTF-16"},
      {"[]", "file: line 1: an empty list"},
      {"[", "file: line 1: the end of the file"},
      {"[\n{\"text\": \"a\"}\n", "file: line 3: the end of the file"},
      {"[{\"text\": \"a\"},]", "file: line 1: ']'"},
      {"[,{\"text\": \"a\"}]", "file: line 1: ','"},
      {"[{\"text\": \"a\"},,{\"text\": \"a\"}]", "file: line 1: ','"},
      {"[{\"text\": \"a\"}]\n{\"text\": \"b\"}", "file: line 2: text behind the list"},
      {"[{\"text\": \"a\"}}]", "file: line 1: '}'"},
      {"[{\"text\": \"a\n]", "file: line 2: the end of the file"},
      {"[{\"text\": \"a\\", "file: line 1: the end of the file"},
      {"{\"txt\": 1}\n{\"txt\": 2}\n", "file: records: none of use"},
  };
  for (const auto& [text, expected] : cases) {
    const std::string content = text;
    CAPTURE(content);
    CHECK(starts(refusal(text, skip), expected));
  }
  CHECK_THROWS_AS(read_records("/nonexistent/train.jsonl"), input_error);

  // A broken element of a list ends where its comma is.
  const record_set set = read_text(R"([{"text": "a"}, {"text": }, {"text": "c"}])", skip);
  CHECK(set.records.size() == 2);
  CHECK(set.skipped.count(record_fault::malformed) == 1);
}

TEST_CASE("skipped records are counted by reason; the first few messages are kept") {
  std::string text = "{\"text\": \"ok\"}\n";
  for (int i = 0; i < 40; ++i) text += "{\"text\": \"\"}\n";
  for (int i = 0; i < 3; ++i) text += "{]\n";
  record_options skip;
  skip.bad = bad_records::skip;
  const record_set set = read_text(text, skip);
  CHECK(set.skipped.count(record_fault::empty_response) == 40);
  CHECK(set.skipped.count(record_fault::malformed) == 3);
  CHECK(set.skipped.count(record_fault::too_long) == 0);
  CHECK(set.skipped.count() == 43);
  CHECK(set.skipped.messages().size() == skipped_records::most_messages);
  CHECK(set.skipped.messages()[0].find("line 2, field text") != std::string::npos);
}

TEST_CASE("a record may have so many bytes and no more") {
  record_options options;
  options.longest_record = 13;  // {"text": "ok"} has 14
  CHECK(starts(refusal("{\"text\":\"ok\"}\n{\"text\": \"ok\"}", options),
               "too long: line 2: 14 bytes"));
}

TEST_CASE("own templates") {
  const record_options qa = with_template("Q: {question}\nA:{response}\n");
  CHECK(shown(R"({"question": "q {input}", "answer": "a"})", qa) == "Q: q {input}\nA:«a»");
  CHECK(shown(R"({"prompt": "p", "response": "r"})", qa) == "Q: p\nA:«r»");
  CHECK(shown(R"({"instruction": "i", "output": "o"})", qa) == "Q: i\nA:«o»");
  // No {input}: the input is not lost.
  CHECK(shown(R"({"instruction": "i", "input": "x", "output": "o"})", qa) == "Q: i\nx\nA:«o»");
  CHECK(shown(R"({"text": "t"})", qa) == "«t»");

  const record_options full =
      with_template("\xef\xbb\xbf{{{instruction}}}\r\n[{input}]{instruction} {output}\r\n");
  CHECK(shown(R"({"instruction": "i", "input": "x", "output": "o"})", full) == "{i}\r\n[x]i «o»");
  CHECK(shown(R"({"instruction": "i", "output": "o"})", full) == "{i}\r\n[]i «o»");
}

TEST_CASE("hostile templates") {
  const std::pair<std::string, const char*> cases[] = {
      {"", "template: found no response"},
      {"{prompt}", "template: found no response"},
      {"{response}", "template: found no request"},
      {"a\n{promt}{response}", "line 2: found '{promt}'"},
      {"{ prompt }{response}", "line 1: found '{ prompt }'"},
      {"{}{response}", "line 1: found '{}'"},
      {"{prompt}{response} ", "line 1: found text behind"},
      {"{prompt}{response}\n\n", "line 1: found text behind"},
      {"{prompt}{response}{response}", "line 1: found text behind"},
      {"{prompt}\n{answer}\nx{response}", "line 2: found text behind"},
      {"}{prompt}{response}", "line 1: found a lone '}'"},
      {"{prompt}{response", "line 1: found a lone '{'"},
      {"{prompt}{\nresponse}", "line 1: found a lone '{'"},
      {"{prompt{response}", "line 1: found a lone '{'"},
      {"\xff{prompt}{response}", "template: found bytes that are not UTF-8"},
  };
  for (const auto& [text, expected] : cases) {
    const std::string content = text;
    CAPTURE(content);
    std::string message = "accepted";
    try {
      prompt_template::from_text(text, "t.txt");
    } catch (const input_error& error) {
      message = error.what();
    }
    CHECK(starts(message, "t.txt: " + std::string(expected)));
  }
  const scratch_folder folder;
  CHECK(prompt_template::from_file(folder.put("t.txt", "{prompt}-{response}\n")).prompt("p", "") ==
        "p-");
  CHECK_THROWS_AS(prompt_template::from_file(folder / "none.txt"), input_error);
  CHECK_THROWS_AS(prompt_template::from_file(folder.put("big", std::string(2u << 20, 'x'))),
                  input_error);
}

TEST_CASE("tokens and labels") {
  const text_record record = record_of({{"ab", false}, {"c", true}, {"d", false}, {"e", true}});
  tokenize_options options;
  tokenized_record t = tokenize_record(record, byte_encoder{}, options);
  CHECK(t.tokens.ids == ids{'a', 'b', 'c', 'd', 'e'});
  CHECK(t.tokens.labels == ids{ignored, ignored, 'c', ignored, 'e'});
  CHECK(t.cut == 0);
  CHECK(t.response == 2);

  options.bos = 256;
  options.eos = 257;
  t = tokenize_record(record, byte_encoder{}, options);
  CHECK(t.tokens.ids == ids{256, 'a', 'b', 'c', 257, 'd', 'e', 257});
  CHECK(t.tokens.labels == ids{ignored, ignored, ignored, 'c', 257, ignored, 'e', 257});
  CHECK(t.response == 4);

  options.train_on_prompt = true;
  t = tokenize_record(record, byte_encoder{}, options);
  CHECK(t.tokens.labels == ids{ignored, 'a', 'b', 'c', 257, 'd', 'e', 257});
  CHECK(t.response == 4);

  // The first token is never predicted: nothing stands before it.
  t = tokenize_record(record_of({{"xy", true}}), byte_encoder{}, {});
  CHECK(t.tokens.labels == ids{ignored, 'y'});
  CHECK(t.response == 1);
  t = tokenize_record(record_of({{"x", true}}), byte_encoder{}, {});
  CHECK(t.response == 0);

  // A function will do, and an encoder that adds tokens is told not to.
  const auto lambda = [](std::string_view text) { return byte_encoder{}.encode(text); };
  CHECK(tokenize_record(record, lambda, options).tokens.ids ==
        tokenize_record(record, eager_encoder{}, options).tokens.ids);
}

TEST_CASE("what is cut is counted") {
  const text_record record = record_of({{"abc", false}, {"defg", true}});
  tokenize_options options;
  options.eos = 257;
  for (index_t n = 2; n <= 10; ++n) {
    options.max_length = n;
    const tokenized_record t = tokenize_record(record, byte_encoder{}, options);
    CHECK(static_cast<index_t>(t.tokens.ids.size()) == std::min(n, index_t{8}));
    CHECK(t.tokens.labels.size() == t.tokens.ids.size());
    CHECK(t.cut == std::max(index_t{0}, 8 - n));
    CHECK(t.response == std::max(index_t{0}, std::min(n, index_t{8}) - 3));
    CHECK(t.response == t.tokens.response_size());
  }
  options.max_length = 1;
  CHECK_THROWS_AS(tokenize_record(record, byte_encoder{}, options), invalid_argument);
}

TEST_CASE("a set of tokens: numbers, cuts, and records with nothing left to predict") {
  const record_set set = read_text(
      "{\"prompt\": \"ab\", \"response\": \"cdefg\"}\n"
      "{\"prompt\": \"0123456\", \"response\": \"x\"}\n"
      "{\"text\": \"q\"}\n"
      "{\"input_ids\": [1, 2, 3, 4, 5, 6], \"labels\": [-100, -100, 3, 4, 5, 6]}\n"
      "{\"input_ids\": [1, 2, 3, 4, 5, 6], \"labels\": [-100, -100, -100, -100, -100, 6]}\n");
  tokenize_options options;
  options.max_length = 5;
  const token_set tokens = tokenize_records(set, byte_encoder{}, options, bad_records::skip);
  CHECK(tokens.numbers == std::vector<index_t>{0, 3});
  CHECK(tokens.records[0].labels == ids{ignored, ignored, 'c', 'd', 'e'});
  CHECK(tokens.records[1].labels == ids{ignored, ignored, 3, 4, 5});
  CHECK(tokens.cut_records == 2);
  CHECK(tokens.cut_tokens == 3);
  CHECK(tokens.skipped.count(record_fault::response_cut) == 2);
  CHECK(tokens.skipped.count(record_fault::empty_response) == 1);

  const auto refused_at = [&](index_t max_length) {
    options.max_length = max_length;
    try {
      tokenize_records(set, byte_encoder{}, options);
    } catch (const record_error& error) {
      CHECK(error.file() == set.file);
      return std::string(name_of(error.fault())) + ": " + error.field() + ": " + error.found();
    }
    return std::string("accepted");
  };
  CHECK(refused_at(5) ==
        "response cut away: line 2, field response: nothing of it within the first 5 of 8 tokens");
  CHECK(refused_at(100) == "empty response: line 3, field response: no token to predict");

  // A model that knows no 'g': text and tokens alike are bad records, named by their lines.
  options.vocabulary = 'g';
  CHECK(refused_at(7) == "unknown token: line 1: token id 103 at 6");
  options.vocabulary = 5;
  options.max_length = 6;
  const token_set none =
      tokenize_records(read_text("{\"input_ids\": [1, 2, 5], \"labels\": [-100, 2, 5]}\n"
                                 "{\"input_ids\": [1, 2, 4], \"labels\": [-100, 2, 4]}\n"),
                       byte_encoder{}, options, bad_records::skip);
  CHECK(none.numbers == std::vector<index_t>{1});
  CHECK(none.skipped.count(record_fault::unknown_token) == 1);
  CHECK(none.skipped.messages().front().find("line 1, field input_ids: found token id 5 at 2") !=
        std::string::npos);
  options.vocabulary = std::numeric_limits<index_t>::max();

  // With loss on the prompt too, a record that lost its response still is a bad one.
  options.train_on_prompt = true;
  CHECK(starts(refused_at(5), "response cut away: line 2"));

  // Labels that came with the tokens stay as they are.
  options.max_length = 100;
  const token_set kept = tokenize_records(set, byte_encoder{}, options, bad_records::skip);
  CHECK(kept.records.back().response_size() == 1);
  token_corpus corpus;
  for (const token_record& r : kept.records) CHECK_NOTHROW(corpus.add(r));
}

TEST_CASE("published data sets: as many records as Python's json finds in them") {
  struct row {
    const char* file;
    index_t records, skipped;
  };
  const row rows[] = {
      {"gsm8k/train.jsonl", 7473, 0},        {"instruct/t0_mix.jsonl", 17685, 0},
      {"code/code_alpaca_2k.json", 2015, 2},  // two outputs are empty
      {"code/new_codealpaca.json", 4035, 0}, {"instruct/instruction_data.json", 1100, 0},
      {"bioinstruct/subset.json", 2101, 0},
  };
  for (const row& r : rows) {
    const std::string path = std::string(DUALSFT_SOURCE_DIR "/../shared/data/") + r.file;
    if (!std::filesystem::exists(path)) {
      MESSAGE("skipped, absent: " << path);
      continue;
    }
    CAPTURE(path);
    record_options skip;
    skip.bad = bad_records::skip;
    const record_set set = read_records(path, skip);
    CHECK(static_cast<index_t>(set.records.size()) == r.records);
    CHECK(set.skipped.count(record_fault::empty_response) == r.skipped);
    CHECK(set.skipped.count() == r.skipped);
    // A record's own line is the same record.
    const record_file file(path);
    CHECK(shown(file.line_of(set.records.back())) == shown(set.records.back()));
  }
}
