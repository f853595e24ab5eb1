// Proves: files of an output folder are published all or none, also when a rename fails midway.
// Against: the folder's content before; the failure is a file that is gone when its turn comes.
#include <doctest/doctest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <score_output.hpp>
#include <support/scratch_folder.hpp>

using namespace dualsft;

namespace {

void add(cli::staged_folder& staged, const std::string& name, const std::string& text) {
  staged.add(name, [&](const std::string& path) { std::ofstream(path) << text; });
}

}  // namespace

TEST_CASE("a rename that fails midway puts everything back") {
  const scratch_folder folder;
  folder.put("a", "old a");
  folder.put("b", "old b");
  std::filesystem::create_symlink("nowhere", folder / "link");
  {
    cli::staged_folder staged(folder / "");
    for (const char* name : {"a", "new", "link", "b"}) add(staged, name, "new");
    staged.add("gone", [](const std::string& path) {
      std::ofstream(path) << "new";
      std::remove(path.c_str());
    });
    add(staged, "last", "new");
    CHECK_THROWS_WITH_AS(staged.publish(), doctest::Contains("gone: output: "), input_error);
  }
  CHECK(file_bytes(folder / "a") == "old a");
  CHECK(file_bytes(folder / "b") == "old b");
  CHECK(std::filesystem::read_symlink(folder / "link") == "nowhere");
  CHECK(folder.file_count() == 3);
}

TEST_CASE("what publishes replaces files and links, and leaves nothing else") {
  const scratch_folder folder;
  folder.put("a", "old a");
  {
    cli::staged_folder staged(folder / "");
    add(staged, "a", "new a");
    add(staged, "b", "new b");
    staged.publish();
  }
  CHECK(file_bytes(folder / "a") == "new a");
  CHECK(file_bytes(folder / "b") == "new b");
  CHECK(folder.file_count() == 2);
}
