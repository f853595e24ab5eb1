#pragma once
#include <played_device.hpp>
namespace cub {

enum BlockReduceAlgorithm {
  BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY,
  BLOCK_REDUCE_RAKING,
  BLOCK_REDUCE_WARP_REDUCTIONS
};

/// In the threads' order, by the first thread; what the others get is theirs.
template <class T, int X, BlockReduceAlgorithm = BLOCK_REDUCE_WARP_REDUCTIONS, int Y = 1, int Z = 1>
class BlockReduce {
 public:
  struct TempStorage {
    alignas(T) unsigned char bytes[sizeof(T) * X * Y * Z];
  };
  explicit BlockReduce(TempStorage& storage) : storage_(storage) {}

  template <class Op>
  T Reduce(T value, Op op) {
    if (blockDim.x * blockDim.y * blockDim.z != static_cast<unsigned>(X * Y * Z))
      throw std::logic_error("BlockReduce is made for another number of threads");
    T* const values = reinterpret_cast<T*>(storage_.bytes);
    const std::size_t self = played::block::running().number();
    new (values + self) T(value);
    __syncthreads();
    if (self == 0)
      for (int t = 1; t < X * Y * Z; ++t) value = op(value, values[t]);
    __syncthreads();
    return value;
  }
  T Sum(T value) {
    return Reduce(value, [](const T& a, const T& b) { return a + b; });
  }

 private:
  TempStorage& storage_;
};

}  // namespace cub
