// Proves: `dualsft run` and its stages score, select and fine-tune as defined, leave unselected
// coordinates alone, and go on after being killed at any moment to the same bytes. Against: explicit
// per-example gradients of the library's transformer in double, and uninterrupted runs.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <dualsft/io/npy.hpp>
#include <dualsft/llm/checkpoint.hpp>
#include <dualsft/llm/config_reader.hpp>
#include <dualsft/llm/model_folder.hpp>
#include <dualsft/llm/parameter_files.hpp>
#include <dualsft/llm/record_tokens.hpp>
#include <dualsft/llm/records.hpp>
#include <dualsft/llm/transformer.hpp>
#include <dualsft/preservation.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "program.hpp"

using namespace dualsft;
using namespace dualsft::llm;
using nlohmann::json;

namespace {

constexpr const char* config_text = R"({"model_type": "llama", "vocab_size": 259, "hidden_size": 16,
  "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "max_position_embeddings": 128})";

/// Record i of a made-up file: a sum and its answer; every third names another group.
std::string record(int i, const std::string& kind) {
  const std::string group = i % 3 == 0 ? ", \"group\": \"third\"" : ", \"group\": \"other\"";
  return "{\"question\": \"" + kind + " " + std::to_string(i) + "+" + std::to_string(7 * i % 11) +
         "\", \"answer\": \"" + std::to_string(i + 7 * i % 11) + "\"" + group + "}";
}

std::string records(int count, const std::string& kind) {
  std::string text;
  for (int i = 0; i < count; ++i) text += record(i, kind) + "\n";
  return text;
}

struct scene {
  scratch_folder folder;
  program dualsft{folder};

  scene() {
    folder.put("config.json", config_text);
    folder.put("train.jsonl", records(40, "add"));
    folder.put("validation.jsonl", records(6, "sum"));
    folder.put("anchors.jsonl", records(5, "old"));
    REQUIRE(dualsft
                .run({"init", "--config", "config.json", "--tokenizer", "bytes", "--seed", "3",
                      "--out", "m"})
                .code == 0);
  }

  std::vector<std::string> words(const std::string& command, const std::string& out,
                                 const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all{command,
                                 "--model",
                                 "m",
                                 "--train",
                                 "train.jsonl",
                                 "--validation",
                                 "validation.jsonl",
                                 "--anchors",
                                 "anchors.jsonl",
                                 "--threads",
                                 "2",
                                 "--learning-rate",
                                 "0.01",
                                 "--batch-size",
                                 "8",
                                 "--micro-batch-size",
                                 "3",
                                 "--epochs",
                                 "2",
                                 "--data-budget",
                                 "9",
                                 "--parameter-budget",
                                 "0.05",
                                 "--out",
                                 out};
    for (std::size_t i = 0; i < more.size(); ++i) {
      const auto known = std::ranges::find(all, more[i]);
      if (known != all.end() && more[i].starts_with("--"))
        *(known + 1) = more[++i];
      else
        all.push_back(more[i]);
    }
    return all;
  }
  program::outcome run(const std::string& command, const std::string& out,
                       const std::vector<std::string>& more = {}) const {
    // Options of the later stages mean nothing to the earlier ones.
    std::vector<std::string> all = words(command, out, more);
    const auto drop = [&](const std::string& name) {
      if (const auto at = std::ranges::find(all, name); at != all.end()) all.erase(at, at + 2);
    };
    if (command == "warmup" || command == "select") drop("--epochs");
    if (command == "warmup") drop("--data-budget"), drop("--parameter-budget");
    return dualsft.run(all);
  }

  json summary(const std::string& out) const {
    return json::parse(file_bytes(folder / (out + "/summary.json")));
  }
};

/// What results depend on nothing but input, options and seed: every file, and of JSON all but time
/// and memory.
std::map<std::string, std::string> results(const std::string& path) {
  std::map<std::string, std::string> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = std::filesystem::relative(entry.path(), path).string();
    std::string bytes = file_bytes(entry.path().string());
    if (name.ends_with(".json") && json::accept(bytes)) {
      auto value = nlohmann::ordered_json::parse(bytes);  // the order of keys is part of the result
      for (const char* key : {"seconds", "stages", "cost"})
        if (name != "settings.json") value.erase(key);
      bytes = value.dump();
    }
    out[name] = std::move(bytes);
  }
  return out;
}

void is_refused(const program::outcome& found, int code, const std::string& reason) {
  INFO(found.err);
  CHECK(found.code == code);
  CHECK(found.err.find(reason) != std::string::npos);
  CHECK(std::ranges::count(found.err, '\n') == 1);
}

transformer<double> model_at(const std::string& folder, token_corpus corpus) {
  transformer<double> model(read_model_config(folder),
                            std::make_shared<const token_corpus>(std::move(corpus)));
  read_weights(safetensors_checkpoint(folder), model.layout(), model.parameters());
  return model;
}

}  // namespace

// Tolerance: double throughout; theta_w is stored in double, sums of 36 gradients in another order.
TEST_CASE("scores are those of explicit gradients at theta_w") {
  const scene s;
  const auto found = s.run("select", "out", {"--precision", "float64", "--eta", "0.02"});
  INFO(found.err);
  REQUIRE(found.code == 0);
  const std::string out = s.folder / "out";

  // The records as the program reads them: bos, the question in the default template, the answer.
  const model_folder place = model_folder::open(s.folder / "m");
  token_corpus corpus;
  std::vector<std::size_t> sizes;
  for (const char* name : {"train.jsonl", "validation.jsonl", "anchors.jsonl"}) {
    token_set set =
        tokenize_records(read_records(s.folder / name), place.tokenizer, place.tokens(1024, false));
    sizes.push_back(set.records.size());
    for (token_record& r : set.records) corpus.add(std::move(r));
  }
  const transformer<double> teacher = model_at(s.folder / "m", corpus);
  const transformer<double> model = model_at(out + "/warmup", corpus);
  const auto d = static_cast<std::size_t>(model.layout().size());

  std::vector<double> g(d), v(d);
  for (std::size_t i = sizes[0]; i < sizes[0] + sizes[1]; ++i) {
    model.example_gradient(static_cast<index_t>(i), g);
    for (std::size_t j = 0; j < d; ++j) v[j] += g[j] / static_cast<double>(sizes[1]);
  }
  for (std::size_t i = sizes[0] + sizes[1]; i < sizes[0] + sizes[1] + sizes[2]; ++i) {
    // CWSD with its entropy weight, from the definition.
    const std::vector<index_t> anchor{static_cast<index_t>(i)};
    const index_t rows = model.logit_rows(anchor[0]), classes = model.classes();
    Eigen::MatrixXd q(classes, rows), p(classes, rows);  // a column per token
    teacher.logits(anchor, matrix_view<double>(q.data(), rows, classes));
    model.logits(anchor, matrix_view<double>(p.data(), rows, classes));
    double entropy = 0;
    for (index_t t = 0; t < rows; ++t) {
      q.col(t) = (q.col(t).array() / 2).exp();
      q.col(t) /= q.col(t).sum();
      p.col(t) = (p.col(t).array() / 2).exp();
      p.col(t) /= p.col(t).sum();
      entropy -= (q.col(t).array() * q.col(t).array().log()).sum() / static_cast<double>(rows);
    }
    const double weight = 1 - entropy / std::log(static_cast<double>(classes));
    Eigen::MatrixXd e = (p - q) * (weight * 2 / static_cast<double>(rows));
    std::ranges::fill(g, 0.0);
    model.accumulate_logit_gradient(anchor, matrix_view<const double>(e.data(), rows, classes), g);
    for (std::size_t j = 0; j < d; ++j) v[j] += 0.2 * g[j] / static_cast<double>(sizes[2]);
  }

  const std::string moments = out + "/warmup/second_moment.safetensors";
  const std::vector<double> second = read_parameter_values<double>(moments, model.layout());
  const double steps = std::stod(safetensors_reader(moments).metadata().at("steps"));
  const auto pool = npy_read_vector<index_t>(out + "/pool_indices.npy");
  CHECK(pool.size() == 36);  // 4 of 40 warm up
  std::vector<double> sum(d);
  for (const index_t i : pool) {
    model.example_gradient(i, g);
    for (std::size_t j = 0; j < d; ++j) sum[j] += g[j];
  }
  const double eta = 0.02;
  std::vector<double> p(d), columns(d), rows;
  for (std::size_t j = 0; j < d; ++j) {
    const double curvature = std::sqrt(second[j] / (1 - std::pow(0.999, steps))) + 1e-8;
    p[j] = v[j] - eta / 2 * curvature * sum[j];
    columns[j] = eta * sum[j] * p[j];
  }
  for (const index_t i : pool) {
    model.example_gradient(i, g);
    double dot = 0;
    for (std::size_t j = 0; j < d; ++j) dot += g[j] * p[j];
    rows.push_back(eta * dot);
  }

  const auto scores = npy_read_vector<double>(out + "/data_scores.npy");
  REQUIRE(scores.size() == rows.size());
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    largest = std::max(largest, std::abs(rows[i]));
    error = std::max(error, std::abs(rows[i] - scores[i]));
  }
  CHECK(error <= 1e-10 * largest);

  std::vector<std::size_t> best(rows.size());
  for (std::size_t i = 0; i < best.size(); ++i) best[i] = i;
  std::ranges::stable_sort(best, [&](auto a, auto b) { return rows[a] > rows[b]; });
  const auto selected = npy_read_vector<index_t>(out + "/selected_examples.npy");
  REQUIRE(selected.size() == 9);
  std::string lines;
  for (std::size_t r = 0; r < 9; ++r) {
    CHECK(selected[r] == pool[best[r]]);
    lines += record(static_cast<int>(selected[r]), "add") + "\n";
  }
  CHECK(file_bytes(out + "/selected.jsonl") == lines);

  const index_set mask = read_parameter_mask(out + "/parameter_mask.safetensors", model.layout());
  std::vector<index_t> order(d);
  for (std::size_t j = 0; j < d; ++j) order[j] = static_cast<index_t>(j);
  std::ranges::stable_sort(order, [&](index_t a, index_t b) {
    return columns[static_cast<std::size_t>(a)] > columns[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(mask.size()));
  std::ranges::sort(order);
  CHECK(mask.size() == static_cast<index_t>(0.05 * static_cast<double>(d)));
  CHECK(std::ranges::equal(order, mask.indices()));

  const json summary = s.summary("out");
  double total = 0, predicted = 0;
  for (const double x : rows) total += x;
  CHECK(summary["rows_total"].get<double>() == doctest::Approx(total).epsilon(1e-9));
  CHECK(summary["conservation_gap"].get<double>() < 1e-12);
  std::vector<double> chosen(d);
  for (const index_t i : selected) {
    model.example_gradient(i, g);
    for (std::size_t j = 0; j < d; ++j) chosen[j] += g[j];
  }
  for (const index_t j : mask.indices())
    predicted += eta * chosen[static_cast<std::size_t>(j)] * p[static_cast<std::size_t>(j)];
  CHECK(summary["utility"]["predicted"].get<double>() == doctest::Approx(predicted).epsilon(1e-9));
  // First and second order of the same fall: they differ by the curvature's share.
  CHECK(summary["utility"]["realised"].get<double>() == doctest::Approx(predicted).epsilon(0.5));
  const json groups = json::parse(file_bytes(out + "/groups.json"));
  CHECK(groups["groups"].size() == 2);
}

TEST_CASE("stages one by one give the bytes of run, and run leaves the rest of the model alone") {
  const scene s;
  const auto whole = s.run("run", "a");
  INFO(whole.err);
  REQUIRE(whole.code == 0);
  for (const char* name : {"warmup", "select", "finetune"}) {
    const auto part = s.run(name, "b");
    INFO(part.err);
    REQUIRE(part.code == 0);
  }
  const auto a = results(s.folder / "a"), b = results(s.folder / "b");
  CHECK(a.size() == b.size());
  for (const auto& entry : a) {  // clang 14 captures no structured bindings
    const std::string& name = entry.first;
    const std::string& bytes = entry.second;
    INFO(name);
    CHECK(b.at(name) == bytes);
  }
  for (const char* name :
       {"pool_indices.npy", "data_scores.npy", "selected_examples.npy", "selected.jsonl",
        "parameter_mask.safetensors", "summary.json", "finetune.json", "settings.json",
        "parameter_statistics.json", "examples.json", "warmup_losses.json", "finetune_losses.json",
        "model/model.safetensors", "model/config.json", "model/tokenizer.json"})
    CHECK(a.contains(name));
  CHECK(!std::filesystem::exists(s.folder / "a/state"));

  const auto bits = [&](const std::string& folder) {
    const transformer<float> model(read_model_config(folder),
                                   std::make_shared<const token_corpus>());
    std::vector<float> theta(static_cast<std::size_t>(model.layout().size()));
    read_weights(safetensors_checkpoint(folder), model.layout(), std::span<float>(theta));
    return theta;
  };
  const std::vector<float> before = bits(s.folder / "m"), after = bits(s.folder / "a/model");
  const transformer<float> model(read_model_config(s.folder / "m"),
                                 std::make_shared<const token_corpus>());
  const index_set mask =
      read_parameter_mask(s.folder / "a/parameter_mask.safetensors", model.layout());
  index_t moved = 0, strayed = 0;
  for (std::size_t j = 0; j < before.size(); ++j) {
    const bool same = std::memcmp(&before[j], &after[j], sizeof(float)) == 0;
    if (same) continue;
    ++(mask.contains(static_cast<index_t>(j)) ? moved : strayed);
  }
  CHECK(strayed == 0);
  CHECK(moved > mask.size() / 2);
  const json fine = json::parse(file_bytes(s.folder / "a/finetune.json"));
  CHECK(fine["validation_loss_after"].get<double>() < fine["validation_loss_before"].get<double>());
  CHECK(fine["optimizer_state_bytes"].get<double>() <=
        0.07 * fine["dense_optimizer_state_bytes"].get<double>());
}

TEST_CASE("killed at random moments, a run goes on to the same bytes") {
  const scene s;
  const std::vector<std::string> often{"--save-every", "0"};
  for (const std::string order : {"diagonal", "first"}) {
    std::vector<std::string> more = often;
    more.insert(more.end(), {"--order", order});
    const auto start = std::chrono::steady_clock::now();
    const auto whole = s.dualsft.run(s.words("run", "whole-" + order, more));
    INFO(whole.err);
    REQUIRE(whole.code == 0);
    const auto length = std::chrono::duration_cast<std::chrono::microseconds>(
        std::chrono::steady_clock::now() - start);
    more.push_back("--resume");
    std::mt19937 random(5);
    const std::string out = "killed-" + order;
    // What is left of a run becomes shorter, and the machine's speed changes: runs that come to
    // their end before the signal do not count, and the next signal comes earlier.
    auto within = static_cast<unsigned>(length.count());
    const int signals = length < std::chrono::seconds(4) ? 10 : 3;  // 3 of a sanitized program
    int killed = 0;
    for (int i = 0; i < 200 && killed < signals; ++i) {
      const pid_t child = s.dualsft.start(s.words("run", out, more));
      ::usleep(static_cast<useconds_t>(random() % within));
      ::kill(child, SIGKILL);
      const bool hit = s.dualsft.finish(child).code == 1000 + SIGKILL;
      if (hit) ++killed;
      within = hit ? std::min(within * 2, static_cast<unsigned>(length.count()))
                   : std::max(within / 2, 1000u);
      if (std::filesystem::exists(s.folder / (out + "/finetune.json")))
        std::filesystem::remove_all(s.folder / out);  // it was through: begin anew
    }
    CHECK(killed == signals);
    const auto end = s.dualsft.run(s.words("run", out, more));
    INFO(end.err);
    REQUIRE(end.code == 0);
    const auto a = results(s.folder / ("whole-" + order)), b = results(s.folder / out);
    CHECK(a.size() == b.size());
    for (const auto& entry : a) {
      const std::string& name = entry.first;
      const std::string& bytes = entry.second;
      INFO(name);
      REQUIRE(b.contains(name));
      CHECK(b.at(name) == bytes);
    }
  }
}

TEST_CASE("a signal stops a run with code 130, and it can go on") {
  const scene s;
  const std::vector<std::string> more{"--epochs", "2000"};
  const pid_t child = s.dualsft.start(s.words("run", "out", more));
  for (int i = 0; i < 60000 && !std::filesystem::exists(s.folder / "out/summary.json"); ++i)
    ::usleep(1000);
  ::usleep(20000);
  ::kill(child, SIGTERM);
  const auto found = s.dualsft.finish(child);
  CHECK(found.code == 130);
  CHECK(found.err.find("interrupted") != std::string::npos);
  CHECK(std::filesystem::exists(s.folder / "out/state/finetune"));
  is_refused(s.dualsft.run(s.words("run", "out", more)), 2, "--resume goes on with it");
}

TEST_CASE("a changed option or input is refused by name") {
  const scene s;
  REQUIRE(s.run("select", "out").code == 0);
  is_refused(s.run("select", "out", {"--lambda", "0.3"}), 3, "--lambda: found 0.3, expected 0.2");
  is_refused(s.run("select", "out", {"--seed", "1"}), 3, "--seed: found 1, expected 42");
  is_refused(s.run("finetune", "out", {"--max-length", "100"}), 3,
             "--max-length: found 100, expected 1024");
  // Options that are not given are those of the run.
  CHECK(s.dualsft.run({"select", "--out", "out"}).code == 0);
  CHECK(s.dualsft.run({"run", "--out", "out", "--resume", "--epochs", "1", "--batch-size", "8"})
            .code == 0);
  is_refused(s.dualsft.run({"finetune", "--out", "out", "--epochs", "2"}), 3,
             "--epochs: found 2, expected 1");
  s.folder.put("train.jsonl", records(41, "add"));
  is_refused(s.dualsft.run({"finetune", "--out", "out"}), 3, "contents: found fingerprint");
}

TEST_CASE("what a stage made stays tied to the settings of the stages before it") {
  const scene s;
  // Scores at theta_0, of which a warmup would know nothing.
  REQUIRE(s.run("select", "a", {"--order", "first", "--warmup-epochs", "0"}).code == 0);
  is_refused(s.dualsft.run({"select", "--out", "a", "--warmup-epochs", "1"}), 3,
             "--warmup-epochs: found 1, expected 0");
  is_refused(
      s.dualsft.run({"finetune", "--out", "a", "--data-budget", "1", "--parameter-budget", "1"}), 3,
      "--data-budget: found \"1\", expected \"9\"");
  // A fine-tuning of everything leaves no room for a selection.
  REQUIRE(s.run("finetune", "b", {"--data-budget", "1", "--parameter-budget", "1", "--epochs", "1"})
              .code == 0);
  is_refused(s.run("select", "b"), 3, "a later stage made without it");
  for (const char* name : {"model/config.json", "finetune.json", "finetune_losses.json"}) {
    const std::string bytes = file_bytes(s.folder / (std::string("b/") + name));
    std::filesystem::remove(s.folder / (std::string("b/") + name));
    is_refused(s.dualsft.run({"finetune", "--out", "b"}), 3, std::string(name) + ": contents");
    s.folder.put(std::string("b/") + name, bytes);
  }
  CHECK(s.dualsft.run({"finetune", "--out", "b"}).code == 0);
}

TEST_CASE("budgets of 1 are plain fine-tuning, without warmup and selection") {
  const scene s;
  const auto plain =
      s.dualsft.run({"finetune", "--model", "m", "--train", "train.jsonl", "--threads", "1",
                     "--data-budget", "1", "--parameter-budget", "1.0", "--learning-rate", "0.01",
                     "--epochs", "1", "--batch-size", "8", "--out", "plain"});
  INFO(plain.err);
  REQUIRE(plain.code == 0);
  CHECK(!std::filesystem::exists(s.folder / "plain/warmup"));
  CHECK(!std::filesystem::exists(s.folder / "plain/summary.json"));
  const json fine = json::parse(file_bytes(s.folder / "plain/finetune.json"));
  CHECK(fine["examples"] == 28);  // 4 validate, 8 anchor
  CHECK(fine["validation_loss_after"].get<double>() < fine["validation_loss_before"].get<double>());
}

TEST_CASE("theta_w may come from a checkpoint, and every order, step and strategy runs") {
  const scene s;
  REQUIRE(s.dualsft
              .run({"init", "--config", "config.json", "--tokenizer", "bytes", "--seed", "4",
                    "--out", "w"})
              .code == 0);
  const auto given = s.run("select", "given", {"--checkpoint", "w"});
  INFO(given.err);
  REQUIRE(given.code == 0);
  CHECK(!std::filesystem::exists(s.folder / "given/warmup/config.json"));
  CHECK(std::filesystem::exists(s.folder / "given/warmup/second_moment.safetensors"));
  int number = 0;
  for (const char* order : {"first", "diagonal", "full", "joint"})
    for (const char* step : {"sgd", "adamw"}) {
      const auto found = s.run("select", "o" + std::to_string(number++),
                               {"--order", order, "--step", step, "--precision", "float64"});
      INFO(order << " " << step << " " << found.err);
      CHECK(found.code == 0);
    }
  std::vector<std::vector<double>> scores;
  for (const char* strategy : {"ghost", "jvp", "materialised", "difference"}) {
    const std::string out = std::string("s-") + strategy;
    const auto found =
        s.run("select", out, {"--strategy", strategy, "--precision", "float64", "--lambda", "0"});
    INFO(strategy << " " << found.err);
    REQUIRE(found.code == 0);
    scores.push_back(npy_read_vector<double>(s.folder / (out + "/data_scores.npy")));
  }
  for (const auto& other : scores)
    for (std::size_t i = 0; i < other.size(); ++i)
      CHECK(other[i] == doctest::Approx(scores[0][i]).epsilon(1e-6));
  const auto compared = s.run("select", "compared", {"--compare-full"});
  INFO(compared.err);
  REQUIRE(compared.code == 0);
  const json summary = s.summary("compared");
  CHECK(summary["agreement"]["data_spearman"].get<double>() > 0.5);
  CHECK(summary["certificates"][0]["holds"].is_boolean());
}

// No privilege is needed for this full disk: a limit on the size of files, which the program
// inherits. It holds for the message's file too.
TEST_CASE("where files cannot grow, each stage says so, and what came before is kept") {
  const scene s;
  REQUIRE(s.run("run", "whole").code == 0);
  const auto limited = [&](rlim_t bytes) {
    rlimit before{};
    ::getrlimit(RLIMIT_FSIZE, &before);
    rlimit small = before;
    small.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &small);
    const pid_t child = s.dualsft.start(s.words("run", "out", {"--resume"}));
    ::setrlimit(RLIMIT_FSIZE, &before);
    return s.dualsft.finish(child);
  };
  const auto size = [&](const char* name) {
    return static_cast<rlim_t>(std::filesystem::file_size(s.folder / name));
  };
  // In the order of the stages, and of the files' sizes.
  const rlim_t weights = size("whole/warmup/model.safetensors");
  for (const rlim_t bytes : {rlim_t{512}, rlim_t{4096}, weights - 1, weights + 1024}) {
    const auto found = limited(bytes);
    INFO(bytes << " of " << weights);
    is_refused(found, 3, "output: found File too large, expected a writable place");
    if (std::filesystem::exists(s.folder / "out"))
      for (const auto& entry : std::filesystem::recursive_directory_iterator(s.folder / "out"))
        CHECK(entry.path().string().find(".partial-") == std::string::npos);
  }
  const auto end = s.dualsft.run(s.words("run", "out", {"--resume"}));
  INFO(end.err);
  REQUIRE(end.code == 0);
  CHECK(results(s.folder / "out") == results(s.folder / "whole"));
}

TEST_CASE("what is in the folder is the user's, and what stages made is checked") {
  const scene s;
  s.folder.put("m/thesis.partial-draft.tex", "mine");
  REQUIRE(s.run("select", "out").code == 0);
  s.folder.put("out/notes.partial-1-old", "mine");
  s.folder.put("out/summary.json.partial-12-3", "left by a killed process");
  CHECK(s.dualsft.run({"select", "--out", "out"}).code == 0);
  CHECK(std::filesystem::exists(s.folder / "m/thesis.partial-draft.tex"));
  CHECK(std::filesystem::exists(s.folder / "out/notes.partial-1-old"));
  CHECK(!std::filesystem::exists(s.folder / "out/summary.json.partial-12-3"));

  // A file of a finished stage that is gone or changed.
  const std::string selected = s.folder / "out/selected_examples.npy";
  const std::string bytes = file_bytes(selected);
  s.folder.put("out/selected_examples.npy", bytes + bytes.substr(bytes.size() - 8));
  is_refused(s.dualsft.run({"finetune", "--out", "out"}), 3, "selected_examples.npy: contents");
  ::unlink(selected.c_str());
  is_refused(s.dualsft.run({"finetune", "--out", "out"}), 3, "contents: found nothing");
  s.folder.put("out/selected_examples.npy", bytes);
  s.folder.put("out/summary.json", "{}");
  is_refused(s.dualsft.run({"select", "--out", "out"}), 3, "summary.json");
  s.folder.put("out/settings.json", "{\"version\": 1, \"stages\": []}");
  is_refused(s.dualsft.run({"select", "--out", "out"}), 3, "settings.json: stages");
}

TEST_CASE("a mistake that left nothing behind can be mended in the same folder") {
  const scene s;
  s.folder.put("train.jsonl", records(3, "add") + "{\"question\": 3}\n");
  is_refused(s.run("run", "out"), 3, "line 4");
  s.folder.put("train.jsonl", records(40, "add"));
  is_refused(s.run("run", "out", {"--parameter-budget", "99999999"}), 2, "there are only");
  is_refused(s.run("run", "out", {"--max-length", "4"}), 3, "response");
  is_refused(s.run("run", "out", {"--curvature", "m/config.json"}), 3, "m/config.json");
  const auto found = s.run("run", "out");
  INFO(found.err);
  CHECK(found.code == 0);
}

TEST_CASE("wrong usage and bad input") {
  const scene s;
  is_refused(s.dualsft.run({"run", "--out", "x"}), 2, "--model is required");
  CHECK(!std::filesystem::exists(s.folder / "x"));
  is_refused(s.run("run", "x", {"--seed", "-1"}), 2, "--seed: -1: expected an integer");
  is_refused(s.run("run", "x", {"--train", "caf\xe9.jsonl"}), 2, "must be UTF-8");
  is_refused(s.run("run", "m"), 2, "--model m would be written over");
  is_refused(s.dualsft.run({"select", "--model", "m", "--train", "train.jsonl", "--anchor-count",
                            "0", "--out", "x"}),
             2, "preservation needs anchors");
  CHECK(!std::filesystem::exists(s.folder / "x"));
  is_refused(s.run("run", "x", {"--lambda", "-1"}), 2, "--lambda -1.0: must be finite");
  is_refused(s.run("run", "x", {"--eta", "often"}), 2, "--eta often: expected auto or a number");
  is_refused(s.run("run", "x", {"--eta", "auto", "--learning-rate", "0"}), 2,
             "--eta auto: is learning rate / pool size");
  is_refused(s.run("run", "x", {"--device", "cuda"}), 2, "built without CUDA");
  is_refused(s.run("run", "x", {"--precision", "bfloat16"}), 2, "needs --device cuda");
  is_refused(s.run("run", "x1", {"--curvature", "nowhere.safetensors"}), 3, "nowhere.safetensors");
  is_refused(s.run("run", "x2", {"--warmup-fraction", "0"}), 2, "comes from the warmup records");
  s.folder.put("train.jsonl", records(3, "add") + "{\"question\": 3}\n");
  is_refused(s.run("run", "x3"), 3, "line 4");
  s.folder.put("train.jsonl", records(40, "add"));
  ::unlink((s.folder / "m/model.safetensors").c_str());
  is_refused(s.run("run", "x4"), 3, "m: ");
  s.folder.put("file", "");
  is_refused(s.run("run", "file"), 3, "output");
}

TEST_CASE("nothing is written over what a run reads, nor over results of another") {
  const scene s;
  std::filesystem::create_directory(s.folder / "here");
  s.folder.put("here/selected.jsonl", records(40, "add"));
  is_refused(s.run("run", "here", {"--train", "here/selected.jsonl"}), 2,
             "--train here/selected.jsonl would be written over");
  CHECK(file_bytes(s.folder / "here/selected.jsonl") == records(40, "add"));
  std::filesystem::create_directory_symlink("here", s.folder / "there");
  is_refused(s.run("run", "here", {"--validation", "there/./examples.json"}), 2,
             "--validation there/./examples.json would be written over");
  is_refused(s.run("select", "here", {"--curvature", "here/parameter_scores.safetensors"}), 2,
             "would be written over");
  is_refused(s.run("run", "here"), 2, "holds selected.jsonl, and no settings.json");
  std::filesystem::rename(s.folder / "here/selected.jsonl", s.folder / "here/mine.jsonl");
  std::filesystem::copy(s.folder / "m", s.folder / "here/model");
  const std::string weights = file_bytes(s.folder / "here/model/model.safetensors");
  is_refused(s.run("run", "here"), 2, "holds model, and no settings.json");
  CHECK(file_bytes(s.folder / "here/model/model.safetensors") == weights);
  std::filesystem::remove_all(s.folder / "here/model");
  CHECK(s.run("run", "here", {"--train", "here/mine.jsonl"}).code == 0);
}

TEST_CASE("a stage's result is all of its files, and only those of its last attempt") {
  const scene s;
  REQUIRE(s.run("run", "out").code == 0);
  for (const char* part : {"warmup", "select", "finetune"})
    CHECK(s.dualsft.run({part, "--out", "out", "--resume"}).code == 0);
  for (const char* name : {"model/tokenizer.json", "warmup/tokenizer_config.json"}) {
    const std::string path = std::string("out/") + name, bytes = file_bytes(s.folder / path);
    std::filesystem::remove(s.folder / path);
    is_refused(s.dualsft.run({"run", "--out", "out", "--resume"}), 3,
               std::string(name) + ": contents: found nothing");
    s.folder.put(path, bytes);
  }

  // An attempt that fails, and one that reads and writes less.
  std::string plain;
  for (int i = 0; i < 40; ++i)
    plain += "{\"question\": \"" + std::to_string(i) + "\", \"answer\": \"x\"}\n";
  s.folder.put("plain.jsonl", plain);
  is_refused(s.run("select", "two",
                   {"--train", "plain.jsonl", "--eta", "1e308", "--curvature",
                    "out/warmup/second_moment.safetensors"}),
             4, "two keeps what was done, and --resume goes on from there");
  std::filesystem::remove_all(s.folder / "two/state");
  s.folder.put("two/groups.json", "{}");
  const auto found =
      s.dualsft.run({"select", "--out", "two", "--eta", "1e-6", "--curvature", "rms"});
  INFO(found.err);
  REQUIRE(found.code == 0);
  CHECK(!std::filesystem::exists(s.folder / "two/groups.json"));
  const json settings = json::parse(file_bytes(s.folder / "two/settings.json"));
  CHECK(!settings["outputs"]["select"].contains("groups.json"));
  for (const json& input : settings["inputs"]) CHECK(input["option"] != "--curvature");
}

TEST_CASE("weights that overflow are no result") {
  const scene s;
  const auto found = s.run("run", "out",
                           {"--learning-rate", "1e39", "--eta", "1e-6", "--batch-size", "64",
                            "--curvature", "none", "--warmup-epochs", "0"});
  is_refused(found, 4, "finetune: a weight is NaN or infinite behind the last step");
  CHECK(!std::filesystem::exists(s.folder / "out/model"));
  is_refused(s.run("warmup", "warm", {"--learning-rate", "1e39", "--warmup-epochs", "2"}), 4,
             "warmup: a weight is NaN or infinite");
}

TEST_CASE("where everything is selected there still are worst examples, and the last loss") {
  const scene s;
  REQUIRE(s.run("run", "out", {"--data-budget", "1", "--epochs", "150"}).code == 0);
  const json examples = json::parse(file_bytes(s.folder / "out/examples.json"));
  const json losses = json::parse(file_bytes(s.folder / "out/finetune_losses.json"));
  const index_t pool = s.summary("out")["examples"];
  REQUIRE(pool > 20);
  CHECK(examples["worst"].size() == 10);
  CHECK(examples["worst"].back()["rank"] == pool);
  CHECK(losses["steps"].size() < losses["total"].get<std::size_t>());
  CHECK(losses["steps"].back()["step"].get<index_t>() + 1 == losses["total"]);
}
