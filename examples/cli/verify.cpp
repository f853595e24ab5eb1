// SPDX-License-Identifier: Apache-2.0
#include "verify.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <dualsft/error.hpp>
#include <dualsft/execution.hpp>
#include <limits>
#include <mutex>
#include <ostream>
#include <string>
#include <vector>

#include "terminal.hpp"
#include "verify_checks.hpp"

namespace dualsft::cli {
namespace {

struct verify_row {
  std::string statement;
  double error = 0.0;
  double bound = 0.0;
  double altered = 0.0;
  bool pass = false;
};

// The wrong version has to be wrong well beyond the bound, or the row proves nothing.
constexpr double telling = 10.0;

// Hours of work, and outcomes that fit any memory.
constexpr index_t most_games = 1'000'000;

verify_row run_check(const verify_check& check, std::uint64_t number, const verify_options& options,
                     progress& bar) {
  std::mutex bar_is_used;
  std::vector<verify_outcome> outcomes(static_cast<std::size_t>(options.games));
  detail::parallel_ranges(
      exec::cpu{options.threads}, options.games, 1, [&](int, detail::index_range range) {
        for (index_t game = range.begin; game < range.end; ++game) {
          stop_if_interrupted();
          // One stream per row and game: neither threads nor other rows shift the numbers.
          random_source random(options.seed, (number << 32) + static_cast<std::uint64_t>(game));
          outcomes[static_cast<std::size_t>(game)] = check.instance(random);
          const std::lock_guard<std::mutex> lock(bar_is_used);
          bar.advance(1);
        }
      });
  verify_row row{check.statement, 0.0, check.bound, 0.0, false};
  for (const verify_outcome& outcome : outcomes) {
    row.error = std::isnan(outcome.error) ? std::numeric_limits<double>::infinity()
                                          : std::max(row.error, outcome.error);
    if (outcome.altered > row.altered) row.altered = outcome.altered;
  }
  row.pass = row.error <= row.bound && row.altered > telling * row.bound;
  return row;
}

std::string formatted(const char* format, double value) {
  char text[40];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string json_number(double value) {
  return std::isfinite(value) ? formatted("%.17g", value) : "null";
}

// Statements are ASCII without quotes or backslashes, so they need no escaping.
void write_json(const verify_options& options, const std::vector<verify_row>& rows, bool passed,
                std::ostream& out) {
  out << "{\"seed\": " << options.seed << ", \"games\": " << options.games << ", \"rows\": [";
  for (std::size_t k = 0; k < rows.size(); ++k) {
    const verify_row& row = rows[k];
    out << (k == 0 ? "\n" : ",\n") << "  {\"statement\": \"" << row.statement
        << "\", \"worst_error\": " << json_number(row.error)
        << ", \"bound\": " << json_number(row.bound)
        << ", \"altered_error\": " << json_number(row.altered)
        << ", \"pass\": " << (row.pass ? "true" : "false") << "}";
  }
  out << "\n], \"passed\": " << (passed ? "true" : "false") << "}\n";
}

void write_table(const verify_options& options, const std::vector<verify_row>& rows, bool passed,
                 std::ostream& out) {
  std::size_t width = 0;
  for (const verify_row& row : rows) width = std::max(width, row.statement.size());
  const auto padded = [&](std::string text) {
    text.resize(width, ' ');
    return text;
  };
  out << padded("statement") << "  worst error    bound  altered  result\n";
  std::size_t failed = 0;
  for (const verify_row& row : rows) {
    out << padded(row.statement) << formatted("  %11.1e", row.error)
        << formatted("  %7.0e", row.bound) << formatted("  %7.0e", row.altered)
        << (row.pass ? "  pass" : "  FAIL") << '\n';
    failed += row.pass ? 0 : 1;
  }
  out << "\n"
      << rows.size() << " statements, " << options.games << " random instances each, seed "
      << options.seed << ": ";
  if (passed)
    out << "all pass.\n";
  else
    out << failed << " FAILED.\n";
  out << "altered: the error of a deliberately wrong version on the same instances; a row passes\n"
         "only if its error is within the bound and the altered one is far outside.\n";
}

}  // namespace

int run_verify(const verify_options& options, std::ostream& out) {
  expects(options.games >= 1 && options.games <= most_games, "verify",
          "games must lie in [1, 1000000]", "games", options.games);
  expects(options.threads >= 0, "verify", "threads must not be negative", "threads",
          options.threads);
  const auto checks = verify_checks();
  std::vector<verify_row> rows;
  {
    progress bar("verifying", static_cast<index_t>(checks.size()) * options.games, "games");
    std::uint64_t number = 0;
    for (const verify_check& check : checks)
      rows.push_back(run_check(check, number++, options, bar));
  }
  const bool passed =
      std::all_of(rows.begin(), rows.end(), [](const verify_row& row) { return row.pass; });
  if (options.json)
    write_json(options, rows, passed, out);
  else
    write_table(options, rows, passed, out);
  return passed ? 0 : 1;
}

}  // namespace dualsft::cli
