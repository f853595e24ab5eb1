// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <dualsft/config.hpp>
#include <iosfwd>

/// `dualsft verify`: the theory, checked on random small games and models.
namespace dualsft::cli {

struct verify_options {
  std::uint64_t seed = 42;
  index_t games = 200;  ///< random instances per statement, in [1, 10^6]
  int threads = 0;      ///< 0: all that the machine has; the numbers do not depend on it
  bool json = false;    ///< one JSON object instead of the table
};

/// Checks every statement and writes one row each: the worst error found, its bound, the error of
/// a deliberately wrong version of the statement (which shows that the row could have failed), and
/// the verdict.
///
/// \return  0 if every row passed, 1 otherwise: the program's exit code
/// \throws invalid_argument  if games or threads are out of range
/// \throws interrupted
int run_verify(const verify_options& options, std::ostream& out);

}  // namespace dualsft::cli
