#include "supervisor/auth/passwords.h"

#include <argon2.h>

#include "gtest/gtest.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

TEST(Password, MustBeLongAndMayBeAnythingElse) {
  for (const std::string& good : {std::string("twelve chars"), std::string("éééééééééééé"), std::string(255, 'x') + "y", std::string("            ") + "a"})
    EXPECT_TRUE(CheckNewPassword(good, "somebody", "password").ok()) << good;
  for (const std::string& bad : {std::string(), std::string("eleven char"), std::string("éééééé"), std::string(257, 'x') + "y", std::string("aaaaaaaaaaaa"),
                                 std::string("PASSWORD1234"), std::string("Some-Long-Name"), std::string("\xff") + "not valid utf-8",
                                 std::string("with\0a nul", 10) + "abcdef"}) {
    const absl::Status checked = CheckNewPassword(bad, "some-long-name", "newPassword");
    EXPECT_EQ(ErrorCode(checked), "INVALID_ARGUMENT") << bad;
    ASSERT_EQ(ErrorDetails(checked).size(), 1u);
    EXPECT_EQ(ErrorDetails(checked)[0].path, "/newPassword");
  }
}

TEST(Password, IsHashedWithASaltOfItsOwnAndVerified) {
  const auto phc = HashPassword("correct horse");
  ASSERT_TRUE(phc.ok()) << phc.status();
  EXPECT_TRUE(phc->starts_with("$argon2id$v=19$m=19456,t=2,p=1$")) << *phc;
  EXPECT_NE(*HashPassword("correct horse"), *phc);
  EXPECT_TRUE(VerifyPassword("correct horse", *phc));
  EXPECT_FALSE(VerifyPassword("correct horsf", *phc));
  EXPECT_FALSE(VerifyPassword("", *phc));
  EXPECT_FALSE(VerifyPassword("correct horse", "$argon2id$broken"));
  EXPECT_FALSE(VerifyNobody("correct horse"));
}

TEST(Password, OfOtherParametersIsVerifiedAndMarkedForANewHash) {
  char weak[128];
  ASSERT_EQ(argon2id_hash_encoded(1, 64, 1, "correct horse", 13, "saltsalt", 8, 16, weak, sizeof weak), ARGON2_OK);
  EXPECT_TRUE(VerifyPassword("correct horse", weak));
  EXPECT_TRUE(NeedsRehash(weak));
  EXPECT_FALSE(NeedsRehash(*HashPassword("correct horse")));
}

}  // namespace
}  // namespace bulkhead
