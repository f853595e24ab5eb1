// SPDX-License-Identifier: Apache-2.0
#include "score_output.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <dualsft/error.hpp>
#include <filesystem>
#include <system_error>
#include <utility>

#include "terminal.hpp"

namespace dualsft::cli {

namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& reason) {
  throw input_error(path, "output", reason, "a writable place");
}

/// Whatever it is, a link that leads nowhere included.
bool there_is(const std::string& path) {
  std::error_code unknown;
  return std::filesystem::exists(std::filesystem::symlink_status(path, unknown));
}

}  // namespace

staged_folder::staged_folder(std::string folder) : folder_(std::move(folder)) {
  make_folders();
  staging_ = folder_ + "/.dualsft-XXXXXX";
  if (::mkdtemp(staging_.data()) == nullptr) {
    const int reason = errno;
    remove_folders();
    refuse(folder_, detail::system_message(reason));
  }
}

staged_folder::~staged_folder() {
  std::error_code ignored;
  if (!keep_staging_) std::filesystem::remove_all(staging_, ignored);
  remove_folders();
}

void staged_folder::make_folders() {
  std::filesystem::path here;
  for (const std::filesystem::path& step : std::filesystem::path(folder_)) {
    here /= step;
    std::error_code error;
    if (std::filesystem::create_directory(here, error)) {
      made_.push_back(here);
      continue;
    }
    std::error_code unknown;
    if (!error || std::filesystem::is_directory(here, unknown)) continue;
    remove_folders();
    refuse(folder_, error.message());
  }
}

/// Those that are empty: published files, or what somebody else put there meanwhile, stay.
void staged_folder::remove_folders() noexcept {
  for (; !made_.empty(); made_.pop_back()) {
    std::error_code ignored;
    std::filesystem::remove(made_.back(), ignored);
  }
}

void staged_folder::publish() {
  for (const std::string& name : names_) {
    std::error_code unknown;
    const auto type = std::filesystem::symlink_status(target(name), unknown).type();
    using std::filesystem::file_type;
    if (type == file_type::none) refuse(target(name), unknown.message());
    if (type != file_type::not_found && type != file_type::regular && type != file_type::symlink)
      throw input_error(target(name), "output",
                        type == file_type::directory ? "a directory" : "a device, socket or pipe",
                        "nothing, or a file to replace");
  }
  for (std::size_t done = 0; done < names_.size(); ++done) {
    const std::string& name = names_[done];
    // A second name keeps the old content without a moment in which the first is missing; file
    // systems that know no second names move it.
    const bool exists = there_is(target(name));
    int reason = 0;
    if (exists && ::link(target(name).c_str(), kept(name).c_str()) != 0 &&
        std::rename(target(name).c_str(), kept(name).c_str()) != 0)
      reason = errno;
    if (reason == 0 && std::rename((staging_ + "/" + name).c_str(), target(name).c_str()) != 0)
      reason = errno;
    if (reason == 0) continue;
    put_back(done + 1);
    refuse(target(name), detail::system_message(reason) +
                             (keep_staging_ ? " (earlier results are in " + staging_ + ")" : ""));
  }
}

void staged_folder::put_back(std::size_t count) {
  for (std::size_t i = count; i-- > 0;) {
    const std::string& name = names_[i];
    if (there_is(kept(name))) {
      if (std::rename(kept(name).c_str(), target(name).c_str()) != 0) keep_staging_ = true;
    } else if (i + 1 < count) {
      ::unlink(target(name).c_str());  // there was none before
    }
  }
}

score_spool::score_spool(const std::string& folder, std::string named)
    : named_(std::move(named)),
      out_(detail::file_handle::create_new(folder + "/.dualsft-scores-" +
                                           std::to_string(::getpid()))) {
  if (!out_.valid()) refuse(named_, detail::system_message(errno));
  in_ = detail::file_handle::open_existing(out_.path());
  ::unlink(out_.path().c_str());
}

void score_spool::append(std::span<const double> scores) {
  if (const int error = out_.write(std::as_bytes(scores)); error != 0)
    refuse(named_, detail::system_message(error));
  size_ += static_cast<index_t>(scores.size());
}

void score_spool::fill(index_t offset, std::span<double> out) const {
  stop_if_interrupted();
  in_.read_at(offset * index_t{sizeof(double)}, std::as_writable_bytes(out));
}

}  // namespace dualsft::cli
