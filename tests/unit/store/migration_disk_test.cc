// A disk that is full in the middle of a migration: a small file system of the test's own, in a mount namespace that dies with it.
#include <gmock/gmock.h>
#include <pwd.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/unit/store/migrated_module.h"

namespace bulkhead {
namespace {

using ::testing::HasSubstr;

// Before the server is started, which must see the mount too.
class SmallDisk {
 public:
  SmallDisk() {
    const passwd* postgres = getpwnam("postgres");
    if (geteuid() != 0 || !postgres) {
      why_not_ = "only root can mount a small file system";
      return;
    }
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 || !mkdtemp(path_) ||
        mount("tmpfs", path_, "tmpfs", 0, "size=1m,mode=0700") != 0 || chown(path_, postgres->pw_uid, postgres->pw_gid) != 0) {
      why_not_ = std::string("no mount namespace of its own: ") + strerror(errno);
    }
  }
  ~SmallDisk() {
    umount2(path_, MNT_DETACH);
    rmdir(path_);
  }
  bool Grow() { return mount("tmpfs", path_, "tmpfs", MS_REMOUNT, "size=64m,mode=0700") == 0; }
  const char* path() const { return path_; }
  const std::string& why_not() const { return why_not_; }

 private:
  char path_[32] = "/tmp/bh-disk-XXXXXX";
  std::string why_not_;
};
SmallDisk& Disk() {
  static SmallDisk* disk = new SmallDisk();  // goes with the process's namespace
  return *disk;
}
const std::string& kNoDisk = Disk().why_not();

class FullDisk : public MigratedModuleTest {
 protected:
  void SetUp() override {
    if (!kNoDisk.empty()) GTEST_SKIP() << kNoDisk;
    MigratedModuleTest::SetUp();
  }
};

TEST_F(FullDisk, FailsTheMigrationLeavesTheDatabaseWellAndGoesThroughWhenThereIsRoom) {
  ASSERT_TRUE(admin_.Run(std::string("CREATE TABLESPACE small LOCATION '") + Disk().path() + "'").ok());
  ASSERT_TRUE(admin_.Run("GRANT CREATE ON TABLESPACE small TO \"" + schema_.role + "\"").ok());
  const std::vector<MigrationFile> files = {
      File("001_a.sql", "CREATE TABLE a (n int)"),
      File("002_big.sql", "CREATE TABLE big (t text) TABLESPACE small;\nALTER TABLE big ALTER t SET STORAGE PLAIN;\n"
                          "INSERT INTO big SELECT repeat('x', 1000) FROM generate_series(1, 4000);")};
  auto full = Run(files);
  ASSERT_EQ(ErrorCode(full.status()), "MIGRATION_FAILED") << full.status();
  const ErrorDetail detail = ErrorDetails(full.status())[0];
  EXPECT_EQ(detail.code, "53100") << full.status();
  EXPECT_EQ(detail.path, "002_big.sql");
  EXPECT_EQ(detail.line, 3);
  EXPECT_THAT(detail.message, HasSubstr("No space left on device"));
  EXPECT_FALSE(Exists("big"));
  EXPECT_EQ(History(), 1);
  // Everything else goes on, and so does this, with room.
  EXPECT_TRUE(Login()->RunScript("INSERT INTO a VALUES (1)").ok());
  ASSERT_TRUE(Disk().Grow());
  auto again = Run(files);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(Count(schema_.schema + ".big"), 4000);
}

}  // namespace
}  // namespace bulkhead
