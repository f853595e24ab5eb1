// Proves: the learning-rate schedules, their warmup and their ends.
// Against: hand-computed values of Hugging Face's formulas.
#include <doctest/doctest.h>

#include <cmath>
#include <dualsft/optim/schedule.hpp>
#include <limits>

using namespace dualsft;

namespace {
// A rate is a handful of roundings of numbers no larger than the peak.
doctest::Approx near(double x) {
  return doctest::Approx(x).epsilon(1e-14);
}
}  // namespace

TEST_CASE("cosine with warmup") {
  const learning_rate_schedule schedule{.peak = 2.0, .total_steps = 110, .warmup_steps = 10};
  CHECK(schedule.rate(0) == 0);
  CHECK(schedule.rate(1) == near(0.2));
  CHECK(schedule.rate(9) == near(1.8));
  CHECK(schedule.rate(10) == 2.0);
  CHECK(schedule.rate(35) == near(1 + std::sqrt(0.5)));  // a quarter: cos(pi / 4)
  CHECK(schedule.rate(60) == near(1));                   // half way
  CHECK(schedule.rate(85) == near(1 - std::sqrt(0.5)));
  CHECK(schedule.rate(109) > 0);
  CHECK(schedule.rate(110) == 0);
  CHECK(schedule.rate(1000000) == 0);  // stays there
}

TEST_CASE("linear with warmup and a final rate") {
  const learning_rate_schedule schedule{.kind = schedule_kind::linear,
                                        .peak = 1.0,
                                        .total_steps = 50,
                                        .warmup_steps = 10,
                                        .final_rate = 0.2};
  CHECK(schedule.rate(5) == near(0.5));
  CHECK(schedule.rate(10) == 1.0);
  CHECK(schedule.rate(20) == near(0.8));
  CHECK(schedule.rate(49) == near(0.22));
  CHECK(schedule.rate(50) == near(0.2));
  CHECK(schedule.rate(99) == near(0.2));
  const learning_rate_schedule cosine{
      .peak = 1.0, .total_steps = 40, .warmup_ratio = 0, .final_rate = 0.5};
  CHECK(cosine.rate(0) == 1.0);
  CHECK(cosine.rate(20) == near(0.75));
  CHECK(cosine.rate(40) == near(0.5));
}

TEST_CASE("constant") {
  const learning_rate_schedule schedule{
      .kind = schedule_kind::constant, .peak = 3.0, .total_steps = 20, .warmup_steps = 4};
  CHECK(schedule.rate(1) == near(0.75));
  CHECK(schedule.rate(4) == 3.0);
  CHECK(schedule.rate(20) == 3.0);
}

TEST_CASE("the ratio rounds the warmup up, as Hugging Face does") {
  CHECK(learning_rate_schedule{.total_steps = 100}.warmup() == 3);
  CHECK(learning_rate_schedule{.total_steps = 101}.warmup() == 4);
  CHECK(learning_rate_schedule{.total_steps = 1}.warmup() == 1);
  CHECK(learning_rate_schedule{.total_steps = 100, .warmup_ratio = 0}.warmup() == 0);
  CHECK(learning_rate_schedule{.total_steps = 100, .warmup_steps = 0}.warmup() == 0);
}

TEST_CASE("degenerate runs have finite rates") {
  const learning_rate_schedule empty{.peak = 1};
  CHECK(empty.rate(0) == 1);
  CHECK(empty.rate(1) == 0);
  const learning_rate_schedule all_warmup{.peak = 1, .total_steps = 8, .warmup_ratio = 1};
  CHECK(all_warmup.rate(7) == near(0.875));
  CHECK(all_warmup.rate(8) == 1);
  const learning_rate_schedule long_warmup{.peak = 1, .total_steps = 8, .warmup_steps = 16};
  CHECK(long_warmup.rate(8) == 0.5);
}

TEST_CASE("names and refusals") {
  for (const auto kind : {schedule_kind::cosine, schedule_kind::linear, schedule_kind::constant})
    CHECK(schedule_kind_from(name_of(kind)) == kind);
  CHECK_FALSE(schedule_kind_from("polynomial").has_value());
  CHECK_THROWS_AS(learning_rate_schedule{}.rate(-1), invalid_argument);
  CHECK_THROWS_AS(learning_rate_schedule{.peak = -1}.rate(0), invalid_argument);
  CHECK_THROWS_AS(learning_rate_schedule{.peak = std::numeric_limits<double>::infinity()}.rate(0),
                  invalid_argument);
  CHECK_THROWS_AS(learning_rate_schedule{.final_rate = std::nan("")}.rate(0), invalid_argument);
  CHECK_THROWS_AS(learning_rate_schedule{.warmup_ratio = 1.5}.rate(0), invalid_argument);
  CHECK_THROWS_AS(learning_rate_schedule{.total_steps = -1}.rate(0), invalid_argument);
  CHECK_THROWS_AS(learning_rate_schedule{.warmup_steps = -1}.rate(0), invalid_argument);
}
