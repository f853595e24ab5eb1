// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/execution.hpp>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace dualsft::llm::detail {

using dualsft::detail::index_range;
using dualsft::detail::split_range;

/// Threads that stay, for the some hundred short parallel steps of one pass: starting threads for
/// each would cost more than the step. Work is cut by sizes and the number of threads alone, so
/// equal inputs give equal bits.
class worker_pool {
 public:
  /// \param threads  including the caller's
  explicit worker_pool(int threads) : threads_(threads) {
    expects(threads >= 1, "worker_pool", "at least one thread", "threads", threads);
    failures_.resize(static_cast<std::size_t>(threads));
    workers_.reserve(static_cast<std::size_t>(threads - 1));
    try {
      for (int part = 1; part < threads; ++part)
        workers_.emplace_back([this, part] { work(part); });
    } catch (...) {
      stop();
      throw;
    }
  }
  worker_pool(const worker_pool&) = delete;
  worker_pool& operator=(const worker_pool&) = delete;
  ~worker_pool() { stop(); }

  int threads() const { return threads_; }

  /// body(part) for part in [0, parts), all at once; parts <= threads(). Callers wait for each
  /// other; bodies must not call back into the pool.
  template <class Body>
  void run(int parts, Body&& body) {
    run_of(parts, call_to<int>(body));
  }

  /// body(range) for ranges that cover [0, n): one for each thread, and where there is enough of it,
  /// a last quarter in small ones for whichever thread comes free, as the others' processors may be
  /// busy elsewhere. Results must not depend on who does what.
  /// \param grain  elements that are worth a thread
  template <class Body>
  void ranges(index_t n, index_t grain, Body&& body) {
    ranges_of(n, grain, call_to<index_range>(body));
  }

  /// body(task, part) for each of `tasks`, handed out as threads come free: for tasks whose results
  /// do not depend on who does them.
  /// \param grain  tasks that are worth a thread
  template <class Body>
  void tasks(index_t count, index_t grain, Body&& body) {
    tasks_of(count, grain, call_to<index_t, int>(body));
  }

 private:
  /// A call to somebody else's function object. What follows is compiled once, not for each body.
  template <class... Arguments>
  struct call {
    void* body = nullptr;
    void (*function)(void*, Arguments...) = nullptr;
    void operator()(Arguments... arguments) const { function(body, arguments...); }
  };
  template <class... Arguments, class Body>
  static call<Arguments...> call_to(Body& body) {
    return {const_cast<void*>(static_cast<const void*>(std::addressof(body))),
            [](void* at, Arguments... arguments) { (*static_cast<Body*>(at))(arguments...); }};
  }

  void run_of(int parts, call<int> body) {
    if (parts <= 1) {
      if (parts == 1) body(0);
      return;
    }
    const std::scoped_lock one_at_a_time(callers_);
    body_ = body;
    parts_ = parts;
    pending_.store(threads_ - 1, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    guarded(0);
    wait_for(pending_, [](int n) { return n == 0; });
    for (std::exception_ptr& failure : failures_)
      if (failure) {
        const std::exception_ptr first = failure;
        std::ranges::fill(failures_, nullptr);
        std::rethrow_exception(first);
      }
  }

  void ranges_of(index_t n, index_t grain, call<index_range> body) {
    if (n <= 0) return;
    const index_t most = std::max<index_t>(1, n / std::max<index_t>(1, grain));
    const index_t parts = std::min<index_t>(threads_, most);
    const index_t tail = most >= 8 * parts ? 2 * parts : 0;
    const index_t large = tail == 0 ? n : n - n / 4;
    tasks(parts + tail, 1, [&](index_t task, int) {
      if (task < parts) return body(split_range(large, parts, task));
      const index_range range = split_range(n - large, tail, task - parts);
      body(index_range{large + range.begin, large + range.end});
    });
  }

  void tasks_of(index_t count, index_t grain, call<index_t, int> body) {
    if (count <= 0) return;
    std::atomic<index_t> next{0};
    const index_t most = std::max<index_t>(1, count / std::max<index_t>(1, grain));
    run(static_cast<int>(std::min<index_t>(threads_, most)), [&](int part) {
      for (index_t task = next++; task < count; task = next++) body(task, part);
    });
  }

  /// A little spinning spares the system call between steps that follow each other closely.
  template <class T, class Done>
  static T wait_for(std::atomic<T>& value, Done&& done) {
    T seen = value.load(std::memory_order_acquire);
    for (int spin = 0; spin < 4000 && !done(seen); ++spin) {
      if (spin % 64 == 63) std::this_thread::yield();
      seen = value.load(std::memory_order_acquire);
    }
    while (!done(seen)) {
      value.wait(seen, std::memory_order_acquire);
      seen = value.load(std::memory_order_acquire);
    }
    return seen;
  }

  void guarded(int part) {
    try {
      if (part < parts_) body_(part);
    } catch (...) {
      failures_[static_cast<std::size_t>(part)] = std::current_exception();
    }
  }

  void work(int part) {
    std::uint64_t done = 0;
    for (;;) {
      done = wait_for(round_, [done](std::uint64_t round) { return round != done; });
      if (stopping_.load(std::memory_order_relaxed)) return;
      guarded(part);
      if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_all();
    }
  }

  void stop() {
    stopping_.store(true, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    workers_.clear();  // joins
  }

  int threads_;
  std::mutex callers_;
  std::atomic<std::uint64_t> round_{0};
  std::atomic<int> pending_{0};
  std::atomic<bool> stopping_{false};
  int parts_ = 0;
  call<int> body_;
  std::vector<std::exception_ptr> failures_;
  std::vector<std::jthread> workers_;
};

}  // namespace dualsft::llm::detail
