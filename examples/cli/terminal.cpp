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
  // A file that may not grow is an error with a name, not a signal.
  std::signal(SIGXFSZ, SIG_IGN);
}

bool interruption_requested() {
  return interruption != 0;
}

void stop_if_interrupted() {
  if (interruption_requested()) throw interrupted();
}

progress::progress(std::string label, index_t total, std::string units, index_t done)
    : label_(std::move(label)),
      units_(std::move(units)),
      total_(std::max<index_t>(1, total)),
      before_(done),
      done_(done),
      bar_(::isatty(STDERR_FILENO) == 1) {}

progress::~progress() {
  if (bar_ && drawn_) std::fputs("\r\033[K", stderr);  // the result takes its place
}

void progress::advance(index_t units) {
  done_ += units;
  const auto now = clock::now();
  if (now < next_) return;
  next_ = now + (bar_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(10000));
  show();
}

void progress::show() {
  drawn_ = true;
  const double share = static_cast<double>(done_) / static_cast<double>(total_);
  const double seconds = std::chrono::duration<double>(clock::now() - start_).count();
  const double rate = static_cast<double>(done_ - before_) / std::max(seconds, 1e-9);
  const double left = static_cast<double>(total_ - done_) / std::max(rate, 1e-9);
  if (!bar_) {
    std::fprintf(stderr, "%s: %.0f %%, %.3g %s/s, about %.0f s left\n", label_.c_str(), 100 * share,
                 rate, units_.c_str(), left);
    return;
  }
  constexpr int width = 40;
  const int filled = static_cast<int>(std::min(1.0, share) * width);
  std::fprintf(stderr, "\r\033[K%s [%-*.*s] %3.0f %%  %.3g %s/s  %.0f s left", label_.c_str(),
               width, filled, "########################################", 100 * share, rate,
               units_.c_str(), left);
  std::fflush(stderr);
}

}  // namespace dualsft::cli
