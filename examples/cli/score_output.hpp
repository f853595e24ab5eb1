// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dualsft/config.hpp>
#include <dualsft/detail/file_handle.hpp>
#include <span>
#include <string>
#include <vector>

namespace dualsft::cli {

/// An output folder that changes all at once: files are made in a hidden folder inside it, and
/// publish() renames them into place. Destroyed unpublished, it leaves the folder as it was.
class staged_folder {
 public:
  /// \throws input_error  (field "output") if the folder cannot be made or written
  explicit staged_folder(std::string folder);
  ~staged_folder();
  staged_folder(const staged_folder&) = delete;
  staged_folder& operator=(const staged_folder&) = delete;

  /// Where to write the file that will be called `name`.
  std::string path(const std::string& name);

  /// For files that are not to be published.
  const std::string& staging() const noexcept { return staging_; }

  /// Renames in the order in which the paths were asked for.
  void publish();

 private:
  std::string folder_;
  std::string staging_;
  bool made_folder_ = false;
  std::vector<std::string> names_;
};

/// Scores on disk while the run lasts, in a file without a name that vanishes with the process.
/// A ScoreSource: parameter scores are written panel by panel and selected without ever being in
/// memory together.
class score_spool {
 public:
  /// \param folder  an existing folder with room for 8 bytes per score
  explicit score_spool(const std::string& folder);

  void append(std::span<const double> scores);

  index_t size() const noexcept { return size_; }
  void fill(index_t offset, std::span<double> out) const;

 private:
  detail::file_handle out_;
  detail::file_handle in_;
  index_t size_ = 0;
};

}  // namespace dualsft::cli
