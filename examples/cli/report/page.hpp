// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "data.hpp"

namespace dualsft::cli {

/// The report of a run as one HTML page that needs nothing else; equal runs give equal bytes.
std::string report_page(const recorded_run& run);

}  // namespace dualsft::cli
