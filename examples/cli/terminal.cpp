// SPDX-License-Identifier: Apache-2.0
#include "terminal.hpp"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <utility>

namespace dualsft::cli {

namespace {

volatile std::sig_atomic_t interruption = 0;

extern "C" void note_interruption(int) {
  interruption = 1;
}

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = note_interruption;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before {};
    sigaction(signal, nullptr, &before);
    if (before.sa_handler == SIG_IGN) continue;  // nohup, or a shell's background job
    sigaction(signal, &action, nullptr);
  }
}

void stop_if_interrupted() {
  if (interruption != 0) throw interrupted();
}

progress::progress(std::string label, index_t total)
    : label_(std::move(label)),
      total_(std::max<index_t>(1, total)),
      bar_(::isatty(STDERR_FILENO) == 1) {}

progress::~progress() {
  if (bar_ && drawn_) std::fputs("\r\033[K", stderr);  // the result takes its place
}

void progress::advance(index_t units) {
  done_ += units;
  const auto now = clock::now();
  if (now < next_) return;
  next_ = now + (bar_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(10000));
  show(static_cast<double>(done_) / static_cast<double>(total_));
}

void progress::show(double share) {
  drawn_ = true;
  const double seconds = std::chrono::duration<double>(clock::now() - start_).count();
  const double left = seconds * (1 / std::max(share, 1e-9) - 1);
  if (!bar_) {
    std::fprintf(stderr, "%s: %.0f %%, about %.0f s left\n", label_.c_str(), 100 * share, left);
    return;
  }
  constexpr int width = 40;
  const int filled = static_cast<int>(share * width);
  std::fprintf(stderr, "\r\033[K%s [%-*.*s] %3.0f %%  %.0f s left", label_.c_str(), width, filled,
               "########################################", 100 * share, left);
  std::fflush(stderr);
}

}  // namespace dualsft::cli
