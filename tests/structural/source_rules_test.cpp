// Proves: the tree keeps the rules that a text search can check: who may include whom, what no
// header may say, a complete umbrella, a README whose program is a compiled example.
// Against: the tables below; each rule is also shown to fail on a made-up tree.
#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;

using texts = std::vector<std::string>;
/// Path below include/dualsft -> content.
using source_tree = std::map<std::string, std::string>;

// ---- the tables --------------------------------------------------------------------------------

struct layer {
  std::string_view name;
  std::string_view members;  // regular expression over the path below include/dualsft
  std::string_view uses;     // layers that its members may include, besides their own
};

// The first layer that matches is the one. Adding a header rarely needs a change here: what is not
// named is an algorithm.
constexpr layer layers[] = {
    {"base", R"((config|error|version)\.hpp)", ""},
    {"foundation",
     R"((views|execution|layout|index_set|random|order|traces|concepts|archetypes|score_source)\.hpp|execution\.cuh)",
     "base"},
    {"umbrella", R"(dualsft\.hpp)", "base foundation algorithm pipeline models io adapt"},
    {"pipeline", R"(pipeline(_types)?\.hpp|pipeline/.*)", "base foundation algorithm"},
    {"models", R"(models/.*)", "base foundation algorithm"},
    {"io", R"(io/.*)", "base foundation algorithm"},
    {"adapt", R"(adapt/.*)", "base foundation algorithm"},
    {"llm", R"(llm/.*)", "base foundation algorithm pipeline models io adapt"},
    {"algorithm", R"(.*)", "base foundation"},
};

struct third_party {
  std::string_view headers;  // regular expression over what stands between < and >
  std::string_view allowed;  // regular expression over the paths that may include it
};

constexpr third_party third_parties[] = {
    {R"((cuda|cub/|thrust/|cublas|curand|cusolver|cooperative_groups|nv/).*)", R"(.*\.cuh)"},
    {R"((xtensor|xtl|xsimd)/.*)", R"(adapt/xtensor\.hpp)"},
    {R"(nlohmann/.*)", R"((io|detail)/safetensors.*|detail/strict_json.*|llm/.*)"},
    {R"(Eigen/Core)", R"(.*\.hpp)"},
    {R"(Eigen/(?!Core$).*)", R"(llm/.*)"},  // decompositions triple the compile time
    {R"((CLI|doctest|benchmark)/.*)", ""},
    {R"(iostream|regex)", ""},
};

struct forbidden {
  std::string_view pattern;
  std::string_view why;
};

// Searched in code, without comments and string literals.
constexpr forbidden forbidden_code[] = {
    {R"(\bstd::(cout|cerr|clog)\b)", "headers never print"},
    {R"(\b(printf|fprintf|puts|fputs|perror)\s*\()", "headers never print"},
    {R"(\b(exit|_Exit|quick_exit|abort|terminate)\s*\()", "headers never end the program"},
    {R"(\busing\s+namespace\s+std\b)", "headers leave their user's scope alone"},
    {R"(\b(rand|srand|random_device)\b)", "random numbers come from random.hpp"},
    {R"(#\s*include\s*")", "includes are written with <>"},
};

// Searched everywhere.
constexpr forbidden forbidden_text[] = {
    {R"(/work/|\.\./shared)", "headers know nothing of the place they were written in"},
};

// Public host headers that the umbrella leaves out: itself, what only tests of algorithms want, and
// what needs more than Eigen (xtensor, nlohmann_json).
constexpr std::string_view outside_umbrella =
    R"(dualsft\.hpp|archetypes\.hpp|adapt/xtensor\.hpp|io/safetensors.*|llm/.*)";

constexpr std::ptrdiff_t longest_public_header = 400;

// ---- reading -----------------------------------------------------------------------------------

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file, "cannot read ", path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

const fs::path root = DUALSFT_SOURCE_DIR;

const source_tree& headers() {
  static const source_tree tree = [] {
    source_tree result;
    const fs::path base = root / "include" / "dualsft";
    for (const auto& entry : fs::recursive_directory_iterator(base))
      if (entry.path().extension() == ".hpp" || entry.path().extension() == ".cuh")
        result[fs::relative(entry.path(), base).generic_string()] = content(entry.path());
    return result;
  }();
  return tree;
}

bool matches(const std::string& text, std::string_view pattern) {
  return std::regex_match(text, std::regex(pattern.begin(), pattern.end()));
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.ends_with(end);
}

/// Comments and the inside of string and character literals become spaces.
std::string code_only(const std::string& text) {
  std::string result = text;
  enum { code, line_comment, block_comment, literal } state = code;
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const char next = i + 1 < text.size() ? text[i + 1] : '\0';
    if (state == code) {
      if (c == '/' && next == '/') {
        state = line_comment;
      } else if (c == '/' && next == '*') {
        state = block_comment;
      } else if (c == '"' ||
                 (c == '\'' &&
                  (i == 0 || std::isalnum(static_cast<unsigned char>(text[i - 1])) == 0))) {
        // A quote after a digit separates digits.
        state = literal;
        quote = c;
        continue;
      }
    } else if (state == literal) {
      if (c == '\\') {
        result[i] = ' ';
        if (++i < text.size()) result[i] = ' ';
        continue;
      }
      if (c == quote || c == '\n') state = code;
    } else if (state == block_comment && c == '*' && next == '/') {
      result[i] = result[i + 1] = ' ';
      ++i;
      state = code;
      continue;
    }
    if (c == '\n') {
      if (state == line_comment) state = code;
    } else if (state != code) {
      result[i] = ' ';
    }
  }
  return result;
}

texts includes(const std::string& text) {
  static const std::regex line(R"(#[ \t]*include[ \t]*<([^>]+)>)");
  texts result;
  const std::string code = code_only(text);
  for (std::sregex_iterator i(code.begin(), code.end(), line), end; i != end; ++i)
    result.push_back((*i)[1]);
  return result;
}

/// "dualsft/x.hpp" -> "x.hpp", anything else -> "".
std::string own(const std::string& included) {
  constexpr std::string_view prefix = "dualsft/";
  return included.starts_with(prefix) ? included.substr(prefix.size()) : std::string();
}

const layer& layer_of(const std::string& path) {
  return *std::find_if(std::begin(layers), std::end(layers),
                       [&](const layer& l) { return matches(path, l.members); });
}

bool lists(std::string_view words, std::string_view wanted) {
  std::istringstream in{std::string(words)};
  for (std::string word; in >> word;)
    if (word == wanted) return true;
  return false;
}

// ---- the rules: each returns its violations ----------------------------------------------------

texts layering_violations(const source_tree& tree) {
  texts found;
  for (const auto& [path, text] : tree) {
    const layer& mine = layer_of(path);
    for (const auto& included : includes(text)) {
      const std::string target = own(included);
      if (!target.empty()) {
        const layer& theirs = layer_of(target);
        if (theirs.name != mine.name && !lists(mine.uses, theirs.name))
          found.push_back(path + " (" + std::string(mine.name) + ") includes " + target + " (" +
                          std::string(theirs.name) + ")");
        if (!tree.contains(target))
          found.push_back(path + " includes " + target + ": no such file");
        if (ends_with(path, ".hpp") && ends_with(target, ".cuh"))
          found.push_back(path + " is a host header and includes " + target);
        continue;
      }
      for (const auto& party : third_parties)
        if (matches(included, party.headers) && !matches(path, party.allowed))
          found.push_back(path + " includes <" + included + ">");
    }
  }
  return found;
}

/// Everything that `path` includes, directly or not.
void reach(const source_tree& tree, const std::string& path, std::set<std::string>& seen) {
  const auto entry = tree.find(path);
  if (entry == tree.end()) return;
  for (const auto& included : includes(entry->second))
    if (seen.insert(included).second && !own(included).empty()) reach(tree, own(included), seen);
}

texts cycle_violations(const source_tree& tree) {
  texts found;
  for (const auto& [path, text] : tree) {
    std::set<std::string> seen;
    reach(tree, path, seen);
    if (seen.contains("dualsft/" + path)) found.push_back(path + " includes itself in a circle");
  }
  return found;
}

texts device_violations(const source_tree& tree) {
  texts found;
  for (const auto& [path, text] : tree) {
    if (!ends_with(path, ".cuh")) continue;
    std::set<std::string> seen;
    reach(tree, path, seen);
    for (const auto& included : seen)
      if (matches(included, "(Eigen|nlohmann|xtensor|xtl)/.*"))
        found.push_back(path + " reaches <" + included + ">");
  }
  return found;
}

texts word_violations(const source_tree& tree) {
  texts found;
  const auto search = [&](const std::string& path, const std::string& text, const forbidden& rule) {
    std::smatch match;
    if (std::regex_search(text, match, std::regex(rule.pattern.begin(), rule.pattern.end())))
      found.push_back(path + " says `" + match.str() + "`: " + std::string(rule.why));
  };
  for (const auto& [path, text] : tree) {
    const std::string code = code_only(text);
    for (const auto& rule : forbidden_code) search(path, code, rule);
    for (const auto& rule : forbidden_text) search(path, text, rule);
  }
  return found;
}

bool is_private(const std::string& path) {
  return path.find("detail/") != std::string::npos;
}

texts shape_violations(const source_tree& tree) {
  texts found;
  for (const auto& [path, text] : tree) {
    if (!text.starts_with("// SPDX-License-Identifier: Apache-2.0\n#pragma once\n"))
      found.push_back(path + " must begin with the SPDX line and #pragma once");
    const auto lines = std::count(text.begin(), text.end(), '\n');
    if (!is_private(path) && lines > longest_public_header)
      found.push_back(path + " has " + std::to_string(lines) + " lines: split it");
    if (!is_private(path) && text.find("///") == std::string::npos)
      found.push_back(path + " documents nothing");
  }
  return found;
}

/// Rows of tables in doc comments end with |, so that one which was wrapped is noticed.
texts table_violations(const source_tree& tree) {
  texts found;
  for (const auto& [path, text] : tree) {
    std::istringstream in(text);
    int number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      const auto start = std::min(line.find_first_not_of(' '), line.size());
      // "|x| <= 1" is prose: a cell is set off by a blank or a dash.
      const bool row =
          line.compare(start, 6, "/// | ") == 0 || line.compare(start, 6, "/// |-") == 0;
      if (row && line.back() != '|')
        found.push_back(path + ":" + std::to_string(number) + ": a row of a table ends with |");
    }
  }
  return found;
}

texts umbrella_violations(const source_tree& tree) {
  texts found;
  if (!tree.contains("dualsft.hpp")) return {"dualsft.hpp is missing"};
  std::set<std::string> there;
  for (const auto& included : includes(tree.at("dualsft.hpp"))) there.insert(own(included));
  for (const auto& [path, text] : tree) {
    const bool wanted =
        ends_with(path, ".hpp") && !is_private(path) && !matches(path, outside_umbrella);
    if (wanted && !there.contains(path)) found.push_back("dualsft.hpp lacks " + path);
    if (!wanted && there.contains(path)) found.push_back("dualsft.hpp must not include " + path);
  }
  return found;
}

/// The text between `begin` and `end`, each a whole line; empty if there is none.
std::string between(const std::string& text, const std::string& begin, const std::string& end) {
  const auto first = ("\n" + text).find("\n" + begin + "\n");
  if (first == std::string::npos) return {};
  const auto start = first + begin.size() + 1;
  const auto stop = text.find("\n" + end, start - 1);
  if (stop == std::string::npos || stop < start) return {};
  return text.substr(start, stop + 1 - start);
}

std::string joined(const texts& lines) {
  std::string result;
  for (const auto& line : lines) result += "\n  " + line;
  return result;
}

#define CHECK_NO_VIOLATION(rule)                 \
  do {                                           \
    const texts found = rule(headers());         \
    CHECK_MESSAGE(found.empty(), joined(found)); \
  } while (false)

}  // namespace

TEST_CASE("headers include only what their layer may use") {
  REQUIRE(headers().size() > 10);
  CHECK_NO_VIOLATION(layering_violations);
}

TEST_CASE("headers do not include each other in circles") {
  CHECK_NO_VIOLATION(cycle_violations);
}

TEST_CASE("CUDA headers never reach Eigen") {
  CHECK_NO_VIOLATION(device_violations);
}

TEST_CASE("headers print nothing, end nothing, open no namespace") {
  CHECK_NO_VIOLATION(word_violations);
}

TEST_CASE("headers begin alike and stay short") {
  CHECK_NO_VIOLATION(shape_violations);
}

TEST_CASE("rows of tables in doc comments are whole") {
  CHECK_NO_VIOLATION(table_violations);
}

TEST_CASE("the umbrella holds every public host header") {
  CHECK_NO_VIOLATION(umbrella_violations);
}

TEST_CASE("each rule can fail") {
  const source_tree good{{"config.hpp", ""}, {"views.hpp", "#include <dualsft/config.hpp>\n"}};
  CHECK(layering_violations(good).empty());
  CHECK(cycle_violations(good).empty());

  const auto with = [&](const std::string& path, const std::string& text) {
    source_tree tree = good;
    tree[path] = text;
    return tree;
  };
  CHECK(layering_violations(with("config.hpp", "#include <dualsft/views.hpp>\n")).size() == 1);
  CHECK(layering_violations(with("topk.hpp", "#include <dualsft/none.hpp>\n")).size() == 1);
  CHECK(layering_violations(with("topk.hpp", "#include <dualsft/models/x.hpp>\n")).size() == 2);
  CHECK(layering_violations(with("topk.hpp", "#include <dualsft/llm/x.hpp>\n")).size() == 2);
  CHECK(layering_violations(with("topk.hpp", "#include <xtensor/xarray.hpp>\n")).size() == 1);
  CHECK(layering_violations(with("topk.hpp", "#  include <cuda_runtime.h>\n")).size() == 1);
  CHECK(layering_violations(with("topk.hpp", "#include <Eigen/Dense>\n")).size() == 1);
  CHECK(layering_violations(with("topk.hpp", "#include <Eigen/Core>\n")).empty());
  CHECK(layering_violations(with("topk.hpp", "// #include <Eigen/Dense>\n")).empty());

  source_tree circle = good;
  circle["a.hpp"] = "#include <dualsft/b.hpp>\n";
  circle["b.hpp"] = "#include <dualsft/a.hpp>\n";
  CHECK(cycle_violations(circle).size() == 2);

  source_tree device = good;
  device["a.cuh"] = "#include <dualsft/b.hpp>\n";
  CHECK(device_violations(device).empty());
  device["b.hpp"] = "#include <Eigen/Core>\n";
  CHECK(device_violations(device).size() == 1);

  CHECK(word_violations(with("x.hpp", "void f() { std::cout << 1; }\n")).size() == 1);
  CHECK(word_violations(with("x.hpp", "void f() { exit(1); }\n")).size() == 1);
  CHECK(word_violations(with("x.hpp", "using namespace std;\n")).size() == 1);
  CHECK(word_violations(with("x.hpp", "#include \"views.hpp\"\n")).size() == 1);
  CHECK(word_violations(with("x.hpp", "// exit(1), std::cout\nint on_exit(int);\n")).empty());
  CHECK(word_violations(with("x.hpp", "auto s = \"abort(\"; snprintf(p, n, s);\n")).empty());
  CHECK(word_violations(with("x.hpp", "int a = 1'000; /* */ auto b = '\"'; exit(1);\n")).size() ==
        1);

  CHECK(shape_violations(with("x.hpp", "#pragma once\n")).size() == good.size() * 2 + 2);
  CHECK(table_violations(with("x.hpp", "/// | a | b |\n/// |---|---|\n/// |x| <= 1\n")).empty());
  CHECK(table_violations(with("x.hpp", "  /// | a | b\n  /// | c |\n")).size() == 1);
  CHECK(table_violations(with("x.hpp", "/// \\param n  rows\n")).empty());
  CHECK(umbrella_violations(good).size() == 1);
  CHECK(umbrella_violations(with("dualsft.hpp", "#include <dualsft/config.hpp>\n")).size() == 1);
  CHECK(between("a\n// [x]\nb\nc\n// [/x]\nd\n", "// [x]", "// [/x]") == "b\nc\n");
  CHECK(between("// [x]\nb\n", "// [x]", "// [/x]").empty());
}

TEST_CASE("the README's program is the first example") {
  if (!fs::exists(root / "README.md")) {
    MESSAGE("skipped: there is no README.md yet");
    return;
  }
  fs::path example;
  for (const auto& entry : fs::directory_iterator(root / "examples"))
    if (matches(entry.path().filename().string(), R"(01_.*\.cpp)")) example = entry.path();
  REQUIRE_MESSAGE(!example.empty(), "there is no examples/01_*.cpp");
  const std::string region = between(content(example), "// [readme]", "// [/readme]");
  const std::string block = between(content(root / "README.md"), "```cpp", "```");
  CHECK_MESSAGE(!region.empty(), "no region between // [readme] and // [/readme] in ",
                example.string());
  CHECK(block == region);
}

TEST_CASE("each unit test begins with what it proves, against what") {
  for (const auto& entry : fs::directory_iterator(root / "tests" / "unit")) {
    if (!ends_with(entry.path().string(), "_test.cpp")) continue;
    std::istringstream in(content(entry.path()));
    std::string first, second;
    std::getline(in, first);
    std::getline(in, second);
    CHECK_MESSAGE((first.starts_with("// ") && second.starts_with("// ")), entry.path().string());
  }
}

TEST_CASE("the changelog knows the version") {
  const std::string version = content(root / "include" / "dualsft" / "version.hpp");
  static const std::regex number(R"(#define DUALSFT_VERSION_[A-Z]+ (\d+))");
  std::string dotted;
  for (std::sregex_iterator i(version.begin(), version.end(), number), end; i != end; ++i)
    dotted += (dotted.empty() ? "" : ".") + (*i)[1].str();
  CHECK_MESSAGE(content(root / "CHANGELOG.md").find(dotted) != std::string::npos,
                "CHANGELOG.md does not name ", dotted);
}
