#include "tests/unit/process/spawned.h"

#include <sys/stat.h>

#include "supervisor/process/folders.h"

namespace bulkhead {
namespace {

mode_t ModeOf(const std::string& path) {
  struct stat info {};
  stat(path.c_str(), &info);
  return info.st_mode & 07777;
}

TEST(Folders, AFolderHasTheOwnerAndTheModeThatWereAskedFor) {
  Spawned on;
  ScratchFolder scratch;
  uid_t uid = geteuid() == 0 ? 399'999 : geteuid();
  umask(077);
  ASSERT_TRUE(on.MakeFolder(scratch.Path("instance"), uid, getegid(), 02770).ok());
  struct stat info;
  ASSERT_EQ(stat(scratch.Path("instance").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, uid);
  EXPECT_EQ(info.st_gid, getegid());
  EXPECT_EQ(info.st_mode & 07777, 02770u);
  EXPECT_TRUE(on.MakeFolder(scratch.Path("instance"), uid, getegid(), 0750).ok());  // is there: adopted
  EXPECT_EQ(ModeOf(scratch.Path("instance")), 0750u);
}

TEST(Folders, ALinkInTheWayIsAnErrorAndItsTargetUntouched) {
  Spawned on;
  ScratchFolder scratch;
  std::filesystem::create_directory(scratch.Path("target"));
  chmod(scratch.Path("target").c_str(), 0755);
  std::filesystem::create_symlink(scratch.Path("target"), scratch.Path("link"));
  EXPECT_FALSE(on.MakeFolder(scratch.Path("link"), geteuid(), getegid(), 0777).ok());
  EXPECT_EQ(ModeOf(scratch.Path("target")), 0755u);
  EXPECT_FALSE(on.RemoveFolder(scratch.Path("link")).ok());
  EXPECT_TRUE(std::filesystem::exists(scratch.Path("target")));
}

TEST(Folders, RemovingATreeFollowsNoLink) {
  Spawned on;
  ScratchFolder scratch;
  std::filesystem::create_directories(scratch.Path("keep/deep"));
  std::ofstream(scratch.Path("keep/file")) << "precious";
  std::filesystem::create_directories(scratch.Path("tree/a/b/c"));
  std::ofstream(scratch.Path("tree/a/b/c/file")) << "x";
  std::filesystem::create_symlink(scratch.Path("keep"), scratch.Path("tree/a/link"));
  std::filesystem::create_symlink(scratch.Path("keep/file"), scratch.Path("tree/a/b/link"));
  std::filesystem::create_symlink("..", scratch.Path("tree/a/b/up"));
  EXPECT_EQ(on.RemoveFolder(scratch.Path("tree")), absl::OkStatus());
  EXPECT_FALSE(std::filesystem::exists(scratch.Path("tree")));
  EXPECT_TRUE(std::filesystem::exists(scratch.Path("keep/file")));
  EXPECT_TRUE(std::filesystem::exists(scratch.Path("keep/deep")));
  EXPECT_EQ(on.RemoveFolder(scratch.Path("tree")), absl::OkStatus());  // is gone already
}

TEST(Folders, AVeryDeepTreeIsRemoved) {
  // In memory: a disk takes milliseconds for each folder.
  ScratchFolder scratch(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  std::filesystem::create_directory(scratch.Path("deep"));
  UniqueFd at(open(scratch.Path("deep").c_str(), O_RDONLY | O_DIRECTORY));
  for (int i = 0; i < 3'000; ++i) {  // far beyond PATH_MAX and the limit of open files
    ASSERT_EQ(mkdirat(at.get(), "d", 0755), 0);
    at.Reset(openat(at.get(), "d", O_RDONLY | O_DIRECTORY));
  }
  at.Reset();
  EXPECT_EQ(folders::Remove({}, scratch.Path("deep")), absl::OkStatus());
  EXPECT_FALSE(std::filesystem::exists(scratch.Path("deep")));
}

TEST(Folders, FoldersWithoutWriteBitsAreRemovedToo) {
  ScratchFolder scratch;
  std::filesystem::create_directories(scratch.Path("tree/a/b"));
  std::ofstream(scratch.Path("tree/a/b/file")) << "x";
  for (const char* name : {"tree/a/b", "tree/a", "tree"}) chmod(scratch.Path(name).c_str(), 0500);
  EXPECT_EQ(folders::Remove({}, scratch.Path("tree")), absl::OkStatus());
  EXPECT_FALSE(std::filesystem::exists(scratch.Path("tree")));
}

TEST(Folders, OutsideItsRootsTheSpawnerChangesNothing) {
  ScratchFolder scratch;
  std::filesystem::create_directories(scratch.Path("root"));
  std::filesystem::create_directories(scratch.Path("outside/victim"));
  std::filesystem::create_symlink(scratch.Path("outside"), scratch.Path("root/link"));
  Spawner::Options options = Spawned::MakeOptions(false);
  options.folder_roots = {scratch.Path("root")};
  Spawned on(options);
  EXPECT_TRUE(on.MakeFolder(scratch.Path("root/a"), geteuid(), getegid(), 0755).ok());
  EXPECT_TRUE(on.MakeFolder(scratch.Path("root/a/b"), geteuid(), getegid(), 0755).ok());
  EXPECT_TRUE(on.RemoveFolder(scratch.Path("root/a")).ok());
  for (std::string path : {scratch.Path("outside/victim"), scratch.Path("root/link/victim"), scratch.Path("root/../outside/victim"),
                           scratch.Path("root") + "/a/..", scratch.Path("rootless"), std::string("relative"), std::string("/"), std::string()}) {
    EXPECT_FALSE(on.MakeFolder(path, geteuid(), getegid(), 0755).ok()) << path;
    (void)on.RemoveFolder(path);
  }
  EXPECT_TRUE(std::filesystem::exists(scratch.Path("outside/victim")));
}

}  // namespace
}  // namespace bulkhead
