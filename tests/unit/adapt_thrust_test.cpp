// Proves: device vectors become views of the same memory, const where they are, and what is no device
// memory is refused. Against: stand-ins with Thrust's interface (tests/cuda has Thrust's own).
#include <doctest/doctest.h>

#include <dualsft/adapt/thrust.hpp>
#include <utility>
#include <vector>

using namespace dualsft;

namespace {

template <class T>
struct device_ptr {
  T* address;
  T* get() const { return address; }
};

template <class T>
struct device_vector {
  std::vector<T> memory;
  device_ptr<T> data() { return {memory.data()}; }
  device_ptr<const T> data() const { return {memory.data()}; }
  std::size_t size() const { return memory.size(); }
};

template <class X>
concept Adapts = requires(X&& x) {
  as_device_view(std::forward<X>(x));
};

static_assert(Adapts<device_vector<float>&> && Adapts<const device_vector<float>&>);
static_assert(!Adapts<device_vector<float>>, "a temporary");
static_assert(!Adapts<std::vector<float>&>, "the host's memory");
static_assert(std::same_as<decltype(as_device_view(std::declval<const device_vector<int>&>())),
                           vector_view<const int, device_space>>);

}  // namespace

TEST_CASE("vectors, pointers and matrices keep their memory") {
  device_vector<float> x{{1, 2, 3, 4, 5, 6}};
  const auto view = as_device_view(x);
  CHECK(view.data() == x.memory.data());
  CHECK(view.size() == 6);
  const auto part = as_device_view(device_ptr<float>{x.memory.data() + 2}, 3);
  CHECK(part.data() == x.memory.data() + 2);
  CHECK(part.size() == 3);
  const auto matrix = as_device_matrix_view(std::as_const(x), 2, 3);
  CHECK(matrix.row(1).data() == x.memory.data() + 3);
  for (const auto& [rows, cols] :
       {std::pair{2, 2}, std::pair{7, 1}, std::pair{0, 0}, std::pair{6, 0}})
    CHECK_THROWS_WITH_AS(as_device_matrix_view(x, rows, cols),
                         doctest::Contains("must have rows * cols elements (size = 6"),
                         invalid_argument);
  device_vector<float> none;
  CHECK(as_device_matrix_view(none, 5, 0).rows() == 5);
}
