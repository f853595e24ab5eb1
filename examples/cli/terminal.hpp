// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <dualsft/config.hpp>
#include <exception>
#include <string>

/// What every command needs of the terminal it runs in: interruption and progress.
namespace dualsft::cli {

/// Thrown by stop_if_interrupted; main answers with exit code 130.
class interrupted : public std::exception {
 public:
  const char* what() const noexcept override { return "interrupted"; }
};

/// From here on, the first SIGINT, SIGTERM or SIGHUP only sets a flag; the second of a kind ends the
/// program. A signal that whoever started the program chose to ignore stays ignored. A limit on the
/// size of files (`ulimit -f`) makes writing fail instead of ending the program.
void catch_interrupts();

/// Whether the flag is set: for loops that save something before they stop.
bool interruption_requested();

/// Throws interrupted if the flag is set. Long loops call it; what they own cleans up after itself.
void stop_if_interrupted();

/// Progress of work that consists of `total` equal units, on stderr, with rate and remaining time: a
/// bar on a terminal, otherwise a plain line every ten seconds. Silent during the first second.
class progress {
 public:
  /// \param units  what the rate counts, in the plural
  /// \param done   that were done before, by another process
  progress(std::string label, index_t total, std::string units = "units", index_t done = 0);
  ~progress();
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;

  void advance(index_t units);

 private:
  void show();

  using clock = std::chrono::steady_clock;
  std::string label_;
  std::string units_;
  index_t total_;
  index_t before_;
  index_t done_;
  bool bar_;
  bool drawn_ = false;
  clock::time_point start_ = clock::now();
  clock::time_point next_ = start_ + std::chrono::seconds(1);
};

}  // namespace dualsft::cli
