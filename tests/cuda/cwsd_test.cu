// Proves: cwsd on a device gives the losses, weights, divergences and gradients of cwsd.hpp for every
// type, weight, vocabulary and alignment, leaves out ignored rows, and keeps infinities and NaN where they
// belong. Against: cwsd(double), anchor by anchor.
#include <doctest/doctest.h>

#include <dualsft/cwsd.cuh>

#include "cwsd_values.cuh"

using namespace dualsft;
using namespace dualsft::testing;

namespace {

template <class T>
struct on_device {
  std::vector<cwsd_anchor> anchors;
  logits<T> gradient;
  std::vector<float> row_scales;
};

enum class placed { apart, in_place, none };

template <class T>
on_device<T> run(const task& t, const logits<T>& teacher, const logits<T>& student, placed where,
                 gradient_scaling scaling) {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const auto view = [](const detail::device_array<T>& array, const logits<T>& shape) {
    return matrix_view<T, device_space>(array.data() + shape.offset, shape.rows, shape.classes,
                                        shape.stride, 1);
  };
  const detail::device_array<T> q(policy, std::span<const T>(teacher.values));
  const detail::device_array<T> p(policy, std::span<const T>(student.values));
  const detail::device_array<T> apart(policy, std::span<const T>(student.values));
  const detail::device_array<index_t> begins(policy, std::span<const index_t>(t.begins));
  const detail::device_array<std::int64_t> labels(policy, std::span<const std::int64_t>(t.labels));
  const detail::device_array<cwsd_anchor> anchors(policy,
                                                  static_cast<index_t>(t.begins.size()) - 1);
  const detail::device_array<float> scales(policy,
                                           scaling == gradient_scaling::per_row ? teacher.rows : 0);
  const detail::device_array<T>& to = where == placed::in_place ? p : apart;
  cwsd(policy, t.rule, view(q, teacher), view(p, student),
       cwsd_rows<>{begins.view(), labels.view()},
       cwsd_outputs<T>{
           .anchors = anchors.view(),
           .gradient = where == placed::none ? matrix_view<T, device_space>() : view(to, student),
           .row_scales = scales.view()},
       {.scale = t.scale, .scaling = scaling});
  on_device<T> out{anchors.to_host(), student, scales.to_host()};
  out.gradient.values = to.to_host();
  return out;
}

template <class T>
void check(const task& t, const logits<T>& teacher, const logits<T>& student, placed where,
           gradient_scaling scaling) {
  const on_device<T> found = run(t, teacher, student, where, scaling);
  REQUIRE(found.anchors.size() + 1 == t.begins.size());
  std::vector<bool> visited(found.gradient.values.size());
  for (std::size_t x = 0; x + 1 < t.begins.size(); ++x) {
    CAPTURE(x);
    const expected wanted = on_host(t, x, teacher, student);
    const cwsd_anchor& anchor = found.anchors[x];
    const double tau2 = t.rule.tau * t.rule.tau;
    const double e = 0x1p-20 * (1 + wanted.mean_difference);
    CHECK(near(anchor.divergence, wanted.anchor.divergence, e + 1e-12 * wanted.anchor.divergence));
    const double of_weight = weight_error(teacher.classes);
    CHECK(near(anchor.weight, wanted.anchor.weight, of_weight));
    CHECK(near(anchor.loss, wanted.anchor.loss, tau2 * (e + of_weight * wanted.anchor.divergence)));
    if (where == placed::none) continue;
    for (std::size_t i = 0; i < wanted.rows.size(); ++i) {
      const index_t row = wanted.rows[i];
      double scale = 1;
      if (scaling == gradient_scaling::per_row) {
        scale = static_cast<double>(found.row_scales[static_cast<std::size_t>(row)]);
        REQUIRE(near(scale, anchor.weight, 0x1p-24));
      }
      index_t wrong = 0;
      for (index_t c = 0; c < teacher.classes; ++c) {
        const std::size_t at =
            i * static_cast<std::size_t>(teacher.classes) + static_cast<std::size_t>(c);
        const double g = scale * convert_float<double>(found.gradient(row, c));
        if (!near(g, wanted.gradient[at], wanted.tolerance[at])) {
          if (wrong++ == 0) {
            CAPTURE(c);
            CHECK(g == doctest::Approx(wanted.gradient[at]));
          }
        }
        visited[static_cast<std::size_t>(student.offset + row * student.stride + c)] = true;
      }
      CHECK(wrong == 0);
    }
    for (index_t row = t.begins[x]; row < t.begins[x + 1]; ++row) {
      if (counts(t, row)) continue;
      bool zero = true;
      for (index_t c = 0; c < teacher.classes; ++c) {
        zero = zero && convert_float<double>(found.gradient(row, c)) == 0;
        visited[static_cast<std::size_t>(student.offset + row * student.stride + c)] = true;
      }
      CHECK(zero);
      if (scaling == gradient_scaling::per_row)
        CHECK(found.row_scales[static_cast<std::size_t>(row)] == 0);
    }
  }
  if (where == placed::none) return;
  bool beside = true;  // what lies between rows is left alone
  for (std::size_t i = 0; i < visited.size(); ++i)
    beside =
        beside && (visited[i] || bits_of(found.gradient.values[i]) == bits_of(student.values[i]));
  CHECK(beside);
}

template <class T>
void check_classes(index_t classes) {
  CAPTURE(classes);
  constexpr index_t wide = 16 / sizeof(T);
  const index_t padded = (classes + wide - 1) / wide * wide + wide;
  const task every{{.tau = 2, .weight = confidence::entropy}, {0, 1, 4, 4, 7}, {}, 0.5};
  const task some{
      {.tau = 0.7, .weight = confidence::max_probability}, {0, 3, 7}, some_labels(7, 11), -3};
  const logits<T> teacher = made<T>(7, classes, padded, 0, 3, 1);
  const logits<T> student = made<T>(7, classes, padded, wide, 3, 2);
  check(every, teacher, student, placed::apart, gradient_scaling::applied);
  check(some, teacher, student, placed::in_place, gradient_scaling::per_row);
  const logits<T> crooked = made<T>(7, classes, classes + 1, 1, 3, 3);  // rows start anywhere
  check(some, crooked, student, placed::in_place, gradient_scaling::applied);
}

}  // namespace

TEST_CASE("every vocabulary, type and alignment") {
  for (const index_t classes : {1, 2, 7, 8, 31, 32, 33, 255, 1000, 8191}) {
    if (is_small_run() && (classes == 2 || classes == 31 || classes == 255 || classes == 1000))
      continue;
    check_classes<bfloat16>(classes);
    check_classes<float16>(classes);
    check_classes<float>(classes);
  }
}

TEST_CASE("vocabularies of language models: more than shared memory holds") {
  const auto check_large = [](auto type, index_t classes) {
    using T = decltype(type);
    CAPTURE(classes);
    const task t{{}, {0, 2, 3}, {}, 1};
    const logits<T> teacher = made<T>(3, classes, classes, 0, 4, 5);
    logits<T> student = teacher;
    random_source random(9);
    for (T& x : student.values)
      x = convert_float<T>(convert_float<double>(x) + 0.3 * random.normal());
    check(t, teacher, student, placed::in_place, gradient_scaling::per_row);
  };
  check_large(bfloat16{}, 128'256);
  check_large(float16{}, 50'264);
  check_large(float{}, 50'000);
  check_large(bfloat16{}, 50'257);
  check_large(bfloat16{}, 12'288);  // 48 KB of shared memory are kept, to the byte
  if (!is_small_run()) {
    check_large(bfloat16{}, 32'000);
    check_large(bfloat16{}, 151'936);
    check_large(bfloat16{}, 262'144);
    check_large(float{}, 128'256);
  }
}

TEST_CASE("every weight, and losses alone") {
  const logits<bfloat16> teacher = made<bfloat16>(40, 500, 504, 0, 4, 5);
  const logits<bfloat16> student = made<bfloat16>(40, 500, 504, 0, 4, 6);
  for (const auto& each : detail::confidence_names) {  // clang 14 captures no structured binding
    CAPTURE(each.first);
    const task t{{.tau = 1.5, .weight = each.second}, {0, 0, 33, 40}, some_labels(40, 1), 1};
    check(t, teacher, student, placed::none, gradient_scaling::applied);
    check(t, teacher, student, placed::apart, gradient_scaling::applied);
    check(t, teacher, student, placed::apart, gradient_scaling::per_row);
  }
}

TEST_CASE("a student that is its teacher has no divergence and no gradient") {
  const logits<bfloat16> teacher = made<bfloat16>(5, 4000, 4000, 0, 10, 5);
  const task t{{}, {0, 5}, {}, 1};
  const on_device<bfloat16> found =
      run(t, teacher, teacher, placed::apart, gradient_scaling::applied);
  CHECK(found.anchors[0].divergence == 0);
  CHECK(found.anchors[0].loss == 0);
  for (const bfloat16 x : found.gradient.values) REQUIRE(to_float(x) == 0);
  check(t, teacher, teacher, placed::apart, gradient_scaling::applied);
}

TEST_CASE("distributions of all shapes") {
  const task t{{.tau = 1}, {0, 2, 4}, {}, 1};
  logits<float> teacher = made<float>(4, 3000, 3000, 0, 1, 5);
  logits<float> student = made<float>(4, 3000, 3000, 0, 1, 6);
  SUBCASE("all equal") {
    for (float& x : teacher.values) x = 3;
    for (float& x : student.values) x = -7;
  }
  SUBCASE("all on one class, seen last") {
    for (index_t row = 0; row < 4; ++row) teacher(row, 2999) = student(row, 2998) = 60;
  }
  SUBCASE("climbing: references move") {
    for (index_t row = 0; row < 4; ++row)
      for (index_t c = 0; c < 3000; ++c) {
        teacher(row, c) = static_cast<float>(c) / 10;
        student(row, c) = static_cast<float>(c) / 12;
      }
  }
  SUBCASE("large, far from 0") {
    for (float& x : teacher.values) x = 1000 + 20 * x;
    for (float& x : student.values) x = -1000 + 20 * x;
  }
  SUBCASE("far apart") {
    for (index_t row = 0; row < 4; ++row)
      for (index_t c = 0; c < 3000; ++c) student(row, c) = -teacher(row, c) * 10;
  }
  check(t, teacher, student, placed::apart, gradient_scaling::applied);
}

TEST_CASE("impossible classes count as nothing; an impossible choice is infinitely far") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const task t{{}, {0, 1, 2, 3}, {}, 1};
  logits<float> teacher = made<float>(3, 1500, 1500, 0, 2, 5);
  logits<float> student = made<float>(3, 1500, 1500, 0, 2, 6);
  for (index_t c = 0; c < 1500; c += 3) teacher(0, c) = -infinity;
  for (index_t c = 0; c < 1500; c += 6) student(0, c) = -infinity;
  for (index_t c = 0; c < 1499; ++c) teacher(1, c) = -infinity;
  student(2, 77) = -infinity;
  check(t, teacher, student, placed::apart, gradient_scaling::applied);
  CHECK(on_host(t, 2, teacher, student).anchor.divergence == static_cast<double>(infinity));
}

TEST_CASE("NaN stays in its anchor") {
  const task t{{}, {0, 2, 4, 6, 8}, {}, 1};
  for (const float odd :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    logits<float> teacher = made<float>(8, 700, 700, 0, 2, 5);
    logits<float> student = made<float>(8, 700, 700, 0, 2, 6);
    teacher(0, 699) = odd;
    student(4, 0) = odd;
    for (const gradient_scaling scaling : {gradient_scaling::applied, gradient_scaling::per_row}) {
      const on_device<float> found = run(t, teacher, student, placed::apart, scaling);
      CHECK(std::isnan(found.anchors[0].loss));
      CHECK(std::isnan(found.anchors[2].loss));
      CHECK(std::isfinite(found.anchors[2].weight));
      CHECK(std::isnan(found.gradient(0, 3)));
      CHECK(std::isnan(found.gradient(4, 3)));
      CHECK(std::isfinite(found.gradient(5, 3)));
      for (const std::size_t x : {1U, 3U}) {
        CHECK(std::isfinite(found.anchors[x].loss));
        for (const index_t row : {2 * static_cast<index_t>(x), 2 * static_cast<index_t>(x) + 1})
          for (index_t c = 0; c < 700; ++c) REQUIRE(std::isfinite(found.gradient(row, c)));
      }
    }
  }
}

TEST_CASE("ignored rows are not read") {
  const index_t rows = 70;  // more than the played device's blocks: some take several
  task t{{}, {0, 20, rows}, some_labels(rows, 8), 1};
  logits<float> teacher = made<float>(rows, 300, 300, 0, 2, 5);
  logits<float> student = made<float>(rows, 300, 300, 0, 2, 6);
  for (index_t row = 0; row < rows; ++row)
    for (index_t c = 0; !counts(t, row) && c < 300; ++c)
      teacher(row, c) = student(row, c) = std::nanf("");
  check(t, teacher, student, placed::apart, gradient_scaling::applied);
  check(t, teacher, student, placed::none, gradient_scaling::applied);
  t.labels.assign(static_cast<std::size_t>(rows), -100);
  const on_device<float> found = run(t, teacher, student, placed::apart, gradient_scaling::per_row);
  CHECK(found.anchors[0].loss == 0);
  CHECK(found.anchors[0].weight == 0);
}

TEST_CASE("two runs give the same bits, and a captured graph gives them too") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t rows = is_small_run() ? 40 : 300, classes = 1016;
  const logits<bfloat16> teacher = made<bfloat16>(rows, classes, classes, 0, 3, 5);
  const logits<bfloat16> student = made<bfloat16>(rows, classes, classes, 0, 3, 6);
  const std::vector<index_t> starts{0, 30, 31, rows};
  const std::vector<std::int64_t> marks = some_labels(rows, 3);
  const detail::device_array<bfloat16> q(policy, std::span<const bfloat16>(teacher.values));
  const detail::device_array<bfloat16> p(policy, std::span<const bfloat16>(student.values));
  const detail::device_array<index_t> begins(policy, std::span<const index_t>(starts));
  const detail::device_array<std::int64_t> labels(policy, std::span<const std::int64_t>(marks));
  detail::device_array<bfloat16> gradient(policy, rows * classes);
  const detail::device_array<cwsd_anchor> anchors(policy, 3);
  cwsd_workspace workspace(policy, rows + 5);
  const auto once = [&] {
    const matrix_view<bfloat16, device_space> to(gradient.data(), rows, classes);
    cwsd(policy, {}, matrix_view<bfloat16, device_space>(q.data(), rows, classes),
         matrix_view<bfloat16, device_space>(p.data(), rows, classes),
         cwsd_rows<>{begins.view(), labels.view()},
         cwsd_outputs<bfloat16>{.anchors = anchors.view(), .gradient = to}, {}, workspace);
  };
  once();
  const std::vector<bfloat16> first = gradient.to_host();
  const cwsd_anchor first_anchor = anchors.to_host()[2];
  gradient.fill_bytes(0xff);
  once();
  CHECK(first_difference(first, gradient.to_host()) == -1);

  const captured_graph graph(policy, once);
  for (int launch = 0; launch < 2; ++launch) {
    gradient.fill_bytes(0xff);
    graph.launch(policy);
    CHECK(first_difference(first, gradient.to_host()) == -1);
    CHECK(bits_of(anchors.to_host()[2].loss) == bits_of(first_anchor.loss));
  }
}

namespace {

/// Rows without a divergence, and a last one with.
void check_last_row(const exec::cuda& policy, index_t rows, index_t classes) {
  detail::device_array<bfloat16> q(policy, rows * classes), p(policy, rows * classes);
  q.fill_bytes(0x3f);
  p.fill_bytes(0x3f);
  const logits<bfloat16> teacher = made<bfloat16>(1, classes, classes, 0, 3, 5);
  const logits<bfloat16> student = made<bfloat16>(1, classes, classes, 0, 3, 6);
  set_part(policy, q.data() + (rows - 1) * classes, teacher.values);
  set_part(policy, p.data() + (rows - 1) * classes, student.values);
  const std::vector<index_t> starts{0, rows - 1, rows};
  const detail::device_array<index_t> begins(policy, std::span<const index_t>(starts));
  const detail::device_array<cwsd_anchor> anchors(policy, 2);
  const matrix_view<bfloat16, device_space> to(p.data(), rows, classes);
  cwsd(policy, {}, matrix_view<bfloat16, device_space>(q.data(), rows, classes), to,
       cwsd_rows<>{begins.view()},
       cwsd_outputs<bfloat16>{.anchors = anchors.view(), .gradient = to});
  const expected wanted = on_host(task{{}, {0, 1}, {}, 1}, 0, teacher, student);
  const std::vector<cwsd_anchor> found = anchors.to_host();
  CHECK(found[0].divergence == 0);
  CHECK(
      near(found[1].divergence, wanted.anchor.divergence, 0x1p-20 * (1 + wanted.mean_difference)));
  const std::vector<bfloat16> last = part_of(policy, p.data() + (rows - 1) * classes, classes);
  index_t wrong = 0;
  for (std::size_t c = 0; c < last.size(); ++c)
    wrong += near(convert_float<double>(last[c]), wanted.gradient[c], wanted.tolerance[c]) ? 0 : 1;
  CHECK(wrong == 0);
  const index_t before = (rows - 1) * classes - 1;  // of a row without a gradient
  CHECK(convert_float<float>(part_of(policy, p.data() + before, 1)[0]) == 0);
}

}  // namespace

TEST_CASE("a last row that differs") {
  const own_stream stream;
  check_last_row(stream.policy(), 30, 1000);
}

TEST_CASE("more than 2^31 and 2^32 logits") {
  const own_stream stream;
  for (const index_t rows : {17'000, 34'000})
    if (has_memory_for(static_cast<std::size_t>(rows * 128'256) * 4))
      check_last_row(stream.policy(), rows, 128'256);
}

TEST_CASE("nothing to do, and what callers get wrong") {
  const exec::cuda policy;
  const detail::device_array<float> z(policy, 12), scales(policy, 4);
  const detail::device_array<index_t> begins(policy,
                                             std::span<const index_t>(std::vector<index_t>{0, 3}));
  const detail::device_array<cwsd_anchor> anchors(policy, 1);
  using view = matrix_view<float, device_space>;
  const view good(z.data(), 3, 4);
  const cwsd_rows<> rows{begins.view()};
  const cwsd_outputs<float> outputs{.anchors = anchors.view(), .gradient = good};
  cwsd(policy, {}, view(), view(), cwsd_rows<>{begins.view().subview(0, 1)}, cwsd_outputs<float>{});

  const auto refuses = [&](const char* what, const auto& call) {
    CHECK_THROWS_WITH_AS(call(), doctest::Contains(what), invalid_argument);
  };
  refuses("tau must be positive (tau = 0)",
          [&] { cwsd(policy, {.tau = 0}, good, good, rows, outputs); });
  refuses("one shape (matrix = student, rows = 2",
          [&] { cwsd(policy, {}, good, view(z.data(), 2, 4), rows, outputs); });
  refuses("one shape (matrix = gradient, rows = 3, cols = 3", [&] {
    cwsd(policy, {}, good, good, rows,
         cwsd_outputs<float>{.anchors = anchors.view(), .gradient = view(z.data(), 3, 3)});
  });
  refuses("must be contiguous, and not overlap (matrix = student, row stride = 1",
          [&] { cwsd(policy, {}, good, view(z.data(), 4, 3).transposed(), rows, outputs); });
  refuses("one value more than there are anchors (begins = 2, anchors = 0)",
          [&] { cwsd(policy, {}, good, good, rows, cwsd_outputs<float>{}); });
  refuses("one label per row (labels = 2, rows = 3)", [&] {
    cwsd(policy, {}, good, good, cwsd_rows<>{begins.view(), begins.view()}, outputs);
  });
  refuses("row_scales must have one value per row", [&] {
    cwsd(policy, {}, good, good, rows, outputs, {.scaling = gradient_scaling::per_row});
  });
  cwsd_workspace workspace(policy, 2);
  refuses("the workspace is for fewer rows (rows = 3, workspace = 2)",
          [&] { cwsd(policy, {}, good, good, rows, outputs, {}, workspace); });
}
