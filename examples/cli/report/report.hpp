// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <iosfwd>
#include <string>

/// `dualsft report`: the files of a run folder as one page for people.
namespace dualsft::cli {

struct report_options {
  std::string folder;
  bool json = false;
  int threads = 0;  ///< accepted as everywhere; the page is written by one
};

/// Writes <folder>/report.html, whole or not at all.
/// \throws input_error, interrupted
void run_report(const report_options& options, std::ostream& out);

}  // namespace dualsft::cli
