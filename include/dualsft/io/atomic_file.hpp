// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <dualsft/detail/file_handle.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dualsft {

/// A file that appears whole or not at all: bytes go to `<path>.partial-<process>-<number>` beside
/// it, commit() flushes them to the disk and renames. Whoever opens `path` sees the old content or
/// the new one. An object destroyed without commit() removes its temporary.
///
/// \throws input_error  (field "output") if the folder or the disk refuses, from any member
class atomic_file {
 public:
  explicit atomic_file(std::string path) : path_(std::move(path)) {
    static std::atomic<unsigned> counter{0};
    for (int attempt = 0; attempt < 100; ++attempt) {
      file_ = detail::file_handle::create_new(path_ + ".partial-" + std::to_string(::getpid()) +
                                              "-" + std::to_string(counter++));
      if (file_.valid()) break;
      if (errno != EEXIST) fail(errno);
    }
    if (!file_.valid()) fail(EEXIST);
    buffer_.reserve(buffer_size);
  }

  atomic_file(const atomic_file&) = delete;
  atomic_file& operator=(const atomic_file&) = delete;
  atomic_file(atomic_file&& other) noexcept = default;
  atomic_file& operator=(atomic_file&&) = delete;

  ~atomic_file() {
    if (file_.valid()) ::unlink(file_.path().c_str());
  }

  const std::string& path() const noexcept { return path_; }

  void write(std::span<const std::byte> bytes) {
    expects(file_.valid(), "atomic_file::write", "the file must not have been committed", "path",
            path_);
    if (buffer_.size() + bytes.size() > buffer_size) flush();
    if (bytes.size() >= buffer_size)
      put(bytes);
    else
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }

  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  void commit() {
    expects(file_.valid(), "atomic_file::commit", "the file must not have been committed", "path",
            path_);
    flush();
    if (::fsync(file_.descriptor()) != 0) fail(errno);
    if (std::rename(file_.path().c_str(), path_.c_str()) != 0) fail(errno);
    file_.close();
    sync_folder();
  }

 private:
  static constexpr std::size_t buffer_size = std::size_t{1} << 16;

  [[noreturn]] void fail(int error) const {
    throw input_error(path_, "output", detail::system_message(error), "a writable place");
  }

  void put(std::span<const std::byte> bytes) {
    if (const int error = file_.write(bytes); error != 0) fail(error);
  }

  void flush() {
    put(buffer_);
    buffer_.clear();
  }

  // Makes the rename itself survive a power cut; some file systems refuse, and nothing is lost then
  // but that promise.
  void sync_folder() const noexcept {
    const auto slash = path_.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    ::fsync(descriptor);
    ::close(descriptor);
  }

  std::string path_;
  detail::file_handle file_;
  std::vector<std::byte> buffer_;
};

}  // namespace dualsft
