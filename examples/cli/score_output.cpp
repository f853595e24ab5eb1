// SPDX-License-Identifier: Apache-2.0
#include "score_output.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <dualsft/error.hpp>
#include <filesystem>
#include <system_error>

#include "terminal.hpp"

namespace dualsft::cli {

namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& reason) {
  throw input_error(path, "output", reason, "a writable place");
}

}  // namespace

staged_folder::staged_folder(std::string folder) : folder_(std::move(folder)) {
  std::error_code error;
  made_folder_ = std::filesystem::create_directories(folder_, error);
  if (error) refuse(folder_, error.message());
  staging_ = folder_ + "/.dualsft-XXXXXX";
  if (::mkdtemp(staging_.data()) == nullptr) {
    const int reason = errno;
    if (made_folder_) std::filesystem::remove(folder_, error);
    refuse(folder_, detail::system_message(reason));
  }
}

staged_folder::~staged_folder() {
  std::error_code ignored;
  std::filesystem::remove_all(staging_, ignored);
  if (made_folder_) std::filesystem::remove(folder_, ignored);  // succeeds only if empty
}

std::string staged_folder::path(const std::string& name) {
  names_.push_back(name);
  return staging_ + "/" + name;
}

void staged_folder::publish() {
  for (const std::string& name : names_)
    if (std::rename((staging_ + "/" + name).c_str(), (folder_ + "/" + name).c_str()) != 0)
      refuse(folder_ + "/" + name, detail::system_message(errno));
}

score_spool::score_spool(const std::string& folder)
    : out_(detail::file_handle::create_new(folder + "/.dualsft-scores-" +
                                           std::to_string(::getpid()))) {
  if (!out_.valid()) refuse(out_.path(), detail::system_message(errno));
  in_ = detail::file_handle::open_existing(out_.path());
  ::unlink(out_.path().c_str());
}

void score_spool::append(std::span<const double> scores) {
  if (const int error = out_.write(std::as_bytes(scores)); error != 0)
    refuse(out_.path(), detail::system_message(error));
  size_ += static_cast<index_t>(scores.size());
}

void score_spool::fill(index_t offset, std::span<double> out) const {
  stop_if_interrupted();
  in_.read_at(offset * index_t{sizeof(double)}, std::as_writable_bytes(out));
}

}  // namespace dualsft::cli
