// Measures: Top-K 5 % of parameter scores computed on the fly from float arrays G, v and D.
// Against: std::nth_element over (score, index) pairs, one thread (as the standard has it), and the
// machine's read bandwidth (a plain parallel sum of the same arrays); all interleaved in one run.
//
//   topk_bench --benchmark_out=topk.json --benchmark_out_format=json
//
// Counters, from medians of the repetitions:
//   ratio            (forming the pairs + nth_element) / topk
//   ratio_select     nth_element alone / topk, which still computes its scores itself
//   bandwidth_share  time to read G, v and D once / topk
//   fill_share       time to compute every score and drop it, same threads / topk
//   bytes_per_k      peak bytes that topk held, its result included, / K   (target: <= 16)
// DUALSFT_BENCH_LOG2_D (default 26) shrinks it for a smoke run; DUALSFT_BENCH_THREADS (default: all).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <dualsft/random.hpp>
#include <dualsft/topk.hpp>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

// ---- the peak of what operator new has handed out ---------------------------------------------

namespace {
std::atomic<std::int64_t> live_bytes = 0;
std::atomic<std::int64_t> peak_bytes = 0;
constexpr std::size_t header = 128;

void* counted(std::size_t size) {
  void* block = std::aligned_alloc(header, (size + 2 * header - 1) / header * header);
  if (block == nullptr) throw std::bad_alloc();
  *static_cast<std::size_t*>(block) = size;
  const std::int64_t now = live_bytes += static_cast<std::int64_t>(size);
  std::int64_t peak = peak_bytes;
  while (now > peak && !peak_bytes.compare_exchange_weak(peak, now)) {
  }
  return static_cast<char*>(block) + header;
}

void uncount(void* pointer) noexcept {
  if (pointer == nullptr) return;
  void* block = static_cast<char*>(pointer) - header;
  live_bytes -= static_cast<std::int64_t>(*static_cast<std::size_t*>(block));
  std::free(block);
}
}  // namespace

void* operator new(std::size_t size) {
  return counted(size);
}
void* operator new(std::size_t size, std::align_val_t) {
  return counted(size);
}
void* operator new[](std::size_t size) {
  return counted(size);
}
void operator delete(void* p) noexcept {
  uncount(p);
}
void operator delete(void* p, std::size_t) noexcept {
  uncount(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
  uncount(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  uncount(p);
}
void operator delete[](void* p) noexcept {
  uncount(p);
}
void operator delete[](void* p, std::size_t) noexcept {
  uncount(p);
}

namespace {

using namespace dualsft;

long environment(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::stol(text);
}

enum class input { dense, sparse, all_equal, ascending };

const char* name_of(input kind) {
  constexpr const char* names[] = {"heavy_tailed", "95%_zero", "all_equal", "ascending"};
  return names[static_cast<int>(kind)];
}

/// Diagonal-order parameter scores, plain step: eta G_j (v_j - (eta/2) D_j G_j).
class parameter_scores {
 public:
  parameter_scores(index_t d, input kind) : g_(count(d)), v_(count(d)), diagonal_(count(d)) {
    detail::parallel_ranges(exec::cpu{}, d, index_t{1} << 16, [&](int, detail::index_range r) {
      for (index_t j = r.begin; j < r.end; ++j) {
        random_source random(1, static_cast<std::uint64_t>(j));
        const double z = random.uniform() - 0.5;  // its cube: a cheap heavy tail
        const auto at = static_cast<std::size_t>(j);
        v_[at] = static_cast<float>(random.uniform() - 0.5);
        g_[at] = static_cast<float>(z * z * z);
        diagonal_[at] = static_cast<float>(1e-3 * random.uniform());
        if (kind == input::sparse && random.uniform() < 0.95) g_[at] = 0;
        if (kind == input::all_equal) g_[at] = v_[at] = diagonal_[at] = 0.5F;
        if (kind == input::ascending) {
          g_[at] = 1;
          v_[at] = static_cast<float>(static_cast<double>(j) / static_cast<double>(d));
          diagonal_[at] = 0;
        }
      }
    });
  }

  index_t size() const { return static_cast<index_t>(g_.size()); }

  void fill(index_t offset, std::span<double> out) const {
    const float* g = g_.data() + offset;
    const float* v = v_.data() + offset;
    const float* diagonal = diagonal_.data() + offset;
    double* to = out.data();
    const std::size_t n = out.size();
    for (std::size_t i = 0; i < n; ++i) {
      const double gradient = g[i];
      to[i] = eta * gradient * (double{v[i]} - 0.5 * eta * double{diagonal[i]} * gradient);
    }
  }

  /// A plain sum over everything that fill reads.
  double read_all(const exec::cpu& policy) const {
    std::vector<double> sums(static_cast<std::size_t>(detail::thread_count(policy)));
    detail::parallel_ranges(policy, size(), index_t{1} << 16, [&](int p, detail::index_range r) {
      constexpr index_t lanes = 64;
      std::array<float, lanes> sum{};
      for (const auto* array : {&g_, &v_, &diagonal_}) {
        const float* x = array->data();
        for (index_t i = r.begin; i + lanes <= r.end; i += lanes)
          for (index_t lane = 0; lane < lanes; ++lane)
            sum[static_cast<std::size_t>(lane)] += x[i + lane];
      }
      for (const float s : sum) sums[static_cast<std::size_t>(p)] += static_cast<double>(s);
    });
    double all = 0;
    for (const double s : sums) all += s;
    return all;
  }

 private:
  static constexpr double eta = 2e-2;
  static std::size_t count(index_t d) { return static_cast<std::size_t>(d); }
  std::vector<float> g_, v_, diagonal_;
};

using pair = std::pair<double, index_t>;

void form_pairs(const parameter_scores& scores, std::vector<pair>& pairs) {
  std::array<double, 4096> tile;
  for (index_t begin = 0; begin < scores.size(); begin += 4096) {
    const auto n = static_cast<std::size_t>(std::min<index_t>(4096, scores.size() - begin));
    scores.fill(begin, std::span(tile).first(n));
    for (std::size_t i = 0; i < n; ++i)
      pairs[static_cast<std::size_t>(begin) + i] = {tile[i], begin + static_cast<index_t>(i)};
  }
}

template <class Body>
double seconds(Body&& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void parameter_topk(benchmark::State& state, input kind) {
  const index_t d = index_t{1} << environment("DUALSFT_BENCH_LOG2_D", 26);
  const index_t k = d / 20;
  const exec::cpu policy{static_cast<int>(environment("DUALSFT_BENCH_THREADS", 0))};
  const parameter_scores scores(d, kind);
  std::vector<pair> pairs(static_cast<std::size_t>(d));
  const auto better = [](const pair& a, const pair& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  };
  const auto boundary = pairs.begin() + (k - 1);

  // Check before timing: the same members, the same boundary.
  topk_result found = topk(policy, scores, {.k = k});
  form_pairs(scores, pairs);
  std::nth_element(pairs.begin(), boundary, pairs.end(), better);
  bool right = found.selected.size() == k && found.kth == boundary->first &&
               found.next == std::min_element(boundary + 1, pairs.end(), better)->first;
  std::vector<index_t> members;
  for (auto p = pairs.begin(); p <= boundary; ++p) members.push_back(p->second);
  std::sort(members.begin(), members.end());
  right = right && std::ranges::equal(members, found.selected.indices());
  members = {};
  if (!right) {
    state.SkipWithError("topk and nth_element disagree");
    return;
  }

  found = {};
  const std::int64_t before = live_bytes;
  peak_bytes = before;
  found = topk(policy, scores, {.k = k});
  const double bytes = static_cast<double>(peak_bytes - before);

  std::vector<double> topk_times, form_times, select_times, read_times, fill_times;
  for (auto _ : state) {
    found = {};
    topk_times.push_back(seconds([&] { found = topk(policy, scores, {.k = k}); }));
    state.SetIterationTime(topk_times.back());
    form_times.push_back(seconds([&] { form_pairs(scores, pairs); }));
    select_times.push_back(
        seconds([&] { std::nth_element(pairs.begin(), boundary, pairs.end(), better); }));
    read_times.push_back(seconds([&] { benchmark::DoNotOptimize(scores.read_all(policy)); }));
    fill_times.push_back(seconds([&] {
      detail::parallel_ranges(policy, d, 4096, [&](int, detail::index_range r) {
        std::array<double, 4096> tile;
        for (index_t begin = r.begin; begin < r.end; begin += 4096) {
          scores.fill(begin, std::span(tile).first(
                                 static_cast<std::size_t>(std::min<index_t>(4096, r.end - begin))));
          benchmark::DoNotOptimize(tile.data());
          benchmark::ClobberMemory();
        }
      });
    }));
  }
  const double time = median(topk_times);
  state.counters["ratio"] = (median(form_times) + median(select_times)) / time;
  state.counters["ratio_select"] = median(select_times) / time;
  state.counters["bandwidth_share"] = median(read_times) / time;
  state.counters["fill_share"] = median(fill_times) / time;
  state.counters["bytes_per_k"] = bytes / static_cast<double>(k);
  state.counters["read_GB_per_s"] = 12e-9 * static_cast<double>(d) / median(read_times);
  state.SetItemsProcessed(state.iterations() * d);
}

const int registered = [] {
  for (const input kind : {input::dense, input::sparse, input::all_equal, input::ascending})
    benchmark::RegisterBenchmark((std::string("topk/cpu/f32/") + name_of(kind)).c_str(),
                                 [kind](benchmark::State& state) { parameter_topk(state, kind); })
        ->UseManualTime()
        ->Iterations(7)
        ->Unit(benchmark::kMillisecond);
  return 0;
}();

}  // namespace
