// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>

namespace dualsft::llm {

/// What the backward pass finds of the forward pass.
enum class activations {
  keep,       ///< every layer's: about 2 forward passes of time saved per 10, memory ~ layers
  recompute,  ///< the layers' inputs; each layer runs forward once more
};

struct transformer_options {
  int threads = 0;              ///< 0: what the machine reports
  index_t chunk_tokens = 2048;  ///< sequences go through together until they have so many tokens
  llm::activations activations = activations::keep;
  index_t positions =
      0;  ///< at least so many are prepared; the corpus's longest record in any case
  bool initialise = true;  ///< false: parameters are zero until they are read
};

}  // namespace dualsft::llm
