// Proves: a saved optimizer continues bit for bit, and a foreign or damaged state is refused.
// Against: the run that was not interrupted; every truncation and every damaged byte of a stream.
#include <doctest/doctest.h>

#include <dualsft/optim/masked_adamw.hpp>
#include <dualsft/optim/masked_sgd.hpp>
#include <sstream>
#include <string>
#include <support/optim.hpp>
#include <vector>

using namespace dualsft;
using namespace dualsft::testing;

namespace {

constexpr index_t d = 1003;

index_set mask(std::uint64_t seed) {
  random_source random(seed);
  std::vector<index_t> chosen;
  for (index_t i = 0; i < d; i += 10) chosen.push_back(std::min(d - 1, i + random.below(10)));
  return {std::move(chosen), d};
}

template <class Optimizer>
void run(Optimizer& optimizer, std::vector<typename Optimizer::scalar_type>& theta, int first,
         int last) {
  using Real = typename Optimizer::scalar_type;
  for (int k = first; k < last; ++k) {
    random_source random(41, static_cast<std::uint64_t>(k));
    const std::vector<Real> gradient = heavy_values<Real>(d, random);
    optimizer.step(exec::cpu{2}, std::span<Real>(theta), std::span<const Real>(gradient),
                   1e-3 * (k + 1));
  }
}

template <class Optimizer>
std::string saved(const Optimizer& optimizer) {
  std::ostringstream out;
  optimizer.save(out);
  return out.str();
}

template <class Optimizer>
std::string failed_field(Optimizer& optimizer, const std::string& bytes) {
  std::istringstream in(bytes);
  try {
    optimizer.load(in, "state.bin");
  } catch (const input_error& error) {
    CHECK(error.file() == "state.bin");
    CHECK_FALSE(error.found().empty());
    CHECK_FALSE(error.expected().empty());
    return error.field();
  }
  return "";
}

template <class Optimizer>
void continues(const Optimizer& fresh) {
  using Real = typename Optimizer::scalar_type;
  random_source random(43);
  const std::vector<Real> start = heavy_values<Real>(d, random);
  Optimizer whole = fresh, first = fresh, second = fresh;
  std::vector<Real> a = start, b = start;
  run(whole, a, 0, 10);
  run(first, b, 0, 5);
  std::stringstream stream;
  first.save(stream);
  stream << "what follows";  // a state may be a part of a longer stream
  second.load(stream);
  CHECK(second.steps() == 5);
  const std::vector<Real> one(1);
  CHECK_THROWS_AS(
      second.update(exec::cpu{}, 0, std::span<Real>(b).first(1), std::span<const Real>(one)),
      invalid_argument);  // a step must be begun first
  run(second, b, 5, 10);
  CHECK(first_difference(a, b) == -1);
  CHECK(saved(whole) == saved(second));
  std::string rest;
  std::getline(stream, rest);
  CHECK(rest == "what follows");
}

}  // namespace

TEST_CASE_TEMPLATE("ten steps are five, a file, and five", Real, float, double) {
  continues(adamw<Real>(d, {.weight_decay = 0.1}));
  continues(masked_adamw<Real>(mask(1), {.weight_decay = 0.1}));
  continues(sgd<Real>(d, {.momentum = 0.9}));
  continues(sgd<Real>(d));
  continues(masked_sgd<Real>(mask(1), {.momentum = 0.9, .kind = momentum_kind::nesterov}));
}

TEST_CASE("the bytes are the documented ones") {
  masked_adamw<float> optimizer(index_set({1, 4, 5}, 7));
  std::vector<float> theta(7, 1.0f);
  const std::vector<float> gradient(7, 1.0f);
  optimizer.step(exec::cpu{1}, std::span<float>(theta), std::span<const float>(gradient), 0.1);
  const std::string bytes = saved(optimizer);
  // 8 words of header, 4 options, steps, arrays; 2 words for each array of 3 floats; checksum.
  REQUIRE(bytes.size() == 8 * (8 + 4 + 2 + 2 * 2 + 1));
  CHECK(bytes.substr(0, 8) == std::string("dualsft\0", 8));
  CHECK(bytes.substr(8, 8) == std::string("\1\0\0\0\0\0\0\0", 8));
  CHECK(bytes.substr(16, 8) == std::string("adamw\0\0\0", 8));
  CHECK(bytes.substr(24, 8) == std::string("masked\0\0", 8));
  CHECK(bytes[32] == 4);
  CHECK(bytes[40] == 7);
  CHECK(bytes[48] == 3);
  CHECK(bytes[8 * 12] == 1);
  // 0.1f is 0x3dcccccd, low byte first; the padding behind the third is zero.
  CHECK(bytes.substr(8 * 14, 4) == std::string("\xcd\xcc\xcc\x3d", 4));
  CHECK(bytes.substr(8 * 15 + 4, 4) == std::string(4, '\0'));
}

TEST_CASE("a state of another optimizer is refused by name") {
  masked_adamw<float> optimizer(mask(1));
  const auto field = [&](const auto& other) { return failed_field(optimizer, saved(other)); };
  CHECK(field(masked_adamw<float>(mask(1))) == "");
  CHECK(field(masked_sgd<float>(mask(1))) == "kind");
  CHECK(field(adamw<float>(d)) == "placement");
  CHECK(field(masked_adamw<double>(mask(1))) == "scalar bytes");
  CHECK(field(masked_adamw<float>(index_set({1}, d + 1))) == "coordinates");
  CHECK(field(masked_adamw<float>(index_set({1}, d))) == "selected");
  CHECK(field(masked_adamw<float>(mask(2))) == "mask digest");
  CHECK(field(masked_adamw<float>(mask(1), {.beta1 = 0.8})) == "beta1");
  CHECK(field(masked_adamw<float>(mask(1), {.weight_decay = 0.8})) == "weight_decay");
  CHECK(failed_field(optimizer, "") == "magic");
  CHECK(failed_field(optimizer, "PK\3\4 something else altogether") == "magic");
  sgd<float> heavy(d, {.momentum = 0.9});
  CHECK(failed_field(heavy, saved(sgd<float>(d, {.momentum = 0.9,
                                                 .kind = momentum_kind::nesterov}))) == "nesterov");
}

TEST_CASE("no truncation and no damaged byte gets through, and nothing changes") {
  masked_adamw<double> optimizer(index_set({1, 4, 5}, d));
  std::vector<double> theta(d, 1.0);
  run(optimizer, theta, 0, 2);
  const std::string bytes = saved(optimizer);
  masked_adamw<double> target(index_set({1, 4, 5}, d));
  run(target, theta, 0, 1);
  const std::string before = saved(target);
  for (std::size_t n = 0; n < bytes.size(); ++n)
    CHECK(failed_field(target, bytes.substr(0, n)) != "");
  for (std::size_t n = 0; n < bytes.size(); ++n)
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string damaged = bytes;
      damaged[n] = static_cast<char>(damaged[n] ^ flip);
      CHECK(failed_field(target, damaged) != "");
    }
  CHECK(saved(target) == before);
  CHECK(failed_field(target, bytes) == "");
  CHECK(saved(target) == bytes);
}

TEST_CASE("a stream that cannot be written is an error") {
  const adamw<float> optimizer(3);
  std::ostringstream out;
  out.setstate(std::ios::badbit);
  CHECK_THROWS_AS(optimizer.save(out, "full disk"), input_error);
}
