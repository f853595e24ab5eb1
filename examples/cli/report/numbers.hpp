// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <string>

/// Numbers as people read them: as many digits as help, with units, the same in every locale.
namespace dualsft::cli {

std::string count_text(index_t x);  ///< "1,234,567"
std::string number_text(double x);  ///< four digits: "0.4217", "−12.3", "1.234 × 10⁻⁶"
std::string share_text(double x);   ///< of 1: "4.97 %"
std::string seconds_text(double seconds);  ///< "12.3 s", "4 min 12 s", "2 h 05 min"
std::string bytes_text(index_t bytes);     ///< "12.5 MiB"
std::string power_text(int exponent);      ///< "10⁻⁶"
std::string exact_text(double x);          ///< the shortest text that reads back as x
std::string fixed_text(double x, int decimals);

/// A place in a drawing: two decimals, no trailing zeros; 0 for what is not finite.
std::string place_text(double x);

}  // namespace dualsft::cli
