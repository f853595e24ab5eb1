// Measures: encoding a text (whole, and line by line as records are), decoding it, loading the
// tokenizer; one thread.
// Against: the `tokenizers` package on the same files through bench/compare_tokenizer.py, which
// starts this program.
//
//   tokenizer_bench --benchmark_out=tokenizer.json --benchmark_out_format=json
//
// Counters: bytes_per_second; tokens, a check that both sides did the same.
// DUALSFT_BENCH_TEXT and DUALSFT_BENCH_TOKENIZER name the files; by default GPT-2's and a test text
// from ../shared/data, seen from the current folder. Without them: bytes, and a made-up text.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <dualsft/llm/tokenizer.hpp>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace dualsft::llm;

const std::string shared = "../shared/data/";

std::string from_environment(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

const std::string& text() {
  static const std::string read = [] {
    std::ifstream in(from_environment("DUALSFT_BENCH_TEXT", shared + "text/wikitext2_test.txt"),
                     std::ios::binary);
    std::string out{std::istreambuf_iterator<char>(in), {}};
    std::mt19937 random(1);
    while (out.size() < 100'000) {
      for (auto letters = 1 + random() % 9; letters > 0; --letters)
        out += "etaoinshrdlucmfw"[random() % 16];
      out += random() % 12 == 0 ? ".\n" : " ";
    }
    return out;
  }();
  return read;
}

tokenizer load() {
  const std::string file = from_environment("DUALSFT_BENCH_TOKENIZER", "");
  if (!file.empty()) return tokenizer::from_file(file);
  const std::string folder = shared + "tokenizer/gpt2/";
  if (!std::ifstream(folder + "vocab.bpe").good()) return tokenizer::bytes();
  return tokenizer::from_gpt2_files(folder + "encoder.json", folder + "vocab.bpe");
}

const tokenizer& loaded() {
  static const tokenizer t = load();
  return t;
}

void report(benchmark::State& state, std::size_t tokens) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text().size()));
  state.counters["tokens"] = static_cast<double>(tokens);
}

void encode_text(benchmark::State& state) {
  std::size_t tokens = 0;
  for (auto _ : state) tokens = loaded().encode(text()).size();
  report(state, tokens);
}

void encode_lines(benchmark::State& state) {
  std::size_t tokens = 0;
  for (auto _ : state) {
    tokens = 0;
    for (std::string_view rest = text(); !rest.empty();) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      tokens += loaded().encode(rest.substr(0, end)).size();
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  report(state, tokens);
}

void decode_text(benchmark::State& state) {
  const std::vector<token_id> ids = loaded().encode(text());
  for (auto _ : state) benchmark::DoNotOptimize(loaded().decode(ids).data());
  report(state, ids.size());
}

void load_file(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(load().vocabulary_size());
}

BENCHMARK(encode_text)->Unit(benchmark::kMillisecond);
BENCHMARK(encode_lines)->Unit(benchmark::kMillisecond);
BENCHMARK(decode_text)->Unit(benchmark::kMillisecond);
BENCHMARK(load_file)->Unit(benchmark::kMillisecond);

}  // namespace
