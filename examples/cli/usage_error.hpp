// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>

namespace dualsft::cli {

/// The command line asks for something that does not exist or does not fit: exit code 2.
class usage_error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace dualsft::cli
