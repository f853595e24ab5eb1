// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "data.hpp"

namespace dualsft::cli {

/// Reads a run folder as docs/run_folder.md describes it, trusting nothing: types, ranges, and that
/// the files speak of one run.
/// \throws input_error  naming the file, the field, what was found and what was expected
recorded_run read_run_folder(const std::string& folder);

}  // namespace dualsft::cli
