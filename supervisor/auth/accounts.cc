#include "supervisor/auth/accounts.h"

#include <algorithm>

#include "supervisor/auth/passwords.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

constexpr std::string_view kRefreshPrefix = "bhr_";
constexpr size_t kRefreshBytes = 32;
constexpr size_t kRefreshSize = 4 + 2 * kRefreshBytes;
constexpr size_t kMaxUserName = 64;
constexpr size_t kMaxRoles = 8;  // of a user; with what each may hold they fit into the head of a request to a module
constexpr size_t kMaxRoleNameSize = 64;
constexpr size_t kMaxRolePermissions = 64;
constexpr size_t kMaxRoleBytes = 4 * 1024;  // of a role's permissions together
constexpr size_t kMaxDescription = 1'000;
constexpr size_t kMaxPasswordBytes = 4 * limits::kMaxPassword;

// Lower case alone, so that two users never differ by it.
bool ValidUserName(std::string_view name) {
  if (name.empty() || name.size() > kMaxUserName) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || std::string_view("._@+-").find(c) != std::string_view::npos;
  });
}

absl::Status InvalidCredentials() {
  return Error("INVALID_CREDENTIALS", "The user name or the password is wrong, or the user is disabled.");
}

absl::Status Invalid(std::string_view what, std::vector<ErrorDetail> wrong) {
  const std::string message = std::string(what) + ": " + wrong.front().message;
  return Error("INVALID_ARGUMENT", message, std::move(wrong));
}

void CheckRoleNames(const std::vector<std::string>& roles, const AccountTable& accounts, std::vector<ErrorDetail>& wrong) {
  if (roles.size() > kMaxRoles) wrong.push_back({"/roles", "INVALID_ARGUMENT", "At most 8 roles are possible."});
  for (size_t i = 0; i < roles.size(); ++i) {
    if (!accounts.roles.contains(roles[i])) wrong.push_back({"/roles/" + std::to_string(i), "INVALID_ARGUMENT", "There is no such role."});
  }
}

absl::Status CheckRoleRow(const RoleRow& role) {
  std::vector<ErrorDetail> wrong;
  const auto add = [&](std::string path, std::string message) { wrong.push_back({std::move(path), "INVALID_ARGUMENT", std::move(message)}); };
  if (!KebabCase(role.name) || role.name.size() > kMaxRoleNameSize)
    add("/name", "The name must be kebab-case (a-z, 0-9, single dashes between), at most 64 characters.");
  if (role.description.size() > kMaxDescription || !IsValidUtf8(role.description)) add("/description", "The description has at most 1000 bytes of text.");
  size_t bytes = 0;
  for (const std::string& permission : role.permissions) bytes += permission.size() + 1;
  if (role.permissions.size() > kMaxRolePermissions || bytes > kMaxRoleBytes)
    add("/permissions", "At most 64 permissions are possible, of 4 KiB together.");
  for (size_t i = 0; i < role.permissions.size(); ++i) {
    if (!ValidPermission(role.permissions[i]))
      add("/permissions/" + std::to_string(i), "A permission looks like \"modules:read\", \"module:orders:*\" or \"*\", at most 128 characters.");
  }
  return wrong.empty() ? absl::OkStatus() : Invalid("The role cannot be kept", std::move(wrong));
}

}  // namespace

std::string AccessKey(std::string_view master_key) { return HmacSha256(master_key, "bulkhead access tokens 1"); }

Accounts::Accounts(const Clock& clock, CredentialStore& store, Authenticator& authenticator, std::string access_key)
    : clock_(clock),
      store_(store),
      authenticator_(authenticator),
      access_key_(std::move(access_key)),
      user_attempts_(clock, limits::kFreeLoginsPerUser),
      address_attempts_(clock, limits::kFreeLoginsPerAddress),
      hashing_(limits::kParallelHashes, limits::kMaxQueuedHashes) {}

// What has been changed in the database holds here from now on. Where it can't be read now, Upkeep() does it as soon as it can be.
void Accounts::Publish() {
  if (const absl::Status read = authenticator_.Reload(); !read.ok())
    LogWarn("auth", "a change of users or roles will be read later", {{"reason", std::string(read.message())}});
}

// ---- sessions ----

void Accounts::LogIn(const std::string& name, const std::string& password, const Actor& by,
                     std::function<void(absl::StatusOr<Login>)> done) {
  const std::string from = AttemptAddress(by.address);
  const std::string user = name.substr(0, kMaxUserName + 1);
  if (const Millis wait = address_attempts_.Begin(from); wait > Millis(0)) return done(TooManyAttempts(wait));
  if (const Millis wait = user_attempts_.Begin(user); wait > Millis(0)) {
    address_attempts_.TakeBack(from);  // nothing was tried
    return done(TooManyAttempts(wait));
  }
  const bool queued = Submit([this, name, password, user, from, by, done] {
    bool known = false;
    absl::StatusOr<Login> login = CheckAndBegin(name, password, by, known);
    const bool wrong = ErrorCode(login.status()) == "INVALID_CREDENTIALS";
    // Somebody who knows one password is not free to try others from there: his own try alone is taken back.
    if (!wrong) address_attempts_.TakeBack(from);
    if (login.ok()) user_attempts_.Succeeded(user);
    else if (!wrong) user_attempts_.TakeBack(user);
    LogInfo("auth", login.ok() ? "a user logged in" : "a login failed",
            {{"user", ValidUtf8(user)}, {"address", by.address}, {"result", login.ok() ? "OK" : ErrorCode(login.status())}});
    const absl::Status outcome = login.status();
    done(std::move(login));
    // Behind the answer: how long it took must not tell whether there is such a user.
    if (wrong && known) RecordFailedLogin(name, by, outcome);
  });
  if (queued) return;
  address_attempts_.TakeBack(from);
  user_attempts_.TakeBack(user);
  done(Error("OVERLOADED", "Too many logins are under way. Try again in a moment."));
}

// The actor is nobody: whoever it was did not show who he is. So many are the tries that `Attempts` grants.
void Accounts::RecordFailedLogin(const std::string& name, Actor by, const absl::Status& failure) {
  by.subject = by.credential = by.credential_id = "";
  AuditRecord record{.by = std::move(by), .action = "auth.login", .target = name};
  record.outcome = ErrorCode(failure);
  record.message = std::string(failure.message());
  if (const absl::Status written = store_.Append(record); !written.ok())
    LogWarn("auth", "a login that failed is missing in the audit", {{"user", name}, {"reason", std::string(written.message())}});
}

absl::StatusOr<Accounts::Login> Accounts::CheckAndBegin(const std::string& name, const std::string& password, const Actor& by, bool& known) {
  absl::StatusOr<UserRow> user = ValidUserName(name) ? store_.User(name) : Error("USER_NOT_FOUND", "");
  known = user.ok();
  if (!user.ok() && ErrorCode(user.status()) != "USER_NOT_FOUND") return user.status();
  const bool fits = password.size() <= kMaxPasswordBytes;
  const std::string& tried = fits ? password : name;
  const bool right = user.ok() && fits ? VerifyPassword(tried, user->password) : VerifyNobody(tried);
  if (!right || !user->enabled) return InvalidCredentials();
  if (NeedsRehash(user->password)) {
    if (auto phc = HashPassword(password); phc.ok()) (void)store_.RehashPassword(user->id, user->password, *phc);
  }
  std::string refresh_token = std::string(kRefreshPrefix) + RandomHex(kRefreshBytes);
  const AuditRecord audit{.by = by, .action = "auth.login"};
  auto session = store_.BeginSession(*user, Sha256Hex(refresh_token), clock_.Wall() + limits::kRefreshTokenLife, &audit);
  if (ErrorCode(session.status()) == "USER_NOT_FOUND") return InvalidCredentials();
  RETURN_IF_ERROR(session.status());
  return MakeLogin(*session, std::move(refresh_token));
}

absl::StatusOr<Accounts::Login> Accounts::MakeLogin(const SessionRow& session, std::string refresh_token) {
  auto accounts = authenticator_.Accounts();
  auto user = accounts->users.find(session.user_id);
  if (user == accounts->users.end()) {  // made on another node a moment ago
    RETURN_IF_ERROR(authenticator_.Reload());
    accounts = authenticator_.Accounts();
    user = accounts->users.find(session.user_id);
    if (user == accounts->users.end()) return InvalidCredentials();
  }
  Login login;
  login.access_token = MakeAccessToken(access_key_, {session.user_id, user->second.name, session.id, user->second.epoch}, clock_.Wall());
  login.refresh_token = std::move(refresh_token);
  login.expires_in = limits::kAccessTokenLife;
  login.refresh_expires_in = limits::kRefreshTokenLife;
  return login;
}

absl::StatusOr<Accounts::Login> Accounts::Refresh(const std::string& refresh_token, const Actor& by) {
  const std::string from = AttemptAddress(by.address);
  if (const Millis wait = address_attempts_.Begin(from); wait > Millis(0)) return TooManyAttempts(wait);
  if (refresh_token.size() != kRefreshSize || !refresh_token.starts_with(kRefreshPrefix)) return RefreshInvalid();
  std::string next = std::string(kRefreshPrefix) + RandomHex(kRefreshBytes);
  bool reused = false;
  const WallTime now = clock_.Wall();
  const absl::Status invalid = RefreshInvalid();
  AuditRecord audit{.by = by, .action = "auth.refresh", .outcome = ErrorCode(invalid)};
  audit.by.subject = audit.by.credential = "system";
  audit.by.credential_id = "";
  audit.message = "The refresh token was used a second time, by its user or by who has stolen it: its session has ended.";
  auto session = store_.Refresh(Sha256Hex(refresh_token), Sha256Hex(next), now, now + limits::kRefreshTokenLife, reused, &audit);
  if (reused) {
    LogWarn("auth", "a refresh token was used twice: its session has ended", {{"address", by.address}});
    Publish();
  }
  if (ErrorCode(session.status()) == "REFRESH_TOKEN_INVALID") return session.status();
  address_attempts_.TakeBack(from);
  RETURN_IF_ERROR(session.status());
  return MakeLogin(*session, std::move(next));
}

absl::Status Accounts::LogOut(const std::string& refresh_token, const Actor& by) {
  if (refresh_token.size() != kRefreshSize || !refresh_token.starts_with(kRefreshPrefix)) return absl::OkStatus();
  const AuditRecord audit{.by = by, .action = "auth.logout"};
  ASSIGN_OR_RETURN(const bool ended, store_.EndSession(Sha256Hex(refresh_token), &audit));
  if (ended) Publish();
  return absl::OkStatus();
}

absl::Status Accounts::ChangePassword(const Identity& caller, const std::string& current, const std::string& next, const Actor& by) {
  if (caller.user_id.empty()) return Error("FORBIDDEN", "\"" + caller.subject + "\" is no user with a password here.");
  RETURN_IF_ERROR(CheckNewPassword(next, caller.subject, "newPassword"));
  if (const Millis wait = user_attempts_.Begin(caller.subject); wait > Millis(0)) return TooManyAttempts(wait);
  auto user = store_.User(caller.subject);
  if (!user.ok()) user_attempts_.TakeBack(caller.subject);
  RETURN_IF_ERROR(user.status());
  if (current.size() > kMaxPasswordBytes || !VerifyPassword(current, user->password)) {
    return Error("INVALID_CREDENTIALS", "The current password is wrong.");
  }
  user_attempts_.Succeeded(caller.subject);
  ASSIGN_OR_RETURN(const std::string phc, HashPassword(next));
  const AuditRecord audit{.by = by, .action = "auth.change-password"};
  RETURN_IF_ERROR(store_.UpdateUser(*user, *user, phc, &audit).status());
  Publish();
  return absl::OkStatus();
}

// ---- users ----

absl::StatusOr<UserRow> Accounts::User(const std::string& name) {
  if (!ValidUserName(name)) return Error("USER_NOT_FOUND", "There is no user of that name.");
  return store_.User(name);
}

absl::StatusOr<UserRow> Accounts::CreateUser(const Identity& caller, const std::string& name, const std::string& password,
                                             const std::vector<std::string>& roles, bool enabled, const Actor& by) {
  const auto accounts = authenticator_.Accounts();
  std::vector<ErrorDetail> wrong;
  if (!ValidUserName(name)) {
    wrong.push_back({"/name", "INVALID_ARGUMENT", "The name must be 1 to 64 of the characters a-z 0-9 . _ @ + -."});
  } else if (name == kAdminSubject) {
    wrong.push_back({"/name", "INVALID_ARGUMENT", "The name \"admin\" belongs to the admin token. Give the role admin to a user of another name."});
  }
  if (const absl::Status checked = CheckNewPassword(password, name, "password"); !checked.ok()) {
    for (ErrorDetail& detail : ErrorDetails(checked)) wrong.push_back(std::move(detail));
  }
  CheckRoleNames(roles, *accounts, wrong);
  if (!wrong.empty()) return Invalid("The user cannot be made", std::move(wrong));
  RETURN_IF_ERROR(CheckGiving(caller, *accounts, roles, {}, "A user"));
  UserRow user;
  user.name = name;
  user.roles = roles;
  user.enabled = enabled;
  ASSIGN_OR_RETURN(user.password, HashPassword(password));
  const AuditRecord audit{.by = by, .action = "users.create"};
  ASSIGN_OR_RETURN(user, store_.InsertUser(user, &audit));
  Publish();
  return user;
}

absl::StatusOr<UserRow> Accounts::UpdateUser(const Identity& caller, const std::string& name, const UserChange& change, const Actor& by) {
  ASSIGN_OR_RETURN(const UserRow before, User(name));
  UserRow user = before;
  const auto accounts = authenticator_.Accounts();
  RETURN_IF_ERROR(CheckGiving(caller, *accounts, user.roles, {}, "The user"));
  std::vector<ErrorDetail> wrong;
  if (change.password) {
    if (const absl::Status checked = CheckNewPassword(*change.password, name, "password"); !checked.ok()) wrong = ErrorDetails(checked);
  }
  if (change.roles) {
    user.roles = *change.roles;
    CheckRoleNames(user.roles, *accounts, wrong);
  }
  if (!wrong.empty()) return Invalid("The user cannot be changed", std::move(wrong));
  RETURN_IF_ERROR(CheckGiving(caller, *accounts, user.roles, {}, "The user"));
  if (change.enabled) user.enabled = *change.enabled;
  std::optional<std::string> phc;
  if (change.password) {
    ASSIGN_OR_RETURN(phc, HashPassword(*change.password));
  }
  const AuditRecord audit{.by = by, .action = "users.update"};
  ASSIGN_OR_RETURN(user, store_.UpdateUser(before, user, phc, &audit));
  if (change.password) user_attempts_.Succeeded(name);
  Publish();
  return user;
}

absl::Status Accounts::DeleteUser(const Identity& caller, const std::string& name, const Actor& by) {
  ASSIGN_OR_RETURN(const UserRow user, User(name));
  RETURN_IF_ERROR(CheckGiving(caller, *authenticator_.Accounts(), user.roles, {}, "The user"));
  const AuditRecord audit{.by = by, .action = "users.delete"};
  RETURN_IF_ERROR(store_.DeleteUser(name, &audit));
  Publish();
  return absl::OkStatus();
}

// ---- roles ----

absl::StatusOr<std::vector<RoleRow>> Accounts::Roles() {
  std::vector<RoleRow> roles = BuiltInRoles();
  ASSIGN_OR_RETURN(std::vector<RoleRow> custom, store_.Roles());
  for (RoleRow& role : custom) roles.push_back(std::move(role));
  return roles;
}

absl::StatusOr<RoleRow> Accounts::Role(const std::string& name) {
  ASSIGN_OR_RETURN(std::vector<RoleRow> roles, Roles());
  const auto found = std::find_if(roles.begin(), roles.end(), [&](const RoleRow& role) { return role.name == name; });
  if (found == roles.end()) return Error("ROLE_NOT_FOUND", "There is no role \"" + name.substr(0, kMaxRoleNameSize) + "\".");
  return std::move(*found);
}

// A role that the caller may change: not built in, and holding nothing that he lacks.
absl::StatusOr<RoleRow> Accounts::CustomRole(const Identity& caller, const std::string& name) {
  ASSIGN_OR_RETURN(RoleRow role, Role(name));
  if (IsBuiltInRole(name)) return Error("ROLE_BUILT_IN", "The role \"" + name + "\" is built in and stays as it is. Make one of your own.");
  RETURN_IF_ERROR(CheckGiving(caller, *authenticator_.Accounts(), {}, role.permissions, "The role"));
  return role;
}

absl::StatusOr<RoleRow> Accounts::CreateRole(const Identity& caller, const RoleRow& role, const Actor& by) {
  RETURN_IF_ERROR(CheckRoleRow(role));
  if (IsBuiltInRole(role.name)) return Error("ROLE_EXISTS", "A role \"" + role.name + "\" exists already: it is built in.");
  RETURN_IF_ERROR(CheckGiving(caller, *authenticator_.Accounts(), {}, role.permissions, "A role"));
  const AuditRecord audit{.by = by, .action = "roles.create"};
  ASSIGN_OR_RETURN(RoleRow made, store_.InsertRole(role, &audit));
  Publish();
  return made;
}

absl::StatusOr<RoleRow> Accounts::UpdateRole(const Identity& caller, const RoleRow& role, const Actor& by) {
  RETURN_IF_ERROR(CustomRole(caller, role.name).status());
  RETURN_IF_ERROR(CheckRoleRow(role));
  RETURN_IF_ERROR(CheckGiving(caller, *authenticator_.Accounts(), {}, role.permissions, "The role"));
  const AuditRecord audit{.by = by, .action = "roles.update"};
  ASSIGN_OR_RETURN(RoleRow updated, store_.UpdateRole(role, &audit));
  Publish();
  return updated;
}

absl::Status Accounts::DeleteRole(const Identity& caller, const std::string& name, const Actor& by) {
  RETURN_IF_ERROR(CustomRole(caller, name).status());
  const AuditRecord audit{.by = by, .action = "roles.delete"};
  RETURN_IF_ERROR(store_.DeleteRole(name, &audit));
  Publish();
  return absl::OkStatus();
}

}  // namespace bulkhead
