// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <iosfwd>

#include "options.hpp"

namespace dualsft::cli {

/// Which command: a stage alone, with what it needs of the stages before it, or all of them.
enum class pipeline_command { run, warmup, select, finetune };

/// Goes through the stages in --out and reports to `out`.
/// \throws usage_error, input_error, numerical_error, interrupted
void run_pipeline(pipeline_command command, pipeline_options options, std::ostream& out);

}  // namespace dualsft::cli
