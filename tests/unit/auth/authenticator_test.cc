#include "supervisor/auth/authenticator.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/status.h"
#include "tests/fakes/postgres_fixture.h"

namespace bulkhead {
namespace {

using std::chrono::hours;
using testing::HasSubstr;

class SetClock : public Clock {
 public:
  Instant Now() const override { return Instant(wall.time_since_epoch()); }
  WallTime Wall() const override { return wall; }
  WallTime wall = Clock::Real().Wall();
};

class AdminTokenTest : public testing::Test {
 protected:
  AdminTokenTest() {
    char name[] = "/tmp/bh-auth-XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ + "/admin.token";
  }
  ~AdminTokenTest() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& content, int mode) {
    std::ofstream(path_) << content;
    chmod(path_.c_str(), mode);
  }

  std::string folder_, path_;
  Database database_{"host=/nonexistent dbname=none", 1};  // the admin token needs none
  CredentialStore store_{database_};
  Authenticator authenticator_{Clock::Real(), store_};
};

TEST_F(AdminTokenTest, IsMadeOnceForItsOwnerAloneAndReadAgain) {
  const uint64_t before = authenticator_.version();
  ASSERT_TRUE(authenticator_.LoadAdminToken(path_).ok());
  EXPECT_GT(authenticator_.version(), before);
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  std::string secret = *ReadFile(path_);
  ASSERT_EQ(secret.size(), 65u);
  EXPECT_EQ(secret.find_first_not_of("0123456789abcdef"), 64u);
  EXPECT_EQ(secret.back(), '\n');
  secret.pop_back();
  const auto identity = authenticator_.Authenticate(secret);
  ASSERT_NE(identity, nullptr);
  EXPECT_EQ(identity->subject, "admin");
  EXPECT_THAT(identity->roles, testing::ElementsAre("admin"));
  EXPECT_THAT(identity->permissions, testing::ElementsAre("*"));
  EXPECT_EQ(authenticator_.Authenticate(secret + "0"), nullptr);
  EXPECT_EQ(authenticator_.Authenticate(""), nullptr);

  Authenticator second(Clock::Real(), store_);
  ASSERT_TRUE(second.LoadAdminToken(path_).ok());
  EXPECT_NE(second.Authenticate(secret), nullptr);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1) << "something was left beside the token";
}

TEST_F(AdminTokenTest, ThatOthersMayReadIsRefusedWithWhatToDo) {
  for (const int mode : {0640, 0604, 0620, 0666}) {
    Write(std::string(64, 'a') + "\n", mode);
    const absl::Status loaded = authenticator_.LoadAdminToken(path_);
    EXPECT_EQ(ErrorCode(loaded), "DATA_UNUSABLE") << mode;
    EXPECT_THAT(std::string(loaded.message()), HasSubstr("chmod 600 " + path_));
    EXPECT_EQ(authenticator_.Authenticate(std::string(64, 'a')), nullptr);
  }
}

TEST_F(AdminTokenTest, ThatIsCutShortOrALinkOrNoFileIsRefused) {
  for (const std::string& content :
       {std::string(), std::string("\n"), std::string(63, 'a') + "\n", std::string(65, 'a'), std::string(64, 'g') + "\n"}) {
    Write(content, 0600);
    EXPECT_EQ(ErrorCode(authenticator_.LoadAdminToken(path_)), "DATA_UNUSABLE") << content;
  }
  std::filesystem::rename(path_, folder_ + "/other");
  std::filesystem::create_symlink(folder_ + "/other", path_);
  EXPECT_THAT(std::string(authenticator_.LoadAdminToken(path_).message()), HasSubstr("symbolic link"));
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  chmod(path_.c_str(), 0700);
  EXPECT_THAT(std::string(authenticator_.LoadAdminToken(path_).message()), HasSubstr("not a regular file"));
  EXPECT_EQ(ErrorCode(authenticator_.LoadAdminToken(folder_ + "/missing/admin.token")), "DATA_UNUSABLE");
}

class ApiTokensTest : public testing::Test {
 protected:
  const Identity admin_{"admin", {"admin"}, {"*"}};
  SetClock clock_;
  Database database_{TestPostgres::Instance().FreshDatabase(), 4};
  CredentialStore store_{database_};
  Authenticator authenticator_{clock_, store_};
};

TEST_F(ApiTokensTest, WorkFromTheMomentTheyAreMadeUntilTheyAreDeleted) {
  const uint64_t before = authenticator_.version();
  auto made = authenticator_.Create(admin_, "reader", "", {"modules:read"}, std::nullopt);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(made->secret.starts_with("bhk_"));
  EXPECT_EQ(made->secret.size(), 52u);
  EXPECT_EQ(made->row.subject, "reader");
  EXPECT_GT(authenticator_.version(), before);
  const auto identity = authenticator_.Authenticate(made->secret);
  ASSERT_NE(identity, nullptr);
  EXPECT_EQ(identity->subject, "reader");
  EXPECT_TRUE(identity->Allows("modules:read"));
  EXPECT_FALSE(identity->Allows("modules:write"));
  ASSERT_TRUE(authenticator_.Delete("reader").ok());
  EXPECT_EQ(authenticator_.Authenticate(made->secret), nullptr);
  EXPECT_EQ(ErrorCode(authenticator_.Delete("reader")), "TOKEN_NOT_FOUND");
}

TEST_F(ApiTokensTest, AreStoredAsAHashAndReadByAnotherSupervisor) {
  auto made = authenticator_.Create(admin_, "reader", "somebody", {"modules:read", "consumption:*"}, std::nullopt);
  ASSERT_TRUE(made.ok());
  const auto rows = authenticator_.List();
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_EQ((*rows)[0].secret_sha256, Sha256Hex(made->secret));
  EXPECT_EQ((*rows)[0].subject, "somebody");
  Authenticator other(clock_, store_);
  EXPECT_EQ(other.Authenticate(made->secret), nullptr);
  ASSERT_TRUE(other.Reload().ok());
  ASSERT_NE(other.Authenticate(made->secret), nullptr);
  EXPECT_TRUE(other.Authenticate(made->secret)->Allows("consumption:read"));
  // Deleted there, it ends here at the next reload.
  ASSERT_TRUE(other.Delete("reader").ok());
  ASSERT_TRUE(authenticator_.Reload().ok());
  EXPECT_EQ(authenticator_.Authenticate(made->secret), nullptr);
}

TEST_F(ApiTokensTest, EndAtTheirExpiry) {
  auto made = authenticator_.Create(admin_, "brief", "", {"modules:read"}, clock_.wall + hours(1));
  ASSERT_TRUE(made.ok());
  EXPECT_NE(authenticator_.Authenticate(made->secret), nullptr);
  clock_.wall += hours(1);
  EXPECT_EQ(authenticator_.Authenticate(made->secret), nullptr);
  EXPECT_EQ(ErrorCode(authenticator_.Create(admin_, "past", "", {"modules:read"}, clock_.wall - hours(1)).status()),
            "INVALID_ARGUMENT");
}

TEST_F(ApiTokensTest, NeverHoldMoreThanTheirMaker) {
  const Identity maker{"maker", {}, {"tokens:write", "consumption:*"}};
  EXPECT_EQ(ErrorCode(authenticator_.Create(maker, "more", "", {"modules:write"}, std::nullopt).status()), "FORBIDDEN");
  EXPECT_EQ(ErrorCode(authenticator_.Create(maker, "more", "", {"consumption:read", "*"}, std::nullopt).status()), "FORBIDDEN");
  EXPECT_TRUE(authenticator_.Create(maker, "less", "", {"consumption:read"}, std::nullopt).ok());
  EXPECT_TRUE(authenticator_.Create(maker, "same", "", {"consumption:*"}, std::nullopt).ok());
}

TEST_F(ApiTokensTest, AreRefusedWithEveryFaultNamed) {
  const auto made = authenticator_.Create(admin_, "Not Kebab", "line\nbreak", {"modules read", "ok:x"}, std::nullopt);
  ASSERT_EQ(ErrorCode(made.status()), "INVALID_ARGUMENT");
  std::vector<std::string> paths;
  for (const ErrorDetail& detail : ErrorDetails(made.status())) paths.push_back(detail.path);
  EXPECT_THAT(paths, testing::ElementsAre("/name", "/subject", "/permissions/0"));
  for (const char* name : {"", "-a", "a-", "a--b", "A", "a_b"})
    EXPECT_FALSE(authenticator_.Create(admin_, name, "s", {"a:b"}, std::nullopt).ok()) << name;
  EXPECT_FALSE(authenticator_.Create(admin_, std::string(65, 'a'), "", {"a:b"}, std::nullopt).ok());
  EXPECT_FALSE(authenticator_.Create(admin_, "none", "", {}, std::nullopt).ok());
  EXPECT_FALSE(authenticator_.Create(admin_, "impostor", "admin", {"a:b"}, std::nullopt).ok());
  EXPECT_FALSE(authenticator_.Create(admin_, "poser", "module:orders", {"a:b"}, std::nullopt).ok());
  ASSERT_TRUE(authenticator_.Create(admin_, "twice", "", {"a:b"}, std::nullopt).ok());
  EXPECT_EQ(ErrorCode(authenticator_.Create(admin_, "twice", "", {"a:b"}, std::nullopt).status()), "TOKEN_EXISTS");
}

TEST_F(ApiTokensTest, KeepTheAdminTokenWhenTheTableIsReplaced) {
  char folder[] = "/tmp/bh-auth-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string path = std::string(folder) + "/admin.token";
  ASSERT_TRUE(authenticator_.LoadAdminToken(path).ok());
  const std::string secret = ReadFile(path)->substr(0, 64);
  ASSERT_TRUE(authenticator_.Reload().ok());
  EXPECT_NE(authenticator_.Authenticate(secret), nullptr);
  std::filesystem::remove_all(folder);
}

TEST_F(ApiTokensTest, MadeAndDeletedAtOnceFromSeveralThreadsNeverComeBack) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 10; ++i) {
        const std::string name = "token-" + std::to_string(t) + "-" + std::to_string(i);
        auto made = authenticator_.Create(admin_, name, "", {"a:b"}, std::nullopt);
        ASSERT_TRUE(made.ok()) << made.status();
        EXPECT_NE(authenticator_.Authenticate(made->secret), nullptr);
        ASSERT_TRUE(authenticator_.Reload().ok());
        ASSERT_TRUE(authenticator_.Delete(name).ok());
        EXPECT_EQ(authenticator_.Authenticate(made->secret), nullptr);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(authenticator_.List()->empty());
}

}  // namespace
}  // namespace bulkhead
