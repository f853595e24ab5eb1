// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

/// A file in memory that has a path, so that the readers are driven through their front door.
class memory_path {
 public:
  memory_path(const std::uint8_t* data, std::size_t size)
      : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)),
        path_("/proc/self/fd/" + std::to_string(descriptor_)) {
    if (descriptor_ < 0) std::abort();
    for (std::size_t done = 0; done < size;) {
      const auto put = ::write(descriptor_, data + done, size - done);
      if (put <= 0) std::abort();
      done += static_cast<std::size_t>(put);
    }
  }
  memory_path(const memory_path&) = delete;
  memory_path& operator=(const memory_path&) = delete;
  ~memory_path() { ::close(descriptor_); }

  const std::string& path() const { return path_; }

 private:
  int descriptor_;
  std::string path_;
};

/// For what must hold of every accepted file; a sanitizer cannot know it.
inline void must(bool holds) {
  if (!holds) std::abort();
}
