#include "supervisor/auth/authenticator.h"

#include <algorithm>

#include "supervisor/auth/admin_token.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

constexpr size_t kTokenSecretBytes = 24;  // as 48 hex digits after the prefix
constexpr std::string_view kTokenPrefix = "bhk_";
constexpr size_t kMaxTokenName = 64;
constexpr size_t kMaxTokenPermissions = 64;
constexpr size_t kMaxTokenRoles = 8;
constexpr Millis kPruneInterval{3'600'000};
constexpr Millis kEndedSessionMemory = 2 * limits::kAccessTokenLife;  // longer than an access token and the difference of clocks
constexpr Millis kSessionKept{int64_t{7} * 24 * 3'600'000};           // after its end, to look into what happened


absl::Status CheckNewToken(const std::string& name, const std::string& subject, const std::vector<std::string>& permissions,
                           const std::vector<std::string>& roles, const AccountTable& accounts, std::optional<WallTime> expires_at,
                           WallTime now) {
  std::vector<ErrorDetail> wrong;
  const auto add = [&](std::string path, std::string message) {
    wrong.push_back({std::move(path), "INVALID_ARGUMENT", std::move(message)});
  };
  if (!KebabCase(name) || name.size() > kMaxTokenName)
    add("/name", "The name must be kebab-case (a-z, 0-9, single dashes between), at most 64 characters.");
  if (!ValidSubject(subject)) add("/subject", "The subject must be 1 to 128 of the characters A-Z a-z 0-9 . _ @ : / + -.");
  if (subject == kAdminSubject)
    add(name == kAdminSubject ? "/name" : "/subject", "The subject \"admin\" belongs to the admin token.");
  if (subject.starts_with(kModuleSubjects)) add("/subject", "Subjects that begin with \"module:\" belong to the modules.");
  if (permissions.empty() && roles.empty())
    add("/permissions", "At least one permission or role is needed, such as \"modules:read\".");
  if (roles.size() > kMaxTokenRoles) add("/roles", "At most 8 roles are possible.");
  for (size_t i = 0; i < roles.size(); ++i) {
    if (!accounts.roles.contains(roles[i])) add("/roles/" + std::to_string(i), "There is no such role.");
  }
  if (permissions.size() > kMaxTokenPermissions) add("/permissions", "At most 64 permissions are possible.");
  for (size_t i = 0; i < permissions.size(); ++i) {
    if (!ValidPermission(permissions[i])) {
      add("/permissions/" + std::to_string(i),
          "A permission looks like \"modules:read\", \"consumption:*\" or \"*\", at most 128 characters.");
    }
  }
  if (expires_at && *expires_at <= now) add("/expiresAt", "The expiry lies in the past.");
  if (wrong.empty()) return absl::OkStatus();
  const std::string message = "The token cannot be made: " + wrong.front().message;
  return Error("INVALID_ARGUMENT", message, std::move(wrong));
}

}  // namespace

absl::Status CheckGiving(const Identity& giver, const AccountTable& accounts, const std::vector<std::string>& roles,
                         const std::vector<std::string>& permissions, std::string_view what) {
  for (const std::string& permission : accounts.Permissions(roles, permissions)) {
    if (!giver.Allows(permission)) {
      return Error("FORBIDDEN", std::string(what) + " cannot hold the permission \"" + permission + "\", because its maker \"" +
                                    giver.subject + "\" does not hold it.");
    }
  }
  return absl::OkStatus();
}

Authenticator::Authenticator(const Clock& clock, CredentialStore& store, JwtVerifier::Options options)
    : clock_(clock), store_(store), bad_tokens_(clock, limits::kFreeBadTokensPerAddress) {
  state_.With([](State& state) {
    state.table = std::make_shared<const TokenTable>(std::unordered_map<std::string, TokenTable::Entry>{});
    state.accounts = std::make_shared<const AccountTable>(MakeAccountTable({}, {}, {}));
  });
  jwt_ = std::make_unique<JwtVerifier>(clock, std::move(options), [this] { return Accounts(); }, version_);
}

absl::Status Authenticator::LoadAdminToken(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string secret, ReadOrMakeAdminToken(path));
  state_.With([&](State& state) {
    state.admin_sha256 = Sha256(secret);
    Rebuild(state);
  });
  return absl::OkStatus();
}

absl::Status Authenticator::Reload() {
  // Reading and publishing are one step: of two reloads the later read must win, or a deleted token would come back. The version is read
  // first, so what changes while the rest is read is read once more.
  std::lock_guard lock(store_mutex_);
  ASSIGN_OR_RETURN(const int64_t version, store_.Version());
  ASSIGN_OR_RETURN(auto rows, store_.Tokens());
  ASSIGN_OR_RETURN(const auto roles, store_.Roles());
  ASSIGN_OR_RETURN(const auto users, store_.Users());
  ASSIGN_OR_RETURN(const auto ended, store_.EndedSessions(kEndedSessionMemory));
  auto accounts = std::make_shared<const AccountTable>(MakeAccountTable(roles, users, ended));
  state_.With([&](State& state) {
    state.rows = std::move(rows);
    state.accounts = std::move(accounts);
    Rebuild(state);
  });
  store_version_ = version;
  return absl::OkStatus();
}

void Authenticator::Rebuild(State& state) {
  std::unordered_map<std::string, TokenTable::Entry> entries;
  std::map<std::string, LastUse> last_use;
  for (const TokenRow& row : state.rows) {
    if (row.secret_sha256.size() != 64 || !IsHex(row.secret_sha256)) {
      LogError("auth", "ignored an API token whose stored hash is not one", {{"token", row.name}});
      continue;
    }
    LastUse& use = last_use[row.id];
    if (const auto known = state.last_use.find(row.id); known != state.last_use.end()) {
      use = known->second;
    } else {
      use.written = row.last_used_at ? UnixSeconds(*row.last_used_at) : 0;
      use.seconds = std::make_shared<std::atomic<int64_t>>(use.written);
    }
    Identity identity{row.subject, row.roles, state.accounts->Permissions(row.roles, row.permissions),
                      {Credential::Kind::kApiToken, row.id}, ""};
    entries[FromHex(row.secret_sha256)] = {std::make_shared<const Identity>(std::move(identity)), row.expires_at, use.seconds};
  }
  if (!state.admin_sha256.empty()) {
    entries[state.admin_sha256] = {std::make_shared<const Identity>(Identity{std::string(kAdminSubject), {"admin"}, {"*"}, {}, ""}),
                                   std::nullopt, nullptr};
  }
  state.last_use = std::move(last_use);
  state.table = std::make_shared<const TokenTable>(std::move(entries));
  version_.fetch_add(1, std::memory_order_release);
}

Authenticator::Known Authenticator::Find(std::string_view secret) const {
  if (auto identity = Table()->Find(secret, clock_.Wall())) return {std::move(identity), false};
  return FindJwt(secret);
}

Authenticator::Known Authenticator::FindJwt(std::string_view secret) const {
  if (secret.size() > limits::kMaxJwt || !LooksLikeJwt(secret)) return {};
  auto identity = jwt_->Remembered(secret);
  const bool pending = identity == nullptr;
  return {std::move(identity), pending};
}

absl::Status Authenticator::RefuseToken(std::string_view address, std::string_view why) const {
  const Millis wait = bad_tokens_.Begin(AttemptAddress(address));
  if (wait > Millis(0)) return TooManyAttempts(wait);
  return Error("UNAUTHENTICATED", why);
}

std::shared_ptr<const TokenTable> Authenticator::Table() const {
  return state_.With([](const State& state) { return state.table; });
}

std::shared_ptr<const AccountTable> Authenticator::Accounts() const {
  return state_.With([](const State& state) { return state.accounts; });
}

absl::Status Authenticator::WriteLastUse() {
  std::map<std::string, WallTime> used;
  std::map<std::string, int64_t> seconds;
  state_.With([&](const State& state) {
    for (const auto& [id, use] : state.last_use) {
      const int64_t at = use.seconds->load(std::memory_order_relaxed);
      if (at <= use.written) continue;
      used[id] = WallTime(std::chrono::seconds(at));
      seconds[id] = at;
    }
  });
  RETURN_IF_ERROR(store_.TouchTokens(used));
  state_.With([&](State& state) {
    for (const auto& [id, at] : seconds) {
      if (auto found = state.last_use.find(id); found != state.last_use.end()) found->second.written = at;
    }
  });
  return absl::OkStatus();
}

void Authenticator::Upkeep(bool final) {
  std::lock_guard one(upkeep_mutex_);
  const Instant now = clock_.Now();
  const auto quiet = [](const absl::Status& status) {
    if (!status.ok()) LogDebug("auth", "upkeep waits for the database", {{"reason", std::string(status.message())}});
  };
  if (const auto version = store_.Version(); version.ok()) {
    const bool moved = [&] {
      std::lock_guard lock(store_mutex_);
      return *version != store_version_;
    }();
    if (moved && !final) quiet(Reload());
  }
  if (final || now - last_written_ >= limits::kLastUsedInterval) {
    last_written_ = now;
    quiet(WriteLastUse());
  }
  if (!final && now - last_pruned_ >= kPruneInterval) {
    last_pruned_ = now;
    quiet(store_.DeleteOldSessions(kSessionKept));
  }
}

absl::StatusOr<Authenticator::NewToken> Authenticator::Create(const Identity& caller, const std::string& name,
                                                              const std::string& subject,
                                                              const std::vector<std::string>& permissions,
                                                              std::optional<WallTime> expires_at,
                                                              const std::vector<std::string>& roles, const Actor& by) {
  NewToken made;
  made.row.name = name;
  made.row.subject = subject.empty() ? name : subject;
  made.row.roles = roles;
  made.row.permissions = permissions;
  made.row.created_at = clock_.Wall();
  made.row.expires_at = expires_at;
  const auto accounts = Accounts();
  RETURN_IF_ERROR(CheckNewToken(name, made.row.subject, permissions, roles, *accounts, expires_at, made.row.created_at));
  RETURN_IF_ERROR(CheckGiving(caller, *accounts, roles, permissions, "A token"));
  made.secret = std::string(kTokenPrefix) + RandomHex(kTokenSecretBytes);
  made.row.secret_sha256 = Sha256Hex(made.secret);
  std::lock_guard lock(store_mutex_);
  const AuditRecord audit{.by = by, .action = "tokens.create"};
  ASSIGN_OR_RETURN(made.row, store_.InsertToken(made.row, &audit));
  state_.With([&](State& state) {
    state.rows.push_back(made.row);
    Rebuild(state);
  });
  return made;
}

absl::StatusOr<std::vector<TokenRow>> Authenticator::List() {
  ASSIGN_OR_RETURN(std::vector<TokenRow> rows, store_.Tokens());
  // What this node has seen and not written yet.
  state_.With([&](const State& state) {
    for (TokenRow& row : rows) {
      const auto use = state.last_use.find(row.id);
      const int64_t at = use == state.last_use.end() ? 0 : use->second.seconds->load(std::memory_order_relaxed);
      if (at > (row.last_used_at ? UnixSeconds(*row.last_used_at) : 0)) row.last_used_at = WallTime(std::chrono::seconds(at));
    }
  });
  return rows;
}

absl::Status Authenticator::Delete(const std::string& name, const Actor& by) {
  const AuditRecord audit{.by = by, .action = "tokens.delete"};
  std::lock_guard lock(store_mutex_);
  const absl::Status deleted = store_.DeleteToken(name, &audit);
  // Deleted through another node: it must end here, too.
  if (deleted.ok() || ErrorCode(deleted) == "TOKEN_NOT_FOUND") {
    state_.With([&](State& state) {
      if (std::erase_if(state.rows, [&](const TokenRow& row) { return row.name == name; }) > 0) Rebuild(state);
    });
  }
  return deleted;
}

}  // namespace bulkhead
