// Measures: self-distillation's losses and logit gradients from given logits, and through the output head.
// Against: a copy within the device (6 V bytes of 16-bit logits per row: both read, the gradient written;
// also where w(x) is applied, which reads the teacher's twice) and cuBLASLt's bf16 product (8 H V
// operations per row).
// Must reach: 0.80 of the copy at 8,192 x 128,256 bf16 with scales per row; through the head 0.70 of the
// product (550 of 790 TFLOP/s on an H200).
//
// Frameworks, at the same sizes, are timed by bench/compare_gpu.py. H = 3,072 is Llama-3.2-3B, 4,096 what
// published figures of others use.
#include <dualsft/cwsd_head.cuh>
#include <string>

#include "support/cwsd_case.cuh"

namespace {

using namespace dualsft;

template <class T>
void from_logits(benchmark::State& state, index_t rows, index_t classes, gradient_scaling scaling,
                 double share) {
  const exec::cuda policy = bench::policy();
  if (!bench::fits(state, bench::cwsd_case<T>::bytes(rows, classes))) return;
  const bench::cwsd_case<T> at(policy, rows, classes);
  const bool per_row = scaling == gradient_scaling::per_row;
  const detail::device_array<float> scales(policy, per_row ? rows : 0);
  cwsd_workspace workspace(policy, rows);
  const cwsd_rule rule;
  const auto once = [&](index_t) {
    cwsd(policy, rule, at.teacher(), at.student(), cwsd_rows<>{at.begins()},
         cwsd_outputs<T>{at.anchors(), at.gradient(), scales.view()}, {.scaling = scaling},
         workspace);
  };
  once(0);
  if (!bench::check(state,
                    at.anchors_are_right(rule) && at.gradient_is_right(policy, rule, 1, !per_row),
                    "results differ from the host's"))
    return;
  const double logits = static_cast<double>(rows) * static_cast<double>(classes) * sizeof(T);
  bench::device_timer timer(state);
  timer.moves(3 * logits);
  timer.note("moved_GB", (per_row ? 3 : 4) * logits / 1e9);
  if (share > 0) timer.at_least("ratio_to_copy", share);
  timer.run(once);
}

void through_head(benchmark::State& state, index_t rows, index_t width, index_t classes,
                  index_t workspace_bytes) {
  const exec::cuda policy = bench::policy();
  const auto heads = static_cast<double>(classes) * static_cast<double>(width);
  if (!bench::fits(state, 8 * heads + static_cast<double>(workspace_bytes))) return;
  const auto filled = [&](index_t n, std::uint64_t seed, float scale) {
    detail::device_array<bfloat16> out(policy, n);
    bench::fill(policy, out.view(), {bench::spread::normal, seed, scale});
    return out;
  };
  const auto x = filled(rows * width, 1, 1), y = filled(rows * width, 2, 1);
  const auto w = filled(classes * width, 3, 0x1p-5F), u = filled(classes * width, 4, 0x1p-5F);
  const detail::device_array<bfloat16> dx(policy, rows * width);
  detail::device_array<float> dw(policy, classes * width);
  dw.fill_bytes(0);
  std::vector<index_t> begins;
  for (index_t row = 0; row < rows; row += 512) begins.push_back(row);
  begins.push_back(rows);
  const detail::device_array<cwsd_anchor> anchors(policy, static_cast<index_t>(begins.size()) - 1);
  cwsd_head_workspace workspace(policy, std::span<const index_t>(begins),
                                std::span<const std::int64_t>(), workspace_bytes);
  using view = matrix_view<bfloat16, device_space>;
  const auto once = [&](index_t) {
    cwsd_through_head(
        policy, {},
        {view(y.data(), rows, width), view(u.data(), classes, width), view(x.data(), rows, width),
         view(w.data(), classes, width)},
        cwsd_head_outputs<bfloat16>{anchors.view(), view(dx.data(), rows, width),
                                    matrix_view<float, device_space>(dw.data(), classes, width)},
        {}, workspace);
  };
  once(0);
  bool right = true;  // values are the tests' business; here: none is missing
  for (const cwsd_anchor& anchor : anchors.to_host())
    right = right && std::isfinite(anchor.loss) && anchor.loss > 0 && anchor.weight > 0;
  right = right && std::isfinite(bench::read_at(policy, dw.data(), classes * width - 1));
  if (!bench::check(state, right, "losses or gradients are missing")) return;
  bench::device_timer timer(state);
  timer.computes(8 * static_cast<double>(rows) * heads);
  timer.at_least("ratio_to_product", 0.70);
  timer.run(once);
}

}  // namespace

int main(int argc, char** argv) {
  using benchmark::State;
  const auto add = [](const std::string& name, auto type, index_t rows, index_t classes,
                      gradient_scaling scaling, double share) {
    using T = decltype(type);
    const std::string at = "/rows:" + std::to_string(rows) + "/V:" + std::to_string(classes);
    const index_t some = bench::pick<index_t>(rows, 5),
                  few = bench::pick(classes, classes % 100 + 8);
    bench::add("cwsd/" + name + at,
               [=](State& s) { from_logits<T>(s, some, few, scaling, share); });
  };
  add("bf16_per_row", bfloat16{}, 8192, 128256, gradient_scaling::per_row, 0.80);
  add("bf16_applied", bfloat16{}, 8192, 128256, gradient_scaling::applied, 0);
  add("bf16_per_row", bfloat16{}, 32768, 32000, gradient_scaling::per_row, 0);
  add("bf16_per_row", bfloat16{}, 8192, 152064, gradient_scaling::per_row, 0);
  add("bf16_per_row", bfloat16{}, 4096, 262144, gradient_scaling::per_row, 0);
  add("bf16_per_row_odd", bfloat16{}, 16384, 50257, gradient_scaling::per_row, 0);
  add("f32_per_row", float{}, 4096, 128256, gradient_scaling::per_row, 0);
  for (const index_t width : {3072, 4096})
    for (const index_t megabytes : {512, 2048}) {
      const std::string at =
          "/rows:8192/H:" + std::to_string(width) + "/workspace_MB:" + std::to_string(megabytes);
      const index_t bytes = bench::pick(megabytes << 20, index_t{4} << 10);
      bench::add("cwsd_through_head/bf16" + at, [=](State& s) {
        through_head(s, bench::pick<index_t>(8192, 9), bench::pick(width, width / 512),
                     bench::pick<index_t>(128256, 56), bytes);
      });
    }
  return bench::run(argc, argv);
}
