// Measures: self-distillation's losses and logit gradients from given logits, and through the output head.
// Against: a copy within the device (6 V bytes of 16-bit logits per row: both read, the gradient written;
// also where w(x) is applied, which reads the teacher's twice) and cuBLASLt's bf16 product (8 H V
// operations per row; 2 H_teacher V + 6 H V where the teacher is wider).
// Must reach: 0.80 of the copy at 8,192 x 128,256 bf16 with scales per row; through the head 0.70 of the
// product (550 of 790 TFLOP/s on an H200).
//
// PyTorch, and Liger-Kernel where it is, are timed at the same sizes by bench/compare_gpu.py; what
// Liger-Kernel publishes is in docs/benchmarks.md: f32_divergence is its kl_div, H:4096 its
// fused_linear_jsd, H:2048/H_teacher:4096 its chunked distill_jsd. H = 3,072 is Llama-3.2-3B.
#include <dualsft/cwsd_head.cuh>
#include <string>

#include "support/cwsd_case.cuh"
#include "support/cwsd_head_case.cuh"

namespace {

using namespace dualsft;

struct logits_sizes {
  index_t rows, classes;
  gradient_scaling scaling = gradient_scaling::per_row;
  double share = 0;  ///< of the copy, that must be reached
  cwsd_rule rule = {};
};

template <class T>
void from_logits(benchmark::State& state, const logits_sizes& n) {
  const exec::cuda policy = bench::policy();
  if (!bench::fits(state, bench::cwsd_case<T>::bytes(n.rows, n.classes))) return;
  const bench::cwsd_case<T> at(policy, n.rows, n.classes);
  const bool per_row = n.scaling == gradient_scaling::per_row;
  const detail::device_array<float> scales(policy, per_row ? n.rows : 0);
  cwsd_workspace workspace(policy, n.rows);
  const auto once = [&](index_t) {
    cwsd(policy, n.rule, at.teacher(), at.student(), cwsd_rows<>{at.begins()},
         cwsd_outputs<T>{at.anchors(), at.gradient(), scales.view()}, {.scaling = n.scaling},
         workspace);
  };
  once(0);
  if (!bench::check(
          state, at.anchors_are_right(n.rule) && at.gradient_is_right(policy, n.rule, 1, !per_row),
          "results differ from the host's"))
    return;
  const double logits = static_cast<double>(n.rows) * static_cast<double>(n.classes) * sizeof(T);
  bench::device_timer timer(state);
  timer.moves(3 * logits);
  const bool read_once = per_row || n.rule.weight == confidence::uniform;
  timer.note("moved_GB", (read_once ? 3 : 4) * logits / 1e9);
  if (n.share > 0) timer.at_least("ratio_to_copy", n.share);
  timer.run(once);
}

void through_head(benchmark::State& state, const bench::cwsd_head_sizes& n,
                  index_t workspace_bytes) {
  const exec::cuda policy = bench::policy();
  const cwsd_rule rule;
  if (!bench::fits(state, bench::cwsd_head_case::bytes(n) + static_cast<double>(workspace_bytes)))
    return;
  const bench::cwsd_head_case at(policy, n);
  cwsd_head_workspace workspace(policy, at.begins(), std::span<const std::int64_t>(),
                                workspace_bytes);
  const auto once = [&](index_t) {
    cwsd_through_head(policy, rule, at.inputs(), at.outputs(), {}, workspace);
  };
  once(0);
  if (!bench::check(state, at.right(policy, rule), "losses or gradients differ from the host's"))
    return;
  bench::device_timer timer(state);
  timer.computes(n.operations());
  timer.at_least("ratio_to_product", 0.70);
  timer.run(once);
}

}  // namespace

int main(int argc, char** argv) {
  using benchmark::State;
  using enum gradient_scaling;
  const auto add = [](const std::string& name, auto type, logits_sizes n) {
    using T = decltype(type);
    const std::string at = "/rows:" + std::to_string(n.rows) + "/V:" + std::to_string(n.classes);
    n.rows = bench::pick<index_t>(n.rows, 5);
    n.classes = bench::pick(n.classes, n.classes % 100 + 8);
    bench::add("cwsd/" + name + at, [=](State& s) { from_logits<T>(s, n); });
  };
  add("bf16_per_row", bfloat16{}, {8192, 128256, per_row, 0.80});
  add("bf16_applied", bfloat16{}, {8192, 128256, applied});
  add("bf16_per_row", bfloat16{}, {32768, 32000});
  add("bf16_per_row", bfloat16{}, {8192, 152064});
  add("bf16_per_row", bfloat16{}, {4096, 262144});
  add("bf16_per_row_odd", bfloat16{}, {16384, 50257});
  add("f32_per_row", float{}, {4096, 128256});
  // What Liger-Kernel's kl_div does, at the size that it publishes.
  add("f32_divergence", float{}, {16384, 131072, applied, 0, {1, confidence::uniform}});

  const auto add_head = [](index_t width, index_t teacher_width, index_t megabytes) {
    const auto small = [](index_t n) { return bench::pick(n, n / 512); };
    const bench::cwsd_head_sizes n{bench::pick<index_t>(8192, 9), small(width),
                                   small(teacher_width), bench::pick<index_t>(128256, 56)};
    const index_t bytes = bench::pick(megabytes << 20, index_t{4} << 10);
    const std::string teacher =
        teacher_width == width ? "" : "/H_teacher:" + std::to_string(teacher_width);
    bench::add("cwsd_through_head/bf16/rows:8192/H:" + std::to_string(width) + teacher +
                   "/workspace_MB:" + std::to_string(megabytes),
               [=](State& s) { through_head(s, n, bytes); });
  };
  for (const index_t width : {3072, 4096})
    for (const index_t megabytes : {512, 2048}) add_head(width, width, megabytes);
  add_head(2048, 4096, 512);
  return bench::run(argc, argv);
}
