// SPDX-License-Identifier: Apache-2.0
// The program `dualsft`: reads the command line, runs one command, and turns what went wrong into
// one line on stderr and an exit code:
//
//   0 success     1 a verification failed     2 wrong usage     3 bad input
//   4 NaN, infinity or a broken conservation law     130 interrupted
#include <CLI/CLI.hpp>
#include <dualsft/error.hpp>
#include <dualsft/version.hpp>
#include <functional>
#include <iostream>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef DUALSFT_HAS_LLM
#include "evaluate.hpp"
#include "init.hpp"
#include "natural_number.hpp"
#include "pipeline/command_line.hpp"
#endif
#include "report/report.hpp"
#include "score.hpp"
#include "terminal.hpp"
#include "usage_error.hpp"
#include "verify.hpp"

namespace {

using namespace dualsft;

/// A command once the options have been read.
struct command {
  command() = default;
  template <class Run>
  requires std::is_invocable_r_v<int, Run> command(
      Run action, std::string stopped = "interrupted",
      std::function<std::string()> kept = [] { return std::string(); })
      : run(std::move(action)), interrupted(std::move(stopped)), published(std::move(kept)) {}

  std::function<int()> run;                ///< returns the exit code
  std::string interrupted;                 ///< what to say of a run that a signal ended
  std::function<std::string()> published;  ///< what is complete by the time that `run` returns
};

/// An option whose value is one of a few names; `parse` gives nothing for any other.
template <class Enum>
CLI::Option* add_choice(CLI::App* app, const std::string& option, Enum& value,
                        std::optional<Enum> (*parse)(std::string_view), const std::string& names) {
  return app
      ->add_option_function<std::string>(
          option,
          [option, &value, parse, names](const std::string& text) {
            const std::optional<Enum> parsed = parse(text);
            if (!parsed) throw cli::usage_error(option + " " + text + ": expected " + names);
            value = *parsed;
          },
          names)
      ->type_name("NAME");
}

command add_score(CLI::App& program, CLI::App*& app) {
  const auto o = std::make_shared<cli::score_options>();
  app = program.add_subcommand("score", "dual scores from arrays: an N x d gradient matrix");
  app->add_option("--gradients", o->gradients, "G.npy [N, d], float32 or float64")->required();
  app->add_option("--validation", o->validation, "v.npy [d], the validation gradient")->required();
  app->add_option("--curvature", o->curvature, "D.npy [d]");
  app->add_option("--hessian-gradient", o->hessian_gradient, "HG.npy [d]: H G, or H (D^-1 G)");
  add_choice(app, "--order", o->order, score_order_from, "first, diagonal, full or joint")
      ->required();
  add_choice(app, "--step", o->step, step_geometry_from, "sgd (default) or adamw");
  app->add_option("--eta", o->eta, "local step size, > 0")->required();
  app->add_option("--parameter-budget", o->parameter_budget,
                  "K: a count, or a ratio in (0, 1) of d (rounded down, at least 1)")
      ->required();
  app->add_option("--data-budget", o->data_budget, "B: likewise, of N")->required();
  app->add_flag_callback(
      "--absolute", [o] { o->rank = cli::score_options::rank_by::magnitude; },
      "select the largest |score| instead of the largest score");
  app->add_option("--memory-limit", o->memory_limit,
                  "for buffers that grow with the arrays; bytes, or 512MiB (default 1GiB)")
      ->transform(CLI::AsSizeValue(false).description(""));
  app->add_option("--threads", o->threads, "0 (default): all that the machine has")
      ->check(CLI::Range(0, 4096));
  app->add_flag_callback(
      "--json", [o] { o->report = cli::score_options::report_as::json; },
      "print the summary as JSON");
  app->add_option("--out", o->out, "folder for the results")->required();
  return {[o] {
            cli::run_score(*o, std::cout);
            return 0;
          },
          "interrupted; the output folder is as it was before",
          [o] { return "; the results in " + o->out + " are complete"; }};
}

command add_verify(CLI::App& program, CLI::App*& app) {
  const auto o = std::make_shared<cli::verify_options>();
  app = program.add_subcommand("verify", "the theory, checked on small games and models");
  app->add_option("--seed", o->seed, "of the random instances")
      ->check(cli::natural_number)
      ->capture_default_str();
  app->add_option("--games", o->games, "random instances per statement")->capture_default_str();
  app->add_option("--threads", o->threads, "0 (default): all that the machine has")
      ->check(CLI::Range(0, 4096));
  app->add_flag("--json", o->json, "print one JSON object");
  return [o] { return cli::run_verify(*o, std::cout); };
}

command add_report(CLI::App& program, CLI::App*& app) {
  const auto o = std::make_shared<cli::report_options>();
  app = program.add_subcommand("report", "what lies in a run folder, as one self-contained page");
  app->add_option("folder", o->folder, "the output folder of a run; receives report.html")
      ->type_name("DIR")
      ->required();
  app->add_option("--threads", o->threads, "accepted as everywhere; one is enough")
      ->check(CLI::Range(0, 4096));
  app->add_flag("--json", o->json, "print one JSON object");
  return {[o] {
            cli::run_report(*o, std::cout);
            return 0;
          },
          "interrupted; the folder is as it was before",
          [o] { return "; " + o->folder + "/report.html is complete"; }};
}

#ifdef DUALSFT_HAS_LLM
command add_init(CLI::App& program, CLI::App*& app) {
  const auto o = std::make_shared<cli::init_options>();
  app = program.add_subcommand("init", "a language model with random weights, as a checkpoint");
  app->add_option("--config", o->config, "config.json of a supported family")->required();
  app->add_option("--tokenizer", o->tokenizer, "tokenizer.json, or bytes")->required();
  app->add_option("--seed", o->seed, "of the weights")
      ->check(cli::natural_number)
      ->capture_default_str();
  app->add_option("--threads", o->threads, "0 (default): all that the machine has")
      ->check(CLI::Range(0, 4096));
  app->add_flag("--json", o->json, "print one JSON object");
  app->add_option("--out", o->out, "folder for the checkpoint")->required();
  return [o] {
    cli::run_init(*o, std::cout);
    return 0;
  };
}

command add_evaluate(CLI::App& program, CLI::App*& app) {
  using options = cli::evaluate_options;
  const auto o = std::make_shared<options>();
  app = program.add_subcommand("evaluate", "the loss of a checkpoint on records, and its answers");
  app->add_option("--model", o->model, "checkpoint folder")->required();
  app->add_option("--data", o->data, "records: JSONL, or a JSON array")->required();
  app->add_option_function<std::string>(
         "--generate",
         [o](const std::string& text) {
           if (text != "exact-match" && text != "none")
             throw cli::usage_error("--generate " + text + ": expected exact-match or none");
           o->generate =
               text == "none" ? options::generate_kind::none : options::generate_kind::exact_match;
         },
         "exact-match: also answer each prompt greedily, and compare; or none (default)")
      ->type_name("NAME");
  app->add_option_function<std::string>(
         "--precision",
         [o](const std::string& text) {
           if (text != "float32" && text != "float64")
             throw cli::usage_error("--precision " + text + ": expected float32 or float64");
           o->precision = text == "float32" ? options::scalar::float32 : options::scalar::float64;
         },
         "float32 (default) or float64")
      ->type_name("NAME");
  app->add_option("--template", o->own_template, "file with {prompt}, {input}, {response}");
  app->add_option("--max-length", o->max_length, "tokens of a record; the rest is cut")
      ->check(CLI::Range(index_t{2}, index_t{1} << 24))
      ->capture_default_str();
  app->add_option("--max-new-tokens", o->max_new_tokens, "of an answer")
      ->check(CLI::Range(index_t{1}, index_t{1} << 20))
      ->capture_default_str();
  app->add_option("--limit", o->limit, "look at so many records; 0 (default): all")
      ->check(CLI::NonNegativeNumber);
  app->add_flag("--train-on-prompt", o->train_on_prompt, "loss on prompts too");
  app->add_flag("--skip-bad", o->skip_bad, "count records that cannot be used, and go on");
  app->add_option("--threads", o->threads, "0 (default): all that the machine has")
      ->check(CLI::Range(0, 4096));
  app->add_flag("--json", o->json, "print one JSON object");
  return [o] {
    cli::run_evaluate(*o, std::cout);
    return 0;
  };
}

template <cli::pipeline_command Which>
command add_pipeline(CLI::App& program, CLI::App*& app) {
  using enum cli::pipeline_command;
  const auto [name, help] =
      Which == run ? std::pair("run", "from a checkpoint and records to a fine-tuned checkpoint")
      : Which == warmup ? std::pair("warmup", "the first stage of run: theta_0 to theta_w")
      : Which == select ? std::pair("select", "run up to the selection")
                        : std::pair("finetune", "the last stage of run, on what was selected");
  const auto o = std::make_shared<cli::pipeline_options>();
  app = program.add_subcommand(name, help);
  cli::add_pipeline_options(app, Which, o);
  return {
      [o] {
        cli::run_pipeline(Which, *o, std::cout);
        return 0;
      },
      "interrupted; the folder keeps what was done: run with --resume, or the stage again, goes "
      "on",
      [o] { return "; the results in " + o->out + " are complete"; }};
}
#endif

/// One line on stderr, whatever the path or the word in it is made of.
int fail(int code, std::string_view reason) {
  std::string line = "dualsft: ";
  for (const char c : reason) {
    constexpr char digits[] = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      line += c;
    } else {
      line += "\\x";
      line += digits[byte >> 4];
      line += digits[byte & 15];
    }
  }
  std::cerr << line << std::endl;
  return code;
}

int guarded(const command& chosen) {
  try {
    const int code = chosen.run();
    std::cout.flush();
    if (std::cout) return code;
    return fail(3,
                "standard output: found an error, expected it to be writable" + chosen.published());
  } catch (const cli::interrupted&) {
    return fail(130, chosen.interrupted);
  } catch (const cli::usage_error& error) {
    return fail(2, error.what());
  } catch (const invalid_argument& error) {
    return fail(2, error.what());
  } catch (const input_error& error) {
    return fail(3, error.what());
  } catch (const numerical_error& error) {
    return fail(4, error.what());
  } catch (const std::bad_alloc&) {
    return fail(3,
                "memory: found too little, expected what this job needs (smaller batches or limits "
                "need less)");
  } catch (const std::exception& error) {
    return fail(3, error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App program("Dual scoring of parameters and training examples for fine-tuning", "dualsft");
  program.set_version_flag("--version", std::to_string(DUALSFT_VERSION_MAJOR) + "." +
                                            std::to_string(DUALSFT_VERSION_MINOR) + "." +
                                            std::to_string(DUALSFT_VERSION_PATCH));
  program.require_subcommand(1);
  std::vector<std::pair<CLI::App*, command>> commands;
  for (const auto add : {
           add_score,
           add_verify,
           add_report,
#ifdef DUALSFT_HAS_LLM
           add_init,
           add_evaluate,
           add_pipeline<cli::pipeline_command::run>,
           add_pipeline<cli::pipeline_command::warmup>,
           add_pipeline<cli::pipeline_command::select>,
           add_pipeline<cli::pipeline_command::finetune>,
#endif
       }) {
    CLI::App* app = nullptr;
    command added = add(program, app);
    commands.emplace_back(app, std::move(added));
  }
  for (int i = 2; i < argc; ++i)  // the parser would take '' for 0
    if (argv[i][0] == '\0') return fail(2, std::string(argv[i - 1]) + ": the value is empty");
  if (argc > 1 && argv[1][0] != '-') {  // the parser would only ask for a command, naming none
    const std::string word = argv[1];
    std::string names;
    bool known = false;
    for (const auto& [app, chosen] : commands) {
      names += (names.empty() ? "" : ", ") + app->get_name();
      known = known || app->get_name() == word;
    }
    if (!known) return fail(2, word + ": no such command, expected one of " + names);
  }
  try {
    program.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    return program.exit(request);
  } catch (const CLI::ParseError& error) {
    return fail(2, error.what());
  } catch (const cli::usage_error& error) {
    return fail(2, error.what());
  }
  cli::catch_interrupts();
  for (const auto& [app, chosen] : commands)
    if (app->parsed()) return guarded(chosen);
  return 2;
}
