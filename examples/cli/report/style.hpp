// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace dualsft::cli {

/// The page's style sheet but for the heatmaps' colours: both colour schemes, wide and narrow
/// screens, paper. It names no resource that would have to be fetched.
std::string_view report_style();

}  // namespace dualsft::cli
