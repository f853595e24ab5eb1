// The main job on text: pre-train a byte-level language model on a general text, adapt it to a target
// pool of which a known part is off-target or corrupted, and compare what dual scoring selects with
// random choices and with full fine-tuning at the same budgets.
//
//   10_demo                      makes its own corpus
//   10_demo --general a.txt --general-test b.txt --target c.jsonl --target-test d.jsonl
//
// Plasticity is the loss on held-out target records, stability the loss on held-out general text;
// both in nats per byte, lower is better. Mean and standard deviation over the seeds.
//
// Output varies: it is measured.
// Arguments in tests: --seeds 2 --pool 80 --pretrain-pieces 200
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <dualsft/dualsft.hpp>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "experiment/made_up_text.hpp"
#include "experiment/table.hpp"

using namespace dualsft;
using namespace dualsft::experiment;

namespace {

struct settings {
  std::string general, general_test, target, target_test;
  int seeds = 3;
  int threads = 0;
  index_t pool = 1200;             // target records, half of them damaged
  index_t validation = 96;         // clean target records that define the objective
  index_t anchors = 96;            // clean target records for self-distillation
  index_t pretrain_pieces = 3000;  // of 128 bytes
  index_t pretrain_epochs = 2;
  double pretrain_rate = 4e-3;
  double rate = 1e-3;
  index_t epochs = 3;
  index_t batch = 16;
  double data_budget = 0.10;
  double parameter_budget = 0.05;
  double lambda = 0.2;
  std::string order = "diagonal";
  std::string step = "sgd";
  std::string preservation = "cwsd";
  std::string json;
};

enum class kind { clean, off_target, corrupted };

// ---- text -------------------------------------------------------------------------------------

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw input_error(path, "file", "nothing that can be opened", "a text file");
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Records {"question", "answer"}, one JSON object per line.
std::vector<text_pair> read_pairs(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw input_error(path, "file", "nothing that can be opened", "a JSONL file");
  std::vector<text_pair> pairs;
  std::string line;
  for (index_t number = 1; std::getline(file, line); ++number) {
    if (line.empty()) continue;
    const auto record = nlohmann::json::parse(line, nullptr, false);
    if (!record.is_object() || !record.contains("question") || !record.contains("answer") ||
        !record["question"].is_string() || !record["answer"].is_string())
      throw input_error(path, "line " + std::to_string(number), "something else",
                        "an object with strings \"question\" and \"answer\"");
    pairs.push_back(
        {record["question"].get<std::string>() + "\n", record["answer"].get<std::string>() + "\n"});
    if (pairs.back().prompt.size() > 400)
      pairs.back().prompt.erase(0, pairs.back().prompt.size() - 400);
    if (pairs.back().response.size() > 200) pairs.back().response.resize(200);
  }
  return pairs;
}

// ---- one seed's experiment --------------------------------------------------------------------

struct experiment {
  std::shared_ptr<const byte_corpus> corpus;
  std::vector<kind> kinds;  // per record of the corpus; what the selection must find out
  std::vector<index_t> pretrain, general_test, target_test;
  data_split split;
};

experiment make_experiment(const settings& s, std::uint64_t seed) {
  random_source random(seed, 77);
  byte_corpus corpus;
  experiment e;
  const auto add_range = [&](std::vector<index_t>& list, index_t first) {
    for (index_t i = first; i < corpus.size(); ++i) list.push_back(i);
  };
  const auto pieces = [&](const std::string& text, index_t most) {
    const index_t first = corpus.size();
    constexpr std::size_t bytes = 128;
    for (index_t i = 0; i < most; ++i) {  // random places, so that seeds differ
      const auto at =
          static_cast<std::size_t>(random.below(static_cast<index_t>(text.size() - bytes)));
      corpus.add_text(std::string_view(text).substr(at, bytes));
    }
    return first;
  };
  const bool own = s.general.empty();
  const std::string general = own ? general_text(300000, 1) : read_text(s.general);
  const std::string general_test = own ? general_text(60000, 2) : read_text(s.general_test);
  std::vector<text_pair> target = own ? target_pairs(6000, 3) : read_pairs(s.target);
  std::vector<text_pair> target_test = own ? target_pairs(600, 4) : read_pairs(s.target_test);
  random.shuffle(std::span<text_pair>(target));
  const index_t records = s.pool + s.validation + s.anchors;
  if (static_cast<index_t>(target.size()) < records)
    throw input_error(s.target, "records", std::to_string(target.size()),
                      "at least " + std::to_string(records));

  add_range(e.pretrain, pieces(general, s.pretrain_pieces));
  add_range(e.general_test, pieces(general_test, 300));
  const index_t first_test = corpus.size();
  for (std::size_t i = 0; i < std::min<std::size_t>(300, target_test.size()); ++i)
    corpus.add_pair(target_test[i].prompt, target_test[i].response);
  add_range(e.target_test, first_test);

  const index_t first_target = corpus.size();
  e.kinds.assign(static_cast<std::size_t>(first_target), kind::clean);
  for (index_t i = 0; i < records; ++i) {
    text_pair pair = target[static_cast<std::size_t>(i)];
    kind what = kind::clean;
    if (i < s.pool && i % 4 == 1) {  // another task: continue a general text
      what = kind::off_target;
      const std::size_t length = pair.prompt.size() + pair.response.size();
      const auto at =
          static_cast<std::size_t>(random.below(static_cast<index_t>(general.size() - length)));
      const std::string text = general.substr(at, length);
      pair = {text.substr(0, pair.prompt.size()), text.substr(pair.prompt.size())};
    } else if (i < s.pool && i % 4 == 3) {  // the answer's bytes in random order
      what = kind::corrupted;
      random.shuffle(std::span<char>(pair.response));
    }
    e.kinds.push_back(what);
    corpus.add_pair(pair.prompt, pair.response);
  }
  // Validation and anchors are clean by assumption: a user brings a trusted validation set.
  std::vector<index_t> pool;
  for (index_t i = 0; i < s.pool; ++i) pool.push_back(first_target + i);
  e.split = split_records(std::span<const index_t>(pool),
                          {.validation = 0, .anchors = 0, .warmup_fraction = 0.1, .seed = seed});
  for (index_t i = 0; i < s.validation; ++i)
    e.split.validation.push_back(first_target + s.pool + i);
  for (index_t i = 0; i < s.anchors; ++i)
    e.split.anchors.push_back(first_target + s.pool + s.validation + i);
  e.corpus = std::make_shared<const byte_corpus>(std::move(corpus));
  return e;
}

double share_of_clean(const experiment& e, std::span<const index_t> records) {
  index_t clean = 0;
  for (const index_t i : records) clean += e.kinds[static_cast<std::size_t>(i)] == kind::clean;
  return static_cast<double>(clean) / static_cast<double>(records.size());
}

struct outcome {
  double target = 0;
  double general = 0;
  double clean = 0;
};

struct seed_state {
  experiment data;
  std::unique_ptr<byte_lm<float>> model;  // at theta_0
  std::vector<float> theta_0;
  selection_result<float> selection;
  index_set random_mask;
  std::vector<index_t> random_examples;
  double selected_diversity = 0;  // 1 - mean pairwise cosine of embeddings at theta_0
  double random_diversity = 0;
};

training_options tuning(const settings& s, std::uint64_t seed) {
  return {.epochs = s.epochs, .batch_size = s.batch, .learning_rate = s.rate, .seed = seed};
}

void prepare(const settings& s, seed_state& state, std::uint64_t seed) {
  const exec::cpu one{1};  // the experiment runs seeds and methods side by side instead
  state.data = make_experiment(s, seed);
  state.model = std::make_unique<byte_lm<float>>(state.data.corpus, byte_lm_options{.seed = seed});
  adamw<float> optimizer(state.model->layout().size());
  train(one, *state.model, optimizer, state.data.pretrain,
        {.epochs = s.pretrain_epochs,
         .batch_size = 16,
         .learning_rate = s.pretrain_rate,
         .seed = seed});
  state.theta_0 = parameter_values(*state.model);

  byte_lm<float> scored(*state.model);
  training_options warmup = tuning(s, seed);
  warmup.epochs = 1;
  const auto warm = warm_up(one, scored, state.data.split.warmup, warmup);
  selection_options options;
  options.order = *score_order_from(s.order);
  options.step = *step_geometry_from(s.step);
  options.preservation = *preservation_kind_from(s.preservation);
  options.learning_rate = s.rate;
  options.lambda = s.lambda;
  options.parameter_budget = budget::ratio(s.parameter_budget);
  options.data_budget = budget::ratio(s.data_budget);
  state.selection =
      select(one, scored, std::span<const float>(state.theta_0), warm, state.data.split, options);

  random_source random(seed, 5);
  state.random_mask =
      stratified_random_mask(state.model->layout(), state.selection.mask.selected.size(), random);
  state.random_examples = state.data.split.pool;
  random.shuffle(std::span<index_t>(state.random_examples));
  state.random_examples.resize(state.selection.examples.size());
  state.selected_diversity = diversity(*state.model, state.selection.examples);
  state.random_diversity = diversity(*state.model, state.random_examples);
}

struct method {
  const char* name;
  bool trains;
  enum class source { all, random, scored } data, mask;
};

constexpr method methods[] = {
    {"pre-trained", false, method::source::all, method::source::all},
    {"full fine-tuning", true, method::source::all, method::source::all},
    {"random data", true, method::source::random, method::source::all},
    {"random mask", true, method::source::all, method::source::random},
    {"random both", true, method::source::random, method::source::random},
    {"DualSFT-Param", true, method::source::all, method::source::scored},
    {"DualSFT-Data", true, method::source::scored, method::source::all},
    {"DualSFT", true, method::source::scored, method::source::scored},
};

outcome run_method(const settings& s, const seed_state& state, const method& m,
                   std::uint64_t seed) {
  const exec::cpu one{1};
  byte_lm<float> model(*state.model);
  std::vector<index_t> examples = candidates_of(state.data.split);
  if (m.data == method::source::random) examples = state.random_examples;
  if (m.data == method::source::scored) examples = state.selection.examples;
  const index_set* mask = nullptr;
  if (m.mask == method::source::random) mask = &state.random_mask;
  if (m.mask == method::source::scored) mask = &state.selection.mask.selected;
  if (m.trains)
    fine_tune(one, model, std::span<const float>(state.theta_0), examples, mask, tuning(s, seed));
  return {mean_loss(one, model, state.data.target_test),
          mean_loss(one, model, state.data.general_test), share_of_clean(state.data, examples)};
}

int run(const settings& s) {
  const auto start = std::chrono::steady_clock::now();
  const int threads = detail::thread_count(exec::cpu{s.threads});
  std::vector<seed_state> states(static_cast<std::size_t>(s.seeds));
  std::printf("Pre-training, warming up and scoring %d seeds ...\n", s.seeds);
  std::fflush(stdout);
  side_by_side(threads, s.seeds, [&](index_t k) {
    prepare(s, states[static_cast<std::size_t>(k)], static_cast<std::uint64_t>(k) + 1);
  });

  const auto method_count = static_cast<index_t>(std::size(methods));
  std::vector<outcome> outcomes(static_cast<std::size_t>(method_count * s.seeds));
  std::printf("Fine-tuning %d methods x %d seeds ...\n", static_cast<int>(method_count), s.seeds);
  std::fflush(stdout);
  side_by_side(threads, method_count * s.seeds, [&](index_t job) {
    const index_t k = job % s.seeds;
    outcomes[static_cast<std::size_t>(job)] =
        run_method(s, states[static_cast<std::size_t>(k)], methods[job / s.seeds],
                   static_cast<std::uint64_t>(k) + 1);
  });

  const seed_state& first = states.front();
  std::printf(
      "\n%lld parameters, %zu pool and %zu warmup records (half of them damaged), "
      "budgets: %lld examples, %lld parameters\n\n",
      static_cast<long long>(first.model->layout().size()), first.data.split.pool.size(),
      first.data.split.warmup.size(), static_cast<long long>(first.selection.examples.size()),
      static_cast<long long>(first.selection.mask.selected.size()));
  std::printf("%-18s %-16s %-16s %-16s %s\n", "method", "target loss", "general loss", "mean",
              "clean share");
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (index_t m = 0; m < method_count; ++m) {
    std::vector<double> target, general, mean, clean;
    for (index_t k = 0; k < s.seeds; ++k) {
      const outcome& o = outcomes[static_cast<std::size_t>(m * s.seeds + k)];
      target.push_back(o.target);
      general.push_back(o.general);
      mean.push_back((o.target + o.general) / 2);
      clean.push_back(o.clean);
    }
    const bool trains = methods[m].trains;
    std::printf("%-18s %-17s %-17s %-17s %s\n", methods[m].name, cell(summarise(target)).c_str(),
                cell(summarise(general)).c_str(), cell(summarise(mean)).c_str(),
                trains ? cell(summarise(clean), "%.2f ± %.2f").c_str() : "-");
    rows.push_back({{"method", methods[m].name},
                    {"target", target},
                    {"general", general},
                    {"clean_share", clean}});
  }
  std::vector<double> conservation, parameter_gap, data_gap, share, selected, random;
  for (const seed_state& state : states) {
    conservation.push_back(state.selection.scores.conservation.gap);
    parameter_gap.push_back(state.selection.mask.gap);
    data_gap.push_back(state.selection.subset.gap);
    share.push_back(state.selection.scores.direction.second_order_share);
    selected.push_back(state.selected_diversity);
    random.push_back(state.random_diversity);
  }
  std::printf("\nconservation gap        %s\n",
              cell(summarise(conservation), "%.1e ± %.1e").c_str());
  std::printf("parameter boundary gap  %s\n",
              cell(summarise(parameter_gap), "%.1e ± %.1e").c_str());
  std::printf("data boundary gap       %s\n", cell(summarise(data_gap), "%.1e ± %.1e").c_str());
  std::printf("second-order share      %s\n", cell(summarise(share), "%.1e ± %.1e").c_str());
  std::printf("diversity, selected     %s\n", cell(summarise(selected)).c_str());
  std::printf("diversity, random       %s\n", cell(summarise(random)).c_str());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("seconds                 %.0f\n", seconds);
  if (!s.json.empty()) {
    const nlohmann::ordered_json all{{"seeds", s.seeds},
                                     {"rows", rows},
                                     {"conservation_gap", conservation},
                                     {"parameter_boundary_gap", parameter_gap},
                                     {"data_boundary_gap", data_gap},
                                     {"second_order_share", share},
                                     {"selected_diversity", selected},
                                     {"random_diversity", random},
                                     {"seconds", seconds}};
    std::ofstream(s.json) << all.dump(2) << "\n";
  }
  for (const seed_state& state : states)
    if (!state.selection.scores.conservation.holds) {
      std::fprintf(stderr, "10_demo: the conservation law is broken\n");
      return 4;
    }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app("Dual scoring on text, against random choices and full fine-tuning");
  auto* general = app.add_option("--general", s.general, "general text to pre-train on");
  auto* general_test = app.add_option("--general-test", s.general_test, "held-out general text");
  auto* target = app.add_option("--target", s.target, "target records, JSONL question/answer");
  auto* target_test = app.add_option("--target-test", s.target_test, "held-out target records");
  for (auto* one : {general, general_test, target, target_test})
    for (auto* other : {general, general_test, target, target_test})
      if (one != other) one->needs(other);
  app.add_option("--seeds", s.seeds)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--threads", s.threads, "0: all")->check(CLI::NonNegativeNumber);
  app.add_option("--pool", s.pool)->check(CLI::Range(40, 1000000))->capture_default_str();
  app.add_option("--pretrain-pieces", s.pretrain_pieces)->capture_default_str();
  app.add_option("--pretrain-epochs", s.pretrain_epochs)->capture_default_str();
  app.add_option("--learning-rate", s.rate)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--epochs", s.epochs)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--data-budget", s.data_budget)->capture_default_str();
  app.add_option("--parameter-budget", s.parameter_budget)->capture_default_str();
  app.add_option("--lambda", s.lambda)->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--order", s.order)
      ->check(CLI::IsMember({"first", "diagonal", "full", "joint"}))
      ->capture_default_str();
  app.add_option("--step", s.step)->check(CLI::IsMember({"sgd", "adamw"}))->capture_default_str();
  app.add_option("--preservation", s.preservation)
      ->check(CLI::IsMember({"none", "l2", "fisher", "cwsd"}))
      ->capture_default_str();
  app.add_option("--json", s.json, "also write every seed's numbers to this file");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    return run(s);
  } catch (const input_error& error) {
    std::fprintf(stderr, "10_demo: %s\n", error.what());
    return 3;
  } catch (const invalid_argument& error) {
    std::fprintf(stderr, "10_demo: %s\n", error.what());
    return 2;
  } catch (const numerical_error& error) {
    std::fprintf(stderr, "10_demo: %s\n", error.what());
    return 4;
  }
}
