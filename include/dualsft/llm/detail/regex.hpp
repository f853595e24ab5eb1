// SPDX-License-Identifier: Apache-2.0
#pragma once

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include <cstddef>
#include <cstdint>
#include <dualsft/detail/file_handle.hpp>
#include <dualsft/error.hpp>
#include <memory>
#include <new>
#include <string>
#include <string_view>

/// Regular expressions of tokenizer files, matched by PCRE2.
///
/// The files are written for Oniguruma. Where the two engines read a construct differently, it is
/// translated, or refused by name: never matched with another meaning.
namespace dualsft::llm::detail {

class regex_translator {
 public:
  regex_translator(std::string_view source, const std::string& file, const std::string& field)
      : in_(source), file_(file), field_(field) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        escape();
      } else if (class_depth_ > 0) {
        in_class(c);
      } else if (c == '[') {
        open_class();
      } else if (c == '(') {
        group();
      } else if (c == '^' || c == '$') {
        refuse(in_.substr(at_, 1));
      } else if (c == '{' && in_.substr(at_, 2) == "{,") {
        refuse("{,");
      } else if (c == '}' && in_.substr(at_, 2) == "}+") {
        refuse("}+");
      } else {
        copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw input_error(
        file_, field_, dualsft::detail::in_quotes(what) + " at byte " + std::to_string(at_),
        "a pattern of characters, classes, \\p{..}, \\s, \\d, groups, lookarounds and "
        "quantifiers");
  }

  void copy(std::size_t size) {
    out_.append(in_.substr(at_, size));
    at_ += size;
  }

  void open_class() {
    ++class_depth_;
    copy(in_.substr(at_, 2) == "[^" ? 2 : 1);
    if (at_ < in_.size() && in_[at_] == ']') refuse("[]");
  }

  void in_class(char c) {
    if (c == '[') refuse("[ inside a class");
    if (in_.substr(at_, 2) == "&&") refuse("&&");
    if (c == ']') --class_depth_;
    copy(1);
  }

  void group() {
    if (in_.substr(at_, 2) == "(*") refuse("(*");
    if (in_.substr(at_, 2) != "(?") return copy(1);
    for (const std::string_view known :
         {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)"})
      if (in_.substr(at_, known.size()) == known) return copy(known.size());
    refuse(in_.substr(at_, 4));
  }

  void escape() {
    if (at_ + 1 == in_.size()) refuse("\\");
    const char c = in_[at_ + 1];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool digit = c >= '0' && c <= '9';
    if (!letter && !digit) return copy(2);
    switch (c) {
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'd':
      case 'D':
        return copy(2);
      case 's':  // PCRE2 counts U+180E too, as old Unicode did
        out_ += class_depth_ > 0 ? "\\p{Z}\\x{9}-\\x{d}\\x{85}" : "[\\p{Z}\\x{9}-\\x{d}\\x{85}]";
        at_ += 2;
        return;
      case 'S':
        if (class_depth_ > 0) refuse("\\S inside a class");
        out_ += "[^\\p{Z}\\x{9}-\\x{d}\\x{85}]";
        at_ += 2;
        return;
      case 'p':
      case 'P':
        return property();
      case 'x':
        if (in_.substr(at_, 3) != "\\x{") refuse(in_.substr(at_, 4));
        return copy(3);
      case 'u': {
        const std::string_view digits = in_.substr(at_ + 2, 4);
        if (digits.size() != 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos)
          refuse(in_.substr(at_, 6));
        out_.append("\\x{").append(digits).append("}");
        at_ += 6;
        return;
      }
      default:
        refuse(in_.substr(at_, 2));
    }
  }

  // General categories mean the same; a script's bare name does not (PCRE2 then asks for script
  // extensions).
  void property() {
    const std::size_t end = in_.find('}', at_);
    if (in_.substr(at_ + 2, 1) != "{" || end == in_.npos) refuse(in_.substr(at_, 3));
    std::string_view name = in_.substr(at_ + 3, end - at_ - 3);
    out_.append(in_.substr(at_, 3));
    if (name.starts_with('^')) {
      out_ += '^';
      name.remove_prefix(1);
    }
    if (name.size() > 2 && name != "Any") out_ += "sc:";
    out_.append(name).append("}");
    at_ = end + 1;
  }

  std::string_view in_;
  const std::string& file_;
  const std::string& field_;
  std::string out_;
  std::size_t at_ = 0;
  int class_depth_ = 0;
};

/// A compiled pattern; matching is const and thread-safe.
class regex {
 public:
  /// \throws input_error  if PCRE2 refuses the pattern or the engines would differ on it
  regex(std::string_view pattern, std::string file, std::string field)
      : file_(std::move(file)), field_(std::move(field)) {
    constexpr std::size_t longest = 16384;
    if (pattern.size() > longest)
      throw input_error(file_, field_, std::to_string(pattern.size()) + " bytes",
                        "a pattern of at most 16384 bytes");
    const std::string translated = regex_translator(pattern, file_, field_).run();
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                              nullptr));
    if (code_ == nullptr)
      throw input_error(file_, field_, message(error), "a pattern that PCRE2 accepts");
    // Without the compiler to machine code (not on every platform) the interpreter takes over.
    (void)pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

  /// Calls visit(begin, end) for each match, in order, none overlapping; an empty match directly
  /// behind the one before does not count.
  ///
  /// \throws input_error  if one match needs more steps than a sane pattern does
  template <class Visit>
  void for_each_match(std::string_view text, Visit&& visit) const {
    const matcher state(*this, text.size());
    std::size_t at = 0, last_end = text.size() + 1;
    while (at <= text.size()) {
      const int found = state.match(text, at);
      if (found == PCRE2_ERROR_NOMATCH) break;
      if (found < 0)
        throw input_error(file_, field_, message(found), "a pattern that matches fast");
      const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state.data.get());
      if (ends[0] == ends[1] && ends[1] == last_end) {
        ++at;
        while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
        continue;
      }
      at = last_end = ends[1];
      visit(static_cast<std::size_t>(ends[0]), static_cast<std::size_t>(ends[1]));
    }
  }

 private:
  template <auto Free>
  struct freed {
    template <class T>
    void operator()(T* pointer) const noexcept {
      Free(pointer);
    }
  };
  using code_pointer = std::unique_ptr<pcre2_code, freed<&pcre2_code_free>>;
  using data_pointer = std::unique_ptr<pcre2_match_data, freed<&pcre2_match_data_free>>;
  using context_pointer = std::unique_ptr<pcre2_match_context, freed<&pcre2_match_context_free>>;
  using stack_pointer = std::unique_ptr<pcre2_jit_stack, freed<&pcre2_jit_stack_free>>;

  struct matcher {
    matcher(const regex& owner, std::size_t text_size)
        : code(owner.code_.get()),
          data(pcre2_match_data_create(1, nullptr)),
          context(pcre2_match_context_create(nullptr)) {
      if (data == nullptr || context == nullptr) throw std::bad_alloc();
      // A repeat gives back what it took step by step, so a long run of spaces is a reason for many
      // steps; more than a few per byte mean that the pattern explores combinations.
      const std::size_t steps = 100'000 + 16 * text_size;
      pcre2_set_match_limit(context.get(),
                            static_cast<std::uint32_t>(std::min<std::size_t>(steps, UINT32_MAX)));
      pcre2_set_heap_limit(context.get(), 65536);  // KiB
    }

    int match(std::string_view text, std::size_t at) const {
      const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
      int found = run(subject, text.size(), at);
      if (found == PCRE2_ERROR_JIT_STACKLIMIT && stack == nullptr) {
        stack.reset(pcre2_jit_stack_create(std::size_t{1} << 15, std::size_t{1} << 24, nullptr));
        if (stack == nullptr) throw std::bad_alloc();
        pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
        found = run(subject, text.size(), at);
      }
      return found;
    }

    int run(PCRE2_SPTR subject, std::size_t size, std::size_t at) const {
      return pcre2_match(code, subject, size, at, PCRE2_NO_UTF_CHECK, data.get(), context.get());
    }

    const pcre2_code* code;
    data_pointer data;
    context_pointer context;
    mutable stack_pointer stack;
  };

  static std::string message(int error) {
    unsigned char text[256];
    pcre2_get_error_message(error, text, sizeof text);
    return reinterpret_cast<const char*>(text);
  }

  std::string file_, field_;
  code_pointer code_;
};

}  // namespace dualsft::llm::detail
