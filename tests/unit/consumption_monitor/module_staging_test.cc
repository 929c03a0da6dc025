// modules/stage.cmake: the stage equals its source, is readable by everybody, and keeps its executable.
#include <gmock/gmock.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace {

namespace fs = std::filesystem;
using testing::UnorderedElementsAre;

class StagingTest : public testing::Test {
 protected:
  StagingTest() {
    char folder[] = "/tmp/stage-test-XXXXXX";
    root_ = mkdtemp(folder);
    fs::create_directories(root_ / "stage/bin");
    Write("stage/bin/shop", "binary");
    Write("source/manifest.json", "{}");
    Write("source/migrations/001_x.sql", "SELECT 1;");
    Write("source/ui/deep/page.js", "1");
  }
  ~StagingTest() override { fs::remove_all(root_); }

  void Write(const fs::path& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::string Read(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(root_ / path).rdbuf();
    return text.str();
  }
  void Cmake(const std::string& definitions) {
    const std::string command = "umask 077; " CMAKE_PROGRAM " " + definitions + " -P " STAGE_SCRIPT;
    const int status = std::system(command.c_str());
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << command;
  }
  void Stage(const std::string& names) {
    Write("list", names);
    Cmake("-DSOURCE=" + (root_ / "source").string() + " -DSTAGE=" + (root_ / "stage").string() + " -DLIST=" + (root_ / "list").string());
  }
  std::vector<std::string> Staged() {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(root_ / "stage")) {
      names.push_back(fs::relative(entry.path(), root_ / "stage"));
    }
    return names;
  }
  mode_t Mode(const fs::path& path) {
    struct stat info {};
    stat((root_ / path).c_str(), &info);
    return info.st_mode & 07777;
  }

  fs::path root_;
};

TEST_F(StagingTest, CopiesWhatIsListedAndOpensItToEveryUser) {
  chmod((root_ / "source/manifest.json").c_str(), 0600);
  chmod((root_ / "stage").c_str(), 0700);
  chmod((root_ / "stage/bin/shop").c_str(), 0700);
  Stage("manifest.json\nmigrations/001_x.sql\nui/deep/page.js\n");
  Cmake("-DSTAGE=" + (root_ / "stage").string() + " -DBINARY=bin/shop");
  EXPECT_THAT(Staged(), UnorderedElementsAre("bin", "bin/shop", "manifest.json", "migrations", "migrations/001_x.sql", "ui", "ui/deep", "ui/deep/page.js"));
  EXPECT_EQ(Read("stage/ui/deep/page.js"), "1");
  for (const char* folder : {"stage", "stage/bin", "stage/migrations", "stage/ui", "stage/ui/deep"}) EXPECT_EQ(Mode(folder), 0755u) << folder;
  for (const char* file : {"stage/manifest.json", "stage/migrations/001_x.sql", "stage/ui/deep/page.js"}) EXPECT_EQ(Mode(file), 0644u) << file;
  EXPECT_EQ(Mode("stage/bin/shop"), 0755u);
}

TEST_F(StagingTest, FollowsChangesAndRemovals) {
  Stage("manifest.json\nmigrations/001_x.sql\nui/deep/page.js\n");
  Write("source/manifest.json", "{\"changed\": true}");
  Write("stage/stray/file", "left by an older build");
  Stage("manifest.json\nmigrations/001_x.sql\n");
  EXPECT_THAT(Staged(), UnorderedElementsAre("bin", "bin/shop", "manifest.json", "migrations", "migrations/001_x.sql"));
  EXPECT_EQ(Read("stage/manifest.json"), "{\"changed\": true}");
}

}  // namespace
