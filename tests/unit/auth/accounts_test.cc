// Users, roles and sessions on a real PostgreSQL.
#include "supervisor/auth/accounts.h"

#include <argon2.h>

#include <future>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/auth/passwords.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"
#include "tests/fakes/postgres_fixture.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;

constexpr char kPassword[] = "a long enough sentence";

class MovableClock : public Clock {
 public:
  Instant Now() const override { return Clock::Real().Now() + Millis(shift_ms.load()); }
  WallTime Wall() const override { return Clock::Real().Wall() + Millis(shift_ms.load()); }
  std::atomic<int64_t> shift_ms{0};
};

class AccountsTest : public testing::Test {
 protected:
  struct Node {
    Node(const Clock& clock, CredentialStore& store)
        : authenticator(clock, store, {{}, {}, AccessKey("master")}), accounts(clock, store, authenticator, AccessKey("master")) {
      EXPECT_TRUE(authenticator.Reload().ok());
    }
    Authenticator authenticator;
    Accounts accounts;
  };
  static Actor From(const std::string& address) {
    Actor by;
    by.address = address;
    by.node = "n1";
    return by;
  }
  absl::StatusOr<Accounts::Login> LogIn(Node& node, const std::string& name, const std::string& password = kPassword,
                                        const std::string& address = "192.0.2.1:99") {
    auto promise = std::make_shared<std::promise<absl::StatusOr<Accounts::Login>>>();
    node.accounts.LogIn(name, password, From(address), [promise](absl::StatusOr<Accounts::Login> login) { promise->set_value(std::move(login)); });
    return promise->get_future().get();
  }
  static std::shared_ptr<const Identity> Who(Node& node, const std::string& token) {
    auto promise = std::make_shared<std::promise<std::shared_ptr<const Identity>>>();
    node.authenticator.Verify(token, [promise](JwtVerifier::Verdict verdict) { promise->set_value(verdict.ok() ? *verdict : nullptr); });
    return promise->get_future().get();
  }
  UserRow MakeUser(const std::string& name, const std::vector<std::string>& roles = {"viewer"}) {
    auto made = node_.accounts.CreateUser(admin_, name, kPassword, roles, true);
    EXPECT_TRUE(made.ok()) << made.status();
    return *made;
  }

  // Rows of the audit as "action target subject/credential before after outcome", oldest first; waits until there are `count`.
  std::vector<std::string> Audit(size_t count) {
    AuditLog log(database_);
    std::vector<std::string> told;
    for (const Instant until = Clock::Real().Now() + std::chrono::seconds(10); told.size() < count && Clock::Real().Now() < until;) {
      told.clear();
      auto page = log.Find({.page_size = 100});
      for (auto row = page->rows.rbegin(); row != page->rows.rend(); ++row) {
        const AuditRecord& r = row->record;
        told.push_back(r.action + " " + r.target + " " + r.by.subject + "/" + r.by.credential + " " + r.before_json + " " + r.after_json + " " + r.outcome);
      }
    }
    return told;
  }
  Actor Root() {
    Actor by = From("192.0.2.7:1");
    by.subject = "root";
    by.credential = "admin-token";
    by.request_id = "r-1";
    by.recorded = std::make_shared<RecordedCall>();
    return by;
  }

  const Identity admin_{"admin", {"admin"}, {"*"}, {}, ""};
  MovableClock clock_;
  Database database_{TestPostgres::Instance().FreshDatabase(), 6};
  CredentialStore store_{database_};
  Node node_{clock_, store_};
};

TEST_F(AccountsTest, ALoginIsGoodOnEveryNodeOfTheDatabase) {
  MakeUser("anna");
  Node other(clock_, store_);
  const auto login = LogIn(node_, "anna");
  ASSERT_TRUE(login.ok()) << login.status();
  for (Node* node : {&node_, &other}) {
    const auto identity = Who(*node, login->access_token);
    ASSERT_NE(identity, nullptr);
    EXPECT_EQ(identity->subject, "anna");
    EXPECT_TRUE(identity->Allows("modules:read"));
  }
  // What one changes, the other notices by itself.
  ASSERT_TRUE(other.accounts.UpdateUser(admin_, "anna", {.enabled = false}).ok());
  EXPECT_EQ(Who(other, login->access_token), nullptr);
  node_.authenticator.Upkeep(false);
  EXPECT_EQ(Who(node_, login->access_token), nullptr);
}

TEST_F(AccountsTest, TwoRefreshesAtOnceEndTheSession) {
  MakeUser("bert");
  const auto login = LogIn(node_, "bert");
  ASSERT_TRUE(login.ok());
  std::vector<std::future<absl::StatusOr<Accounts::Login>>> both;
  for (int i = 0; i < 2; ++i)
    both.push_back(std::async(std::launch::async, [&] { return node_.accounts.Refresh(login->refresh_token, From("192.0.2.1:1")); }));
  const auto first = both[0].get(), second = both[1].get();
  EXPECT_NE(first.ok(), second.ok()) << first.status() << second.status();
  const auto& won = first.ok() ? first : second;
  EXPECT_EQ(ErrorCode(node_.accounts.Refresh(won->refresh_token, From("192.0.2.1:1")).status()), "REFRESH_TOKEN_INVALID");
  EXPECT_EQ(Who(node_, won->access_token), nullptr);
}

TEST_F(AccountsTest, ARefreshTokenExpires) {
  MakeUser("carl");
  const auto login = LogIn(node_, "carl");
  ASSERT_TRUE(login.ok());
  clock_.shift_ms += limits::kRefreshTokenLife.count() + 1'000;
  EXPECT_EQ(ErrorCode(node_.accounts.Refresh(login->refresh_token, From("192.0.2.1:1")).status()), "REFRESH_TOKEN_INVALID");
}

TEST_F(AccountsTest, APasswordOfWeakerParametersIsHashedAnewAtALogin) {
  MakeUser("dora");
  char weak[128];
  ASSERT_EQ(argon2id_hash_encoded(1, 64, 1, kPassword, sizeof kPassword - 1, "saltsalt", 8, 16, weak, sizeof weak), ARGON2_OK);
  ASSERT_TRUE(database_.Run("UPDATE bulkhead_internal.users SET password = $1", {weak}).ok());
  ASSERT_TRUE(LogIn(node_, "dora").ok());
  const std::string phc = store_.User("dora")->password;
  EXPECT_FALSE(NeedsRehash(phc));
  EXPECT_TRUE(VerifyPassword(kPassword, phc));
  EXPECT_TRUE(LogIn(node_, "dora").ok());
}

TEST_F(AccountsTest, FailuresCountPerUserAndPerAddress) {
  MakeUser("emil");
  for (int i = 0; i < limits::kFreeLoginsPerUser; ++i) {
    EXPECT_EQ(ErrorCode(LogIn(node_, "emil", "wrong", "192.0.2." + std::to_string(i) + ":1").status()), "INVALID_CREDENTIALS");
  }
  const auto locked = LogIn(node_, "emil");
  EXPECT_EQ(ErrorCode(locked.status()), "TOO_MANY_ATTEMPTS") << "from wherever, and with the right password";
  EXPECT_EQ(RetryAfter(locked.status()), 1);
  for (int i = 0; i < limits::kFreeLoginsPerAddress; ++i) LogIn(node_, "nobody-" + std::to_string(i), "wrong", "198.51.100.1:" + std::to_string(i + 1));
  EXPECT_EQ(ErrorCode(LogIn(node_, "somebody-else", "wrong", "198.51.100.1:7").status()), "TOO_MANY_ATTEMPTS");
  clock_.shift_ms += 2'000;
  EXPECT_TRUE(LogIn(node_, "emil").ok());
}

TEST_F(AccountsTest, UnknownUsersTakeAsLongAsWrongPasswords) {
  MakeUser("fred");
  const auto time = [&](const std::string& name) {
    std::vector<Millis> took;
    for (int i = 0; i < 4; ++i) {
      const Instant began = Clock::Real().Now();
      LogIn(node_, name, "wrong password", "203.0.113." + std::to_string(i) + ":1");
      took.push_back(std::chrono::duration_cast<Millis>(Clock::Real().Now() - began));
    }
    return *std::min_element(took.begin(), took.end());
  };
  time("warm-up");
  const Millis known = time("fred"), unknown = time("nobody");
  EXPECT_LT(known.count(), 3 * unknown.count() + 5);
  EXPECT_LT(unknown.count(), 3 * known.count() + 5);
}

TEST_F(AccountsTest, OneOfTwoWhoChangeAUserAtTheSameTimeIsTold) {
  const UserRow before = MakeUser("gina");
  UserRow raised = before;
  raised.roles = {"admin"};
  ASSERT_TRUE(store_.UpdateUser(before, raised, std::nullopt).ok());
  // Somebody who has checked the roles of before: his password must not become that of an administrator.
  EXPECT_EQ(ErrorCode(store_.UpdateUser(before, before, *HashPassword("another long sentence")).status()), "GENERATION_CHANGED");
}

TEST_F(AccountsTest, RolesAreResolvedWhereTheyAreHeld) {
  ASSERT_TRUE(node_.accounts.CreateRole(admin_, {"keeper", "", {"things:*"}, {}, {}}).ok());
  auto token = node_.authenticator.Create(admin_, "by-role", "", {}, std::nullopt, {"keeper"});
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_TRUE(node_.authenticator.Authenticate(token->secret)->Allows("things:write"));
  ASSERT_TRUE(node_.accounts.UpdateRole(admin_, {"keeper", "", {"things:read"}, {}, {}}).ok());
  EXPECT_FALSE(node_.authenticator.Authenticate(token->secret)->Allows("things:write"));
  EXPECT_EQ(ErrorCode(node_.accounts.DeleteRole(admin_, "keeper")), "ROLE_IN_USE");
  EXPECT_EQ(ErrorCode(node_.accounts.UpdateRole(admin_, {"admin", "", {}, {}, {}}).status()), "ROLE_BUILT_IN");
  EXPECT_EQ(ErrorCode(node_.authenticator.Create(admin_, "odd", "", {}, std::nullopt, {"nonesuch"}).status()), "INVALID_ARGUMENT");
  EXPECT_EQ(ErrorCode(node_.authenticator.Create({"x", {}, {"things:read"}, {}, ""}, "odd", "", {}, std::nullopt, {"operator"}).status()), "FORBIDDEN");
}

TEST_F(AccountsTest, EveryChangeIsInTheAuditWithWhatItChangedAndNoSecretIs) {
  const Actor root = Root();
  ASSERT_TRUE(node_.accounts.CreateRole(admin_, {"keeper", "", {"a:b"}, {}, {}}, root).ok());
  EXPECT_EQ(root.recorded->what.load(), Recording::kOutcome);
  ASSERT_TRUE(node_.accounts.UpdateRole(admin_, {"keeper", "", {"a:c"}, {}, {}}, root).ok());
  ASSERT_TRUE(node_.accounts.DeleteRole(admin_, "keeper", root).ok());
  auto token = node_.authenticator.Create(admin_, "ci", "", {"a:b"}, std::nullopt, {}, root);
  ASSERT_TRUE(token.ok());
  ASSERT_TRUE(node_.authenticator.Delete("ci", root).ok());
  ASSERT_TRUE(node_.accounts.CreateUser(admin_, "hans", kPassword, {"viewer"}, true, root).ok());
  ASSERT_TRUE(node_.accounts.UpdateUser(admin_, "hans", {.enabled = false}, root).ok());
  ASSERT_TRUE(node_.accounts.UpdateUser(admin_, "hans", {.roles = {{"operator"}}, .enabled = true, .password = "another long sentence"}, root).ok());
  Identity hans{"hans", {}, {}, {}, "an id"};
  ASSERT_TRUE(node_.accounts.ChangePassword(hans, "another long sentence", kPassword, root).ok());
  ASSERT_TRUE(node_.accounts.DeleteUser(admin_, "hans", root).ok());
  const auto told = Audit(10);
  const std::string id = "\"id\": \"" + token->row.id + "\"";
  EXPECT_THAT(told, ElementsAre(
      R"(roles.create keeper root/admin-token  {"description": "", "permissions": ["a:b"]} OK)",
      R"(roles.update keeper root/admin-token {"permissions": ["a:b"]} {"permissions": ["a:c"]} OK)",
      R"(roles.delete keeper root/admin-token {"description": "", "permissions": ["a:c"]}  OK)",
      "tokens.create ci root/admin-token  {" + id + R"(, "roles": [], "subject": "ci", "expiresAt": null, "permissions": ["a:b"]} OK)",
      "tokens.delete ci root/admin-token {" + id + R"(, "roles": [], "subject": "ci", "expiresAt": null, "permissions": ["a:b"]}  OK)",
      R"(users.create hans root/admin-token  {"roles": ["viewer"], "enabled": true, "password": "********"} OK)",
      R"(users.update hans root/admin-token {"enabled": true} {"enabled": false} OK)",
      R"(users.update hans root/admin-token {"roles": ["viewer"], "enabled": false, "password": "********"} )"
      R"({"roles": ["operator"], "enabled": true, "password": "********"} OK)",
      R"(auth.change-password hans root/admin-token {"password": "********"} {"password": "********"} OK)",
      R"(users.delete hans root/admin-token {"roles": ["operator"], "enabled": true}  OK)"));
  const std::string all = database_.Run("SELECT string_agg(a::text, ' ') AS all FROM bulkhead_internal.audit a")->Text(0, "all");
  for (const std::string& secret : {std::string(kPassword), std::string("argon2"), token->secret, token->row.secret_sha256})
    EXPECT_EQ(all.find(secret), std::string::npos) << secret;
}

TEST_F(AccountsTest, LoginsAreInTheAuditAsDoneByTheUserAndFailedOnesOfUsersThatExist) {
  MakeUser("ida");
  auto login = LogIn(node_, "ida");
  ASSERT_TRUE(login.ok());
  const std::string session = R"({"session": ")" + database_.Run("SELECT id FROM bulkhead_internal.sessions")->Text(0, "id") + "\"}";
  auto next = node_.accounts.Refresh(login->refresh_token, From("192.0.2.1:1"));
  ASSERT_TRUE(next.ok()) << "which is no change that anybody asked for";
  EXPECT_FALSE(node_.accounts.Refresh(login->refresh_token, From("192.0.2.1:1")).ok());
  EXPECT_FALSE(LogIn(node_, "ida", "wrong").ok());
  EXPECT_FALSE(LogIn(node_, "nobody", "wrong").ok());
  EXPECT_FALSE(node_.accounts.Refresh("bhr_" + std::string(64, '0'), From("192.0.2.1:1")).ok());
  ASSERT_EQ(Audit(4).size(), 4u);
  login = LogIn(node_, "ida");
  ASSERT_TRUE(login.ok());
  ASSERT_TRUE(node_.accounts.LogOut(login->refresh_token, Root()).ok());
  ASSERT_TRUE(node_.accounts.LogOut(login->refresh_token, Root()).ok()) << "and ends nothing";
  const auto told = Audit(6);
  ASSERT_EQ(told.size(), 6u);
  EXPECT_EQ(told[1], "auth.login ida ida/user  " + session + " OK");
  EXPECT_EQ(told[2], "auth.refresh ida system/system " + session + "  REFRESH_TOKEN_INVALID");
  EXPECT_EQ(told[3], "auth.login ida /   INVALID_CREDENTIALS");
  EXPECT_THAT(told[5], testing::StartsWith("auth.logout ida ida/user {\"session\""));
}

TEST_F(AccountsTest, AChangeThatCanNotBeRecordedIsNotMade) {
  MakeUser("jana");
  const auto login = LogIn(node_, "jana");
  ASSERT_TRUE(login.ok());
  ASSERT_TRUE(node_.accounts.CreateRole(admin_, {"keeper", "", {"a:b"}, {}, {}}).ok());
  ASSERT_TRUE(node_.authenticator.Create(admin_, "ci", "", {"a:b"}, std::nullopt).ok());
  ASSERT_TRUE(database_.Run("ALTER TABLE bulkhead_internal.audit RENAME TO audit_away").ok());
  const Actor root = Root();
  EXPECT_FALSE(node_.accounts.CreateRole(admin_, {"other", "", {"a:b"}, {}, {}}, root).ok());
  EXPECT_FALSE(node_.accounts.UpdateRole(admin_, {"keeper", "", {"*"}, {}, {}}, root).ok());
  EXPECT_FALSE(node_.accounts.DeleteRole(admin_, "keeper", root).ok());
  EXPECT_FALSE(node_.authenticator.Create(admin_, "other", "", {"a:b"}, std::nullopt, {}, root).ok());
  EXPECT_FALSE(node_.authenticator.Delete("ci", root).ok());
  EXPECT_FALSE(node_.accounts.CreateUser(admin_, "other", kPassword, {}, true, root).ok());
  EXPECT_FALSE(node_.accounts.UpdateUser(admin_, "jana", {.password = "another long sentence"}, root).ok());
  EXPECT_FALSE(node_.accounts.DeleteUser(admin_, "jana", root).ok());
  EXPECT_FALSE(LogIn(node_, "jana").ok());
  EXPECT_FALSE(node_.accounts.LogOut(login->refresh_token, root).ok());
  EXPECT_EQ(root.recorded->what.load(), Recording::kNothing);
  ASSERT_TRUE(database_.Run("ALTER TABLE bulkhead_internal.audit_away RENAME TO audit").ok());
  EXPECT_EQ((*store_.Roles()).size(), 1u);
  EXPECT_THAT((*store_.Roles())[0].permissions, ElementsAre("a:b"));
  EXPECT_EQ((*store_.Tokens()).size(), 1u);
  EXPECT_EQ((*store_.Users()).size(), 1u);
  EXPECT_NE(Who(node_, login->access_token), nullptr) << "the session goes on";
  EXPECT_TRUE(LogIn(node_, "jana").ok()) << "with the old password";
}

TEST_F(AccountsTest, WhenATokenWasUsedIsWrittenOnceInAWhileAndAtTheEnd) {
  auto token = node_.authenticator.Create(admin_, "used", "", {"a:b"}, std::nullopt);
  ASSERT_TRUE(token.ok());
  node_.authenticator.Upkeep(false);  // the first of its interval
  ASSERT_NE(node_.authenticator.Authenticate(token->secret), nullptr);
  node_.authenticator.Upkeep(false);
  EXPECT_FALSE((*store_.Tokens())[0].last_used_at.has_value()) << "not on the path of a request, nor at each turn";
  EXPECT_TRUE((*node_.authenticator.List())[0].last_used_at.has_value()) << "but told at once";
  clock_.shift_ms += limits::kLastUsedInterval.count();
  node_.authenticator.Upkeep(false);
  const auto first = (*store_.Tokens())[0].last_used_at;
  ASSERT_TRUE(first.has_value());
  node_.authenticator.Authenticate(token->secret);
  node_.authenticator.Upkeep(true);
  EXPECT_GT((*store_.Tokens())[0].last_used_at, first);
  // Another node that knows of an earlier use writes nothing over it.
  ASSERT_TRUE(store_.TouchTokens({{token->row.id, *first}}).ok());
  EXPECT_GT((*store_.Tokens())[0].last_used_at, first);
}

TEST_F(AccountsTest, TokensAreKeptByNameWithAnIdOfTheirOwn) {
  const WallTime expires = WallTime(std::chrono::seconds(4'102'444'800));
  TokenRow row;
  row.name = "ci";
  row.subject = "ci@example";
  row.secret_sha256 = std::string(64, 'a');
  row.permissions = {"modules:read", "a \"quote\""};
  row.roles = {"viewer"};
  row.expires_at = expires;
  const auto made = store_.InsertToken(row);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->id.size(), 36u);
  row.secret_sha256 = std::string(64, 'b');
  EXPECT_EQ(ErrorCode(store_.InsertToken(row).status()), "TOKEN_EXISTS");
  const auto tokens = store_.Tokens();
  ASSERT_EQ(tokens->size(), 1u);
  EXPECT_THAT((*tokens)[0].permissions, ElementsAre("modules:read", "a \"quote\""));
  EXPECT_THAT((*tokens)[0].roles, ElementsAre("viewer"));
  EXPECT_EQ((*tokens)[0].expires_at, expires);
  EXPECT_TRUE(store_.DeleteToken("ci").ok());
  EXPECT_EQ(ErrorCode(store_.DeleteToken("ci")), "TOKEN_NOT_FOUND");
}

}  // namespace
}  // namespace bulkhead
