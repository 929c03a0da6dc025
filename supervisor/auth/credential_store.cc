#include "supervisor/auth/credential_store.h"

#include "nlohmann/json.hpp"
#include "supervisor/auth/identity.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr char kMasked[] = "********";
constexpr char kTokenColumns[] = "id, name, subject, secret_sha256, roles, permissions, created_at, expires_at, last_used_at";
constexpr char kRoleColumns[] = "name, description, permissions, created_at, updated_at";
constexpr char kUserColumns[] = "id, name, password, roles, enabled, epoch, created_at, updated_at, last_login_at";

std::string List(const std::vector<std::string>& texts) {
  return json(texts).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::vector<std::string> ListOf(const Rows& rows, int r, std::string_view column) {
  std::vector<std::string> texts;
  const json list = json::parse(rows.Text(r, column), nullptr, /*allow_exceptions=*/false);
  for (const auto& text : list) {
    if (text.is_string()) texts.push_back(text.get<std::string>());
  }
  return texts;
}

SqlParam Moment(const std::optional<WallTime>& time) { return time ? SqlParam(FormatWall(*time)) : std::nullopt; }

TokenRow TokenOf(const Rows& rows, int r) {
  TokenRow token;
  token.id = rows.Text(r, "id");
  token.name = rows.Text(r, "name");
  token.subject = rows.Text(r, "subject");
  token.secret_sha256 = rows.Text(r, "secret_sha256");
  token.roles = ListOf(rows, r, "roles");
  token.permissions = ListOf(rows, r, "permissions");
  token.created_at = rows.Time(r, "created_at").value_or(WallTime());
  token.expires_at = rows.Time(r, "expires_at");
  token.last_used_at = rows.Time(r, "last_used_at");
  return token;
}

RoleRow RoleOf(const Rows& rows, int r) {
  return {rows.Text(r, "name"), rows.Text(r, "description"), ListOf(rows, r, "permissions"), rows.Time(r, "created_at"),
          rows.Time(r, "updated_at")};
}

UserRow UserOf(const Rows& rows, int r) {
  UserRow user;
  user.id = rows.Text(r, "id");
  user.name = rows.Text(r, "name");
  user.password = rows.Text(r, "password");
  user.roles = ListOf(rows, r, "roles");
  user.enabled = rows.Bool(r, "enabled");
  user.epoch = rows.Int(r, "epoch");
  user.created_at = rows.Time(r, "created_at").value_or(WallTime());
  user.updated_at = rows.Time(r, "updated_at").value_or(WallTime());
  user.last_login_at = rows.Time(r, "last_login_at");
  return user;
}

absl::Status UserNotFound(const std::string& name) { return Error("USER_NOT_FOUND", "There is no user \"" + name + "\"."); }
absl::Status RoleNotFound(const std::string& name) { return Error("ROLE_NOT_FOUND", "There is no role \"" + name + "\"."); }

// ---- what the audit shows of a row ----

std::string Dump(const json& document) { return document.dump(-1, ' ', false, json::error_handler_t::replace); }

std::string Summary(const TokenRow& token) {
  return Dump({{"id", token.id},
               {"subject", token.subject},
               {"roles", token.roles},
               {"permissions", token.permissions},
               {"expiresAt", token.expires_at ? json(FormatWall(*token.expires_at)) : json()}});
}
std::string Summary(const RoleRow& role) { return Dump({{"description", role.description}, {"permissions", role.permissions}}); }
std::string Summary(const UserRow& user) { return Dump({{"roles", user.roles}, {"enabled", user.enabled}}); }
std::string SessionSummary(const std::string& id) { return Dump({{"session", id}}); }

// With a password that is set and not told; of nothing it is the whole.
std::string WithPassword(const std::string& summary) {
  json document = summary.empty() ? json::object() : json::parse(summary);
  document["password"] = kMasked;
  return Dump(document);
}

// Writes `audit`, if there is one, with what differs, in the transaction of the change. `target` is what was changed.
absl::Status AppendChange(Connection& c, const AuditRecord* audit, const std::string& target, const std::string& before, const std::string& after,
                    bool password_changed = false) {
  if (audit == nullptr) return absl::OkStatus();
  AuditRecord record = *audit;
  record.target = target;
  std::tie(record.before_json, record.after_json) = Changed(before, after);
  if (password_changed) {
    if (!before.empty()) record.before_json = WithPassword(record.before_json);
    record.after_json = WithPassword(record.after_json);
  }
  return AppendAudit(c, record);
}

// After the commit.
void Written(const AuditRecord* audit) {
  if (audit != nullptr) Recorded(*audit);
}

// Who shows a password or a refresh token is the user, whatever else he has sent.
std::optional<AuditRecord> ByUser(const AuditRecord* audit, const std::string& name, const std::string& session) {
  if (audit == nullptr) return std::nullopt;
  AuditRecord record = *audit;
  record.by.subject = name;
  record.by.credential = std::string(CredentialKindName(Credential::Kind::kUser));
  record.by.credential_id = session;
  return record;
}

constexpr char kEndSessionsOfUser[] =
    "UPDATE bulkhead_internal.sessions SET ended_at = now(), ended_why = $2 WHERE user_id = $1::uuid AND ended_at IS NULL";

}  // namespace

absl::Status RefreshInvalid() {
  return Error("REFRESH_TOKEN_INVALID", "The refresh token is not known, has expired, or its session has ended. Log in again.");
}

absl::StatusOr<int64_t> CredentialStore::Version() {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run("SELECT version FROM bulkhead_internal.auth_version"));
  return rows.size() == 0 ? 0 : rows.Int(0, "version");
}

// ---- API tokens ----

absl::StatusOr<std::vector<TokenRow>> CredentialStore::Tokens() {
  ASSIGN_OR_RETURN(const Rows rows,
                   database_.Run(std::string("SELECT ") + kTokenColumns + " FROM bulkhead_internal.api_tokens ORDER BY name"));
  std::vector<TokenRow> tokens;
  for (int r = 0; r < rows.size(); ++r) tokens.push_back(TokenOf(rows, r));
  return tokens;
}

absl::StatusOr<TokenRow> CredentialStore::InsertToken(const TokenRow& token, const AuditRecord* audit) {
  TokenRow made;
  const absl::Status status = database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows, c.Run(
        std::string("INSERT INTO bulkhead_internal.api_tokens (name, subject, secret_sha256, roles, permissions, created_at, expires_at) "
                    "VALUES ($1, $2, $3, $4::jsonb, $5::jsonb, coalesce($6::timestamptz, now()), $7::timestamptz) RETURNING ") +
            kTokenColumns,
        {token.name, token.subject, token.secret_sha256, List(token.roles), List(token.permissions),
         token.created_at == WallTime() ? std::nullopt : Moment(token.created_at), Moment(token.expires_at)}));
    made = TokenOf(rows, 0);
    return AppendChange(c, audit, made.name, "", Summary(made));
  });
  if (ErrorCode(status) == "UNIQUE_VIOLATION") return Error("TOKEN_EXISTS", "a token \"" + token.name + "\" exists already");
  RETURN_IF_ERROR(status);
  Written(audit);
  return made;
}

absl::Status CredentialStore::DeleteToken(const std::string& name, const AuditRecord* audit) {
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows,
                     c.Run(std::string("DELETE FROM bulkhead_internal.api_tokens WHERE name = $1 RETURNING ") + kTokenColumns, {name}));
    if (rows.size() == 0) return Error("TOKEN_NOT_FOUND", "no token \"" + name + "\" exists");
    return AppendChange(c, audit, name, Summary(TokenOf(rows, 0)), "");
  }));
  Written(audit);
  return absl::OkStatus();
}

absl::Status CredentialStore::TouchTokens(const std::map<std::string, WallTime>& used) {
  if (used.empty()) return absl::OkStatus();
  json list = json::array();
  for (const auto& [id, at] : used) list.push_back({{"id", id}, {"at", FormatWall(at)}});
  return database_
      .Run("UPDATE bulkhead_internal.api_tokens t SET last_used_at = u.at FROM jsonb_to_recordset($1::jsonb) AS u(id uuid, at timestamptz) "
           "WHERE t.id = u.id AND (t.last_used_at IS NULL OR t.last_used_at < u.at)",
           {list.dump()})
      .status();
}

// ---- roles ----

absl::StatusOr<std::vector<RoleRow>> CredentialStore::Roles() {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run(std::string("SELECT ") + kRoleColumns + " FROM bulkhead_internal.roles ORDER BY name"));
  std::vector<RoleRow> roles;
  for (int r = 0; r < rows.size(); ++r) roles.push_back(RoleOf(rows, r));
  return roles;
}

absl::StatusOr<RoleRow> CredentialStore::InsertRole(const RoleRow& role, const AuditRecord* audit) {
  RoleRow made;
  const absl::Status status = database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows, c.Run(std::string("INSERT INTO bulkhead_internal.roles (name, description, permissions) "
                                                        "VALUES ($1, $2, $3::jsonb) RETURNING ") + kRoleColumns,
                                            {role.name, role.description, List(role.permissions)}));
    made = RoleOf(rows, 0);
    return AppendChange(c, audit, made.name, "", Summary(made));
  });
  if (ErrorCode(status) == "UNIQUE_VIOLATION") return Error("ROLE_EXISTS", "A role \"" + role.name + "\" exists already.");
  RETURN_IF_ERROR(status);
  Written(audit);
  return made;
}

absl::StatusOr<RoleRow> CredentialStore::UpdateRole(const RoleRow& role, const AuditRecord* audit) {
  RoleRow updated;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows before,
                     c.Run(std::string("SELECT ") + kRoleColumns + " FROM bulkhead_internal.roles WHERE name = $1 FOR UPDATE", {role.name}));
    if (before.size() == 0) return RoleNotFound(role.name);
    ASSIGN_OR_RETURN(const Rows rows, c.Run(std::string("UPDATE bulkhead_internal.roles SET description = $2, permissions = $3::jsonb, "
                                                        "updated_at = now() WHERE name = $1 RETURNING ") + kRoleColumns,
                                            {role.name, role.description, List(role.permissions)}));
    updated = RoleOf(rows, 0);
    return AppendChange(c, audit, role.name, Summary(RoleOf(before, 0)), Summary(updated));
  }));
  Written(audit);
  return updated;
}

absl::Status CredentialStore::DeleteRole(const std::string& name, const AuditRecord* audit) {
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows role,
                     c.Run(std::string("SELECT ") + kRoleColumns + " FROM bulkhead_internal.roles WHERE name = $1 FOR UPDATE", {name}));
    if (role.size() == 0) return RoleNotFound(name);
    ASSIGN_OR_RETURN(const Rows holders, c.Run(
        "SELECT 'user ' || name AS holder FROM bulkhead_internal.users WHERE roles ? $1 UNION ALL "
        "SELECT 'token ' || name FROM bulkhead_internal.api_tokens WHERE roles ? $1 ORDER BY 1 LIMIT 20", {name}));
    if (holders.size() > 0) {
      std::vector<ErrorDetail> details;
      for (int r = 0; r < holders.size(); ++r) details.push_back({"", "ROLE_IN_USE", holders.Text(r, "holder") + " holds it."});
      return Error("ROLE_IN_USE", "The role \"" + name + "\" is held, first by " + holders.Text(0, "holder") + ". Take it away there first.",
                   std::move(details));
    }
    RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.roles WHERE name = $1", {name}).status());
    return AppendChange(c, audit, name, Summary(RoleOf(role, 0)), "");
  }));
  Written(audit);
  return absl::OkStatus();
}

// ---- users ----

absl::StatusOr<std::vector<UserRow>> CredentialStore::Users() {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run(std::string("SELECT ") + kUserColumns + " FROM bulkhead_internal.users ORDER BY name"));
  std::vector<UserRow> users;
  for (int r = 0; r < rows.size(); ++r) users.push_back(UserOf(rows, r));
  return users;
}

absl::StatusOr<UserRow> CredentialStore::User(const std::string& name) {
  ASSIGN_OR_RETURN(const Rows rows,
                   database_.Run(std::string("SELECT ") + kUserColumns + " FROM bulkhead_internal.users WHERE name = $1", {name}));
  if (rows.size() == 0) return UserNotFound(name);
  return UserOf(rows, 0);
}

absl::StatusOr<UserRow> CredentialStore::InsertUser(const UserRow& user, const AuditRecord* audit) {
  UserRow made;
  const absl::Status status = database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows, c.Run(std::string("INSERT INTO bulkhead_internal.users (name, password, roles, enabled) "
                                                        "VALUES ($1, $2, $3::jsonb, $4::boolean) RETURNING ") + kUserColumns,
                                            {user.name, user.password, List(user.roles), user.enabled ? "true" : "false"}));
    made = UserOf(rows, 0);
    return AppendChange(c, audit, made.name, "", Summary(made), /*password_changed=*/true);
  });
  if (ErrorCode(status) == "UNIQUE_VIOLATION") return Error("USER_EXISTS", "A user \"" + user.name + "\" exists already.");
  RETURN_IF_ERROR(status);
  Written(audit);
  return made;
}

absl::StatusOr<UserRow> CredentialStore::UpdateUser(const UserRow& before, const UserRow& user, const std::optional<std::string>& password,
                                                    const AuditRecord* audit) {
  UserRow updated;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    // `before` may have been enabled or disabled since.
    ASSIGN_OR_RETURN(const Rows held,
                     c.Run(std::string("SELECT ") + kUserColumns + " FROM bulkhead_internal.users WHERE id = $1::uuid FOR UPDATE", {before.id}));
    ASSIGN_OR_RETURN(const Rows rows, c.Run(
        std::string("UPDATE bulkhead_internal.users SET roles = $2::jsonb, enabled = $3::boolean, password = coalesce($4, password), "
                    "epoch = epoch + CASE WHEN $4::text IS NOT NULL OR (enabled AND NOT $3::boolean) THEN 1 ELSE 0 END, updated_at = now() "
                    "WHERE id = $1::uuid AND roles = $5::jsonb AND password = $6 RETURNING ") + kUserColumns,
        {before.id, List(user.roles), user.enabled ? "true" : "false", password, List(before.roles), before.password}));
    if (rows.size() == 0) return Error("GENERATION_CHANGED", "The user \"" + before.name + "\" was changed meanwhile. Look again, and try again.");
    updated = UserOf(rows, 0);
    if (password || !updated.enabled)
      RETURN_IF_ERROR(c.Run(kEndSessionsOfUser, {updated.id, password ? "password changed" : "user disabled"}).status());
    return AppendChange(c, audit, updated.name, Summary(UserOf(held, 0)), Summary(updated), password.has_value());
  }));
  Written(audit);
  return updated;
}

absl::Status CredentialStore::DeleteUser(const std::string& name, const AuditRecord* audit) {
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows, c.Run(std::string("DELETE FROM bulkhead_internal.users WHERE name = $1 RETURNING ") + kUserColumns, {name}));
    if (rows.size() == 0) return UserNotFound(name);
    return AppendChange(c, audit, name, Summary(UserOf(rows, 0)), "");
  }));
  Written(audit);
  return absl::OkStatus();
}

absl::Status CredentialStore::RehashPassword(const std::string& user_id, const std::string& before, const std::string& after) {
  return database_.Run("UPDATE bulkhead_internal.users SET password = $3 WHERE id = $1::uuid AND password = $2", {user_id, before, after}).status();
}

// ---- sessions ----

absl::StatusOr<SessionRow> CredentialStore::BeginSession(const UserRow& user, const std::string& refresh_sha256, WallTime expires_at,
                                                         const AuditRecord* audit) {
  SessionRow session;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    // What was read before the password was checked must still hold: a user who was disabled meanwhile gets no session.
    ASSIGN_OR_RETURN(const Rows held, c.Run(
        "UPDATE bulkhead_internal.users SET last_login_at = now() WHERE id = $1::uuid AND enabled AND epoch = $2::bigint RETURNING id",
        {user.id, std::to_string(user.epoch)}));
    if (held.size() == 0) return UserNotFound(user.name);
    ASSIGN_OR_RETURN(const Rows made, c.Run(
        "INSERT INTO bulkhead_internal.sessions (user_id, expires_at) VALUES ($1::uuid, $2::timestamptz) RETURNING id",
        {user.id, FormatWall(expires_at)}));
    session = {made.Text(0, "id"), user.id};
    RETURN_IF_ERROR(c.Run("INSERT INTO bulkhead_internal.refresh_tokens (secret_sha256, session_id, expires_at) "
                          "VALUES ($1, $2::uuid, $3::timestamptz)", {refresh_sha256, session.id, FormatWall(expires_at)}).status());
    const auto record = ByUser(audit, user.name, session.id);
    return AppendChange(c, record ? &*record : nullptr, user.name, "", SessionSummary(session.id));
  }));
  Written(audit);
  return session;
}

absl::StatusOr<SessionRow> CredentialStore::Refresh(const std::string& refresh_sha256, const std::string& next_sha256, WallTime now,
                                                    WallTime expires_at, bool& reused, const AuditRecord* audit) {
  SessionRow session;
  bool valid = false;
  reused = false;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    // The lock makes one of two callers with the same token the second one.
    ASSIGN_OR_RETURN(const Rows rows, c.Run(
        "SELECT s.id, s.user_id, s.ended_at IS NOT NULL AS ended, t.used_at IS NOT NULL AS used, t.expires_at <= $2::timestamptz AS expired, "
        "u.enabled, u.name FROM bulkhead_internal.refresh_tokens t JOIN bulkhead_internal.sessions s ON s.id = t.session_id "
        "JOIN bulkhead_internal.users u ON u.id = s.user_id WHERE t.secret_sha256 = $1 FOR UPDATE OF t, s",
        {refresh_sha256, FormatWall(now)}));
    if (rows.size() == 0 || rows.Bool(0, "ended") || !rows.Bool(0, "enabled")) return absl::OkStatus();
    session = {rows.Text(0, "id"), rows.Text(0, "user_id")};
    if (rows.Bool(0, "used")) {
      reused = true;
      RETURN_IF_ERROR(c.Run("UPDATE bulkhead_internal.sessions SET ended_at = now(), ended_why = 'refresh token used twice' WHERE id = $1::uuid",
                            {session.id}).status());
      return AppendChange(c, audit, rows.Text(0, "name"), SessionSummary(session.id), "");
    }
    if (rows.Bool(0, "expired")) return absl::OkStatus();
    valid = true;
    RETURN_IF_ERROR(c.Run("UPDATE bulkhead_internal.refresh_tokens SET used_at = now() WHERE secret_sha256 = $1", {refresh_sha256}).status());
    RETURN_IF_ERROR(c.Run("UPDATE bulkhead_internal.sessions SET expires_at = $2::timestamptz WHERE id = $1::uuid",
                          {session.id, FormatWall(expires_at)}).status());
    return c.Run("INSERT INTO bulkhead_internal.refresh_tokens (secret_sha256, session_id, expires_at) VALUES ($1, $2::uuid, $3::timestamptz)",
                 {next_sha256, session.id, FormatWall(expires_at)}).status();
  }));
  if (reused) Written(audit);
  if (!valid) return RefreshInvalid();
  return session;
}

absl::StatusOr<bool> CredentialStore::EndSession(const std::string& refresh_sha256, const AuditRecord* audit) {
  bool ended = false;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows, c.Run(
        "UPDATE bulkhead_internal.sessions s SET ended_at = now(), ended_why = 'logged out' FROM bulkhead_internal.refresh_tokens t, "
        "bulkhead_internal.users u WHERE t.secret_sha256 = $1 AND s.id = t.session_id AND s.ended_at IS NULL AND u.id = s.user_id "
        "RETURNING s.id, u.name", {refresh_sha256}));
    ended = rows.size() > 0;
    if (!ended) return absl::OkStatus();
    const auto record = ByUser(audit, rows.Text(0, "name"), rows.Text(0, "id"));
    return AppendChange(c, record ? &*record : nullptr, rows.Text(0, "name"), SessionSummary(rows.Text(0, "id")), "");
  }));
  if (ended) Written(audit);
  return ended;
}

absl::StatusOr<std::vector<std::string>> CredentialStore::EndedSessions(Millis since) {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run(
      "SELECT id FROM bulkhead_internal.sessions WHERE ended_at > now() - $1::bigint * interval '1 millisecond'",
      {std::to_string(since.count())}));
  std::vector<std::string> ids;
  for (int r = 0; r < rows.size(); ++r) ids.push_back(rows.Text(r, "id"));
  return ids;
}

absl::Status CredentialStore::DeleteOldSessions(Millis ended_before) {
  RETURN_IF_ERROR(database_.Run("DELETE FROM bulkhead_internal.refresh_tokens WHERE expires_at < now()").status());
  return database_.Run("DELETE FROM bulkhead_internal.sessions WHERE coalesce(ended_at, expires_at) < now() - $1::bigint * interval '1 millisecond'",
                       {std::to_string(ended_before.count())}).status();
}

}  // namespace bulkhead
