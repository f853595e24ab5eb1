// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>
#include <string>
#include <support/scratch_folder.hpp>
#include <vector>

/// The program under test as a child process, run in a folder of its own.
class program {
 public:
  struct outcome {
    int code = 0;  ///< exit code, or 1000 + signal
    std::string out, err;
  };

  explicit program(const scratch_folder& folder) : folder_(folder) {}

  outcome run(const std::vector<std::string>& arguments) const { return finish(start(arguments)); }

  pid_t start(const std::vector<std::string>& arguments) const {
    std::vector<std::string> words{DUALSFT_PROGRAM};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const std::string out = folder_ / ".stdout", err = folder_ / ".stderr", home = folder_ / ".";
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    constexpr int flags = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), flags, 0600);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), flags, 0600);
    posix_spawn_file_actions_addchdir_np(&actions, home.c_str());
    pid_t child = 0;
    const int error = posix_spawn(&child, DUALSFT_PROGRAM, &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw std::runtime_error("cannot start " DUALSFT_PROGRAM);
    return child;
  }

  outcome finish(pid_t child) const {
    int status = 0;
    if (::waitpid(child, &status, 0) != child) throw std::runtime_error("waitpid failed");
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return {code, file_bytes(folder_ / ".stdout"), file_bytes(folder_ / ".stderr")};
  }

 private:
  const scratch_folder& folder_;
};
