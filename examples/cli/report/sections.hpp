// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "data.hpp"
#include "markup.hpp"

/// The page's sections, in its order: each writes what stands below its heading.
namespace dualsft::cli {

void put_summary(markup& page, const recorded_run& run);
void put_resources(markup& page, const recorded_run& run);
void put_distributions(markup& page, const recorded_run& run);
void put_parameter_maps(markup& page, const recorded_run& run);
void put_enrichment(markup& page, const recorded_run& run);
void put_examples(markup& page, const recorded_run& run);
void put_checks(markup& page, const recorded_run& run);
void put_utility(markup& page, const recorded_run& run);
void put_training(markup& page, const recorded_run& run);
void put_settings(markup& page, const recorded_run& run);

}  // namespace dualsft::cli
