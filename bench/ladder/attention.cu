// Attention with tangents, from naive to the library: bf16, 24 heads of 128 over 8 of keys, eight sequences
// of 1,024.
//
//   1 naive       a warp per query and head, key after key; products in float
//   2 tensor      64 queries share tiles of 16 keys in shared memory; six products by tensor cores, two
//                 stages of copies (expected: 20 times faster, as step 1 reads every key for every query
//                 and the tensor cores do 15 times the products of the others)
//   3 wide_tiles  tiles of 32 keys: q's operands serve twice as many products, and there are half as many
//                 barriers and looks at the maximum (expected: 15 %)
//   4 more_queries  128 queries: half the copies of keys (expected: 5 %; 13 bytes per clock and
//                 multiprocessor from the second-level cache instead of 26, of which there are some 24).
//                 What the library does before sm_90a
//   5 library     sm_90a: four warps multiply together, 64 queries by tiles of 64 keys that the tensor cores
//                 read from shared memory themselves, and two such groups take turns at them while the
//                 other weighs its scores (expected: 1.5 times faster; mma.sync reaches some 0.6 of the
//                 tensor cores' rate)
//
// and without tangents: 6 one_row_tile, 16 rows to a warp; 7 library, 32 rows, each operand of k and v read
// from shared memory for two products instead of one (expected: 30 %, as shared memory gives 128 bytes a
// clock and a product of 16 x 8 x 16 takes 256 in 1.6); 8 groups, as step 5 with tiles of 128 keys, and not
// in the library before a device has shown it to be faster.
//
// No gain has been measured yet. Each step's rows are compared with a loop in double before it is timed.
#include <string>

#include "../support/attention_case.cuh"

namespace {

using namespace dualsft;
using llm::detail::attention_arguments;
using llm::detail::attention_plan;
using T = bfloat16;

/// A lane has four columns.
__global__ void naive(attention_arguments<T> a, index_t rows) {
  constexpr int each = 4;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const index_t task = static_cast<index_t>(blockIdx.x) * 4 + threadIdx.x / 32;
  const index_t row = task / a.heads, head = task % a.heads;
  if (row >= rows) return;
  index_t start = 0;
  for (index_t s = 0; s < a.sequences && a.starts[s] <= row; ++s) start = a.starts[s];
  const auto at = [&](const auto& m, index_t i, index_t of, int n) {
    return to_float(m.row(i)[of * a.head_size + lane + 32 * n]);
  };
  const auto sum_of = [](float x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffU, x, step);
    return x;
  };
  float o[each] = {}, u[each] = {}, top = -INFINITY, l = 0, w = 0;
  const index_t of = head / a.group;
  for (index_t j = start; j <= row; ++j) {
    float z = 0, rz = 0;
    for (int n = 0; n < each; ++n) {
      const float q = at(a.q, row, head, n), k = at(a.k, j, of, n);
      z += q * k;
      rz += at(a.tangent_q, row, head, n) * k + q * at(a.tangent_k, j, of, n);
    }
    z = sum_of(z) * a.scale;
    const float next = fmaxf(top, z), factor = expf(top - next), e = expf(z - next);
    const float x = e * sum_of(rz) * a.scale;
    top = next;
    l = l * factor + e;
    w = w * factor + x;
    for (int n = 0; n < each; ++n) {
      const float v = at(a.v, j, of, n);
      o[n] = o[n] * factor + e * v;
      u[n] = u[n] * factor + x * v + e * at(a.tangent_v, j, of, n);
    }
  }
  for (int n = 0; n < each; ++n) {
    const index_t column = head * a.head_size + lane + 32 * n;
    const float y = o[n] / l;
    a.o.row(row)[column] = to_bfloat16(y);
    a.tangent_o.row(row)[column] = to_bfloat16((u[n] - w * y) / l);
  }
}

bench::attention_sizes sizes() {
  bench::attention_sizes out{{24, 8, 128, 1 / std::sqrt(128.0), 0}, std::vector<index_t>(8, 1024)};
  if (bench::is_small()) {
    out.options.heads = out.options.kv_heads = 1;
    out.lengths = {70, 3};
  }
  return out;
}

template <class Step>
void add(const char* name, bool tangent, const Step& step, bool by_groups = false) {
  bench::add(std::string("ladder/attention/") + name, [=](benchmark::State& state) {
    const exec::cuda policy = bench::policy();
    if (by_groups && !detail::has_wgmma("ladder")) {
      state.SkipWithError("left out: this is no sm_90a");
      return;
    }
    if (!bench::fits(state, bench::attention_case::bytes(sizes()))) return;
    bench::attention_case at(policy, sizes());
    at.forget();
    step(policy, at);
    if (!bench::check(state, at.right(policy, tangent), "rows differ from a loop's")) return;
    bench::device_timer timer(state);
    timer.computes(sizes().operations(tangent));
    timer.run([&](index_t) { step(policy, at); });
  });
}

template <class Plan>
void add_plan(const char* name, void (*kernel)(attention_arguments<T>), bool by_groups) {
  const auto step = [=](const exec::cuda& policy, const bench::attention_case& at) {
    llm::detail::launch_attention_kernel<Plan>("ladder", policy, at.arguments(), sizes().rows(),
                                               kernel);
  };
  add(name, Plan::tangent, step, by_groups);
}
/// Warps that multiply by themselves.
template <class Plan>
void add_warps(const char* name) {
  add_plan<Plan>(name, llm::detail::tensor_attention<Plan>, false);
}
/// Four warps that multiply together, where the device can.
template <class Plan>
void add_groups(const char* name) {
  add_plan<Plan>(name, llm::detail::group_attention<Plan>, true);
}

}  // namespace

int main(int argc, char** argv) {
  add("1_naive", true, [](const exec::cuda& policy, const bench::attention_case& at) {
    const index_t warps = sizes().rows() * sizes().options.heads;
    detail::launch("ladder", policy, {static_cast<unsigned>((warps + 3) / 4), 128}, naive,
                   at.arguments(), sizes().rows());
  });
  // head size, columns, row tiles of a warp, keys, warps, blocks on a multiprocessor, tangents
  add_warps<attention_plan<T, 128, 128, 1, 16, 4, 2, true>>("2_tensor");
  add_warps<attention_plan<T, 128, 128, 1, 32, 4, 2, true>>("3_wide_tiles");
  add_warps<attention_plan<T, 128, 128, 1, 32, 8, 1, true>>("4_more_queries");
  add("5_library", true,
      [](const exec::cuda& policy, const bench::attention_case& at) { at.tangent(policy); });
  add_warps<attention_plan<T, 128, 128, 1, 64, 8, 1, false>>("6_forward_one_row_tile");
  add("7_forward_library", false,
      [](const exec::cuda& policy, const bench::attention_case& at) { at.forward(policy); });
  add_groups<attention_plan<T, 128, 128, 1, 128, 8, 1, false>>("8_forward_groups");
  return bench::run(argc, argv);
}
