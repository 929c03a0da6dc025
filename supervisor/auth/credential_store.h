// The rows of who may call: API tokens, custom roles, users, their sessions and refresh tokens. Blocking; thread-safe. Only hashes of
// secrets are in them. What they mean is said in authenticator.h and accounts.h.
//
// A change that is given an AuditRecord (its actor and action) writes it in its own transaction, with what was before and after; hashes
// and secrets are in neither.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/store/audit.h"
#include "supervisor/store/database.h"

namespace bulkhead {

struct TokenRow {
  std::string id;  // UUID, made by the database
  std::string name, subject, secret_sha256;  // hex
  std::vector<std::string> roles, permissions;
  WallTime created_at;
  std::optional<WallTime> expires_at, last_used_at;
};

struct RoleRow {
  std::string name, description;
  std::vector<std::string> permissions;
  std::optional<WallTime> created_at, updated_at;  // none for a built-in one
};

struct UserRow {
  std::string id;  // UUID
  std::string name;
  std::string password;  // PHC string of argon2id
  std::vector<std::string> roles;
  bool enabled = true;
  int64_t epoch = 1;  // access tokens of an older one have ended
  WallTime created_at, updated_at;
  std::optional<WallTime> last_login_at;
};

struct SessionRow {
  std::string id, user_id;
};

absl::Status RefreshInvalid();  // REFRESH_TOKEN_INVALID

class CredentialStore {
 public:
  explicit CredentialStore(Database& database) : database_(database) {}

  // Moves with each change of what the lists below hold, by whatever node.
  absl::StatusOr<int64_t> Version();

  absl::StatusOr<std::vector<TokenRow>> Tokens();
  absl::StatusOr<TokenRow> InsertToken(const TokenRow& token, const AuditRecord* audit = nullptr);  // TOKEN_EXISTS
  absl::Status DeleteToken(const std::string& name, const AuditRecord* audit = nullptr);            // TOKEN_NOT_FOUND
  // Writes when tokens (by id) were used last; never back in time.
  absl::Status TouchTokens(const std::map<std::string, WallTime>& used);

  absl::StatusOr<std::vector<RoleRow>> Roles();
  absl::StatusOr<RoleRow> InsertRole(const RoleRow& role, const AuditRecord* audit = nullptr);  // ROLE_EXISTS
  absl::StatusOr<RoleRow> UpdateRole(const RoleRow& role, const AuditRecord* audit = nullptr);  // ROLE_NOT_FOUND
  // ROLE_NOT_FOUND; ROLE_IN_USE names users and tokens.
  absl::Status DeleteRole(const std::string& name, const AuditRecord* audit = nullptr);

  absl::StatusOr<std::vector<UserRow>> Users();
  absl::StatusOr<UserRow> User(const std::string& name);                                        // USER_NOT_FOUND
  absl::StatusOr<UserRow> InsertUser(const UserRow& user, const AuditRecord* audit = nullptr);  // USER_EXISTS
  // Writes roles, enabled and, when given, a new password. A password and a disabling move the epoch and end the sessions.
  // GENERATION_CHANGED when roles or password are no longer those of `before`.
  absl::StatusOr<UserRow> UpdateUser(const UserRow& before, const UserRow& user, const std::optional<std::string>& password,
                                     const AuditRecord* audit = nullptr);
  absl::Status DeleteUser(const std::string& name, const AuditRecord* audit = nullptr);  // USER_NOT_FOUND
  // The same password hashed with other parameters: nothing ends. Nothing happens when it was changed meanwhile.
  absl::Status RehashPassword(const std::string& user_id, const std::string& before, const std::string& after);

  // A login: a session with its first refresh token. USER_NOT_FOUND when the user's password, epoch or enabling has changed since `user`
  // was read. Recorded as done by the user.
  absl::StatusOr<SessionRow> BeginSession(const UserRow& user, const std::string& refresh_sha256, WallTime expires_at,
                                          const AuditRecord* audit = nullptr);
  // Takes a refresh token for its successor. REFRESH_TOKEN_INVALID: unknown, expired, of an ended session or a disabled user; used
  // already, which ends the session (`reused` is set then). Only that end is recorded, as done by the supervisor: who came is not known.
  absl::StatusOr<SessionRow> Refresh(const std::string& refresh_sha256, const std::string& next_sha256, WallTime now, WallTime expires_at,
                                     bool& reused, const AuditRecord* audit = nullptr);
  // Ends the session of a refresh token; true when there was one to end. Recorded as done by the user.
  absl::StatusOr<bool> EndSession(const std::string& refresh_sha256, const AuditRecord* audit = nullptr);
  // Sessions that ended so late that an access token of theirs may still be unexpired.
  absl::StatusOr<std::vector<std::string>> EndedSessions(Millis since);
  absl::Status DeleteOldSessions(Millis ended_before);

  // What changed nothing: a login that failed.
  absl::Status Append(const AuditRecord& refusal) { return AuditLog(database_).Append(refusal); }

 private:
  Database& database_;
};

}  // namespace bulkhead
