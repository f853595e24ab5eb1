// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <dualsft/config.hpp>
#include <dualsft/error.hpp>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

/// POSIX files with an owner, and the texts that describe what went wrong with them.
namespace dualsft::detail {

static_assert(std::endian::native == std::endian::little,
              "dualsft: the file formats are little-endian and are read where they lie, so this "
              "machine must be little-endian too");

inline std::string system_message(int error) {
  return std::generic_category().message(error);
}

/// Text out of a file, made fit for an error message: one line, printable, of bounded length.
inline std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 96;
  constexpr char digits[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : text.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      out += "\\x";
      out += digits[byte >> 4];
      out += digits[byte & 15];
    } else {
      out += c;
    }
  }
  out += text.size() > longest ? "'..." : "'";
  return out;
}

/// Owner of one descriptor; knows its path for the messages.
class file_handle {
 public:
  file_handle() = default;
  file_handle(file_handle&& other) noexcept
      : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}
  file_handle& operator=(file_handle&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~file_handle() { close(); }

  /// An existing regular file.
  static file_handle open_existing(std::string path) {
    // Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
    file_handle file(std::move(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file.descriptor_ < 0)
      throw input_error(file.path_, "file", system_message(errno), "a readable file");
    struct stat status {};
    if (::fstat(file.descriptor_, &status) != 0)
      throw input_error(file.path_, "file", system_message(errno), "a readable file");
    if (!S_ISREG(status.st_mode))
      throw input_error(file.path_, "file",
                        S_ISDIR(status.st_mode) ? "a directory" : "a device, socket or pipe",
                        "a regular file");
    return file;
  }

  /// A new file; the descriptor is invalid, with errno set, if there is one already.
  static file_handle create_new(std::string path) {
    return {std::move(path), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC};
  }

  bool valid() const noexcept { return descriptor_ >= 0; }
  int descriptor() const noexcept { return descriptor_; }
  const std::string& path() const noexcept { return path_; }

  index_t size() const {
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0)
      throw input_error(path_, "file size", system_message(errno), "a readable file");
    return static_cast<index_t>(status.st_size);
  }

  /// Fills `out` from [offset, offset + out.size()). Needs no shared position: thread-safe.
  void read_at(index_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
      const ssize_t got =
          ::pread(descriptor_, out.data(), std::min(out.size(), longest_call), offset);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw input_error(path_, "data", system_message(errno), "readable bytes");
      if (got == 0)
        throw input_error(path_, "data", "end of file at byte " + std::to_string(offset),
                          std::to_string(out.size()) + " more bytes");
      out = out.subspan(static_cast<std::size_t>(got));
      offset += got;
    }
  }

  /// Appends all bytes; returns errno, 0 if well.
  int write(std::span<const std::byte> bytes) const noexcept {
    while (!bytes.empty()) {
      const ssize_t put = ::write(descriptor_, bytes.data(), std::min(bytes.size(), longest_call));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return errno;
      bytes = bytes.subspan(static_cast<std::size_t>(put));
    }
    return 0;
  }

  void close() noexcept {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }

 private:
  // Linux moves at most 2^31 - 4096 bytes per call.
  static constexpr std::size_t longest_call = std::size_t{1} << 30;

  file_handle(std::string path, int flags)
      : path_(std::move(path)), descriptor_(::open(path_.c_str(), flags, 0666)) {}

  std::string path_;
  int descriptor_ = -1;
};

}  // namespace dualsft::detail
