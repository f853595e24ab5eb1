// Proves: `dualsft score` keeps the contract of its page: files, names, types, exit codes, messages.
// Against: exec::reference and a full sort on the same arrays; hostile files made byte by byte.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <dualsft/dense_scores.hpp>
#include <dualsft/io/npy.hpp>
#include <dualsft/random.hpp>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <support/scratch_folder.hpp>
#include <thread>

#include "program.hpp"

using namespace dualsft;

namespace {

constexpr index_t rows = 40, columns = 700;

/// A folder with G.npy, v.npy, D.npy, HG.npy, and the program.
struct bench {
  scratch_folder folder;
  program dualsft{folder};
  std::vector<double> g, v, d, hg;

  bench() {
    random_source random(7);
    for (index_t i = 0; i < rows * columns; ++i) g.push_back(random.normal());
    for (index_t j = 0; j < columns; ++j) {
      v.push_back(random.normal());
      d.push_back(0.1 + random.uniform());
      hg.push_back(random.normal());
    }
    npy_write(folder / "G.npy", g, {rows, columns});
    npy_write(folder / "v.npy", v, {columns});
    npy_write(folder / "D.npy", d, {columns});
    npy_write(folder / "HG.npy", hg, {columns});
  }

  /// The usual command line; later words replace an option that is there already.
  std::vector<std::string> words(const std::vector<std::string>& changes = {}) const {
    std::vector<std::string> all{"score",    "--gradients",   "G.npy", "--validation",
                                 "v.npy",    "--curvature",   "D.npy", "--order",
                                 "diagonal", "--eta",         "0.05",  "--parameter-budget",
                                 "0.1",      "--data-budget", "7",     "--out",
                                 "out",      "--threads",     "2"};
    for (std::size_t c = 0; c < changes.size(); ++c) {
      const auto at = std::find(all.begin(), all.end(), changes[c]);
      const bool has_value = c + 1 < changes.size() && !changes[c + 1].starts_with("--");
      if (at != all.end() && has_value) {
        *(at + 1) = changes[++c];
      } else {
        all.push_back(changes[c]);
        if (has_value) all.push_back(changes[++c]);
      }
    }
    return all;
  }

  program::outcome score(const std::vector<std::string>& changes = {}) const {
    return dualsft.run(words(changes));
  }

  template <class T>
  std::vector<T> read(const std::string& name, index_t length) const {
    return npy_read_vector<T>(folder / ("out/" + name), {.length = length});
  }

  nlohmann::json summary() const {
    return nlohmann::json::parse(file_bytes(folder / "out/summary.json"));
  }

  std::set<std::string> files_in(const std::string& name) const {
    std::set<std::string> names;
    if (!std::filesystem::exists(folder / name)) return names;
    for (const auto& entry : std::filesystem::directory_iterator(folder / name))
      names.insert(entry.path().filename().string());
    return names;
  }
};

const std::set<std::string> all_files{"data_scores.npy", "parameter_scores.npy",
                                      "selected_examples.npy", "parameter_mask.npy",
                                      "summary.json"};

/// All indices, best first.
std::vector<index_t> ranking(const std::vector<double>& scores, bool by_magnitude) {
  std::vector<index_t> order(scores.size());
  std::iota(order.begin(), order.end(), index_t{0});
  const auto key = [&](index_t i) {
    const double s = scores[static_cast<std::size_t>(i)];
    return by_magnitude ? std::abs(s) : s;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](index_t a, index_t b) { return key(a) > key(b); });
  return order;
}

void check_close(const std::vector<double>& x, const std::vector<double>& y) {
  REQUIRE(x.size() == y.size());
  double largest = 0;
  for (const double value : y) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(std::abs(x[i] - y[i]) <= 1e-12 * largest);
}

}  // namespace

TEST_CASE("scores, selections and summary agree with the definition") {
  const bench b;
  for (const score_order order :
       {score_order::first, score_order::diagonal, score_order::full, score_order::joint}) {
    const std::string name(name_of(order));
    for (const std::string step : {"sgd", "adamw"})
      for (const bool fortran : {false, true})
        for (const std::string limit : {"1GiB", "40000"}) {
          CAPTURE(name);
          CAPTURE(step);
          CAPTURE(fortran);
          CAPTURE(limit);
          const bool absolute = step == "adamw";
          if (fortran) {
            npy_writer<double> writer(b.folder / "GF.npy", {rows, columns}, array_order::fortran);
            const matrix_view<const double> view(b.g.data(), rows, columns);
            for (index_t j = 0; j < columns; ++j) writer.append(view.col(j));
            writer.finish();
          }
          std::vector<std::string> changes{"--order",
                                           name,
                                           "--step",
                                           step,
                                           "--hessian-gradient",
                                           "HG.npy",
                                           "--memory-limit",
                                           limit,
                                           "--gradients",
                                           fortran ? "GF.npy" : "G.npy",
                                           "--json"};
          if (absolute) changes.push_back("--absolute");
          const program::outcome outcome = b.score(changes);
          REQUIRE_MESSAGE(outcome.code == 0, outcome.err);
          CHECK(b.files_in("out") == all_files);

          const dense_result expected = dense_scores(
              exec::reference{}, matrix_view<const double>(b.g.data(), rows, columns),
              dense_inputs<double>{b.v, b.d, b.hg}, {order, *step_geometry_from(step), 0.05});
          const auto data = b.read<double>("data_scores.npy", rows);
          const auto parameters = b.read<double>("parameter_scores.npy", columns);
          check_close(data, expected.data_scores);
          check_close(parameters, expected.parameter_scores);

          const auto by_data = ranking(data, absolute),
                     by_parameter = ranking(parameters, absolute);
          const auto examples = b.read<std::int64_t>("selected_examples.npy", 7);
          CHECK(std::equal(examples.begin(), examples.end(), by_data.begin()));
          std::vector<char> mask(columns, 0);
          for (std::size_t r = 0; r < 70; ++r) mask[static_cast<std::size_t>(by_parameter[r])] = 1;
          const npy_reader mask_file(b.folder / "out/parameter_mask.npy");
          CHECK(mask_file.holds<bool>());
          CHECK(file_bytes(b.folder / "out/parameter_mask.npy")
                    .ends_with(std::string(mask.begin(), mask.end())));

          const nlohmann::json s = b.summary();
          CHECK(s == nlohmann::json::parse(outcome.out));
          CHECK(s.size() == 13);
          CHECK(s["examples"] == rows);
          CHECK(s["parameters"] == columns);
          CHECK(s["order"] == name);
          CHECK(s["eta"] == 0.05);
          CHECK(s["parameter_budget"] == 70);
          CHECK(s["data_budget"] == 7);
          CHECK(s["rows_total"].get<double>() ==
                doctest::Approx(expected.conservation.rows_total).epsilon(1e-11));
          CHECK(s["columns_total"].get<double>() ==
                doctest::Approx(expected.conservation.columns_total).epsilon(1e-11));
          CHECK(s["conservation_gap"].get<double>() < 1e-12);
          CHECK(s["second_order_share"].get<double>() ==
                doctest::Approx(expected.second_order_share).epsilon(1e-12));
          CHECK(s["seconds"].get<double>() >= 0);
          const auto key = [&](const std::vector<double>& scores, index_t i) {
            const double score = scores[static_cast<std::size_t>(i)];
            return absolute ? std::abs(score) : score;
          };
          CHECK(s["data_boundary_gap"].get<double>() ==
                key(data, by_data[6]) - key(data, by_data[7]));
          CHECK(s["parameter_boundary_gap"].get<double>() ==
                key(parameters, by_parameter[69]) - key(parameters, by_parameter[70]));
        }
  }
}

TEST_CASE("float32, equal scores and full budgets") {
  const bench b;
  // All columns alike: every parameter score is equal, so the mask is the lowest indices.
  npy_write(b.folder / "G.npy", std::vector<float>(rows * columns, 0.5f), {rows, columns});
  npy_write(b.folder / "v.npy", std::vector<float>(columns, 2.0f), {columns});
  const program::outcome outcome =
      b.score({"--order", "first", "--parameter-budget", "3", "--data-budget", "40"});
  REQUIRE_MESSAGE(outcome.code == 0, outcome.err);
  std::string mask(columns, '\0');
  mask[0] = mask[1] = mask[2] = 1;
  CHECK(file_bytes(b.folder / "out/parameter_mask.npy").ends_with(mask));
  const auto examples = b.read<std::int64_t>("selected_examples.npy", rows);
  for (index_t i = 0; i < rows; ++i) CHECK(examples[static_cast<std::size_t>(i)] == i);
  CHECK(b.summary()["parameter_boundary_gap"] == 0.0);
  CHECK(b.summary()["data_boundary_gap"].is_null());
  CHECK(b.summary()["second_order_share"] == 0.0);
  // 0.05 * 2 * 40 * 0.5
  CHECK(b.read<double>("parameter_scores.npy", columns)[5] == doctest::Approx(2).epsilon(1e-15));
}

TEST_CASE("the same command gives the same bytes") {
  const bench b;
  for (const std::string threads : {"1", "2"}) {
    REQUIRE(b.score({"--order", "joint", "--out", "one", "--threads", threads}).code == 0);
    REQUIRE(b.score({"--order", "joint", "--out", "two", "--threads", threads}).code == 0);
    for (const std::string& name : all_files)
      if (name != "summary.json")
        CHECK(file_bytes(b.folder / ("one/" + name)) == file_bytes(b.folder / ("two/" + name)));
  }
}

TEST_CASE("wrong usage is 2, and nothing is written") {
  const bench b;
  const std::vector<std::vector<std::string>> wrong{{"--nonsense"},
                                                    {"--order", "second"},
                                                    {"--order", "0"},
                                                    {"--order", "full"},
                                                    {"--step", "sideways"},
                                                    {"--eta", "0"},
                                                    {"--eta", "-1"},
                                                    {"--eta", "inf"},
                                                    {"--eta", "much"},
                                                    {"--eta", ""},
                                                    {"--parameter-budget", "0"},
                                                    {"--parameter-budget", "701"},
                                                    {"--parameter-budget", "1.0"},
                                                    {"--parameter-budget", "1.5"},
                                                    {"--parameter-budget", "nan"},
                                                    {"--parameter-budget", "12x"},
                                                    {"--data-budget", "41"},
                                                    {"--data-budget", "-1"},
                                                    {"--data-budget", "99999999999999999999"},
                                                    {"--memory-limit", "100"},
                                                    {"--memory-limit", "-100"},
                                                    {"--threads", "-1"}};
  for (const auto& changes : wrong) {
    CAPTURE(changes.back());
    const program::outcome outcome = b.score(changes);
    CHECK(outcome.code == 2);
    CHECK(outcome.err.starts_with("dualsft: "));
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
    CHECK(outcome.out.empty());
    CHECK(b.files_in("out").empty());
  }
  CHECK(b.dualsft.run({}).code == 2);
  CHECK(b.dualsft.run({"score"}).code == 2);
  CHECK(b.dualsft.run({"prophesy"}).code == 2);
  CHECK(b.score({"--eta", ""}).err.find("--eta: the value is empty") != std::string::npos);
  CHECK(b.dualsft.run({"scor"}).err.find("scor: no such command") != std::string::npos);
  CHECK(b.dualsft.run({"--help"}).code == 0);
  CHECK(b.dualsft.run({"score", "--help"}).out.find("--parameter-budget") != std::string::npos);
  CHECK(b.score({"--memory-limit", "100"}).err.find("need at least") != std::string::npos);
}

TEST_CASE("bad input is 3: the file, the field, what was found, what was expected") {
  const bench b;
  const auto text = [&](const std::string& name) { return file_bytes(b.folder / name); };
  const auto negative = [&] {
    auto d = b.d;
    d[3] = -1;
    return d;
  }();
  npy_write(b.folder / "short.npy", std::vector<double>(columns - 1), {columns - 1});
  npy_write(b.folder / "ints.npy", std::vector<std::int64_t>(columns), {columns});
  npy_write(b.folder / "flat.npy", b.g, {rows * columns});
  npy_write(b.folder / "none.npy", std::vector<double>(), {0, columns});
  npy_write(b.folder / "negative.npy", negative, {columns});
  b.folder.put("cut.npy", text("G.npy").substr(0, 5000));
  b.folder.put("long.npy", text("G.npy") + "x");
  b.folder.put("text.npy", "these are no numbers\n");
  b.folder.put("empty.npy", "");
  const struct {
    std::vector<std::string> changes;
    std::vector<std::string> says;
  } table[] = {
      {{"--gradients", "missing.npy"}, {"missing.npy: file: found"}},
      {{"--gradients", "cut.npy"}, {"cut.npy: file size: found 5000 bytes, expected"}},
      {{"--gradients", "long.npy"}, {"long.npy: file size"}},
      {{"--gradients", "text.npy"}, {"text.npy: magic"}},
      {{"--gradients", "empty.npy"}, {"empty.npy: "}},
      {{"--gradients", "flat.npy"}, {"flat.npy: shape: found (28000,)"}},
      {{"--gradients", "none.npy"}, {"none.npy: shape: found (0, 700)"}},
      {{"--gradients", "."}, {"a directory"}},
      {{"--validation", "short.npy"}, {"short.npy: shape: found (699,), expected (700,)"}},
      {{"--validation", "ints.npy"}, {"ints.npy: descr: found '<i8', expected '<f4' or '<f8'"}},
      {{"--curvature", "short.npy"}, {"short.npy: shape"}},
      {{"--order", "first", "--curvature", "missing.npy"}, {"missing.npy: file: found"}},
      {{"--order", "first", "--curvature", "short.npy"}, {"short.npy: shape"}},
      {{"--hessian-gradient", "missing.npy"}, {"missing.npy: file: found"}},
      {{"--gradients", "no\nsuch.npy"}, {"no\\x0asuch.npy: file: found"}},
      {{"--out", "G.npy/deeper"}, {"G.npy/deeper: output"}},
      {{"--order", "full", "--hessian-gradient", "short.npy"}, {"short.npy: shape"}},
      {{"--step", "adamw", "--curvature", "negative.npy"},
       {"negative.npy: value 3: found -1, expected a positive number"}},
      {{"--out", "G.npy"}, {"G.npy: output"}},
      {{"--out", "/proc/nowhere"}, {"/proc/nowhere: output"}}};
  for (const auto& row : table) {
    const program::outcome outcome = b.score(row.changes);
    CAPTURE(outcome.err);
    CHECK(outcome.code == 3);
    CHECK(outcome.err.starts_with("dualsft: "));
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
    for (const std::string& words : row.says) CHECK(outcome.err.find(words) != std::string::npos);
    CHECK(b.files_in("out").empty());
  }
}

TEST_CASE("NaN and infinity are 4, named to the element; earlier results survive") {
  const bench b;
  REQUIRE(b.score().code == 0);
  const std::string before = file_bytes(b.folder / "out/data_scores.npy");
  const auto spoil = [&](const std::string& name, std::vector<double> values, index_t at,
                         double with, const std::vector<index_t>& shape) {
    values[static_cast<std::size_t>(at)] = with;
    npy_write(b.folder / name, values, shape);
  };
  spoil("badG.npy", b.g, 13 * columns + 600, std::nan(""), {rows, columns});
  spoil("infG.npy", b.g, 2 * columns + 1, INFINITY, {rows, columns});
  spoil("hugeG.npy", b.g, 5, 1e308, {rows, columns});
  spoil("badv.npy", b.v, 9, std::nan(""), {columns});
  spoil("badD.npy", b.d, 699, -INFINITY, {columns});
  const std::pair<std::vector<std::string>, std::string> table[] = {
      {{"--gradients", "badG.npy"}, "badG.npy: value (13, 600): found nan"},
      {{"--gradients", "badG.npy", "--memory-limit", "40000"}, "value (13, 600): found nan"},
      {{"--gradients", "infG.npy"}, "infG.npy: value (2, 1): found inf"},
      {{"--gradients", "hugeG.npy", "--eta", "1e300"}, "hugeG.npy: the score of parameter"},
      {{"--validation", "badv.npy"}, "badv.npy: value 9: found nan, expected a finite number"},
      {{"--curvature", "badD.npy"}, "badD.npy: value 699: found -inf"}};
  for (const auto& [changes, words] : table) {
    const program::outcome outcome = b.score(changes);
    CAPTURE(outcome.err);
    CHECK(outcome.code == 4);
    CHECK(outcome.err.find(words) != std::string::npos);
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
    CHECK(b.files_in("out") == all_files);
    CHECK(file_bytes(b.folder / "out/data_scores.npy") == before);
  }
}

TEST_CASE("an interrupted run is 130 and leaves no trace") {
  const bench b;
  // 16 GB of zeros that occupy no disk: minutes of work, unless the signal is heard.
  constexpr index_t wide = 4'000'000, tall = 1000;
  {
    npy_writer<float> header(b.folder / "header.npy", {0, wide});
    header.finish();
    std::string bytes = file_bytes(b.folder / "header.npy");
    const auto at = bytes.find("(0,");
    REQUIRE(at != std::string::npos);
    bytes.replace(at, 3, "(1000,");
    const auto pad = bytes.rfind("   \n");  // keeps the header's length
    REQUIRE(pad != std::string::npos);
    bytes.erase(pad, 3);
    b.folder.put("big.npy", bytes);
    std::filesystem::resize_file(b.folder / "big.npy", bytes.size() + std::size_t{4} * tall * wide);
  }
  npy_write(b.folder / "v.npy", std::vector<float>(wide, 1.0f), {wide});
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const pid_t child = b.dualsft.start(
        b.words({"--gradients", "big.npy", "--order", "first", "--curvature", "v.npy",
                 "--memory-limit", "64MiB", "--data-budget", "5", "--out", "out/of/nothing"}));
    while (b.files_in("out/of/nothing").empty())
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ::kill(child, signal);
    const program::outcome outcome = b.dualsft.finish(child);
    CAPTURE(outcome.err);
    CHECK(outcome.code == 130);
    CHECK(outcome.err.find("the output folder is as it was before") != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(b.folder / "out"));
  }
}

TEST_CASE("results change all together or not at all") {
  const bench b;
  REQUIRE(b.score({"--out", "new/a/b"}).code == 0);
  CHECK(b.files_in("new/a/b") == all_files);
  REQUIRE(b.score().code == 0);
  std::map<std::string, std::string> before;
  for (const std::string& name : all_files) before[name] = file_bytes(b.folder / ("out/" + name));

  // The fourth of five targets cannot be replaced: a folder that holds a file.
  std::filesystem::remove(b.folder / "out/parameter_mask.npy");
  std::filesystem::create_directory(b.folder / "out/parameter_mask.npy");
  b.folder.put("out/parameter_mask.npy/x", "");
  program::outcome outcome = b.score({"--order", "first"});
  CHECK(outcome.code == 3);
  CHECK(outcome.err.find("out/parameter_mask.npy: output: found a directory") != std::string::npos);
  CHECK(b.files_in("out") == all_files);
  for (const auto& [name, bytes] : before)
    if (name != "parameter_mask.npy") CHECK(file_bytes(b.folder / ("out/" + name)) == bytes);

  // With nothing in the way, all of them change.
  std::filesystem::remove_all(b.folder / "out/parameter_mask.npy");
  REQUIRE(b.score({"--order", "first"}).code == 0);
  CHECK(b.files_in("out") == all_files);
  CHECK(b.summary()["order"] == "first");
  CHECK(file_bytes(b.folder / "out/data_scores.npy") != before["data_scores.npy"]);
}

TEST_CASE("a failed run removes every folder that it made, and no other") {
  const bench b;
  std::filesystem::create_directory(b.folder / "there");
  npy_write(b.folder / "badv.npy", std::vector<double>(columns, NAN), {columns});
  CHECK(b.score({"--validation", "badv.npy", "--out", "there/p/q/r"}).code == 4);
  CHECK(std::filesystem::exists(b.folder / "there"));
  CHECK(b.files_in("there").empty());
  CHECK(b.score({"--validation", "badv.npy", "--out", "p/./q/../r/"}).code == 4);
  CHECK_FALSE(std::filesystem::exists(b.folder / "p"));
}

TEST_CASE("the memory limit knows that few columns are worked on as sixteen") {
  const bench b;
  constexpr index_t tall = 100'000;
  npy_write(b.folder / "G.npy", std::vector<float>(2 * tall, 1.0F), {tall, 2});
  npy_write(b.folder / "v.npy", std::vector<float>(2, 1.0F), {2});
  npy_write(b.folder / "D.npy", std::vector<float>(2, 1.0F), {2});
  const std::vector<std::string> narrow{"--parameter-budget", "1", "--data-budget", "5",
                                        "--threads",          "1", "--memory-limit"};
  const auto with_limit = [&](index_t bytes, bool absolute = false) {
    std::vector<std::string> changes = narrow;
    changes.push_back(std::to_string(bytes));
    if (absolute) changes.push_back("--absolute");
    return b.score(changes);
  };
  // A panel of 2 and a tile of 16 columns of floats, and sums of rows of one thread and of all.
  constexpr index_t held = tall * (4 * (2 + 16) + 8 * 2);
  CHECK(with_limit(held - 1).code == 2);
  CHECK(with_limit(held + 4096).code == 0);
}

TEST_CASE("a full disk is told of the file that was to be, not of a hidden one") {
  const bench b;
  struct rlimit before;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // so that writing fails like on a full disk
  const auto run_within = [&](rlim_t bytes) {
    struct rlimit less = before;
    less.rlim_cur = bytes;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &less) == 0);
    program::outcome outcome = b.score();
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    return outcome;
  };
  program::outcome outcome = run_within(columns * 8 - 8);  // the spool of parameter scores
  CHECK(outcome.code == 3);
  CHECK(outcome.err.find("dualsft: out: output: ") == 0);
  outcome = run_within(columns * 8 + 64);  // the file of parameter scores, with its header
  CHECK(outcome.code == 3);
  CHECK(outcome.err.find("dualsft: out/parameter_scores.npy: output: ") == 0);
  CHECK_FALSE(std::filesystem::exists(b.folder / "out"));
  std::signal(SIGXFSZ, handler);
}

TEST_CASE("results are complete when only the report cannot be written") {
  const bench b;
  std::filesystem::create_symlink("/dev/full", b.folder / ".stdout");
  const pid_t child = b.dualsft.start(b.words());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 3);
  CHECK(file_bytes(b.folder / ".stderr").find("the results in out are complete") !=
        std::string::npos);
  CHECK(b.files_in("out") == all_files);
}

TEST_CASE("a signal that was ignored before stays ignored") {
  const bench b;
  const auto handler = std::signal(SIGHUP, SIG_IGN);
  const pid_t child = b.dualsft.start({"verify", "--games", "300", "--threads", "1"});
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  ::kill(child, SIGHUP);
  CHECK(b.dualsft.finish(child).code == 0);
  std::signal(SIGHUP, handler);
}

TEST_CASE("verify counts its games, and can be interrupted") {
  const bench b;
  for (const std::string games : {"0", "-1", "1000001", "9000000000000000000", "9e18"})
    CHECK(b.dualsft.run({"verify", "--games", games}).code == 2);
  const pid_t child = b.dualsft.start({"verify", "--games", "1000000"});
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  ::kill(child, SIGINT);
  const program::outcome outcome = b.dualsft.finish(child);
  CHECK(outcome.code == 130);
  CHECK(outcome.err.find("interrupted") != std::string::npos);
  CHECK(outcome.err.find("output folder") == std::string::npos);
  CHECK(outcome.out.empty());
}
