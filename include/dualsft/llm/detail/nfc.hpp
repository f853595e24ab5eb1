// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <dualsft/llm/detail/char_classes.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

/// Normalization form C: canonical decomposition, canonical order, composition (Unicode Standard
/// Annex 15). Text without an active character is its own normal form; where there is one, only the
/// stretch from the character before it to the next inactive one is rewritten.
namespace dualsft::llm::detail {

class nfc_rules {
 public:
  static const nfc_rules& get() {
    static const nfc_rules rules;
    return rules;
  }

  void append_normalized(std::string& out, std::string_view stretch) const {
    std::vector<std::pair<std::uint32_t, std::uint8_t>> points;  // value, combining class
    for (std::size_t at = 0; at < stretch.size();) {
      const code_point c = decode_utf8(stretch.data() + at);
      decompose(c.value, points);
      at += c.size;
    }
    const auto starts = [](const auto& c) { return c.second == 0; };
    for (auto first = points.begin(); first != points.end();) {
      if (starts(*first)) {
        ++first;
        continue;
      }
      const auto end = std::find_if(first, points.end(), starts);
      std::stable_sort(first, end,
                       [](const auto& a, const auto& b) { return a.second < b.second; });
      first = end;
    }
    compose(points);
    for (const auto& [value, rank] : points) append_utf8(out, value);
  }

 private:
  nfc_rules() {
    for (const auto& [c, first, second, composes] : decompositions) {
      parts_.emplace(c, std::pair(first, second));
      if (composes != 0) wholes_.emplace(key(first, second), c);
    }
  }

  static std::uint64_t key(std::uint32_t first, std::uint32_t second) {
    return std::uint64_t{first} << 32 | second;
  }

  static std::uint8_t combining_class(std::uint32_t c) {
    const auto range = std::upper_bound(combining_classes.begin(), combining_classes.end(), c,
                                        [](std::uint32_t x, const auto& r) { return x < r[1]; });
    const bool inside = range != combining_classes.end() && (*range)[0] <= c;
    return static_cast<std::uint8_t>(inside ? (*range)[2] : 0);
  }

  template <class Points>
  void decompose(std::uint32_t c, Points& out) const {
    if (c - hangul_base < hangul_count) {
      const std::uint32_t syllable = c - hangul_base;
      out.emplace_back(jamo_l + syllable / (jamo_v_count * jamo_t_count), std::uint8_t{0});
      out.emplace_back(jamo_v + syllable / jamo_t_count % jamo_v_count, std::uint8_t{0});
      if (syllable % jamo_t_count != 0)
        out.emplace_back(jamo_t + syllable % jamo_t_count, std::uint8_t{0});
      return;
    }
    const auto found = parts_.find(c);
    if (found == parts_.end()) {
      out.emplace_back(c, combining_class(c));
      return;
    }
    decompose(found->second.first, out);  // at most three steps deep, in the data of Unicode
    if (found->second.second != 0) decompose(found->second.second, out);
  }

  // The composition of two code points, 0 if they do not compose.
  std::uint32_t whole(std::uint32_t first, std::uint32_t second) const {
    if (first - jamo_l < jamo_l_count && second - jamo_v < jamo_v_count)
      return hangul_base + ((first - jamo_l) * jamo_v_count + (second - jamo_v)) * jamo_t_count;
    if (first - hangul_base < hangul_count && (first - hangul_base) % jamo_t_count == 0 &&
        second > jamo_t && second - jamo_t < jamo_t_count)
      return first + (second - jamo_t);
    const auto found = wholes_.find(key(first, second));
    return found == wholes_.end() ? 0 : found->second;
  }

  template <class Points>
  void compose(Points& points) const {
    std::size_t kept = 0;
    std::size_t starter = points.size();  // none yet
    int last = -1;  // class of what was kept last behind the starter; -1: nothing was
    for (std::size_t i = 0; i < points.size(); ++i) {
      const auto c = points[i];
      if (starter < points.size() && last < c.second) {
        if (const std::uint32_t both = whole(points[starter].first, c.first); both != 0) {
          points[starter].first = both;
          continue;
        }
      }
      if (c.second == 0) {
        starter = kept;
        last = -1;
      } else {
        last = c.second;
      }
      points[kept++] = c;
    }
    points.resize(kept);
  }

  std::unordered_map<std::uint32_t, std::pair<std::uint32_t, std::uint32_t>> parts_;
  std::unordered_map<std::uint64_t, std::uint32_t> wholes_;
};

/// The normal form of well-formed text: `text` itself where that is normal, else a view of `out`.
inline std::string_view to_nfc(std::string_view text, std::string& out) {
  const char_class* classes = char_classes();
  out.clear();
  std::size_t done = 0, previous = 0;  // copied up to; where the character before `at` begins
  bool changed = false;
  for (std::size_t at = 0; at < text.size();) {
    // Below U+0300 nothing is active, and the first such lead byte is 0xCC.
    if (static_cast<unsigned char>(text[at]) < 0xCC) {
      previous = at;
      at += static_cast<unsigned char>(text[at]) < 0x80 ? 1 : 2;
      continue;
    }
    code_point c = decode_utf8(text.data() + at);
    if ((classes[c.value] & nfc_active) == 0) {
      previous = at;
      at += c.size;
      continue;
    }
    const std::size_t first = previous;
    while (at < text.size()) {
      c = decode_utf8(text.data() + at);
      if ((classes[c.value] & nfc_active) == 0) break;
      at += c.size;
    }
    changed = true;
    out.append(text.substr(done, first - done));
    nfc_rules::get().append_normalized(out, text.substr(first, at - first));
    done = previous = at;
  }
  if (!changed) return text;
  out.append(text.substr(done));
  return out;
}

}  // namespace dualsft::llm::detail
