// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

/// HTML and SVG that cannot come out unbalanced or unescaped.
namespace dualsft::cli {

/// Text made fit for element content and quoted attribute values: markup characters become
/// references; controls (but line feed and tab) and what else would act unseen become their names,
/// such as [U+001B]; bytes that are no UTF-8 become U+FFFD.
std::string escaped(std::string_view text);

/// At most so many bytes of well-formed or other UTF-8, cut between characters; "…" where something
/// was cut.
std::string clipped(std::string_view text, std::size_t most);

/// A page under construction. Elements are well-formed XML too, so void ones end in "/>".
class markup {
 public:
  using attributes = std::initializer_list<std::pair<std::string_view, std::string_view>>;

  /// An element that is open until the end of its scope.
  class element {
   public:
    element(markup& page, std::string_view tag) : page_(page), tag_(tag) {}
    element(const element&) = delete;
    element& operator=(const element&) = delete;
    ~element();

   private:
    markup& page_;
    std::string_view tag_;
  };

  /// \param tag  a literal: it must outlive the element
  [[nodiscard]] element open(std::string_view tag, attributes given = {});

  /// <tag>text</tag>
  void put(std::string_view tag, std::string_view text, attributes given = {});

  /// <tag/>
  void put_empty(std::string_view tag, attributes given = {});

  void text(std::string_view text) { out_ += escaped(text); }

  /// What the program itself says, such as a style sheet: not escaped.
  void verbatim(std::string_view own) { out_ += own; }

  const std::string& result() const { return out_; }

 private:
  void start(std::string_view tag, attributes given, std::string_view end);

  std::string out_;
};

}  // namespace dualsft::cli
