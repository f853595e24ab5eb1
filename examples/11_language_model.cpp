// The main job through the language model: pre-train a small Llama on bytes, adapt it to a target
// with DualSFT, its parts, its variants and the choices it has to beat, at equal budgets.
//
//   11_language_model                               makes its own corpus
//   11_language_model --pretrain a.jsonl,b.txt --target c.jsonl --target-test d.jsonl
//                     --stability e.jsonl,f.json,g.txt
//
// Plasticity is the loss on held-out target records, stability the mean over the held-out general
// sets, each the mean over its records; both in nats per byte, lower is better. Mean and standard
// deviation over the seeds. With --out, seed 1's model and records are left there for `dualsft run`.
//
// Output varies: it is measured.
// Arguments in tests: --seeds 2 --pool 60 --pretrain-records 40 --width 16 --layers 1 --test-records 20
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <dualsft/dualsft.hpp>
#include <dualsft/llm/checkpoint.hpp>
#include <dualsft/llm/config_reader.hpp>
#include <dualsft/llm/record_tokens.hpp>
#include <dualsft/llm/records.hpp>
#include <dualsft/llm/tokenizer.hpp>
#include <dualsft/llm/transformer.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "experiment/made_up_text.hpp"
#include "experiment/table.hpp"

using namespace dualsft;
using namespace dualsft::experiment;
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

using model_type = llm::transformer<float>;

struct settings {
  std::vector<std::string> pretrain, stability;
  std::string target, target_test, out, json;
  int seeds = 3;
  int threads = 0;
  index_t width = 64, layers = 2;
  index_t max_length = 320;  // tokens, which are bytes
  index_t pretrain_records = 2400;
  index_t pretrain_epochs = 2;
  double pretrain_rate = 2e-3;
  index_t pool = 600;  // candidates: warmup and scoring pool
  double damage = 0;   // share of the candidates that is off-target or corrupted
  index_t validation = 64, anchors = 64;
  index_t test_records = 150;  // of each held-out set
  double rate = 1e-3;
  index_t epochs = 3;
  index_t batch = 16;
  double data_budget = 0.10, parameter_budget = 0.05, lambda = 0.2;
};

enum class kind { clean, off_target, corrupted };

// ---- records ------------------------------------------------------------------------------------

/// Pairs of prompt and response; a text is a response without a prompt.
using pairs = std::vector<text_pair>;

pairs pieces_of(const std::string& text, std::size_t bytes) {
  pairs out;
  for (std::size_t at = 0; at + bytes <= text.size(); at += bytes)
    out.push_back({"", text.substr(at, bytes)});
  return out;
}

/// A record of dialogsum: {"dialogue", "summary"}; its end, where the dialogue is long.
std::optional<text_pair> summary_pair(const json& record) {
  if (!record.contains("dialogue") || !record.contains("summary")) return std::nullopt;
  std::string dialogue = record["dialogue"].get<std::string>();
  if (dialogue.size() > 160) dialogue.erase(0, dialogue.size() - 160);
  return text_pair{dialogue + "\nSummary: ", record["summary"].get<std::string>()};
}

/// Text files in pieces; record files in any form that the library reads, and dialogsum's.
pairs read_pairs(const std::string& path, index_t max_length) {
  if (path.ends_with(".txt")) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw input_error(path, "file", "nothing that can be opened", "a text file");
    return pieces_of({std::istreambuf_iterator<char>(file), {}},
                     static_cast<std::size_t>(max_length - 2));
  }
  pairs out;
  if (std::ifstream file(path); file) {
    std::string line;
    if (std::getline(file, line) && line.find("\"dialogue\"") != std::string::npos) {
      do {
        const json record = json::parse(line, nullptr, false);
        if (const auto pair = record.is_object() ? summary_pair(record) : std::nullopt)
          out.push_back(*pair);
      } while (std::getline(file, line));
      return out;
    }
  }
  llm::record_options options;
  options.bad = llm::bad_records::skip;
  options.own_template = llm::prompt_template::from_text("{prompt}{input}\n{response}", "template");
  for (const llm::text_record& record : llm::read_records(path, options).records) {
    text_pair pair;
    for (const llm::segment& s : record.segments)
      (s.predicted ? pair.response : pair.prompt) += s.text;
    out.push_back(std::move(pair));
  }
  return out;
}

pairs read_all(const std::vector<std::string>& paths, index_t max_length) {
  pairs all;
  for (const std::string& path : paths)
    for (text_pair& pair : read_pairs(path, max_length)) all.push_back(std::move(pair));
  return all;
}

/// A response must begin within the sequence: of longer prompts the end is kept.
text_pair fitted(text_pair pair, index_t max_length) {
  const auto most = static_cast<std::size_t>(max_length / 2);
  if (pair.prompt.size() > most) pair.prompt.erase(0, pair.prompt.size() - most);
  return pair;
}

/// Bytes as they are, cut UTF-8 included.
llm::token_record tokens_of(const text_pair& pair, const settings& s) {
  constexpr llm::token_id bos = 256, eos = 257;
  llm::token_record record{{bos}, {llm::ignored}};
  const auto add = [&](llm::token_id id, bool predicted) {
    if (static_cast<index_t>(record.ids.size()) >= s.max_length) return;
    record.ids.push_back(id);
    record.labels.push_back(predicted ? id : llm::ignored);
  };
  for (const char c : pair.prompt) add(static_cast<unsigned char>(c), false);
  for (const char c : pair.response) add(static_cast<unsigned char>(c), true);
  add(eos, true);
  return record;
}

// ---- one seed's experiment ------------------------------------------------------------------------

struct experiment_data {
  std::shared_ptr<const llm::token_corpus> corpus;
  std::vector<kind> kinds;  // per record
  std::vector<index_t> pretrain, target_test;
  std::vector<std::vector<index_t>> stability;
  data_split split;
  pairs candidates, validation, anchors;  // as text, for --out
};

experiment_data make_experiment(const settings& s, std::uint64_t seed) {
  random_source random(seed, 77);
  experiment_data e;
  llm::token_corpus corpus;
  const auto add = [&](const pairs& list, index_t most) {
    std::vector<index_t> numbers;
    for (index_t i = 0; i < std::min(most, static_cast<index_t>(list.size())); ++i)
      numbers.push_back(
          corpus.add(tokens_of(fitted(list[static_cast<std::size_t>(i)], s.max_length), s)));
    return numbers;
  };
  const bool own = s.target.empty();
  const auto piece = static_cast<std::size_t>(s.max_length - 2);
  pairs general = own ? pieces_of(general_text(1500000, 1), std::min<std::size_t>(piece, 200))
                      : read_all(s.pretrain, s.max_length);
  pairs target = own ? target_pairs(6000, 3) : read_pairs(s.target, s.max_length);
  const pairs target_test = own ? target_pairs(600, 4) : read_pairs(s.target_test, s.max_length);
  random.shuffle(std::span<text_pair>(general));
  random.shuffle(std::span<text_pair>(target));
  const index_t records = s.pool + s.validation + s.anchors;
  const index_t held_out = s.target_test == s.target && !own ? s.test_records : 0;
  if (static_cast<index_t>(target.size()) < records + held_out)
    throw input_error(s.target, "records", std::to_string(target.size()),
                      "at least " + std::to_string(records + held_out));

  e.pretrain = add(general, s.pretrain_records);
  if (held_out > 0) {  // no test file: the last records are held out
    e.target_test = add(pairs(target.end() - held_out, target.end()), held_out);
  } else {
    e.target_test = add(target_test, s.test_records);
  }
  if (own)
    e.stability.push_back(
        add(pieces_of(general_text(60000, 2), std::min<std::size_t>(piece, 200)), s.test_records));
  for (const std::string& path : s.stability)
    e.stability.push_back(add(read_pairs(path, s.max_length), s.test_records));

  e.kinds.assign(static_cast<std::size_t>(corpus.size()), kind::clean);
  const auto damaged = static_cast<index_t>(s.damage * static_cast<double>(s.pool));
  std::vector<index_t> pool;
  for (index_t i = 0; i < s.pool; ++i) {
    text_pair pair = fitted(target[static_cast<std::size_t>(i)], s.max_length);
    kind what = kind::clean;
    if (i < damaged && i % 2 == 0) {  // another task: continue a general text
      what = kind::off_target;
      pair = general[static_cast<std::size_t>(i) % general.size()];
      if (pair.prompt.empty()) {
        const std::size_t half = pair.response.size() / 2;
        pair = {pair.response.substr(0, half), pair.response.substr(half)};
      }
    } else if (i < damaged) {  // the answer's bytes in random order
      what = kind::corrupted;
      random.shuffle(std::span<char>(pair.response));
    }
    e.kinds.push_back(what);
    pool.push_back(corpus.add(tokens_of(pair, s)));
    e.candidates.push_back(std::move(pair));
  }
  e.split = split_records(std::span<const index_t>(pool),
                          {.validation = 0, .anchors = 0, .warmup_fraction = 0.1, .seed = seed});
  // Validation and anchors are clean by assumption: a user brings a trusted validation set.
  const auto at = target.begin() + s.pool;
  e.validation.assign(at, at + s.validation);
  e.anchors.assign(at + s.validation, at + s.validation + s.anchors);
  e.split.validation = add(e.validation, s.validation);
  e.split.anchors = add(e.anchors, s.anchors);
  e.corpus = std::make_shared<const llm::token_corpus>(std::move(corpus));
  return e;
}

ordered_json config_of(const settings& s) {
  return {{"model_type", "llama"},
          {"architectures", {"LlamaForCausalLM"}},
          {"vocab_size", 259},
          {"hidden_size", s.width},
          {"intermediate_size", s.width * 8 / 3},
          {"num_hidden_layers", s.layers},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", s.max_length},
          {"tie_word_embeddings", true},
          {"bos_token_id", 256},
          {"eos_token_id", 257}};
}

struct seed_state {
  experiment_data data;
  std::unique_ptr<model_type> model;  // at theta_0
  std::vector<float> theta_0;
  /// By name of a choice: what scored it.
  std::map<std::string, std::vector<index_t>> examples;
  std::map<std::string, index_set> masks;
  double conservation_gap = 0, parameter_gap = 0, data_gap = 0, share = 0;
  double selection_seconds = 0, epoch_seconds = 0;
  bool conserved = true;
};

training_options tuning(const settings& s, std::uint64_t seed) {
  return {.epochs = s.epochs,
          .batch_size = s.batch,
          .micro_batch_size = s.batch,
          .learning_rate = s.rate,
          .seed = seed};
}

double seconds_of(auto&& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Everything that fine-tuning is later restricted to, at theta_w and at theta_0.
void choose(const settings& s, seed_state& state, std::uint64_t seed) {
  const exec::cpu one{1};
  const data_split& split = state.data.split;
  const std::span<const float> theta_0(state.theta_0);
  selection_options options;
  options.learning_rate = s.rate;
  options.lambda = s.lambda;
  options.parameter_budget = budget::ratio(s.parameter_budget);
  options.data_budget = budget::ratio(s.data_budget);
  options.batch_size = options.data.batch_size = 8;

  const auto keep = [&](const std::string& name, const selection_result<float>& found) {
    state.examples[name] = found.examples;
    state.masks[name] = found.mask.selected;
    state.conserved = state.conserved && found.scores.conservation.holds;
  };
  model_type scored(*state.model);
  training_options warmup = tuning(s, seed);
  warmup.epochs = 1;
  warmup_result<float> warm;
  const double warm_seconds =
      seconds_of([&] { warm = warm_up(one, scored, split.warmup, warmup); });
  state.epoch_seconds = warm_seconds * static_cast<double>(split.pool.size()) /
                        static_cast<double>(split.warmup.size());
  selection_result<float> found;
  state.selection_seconds = warm_seconds + seconds_of([&] {
                              found = select(one, scored, theta_0, warm, split, options);
                            });
  keep("scored", found);
  state.conservation_gap = found.scores.conservation.gap;
  state.parameter_gap = found.mask.gap;
  state.data_gap = found.subset.gap;
  state.share = found.scores.direction.second_order_share;

  const index_t k = found.mask.selected.size();
  const auto b = static_cast<index_t>(found.examples.size());
  const auto worst =
      select_examples(found.scores.data.scores, {.budget = b, .end = selection_end::worst});
  for (const index_t i : worst.indices)
    state.examples["reversed"].push_back(split.pool[static_cast<std::size_t>(i)]);
  const auto columns = found.scores.parameters();
  state.masks["reversed"] = topk(one,
                                 make_source(columns.size(),
                                             [&](index_t offset, std::span<double> out) {
                                               columns.fill(offset, out);
                                               for (double& score : out) score = -score;
                                             }),
                                 {.k = k})
                                .selected;
  state.masks["gradient"] =
      topk(one, stored_scores(found.scores.pool.sum), {.k = k, .by = topk_by::magnitude}).selected;
  const std::vector<double> losses = losses_of(one, std::as_const(scored), split.pool, 8);
  for (const index_t i : select_examples(losses, {.budget = b}).indices)
    state.examples["top loss"].push_back(split.pool[static_cast<std::size_t>(i)]);

  selection_options first = options;
  first.order = score_order::first;
  keep("first order", select(one, scored, theta_0, warm, split, first));
  selection_options plain = options;
  plain.lambda = 0;
  keep("no CWSD", select(one, scored, theta_0, warm, split, plain));
  // Without warmup: theta_0 is scored, with second moments gathered there.
  assign_parameters(scored, theta_0);
  training_options still = warmup;
  still.learning_rate = still.final_learning_rate = 0;
  const auto moments = warm_up(one, scored, split.warmup, still);
  keep("no warmup", select(one, scored, theta_0, moments, split, options));

  random_source random(seed, 5);
  state.masks["random"] = stratified_random_mask(state.model->layout(), k, random);
  std::vector<index_t> shuffled = split.pool;
  random.shuffle(std::span<index_t>(shuffled));
  shuffled.resize(static_cast<std::size_t>(b));
  state.examples["random"] = std::move(shuffled);
  state.examples["all"] = candidates_of(split);
}

void prepare(const settings& s, seed_state& state, std::uint64_t seed) {
  const exec::cpu one{1};  // seeds and methods run side by side instead
  state.data = make_experiment(s, seed);
  state.model =
      std::make_unique<model_type>(llm::read_model_config_text(config_of(s).dump(), "config.json"),
                                   state.data.corpus, llm::transformer_options{.threads = 1});
  state.model->init(seed);
  adamw<float> optimizer(state.model->layout().size());
  train(one, *state.model, optimizer, state.data.pretrain,
        {.epochs = s.pretrain_epochs,
         .batch_size = 16,
         .micro_batch_size = 16,
         .learning_rate = s.pretrain_rate,
         .max_gradient_norm = 1,
         .seed = seed});
  state.theta_0 = parameter_values(*state.model);
  choose(s, state, seed);
}

struct method {
  const char* name;
  const char* data;  // names of choices; empty: not trained
  const char* mask;  // empty: all parameters
};

constexpr method methods[] = {
    {"pre-trained", "", ""},
    {"full fine-tuning", "all", ""},
    {"random data", "random", ""},
    {"random mask", "all", "random"},
    {"random both", "random", "random"},
    {"top-loss data", "top loss", ""},
    {"gradient mask", "all", "gradient"},
    {"DualSFT-Param", "all", "scored"},
    {"DualSFT-Data", "scored", ""},
    {"DualSFT", "scored", "scored"},
    {"- first order", "first order", "first order"},
    {"- without warmup", "no warmup", "no warmup"},
    {"- without CWSD", "no CWSD", "no CWSD"},
    {"- reversed data", "reversed", "scored"},
    {"- reversed mask", "scored", "reversed"},
};

struct outcome {
  double target = 0, general = 0, clean = 0;
};

outcome run_method(const settings& s, const seed_state& state, const method& m,
                   std::uint64_t seed) {
  const exec::cpu one{1};
  outcome result;
  model_type model(*state.model);
  if (*m.data != '\0') {
    const std::vector<index_t>& examples = state.examples.at(m.data);
    fine_tune(one, model, std::span<const float>(state.theta_0), examples,
              *m.mask == '\0' ? nullptr : &state.masks.at(m.mask), tuning(s, seed));
    for (const index_t i : examples)
      result.clean += state.data.kinds[static_cast<std::size_t>(i)] == kind::clean ? 1 : 0;
    result.clean /= static_cast<double>(examples.size());
  }
  result.target = mean_loss(one, std::as_const(model), state.data.target_test, 16);
  for (const auto& set : state.data.stability)
    result.general += mean_loss(one, std::as_const(model), set, 16) /
                      static_cast<double>(state.data.stability.size());
  return result;
}

// ---- what is left behind ------------------------------------------------------------------------

/// Text of whole characters; a cut one is left out.
std::string valid_text(const std::string& text) {
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::ignore))
      .get<std::string>();
}

void leave(const settings& s, const seed_state& state) {
  namespace fs = std::filesystem;
  const fs::path out(s.out);
  fs::create_directories(out);
  const auto write = [&](const char* name, const pairs& list, bool groups) {
    std::ofstream file(out / name);
    for (std::size_t i = 0; i < list.size(); ++i) {
      ordered_json record{{"prompt", valid_text(list[i].prompt)},
                          {"response", valid_text(list[i].response)}};
      const index_t number =
          static_cast<index_t>(state.data.kinds.size() - state.data.candidates.size() + i);
      if (groups)
        record["group"] =
            state.data.kinds[static_cast<std::size_t>(number)] == kind::clean
                ? "clean"
                : (state.data.kinds[static_cast<std::size_t>(number)] == kind::off_target
                       ? "off target"
                       : "corrupted");
      file << record.dump() << "\n";
    }
  };
  write("train.jsonl", state.data.candidates, true);
  write("validation.jsonl", state.data.validation, false);
  write("anchors.jsonl", state.data.anchors, false);
  std::ofstream(out / "template.txt") << "{prompt}{input}{response}";
  llm::write_checkpoint<float>((out / "model").string(), config_of(s).dump(2) + "\n",
                               state.model->layout(), std::span<const float>(state.theta_0));
  llm::tokenizer::bytes().save((out / "model/tokenizer.json").string());
}

// ---- the table ----------------------------------------------------------------------------------

int run(const settings& s) {
  const auto start = std::chrono::steady_clock::now();
  const int threads = detail::thread_count(exec::cpu{s.threads});
  std::vector<seed_state> states(static_cast<std::size_t>(s.seeds));
  std::printf("Pre-training, warming up and scoring %d seeds ...\n", s.seeds);
  std::fflush(stdout);
  side_by_side(threads, s.seeds, [&](index_t k) {
    prepare(s, states[static_cast<std::size_t>(k)], static_cast<std::uint64_t>(k) + 1);
  });
  if (!s.out.empty()) leave(s, states.front());

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
      "\n%lld parameters, %zu pool and %zu warmup records (%.0f %% of them damaged), "
      "budgets: %zu examples, %lld parameters\n\n",
      static_cast<long long>(first.model->layout().size()), first.data.split.pool.size(),
      first.data.split.warmup.size(), 100 * s.damage, first.examples.at("scored").size(),
      static_cast<long long>(first.masks.at("scored").size()));
  std::printf("%-18s %-16s %-16s %-16s %s\n", "method", "target loss", "general loss", "mean",
              "clean share");
  ordered_json rows = ordered_json::array();
  for (index_t m = 0; m < method_count; ++m) {
    std::vector<double> target, general, mean, clean;
    for (index_t k = 0; k < s.seeds; ++k) {
      const outcome& o = outcomes[static_cast<std::size_t>(m * s.seeds + k)];
      target.push_back(o.target);
      general.push_back(o.general);
      mean.push_back((o.target + o.general) / 2);
      clean.push_back(o.clean);
    }
    const method& row = methods[m];
    std::printf("%-18s %-17s %-17s %-17s %s\n", row.name, cell(summarise(target)).c_str(),
                cell(summarise(general)).c_str(), cell(summarise(mean)).c_str(),
                *row.data == '\0' ? "-" : cell(summarise(clean), "%.2f ± %.2f").c_str());
    rows.push_back(
        {{"method", row.name}, {"target", target}, {"general", general}, {"clean_share", clean}});
  }
  const auto over_seeds = [&](double seed_state::*member) {
    std::vector<double> values(states.size());
    std::ranges::transform(states, values.begin(),
                           [member](const seed_state& state) { return state.*member; });
    return values;
  };
  const auto line = [&](const char* name, double seed_state::*member, const char* format) {
    std::printf("%-24s%s\n", name, cell(summarise(over_seeds(member)), format).c_str());
  };
  std::printf("\n");
  line("conservation gap", &seed_state::conservation_gap, "%.1e ± %.1e");
  line("parameter boundary gap", &seed_state::parameter_gap, "%.1e ± %.1e");
  line("data boundary gap", &seed_state::data_gap, "%.1e ± %.1e");
  line("second-order share", &seed_state::share, "%.1e ± %.1e");
  std::vector<double> cost = over_seeds(&seed_state::selection_seconds);
  for (std::size_t k = 0; k < cost.size(); ++k) cost[k] /= states[k].epoch_seconds;
  std::printf("%-24s%s epochs over the pool\n", "selection cost",
              cell(summarise(cost), "%.2f ± %.2f").c_str());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%-24s%.0f\n", "seconds", seconds);
  if (!s.json.empty())
    std::ofstream(s.json) << ordered_json{{"seeds", s.seeds},
                                          {"rows", rows},
                                          {"selection_over_epoch", cost},
                                          {"seconds", seconds}}
                                 .dump(2)
                          << "\n";
  for (const seed_state& state : states)
    if (!state.conserved) {
      std::fprintf(stderr, "11_language_model: the conservation law is broken\n");
      return 4;
    }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app("Dual scoring of a small Llama, against what it has to beat");
  auto* pretrain =
      app.add_option("--pretrain", s.pretrain, "text and record files")->delimiter(',');
  auto* target = app.add_option("--target", s.target, "records to adapt to");
  auto* test = app.add_option("--target-test", s.target_test,
                              "held-out ones; the same file: its last records are held out");
  auto* stability =
      app.add_option("--stability", s.stability, "held-out general files")->delimiter(',');
  for (auto* one : {pretrain, target, test, stability})
    for (auto* other : {pretrain, target, test, stability})
      if (one != other) one->needs(other);
  app.add_option("--out", s.out, "leave seed 1's model and records here");
  app.add_option("--json", s.json, "also write every seed's numbers to this file");
  const auto count = [&](const char* name, index_t& value, index_t least) {
    app.add_option(name, value)->check(CLI::Range(least, index_t{1} << 30))->capture_default_str();
  };
  app.add_option("--seeds", s.seeds)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--threads", s.threads, "0: all")->check(CLI::NonNegativeNumber);
  count("--width", s.width, 16);
  count("--layers", s.layers, 1);
  count("--max-length", s.max_length, 16);
  count("--pretrain-records", s.pretrain_records, 1);
  count("--pretrain-epochs", s.pretrain_epochs, 0);
  count("--pool", s.pool, 20);
  count("--validation", s.validation, 1);
  count("--anchors", s.anchors, 1);
  count("--test-records", s.test_records, 1);
  count("--epochs", s.epochs, 1);
  count("--batch", s.batch, 1);
  for (const auto& [name, value] :
       {std::pair{"--damage", &s.damage}, std::pair{"--data-budget", &s.data_budget},
        std::pair{"--parameter-budget", &s.parameter_budget}})
    app.add_option(name, *value)->check(CLI::Range(0.0, 1.0))->capture_default_str();
  for (const auto& [name, value] :
       {std::pair{"--pretrain-rate", &s.pretrain_rate}, std::pair{"--learning-rate", &s.rate},
        std::pair{"--lambda", &s.lambda}})
    app.add_option(name, *value)->check(CLI::NonNegativeNumber)->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (s.target.empty() && app.count("--damage") == 0) s.damage = 0.5;
  try {
    return run(s);
  } catch (const input_error& error) {
    std::fprintf(stderr, "11_language_model: %s\n", error.what());
    return 3;
  } catch (const invalid_argument& error) {
    std::fprintf(stderr, "11_language_model: %s\n", error.what());
    return 2;
  } catch (const numerical_error& error) {
    std::fprintf(stderr, "11_language_model: %s\n", error.what());
    return 4;
  }
}
