#pragma once
#include <algorithm>
#include <cstddef>
#include <played_device.hpp>
#include <vector>

// As much of Thrust as lets its vectors be adapted and copied.
namespace thrust {

template <class T>
class device_ptr {
 public:
  device_ptr() = default;
  explicit device_ptr(T* at) : at_(at) {}
  T* get() const { return at_; }

 private:
  T* at_ = nullptr;
};

template <class T>
class device_vector {
 public:
  device_vector() = default;
  explicit device_vector(std::size_t size, T value = T()) : values_(size, value) {}
  template <class Iterator>
  device_vector(Iterator begin, Iterator end) : values_(begin, end) {}

  device_ptr<T> data() { return device_ptr<T>(values_.data()); }
  device_ptr<const T> data() const { return device_ptr<const T>(values_.data()); }
  std::size_t size() const { return values_.size(); }
  auto begin() { return values_.begin(); }
  auto end() { return values_.end(); }
  auto begin() const { return values_.begin(); }
  auto end() const { return values_.end(); }

 private:
  std::vector<T> values_;
};

template <class T>
T* raw_pointer_cast(const device_ptr<T>& at) {
  return at.get();
}
template <class From, class To>
To copy(From begin, From end, To to) {
  return std::copy(begin, end, to);
}

}  // namespace thrust
