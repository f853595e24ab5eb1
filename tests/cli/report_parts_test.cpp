// Proves: numbers are rounded as their comments say; axes keep order and bounds whatever the range;
// histograms lose nothing; text of any bytes comes out harmless; colours have the contrast that the
// style sheet promises. Against: hand-computed texts, counting by hand, WCAG's formula.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <dualsft/llm/detail/utf8.hpp>
#include <dualsft/random.hpp>
#include <functional>
#include <limits>
#include <numeric>
#include <regex>
#include <string>
#include <vector>

#include "report/axis.hpp"
#include "report/heatmap.hpp"
#include "report/histogram.hpp"
#include "report/markup.hpp"
#include "report/numbers.hpp"
#include "report/style.hpp"

using namespace dualsft;
using namespace dualsft::cli;

namespace {

/// With plain spaces, signs and exponents, so that this file can be read.
std::string plain(std::string text) {
  for (const auto& [from, to] :
       std::vector<std::pair<std::string, std::string>>{{"\xC2\xA0", " "},
                                                        {"\xE2\x88\x92", "-"},
                                                        {"\xC3\x97", "x"},
                                                        {"\xE2\x81\xBB", "^-"},
                                                        {"\xC2\xB9", "1"},
                                                        {"\xC2\xB2", "2"},
                                                        {"\xC2\xB3", "3"},
                                                        {"\xE2\x81\xB0", "0"},
                                                        {"\xE2\x81\xB4", "4"},
                                                        {"\xE2\x81\xB5", "5"},
                                                        {"\xE2\x81\xB6", "6"},
                                                        {"\xE2\x81\xB7", "7"},
                                                        {"\xE2\x81\xB8", "8"},
                                                        {"\xE2\x81\xB9", "9"},
                                                        {"\xC2\xB5", "u"}})
    for (auto at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
  return text;
}

void is_sound(const chart_axis& axis, double low, double high) {
  CHECK(!axis.ticks.empty());
  CHECK(axis.ticks.size() <= 40);
  double before = -1;
  for (const axis_tick& tick : axis.ticks) {
    CHECK(tick.place >= 0);
    CHECK(tick.place <= 1);
    CHECK(tick.place > before);
    CHECK(!tick.label.empty());
    CHECK(tick.label.find("inf") == tick.label.npos);
    CHECK(tick.label.find("nan") == tick.label.npos);
    before = tick.place;
  }
  before = 0;
  for (int i = 0; i <= 50; ++i) {
    const double place = axis.place(std::lerp(low, high, i / 50.0));
    CHECK(place >= before);
    CHECK(place <= 1);
    before = place;
  }
}

double luminance(const std::string& hex) {
  const auto channel = [&](std::size_t i) {
    const double x = std::stoi(hex.substr(i, 2), nullptr, 16) / 255.0;
    return x <= 0.04045 ? x / 12.92 : std::pow((x + 0.055) / 1.055, 2.4);
  };
  return 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
}

double contrast(const std::string& a, const std::string& b) {
  const double x = luminance(a) + 0.05, y = luminance(b) + 0.05;
  return std::max(x, y) / std::min(x, y);
}

/// The n-th definition of a colour: 0 for the light scheme, 1 for the dark one.
std::string colour(const std::string& name, int n) {
  const std::string style(report_style());
  auto at = style.find("--" + name + ":#");
  for (; n > 0; --n) at = style.find("--" + name + ":#", at + 1);
  REQUIRE(at != style.npos);
  return style.substr(at + name.size() + 3, 7);
}

}  // namespace

TEST_CASE("numbers") {
  CHECK(plain(number_text(0)) == "0");
  CHECK(plain(number_text(-0.0)) == "0");
  CHECK(plain(number_text(0.42174)) == "0.4217");
  CHECK(plain(number_text(-12.3)) == "-12.3");
  CHECK(plain(number_text(0.001)) == "0.001");
  CHECK(plain(number_text(1234.56)) == "1,235");
  CHECK(plain(number_text(999999)) == "999,999");
  CHECK(plain(number_text(1.2344e-6)) == "1.234 x 10^-6");
  CHECK(plain(number_text(-9.99999e-10)) == "-1 x 10^-9");
  CHECK(plain(number_text(1.5e300)) == "1.5 x 10300");
  CHECK(plain(number_text(5e-324)) == "4.941 x 10^-324");
  CHECK(count_text(0) == "0");
  CHECK(count_text(999) == "999");
  CHECK(count_text(1000) == "1,000");
  CHECK(count_text(1234567) == "1,234,567");
  CHECK(plain(count_text(-1234)) == "-1,234");
  CHECK(plain(share_text(0.0497)) == "4.97 %");
  CHECK(plain(share_text(1)) == "100 %");
  CHECK(plain(share_text(-0.267)) == "-26.7 %");
  CHECK(plain(share_text(1e-9)) == "1 x 10^-7 %");
  CHECK(plain(seconds_text(0)) == "0 ms");
  CHECK(plain(seconds_text(2e-6)) == "2 us");
  CHECK(plain(seconds_text(0.25)) == "250 ms");
  CHECK(plain(seconds_text(12.34)) == "12.3 s");
  CHECK(plain(seconds_text(252)) == "4 min 12 s");
  CHECK(plain(seconds_text(7500)) == "2 h 05 min");
  CHECK(plain(bytes_text(1023)) == "1023 B");
  CHECK(plain(bytes_text(1536)) == "1.5 KiB");
  CHECK(plain(bytes_text(index_t{5} << 30)) == "5 GiB");
  CHECK(place_text(-0.0001) == "0");
  CHECK(place_text(std::numeric_limits<double>::quiet_NaN()) == "0");
  for (const double x : {0.1, -1e-300, 1.0 / 3, 5e-324, 1.7e308})
    CHECK(std::strtod(exact_text(x).c_str(), nullptr) == x);
}

TEST_CASE("axes") {
  const double most = std::numeric_limits<double>::max();
  for (const auto& ends : std::vector<std::pair<double, double>>{{0, 1},
                                                                 {-3, 7},
                                                                 {2.5, 2.5},
                                                                 {0, 0},
                                                                 {1e-12, 3e-12},
                                                                 {-1e9, 1e9},
                                                                 {1, 1 + 1e-15},
                                                                 {-most, most},
                                                                 {0, 5e-324},
                                                                 {1e-310, 2e-310},
                                                                 {most / 2, most},
                                                                 {0, 123456}}) {
    const double low = ends.first;  // clang 14 captures no structured bindings
    const double high = ends.second;
    CAPTURE(low);
    CAPTURE(high);
    is_sound(linear_axis(low, high, 5), low, high);
    if (low >= 0 && high < 1e15)
      is_sound(step_axis(std::floor(low), std::floor(high), 6), low, high);
    if (low > 0) is_sound(logarithmic_axis(low, high), low, high);
    if (high >= 1) is_sound(count_axis(high), 0, high);
    if (low < high) {
      is_sound(binned_axis(std::vector{low, high}), low, high);
      is_sound(binned_axis(std::vector{low, low / 2 + high / 2, high}), low, high);
    }
  }
  const chart_axis even = linear_axis(0, 9.3, 5);
  CHECK(even.ticks.size() == 6);
  CHECK(even.ticks.back().label == "10");
  CHECK(even.place(5) == doctest::Approx(0.5));
  const chart_axis small = linear_axis(0, 2e-5, 4);
  CHECK(plain(small.unit) == "10^-5");
  CHECK(small.ticks.back().label == "2.0");
  // Bins as wide as each other, whatever their edges; powers of ten at their places.
  const chart_axis bins = binned_axis(std::vector<double>{-1, -0.1, -0.01, 0, 0.01, 0.1, 1});
  CHECK(bins.place(0) == 0.5);
  CHECK(bins.place(0.01) == doctest::Approx(4.0 / 6));
  CHECK(bins.place(0.055) == doctest::Approx(4.5 / 6));
  CHECK(bins.place(-7) == 0);
  CHECK(bins.place(7) == 1);
  CHECK(plain(bins.ticks.front().label) == "-100");  // 10 to the power 0
}

TEST_CASE("histograms count everything once") {
  random_source random(5);
  for (const index_t n : {1, 2, 3, 31, 32, 33, 255, 257, 1000}) {
    std::vector<double> values;
    std::vector<char> chosen;
    for (index_t i = 0; i < n; ++i) {
      values.push_back(n % 2 == 0 ? random.normal() : std::exp(20 * random.normal()));
      chosen.push_back(static_cast<char>(i % 3 == 0));
    }
    const histogram bins = bin_values(values, chosen);
    CHECK(std::ranges::adjacent_find(bins.edges, std::greater_equal{}) == bins.edges.end());
    CHECK(bins.edges.front() <= *std::ranges::min_element(values));
    CHECK(bins.edges.back() >= *std::ranges::max_element(values));
    for (std::size_t b = 0; b + 1 < bins.counts.size(); ++b) {
      double count = 0, marked = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const bool inside = bins.edges[b] <= values[i] && values[i] < bins.edges[b + 1];
        count += inside ? 1 : 0;
        marked += inside && chosen[i] != 0 ? 1 : 0;
      }
      CHECK(bins.counts[b] == count);
      CHECK(bins.marked[b] == marked);
    }
    CHECK(std::reduce(bins.counts.begin(), bins.counts.end()) == static_cast<double>(n));
    const histogram joined = join_bins(bins, 5);
    CHECK(joined.counts.size() <= 5);
    CHECK(joined.edges.back() == bins.edges.back());
    CHECK(std::reduce(joined.counts.begin(), joined.counts.end()) == static_cast<double>(n));
  }
}

TEST_CASE("text of any bytes comes out as harmless, well-formed text") {
  random_source random(9);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (int i = 0; i < 12; ++i) bytes += static_cast<char>(random.bits() & 0xff);
    const std::string shown = escaped(bytes);
    CHECK(llm::detail::find_invalid_utf8(shown) == shown.npos);
    CHECK(shown.find_first_of("<>\"'") == shown.npos);
    const std::string cut = clipped(shown, 7);
    CHECK(llm::detail::find_invalid_utf8(cut) == cut.npos);
    CHECK(cut.size() <= 10);
  }
  CHECK(escaped("a\xff"
                "b") ==
        "a\xef\xbf\xbd"
        "b");
  CHECK(escaped("\x1b[0m") == "[U+001B][0m");
  CHECK(escaped("\xe2\x80\xae\xf4\x8f\xbf\xbf") == "[U+202E][U+10FFFF]");
}

TEST_CASE("colours have their contrast in both schemes") {
  for (const int scheme : {0, 1}) {
    for (const char* ground : {"ground", "card"}) {
      for (const char* text : {"ink", "soft", "blue", "red"})
        CHECK(contrast(colour(text, scheme), colour(ground, scheme)) >= 4.5);
      CHECK(contrast(colour("rest", scheme), colour(ground, scheme)) >= 3);
    }
    CHECK(contrast(colour("good-ink", scheme), colour("good", scheme)) >= 4.5);
    CHECK(contrast(colour("bad-ink", scheme), colour("bad", scheme)) >= 4.5);
    CHECK(contrast(colour("ink", scheme), colour("grid", scheme)) >= 4.5);
  }
  // Heatmaps: the text on each level, and lightness that only ever falls, or only ever rises.
  const std::string style = heatmap_style();
  const std::regex rule(R"(\.h(\d+)\{background:(#[0-9a-f]{6});color:(#[0-9a-f]{3})\})");
  std::vector<double> lightness;
  for (std::sregex_iterator at(style.begin(), style.end(), rule), end; at != end; ++at) {
    const std::string ink = (*at)[3] == "#fff" ? "#ffffff" : "#000000";
    CHECK(contrast((*at)[2], ink) >= 4.5);
    lightness.push_back(luminance((*at)[2]));
  }
  REQUIRE(lightness.size() == 32);
  CHECK(std::is_sorted(lightness.rbegin() + 16, lightness.rend()));
  CHECK(std::is_sorted(lightness.begin() + 16, lightness.end()));
}
