// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <memory>

#include "run.hpp"

namespace dualsft::cli {

/// Gives `app` the options of a pipeline command; behind the parse, `options` has their values and
/// the names of those that were given.
void add_pipeline_options(CLI::App* app, pipeline_command command,
                          const std::shared_ptr<pipeline_options>& options);

}  // namespace dualsft::cli
