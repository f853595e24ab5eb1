// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include "data.hpp"
#include "folder.hpp"
#include "options.hpp"

/// The stages of a run. Each returns at once if what it makes is there, goes on from its saved state
/// if it was stopped, and publishes its files whole, the one that says "done" last.
namespace dualsft::cli {

/// theta_0 -> warmup/: theta_w as a checkpoint, and second_moment.safetensors beside it. With
/// --checkpoint, theta_w is given; AdamW's second moment is then gathered at it, without moving.
void warmup_stage(run_folder& folder, const run_data& data, const pipeline_options& options);

/// Whether warmup_stage has anything to do: theta moves, or selection reads second moments.
/// \throws usage_error  if it should and there are no records for it
bool needs_warmup(const run_data& data, const pipeline_options& options);

/// Scores and selects at theta_w.
void select_stage(run_folder& folder, const run_data& data, const pipeline_options& options);

/// theta_0 -> model/, on the selected examples and coordinates.
void finetune_stage(run_folder& folder, const run_data& data, const pipeline_options& options);

}  // namespace dualsft::cli
