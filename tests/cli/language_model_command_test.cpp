// Proves: `dualsft init` writes a checkpoint that `dualsft evaluate` reads back as the same model, the
// same seed gives the same bytes, and bad input gets its exit code and one line. Against: the
// library's own transformer on hand-made tokens; interface of files and exit codes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <dualsft/llm/checkpoint.hpp>
#include <dualsft/llm/config_reader.hpp>
#include <dualsft/llm/transformer.hpp>
#include <nlohmann/json.hpp>

#include "program.hpp"

using namespace dualsft;
using namespace dualsft::llm;

namespace {

constexpr const char* config_text = R"({"model_type": "llama", "vocab_size": 259, "hidden_size": 16,
  "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "max_position_embeddings": 128})";

struct bench {
  scratch_folder folder;
  program dualsft{folder};

  bench() { folder.put("config.json", config_text); }

  program::outcome init(const std::string& seed, const std::string& out) const {
    return dualsft.run(
        {"init", "--config", "config.json", "--tokenizer", "bytes", "--seed", seed, "--out", out});
  }
  program::outcome evaluate(std::vector<std::string> more) const {
    std::vector<std::string> words{"evaluate",   "--model",   "m", "--data",
                                   "data.jsonl", "--threads", "2"};
    words.insert(words.end(), more.begin(), more.end());
    return dualsft.run(words);
  }
};

void is_refused(const program::outcome& found, int code, const std::string& reason) {
  INFO(found.err);
  CHECK(found.code == code);
  CHECK(found.err.find(reason) != std::string::npos);
  CHECK(std::ranges::count(found.err, '\n') == 1);
  CHECK(found.out.empty());
}

}  // namespace

// Tolerance: float32 weights, all sums in double.
TEST_CASE("what init wrote is what evaluate measures") {
  const bench b;
  REQUIRE(b.init("3", "m").code == 0);
  b.folder.put("data.jsonl", "{\"prompt\": \"ab\", \"response\": \"cde\"}\n{\"text\": \"xy\"}\n");
  const auto found = b.evaluate(
      {"--precision", "float64", "--json", "--generate", "exact-match", "--max-new-tokens", "4"});
  INFO(found.err);
  REQUIRE(found.code == 0);
  const auto summary = nlohmann::json::parse(found.out);

  token_corpus corpus;  // bos, bytes, eos behind what is predicted
  corpus.add(
      {{256, 'a', 'b', 'c', 'd', 'e', 257}, {ignored, ignored, ignored, 'c', 'd', 'e', 257}});
  corpus.add({{256, 'x', 'y', 257}, {ignored, 'x', 'y', 257}});
  transformer<double> model(read_model_config(b.folder / "m"),
                            std::make_shared<const token_corpus>(std::move(corpus)));
  read_weights(safetensors_checkpoint(b.folder / "m"), model.layout(), model.parameters());
  std::vector<double> losses(2);
  model.losses(std::vector<index_t>{0, 1}, losses);
  CHECK(summary["records"] == 2);
  CHECK(summary["response_tokens"] == 7);
  CHECK(summary["loss"].get<double>() ==
        doctest::Approx((losses[0] + losses[1]) / 2).epsilon(1e-12));
  const double token_loss = (4 * losses[0] + 3 * losses[1]) / 7;
  CHECK(summary["perplexity"].get<double>() ==
        doctest::Approx(std::exp(token_loss)).epsilon(1e-12));
  CHECK(summary["exact_match"] == 0.0);  // four random bytes
}

TEST_CASE("the seed decides the weights") {
  const bench b;
  REQUIRE(b.init("3", "m").code == 0);
  REQUIRE(b.init("3", "n").code == 0);
  REQUIRE(b.init("4", "o").code == 0);
  for (const std::string file : {"model.safetensors", "config.json", "tokenizer.json"})
    CHECK(file_bytes(b.folder / ("m/" + file)) == file_bytes(b.folder / ("n/" + file)));
  CHECK(file_bytes(b.folder / "m/model.safetensors") !=
        file_bytes(b.folder / "o/model.safetensors"));
}

TEST_CASE("bad input is 3, wrong usage 2, each with one line that names the place") {
  const bench b;
  REQUIRE(b.init("3", "m").code == 0);
  is_refused(b.evaluate({}), 3, "data.jsonl");
  b.folder.put("data.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": 1}\n");
  is_refused(b.evaluate({}), 3, "line 2");
  CHECK(b.evaluate({"--skip-bad"}).out.find("skipped 1") != std::string::npos);
  b.folder.put("data.jsonl", "{\"prompt\": \"a\", \"response\": \"\"}\n");
  is_refused(b.evaluate({}), 3, "response");
  b.folder.put("data.jsonl", "{\"prompt\": \"abcdef\", \"response\": \"g\"}\n");
  is_refused(b.evaluate({"--max-length", "5"}), 3, "within the first 5");
  b.folder.put("data.jsonl", "{\"input_ids\": [1, 300], \"labels\": [-100, 300]}\n");
  is_refused(b.evaluate({}), 3, "300");
  is_refused(b.evaluate({"--generate", "nonsense"}), 2, "exact-match");

  const std::string weights = file_bytes(b.folder / "m/model.safetensors");
  b.folder.put("data.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n");
  b.folder.put("m/model.safetensors", std::string_view(weights).substr(0, weights.size() - 7));
  is_refused(b.evaluate({}), 3, "model.safetensors");
  b.folder.put("config.json", R"({"model_type": "gpt_neox"})");
  is_refused(b.init("1", "p"), 3, "gpt_neox");
  b.folder.put("config.json", R"({"model_type": "llama", "vocab_size": 100})");
  is_refused(b.init("1", "p"), 3, "vocab_size");
}
