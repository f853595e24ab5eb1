// SPDX-License-Identifier: Apache-2.0
#include "score.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <dualsft/dense_stream.hpp>
#include <dualsft/io/npy.hpp>
#include <dualsft/splits.hpp>
#include <dualsft/subset.hpp>
#include <dualsft/topk.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <vector>

#include "score_output.hpp"
#include "terminal.hpp"
#include "usage_error.hpp"

namespace dualsft::cli {

namespace {

/// An array of numbers that will be read as double, or as its own type if that is float.
npy_reader open_reals(const std::string& path) {
  npy_reader reader(path);
  if (!reader.holds<float>() && !reader.holds<double>())
    throw input_error(path, "descr",
                      detail::in_quotes(std::string(detail::row_of(reader.type()).descr)),
                      "'<f4' or '<f8'");
  return reader;
}

/// A budget as the command line gives it: digits are a count in [1, total], anything else a ratio
/// r in (0, 1), which means max(1, floor(r total)).
index_t parse_budget(const std::string& option, const std::string& text, index_t total) {
  const auto refuse = [&](const std::string& rule) {
    throw usage_error(option + " " + text + ": " + rule);
  };
  const char* const end = text.data() + text.size();
  index_t count = 0;
  if (const auto [at, error] = std::from_chars(text.data(), end, count); at == end) {
    if (error != std::errc{} || count < 1 || count > total)
      refuse("a count must lie in [1, " + std::to_string(total) + "]");
    return count;
  }
  double ratio = 0;
  const auto [at, error] = std::from_chars(text.data(), end, ratio);
  if (error != std::errc{} || at != end) refuse("must be an integer count or a ratio in (0, 1)");
  if (!(ratio > 0 && ratio < 1))
    refuse("a ratio must lie strictly between 0 and 1 (to take all, give the count)");
  return budget::ratio(ratio).of(total);
}

/// What is wrong with a value, in the words of the messages.
std::string text_of(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return {text, end};
}

/// v, D or HG, read in pieces as double; its numbers are checked as they pass.
class vector_file {
 public:
  vector_file() = default;

  /// \param path    empty: none
  /// \param needed  false: the file is checked like any that is named, but views of it are empty
  vector_file(const std::string& path, index_t length, bool needed) {
    if (path.empty()) return;
    npy_reader reader = open_reals(path);
    reader.require_shape({length});
    if (needed) reader_.emplace(std::move(reader));
  }

  void require_positive() { positive_ = true; }

  vector_view<const double> read(index_t first, index_t count) {
    if (!reader_) return {};
    values_.resize(static_cast<std::size_t>(count));
    reader_->read(first, std::span(values_));
    for (index_t j = 0; j < count; ++j) {
      const double value = values_[static_cast<std::size_t>(j)];
      const std::string field = "value " + std::to_string(first + j);
      if (!std::isfinite(value))
        throw numerical_error(reader_->path() + ": " + field + ": found " + text_of(value) +
                              ", expected a finite number");
      if (positive_ && !(value > 0))
        throw input_error(reader_->path(), field, text_of(value),
                          "a positive number (--step adamw divides by it)");
    }
    return values_;
  }

 private:
  std::optional<npy_reader> reader_;
  std::vector<double> values_;
  bool positive_ = false;
};

/// How wide a panel of columns may be, or a usage_error that says what is the least.
///
/// Buffers that grow with the arrays: the panel; the tiles of the threads, together no larger than
/// the panel or 16 columns; row sums of each thread; v, D, HG and phi of the panel; later the
/// selection, beside the data scores and, to rank by magnitude, a copy of them.
index_t panel_width(const score_options& options, index_t rows, index_t columns, index_t scalar,
                    index_t selected_parameters, index_t selected_examples) {
  constexpr double tile = 16;
  const double n = static_cast<double>(rows);
  const double threads = detail::thread_count(exec::cpu{options.threads});
  const double fixed = 8 * n * (threads + 1);
  const double column = n * static_cast<double>(scalar);
  const double per_column = 2 * column + 8 * 6;  // of a panel of 16 columns or more
  const bool copies = options.rank == score_options::rank_by::magnitude;
  const double selection = (copies ? 16 : 8) * n + 13 * static_cast<double>(selected_parameters) +
                           80 * static_cast<double>(selected_examples);
  const double limit = static_cast<double>(options.memory_limit);
  const double first = std::min(tile, static_cast<double>(columns));
  const double least = std::max(fixed + column * (first + tile) + 8 * 6 * first, selection);
  if (limit < least)
    throw usage_error("--memory-limit " + std::to_string(options.memory_limit) +
                      ": these arrays, budgets and threads need at least " +
                      std::to_string(static_cast<std::uint64_t>(std::ceil(least))) + " bytes");
  const auto width = static_cast<index_t>((limit - fixed) / per_column);
  if (width >= columns) return columns;
  return std::max<index_t>(std::min<index_t>(16, columns), width / 16 * 16);
}

struct score_inputs {
  npy_reader gradients;
  vector_file validation, curvature, hessian_gradient;
};

/// Names the element of the panel that spoiled column `column`; if none did, a product overflowed.
template <class T>
[[noreturn]] void report_non_finite(const std::string& path, matrix_view<const T> panel,
                                    index_t first, index_t column, double score) {
  for (index_t i = 0; i < panel.rows(); ++i) {
    const auto value = static_cast<double>(panel(i, column - first));
    if (!std::isfinite(value))
      throw numerical_error(path + ": value (" + std::to_string(i) + ", " + std::to_string(column) +
                            "): found " + text_of(value) + ", expected a finite number");
  }
  throw numerical_error(path + ": the score of parameter " + std::to_string(column) + ": found " +
                        text_of(score) + ", expected a finite number (its products overflow)");
}

template <class T>
dense_result score_panels(const score_options& options, score_inputs& inputs, index_t width,
                          score_spool& parameter_scores) {
  const npy_reader& file = inputs.gradients;
  const index_t rows = file.rows(), columns = file.cols();
  const exec::cpu policy{options.threads};
  dense_panels scoring(policy, {options.order, options.step, options.eta}, rows, columns);
  // Not a vector: a gigabyte need not be zeroed before it is read into.
  const auto memory = std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(rows * width));
  std::vector<double> phi(static_cast<std::size_t>(width));
  progress bar("scoring", columns, "columns");
  while (scoring.next_column() < columns) {
    stop_if_interrupted();
    const index_t first = scoring.next_column();
    const index_t count = std::min(width, columns - first);
    const bool by_rows = file.order() == array_order::c;
    const matrix_view<T> panel = by_rows ? matrix_view<T>(memory.get(), rows, count)
                                         : matrix_view<T>(memory.get(), rows, count, 1, rows);
    detail::parallel_ranges(policy, by_rows ? rows : count, 1, [&](int, detail::index_range part) {
      if (by_rows)
        file.read_rectangle(part.begin, first, panel.middle_rows(part.begin, part.size()));
      else
        file.read_rectangle(0, first + part.begin,
                            panel.transposed().middle_rows(part.begin, part.size()).transposed());
    });
    const dense_inputs<double> vectors{inputs.validation.read(first, count),
                                       inputs.curvature.read(first, count),
                                       inputs.hessian_gradient.read(first, count)};
    const auto scores = std::span(phi).first(static_cast<std::size_t>(count));
    scoring.add(panel, vectors, vector_view<double>(scores));
    if (const index_t bad = scoring.first_non_finite(); bad >= 0)
      report_non_finite<T>(file.path(), panel, first, bad,
                           scores[static_cast<std::size_t>(bad - first)]);
    parameter_scores.append(scores);
    bar.advance(count);
  }
  dense_result result = scoring.finish();
  if (const index_t bad = result.non_finite.first_row; bad >= 0)
    throw numerical_error(file.path() + ": the score of example " + std::to_string(bad) +
                          ": found " + text_of(result.data_scores[static_cast<std::size_t>(bad)]) +
                          ", expected a finite number (its products overflow)");
  const conservation_check& law = result.conservation;
  if (!law.holds)
    throw numerical_error(file.path() + ": conservation law: found a gap of " + text_of(law.gap) +
                          ", expected at most " + text_of(law.tolerance));
  return result;
}

void write_spool(const std::string& path, const score_spool& scores) {
  constexpr index_t block = index_t{1} << 16;
  npy_writer<double> writer(path, {scores.size()});
  std::vector<double> values(static_cast<std::size_t>(std::min(block, scores.size())));
  for (index_t first = 0; first < scores.size(); first += block) {
    const auto part =
        std::span(values).first(static_cast<std::size_t>(std::min(block, scores.size() - first)));
    scores.fill(first, part);
    writer.append(vector_view<const double>(part));
  }
  writer.finish();
}

template <class Selection>
nlohmann::ordered_json gap_or_null(const Selection& selection) {
  if (!selection.next) return nullptr;
  return selection.gap;
}

void check_usage(const score_options& options) {
  const score_rule rule{options.order, options.step, options.eta};
  if (!(std::isfinite(options.eta) && options.eta > 0))
    throw usage_error("--eta " + text_of(options.eta) + ": must be positive and finite");
  if (needs_curvature(rule) && options.curvature.empty())
    throw usage_error("--order " + std::string(name_of(options.order)) + " --step " +
                      std::string(name_of(options.step)) + " needs --curvature");
  if (needs_hessian_gradient(rule) && options.hessian_gradient.empty())
    throw usage_error("--order full needs --hessian-gradient");
  if (options.memory_limit > std::uint64_t{1} << 62)  // also what a minus sign makes of a number
    throw usage_error("--memory-limit: must lie in [0, 2^62]");
  if (options.threads < 0)
    throw usage_error("--threads " + std::to_string(options.threads) + ": must not be negative");
}

}  // namespace

void run_score(const score_options& options, std::ostream& out) {
  const auto start = std::chrono::steady_clock::now();
  check_usage(options);
  const score_rule rule{options.order, options.step, options.eta};
  npy_reader gradients = open_reals(options.gradients);
  const index_t rows = gradients.rows(), columns = gradients.cols();
  if (rows == 0 || columns == 0)
    throw input_error(options.gradients, "shape", detail::shape_text(gradients.shape()),
                      "at least one row and one column");
  score_inputs inputs{std::move(gradients),
                      {options.validation, columns, true},
                      {options.curvature, columns, needs_curvature(rule)},
                      {options.hessian_gradient, columns, needs_hessian_gradient(rule)}};
  if (options.step == step_geometry::adamw) inputs.curvature.require_positive();
  const index_t k = parse_budget("--parameter-budget", options.parameter_budget, columns);
  const index_t b = parse_budget("--data-budget", options.data_budget, rows);
  const bool is_float = inputs.gradients.holds<float>();
  const index_t width = panel_width(options, rows, columns, is_float ? 4 : 8, k, b);

  staged_folder folder(options.out);
  score_spool phi(folder.staging(), folder.folder());
  const dense_result result = is_float ? score_panels<float>(options, inputs, width, phi)
                                       : score_panels<double>(options, inputs, width, phi);

  const bool by_magnitude = options.rank == score_options::rank_by::magnitude;
  const topk_result mask = topk(exec::cpu{options.threads}, phi,
                                {.k = k, .by = by_magnitude ? topk_by::magnitude : topk_by::value});
  std::vector<double> magnitudes;
  if (by_magnitude) magnitudes.reserve(result.data_scores.size());
  if (by_magnitude)
    for (const double score : result.data_scores) magnitudes.push_back(std::abs(score));
  const example_selection examples =
      select_examples(by_magnitude ? magnitudes : result.data_scores, {.budget = b});

  folder.add("data_scores.npy",
             [&](const std::string& path) { npy_write(path, result.data_scores, {rows}); });
  folder.add("parameter_scores.npy", [&](const std::string& path) { write_spool(path, phi); });
  folder.add("selected_examples.npy",
             [&](const std::string& path) { npy_write(path, examples.indices, {b}); });
  folder.add("parameter_mask.npy",
             [&](const std::string& path) { npy_write_mask(path, mask.selected); });

  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  // NaN and infinity become null.
  const nlohmann::ordered_json summary{{"examples", rows},
                                       {"parameters", columns},
                                       {"order", name_of(options.order)},
                                       {"eta", options.eta},
                                       {"rows_total", result.conservation.rows_total},
                                       {"columns_total", result.conservation.columns_total},
                                       {"conservation_gap", result.conservation.gap},
                                       {"parameter_budget", k},
                                       {"parameter_boundary_gap", gap_or_null(mask)},
                                       {"data_budget", b},
                                       {"data_boundary_gap", gap_or_null(examples)},
                                       {"second_order_share", result.second_order_share},
                                       {"seconds", seconds}};
  folder.add("summary.json", [&](const std::string& path) {
    atomic_file file(path);
    file.write(summary.dump(2) + "\n");
    file.commit();
  });
  stop_if_interrupted();
  folder.publish();

  if (options.report == score_options::report_as::json) {
    out << summary.dump(2) << "\n";
    return;
  }
  out << "scored " << rows << " examples x " << columns << " parameters, order "
      << name_of(options.order) << ", step " << name_of(options.step) << ", in " << seconds
      << " s\n"
      << "conservation gap    " << result.conservation.gap << "\n"
      << "second-order share  " << result.second_order_share << "\n"
      << "parameters          " << k << " selected, boundary gap " << gap_or_null(mask) << "\n"
      << "examples            " << b << " selected, boundary gap " << gap_or_null(examples) << "\n"
      << "written to          " << options.out << "\n";
}

}  // namespace dualsft::cli
