#include "supervisor/auth/identity.h"

#include "gtest/gtest.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using std::chrono::hours;

TEST(Identity, AllowsWhatItHoldsLiterally) {
  const Identity caller{"x", {}, {"modules:read"}};
  EXPECT_TRUE(caller.Allows("modules:read"));
  EXPECT_FALSE(caller.Allows("modules:write"));
  EXPECT_FALSE(caller.Allows("modules:rea"));
  EXPECT_FALSE(caller.Allows("modules"));
}

TEST(Identity, AStarAtTheEndCoversThatPrefixAndNothingBeside) {
  const Identity caller{"x", {}, {"consumption:*"}};
  EXPECT_TRUE(caller.Allows("consumption:read"));
  EXPECT_TRUE(caller.Allows("consumption:read:all"));
  EXPECT_TRUE(caller.Allows("consumption:*"));
  EXPECT_FALSE(caller.Allows("consumption"));
  EXPECT_FALSE(caller.Allows("consumptions:read"));
  EXPECT_FALSE(caller.Allows("*"));
}

TEST(Identity, AStarAloneAllowsEverythingAndNoPermissionNothing) {
  EXPECT_TRUE((Identity{"x", {}, {"*"}}).Allows("tokens:write"));
  EXPECT_TRUE((Identity{"x", {}, {"*"}}).Allows("*"));
  EXPECT_FALSE((Identity{"x", {"admin"}, {}}).Allows("modules:read"));
}

TEST(Identity, AScopedPermissionHoldsForItsModuleAlone) {
  const Identity caller{"x", {}, {"module:orders:write", "module:orders:jobs:run", "module:billing:*", "module:meter:consumption:*"}, {}, ""};
  EXPECT_TRUE(caller.Allows("modules:write", "orders"));
  EXPECT_FALSE(caller.Allows("modules:write", "order"));
  EXPECT_FALSE(caller.Allows("modules:write", "orders2"));
  EXPECT_FALSE(caller.Allows("modules:write", ""));
  EXPECT_FALSE(caller.Allows("modules:write"));
  EXPECT_FALSE(caller.Allows("modules:read", "orders"));
  EXPECT_TRUE(caller.Allows("jobs:run", "orders"));
  EXPECT_FALSE(caller.Allows("jobs:read", "orders"));
  for (const char* any : {"modules:read", "jobs:run", "consumption:read", "x"}) EXPECT_TRUE(caller.Allows(any, "billing")) << any;
  EXPECT_TRUE(caller.Allows("consumption:read", "meter"));
  EXPECT_FALSE(caller.Allows("consumptions:read", "meter"));
  EXPECT_FALSE(caller.Allows("consumption", "meter"));
  EXPECT_TRUE((Identity{"x", {}, {"module:*"}, {}, ""}).Allows("consumption:read", "orders"));
  EXPECT_FALSE((Identity{"x", {}, {"module:*"}, {}, ""}).Allows("tokens:write"));
  EXPECT_FALSE((Identity{"x", {}, {"module:orders"}, {}, ""}).Allows("modules:write", "orders"));
}

TEST(Bearer, IsTheSecretAloneBehindItsScheme) {
  EXPECT_EQ(BearerSecret("Bearer abc"), "abc");
  EXPECT_EQ(BearerSecret("bEARER   a.b-c=="), "a.b-c==");
  for (const char* other : {"", "Bearer", "Bearer ", "Bearer    ", "Bearerabc", "Basic YTpi", " Bearer abc", "Bearer a b", "Bearer a,b"})
    EXPECT_EQ(BearerSecret(other), "") << other;
}

TEST(Permission, IsSegmentsWithAStarOnlyAtTheEnd) {
  for (const char* good : {"*", "modules:read", "consumption:*", "a", "a.b_c-d:9", "a:b:c:*"})
    EXPECT_TRUE(ValidPermission(good)) << good;
  for (const char* bad : {"", ":", "a:", ":a", "a::b", "*:a", "a*", "a:*:b", "A:b", "a b", "a:b\n", "modules read"})
    EXPECT_FALSE(ValidPermission(bad)) << bad;
  EXPECT_TRUE(ValidPermission(std::string(128, 'a')));
  EXPECT_FALSE(ValidPermission(std::string(129, 'a')));
}

TEST(TokenTable, FindsBySecretUntilItExpires) {
  const WallTime now = WallTime(hours(1000));
  auto identity = std::make_shared<const Identity>(Identity{"x", {}, {"*"}});
  const TokenTable table({{Sha256("for ever"), {identity, std::nullopt}},
                          {Sha256("until now"), {identity, now}},
                          {Sha256("later"), {identity, now + hours(1)}}});
  EXPECT_EQ(table.Find("for ever", now), identity);
  EXPECT_EQ(table.Find("later", now), identity);
  EXPECT_EQ(table.Find("until now", now), nullptr);
  EXPECT_EQ(table.Find("later", now + hours(1)), nullptr);
  EXPECT_EQ(table.Find("nobody's", now), nullptr);
  EXPECT_EQ(table.Find("", now), nullptr);
}

TEST(Hashes, AgreeWithThePublishedVectors) {
  // FIPS 180-4 and RFC 4231, test case 2.
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256("abc").size(), 32u);
  EXPECT_EQ(HmacSha256("Jefe", "what do ya want for nothing?"),
            std::string("\x5b\xdc\xc1\x46\xbf\x60\x75\x4e\x6a\x04\x24\x26\x08\x95\x75\xc7\x5a\x00\x3f\x08\x9d\x27\x39\x83\x9d\xec"
                        "\x58\xb9\x64\xec\x38\x43",
                        32));
}

TEST(Hashes, ConstantTimeEqualsComparesContentAndLength) {
  EXPECT_TRUE(ConstantTimeEquals("same", "same"));
  EXPECT_TRUE(ConstantTimeEquals("", ""));
  EXPECT_FALSE(ConstantTimeEquals("same", "some"));
  EXPECT_FALSE(ConstantTimeEquals("same", "same "));
}

}  // namespace
}  // namespace bulkhead
