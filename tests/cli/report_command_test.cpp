// Proves: `dualsft report` writes one page that is well-formed, fetches nothing, shows what the files
// hold and says what is missing; equal folders give equal bytes; files that lie are refused with
// their name and field, and no page. Against: a strict reader of tags; the numbers put into the files.
#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "program.hpp"
#include "report_folder.hpp"

using nlohmann::json;

namespace {

struct bench {
  scratch_folder folder;
  program dualsft{folder};
  report_folder run;

  std::string page() const { return file_bytes(folder / "report.html"); }
  program::outcome report(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words{"report", "."};
    words.insert(words.end(), more.begin(), more.end());
    return dualsft.run(words);
  }
  /// The page of the run as it is now.
  std::string page_of_run() const {
    run.write(folder);
    const auto found = report();
    REQUIRE_MESSAGE(found.code == 0, found.err);
    return page();
  }
};

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != text.npos;
}

std::size_t occurrences(std::string_view text, std::string_view part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

/// A page taken apart by rules stricter than HTML's: all tags closed in order, attributes in double
/// quotes, & and < only as markup, each id once.
struct parsed_page {
  std::string fault;  ///< empty: none
  std::set<std::string> tags, attributes, ids, references;
  std::string text;  ///< between the tags, with references resolved

  explicit parsed_page(std::string_view page) {
    constexpr std::string_view type = "<!DOCTYPE html>\n";
    if (!page.starts_with(type)) {
      fault = "no document type";
      return;
    }
    rest_ = page.substr(type.size());
    while (!rest_.empty() && fault.empty()) rest_.front() == '<' ? take_tag() : take_text();
    if (fault.empty() && !open_.empty()) fault = open_.back() + " is never closed";
    for (const std::string& id : references)
      if (fault.empty() && !ids.contains(id)) fault = "nothing has the id " + id;
  }

 private:
  std::string take_name() {
    std::size_t n = 0;
    while (n < rest_.size() &&
           (std::isalnum(static_cast<unsigned char>(rest_[n])) != 0 || rest_[n] == '-'))
      ++n;
    std::string name(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return name;
  }

  bool take(std::string_view expected) {
    if (!rest_.starts_with(expected)) return false;
    rest_.remove_prefix(expected.size());
    return true;
  }

  void take_tag() {
    if (take("</")) {
      const std::string name = take_name();
      if (open_.empty() || open_.back() != name)
        fault = "</" + name + "> closes " + (open_.empty() ? "nothing" : open_.back());
      else
        open_.pop_back();
      if (!take(">")) fault = "a closing tag with more than a name";
      return;
    }
    rest_.remove_prefix(1);
    const std::string name = take_name();
    if (name.empty()) fault = "a bare <";
    tags.insert(name);
    while (take(" ")) take_attribute();
    if (take("/>")) return;
    if (!take(">")) fault = "<" + name + " does not end";
    open_.push_back(name);
  }

  void take_attribute() {
    const std::string name = take_name();
    const auto end = rest_.find('"', 2);
    if (!rest_.starts_with("=\"") || end == rest_.npos) {
      fault = "attribute " + name + " without quotes";
      rest_ = {};
      return;
    }
    const std::string value = resolved(rest_.substr(2, end - 2));
    rest_.remove_prefix(end + 1);
    attributes.insert(name);
    if (name == "id" && !ids.insert(value).second) fault = "id " + value + " twice";
    if (name == "href" && value.starts_with('#')) references.insert(value.substr(1));
    if (name == "aria-labelledby") {
      std::size_t begin = 0;
      for (auto space = value.find(' '); space != value.npos; space = value.find(' ', begin)) {
        references.insert(value.substr(begin, space - begin));
        begin = space + 1;
      }
      references.insert(value.substr(begin));
    }
  }

  void take_text() {
    const auto end = std::min(rest_.find('<'), rest_.size());
    text += resolved(rest_.substr(0, end));
    rest_.remove_prefix(end);
  }

  std::string resolved(std::string_view raw) {
    std::string out;
    while (!raw.empty()) {
      std::size_t used = 0;
      for (const auto& [reference, c] : {std::pair<std::string_view, char>{"&amp;", '&'},
                                         {"&lt;", '<'},
                                         {"&gt;", '>'},
                                         {"&quot;", '"'},
                                         {"&#39;", '\''}}) {
        if (!raw.starts_with(reference)) continue;
        out += c;
        used = reference.size();
      }
      if (used == 0) {
        if (raw.front() == '&' || raw.front() == '<')
          fault = "a bare " + std::string(1, raw.front());
        out += raw.front();
        used = 1;
      }
      raw.remove_prefix(used);
    }
    return out;
  }

  std::string_view rest_;
  std::vector<std::string> open_;
};

void is_sound(const std::string& page) {
  const parsed_page parsed(page);
  CHECK(parsed.fault == "");
  for (const char* tag : {"script", "link", "img", "iframe", "object", "embed", "base", "form",
                          "audio", "video", "image", "use", "foreignObject"})
    CHECK_MESSAGE(!parsed.tags.contains(tag), tag);
  for (const char* attribute : {"src", "srcset", "style", "onload", "action", "data"})
    CHECK_MESSAGE(!parsed.attributes.contains(attribute), attribute);
  CHECK(!contains(page, "url("));
  CHECK(!contains(page, "@import"));
  CHECK(occurrences(page, "href=\"") == occurrences(page, "href=\"#"));
  CHECK(std::ranges::none_of(page, [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
  }));
}

/// The value is on the page, to the last bit.
void shows(const std::string& page, const std::string& exact) {
  INFO(exact);
  CHECK(contains(page, "<data value=\"" + exact + "\""));
}

/// What stands between the heading of a section and the next section.
std::string section(const std::string& page, const std::string& id) {
  const auto begin = page.find("<section id=\"" + id + "\"");
  REQUIRE(begin != page.npos);
  return page.substr(begin, page.find("</section>", begin) - begin);
}

void is_refused(const bench& b, const std::vector<std::string>& reasons) {
  const auto found = b.report();
  INFO(found.err);
  CHECK(found.code == 3);
  for (const std::string& reason : reasons) CHECK_MESSAGE(contains(found.err, reason), reason);
  CHECK(std::ranges::count(found.err, '\n') == 1);
  CHECK(found.out.empty());
  CHECK(b.page().empty());
}

}  // namespace

TEST_CASE("the page of a whole run is sound and shows the numbers of its files") {
  const bench b;
  const std::string page = b.page_of_run();
  is_sound(page);
  CHECK(!contains(page, "http:"));
  CHECK(!contains(page, "https:"));
  CHECK(contains(page, "<title>tiny-llama on train.jsonl"));
  for (const char* exact : {"0.0009765625", "1.4375",      "1.4374999999999",
                            "1.25e-14",     "0.0078125",   "0.375",
                            "-0.03125",     "0.03125",     "0.0234375",
                            "0.125",        "0.001953125", "0.9375",
                            "0.6875",       "0.8125",      "0.015625",
                            "0.013671875",  "0.71875",     "0.40625",
                            "8.5",          "3000",        "352.9",
                            "1048576",      "2097152",     "1.375",
                            "132",          "880",         "2.5",
                            "2.125",        "3.25",        "524288",
                            "1.5",          "4096",        "110",
                            "11",           "21"})
    shows(page, exact);
  CHECK(contains(page,
                 "1.25\xC2\xA0\xC3\x97\xC2\xA0"
                 "10\xE2\x81\xBB\xC2\xB9\xE2\x81\xB4"));
  const std::string text = parsed_page(page).text;
  for (const char* words : {"The mask would stay.", "not decided", "the change by one step",
                            "question 11", "answer 8", "00c0ffee", "--final-learning-rate",
                            "dualsft 9.8.7", "seed 42", "mlp.up", "embedding", "not selected"})
    CHECK_MESSAGE(contains(text, words), words);
}

TEST_CASE("charts and heatmaps") {
  const bench b;
  const std::string page = b.page_of_run();
  CHECK(occurrences(page, "<svg class=\"chart\"") == 8);  // 2 histograms, 2 x 3 curves
  CHECK(occurrences(page, "<desc id=") == 8);
  const std::string maps = section(page, "parameters");
  // 0.001, 0.002 and 0.004 of 0.004; 0 of 30, 10 of 30 and 1 of 50.
  for (const char* cell : {">0.25</td>", ">0.50</td>", ">1.00</td>", ">0\xC2\xA0%</td>",
                           ">33.3\xC2\xA0%</td>", ">2.0\xC2\xA0%</td>"})
    CHECK_MESSAGE(contains(maps, cell), cell);
  CHECK(contains(maps, "mlp.up: 10 of 30 selected, mean magnitude 0.004"));
  const std::string distributions = section(page, "distributions");
  CHECK(contains(distributions, "class=\"boundary\""));
  // The record 10 alone has the largest score, and was selected.
  CHECK(contains(distributions, ", 2]: 1, 1 selected"));
  // Modules outside of layers count too: 10 of 11 selected against 60 of 110 parameters.
  shows(section(page, "enrichment"), "1.6666666666666665");
}

TEST_CASE("equal folders give equal bytes, whatever they are called") {
  const bench a, b;
  CHECK(a.page_of_run() == b.page_of_run());
  const std::string before = b.page();
  CHECK(b.report({"--threads", "2"}).code == 0);
  CHECK(b.page() == before);
}

TEST_CASE("stages that have not run are left out in words") {
  const bench b;
  b.run.write_least(b.folder);
  const auto found = b.report({"--json"});
  REQUIRE_MESSAGE(found.code == 0, found.err);
  const std::string page = b.page();
  is_sound(page);
  for (const char* file :
       {"finetune.json", "data_scores.npy", "parameter_statistics.json", "examples.json",
        "groups.json", "warmup_losses.json", "finetune_losses.json"})
    CHECK_MESSAGE(contains(page, std::string("holds no ") + file), file);
  CHECK(!contains(page, "<svg class=\"chart\""));
  CHECK(!contains(page, "class=\"heat\""));

  const json summary = json::parse(found.out);
  CHECK(summary["report"] == "./report.html");
  CHECK(summary["bytes"] == page.size());
  CHECK(summary["read"] == json{"settings.json", "summary.json"});
  CHECK(summary["absent"].size() == 9);
  CHECK(summary["selected_examples"] == 2);
  CHECK(b.folder.file_count() == 5);  // two files, the page, .stdout, .stderr
}

TEST_CASE("text of examples stays text") {
  bench b;
  const std::string wild =
      "</script><script>alert('\"1\"')</script> & <b>bold</b>\r\n\tend \x01\x7f \xe2\x80\xae"
      "back\xe2\x80\xac \xef\xbf\xbf";
  b.run.lists["best"][0]["prompt"] = wild;
  b.run.lists["best"][0]["response"] = std::string(3, '\0');
  b.run.lists["best"][1]["prompt"] = "";
  b.run.groups["groups"][0]["group"] = "\"><svg onload=\"x\">";
  b.run.settings["options"]["--model"] = "a/<i>\"'&";
  b.run.settings["inputs"][0]["path"] = "http://example.org/?a=1&b=2";
  b.run.statistics["blocks"][1]["module"] = "</td><script>";
  std::string page = b.page_of_run();
  is_sound(page);
  std::string text = parsed_page(page).text;
  CHECK(contains(text,
                 "</script><script>alert('\"1\"')</script> & <b>bold</b>[U+000D]\n\tend "
                 "[U+0001][U+007F] [U+202E]back[U+202C] [U+FFFF]"));
  CHECK(contains(text, "[U+0000][U+0000][U+0000]"));
  CHECK(contains(text, "http://example.org/?a=1&b=2"));

  SUBCASE("long text is folded, very long text cut between characters") {
    std::string longest;
    for (int i = 0; i < 200000; ++i) longest += "\xc3\xa9";  // 400,000 bytes
    b.run.lists["worst"][0]["response"] = "x" + longest;
    page = b.page_of_run();
    is_sound(page);
    CHECK(contains(section(page, "examples"), "<details>"));
    CHECK(contains(page, "400,001 bytes"));
    CHECK(page.size() < 200000);
    CHECK(!contains(page, "\xc3\xe2"));
  }
}

TEST_CASE("degenerate runs give sound pages") {
  bench b;
  SUBCASE("all scores equal") {
    b.run.scores.assign(6, 1.25e-7);
  }
  SUBCASE("all zero") {
    b.run.scores.assign(6, 0);
    b.run.summary["data_boundary"] = {{"last", 0}, {"next", 0}};
    for (json& block : b.run.statistics["blocks"]) block["mean_magnitude"] = block["mean"] = 0;
  }
  SUBCASE("the largest and smallest numbers") {
    b.run.scores = {1.7e308, -1.7e308, 5e-324, 0, -5e-324, 1};
    b.run.statistics["histogram"]["edges"] = {-1.7e308, -1e-308, 0, 5e-324, 1.7e308};
    b.run.finetuning["steps"][0]["loss"] = 1.7e308;
    b.run.finetuning["steps"][1]["loss"] = -1.7e308;
    b.run.warmup["steps"][0]["loss"] = 5e-324;
    b.run.summary["utility"]["realised"] = 1.7e308;
    b.run.summary["utility"]["predicted"] = -5e-324;
  }
  SUBCASE("scores that span magnitudes, selected by magnitude, with quotas") {
    b.run.scores = {1e-12, -1e-9, 1e-6, -1e-3, 1, -1e3};
    b.run.settings["options"]["--absolute"] = true;
    b.run.settings["options"]["--layer-quota"] = 0.01;
  }
  SUBCASE("one example, one parameter") {
    b.run.scores = {2};
    b.run.pool = b.run.chosen = {7};
    for (const char* size : {"examples", "parameters", "data_budget", "parameter_budget"})
      b.run.summary[size] = 1;
    for (const char* none : {"parameter_boundary_gap", "data_boundary_gap", "agreement", "utility",
                             "alignment", "diversity", "parameter_boundary", "cost"})
      b.run.summary[none] = nullptr;
    b.run.summary["certificates"] = b.run.summary["stages"] = json::array();
    b.run.statistics = {{"blocks", {report_folder::block("w", -1, "all", 1, 1, 0.5)}},
                        {"smallest", 0.5},
                        {"largest", 0.5},
                        {"histogram", {{"edges", {0, 1}}, {"counts", {1}}}}};
    b.run.lists = {{"best", json::array()}, {"boundary", json::array()}, {"worst", json::array()}};
    b.run.groups["groups"] = json::array();
  }
  SUBCASE("no losses") {
    for (json& step : b.run.warmup["steps"])
      step["loss"] = step["learning_rate"] = step["gradient_norm"] = nullptr;
    b.run.finetuning = {{"total", 7}, {"steps", json::array()}};
  }
  SUBCASE("one step; many steps") {
    b.run.warmup["steps"] = json::array({report_folder::step(12, 0.0)});
    b.run.finetuning["total"] = 20000;
    for (int i = 2; i < 20000; ++i)
      b.run.finetuning["steps"].push_back(report_folder::step(i, 1.0 + 1.0 / i));
  }
  SUBCASE("80 layers") {
    json& blocks = b.run.statistics["blocks"];
    blocks.clear();
    blocks.push_back(report_folder::block("e", -1, "embedding", 30, 11, 0.001));
    for (int layer = 0; layer < 80; ++layer)
      blocks.push_back(report_folder::block("w", layer, "mlp.up", 1, 0, 1e-9));
  }
  const std::string page = b.page_of_run();
  is_sound(page);
  for (const char* nonsense : {"nan", "inf\"", "-inf", "NaN"})
    CHECK_MESSAGE(!contains(page, nonsense), nonsense);
  CHECK(page.size() < 400000);
}

TEST_CASE("a value of the wrong kind is refused with its file and field") {
  struct fault {
    const char* file;
    std::function<void(report_folder&)> make;
    std::vector<std::string> named;
  };
  const std::vector<fault> faults{
      {"settings.json", [](auto& r) { r.settings.erase("program"); }, {"program", "nothing"}},
      {"settings.json", [](auto& r) { r.settings["version"] = 2; }, {"version", "found 2"}},
      {"settings.json", [](auto& r) { r.settings["options"]["--x"] = {1}; }, {"--x", "a list"}},
      {"settings.json", [](auto& r) { r.settings["options"] = 3; }, {"options", "an object"}},
      {"settings.json",
       [](auto& r) { r.settings["inputs"][0]["bytes"] = -1; },
       {"inputs[0].bytes"}},
      {"settings.json", [](auto& r) { r.settings = json::array(); }, {"text", "an object"}},
      {"summary.json", [](auto& r) { r.summary["examples"] = "6"; }, {"examples", "'6'"}},
      {"summary.json", [](auto& r) { r.summary["examples"] = 0; }, {"examples", "found 0"}},
      {"summary.json", [](auto& r) { r.summary["examples"] = 6.5; }, {"examples", "6.5"}},
      {"summary.json", [](auto& r) { r.summary["data_budget"] = 7; }, {"data_budget", "[0, 6]"}},
      {"summary.json", [](auto& r) { r.summary["order"] = nullptr; }, {"order", "null"}},
      {"summary.json", [](auto& r) { r.summary.erase("utility"); }, {"utility", "nothing"}},
      {"summary.json", [](auto& r) { r.summary["seconds"] = -1; }, {"seconds", "-1"}},
      {"summary.json",
       [](auto& r) { r.summary["stages"][1]["tokens"] = -5; },
       {"stages[1].tokens", "found -5"}},
      {"summary.json",
       [](auto& r) { r.summary["agreement"]["orders"] = {"full"}; },
       {"agreement.orders", "2 elements"}},
      {"summary.json",
       [](auto& r) { r.summary["certificates"][0]["holds"] = "yes"; },
       {"certificates[0].holds", "'yes'"}},
      {"finetune.json", [](auto& r) { r.finetune["examples"] = true; }, {"examples", "true"}},
      {"finetune_losses.json",
       [](auto& r) { r.finetuning["steps"][1]["step"] = 0; },
       {"steps[1].step", "found 0"}},
      {"warmup_losses.json",
       [](auto& r) { r.warmup["steps"][0]["loss"] = "low"; },
       {"steps[0].loss", "a number"}},
      {"parameter_statistics.json",
       [](auto& r) { r.statistics["blocks"][2]["selected"] = 31; },
       {"blocks[2].selected", "[0, 30]"}},
      {"parameter_statistics.json",
       [](auto& r) { r.statistics["blocks"][2]["selected"] = 9; },
       {"blocks", "10", "11"}},
      {"parameter_statistics.json",
       [](auto& r) { r.statistics["blocks"].erase(0); },
       {"blocks", "60", "110"}},
      {"parameter_statistics.json",
       [](auto& r) { r.statistics["blocks"][0]["layer"] = -2; },
       {"blocks[0].layer", "-2"}},
      {"parameter_statistics.json",
       [](auto& r) { r.statistics["histogram"]["counts"][1] = -30; },
       {"histogram.counts[1]", "-30"}},
      {"parameter_statistics.json",
       [](auto& r) { r.statistics["histogram"]["counts"][1] = 31; },
       {"histogram.counts", "111"}},
      {"parameter_statistics.json",
       [](auto& r) { r.statistics["histogram"]["edges"][1] = -0.1; },
       {"histogram.edges[1]", "ascending"}},
      {"parameter_statistics.json",
       [](auto& r) { r.statistics["histogram"]["edges"].erase(0); },
       {"histogram.edges", "4 elements", "5"}},
      {"parameter_statistics.json",
       [](auto& r) { r.statistics["histogram"]["counts"] = json(std::vector<int>(20000)); },
       {"histogram.counts", "20000 elements", "at most"}},
      {"examples.json",
       [](auto& r) { r.lists["best"][0]["rank"] = 7; },
       {"best[0].rank", "[1, 6]"}},
      {"examples.json", [](auto& r) { r.lists["best"][0]["prompt"] = 5; }, {"best[0].prompt"}},
      {"examples.json",
       [](auto& r) { r.lists["boundary"][1].erase("selected"); },
       {"boundary[1].selected", "nothing"}},
      {"groups.json",
       [](auto& r) { r.groups["groups"][0]["selected"] = 5; },
       {"groups[0].selected", "[0, 4]"}},
      {"data_scores.npy", [](auto& r) { r.scores.pop_back(); }, {"shape", "(5,)", "(6,)"}},
      {"data_scores.npy",
       [](auto& r) { r.scores[3] = std::numeric_limits<double>::quiet_NaN(); },
       {"value 3", "nan"}},
      {"pool_indices.npy", [](auto& r) { r.pool[2] = -8; }, {"value 2", "-8"}},
      {"pool_indices.npy", [](auto& r) { r.pool[5] = 3; }, {"value 5", "a second time"}},
      {"selected_examples.npy", [](auto& r) { r.chosen[1] = 5; }, {"value 1", "pool_indices.npy"}},
      {"selected_examples.npy", [](auto& r) { r.chosen.pop_back(); }, {"shape", "(1,)"}},
  };
  for (const fault& each : faults) {
    bench b;
    each.make(b.run);
    b.run.write(b.folder);
    std::vector<std::string> named = each.named;
    named.insert(named.begin(), std::string("./") + each.file + ": ");
    is_refused(b, named);
  }
}

TEST_CASE("text that is no JSON is refused") {
  const bench b;
  for (const auto& [text, reason] : std::vector<std::pair<std::string, std::string>>{
           {"", "well-formed"},
           {"{\"examples\": NaN}", "well-formed"},
           {"{\"examples\": 1e999}", "well-formed"},
           {"{\"a\": 1, \"a\": 2}", "twice"},
           {"{\"a\": \"\xff\xfe\"}", "well-formed"},
           {std::string(10000, '['), "nested"},
           {std::string("{\"a\": 1}\0", 9), "zero byte"}}) {
    b.run.write(b.folder);
    b.folder.put("summary.json", text);
    is_refused(b, {"./summary.json: ", reason});
  }
  b.folder.put("summary.json", "");
  std::filesystem::resize_file(b.folder / "summary.json", (std::uintmax_t{1} << 28) + 1);
  is_refused(b, {"./summary.json: file size"});
}

TEST_CASE("what is no run folder is refused, and an earlier page survives") {
  const bench b;
  auto found = b.dualsft.run({"report", "nowhere"});
  CHECK(found.code == 3);
  CHECK(contains(found.err, "nowhere: folder"));
  is_refused(b, {"./settings.json: file"});
  CHECK(b.dualsft.run({"report"}).code == 2);
  CHECK(b.dualsft.run({"report", ".", "--threads", "-1"}).code == 2);

  const std::string page = b.page_of_run();
  b.folder.put("examples.json", "{}");
  found = b.report();
  CHECK(found.code == 3);
  CHECK(contains(found.err, "./examples.json: best: found nothing"));
  CHECK(b.page() == page);
}
