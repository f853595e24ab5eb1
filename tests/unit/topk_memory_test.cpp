// Proves: topk's memory stays within what its documentation promises.
// Against: the peak of the bytes that this program's operator new has handed out.
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <dualsft/topk.hpp>
#include <new>
#include <span>

// The sanitizers look for errors through the allocator, so it stays theirs.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DUALSFT_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define DUALSFT_SANITIZED
#endif
#endif

using namespace dualsft;

#if defined(DUALSFT_SANITIZED)

TEST_CASE("memory") {
  MESSAGE("skipped: a sanitizer owns the allocator");
}

#else

// ---- every allocation of this program is counted ----------------------------------------------

namespace {

std::atomic<std::int64_t> live_bytes = 0;
std::atomic<std::int64_t> peak_bytes = 0;
constexpr std::size_t header = 128;  // keeps every alignment asked for here

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
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return counted(size);
}
void operator delete(void* p, const std::nothrow_t&) noexcept {
  uncount(p);
}
void* operator new[](std::size_t size) {
  return counted(size);
}
void* operator new(std::size_t size, std::align_val_t) {
  return counted(size);
}
void* operator new[](std::size_t size, std::align_val_t) {
  return counted(size);
}
void operator delete(void* p) noexcept {
  uncount(p);
}
void operator delete[](void* p) noexcept {
  uncount(p);
}
void operator delete(void* p, std::size_t) noexcept {
  uncount(p);
}
void operator delete[](void* p, std::size_t) noexcept {
  uncount(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
  uncount(p);
}
void operator delete[](void* p, std::align_val_t) noexcept {
  uncount(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  uncount(p);
}
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept {
  uncount(p);
}
TEST_CASE("memory: at most 16 bytes per selected beyond a fixed amount, never O(n)") {
  struct hashed {  // no array behind it
    index_t size() const { return n; }
    void fill(index_t offset, std::span<double> out) const {
      for (std::size_t i = 0; i < out.size(); ++i) {
        std::uint64_t x = (static_cast<std::uint64_t>(offset) + i) * 0x9e3779b97f4a7c15U;
        x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9U;
        const double u = static_cast<double>(x >> 11) * 0x1p-53;
        out[i] = kind == 0   ? u
                 : kind == 1 ? std::floor(u * 3)
                 : kind == 2 ? (u < 0.05 ? u : -1)
                             : u;
        // The sample, in runs of 8, makes kind 3 look spread out around the K-th score: far more
        // scores fall into the bracket than the search may keep.
        if (kind == 3 && out.size() == 8) out[i] = u > 0.951 ? 2 : u < 0.949 ? -1 : u;
      }
    }
    index_t n;
    int kind;
  };
  const index_t n = index_t{1} << 23;
  for (const int kind : {0, 1, 2, 3})
    for (const index_t k : {index_t{1}, n / 1000, n / 20, n / 4}) {
      const std::int64_t before = live_bytes;
      peak_bytes = before;
      const auto result = topk(exec::cpu{2}, hashed{n, kind}, {.k = k});
      const std::int64_t used = peak_bytes - before;
      CAPTURE(kind);
      CAPTURE(k);
      CHECK(result.selected.size() == k);
      CHECK(used <= 16 * k + (5 << 20) + 2 * (1 << 20));
    }
}

#endif
