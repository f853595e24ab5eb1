// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace dualsft::cli {

/// For options of unsigned type: the parser alone would take -1 for 2^64 - 1.
inline const CLI::Validator natural_number(
    [](const std::string& text) {
      return text.starts_with('-') ? text + " is negative" : std::string();
    },
    "");

}  // namespace dualsft::cli
