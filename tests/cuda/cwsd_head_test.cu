// Proves: cwsd_through_head gives cwsd's losses and its gradients by hidden states and head, whatever the
// chunks, with anchors longer than a chunk, rows that are ignored, two heads or one. Against: logits and
// products in double on the host; the logits are sums that 16 bits hold exactly.
#include <doctest/doctest.h>

#include <dualsft/cwsd_head.cuh>
#include <string>

#include "cwsd_values.cuh"

using namespace dualsft;
using namespace dualsft::testing;

namespace {

/// Small multiples of 1/4: products of them, and sums of thirteen, are exact.
template <class T>
logits<T> quarters(index_t rows, index_t cols, index_t stride, std::uint64_t seed) {
  logits<T> out{rows, cols, stride, 0, {}};
  random_source random(seed);
  for (index_t i = 0; i < rows * stride; ++i)
    out.values.push_back(convert_float<T>(std::floor(5 * random.uniform()) / 4 - 0.5));
  return out;
}

/// X W^T
template <class T>
logits<T> product(const logits<T>& x, const logits<T>& w) {
  logits<T> out{x.rows, w.rows, w.rows, 0, {}};
  for (index_t i = 0; i < x.rows; ++i)
    for (index_t j = 0; j < w.rows; ++j) {
      double sum = 0;
      for (index_t k = 0; k < x.classes; ++k)
        sum += convert_float<double>(x(i, k)) * convert_float<double>(w(j, k));
      out.values.push_back(convert_float<T>(sum));
      REQUIRE(convert_float<double>(out.values.back()) == sum);
    }
  return out;
}

struct sizes {
  index_t classes, width, teacher_width;
};

template <class T>
struct on_device {
  explicit on_device(const exec::cuda& policy, const logits<T>& from)
      : shape(from), array(policy, std::span<const T>(from.values)) {}
  operator matrix_view<T, device_space>() const {
    return {array.data(), shape.rows, shape.classes, shape.stride, 1};
  }
  operator matrix_view<const T, device_space>() const {
    return matrix_view<T, device_space>(*this);
  }
  const logits<T>& shape;
  detail::device_array<T> array;
};

template <class T, class Hidden>
void check(const task& t, const sizes& n, index_t workspace_bytes) {
  CAPTURE(workspace_bytes);
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const index_t rows = t.begins.back();
  const logits<T> x_teacher = quarters<T>(rows, n.teacher_width, n.teacher_width + 3, 1);
  const logits<T> x_student = quarters<T>(rows, n.width, n.width, 2);
  const logits<T> w_teacher = quarters<T>(n.classes, n.teacher_width, n.teacher_width, 3);
  const logits<T> w_student = quarters<T>(n.classes, n.width, n.width + 1, 4);
  const on_device<T> xt(policy, x_teacher), xs(policy, x_student), wt(policy, w_teacher),
      ws(policy, w_student);
  logits<Hidden> dx{rows, n.width, n.width + 2, 0, {}};
  dx.values.resize(static_cast<std::size_t>(rows * dx.stride), convert_float<Hidden>(9.0));
  logits<float> dw{n.classes, n.width, n.width, 0, {}};
  for (index_t i = 0; i < n.classes * n.width; ++i) dw.values.push_back(static_cast<float>(i % 5));
  const on_device<Hidden> to_x(policy, dx);
  const on_device<float> to_w(policy, dw);
  const detail::device_array<cwsd_anchor> anchors(policy,
                                                  static_cast<index_t>(t.begins.size()) - 1);
  cwsd_head_workspace workspace(policy, std::span<const index_t>(t.begins),
                                std::span<const std::int64_t>(t.labels), workspace_bytes);
  cwsd_through_head(policy, t.rule, {xt, wt, xs, ws},
                    cwsd_head_outputs<T, Hidden>{anchors.view(), to_x, to_w}, {.scale = t.scale},
                    workspace);

  const std::vector<cwsd_anchor> found = anchors.to_host();
  logits<Hidden> found_x = dx;
  found_x.values = to_x.array.to_host();
  logits<float> found_w = dw;
  found_w.values = to_w.array.to_host();
  const logits<T> teacher = product(x_teacher, w_teacher), student = product(x_student, w_student);
  std::vector<double> wanted_w(static_cast<std::size_t>(n.classes * n.width)),
      error_w(wanted_w.size());
  for (std::size_t a = 0; a + 1 < t.begins.size(); ++a) {
    CAPTURE(a);
    const expected wanted = on_host(t, a, teacher, student);
    CHECK(near(found[a].divergence, wanted.anchor.divergence,
               0x1p-20 * (1 + wanted.mean_difference)));
    CHECK(near(found[a].weight, wanted.anchor.weight, weight_error(n.classes)));
    for (index_t row = t.begins[a], i = 0; row < t.begins[a + 1]; ++row) {
      const bool counted = counts(t, row);
      for (index_t k = 0; k < n.width; ++k) {
        double sum = 0, size = 0, error = smallest<Hidden>();
        for (index_t c = 0; counted && c < n.classes; ++c) {
          const auto at = static_cast<std::size_t>(i * n.classes + c);
          const double w = convert_float<double>(w_student(c, k));
          const double x = convert_float<double>(x_student(row, k));
          sum += wanted.gradient[at] * w;
          size += std::abs(wanted.gradient[at] * w);
          error += wanted.tolerance[at] * std::abs(w);
          const auto in_w = static_cast<std::size_t>(c * n.width + k);
          wanted_w[in_w] += wanted.gradient[at] * x;
          error_w[in_w] += wanted.tolerance[at] * std::abs(x) + 0x1p-22 * std::abs(wanted_w[in_w]);
        }
        // Tensor cores cut off where float sums round.
        error += 0x1p-23 * static_cast<double>(n.classes) * size + unit<Hidden>() * std::abs(sum);
        CHECK(near(convert_float<double>(found_x(row, k)), sum, error));
      }
      i += counted ? 1 : 0;
      for (index_t k = n.width; k < dx.stride; ++k)
        CHECK(convert_float<double>(found_x(row, k)) == 9);
    }
  }
  for (index_t c = 0; c < n.classes; ++c)
    for (index_t k = 0; k < n.width; ++k) {
      const auto at = static_cast<std::size_t>(c * n.width + k);
      const double before = static_cast<double>(dw(c, k));
      REQUIRE(near(static_cast<double>(found_w(c, k)), before + wanted_w[at],
                   error_w[at] + 0x1p-22 * static_cast<double>(rows) * (1 + before)));
    }
}

}  // namespace

TEST_CASE("any chunks, any anchors") {
  const task t{{.tau = 1}, {0, 2, 2, 14, 19, 23}, some_labels(23, 4), 0.5};
  task whole = t;
  whole.labels.clear();
  whole.rule.weight = confidence::uniform;
  for (const index_t rows : {1, 3, 5, 30}) {
    const index_t bytes = (rows * 700 + 1500) * 4 / 3;
    check<bfloat16, bfloat16>(t, {50, 13, 9}, bytes);
    check<float16, float>(whole, {65, 8, 8}, bytes);
  }
  check<float, float>(t, {200, 13, 13}, 1 << 20);
  task loud = t;
  loud.rule.weight = confidence::max_probability;
  check<bfloat16, float>(loud, {129, 12, 5}, 1 << 20);
}

TEST_CASE("chunks hold whole anchors, and parts of those that alone do not fit") {
  const auto list = [](std::vector<index_t> begins, index_t most) {
    std::string out;
    for (const detail::head_chunk& c : detail::chunks_of(begins, most))
      out += std::to_string(c.first_row) + "-" + std::to_string(c.last_row) +
             (c.whole ? " " : "of" + std::to_string(c.first_anchor) + " ");
    return out;
  };
  CHECK(list({0}, 4) == "");
  CHECK(list({0, 0, 0}, 4) == "");
  CHECK(list({0, 2, 4, 5}, 4) == "0-4 4-5 ");
  CHECK(list({0, 1, 10, 10, 11, 15}, 4) == "0-1 1-5of1 5-9of1 9-10of1 10-11 11-15 ");
  CHECK(list({0, 9}, 9) == "0-9 ");
}

TEST_CASE("captured in a graph; the same bits again") {
  const own_stream stream;
  const exec::cuda policy = stream.policy();
  const logits<bfloat16> x = quarters<bfloat16>(9, 8, 8, 1), w = quarters<bfloat16>(40, 8, 8, 2),
                         before = quarters<bfloat16>(9, 8, 8, 3);
  const on_device<bfloat16> hidden(policy, x), head(policy, w), base(policy, before);
  const detail::device_array<cwsd_anchor> anchors(policy, 2);
  detail::device_array<float> dx(policy, 9 * 8), dw(policy, 40 * 8);
  const std::vector<index_t> begins{0, 2, 9};
  cwsd_head_workspace workspace(policy, std::span<const index_t>(begins),
                                std::span<const std::int64_t>(), 4096);
  const auto once = [&] {
    cwsd_through_head(policy, {}, {base, head, hidden, head},
                      cwsd_head_outputs<bfloat16, float>{
                          anchors.view(), matrix_view<float, device_space>(dx.data(), 9, 8),
                          matrix_view<float, device_space>(dw.data(), 40, 8)},
                      {}, workspace);
  };
  dw.fill_bytes(0);
  once();
  const std::vector<float> first = dx.to_host(), first_w = dw.to_host();
  const captured_graph graph(policy, once);
  dx.fill_bytes(0xff);
  dw.fill_bytes(0);
  graph.launch(policy);
  CHECK(first_difference(first, dx.to_host()) == -1);
  CHECK(first_difference(first_w, dw.to_host()) == -1);
}

namespace {

/// A head of zeros but for class 7 and the last: of the rest, all logits are 0.
void check_large_head(const exec::cuda& policy, index_t classes, index_t width, index_t bytes) {
  CAPTURE(classes);
  CAPTURE(width);
  const index_t rows = 4;
  const logits<bfloat16> x_teacher = quarters<bfloat16>(rows, width, width, 1),
                         x_student = quarters<bfloat16>(rows, width, width, 2);
  const on_device<bfloat16> xt(policy, x_teacher), xs(policy, x_student);
  std::vector<bfloat16> weights[2];  // of few columns, so that logits are exact and not large
  const index_t places[] = {7, classes - 1};
  detail::device_array<bfloat16> head(policy, classes * width);
  head.fill_bytes(0);
  for (const int which : {0, 1}) {
    weights[which].assign(static_cast<std::size_t>(width), bfloat16{});
    for (const index_t k : {index_t{0}, index_t{3}, width - 1})
      weights[which][static_cast<std::size_t>(k)] = to_bfloat16(which == 0 ? 0.5F : -0.25F);
    set_part(policy, head.data() + places[which] * width, weights[which]);
  }
  const auto logits_of = [&](const logits<bfloat16>& x) {
    logits<bfloat16> out{rows, classes, classes, 0, {}};
    out.values.resize(static_cast<std::size_t>(rows * classes));
    for (index_t i = 0; i < rows; ++i)
      for (const int which : {0, 1}) {
        double sum = 0;
        for (index_t k = 0; k < width; ++k)
          sum += convert_float<double>(x(i, k)) *
                 convert_float<double>(weights[which][static_cast<std::size_t>(k)]);
        out(i, places[which]) = convert_float<bfloat16>(sum);
        REQUIRE(convert_float<double>(out(i, places[which])) == sum);
      }
    return out;
  };
  const detail::device_array<cwsd_anchor> anchors(policy, 1);
  detail::device_array<float> dx(policy, rows * width), dw(policy, classes * width);
  dw.fill_bytes(0);
  const std::vector<index_t> begins{0, rows};
  cwsd_head_workspace workspace(policy, std::span<const index_t>(begins),
                                std::span<const std::int64_t>(), bytes);
  const matrix_view<const bfloat16, device_space> w(head.data(), classes, width);
  cwsd_through_head(policy, {}, cwsd_head_inputs<bfloat16>{xt, w, xs, w},
                    cwsd_head_outputs<bfloat16, float>{
                        anchors.view(), matrix_view<float, device_space>(dx.data(), rows, width),
                        matrix_view<float, device_space>(dw.data(), classes, width)},
                    {.scale = 8}, workspace);

  const expected wanted =
      on_host(task{{}, begins, {}, 8}, 0, logits_of(x_teacher), logits_of(x_student));
  CHECK(near(anchors.to_host()[0].divergence, wanted.anchor.divergence,
             0x1p-20 * (1 + wanted.mean_difference)));
  const auto gradient = [&](index_t i, index_t c) {
    const auto at = static_cast<std::size_t>(i * classes + c);
    return std::pair{wanted.gradient[at], wanted.tolerance[at]};
  };
  const std::vector<float> found_x = dx.to_host();
  for (index_t i = 0; i < rows; ++i)
    for (index_t k = 0; k < width; ++k) {
      double sum = 0, error = 0x1p-126;
      for (const int which : {0, 1}) {
        const auto [g, off] = gradient(i, places[which]);
        const double y = convert_float<double>(weights[which][static_cast<std::size_t>(k)]);
        sum += g * y;
        error += (off + 0x1p-21 * std::abs(g)) * std::abs(y);
      }
      REQUIRE(
          near(static_cast<double>(found_x[static_cast<std::size_t>(i * width + k)]), sum, error));
    }
  for (const index_t c : {index_t{0}, index_t{7}, classes / 2, classes - 2, classes - 1}) {
    const std::vector<float> row = part_of(policy, dw.data() + c * width, width);
    for (index_t k = 0; k < width; ++k) {
      double sum = 0, error = 0x1p-126;
      for (index_t i = 0; i < rows; ++i) {
        const auto [g, off] = gradient(i, c);
        const double x = convert_float<double>(x_student(i, k));
        sum += g * x;
        error += (off + 0x1p-21 * std::abs(g)) * std::abs(x);
      }
      REQUIRE(near(static_cast<double>(row[static_cast<std::size_t>(k)]), sum, error));
    }
  }
}

}  // namespace

TEST_CASE("a head of which two classes matter") {
  const own_stream stream;
  check_large_head(stream.policy(), 203, 40, 1 << 14);
}

TEST_CASE("a head of more than 2^31 elements") {
  const index_t classes = (index_t{1} << 18) + 3, width = 8200;
  if (!has_memory_for(static_cast<std::size_t>(classes * width) * 6 + (std::size_t{1} << 29)))
    return;
  const own_stream stream;
  check_large_head(stream.policy(), classes, width, cwsd_head_workspace::advised_bytes);
}

TEST_CASE("what callers get wrong") {
  const exec::cuda policy;
  const logits<float> x = quarters<float>(4, 3, 3, 1), w = quarters<float>(5, 3, 3, 2);
  const on_device<float> hidden(policy, x), head(policy, w);
  const detail::device_array<cwsd_anchor> anchors(policy, 2);
  const std::vector<index_t> begins{0, 1, 4};
  const std::vector<std::int64_t> labels(3);
  using span = std::span<const index_t>;
  using label_span = std::span<const std::int64_t>;
  const auto refuses = [&](const char* what, const auto& call) {
    CHECK_THROWS_WITH_AS(call(), doctest::Contains(what), invalid_argument);
  };
  refuses("begins must start with 0",
          [&] { cwsd_head_workspace(policy, span(), label_span(), 4096); });
  refuses("begins must not fall (anchor = 1, begins = 3, next = 2)", [&] {
    cwsd_head_workspace(policy, span(std::vector<index_t>{0, 3, 2}), label_span(), 4096);
  });
  refuses("one label per row (labels = 3, rows = 4)",
          [&] { cwsd_head_workspace(policy, span(begins), label_span(labels), 4096); });
  cwsd_head_workspace workspace(policy, span(begins), label_span(), 4096);
  const cwsd_head_outputs<float> outputs{anchors.view(), hidden};
  refuses("shapes must fit (matrix = student head, rows = 4, cols = 3, wanted rows = 4", [&] {
    const logits<float> wide = quarters<float>(4, 2, 2, 1);
    const on_device<float> narrow(policy, wide);
    cwsd_through_head(policy, {}, {hidden, head, narrow, hidden}, outputs, {}, workspace);
  });
  refuses("one result per anchor of the workspace (results = 0, anchors = 2)", [&] {
    cwsd_through_head(policy, {}, {hidden, head, hidden, head},
                      cwsd_head_outputs<float>{{}, hidden}, {}, workspace);
  });
  refuses("tau must be positive", [&] {
    cwsd_through_head(policy, {.tau = -1}, {hidden, head, hidden, head}, outputs, {}, workspace);
  });
  cwsd_head_workspace small(policy, span(begins), label_span(), 1024);
  refuses("has no room for one row", [&] {
    cwsd_through_head(policy, {}, {hidden, head, hidden, head}, outputs, {}, small);
  });
}
