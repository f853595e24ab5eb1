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
#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "score.hpp"
#include "terminal.hpp"
#include "verify.hpp"

namespace {

using namespace dualsft;

/// A command once the options have been read; returns the exit code.
using command = std::function<int()>;

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
  app->add_option("--threads", o->threads, "0 (default): all that the machine has");
  app->add_flag_callback(
      "--json", [o] { o->report = cli::score_options::report_as::json; },
      "print the summary as JSON");
  app->add_option("--out", o->out, "folder for the results")->required();
  return [o] {
    cli::run_score(*o, std::cout);
    return 0;
  };
}

command add_verify(CLI::App& program, CLI::App*& app) {
  const auto o = std::make_shared<cli::verify_options>();
  app = program.add_subcommand("verify", "the theory, checked on small games and models");
  app->add_option("--seed", o->seed, "of the random instances")->capture_default_str();
  app->add_option("--games", o->games, "random instances per statement")->capture_default_str();
  app->add_option("--threads", o->threads, "0 (default): all that the machine has");
  app->add_flag("--json", o->json, "print one JSON object");
  return [o] { return cli::run_verify(*o, std::cout); };
}

int fail(int code, const std::string& reason) {
  std::cerr << "dualsft: " << reason << std::endl;
  return code;
}

int guarded(const command& run) {
  try {
    const int code = run();
    std::cout.flush();
    return std::cout ? code
                     : fail(3, "standard output: found an error, expected it to be writable");
  } catch (const cli::interrupted&) {
    return fail(130, "interrupted; the output folder is as it was before");
  } catch (const cli::usage_error& error) {
    return fail(2, error.what());
  } catch (const invalid_argument& error) {
    return fail(2, error.what());
  } catch (const input_error& error) {
    return fail(3, error.what());
  } catch (const numerical_error& error) {
    return fail(4, error.what());
  } catch (const std::bad_alloc&) {
    return fail(3, "memory: found too little, expected what --memory-limit allows");
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
  for (const auto add : {add_score, add_verify}) {
    CLI::App* app = nullptr;
    command run = add(program, app);
    commands.emplace_back(app, std::move(run));
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
  for (const auto& [app, run] : commands)
    if (app->parsed()) return guarded(run);
  return 2;
}
