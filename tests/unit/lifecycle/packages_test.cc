#include "supervisor/lifecycle/packages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kManifest[] = R"({"name": "demo", "version": "1.2.3", "displayName": "Demo"})";

class PackagesTest : public ::testing::Test {
 protected:
  PackagesTest() {
    char name[] = "/tmp/bulkhead-packages-XXXXXX";
    root_ = mkdtemp(name);
    Write("demo/manifest.json", kManifest);
    Write("demo/bin/demo", "#!/bin/sh\n", 0755);
  }
  ~PackagesTest() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text, mode_t mode = 0644) {
    fs::create_directories(fs::path(root_ + "/" + path).parent_path());
    std::ofstream(root_ + "/" + path) << text;
    chmod((root_ + "/" + path).c_str(), mode);
  }
  absl::StatusOr<Package> Read() { return ReadPackage(root_ + "/demo", "/shown/demo"); }
  absl::StatusOr<InstalledPackage> Install() { return InstallPackage(*Read(), root_ + "/data"); }

  std::string root_;
};

TEST_F(PackagesTest, InstallsAReadOnlyCopyNamedByVersionAndHash) {
  auto installed = Install();
  ASSERT_TRUE(installed.ok()) << installed.status();
  EXPECT_EQ(installed->relative, "versions/demo/1.2.3-" + installed->sha256.substr(0, 8));
  std::string entry = root_ + "/data/" + installed->relative + "/bin/demo";
  EXPECT_EQ(fs::status(entry).permissions(), fs::perms(0555));
  EXPECT_EQ(*HashPackage(root_ + "/demo", "demo"), installed->sha256);
}

TEST_F(PackagesTest, InstallingTheSameTwiceUsesTheCopyThatIsThere) {
  auto first = Install(), second = Install();
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->relative, second->relative);
  EXPECT_THAT(*ListPackages(root_ + "/data/versions/demo"), ElementsAre(fs::path(first->relative).filename().string()));
}

TEST_F(PackagesTest, AnyChangeOfContentNameOrModeChangesTheHash) {
  std::string before = *HashPackage(root_ + "/demo", "demo");
  Write("demo/bin/demo", "#!/bin/bash\n", 0755);
  std::string content = *HashPackage(root_ + "/demo", "demo");
  EXPECT_NE(before, content);
  chmod((root_ + "/demo/bin/demo").c_str(), 0644);
  std::string mode = *HashPackage(root_ + "/demo", "demo");
  EXPECT_NE(content, mode);
  Write("demo/ui/page.js", "");
  EXPECT_NE(mode, *HashPackage(root_ + "/demo", "demo"));
}

TEST_F(PackagesTest, SaysWhatIsWrongWithTheEntry) {
  chmod((root_ + "/demo/bin/demo").c_str(), 0644);
  EXPECT_THAT(std::string(Install().status().message()), HasSubstr("/shown/demo/bin/demo is not executable"));
  unlink((root_ + "/demo/bin/demo").c_str());
  EXPECT_THAT(std::string(Install().status().message()), HasSubstr("/shown/demo/bin/demo is missing"));
  EXPECT_EQ(ErrorCode(Install().status()), "PACKAGE_INVALID");
}

TEST_F(PackagesTest, RefusesSymbolicLinksAndLeavesNothingBehind) {
  fs::create_symlink("/etc/passwd", root_ + "/demo/secret");
  EXPECT_EQ(ErrorCode(Install().status()), "PACKAGE_INVALID");
  EXPECT_TRUE(fs::is_empty(root_ + "/data/versions/demo"));
}

TEST_F(PackagesTest, WantsExactlyOneManifest) {
  Write("demo/module.yaml", "name: demo\nversion: 1.2.3\n");
  EXPECT_EQ(ErrorCode(Read().status()), "MANIFEST_AMBIGUOUS");
  fs::remove(root_ + "/demo/module.yaml");
  fs::remove(root_ + "/demo/manifest.json");
  EXPECT_EQ(ErrorCode(Read().status()), "MANIFEST_MISSING");
}

TEST_F(PackagesTest, ABrokenManifestIsReportedWithItsLine) {
  Write("demo/manifest.json", "{\n  \"name\": \"Demo\",\n  \"version\": \"1.2.3\"\n}");
  auto broken = Read();
  EXPECT_EQ(ErrorCode(broken.status()), "MANIFEST_INVALID");
  EXPECT_THAT(std::string(broken.status().message()), HasSubstr("/shown/demo/manifest.json:2"));
}

TEST_F(PackagesTest, FilesInMigrationsMeanADatabase) {
  EXPECT_FALSE(Read()->manifest.has_database);
  Write("demo/migrations/001_x.sql", "SELECT 1;");
  EXPECT_TRUE(Read()->manifest.has_database);
}

}  // namespace
}  // namespace bulkhead
