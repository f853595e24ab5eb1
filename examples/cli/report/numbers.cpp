// SPDX-License-Identifier: Apache-2.0
#include "numbers.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <string_view>
#include <system_error>

namespace dualsft::cli {

namespace {

constexpr std::string_view minus = "\xE2\x88\x92", times_ten = "\xC2\xA0\xC3\x97\xC2\xA0";

std::string digits_of(double x, std::chars_format format, int precision) {
  std::array<char, 400> text{};  // 10^308 with a few decimals
  const auto end = std::to_chars(text.data(), text.data() + text.size(), x, format, precision);
  return end.ec == std::errc() ? std::string(text.data(), end.ptr) : std::string("0");
}

void drop_trailing_zeros(std::string& text) {
  if (text.find('.') == std::string::npos) return;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
}

std::string with_sign(bool negative, const std::string& text) {
  return negative ? std::string(minus) + text : text;
}

/// So many digits, but no zeros behind the point that say nothing.
std::string significant(double x, int digits) {
  const int before = x < 1 ? 0 : static_cast<int>(std::floor(std::log10(x))) + 1;
  const int leading_zeros = x < 1 && x > 0 ? -static_cast<int>(std::floor(std::log10(x))) - 1 : 0;
  std::string text =
      digits_of(x, std::chars_format::fixed, std::max(0, digits - before + leading_zeros));
  drop_trailing_zeros(text);
  return text;
}

std::string grouped(std::string digits) {
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  return digits;
}

}  // namespace

std::string count_text(index_t x) {
  return with_sign(x < 0, grouped(std::to_string(x < 0 ? -x : x)));
}

std::string exact_text(double x) {
  std::array<char, 64> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), x);
  return {text.data(), end.ptr};
}

std::string fixed_text(double x, int decimals) {
  const std::string text = digits_of(std::abs(x), std::chars_format::fixed, decimals);
  const bool nothing = text.find_first_not_of("0.") == std::string::npos;
  return with_sign(x < 0 && !nothing, text);
}

std::string power_text(int exponent) {
  constexpr std::array<std::string_view, 10> raised{
      "\xE2\x81\xB0", "\xC2\xB9",     "\xC2\xB2",     "\xC2\xB3",     "\xE2\x81\xB4",
      "\xE2\x81\xB5", "\xE2\x81\xB6", "\xE2\x81\xB7", "\xE2\x81\xB8", "\xE2\x81\xB9"};
  std::string out = exponent < 0 ? "10\xE2\x81\xBB" : "10";
  for (const char c : std::to_string(std::abs(exponent)))
    out += raised[static_cast<std::size_t>(c - '0')];
  return out;
}

std::string number_text(double x) {
  const double size = std::abs(x);
  if (size == 0) return "0";
  if (size >= 1e-3 && size < 1e6) {
    std::string text = significant(size, 4);
    if (const auto point = text.find('.'); point == std::string::npos) text = grouped(text);
    return with_sign(x < 0, text);
  }
  const std::string text = digits_of(size, std::chars_format::scientific, 3);
  const auto e = text.find('e');
  std::string mantissa = text.substr(0, e);
  drop_trailing_zeros(mantissa);
  const int exponent = std::stoi(text.substr(e + 1));
  return with_sign(x < 0, mantissa + std::string(times_ten) + power_text(exponent));
}

std::string share_text(double x) {
  const double percent = 100 * std::abs(x);
  if (percent != 0 && (percent < 1e-3 || percent >= 1e6)) return number_text(100 * x) + "\xC2\xA0%";
  return with_sign(x < 0, significant(percent, 3)) + "\xC2\xA0%";
}

std::string seconds_text(double seconds) {
  if (seconds < 1e-3 && seconds > 0) return number_text(seconds * 1e6) + "\xC2\xA0\xC2\xB5s";
  if (seconds < 1) return significant(seconds * 1e3, 3) + "\xC2\xA0ms";
  if (seconds < 120) return significant(seconds, 3) + "\xC2\xA0s";
  if (seconds >= 1e9) return number_text(seconds) + "\xC2\xA0s";
  const auto whole = static_cast<index_t>(std::llround(seconds));
  const auto two = [](index_t x) { return (x < 10 ? "0" : "") + std::to_string(x); };
  if (whole < 3600)
    return std::to_string(whole / 60) + "\xC2\xA0min\xC2\xA0" + two(whole % 60) + "\xC2\xA0s";
  return count_text(whole / 3600) + "\xC2\xA0h\xC2\xA0" + two(whole / 60 % 60) + "\xC2\xA0min";
}

std::string bytes_text(index_t bytes) {
  constexpr std::array<std::string_view, 5> units{"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024)
    return std::to_string(bytes) +
           "\xC2\xA0"
           "B";
  double size = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; size >= 1024 && unit + 1 < units.size(); ++unit) size /= 1024;
  return significant(size, 3) + "\xC2\xA0" + std::string(units[unit]);
}

std::string place_text(double x) {
  if (!std::isfinite(x)) return "0";
  std::string text = digits_of(x, std::chars_format::fixed, 2);
  drop_trailing_zeros(text);
  return text == "-0" ? "0" : text;
}

}  // namespace dualsft::cli
