// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <concepts>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <dualsft/views.hpp>
#include <exception>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

/// Where an algorithm runs: its first argument.
///
///     exec::reference   plain loops that spell the definition out; slow, the oracle of the tests
///     exec::cpu         blocked and vectorised, on `threads` threads (0: all that the machine has)
///     exec::cuda        in execution.cuh, for views in device_space
///
/// One set of algorithms: each is an overload set over the policy. A policy that an algorithm has
/// no back end for is a compile error, and one that says so for what programs call first (topk,
/// dense_scores, sum_gradients, data_scores, dual_scores, train, dual_sft); nothing falls back to a
/// slower path silently.
///
/// Determinism: work is cut into parts that depend on sizes and the thread count alone, and partial
/// sums are added in the order of the parts, so equal inputs and an equal thread count give equal
/// bits. Where a result does not depend on the thread count either, the function says so.
///
/// Writing a back end of your own: declare a policy struct with `using memory_space = ...;` and
/// overload the algorithms that you specialise on it.
namespace dualsft {

namespace exec {

struct reference {
  using memory_space = host_space;
};

struct cpu {
  using memory_space = host_space;
  /// Number of threads; 0 takes what the machine reports.
  int threads = 0;
};

}  // namespace exec

template <class P>
concept ExecutionPolicy = MemorySpace<typename P::memory_space>;

/// The policies for which the host algorithms of this library exist.
template <class P>
concept HostPolicy = std::same_as<P, exec::reference> || std::same_as<P, exec::cpu>;

namespace detail {

/// For the static_assert of a generic overload: false, but only once instantiated.
template <class...>
inline constexpr bool unsupported = false;

inline int thread_count(const exec::reference&) {
  return 1;
}

inline int thread_count(const exec::cpu& policy) {
  expects(policy.threads >= 0, "exec::cpu", "threads must not be negative", "threads",
          policy.threads);
  if (policy.threads > 0) return policy.threads;
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

/// Part `part` of [0, n) cut into `parts` runs whose lengths differ by at most one `grain`.
struct index_range {
  index_t begin = 0;
  index_t end = 0;
  index_t size() const { return end - begin; }
};

inline index_range split_range(index_t n, index_t parts, index_t part, index_t grain = 1) {
  const index_t grains = (n + grain - 1) / grain;
  const index_t base = grains / parts;
  const index_t extra = grains % parts;
  const index_t first = part * base + std::min(part, extra);
  const index_t last = first + base + (part < extra ? 1 : 0);
  return {std::min(first * grain, n), std::min(last * grain, n)};
}

/// Calls body(part) for every part in [0, parts), each on its own thread (the last one on the
/// caller's). If several throw, the exception of the lowest part leaves.
/// \throws std::system_error  naming the number of threads, if the system refuses one; those that
///                            run already end first
template <class Body>
void parallel_parts(int parts, Body&& body) {
  if (parts <= 1) {
    if (parts == 1) body(0);
    return;
  }
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(parts));
  const auto guarded = [&](int part) {
    try {
      body(part);
    } catch (...) {
      failures[static_cast<std::size_t>(part)] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    threads.reserve(static_cast<std::size_t>(parts - 1));
    try {
      for (int part = 0; part + 1 < parts; ++part) threads.emplace_back(guarded, part);
    } catch (const std::system_error& error) {
      throw std::system_error(error.code(), "cannot start " + std::to_string(parts) + " threads");
    }
    guarded(parts - 1);
  }
  for (const auto& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

/// Splits [0, n) over the policy's threads and calls body(part, range). At most one part per
/// `grain` elements, so that small work stays on the caller's thread.
template <HostPolicy Policy, class Body>
void parallel_ranges(const Policy& policy, index_t n, index_t grain, Body&& body) {
  const index_t most = std::max<index_t>(1, (n + grain - 1) / grain);
  const int parts = static_cast<int>(std::min<index_t>(thread_count(policy), most));
  parallel_parts(parts, [&](int part) { body(part, split_range(n, parts, part, grain)); });
}

}  // namespace detail
}  // namespace dualsft
