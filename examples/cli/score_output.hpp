// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <dualsft/detail/file_handle.hpp>
#include <dualsft/error.hpp>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace dualsft::cli {

/// An output folder that changes all at once: files are made in a hidden folder inside it, and
/// publish() renames them into place, all or none. Destroyed unpublished, it leaves the folder as it
/// was, and removes every folder that it had to make.
class staged_folder {
 public:
  /// \throws input_error  (field "output") if the folder cannot be made or written
  explicit staged_folder(std::string folder);
  ~staged_folder();
  staged_folder(const staged_folder&) = delete;
  staged_folder& operator=(const staged_folder&) = delete;

  /// Calls make(path) to write the file that will be called `name`; what it throws about that path
  /// is told of the final one.
  template <class Make>
  void add(const std::string& name, Make&& make) {
    const std::string path = staging_ + "/" + name;
    names_.push_back(name);
    try {
      make(path);
    } catch (const input_error& error) {
      if (error.file() != path) throw;
      throw input_error(target(name), error.field(), error.found(), error.expected());
    }
  }

  const std::string& folder() const noexcept { return folder_; }

  /// For files that are not to be published.
  const std::string& staging() const noexcept { return staging_; }

  /// Renames in the order in which the files were added; if one cannot be, those before it are put
  /// back to what they were.
  /// \throws input_error  naming the target that is in the way
  void publish();

 private:
  std::string target(const std::string& name) const { return folder_ + "/" + name; }
  std::string kept(const std::string& name) const { return staging_ + "/before-" + name; }
  void make_folders();
  void remove_folders() noexcept;
  void put_back(std::size_t count);

  std::string folder_;
  std::string staging_;
  bool keep_staging_ = false;
  std::vector<std::filesystem::path> made_;  // outermost first
  std::vector<std::string> names_;
};

/// Scores on disk while the run lasts, in a file without a name that vanishes with the process.
/// A ScoreSource: parameter scores are written panel by panel and selected without ever being in
/// memory together.
class score_spool {
 public:
  /// \param folder  an existing folder with room for 8 bytes per score
  /// \param named   what messages call the place
  score_spool(const std::string& folder, std::string named);

  void append(std::span<const double> scores);

  index_t size() const noexcept { return size_; }
  void fill(index_t offset, std::span<double> out) const;

 private:
  std::string named_;
  detail::file_handle out_;
  detail::file_handle in_;
  index_t size_ = 0;
};

}  // namespace dualsft::cli
