#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <dualsft/detail/launch.cuh>
#include <dualsft/execution.cuh>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

/// The twin of the library's cluster.cuh. Copies arrive as late as they may: when they are waited for.
namespace dualsft::detail {

inline int cluster_rank() {
  return static_cast<int>(played::block::running().rank());
}
inline void cluster_arrive() {
  played::block::running().cluster_arrive();
}
inline void cluster_wait() {
  played::block::running().cluster_wait();
}
inline void store_to_rank(double* here, int rank, double value) {
  std::memcpy(played::in_shared_memory_of(static_cast<std::size_t>(rank), here), &value,
              sizeof(value));
}

struct played_copy {
  void* to;
  const void* from;
  int valid, bytes;
};
/// Of one thread: the group that is open, and those that are under way.
struct played_copies {
  std::vector<played_copy> open;
  std::deque<std::vector<played_copy>> groups;

  static played_copies& mine() {
    static std::map<std::pair<std::size_t, std::size_t>, played_copies> all;
    const played::block& block = played::block::running();
    return all[{block.rank(), block.number()}];
  }
};

template <int Bytes>
void async_copy(void* shared, const void* global, int valid) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  const auto misplaced = [](const void* at) {
    return reinterpret_cast<std::uintptr_t>(at) % Bytes != 0;
  };
  if (misplaced(shared) || misplaced(global) || valid < 0 || valid > Bytes)
    throw std::logic_error("async_copy: an address is not aligned, or too much is asked for");
  std::memset(shared, 0xff, Bytes);  // nobody may count on what was there
  played_copies::mine().open.push_back({shared, global, valid, Bytes});
}
inline void async_copy_commit() {
  played_copies& mine = played_copies::mine();
  mine.groups.push_back(std::exchange(mine.open, {}));
}
template <int Newest>
void async_copy_wait() {
  static_assert(Newest >= 0);
  played_copies& mine = played_copies::mine();
  for (; mine.groups.size() > static_cast<std::size_t>(Newest); mine.groups.pop_front())
    for (const played_copy& each : mine.groups.front()) {
      std::memcpy(each.to, each.from, static_cast<std::size_t>(each.valid));
      std::memset(static_cast<char*>(each.to) + each.valid, 0,
                  static_cast<std::size_t>(each.bytes - each.valid));
    }
}

template <class... Parameters>
int resident_clusters(const char*, void (*)(Parameters...), const launch_shape&) {
  return 3;  // few, so that in small tests each has several turns
}

}  // namespace dualsft::detail
