#pragma once
#include <played_device.hpp>
namespace cub {

template <class T, int Lanes = 32>
class WarpReduce {
 public:
  struct TempStorage {};
  explicit WarpReduce(TempStorage&) {}
  template <class Op>
  T Reduce(T value, Op op) {
    const int begin = played::piece_begin(Lanes);
    const unsigned mask = Lanes == 32 ? 0xffffffffU : ((1U << (Lanes % 32)) - 1) << begin;
    const auto all = played::block::running().exchange(mask, value);
    if (played::block::running().lane() != begin) return value;
    for (int lane = begin + 1; lane < begin + Lanes; ++lane)
      if ((all->lanes >> lane & 1U) != 0) value = op(value, all->template of<T>(lane));
    return value;
  }
  T Sum(T value) {
    return Reduce(value, [](const T& a, const T& b) { return a + b; });
  }

 private:
};

}  // namespace cub
