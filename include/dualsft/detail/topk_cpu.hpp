// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/detail/topk_reference.hpp>
#include <dualsft/execution.hpp>

namespace dualsft::detail {

// Replaced by the streaming selection in the next commit; the interface is final.
template <ScoreSource Source>
topk_result topk_cpu(const exec::cpu&, const Source& source, const topk_options& options) {
  return topk_reference(source, options);
}

}  // namespace dualsft::detail
