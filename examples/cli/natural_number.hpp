// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <string>

namespace dualsft::cli {

/// For options of unsigned type: the parser alone would take -1 and what is too large for 2^64 - 1,
/// and 010 for 8.
inline const CLI::Validator natural_number(
    [](const std::string& text) {
      std::uint64_t value = 0;
      const char* const end = text.data() + text.size();
      const auto [at, error] = std::from_chars(text.data(), end, value);
      const bool octal = text.size() > 1 && text.front() == '0';
      return error == std::errc{} && at == end && !octal
                 ? std::string()
                 : text + ": expected an integer from 0 to 2^64 - 1";
    },
    "");

}  // namespace dualsft::cli
