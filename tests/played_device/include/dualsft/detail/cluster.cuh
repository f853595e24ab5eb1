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

/// What the bits of a letter_box mean here. Letters arrive late and in any order, while somebody waits; until
/// then their place holds NaNs.
using letter_box = std::uint64_t;
struct played_letter_box {
  std::int32_t bytes;  // still to come; less than 0 if they came before they were expected
  std::uint16_t pending, phase;
};
struct played_letter {
  double* here;
  letter_box* box;
  std::size_t rank;
  double value;

  static std::vector<played_letter>& under_way() {
    static std::vector<played_letter> all;
    return all;
  }
};
template <class Change>
void change_letter_box(void* box, const Change& how) {
  played_letter_box state;
  std::memcpy(&state, box, sizeof state);
  how(state);
  if (state.pending == 0 && state.bytes == 0) {
    state.phase ^= 1;
    state.pending = 1;
  }
  std::memcpy(box, &state, sizeof state);
  played::block::running().note_progress();
}

inline void letter_box_init(letter_box* box) {
  const played_letter_box fresh{0, 1, 0};
  static_assert(sizeof fresh == sizeof *box);
  std::memcpy(box, &fresh, sizeof fresh);
  played_letter::under_way().clear();  // of a launch that failed
}
inline void expect_letters(letter_box* box, unsigned bytes) {
  change_letter_box(box, [&](played_letter_box& state) {
    if (state.pending == 0) throw std::logic_error("expect_letters: twice in one phase");
    state.bytes += static_cast<std::int32_t>(bytes);
    state.pending = 0;
  });
}
inline void send_letter(double* here, letter_box* box, int rank, double value) {
  const auto to = static_cast<std::size_t>(rank);
  std::memset(played::in_shared_memory_of(to, here), 0xff, sizeof value);
  played_letter::under_way().push_back({here, box, to, value});
}
inline void wait_for_letters(letter_box* box, unsigned parity) {
  static std::uint32_t dice = 1;
  for (;;) {
    played_letter_box state;
    std::memcpy(&state, box, sizeof state);
    if (state.phase != parity) return;
    std::vector<played_letter>& all = played_letter::under_way();
    if (!all.empty()) {
      dice = dice * 1664525u + 1013904223u;
      const std::size_t which = (dice >> 8) % all.size();
      const played_letter one = all[which];
      all.erase(all.begin() + static_cast<std::ptrdiff_t>(which));
      std::memcpy(played::in_shared_memory_of(one.rank, one.here), &one.value, sizeof one.value);
      change_letter_box(played::in_shared_memory_of(one.rank, one.box),
                        [](played_letter_box& to) { to.bytes -= sizeof(double); });
    }
    played::yield();
  }
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
