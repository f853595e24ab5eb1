// Measures: causal attention, and attention with tangents, of 8,192 tokens in bf16: one long sequence,
// eight of 1,024, many of uneven lengths, a sliding window; heads of 64, 128 and 256.
// Against: with tangents, the same attention without them at the same moments (ratio_to_forward: its time
// over ours); both, a matrix product by cuBLASLt. Operations: 4 head_size per head and visible pair, with
// tangents 12.
// Must reach: with tangents, 2.2 times the time without (ratio_to_forward 0.455), heads of 128.
#include <string>

#include "support/attention_case.cuh"

namespace {

using namespace dualsft;

bench::attention_sizes sizes_of(index_t heads, index_t kv_heads, index_t head_size,
                                const std::vector<index_t>& lengths, index_t window = 0) {
  bench::attention_sizes out{
      {heads, kv_heads, head_size, 1 / std::sqrt(static_cast<double>(head_size)), window}, lengths};
  if (bench::is_small()) {
    out.options.heads /= out.options.kv_heads;
    out.options.kv_heads = 1;
    out.lengths = {70, 3};
  }
  return out;
}

/// Lengths as of instructions and their answers: from 32 to 2,048, most of them short; 8,192 in all.
std::vector<index_t> uneven() {
  std::vector<index_t> out;
  index_t left = 8192;
  for (std::uint64_t k = 0; left > 0; ++k) {
    const std::uint64_t h = bench::hash_of(k);
    const auto n = static_cast<index_t>((32 + h % 32) << (h >> 32) % 6);
    out.push_back(std::min(left, n));
    left -= out.back();
  }
  return out;
}

void add(const std::string& name, const bench::attention_sizes& sizes) {
  bench::add("attention/forward/bf16/" + name, [sizes](benchmark::State& state) {
    const exec::cuda policy = bench::policy();
    if (!bench::fits(state, bench::attention_case::bytes(sizes))) return;
    bench::attention_case at(policy, sizes);
    at.forget();
    at.forward(policy);
    if (!bench::check(state, at.right(policy, false), "rows differ from a loop's")) return;
    bench::device_timer timer(state);
    timer.computes(sizes.operations(false));
    timer.run([&](index_t) { at.forward(policy); });
  });
  bench::add("attention/tangent/bf16/" + name, [sizes](benchmark::State& state) {
    const exec::cuda policy = bench::policy();
    if (!bench::fits(state, bench::attention_case::bytes(sizes))) return;
    bench::attention_case at(policy, sizes);
    at.forget();
    at.tangent(policy);
    if (!bench::check(state, at.right(policy, true), "rows differ from a loop's")) return;
    bench::device_timer timer(state);
    timer.computes(sizes.operations(true));
    timer.against("forward", [&](index_t) { at.forward(policy); });
    if (sizes.options.head_size == 128) timer.at_least("ratio_to_forward", 1 / 2.2);
    timer.run([&](index_t) { at.tangent(policy); });
  });
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<index_t> eight(8, 1024);
  add("llama_3.2_3b/8x1024", sizes_of(24, 8, 128, eight));
  add("llama_3.2_3b/1x8192", sizes_of(24, 8, 128, {8192}));
  add("llama_3.2_3b/uneven", sizes_of(24, 8, 128, uneven()));
  add("llama_3.2_3b/1x8192/window:1024", sizes_of(24, 8, 128, {8192}, 1024));
  add("qwen2.5_7b/8x1024", sizes_of(28, 4, 128, eight));
  add("llama_3.2_1b/8x1024", sizes_of(32, 8, 64, eight));
  add("gemma_2_2b/8x1024", sizes_of(8, 4, 256, eight));
  return bench::run(argc, argv);
}
