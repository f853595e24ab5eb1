// The instructions behind detail/tensor_core*.cuh: where each lane's values lie, against plain loops over
// matrices of small whole numbers, whose products are exact. On the played device the twins are tested.
#include <doctest/doctest.h>

#include <dualsft/detail/launch.cuh>
#include <dualsft/detail/tensor_core_sm90.cuh>
#include <limits>

#include "device_values.cuh"

using namespace dualsft;
using detail::device_array;
using testing::own_stream;

namespace {

/// n whole numbers in [-3, 3].
template <class T>
std::vector<T> whole_numbers(index_t n, std::uint64_t seed) {
  random_source random(seed);
  std::vector<T> out(static_cast<std::size_t>(n));
  for (T& x : out) x = convert_float<T>(static_cast<float>(static_cast<int>(random.below(7)) - 3));
  return out;
}

/// c[16, 8] = A[16, 16] B, with B stored [8, 16] (k-contiguous) or [16, 8].
template <class T, bool Stored_by_k>
__global__ void one_product(const T* a, const T* b, float* c) {
  __shared__ __align__(16) T of_a[16][16];
  __shared__ __align__(16) T of_b[16 * 8];
  const int lane = static_cast<int>(threadIdx.x);
  detail::cp_async_16(&of_a[lane / 2][lane % 2 * 8], a + lane * 8, true);
  if (lane < 16) detail::cp_async_16(of_b + lane * 8, b + lane * 8, true);
  detail::cp_async_commit();
  detail::cp_async_wait<0>();
  __syncthreads();
  std::uint32_t r[4], q[4];
  detail::ldmatrix_x4(r, &of_a[lane % 16][lane / 16 * 8]);
  if constexpr (Stored_by_k)
    detail::ldmatrix_x4(q, of_b + lane % 8 * 16 + lane / 8 % 2 * 8);
  else
    detail::ldmatrix_x4_transposed(q, of_b + lane % 16 * 8);
  float sums[4] = {};
  detail::mma_m16n8k16<T>(sums, r, q[0], q[1]);
  for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}

template <class T, bool Stored_by_k>
void check_one_product() {
  const own_stream stream;
  const auto a = whole_numbers<T>(256, 1), b = whole_numbers<T>(128, 2);
  const device_array<T> on_a(stream.policy(), std::span(a)), on_b(stream.policy(), std::span(b));
  const device_array<float> c(stream.policy(), 128);
  detail::launch("one_product", stream.policy(), {dim3(1), dim3(32)}, one_product<T, Stored_by_k>,
                 on_a.data(), on_b.data(), c.data());
  const std::vector<float> got = c.to_host();
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t j = 0; j < 8; ++j) {
      float want = 0;
      for (std::size_t k = 0; k < 16; ++k)
        want += convert_float<float>(a[i * 16 + k]) *
                convert_float<float>(b[Stored_by_k ? j * 16 + k : k * 8 + j]);
      CHECK(got[i * 8 + j] == want);
    }
}

/// Copies of 0 to 16 bytes, two groups; pairs packed and unpacked.
template <class T>
__global__ void short_copies(const T* from, T* to, std::uint32_t* pairs, float* halves,
                             const float* x) {
  __shared__ __align__(16) T space[2][32 * 8];
  const int thread = static_cast<int>(threadIdx.x);
  for (int g = 0; g < 2; ++g) {
    if (thread + g == 17)
      detail::cp_async_16(&space[g][thread * 8], from, false);
    else
      detail::cp_async_16(&space[g][thread * 8], from + thread * 8, (thread + g) % 17);
    detail::cp_async_commit();
  }
  detail::cp_async_wait<1>();
  __syncwarp();
  for (int i = 0; i < 8; ++i) to[thread * 8 + i] = space[0][thread * 8 + i];
  detail::cp_async_wait<0>();
  __syncwarp();
  for (int i = 0; i < 8; ++i) to[256 + thread * 8 + i] = space[1][thread * 8 + i];
  pairs[thread] = detail::pack_pair<T>(x[2 * thread], x[2 * thread + 1]);
  detail::unpack_pair<T>(pairs[thread], halves[2 * thread], halves[2 * thread + 1]);
}

template <class T>
void check_short_copies() {
  const own_stream stream;
  const auto from = testing::numbers<T>(256, testing::spread::normal, 3);
  auto x = testing::numbers<float>(64, testing::spread::heavy_tailed, 4);
  x[5] = std::numeric_limits<float>::infinity();
  x[6] = std::numeric_limits<float>::quiet_NaN();
  x[7] = -0.0f;
  const device_array<T> on(stream.policy(), std::span(std::as_const(from)));
  const device_array<float> xs(stream.policy(), std::span(std::as_const(x)));
  const device_array<T> to(stream.policy(), 512);
  const device_array<std::uint32_t> pairs(stream.policy(), 32);
  const device_array<float> halves(stream.policy(), 64);
  detail::launch("short_copies", stream.policy(), {dim3(1), dim3(32)}, short_copies<T>, on.data(),
                 to.data(), pairs.data(), halves.data(), xs.data());
  const auto copied = to.to_host();
  for (int g = 0; g < 2; ++g)
    for (int thread = 0; thread < 32; ++thread)
      for (int byte = 0; byte < 16; ++byte) {
        const auto i = static_cast<std::size_t>(thread * 8 + byte / 2);
        const int shift = byte % 2 * 8;
        const int want = byte < (thread + g) % 17 ? from[i].bits >> shift & 0xff : 0;
        CHECK((copied[256 * static_cast<std::size_t>(g) + i].bits >> shift & 0xff) == want);
      }
  const auto packed = pairs.to_host();
  const auto unpacked = halves.to_host();
  for (std::size_t i = 0; i < 64; ++i) {
    const T want = convert_float<T>(x[i]);
    const T got{static_cast<std::uint16_t>(packed[i / 2] >> (i % 2 * 16))};
    CHECK(testing::bits_of(got) == testing::bits_of(want));
    CHECK(testing::bits_of(unpacked[i]) == testing::bits_of(to_float(want)));
  }
}

/// One box of 64 x 64 of A and one of 256 x 64 of B, loaded twice from different columns: two phases of
/// one barrier, sums over both.
template <class T>
__global__ void __launch_bounds__(128)
    boxed_product(const __grid_constant__ detail::tensor_map a,
                  const __grid_constant__ detail::tensor_map b, float* c) {
#if defined(DUALSFT_HAS_WGMMA)
  unsigned char* const shared = detail::cluster_shared();
  auto* const full = reinterpret_cast<detail::phase_barrier*>(shared + 40 * 1024);
  if (threadIdx.x == 0) {
    detail::barrier_init(full, 1);
    detail::barrier_init_fence();
  }
  __syncthreads();
  float sums[128];
  for (float& sum : sums) sum = 5;  // the first product overwrites it
  for (unsigned turn = 0; turn < 2; ++turn) {
    if (threadIdx.x == 0) {
      detail::barrier_arrive_expecting(full, 40 * 1024);
      detail::load_box(shared, a, -1, 64 * static_cast<int>(turn), full);
      detail::load_box(shared + 8 * 1024, b, 0, 64 * static_cast<int>(turn), full);
    }
    detail::barrier_wait(full, turn);
    detail::wgmma_pin(sums);
    detail::wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k)
      detail::wgmma<T>(sums, detail::box_descriptor(shared) + 2 * k,
                       detail::box_descriptor(shared + 8 * 1024) + 2 * k, turn > 0 || k > 0);
    detail::wgmma_commit();
    detail::wgmma_wait<0>();
    detail::wgmma_pin(sums);
    __syncthreads();
  }
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int j = 0; j < 32; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      c[(thread / 32 * 16 + thread % 32 / 4 + i / 2 * 8) * 256 + 8 * j + thread % 4 * 2 + i % 2] =
          sums[4 * j + i];
#endif
}

/// Rows -1 to 62 of A [60, 100] times rows 0 to 255 of B [250, 100]: zeros beyond both.
template <class T>
void check_boxed_product() {
  const own_stream stream;
  if (!detail::has_wgmma("test")) return;
  constexpr index_t rows = 60, cols = 250, depth = 100, stride = 104;
  const auto a = whole_numbers<T>(rows * stride, 5), b = whole_numbers<T>(cols * stride, 6);
  const device_array<T> on_a(stream.policy(), std::span(a)), on_b(stream.policy(), std::span(b));
  const device_array<float> c(stream.policy(), 64 * 256);
  detail::launch("boxed_product", stream.policy(), {dim3(1), dim3(128), 41 * 1024},
                 boxed_product<T>,
                 detail::make_tensor_map("test", on_a.data(), rows, depth, stride, 64),
                 detail::make_tensor_map("test", on_b.data(), cols, depth, stride, 256), c.data());
  const std::vector<float> got = c.to_host();
  index_t differ = 0;
  for (index_t i = 0; i < 64; ++i)
    for (index_t j = 0; j < 256; ++j) {
      float want = 0;
      for (index_t k = 0; k < depth && 0 < i && i <= rows && j < cols; ++k)
        want += convert_float<float>(a[static_cast<std::size_t>((i - 1) * stride + k)]) *
                convert_float<float>(b[static_cast<std::size_t>(j * stride + k)]);
      differ += got[static_cast<std::size_t>(i * 256 + j)] != want ? 1 : 0;
    }
  CHECK(differ == 0);
}

/// A in registers: z = A B^T of B [64, 16] as a box, then c += z' V of V [16, 128] as two boxes, with
/// A [64, 16], all of 16-bit values.
template <class T>
__global__ void __launch_bounds__(128)
    register_products(const __grid_constant__ detail::tensor_map b,
                      const __grid_constant__ detail::tensor_map v, const T* a, float* z,
                      float* c) {
#if defined(DUALSFT_HAS_WGMMA)
  unsigned char* const shared = detail::cluster_shared();
  auto* const full = reinterpret_cast<detail::phase_barrier*>(shared + 24 * 1024);
  if (threadIdx.x == 0) {
    detail::barrier_init(full, 1);
    detail::barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    detail::barrier_arrive_expecting(full, 24 * 1024);
    detail::load_box(shared, b, 0, 0, full);
    for (int box = 0; box < 2; ++box)
      detail::load_box(shared + (1 + box) * 8 * 1024, v, 0, 64 * box, full);
  }
  detail::barrier_wait(full, 0);
  const int thread = static_cast<int>(threadIdx.x), t = thread % 4;
  const int row = thread / 32 * 16 + thread % 32 / 4;
  std::uint32_t own[4];
  for (int i = 0; i < 4; ++i) {
    const T* const pair = a + (row + i % 2 * 8) * 16 + i / 2 * 8 + 2 * t;
    own[i] = pair[0].bits | static_cast<std::uint32_t>(pair[1].bits) << 16;
  }
  float of_box[32], sums[64];
  for (float& sum : of_box) sum = 5;
  for (float& sum : sums) sum = 1;
  detail::wgmma_pin(own);
  detail::wgmma_pin(of_box);
  detail::wgmma_pin(sums);
  detail::wgmma_fence();
  detail::wgmma<T, 0>(of_box, own, detail::box_descriptor(shared), 0);
  detail::wgmma<T, 1>(sums, own, detail::transposed_descriptor(shared + 8 * 1024, 8 * 1024) + 128,
                      1);
  detail::wgmma_commit();
  detail::wgmma_wait<0>();
  detail::wgmma_pin(own);
  detail::wgmma_pin(of_box);
  detail::wgmma_pin(sums);
#pragma unroll
  for (int j = 0; j < 16; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = row + i / 2 * 8, column = 8 * j + 2 * t + i % 2;
      if (j < 8) z[at * 64 + column] = of_box[4 * (j % 8) + i];
      c[at * 128 + column] = sums[4 * j + i];
    }
#endif
}

/// V's rows 16 to 31 are used: a descriptor 128 further on.
template <class T>
void check_register_products() {
  const own_stream stream;
  if (!detail::has_wgmma("test")) return;
  const auto a = whole_numbers<T>(64 * 16, 5), b = whole_numbers<T>(64 * 64, 6);
  const auto v = whole_numbers<T>(64 * 128, 7);
  const device_array<T> on_a(stream.policy(), std::span(a)), on_b(stream.policy(), std::span(b));
  const device_array<T> on_v(stream.policy(), std::span(v));
  const device_array<float> z(stream.policy(), 64 * 64), c(stream.policy(), 64 * 128);
  detail::launch("register_products", stream.policy(), {dim3(1), dim3(128), 25 * 1024},
                 register_products<T>, detail::make_tensor_map("test", on_b.data(), 64, 64, 64, 64),
                 detail::make_tensor_map("test", on_v.data(), 64, 128, 128, 64), on_a.data(),
                 z.data(), c.data());
  const std::vector<float> got_z = z.to_host(), got_c = c.to_host();
  const auto value = [](const std::vector<T>& m, index_t i, index_t j, index_t cols) {
    return convert_float<float>(m[static_cast<std::size_t>(i * cols + j)]);
  };
  index_t differ = 0;
  for (index_t i = 0; i < 64; ++i)
    for (index_t j = 0; j < 128; ++j) {
      float want_z = 0, want_c = 1;
      for (index_t k = 0; k < 16; ++k) {
        if (j < 64) want_z += value(a, i, k, 16) * value(b, j, k, 64);
        want_c += value(a, i, k, 16) * value(v, 16 + k, j, 128);
      }
      if (j < 64) differ += got_z[static_cast<std::size_t>(i * 64 + j)] != want_z ? 1 : 0;
      differ += got_c[static_cast<std::size_t>(i * 128 + j)] != want_c ? 1 : 0;
    }
  CHECK(differ == 0);
}

}  // namespace

TEST_CASE("tensor cores: a warp's product, B stored either way") {
  check_one_product<bfloat16, true>();
  check_one_product<bfloat16, false>();
  check_one_product<float16, true>();
  check_one_product<float16, false>();
}

TEST_CASE("tensor cores: copies of up to 16 bytes, pairs") {
  check_short_copies<bfloat16>();
  check_short_copies<float16>();
}

TEST_CASE("tensor cores: boxes and products of four warps") {
  check_boxed_product<bfloat16>();
  check_boxed_product<float16>();
}

TEST_CASE("tensor cores: products of four warps with A in registers, B stored either way") {
  check_register_products<bfloat16>();
  check_register_products<float16>();
}
