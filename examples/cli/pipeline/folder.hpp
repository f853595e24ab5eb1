// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "options.hpp"

namespace dualsft::cli {

/// The folder of a run: its settings, and where each stage's files lie. One process at a time works
/// in it.
///
/// settings.json holds, for every stage that has begun, the value of each setting that means
/// something to it, and a digest of every file that was read. They are what makes results: a stage
/// that finds another value than the one it, or a stage before it, began with is refused.
class run_folder {
 public:
  enum class start {
    fresh,  ///< the folder must not hold a run
    any,    ///< go on from what is there
  };

  /// Makes the folder where needed, locks it, and removes what a killed process left half written.
  /// \throws input_error  if it cannot be made or written, another process works in it, or its
  ///                      settings.json is broken
  /// \throws usage_error  for a fresh start in a folder with a run, and any in one that holds
  ///                      results of no known settings
  run_folder(std::string path, start how);
  ~run_folder();
  run_folder(const run_folder&) = delete;
  run_folder& operator=(const run_folder&) = delete;

  const std::string& path() const noexcept { return path_; }
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
  bool has(std::string_view name) const;

  /// Options that the command line does not give take the value of `which`, or of the latest stage
  /// before it that has begun.
  void complete(pipeline_options& options, stage which) const;

  /// The stage begins, or goes on, with these options and files. They may change until it, or a
  /// later stage, has left something.
  /// \param inputs  option and path of each file that the stage reads; folders stand for the
  ///                checkpoint in them
  /// \throws input_error  naming the option or file that differs from what it was
  void begin(stage which, const pipeline_options& options,
             const std::vector<std::pair<std::string, std::string>>& inputs);

  /// Whether the stage has results, or a saved state; for `data`, whether any has.
  bool has_left(stage which) const;

  /// The stage is done.
  /// \param files         equal for equal settings: their digests are kept
  /// \param measurements  files that hold times and memory: that they are there is kept
  void finish(stage which, const std::vector<std::string>& files,
              const std::vector<std::string>& measurements);
  /// Whether finish() was called, in this run or before.
  /// \throws input_error  if one of its files is missing or not what it was
  bool is_done(stage which) const;

  /// For files that are read a second time.
  /// \throws input_error  if the option's file is no longer what it was when the stage began
  void check_input(std::string_view option, const std::string& path) const;

  /// What the report says of the model.
  void describe_model(nlohmann::ordered_json model);

  /// A digest of everything that was told to begin() for stages up to this one: what its saved state
  /// belongs to.
  std::string key(stage last) const;

  /// Where unfinished stages keep their state; made on first use.
  std::string state_file(std::string_view name);
  void remove_state(std::string_view name) noexcept;

  /// Of an earlier attempt that this one does not write.
  void remove(std::string_view name) const noexcept;

  void write(std::string_view name, const nlohmann::ordered_json& value) const;
  /// \throws input_error  if the file is missing or not a JSON object
  nlohmann::ordered_json read(std::string_view name) const;

 private:
  void write_settings() const;

  std::string path_;
  int lock_ = -1;
  bool made_ = false;  ///< the folder was not there before
  nlohmann::ordered_json settings_;
};

/// Where a run in `folder` would write over what lies at `path`: the name of a result, "." for the
/// folder itself, or nothing.
std::string result_at(const std::string& folder, const std::string& path);

/// Makes a folder and what it lies in.
/// \throws input_error  (field "output")
void write_folder(const std::string& path);

/// 16 hexadecimal digits over the bytes of a file, or of a checkpoint folder's files.
/// \throws input_error  if one cannot be read
std::string fingerprint(const std::string& path);

}  // namespace dualsft::cli
