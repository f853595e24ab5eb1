// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <barrier>
#include <dualsft/detail/dense_tiles.hpp>
#include <memory>
#include <thread>
#include <vector>

namespace dualsft::detail::cpu {

/// How the threads divide a matrix whose factors a follow from whole columns.
///
/// Tiles want to be wide, because the rows of a narrow one are read in pieces too short for the
/// memory system, and to fit the second-level cache. So threads form teams: a team takes a range of
/// columns and each member some of the rows, which makes its tiles as much wider. Members meet once
/// per tile to add up their column sums.
struct exchange_plan {
  int teams = 1;
  int members = 1;  ///< of each team

  template <class T>
  static constexpr index_t elements(index_t bytes) {
    return bytes / static_cast<index_t>(sizeof(T));
  }

  /// Columns of a tile of `rows` rows.
  template <class T>
  static index_t width(index_t rows) {
    constexpr index_t cache_bytes = index_t{5} << 18;
    const index_t fitting = elements<T>(cache_bytes) / std::max<index_t>(1, rows);
    return std::clamp(fitting / tile_grain * tile_grain, elements<T>(256), elements<T>(4096));
  }

  template <class T>
  static exchange_plan of(index_t rows, index_t columns, int threads) {
    constexpr index_t least_columns = 256;  // of a team
    constexpr index_t least_rows = 64;      // of a member
    const auto useful = static_cast<int>(std::min<index_t>(threads, 1 + rows / least_rows));
    int members = 1;
    while (members < useful && width<T>((rows + members - 1) / members) < elements<T>(4096))
      ++members;
    const auto most =
        static_cast<int>(std::min<index_t>(threads, std::max<index_t>(1, columns / least_columns)));
    const int teams = std::clamp(threads / members, 1, most);
    return {teams, std::clamp(threads / teams, 1, useful)};
  }
};

/// What the members of a team share.
template <class T>
struct exchange_team {
  index_range columns;
  index_t tiles = 0;
  index_t widest = 0;
  std::barrier<> meeting;
  // Sums and squares of each member, twice: while one tile's are read the next tile's are written.
  std::vector<line_vector<double>> sums;
  std::vector<line_vector<T>> kept;
  std::vector<tile_vectors> factors;

  exchange_team(index_range range, index_t rows, int members) : columns(range), meeting(members) {
    const index_t most_rows = split_range(rows, members, 0, row_group).size();
    const index_t width = exchange_plan::width<T>(most_rows);
    tiles = (columns.size() + width - 1) / width;
    // Widths never grow from tile to tile.
    widest = split_range(columns.size(), std::max<index_t>(1, tiles), 0, tile_grain).size();
    for (int m = 0; m < members; ++m) {
      sums.emplace_back(static_cast<std::size_t>(4 * widest));
      kept.emplace_back(
          static_cast<std::size_t>(split_range(rows, members, m, row_group).size() * widest));
      factors.emplace_back(widest);
    }
  }

  double* sums_of(int member, index_t tile) {
    return sums[static_cast<std::size_t>(member)].data() + (tile % 2) * 2 * widest;
  }
};

/// Rows are contiguous and a follows from the sums. The tile that was summed last lies in a buffer
/// that fits the second-level cache; while the next tile streams in from memory to be summed, it
/// takes the buffer's place element by element as the old one is multiplied. So loads from memory
/// never pause, and a row stride that is a power of two, which would map a tile of the matrix
/// itself to a few cache sets, does no harm.
///
/// \param x       the member's rows of the whole matrix
/// \param finish  as in dense_tiles.hpp; the first member calls it, the others `factors`, which
///                fills a and b alone
template <bool Quadratic, class T, class Finish, class Factors>
void walk_exchanging(matrix_view<const T> x, exchange_team<T>& team, int member, Finish& finish,
                     Factors& factors, double* rows) {
  const index_t widest = team.widest;
  T* const kept = team.kept[static_cast<std::size_t>(member)].data();
  tile_vectors& v = team.factors[static_cast<std::size_t>(member)];
  const auto multiply = [&](index_t first, index_t count) {
    sweep_tile<sweep::multiply, Quadratic, T>(kept + first, widest, x.rows(), count, kept, 0,
                                              v.a.data() + first, v.b.data() + first, nullptr,
                                              nullptr, rows, nullptr);
  };
  index_t previous = 0;
  for (index_t t = 0; t < team.tiles; ++t) {
    const index_range tile = split_range(team.columns.size(), team.tiles, t, tile_grain);
    const index_t first = team.columns.begin + tile.begin;
    const T* from = x.data() + first;
    double* const own = team.sums_of(member, t);
    std::fill(own, own + 2 * widest, 0.0);
    // The first of these multiplies zeros by zeros.
    sweep_tile<sweep::exchange, Quadratic, T>(
        from, x.row_stride(), x.rows(), tile.size(), kept, widest, v.a.data(), v.b.data(), own,
        own + widest, rows, t + 1 < team.tiles ? from + tile.size() : nullptr);
    if (tile.size() < previous) multiply(tile.size(), previous - tile.size());
    previous = tile.size();

    team.meeting.arrive_and_wait();
    v.clear_sums();
    for (std::size_t m = 0; m < team.sums.size(); ++m) {
      const double* part = team.sums_of(static_cast<int>(m), t);
      for (std::size_t j = 0; j < static_cast<std::size_t>(tile.size()); ++j) {
        v.g[j] += part[j];
        if constexpr (Quadratic) v.q[j] += part[static_cast<std::size_t>(widest) + j];
      }
    }
    if (member == 0)
      finish(first, tile.size(), v.g.data(), v.q.data(), v.a.data(), v.b.data());
    else
      factors(first, tile.size(), v.g.data(), v.a.data(), v.b.data());
  }
  multiply(0, previous);
}

/// Calls body(part) for each part on a thread of its own, all of them at once: they may wait for
/// each other, so none starts unless all can. `body` must not throw.
template <class Body>
void run_together(int parts, Body&& body) {
  enum : int { waiting, going, cancelled };
  std::atomic<int> state{waiting};
  const auto decide = [&](int what) {
    state = what;
    state.notify_all();
  };
  std::vector<std::jthread> threads;
  threads.reserve(static_cast<std::size_t>(parts));
  try {
    for (int part = 1; part < parts; ++part)
      threads.emplace_back([&, part] {
        state.wait(waiting);
        if (state == going) body(part);
      });
  } catch (...) {
    decide(cancelled);
    throw;
  }
  decide(going);
  body(0);
}

}  // namespace dualsft::detail::cpu
