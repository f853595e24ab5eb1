// SPDX-License-Identifier: Apache-2.0
#include <dualsft/curvature.hpp>
#include <dualsft/diagnostics.hpp>
#include <dualsft/dual_scores.hpp>
#include <dualsft/io/npy.hpp>
#include <dualsft/llm/parameter_files.hpp>
#include <dualsft/llm/transformer.hpp>
#include <dualsft/objective.hpp>
#include <dualsft/preservation.hpp>
#include <dualsft/quota.hpp>
#include <dualsft/subset.hpp>

#include "../terminal.hpp"
#include "cost.hpp"
#include "selection_report.hpp"
#include "stages.hpp"
#include "state_file.hpp"

namespace dualsft::cli {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

void remove_states(run_folder& folder) {
  for (const char* name : {"select", "validation", "slope"}) folder.remove_state(name);
}

/// Gives memory back: `values = {}` would keep it.
template <class T>
void release(std::vector<T>& values) {
  std::vector<T>().swap(values);
}

/// Selection at theta_w, step by step. Memory beyond the model, in scalars per parameter (float; G
/// is double): at most 4, and one block of gradients; with anchors, their logits too, student's and
/// teacher's, of one anchor at least. Full and joint order and --compare-full need more.
///
///     validation, anchors   v in double, theta_0 for the teacher, one gradient
///     pool                  v, D, G                  then p takes v's place
///     data scores           p, G
template <class S>
class selection {
 public:
  using model_type = llm::transformer<S>;

  selection(run_folder& folder, const run_data& data, const pipeline_options& options)
      : folder_(folder),
        data_(data),
        options_(options),
        policy_{options.threads},
        timer_(options.save_every),
        model_(data.folder.load<S>(data.corpus, {.threads = options.threads})) {
    rule_ = {options.order, options.step,
             options.eta.value_or(options.learning_rate / static_cast<double>(pool().size()))};
    parameter_budget_ = budget_of("--parameter-budget", options.parameter_budget, d());
    data_budget_ = std::min(
        budget_of("--data-budget", options.data_budget, data.split.candidates()), pool_size());
    move_to_theta_w();
  }

  void run() {
    resume();
    if (phase_ == phase::validation) validate();
    if (phase_ == phase::anchors) add_prior();
    if (phase_ == phase::pool) sum_pool();
    if (phase_ == phase::scores) score_pool();
    publish();
  }

 private:
  enum class phase { validation = 0, anchors = 1, pool = 2, scores = 3, done = 4 };

  const std::vector<index_t>& pool() const { return data_.split.pool; }
  index_t pool_size() const { return static_cast<index_t>(pool().size()); }
  index_t d() const { return model_.layout().size(); }
  const parameter_layout& layout() const { return model_.layout(); }
  bool has_prior() const { return options_.lambda > 0; }

  void move_to_theta_w() {
    const std::string place =
        !options_.checkpoint.empty() ? options_.checkpoint : folder_.file("warmup");
    if (options_.checkpoint.empty() && options_.warmup_epochs == 0) return;  // theta_0
    if (options_.checkpoint.empty() && data_.split.warmup.empty()) return;
    llm::read_weights(safetensors_checkpoint(place), layout(), model_.parameters());
  }

  // ---- v ----------------------------------------------------------------------------------------

  void validate() {
    stage_clock clock("validation");
    clock.continue_from(stage_header_);
    const std::vector<index_t>& list = data_.split.validation;
    progress bar("validation", static_cast<index_t>(list.size()), "examples", sums_.examples);
    for_each_slice(list, sums_.examples, [&](example_span slice) {
      add_gradients(policy_, std::as_const(model_), slice,
                    {.batch_size = options_.micro_batch_size}, sums_);
      bar.advance(static_cast<index_t>(slice.size()));
      save_now_and_then(clock);
    });
    for (double& x : sums_.sum) x /= static_cast<double>(list.size());
    check_finite("v", sums_.sum);
    state_writer to(folder_.state_file("validation"), folder_.key(stage::select),
                    ordered_json::object());
    to.values(std::span<const S>(narrow(sums_.sum)));
    to.commit();
    sums_.examples = 0;
    clock.set_tokens(data_.tokens(list));
    next_phase(phase::anchors, clock);
  }

  void add_prior() {
    if (has_prior()) {
      stage_clock clock("anchors");
      clock.continue_from(stage_header_);
      const std::vector<index_t>& list = data_.split.anchors;
      model_type teacher = teacher_model();
      progress bar("anchors", static_cast<index_t>(list.size()), "examples", sums_.examples);
      for_each_slice(list, sums_.examples, [&](example_span slice) {
        // The mean over all anchors, slice by slice.
        const double share = static_cast<double>(slice.size()) / static_cast<double>(list.size());
        prior(teacher, slice)
            .accumulate_gradient(policy_, std::as_const(model_), options_.lambda * share,
                                 std::span<double>(sums_.sum));
        sums_.examples += static_cast<index_t>(slice.size());
        bar.advance(static_cast<index_t>(slice.size()));
        save_now_and_then(clock);
      });
      check_finite("v", sums_.sum);
      clock.set_tokens(data_.tokens(list));
      stages_.push_back(clock.json());
    }
    direction_.p = narrow(sums_.sum);
    sums_ = {};
    state_writer to(folder_.state_file("slope"), folder_.key(stage::select),
                    ordered_json::object());
    to.values(std::span<const S>(direction_.p));
    to.commit();
    stage_header_ = ordered_json::object();
    phase_ = phase::pool;
    save();
  }

  model_type teacher_model() const {
    model_type teacher(model_);
    llm::read_weights(safetensors_checkpoint(options_.model), layout(), teacher.parameters());
    return teacher;
  }

  cwsd_preservation<model_type> prior(const model_type& teacher, example_span anchors) const {
    index_t longest = 1;
    for (const index_t i : anchors) longest = std::max(longest, model_.logit_rows(i));
    const index_t most = (index_t{1} << 24) / (longest * model_.classes());
    return {{anchors.begin(), anchors.end()},
            [&teacher](example_span examples, matrix_view<S> out) {
              stop_if_interrupted();
              teacher.logits(examples, out);
            },
            {.rule = {.tau = options_.tau, .weight = options_.confidence},
             .batch_size = std::clamp<index_t>(most, 1, options_.micro_batch_size)}};
  }

  /// use(CWSD over all anchors), with a teacher of its own.
  template <class Use>
  void with_prior(Use&& use) const {
    const model_type teacher = teacher_model();
    use(prior(teacher, data_.split.anchors));
  }

  // ---- D ----------------------------------------------------------------------------------------

  std::vector<S> curvature() const {
    if (!needs_curvature(rule_)) return {};
    if (options_.curvature == "none") return std::vector<S>(static_cast<std::size_t>(d()), S(0));
    if (options_.curvature != "rms" && options_.curvature != "second-moment")
      return curvature_of_file();
    const std::string path = folder_.file("warmup/second_moment.safetensors");
    std::vector<S> s = llm::read_parameter_values<S>(path, layout());
    if (options_.curvature == "second-moment") return s;
    const safetensors_reader file(path);
    const auto number = [&](const char* name) -> double {
      const auto found = file.metadata().find(name);
      const json value =
          found == file.metadata().end() ? json() : json::parse(found->second, nullptr, false);
      if (!value.is_number())
        throw input_error(path, std::string("metadata, ") + name, "no number", "one");
      return value.get<double>();
    };
    return rms_curvature(std::span<const S>(s), static_cast<index_t>(number("steps")),
                         {.beta2 = number("beta2")});
  }

  /// A diagonal Hessian may be negative where it is only subtracted, not where it divides.
  std::vector<S> curvature_of_file() const {
    std::vector<S> out = llm::read_parameter_values<S>(options_.curvature, layout());
    if (rule_.step != step_geometry::adamw) return out;
    const auto wrong = std::ranges::find_if(out, [](S x) { return !(x > S(0)); });
    if (wrong == out.end()) return out;
    const index_t at = wrong - out.begin();
    const parameter_block& tensor = layout().block(layout().block_of(at));
    throw input_error(options_.curvature,
                      tensor.name + ", value " + std::to_string(at - tensor.offset),
                      std::to_string(*wrong), "values above 0, which --step adamw divides by");
  }

  // ---- pass 1 -----------------------------------------------------------------------------------

  bool one_pass() const {
    return rule_.order == score_order::first &&
           (strategy() == score_strategy::ghost || strategy() == score_strategy::materialised);
  }
  score_strategy strategy() const {
    if (options_.strategy != score_strategy::automatic) return options_.strategy;
    return rule_.order == score_order::joint ? score_strategy::materialised : score_strategy::ghost;
  }

  void sum_pool() {
    stage_clock clock("pool");
    clock.continue_from(stage_header_);
    std::vector<S> proxy = curvature();
    if (one_pass() && sums_.examples == 0)
      direction_ = project<exec::cpu, S>(policy_, rule_, std::move(direction_.p), {}, {proxy, {}});
    direction_.rule = rule_;
    if (one_pass()) release(proxy);
    scores_.resize(one_pass() ? pool().size() : 0);
    progress bar("pool", pool_size(), "examples", sums_.examples);
    for_each_slice(pool(), sums_.examples, [&](example_span slice) {
      if (one_pass())
        add_gradients_and_products(policy_, std::as_const(model_), slice,
                                   std::span<const S>(direction_.p), strategy(),
                                   options_.micro_batch_size,
                                   std::span<double>(scores_).subspan(
                                       static_cast<std::size_t>(sums_.examples), slice.size()),
                                   sums_);
      else
        add_gradients(policy_, std::as_const(model_), slice,
                      {.batch_size = options_.micro_batch_size, .squares = needs_squares(rule_)},
                      sums_);
      bar.advance(static_cast<index_t>(slice.size()));
      clock.set_tokens(
          data_.tokens(example_span(pool()).first(static_cast<std::size_t>(sums_.examples))));
      save_now_and_then(clock);
    });
    check_finite("G", sums_.sum);
    if (one_pass()) {
      for (double& score : scores_) score *= rule_.eta;
    } else {
      std::vector<S> product;
      if (needs_hessian_gradient(rule_))
        product = hessian_of(hessian_direction<S>(rule_, sums_.sum, proxy));
      direction_ = project<exec::cpu, S>(policy_, rule_, std::move(direction_.p), sums_.sum,
                                         {proxy, product});
    }
    next_phase(phase::scores, clock);
  }

  /// H x of J at theta_w.
  std::vector<S> hessian_of(const std::vector<S>& x) {
    std::vector<double> product;
    const auto multiply = [&](const auto& prior) {
      using prior_type = std::remove_cvref_t<decltype(prior)>;
      const validation_objective<preservation_reference<prior_type>> objective{
          data_.split.validation, {&prior}, options_.lambda, options_.micro_batch_size};
      product = objective_hessian_product(policy_, model_, objective, std::span<const S>(x));
    };
    if (has_prior())
      with_prior(multiply);
    else
      multiply(no_preservation{});
    return narrow(product);
  }

  // ---- pass 2 -----------------------------------------------------------------------------------

  void score_pool() {
    if (!one_pass()) {
      stage_clock clock("data scores");
      clock.continue_from(stage_header_);
      const auto done = static_cast<index_t>(scores_.size());
      progress bar("data scores", pool_size(), "examples", done);
      for_each_slice(pool(), done, [&](example_span slice) {
        append(data_scores(policy_, model_, slice, direction_, scoring()).scores, scores_);
        bar.advance(static_cast<index_t>(slice.size()));
        clock.set_tokens(data_.tokens(example_span(pool()).first(scores_.size())));
        save_now_and_then(clock);
      });
      stages_.push_back(clock.json());
    }
    phase_ = phase::done;
  }

  data_score_options scoring() const {
    return {.strategy = strategy(), .batch_size = options_.micro_batch_size};
  }

  // ---- what is written --------------------------------------------------------------------------

  void publish() {
    stage_clock clock("selection");
    data_score_result rows;
    rows.scores = scores_;
    rows.strategy = strategy();
    rows.add_up();
    if (rows.not_finite > 0)
      throw numerical_error(
          "select: " + std::to_string(rows.not_finite) +
          " data scores are not finite, the first of record " +
          std::to_string(data_.number(pool()[static_cast<std::size_t>(rows.first_not_finite)])));
    selection_facts outcome;
    outcome.rows = std::move(rows);
    const parameter_scores<S> columns(sums_.sum, direction_, sums_.squares);
    outcome.conservation = check_conservation<S>(
        policy_, columns, outcome.rows, rule_.order,
        rule_.order == score_order::joint ? utility_of_everything<S>(sums_.sum, direction_) : 0.0);
    if (!outcome.conservation.holds)
      throw numerical_error("select: the conservation law is broken: data scores sum to " +
                            json(outcome.conservation.rows_total).dump() +
                            ", parameter scores to " +
                            json(outcome.conservation.columns_total).dump());
    const topk_by by = options_.absolute ? topk_by::magnitude : topk_by::value;
    outcome.mask = topk_with_quotas(policy_, columns, layout(),
                                    {.k = parameter_budget_,
                                     .layer_share = options_.layer_quota,
                                     .module_share = options_.module_quota,
                                     .by = by})
                       .selection;
    outcome.subset =
        select_examples(ranked(outcome.rows.scores, options_), {.budget = data_budget_});
    outcome.rule = rule_;
    outcome.second_order_share = direction_.second_order_share;

    write_scores(columns, outcome);
    if (options_.compare_full) outcome.agreement = compare_full(columns, outcome);
    release(sums_.sum);
    release(sums_.squares);
    if (rule_.order != score_order::joint) release(direction_.curvature);
    measure_utility(outcome);
    stages_.push_back(clock.json());
    folder_.remove("groups.json");
    if (!options_.save_parameter_scores) folder_.remove("parameter_scores.safetensors");
    write_selection_report(folder_, data_, options_, layout(), outcome, stages_);
    std::vector<std::string> made{"pool_indices.npy",
                                  "data_scores.npy",
                                  "selected_examples.npy",
                                  "selected.jsonl",
                                  "parameter_mask.safetensors",
                                  "parameter_statistics.json",
                                  "examples.json"};
    if (options_.save_parameter_scores) made.emplace_back("parameter_scores.safetensors");
    if (folder_.has("groups.json")) made.emplace_back("groups.json");
    folder_.finish(stage::select, made, {"summary.json"});
    remove_states(folder_);
  }

  void write_scores(const parameter_scores<S>& columns, const selection_facts& outcome) {
    std::vector<index_t> numbers;
    for (const index_t i : pool()) numbers.push_back(data_.number(i));
    npy_write(folder_.file("pool_indices.npy"), numbers, {pool_size()});
    npy_write(folder_.file("data_scores.npy"), outcome.rows.scores, {pool_size()});
    numbers.clear();
    for (const index_t i : outcome.subset.indices)
      numbers.push_back(data_.number(pool()[static_cast<std::size_t>(i)]));
    npy_write(folder_.file("selected_examples.npy"), numbers,
              {static_cast<index_t>(numbers.size())});
    llm::write_parameter_mask(folder_.file("parameter_mask.safetensors"), layout(),
                              outcome.mask.selected);
    if (options_.save_parameter_scores)
      llm::write_parameter_scores(folder_.file("parameter_scores.safetensors"), layout(), columns);
    write_parameter_statistics(folder_, layout(), columns, outcome.mask.selected);
  }

  /// Scores under the exact second order at the same point, from one Hessian product and another
  /// pass of data scores.
  ordered_json compare_full(const parameter_scores<S>& columns, const selection_facts& outcome) {
    const score_rule full{score_order::full, rule_.step, rule_.eta};
    const std::vector<S> proxy =
        rule_.step == step_geometry::adamw ? curvature() : std::vector<S>();
    const std::vector<S> product = hessian_of(hessian_direction<S>(full, sums_.sum, proxy));
    std::vector<S> v(static_cast<std::size_t>(d()));
    state_reader from(folder_.state_file("slope"), folder_.key(stage::select));
    from.values(v);
    const projection<S> direction =
        project<exec::cpu, S>(policy_, full, std::move(v), sums_.sum, {proxy, product});
    data_score_result rows;
    progress bar("full order", pool_size(), "examples");
    for_each_slice(pool(), 0, [&](example_span slice) {
      append(data_scores(policy_, model_, slice, direction, scoring()).scores, rows.scores);
      bar.advance(static_cast<index_t>(slice.size()));
      stop_if_interrupted();
    });
    return full_order_agreement(policy_, layout(), columns,
                                parameter_scores<S>(sums_.sum, direction, {}), outcome, rows.scores,
                                options_);
  }

  /// Predicted: the interaction mass of what was selected. Realised: by how much J falls when the
  /// selected examples' gradients move the selected coordinates by one step.
  void measure_utility(selection_facts& outcome) {
    std::vector<index_t> chosen;
    for (const index_t i : outcome.subset.indices)
      chosen.push_back(pool()[static_cast<std::size_t>(i)]);
    std::sort(chosen.begin(), chosen.end());
    gradient_sums sums;
    for_each_slice(chosen, 0, [&](example_span slice) {
      add_gradients(policy_, std::as_const(model_), slice,
                    {.batch_size = options_.micro_batch_size}, sums);
      stop_if_interrupted();
    });
    outcome.diversity = diversity(std::as_const(model_), chosen, options_.micro_batch_size);
    outcome.predicted = predict(outcome.mask.selected, sums.sum);
    release(direction_.p);
    release(direction_.curvature);
    {
      std::vector<S> v_val(static_cast<std::size_t>(d()));
      state_reader from(folder_.state_file("validation"), folder_.key(stage::select));
      from.values(v_val);
      outcome.alignment = cosine<S, double>(v_val, sums.sum);
    }
    const std::vector<double> step = step_on(outcome.mask.selected, sums.sum);
    release(sums.sum);
    const auto objective = [&] {
      double value = mean_loss(policy_, std::as_const(model_), data_.split.validation,
                               options_.micro_batch_size);
      if (has_prior())
        with_prior([&](const auto& prior) {
          value += options_.lambda * prior.value(policy_, std::as_const(model_));
        });
      return value;
    };
    const double before = objective();
    const std::span<S> theta = model_.parameters();
    for (std::size_t k = 0; k < step.size(); ++k) {
      S& x = theta[static_cast<std::size_t>(outcome.mask.selected.indices()[k])];
      x = static_cast<S>(static_cast<double>(x) - step[k]);
    }
    outcome.realised = before - objective();
    outcome.objective = before;
    move_to_theta_w();
  }

  /// The step that these gradients make on the mask's coordinates.
  std::vector<double> step_on(const index_set& mask, std::span<const double> gradient) const {
    const std::vector<S> proxy =
        rule_.step == step_geometry::adamw ? curvature() : std::vector<S>();
    std::vector<double> out;
    out.reserve(static_cast<std::size_t>(mask.size()));
    for (const index_t j : mask.indices()) {
      const auto at = static_cast<std::size_t>(j);
      out.push_back(rule_.eta * gradient[at] /
                    (proxy.empty() ? 1.0 : static_cast<double>(proxy[at])));
    }
    return out;
  }

  /// The interaction mass of the selected examples and parameters; in joint order, whose p belongs
  /// to one side alone, the utility of both together.
  double predict(const index_set& mask, std::span<const double> gradient) {
    const bool joint = rule_.order == score_order::joint;
    std::vector<S> v(joint ? static_cast<std::size_t>(d()) : 0);
    if (joint) {
      state_reader from(folder_.state_file("slope"), folder_.key(stage::select));
      from.values(v);
    }
    double sum = 0;
    for (const index_t j : mask.indices()) {
      const auto at = static_cast<std::size_t>(j);
      const double g = gradient[at];
      if (!joint) {
        sum += rule_.eta * g * static_cast<double>(direction_.p[at]);
        continue;
      }
      const auto curvature = static_cast<double>(direction_.curvature[at]);  // D'
      const double slope =
          static_cast<double>(v[at]) * (rule_.step == step_geometry::adamw ? curvature : 1.0);
      sum += rule_.eta * g * (slope - 0.5 * rule_.eta * curvature * g);
    }
    return sum;
  }

  // ---- saving -----------------------------------------------------------------------------------

  static void append(const std::vector<double>& from, std::vector<double>& to) {
    to.insert(to.end(), from.begin(), from.end());
  }

  static std::vector<S> narrow(const std::vector<double>& values) {
    return {values.begin(), values.end()};
  }

  static void check_finite(const char* what, std::span<const double> values) {
    for (std::size_t j = 0; j < values.size(); ++j)
      if (!std::isfinite(values[j]))
        throw numerical_error(std::string("select: ") + what +
                              " is NaN or infinite at coordinate " + std::to_string(j));
  }

  /// body(examples) over whole batches, some at a time, so that signals are heard.
  template <class Body>
  void for_each_slice(example_span list, index_t first, Body&& body) const {
    const auto step = static_cast<std::size_t>(4 * options_.micro_batch_size);
    for (auto at = static_cast<std::size_t>(first); at < list.size(); at += step)
      body(list.subspan(at, std::min(step, list.size() - at)));
  }

  void next_phase(phase next, const stage_clock& clock) {
    stages_.push_back(clock.json());
    stage_header_ = ordered_json::object();
    phase_ = next;
    save();
  }

  void save_now_and_then(const stage_clock& clock) {
    const bool stop = interruption_requested();
    if (!stop && !timer_.due()) return;
    clock.save(stage_header_);
    save();
    if (stop) throw interrupted();
  }

  void save() {
    timer_.begin();
    ordered_json header{{"phase", static_cast<int>(phase_)},
                        {"examples", sums_.examples},
                        {"second_order_share", direction_.second_order_share},
                        {"stages", stages_},
                        {"stage", stage_header_}};
    state_writer to(folder_.state_file("select"), folder_.key(stage::select), std::move(header));
    to.values(std::span<const S>(direction_.p));
    to.values(std::span<const S>(direction_.curvature));
    to.values(std::span<const double>(sums_.sum));
    to.values(std::span<const double>(sums_.squares));
    to.values(std::span<const double>(scores_));
    to.commit();
    timer_.end();
  }

  void resume() {
    if (!folder_.has("state/select")) return;
    for (const char* name : {"validation", "slope"})  // what the end needs, before hours of work
      if (folder_.has(std::string("state/") + name))
        state_reader(folder_.state_file(name), folder_.key(stage::select));
    state_reader from(folder_.state_file("select"), folder_.key(stage::select));
    phase_ = static_cast<phase>(std::clamp<index_t>(from.number("phase"), 0, 3));
    sums_.examples = from.number("examples");
    direction_.rule = rule_;
    direction_.second_order_share = from.header().value("second_order_share", 0.0);
    stages_ = from.header().value("stages", ordered_json::array());
    stage_header_ = from.header().value("stage", ordered_json::object());
    from.values(direction_.p);
    from.values(direction_.curvature);
    from.values(sums_.sum);
    from.values(sums_.squares);
    from.values(scores_);
    for (const auto& [name, after] :
         {std::pair{"validation", phase::validation}, std::pair{"slope", phase::anchors}})
      if (phase_ > after && !folder_.has(std::string("state/") + name))
        throw input_error(folder_.file(std::string("state/") + name), "file", "nothing",
                          "what was saved (remove the folder state/ to begin select anew)");
    const auto none_or_d = [&](std::size_t size) {
      return size == 0 || size == static_cast<std::size_t>(d());
    };
    const std::size_t list = phase_ == phase::validation ? data_.split.validation.size()
                             : phase_ == phase::anchors  ? data_.split.anchors.size()
                                                         : pool().size();
    if (sums_.examples < 0 || static_cast<std::size_t>(sums_.examples) > list ||
        scores_.size() > pool().size() || !none_or_d(sums_.sum.size()) ||
        !none_or_d(sums_.squares.size()) || !none_or_d(direction_.p.size()) ||
        !none_or_d(direction_.curvature.size()))
      throw input_error(folder_.file("state/select"), "sizes", "those of another run",
                        "this run's (remove the folder state/ to begin select anew)");
  }

  run_folder& folder_;
  const run_data& data_;
  const pipeline_options& options_;
  exec::cpu policy_;
  save_timer timer_;
  model_type model_;
  score_rule rule_;
  index_t parameter_budget_ = 0, data_budget_ = 0;

  phase phase_ = phase::validation;
  projection<S> direction_;  // p is v until the pool has been summed
  gradient_sums sums_;
  std::vector<double> scores_;
  ordered_json stages_ = ordered_json::array();
  ordered_json stage_header_ = ordered_json::object();
};

}  // namespace

void select_stage(run_folder& folder, const run_data& data, const pipeline_options& options) {
  if (folder.is_done(stage::select)) {
    remove_states(folder);  // a killed process may have had no time to
    return;
  }
  if (options.precision == precision::float64)
    selection<double>(folder, data, options).run();
  else
    selection<float>(folder, data, options).run();
}

}  // namespace dualsft::cli
