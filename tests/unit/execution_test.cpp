// Proves: ranges are cut without gaps, exceptions arrive from threads, and a machine that gives no
// more threads says how many were wanted. Against: counting; a default stack larger than memory.
#include <doctest/doctest.h>
#include <pthread.h>

#include <atomic>
#include <dualsft/execution.hpp>
#include <stdexcept>
#include <system_error>

using namespace dualsft;

namespace {

/// While it lives, the system refuses every new thread: no address space holds its stack.
class no_more_threads {
 public:
  no_more_threads() {
    pthread_attr_init(&before_);
    pthread_getattr_default_np(&before_);
    pthread_attr_t impossible;
    pthread_attr_init(&impossible);
    pthread_attr_setstacksize(&impossible, std::size_t{1} << 48);
    pthread_setattr_default_np(&impossible);
    pthread_attr_destroy(&impossible);
  }
  ~no_more_threads() {
    pthread_setattr_default_np(&before_);
    pthread_attr_destroy(&before_);
  }
  no_more_threads(const no_more_threads&) = delete;
  no_more_threads& operator=(const no_more_threads&) = delete;

 private:
  pthread_attr_t before_;
};

}  // namespace

TEST_CASE("ranges cover every number below n once") {
  for (const index_t n : {0, 1, 2, 31, 32, 33, 1000})
    for (const index_t parts : {1, 2, 3, 7})
      for (const index_t grain : {1, 16}) {
        index_t next = 0;
        for (index_t part = 0; part < parts; ++part) {
          const detail::index_range range = detail::split_range(n, parts, part, grain);
          CHECK(range.begin == next);
          next = range.end;
        }
        CHECK(next == n);
      }
}

TEST_CASE("the exception of the lowest part leaves, after all have ended") {
  std::atomic<int> ended{0};
  const auto body = [&](int part) {
    ++ended;
    if (part > 0) throw std::runtime_error("part " + std::to_string(part));
  };
  CHECK_THROWS_WITH_AS(detail::parallel_parts(4, body), "part 1", std::runtime_error);
  CHECK(ended == 4);
}

TEST_CASE("threads that cannot be started are counted in the message") {
  const no_more_threads limit;
  int calls = 0;
  CHECK_NOTHROW(detail::parallel_parts(1, [&](int) { ++calls; }));
  CHECK_THROWS_WITH_AS(detail::parallel_parts(3, [&](int) { ++calls; }),
                       doctest::Contains("cannot start 3 threads: "), std::system_error);
  CHECK(calls == 1);
}
