// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <dualsft/detail/file_handle.hpp>
#include <span>
#include <string>
#include <utility>

namespace dualsft {

/// How a mapping is going to be walked; a hint for the read-ahead of the system.
enum class access_pattern { normal, sequential, random };

/// A whole file as bytes in the address space, read-only: pages are fetched when touched and may be
/// dropped by the system at any time, so a mapping larger than memory is fine.
///
/// A file that another process shortens while it is mapped kills this one (SIGBUS); no mapping can
/// do better. Read with npy_reader::read where that is a danger. Movable, not copyable; views of
/// the bytes live as long as the object that holds the mapping.
class mapped_file {
 public:
  mapped_file() = default;

  /// \throws input_error  if the path is not a readable regular file
  explicit mapped_file(std::string path, access_pattern access = access_pattern::normal)
      : mapped_file(detail::file_handle::open_existing(std::move(path)), access) {}

  explicit mapped_file(const detail::file_handle& file,
                       access_pattern access = access_pattern::normal)
      : size_(static_cast<std::size_t>(file.size())) {
    if (size_ == 0) return;  // an empty mapping is an error for the system, not for us
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.descriptor(), 0);
    if (address == MAP_FAILED)
      throw input_error(file.path(), "mapping", detail::system_message(errno),
                        std::to_string(size_) + " bytes of address space");
    address_ = address;
    if (access == access_pattern::sequential) ::madvise(address_, size_, MADV_SEQUENTIAL);
    if (access == access_pattern::random) ::madvise(address_, size_, MADV_RANDOM);
  }

  mapped_file(mapped_file&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~mapped_file() {
    if (address_ != nullptr) ::munmap(address_, size_);
  }

  std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(address_), size_};
  }

 private:
  void* address_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace dualsft
