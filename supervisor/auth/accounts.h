// Users with their passwords and sessions, and custom roles. Thread-safe. Every call blocks on the database; those that hash a password
// belong on Submit()'s pool, whose bound keeps logins from taking the threads of other work. Errors are those of
// proto/bulkhead/admin/v1/auth.proto.
//
// Every change is in the audit, written in its own transaction, with the actor that the call is given: of sessions that is the user,
// once he has shown a password or a refresh token. A login that failed is there only when there is such a user, or anybody could fill it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/auth/attempts.h"
#include "supervisor/auth/authenticator.h"
#include "supervisor/auth/credential_store.h"
#include "supervisor/base/blocking_pool.h"

namespace bulkhead {

// The secret that signs access tokens, the same on every node with this master key.
std::string AccessKey(std::string_view master_key);

class Accounts {
 public:
  Accounts(const Clock& clock, CredentialStore& store, Authenticator& authenticator, std::string access_key);

  // For the calls marked "hashes". False when limits::kMaxQueuedHashes wait already.
  [[nodiscard]] bool Submit(std::function<void()> work) { return hashing_.Submit(std::move(work)); }
  // Takes nothing more; what is queued still runs.
  void Close() { hashing_.Shutdown(); }

  // ---- sessions; `by` has the address, "192.0.2.1:5000", from which tries are counted ----
  struct Login {
    std::string access_token, refresh_token;
    Millis expires_in{}, refresh_expires_in{};
  };
  // Does not block: `done` is called from the pool, or at once with TOO_MANY_ATTEMPTS or OVERLOADED. INVALID_CREDENTIALS is said of an
  // unknown user, a wrong password and a disabled user alike, after the same time.
  void LogIn(const std::string& name, const std::string& password, const Actor& by, std::function<void(absl::StatusOr<Login>)> done);
  absl::StatusOr<Login> Refresh(const std::string& refresh_token, const Actor& by);
  // Ends the session at once, its access tokens included. Nothing is said about a token that is not known.
  absl::Status LogOut(const std::string& refresh_token, const Actor& by = {});
  // Hashes. Of the caller himself; ends all his sessions.
  absl::Status ChangePassword(const Identity& caller, const std::string& current, const std::string& next, const Actor& by = {});

  // ---- users; nobody makes or changes one that holds more than himself ----
  absl::StatusOr<std::vector<UserRow>> Users() { return store_.Users(); }
  absl::StatusOr<UserRow> User(const std::string& name);
  // Hashes.
  absl::StatusOr<UserRow> CreateUser(const Identity& caller, const std::string& name, const std::string& password,
                                     const std::vector<std::string>& roles, bool enabled, const Actor& by = {});
  struct UserChange {
    std::optional<std::vector<std::string>> roles;
    std::optional<bool> enabled;
    std::optional<std::string> password;
  };
  // Hashes when there is a password. Takes effect at once, also for access tokens that are in use.
  absl::StatusOr<UserRow> UpdateUser(const Identity& caller, const std::string& name, const UserChange& change, const Actor& by = {});
  absl::Status DeleteUser(const Identity& caller, const std::string& name, const Actor& by = {});

  // ---- roles: the built-in ones first ----
  absl::StatusOr<std::vector<RoleRow>> Roles();
  absl::StatusOr<RoleRow> Role(const std::string& name);
  absl::StatusOr<RoleRow> CreateRole(const Identity& caller, const RoleRow& role, const Actor& by = {});
  absl::StatusOr<RoleRow> UpdateRole(const Identity& caller, const RoleRow& role, const Actor& by = {});
  absl::Status DeleteRole(const Identity& caller, const std::string& name, const Actor& by = {});

 private:
  // `known` is set once there is a user of that name.
  absl::StatusOr<Login> CheckAndBegin(const std::string& name, const std::string& password, const Actor& by, bool& known);
  void RecordFailedLogin(const std::string& name, Actor by, const absl::Status& failure);
  absl::StatusOr<Login> MakeLogin(const SessionRow& session, std::string refresh_token);
  absl::StatusOr<RoleRow> CustomRole(const Identity& caller, const std::string& name);
  void Publish();

  const Clock& clock_;
  CredentialStore& store_;
  Authenticator& authenticator_;
  const std::string access_key_;
  Attempts user_attempts_, address_attempts_;
  BlockingPool hashing_;  // last: its threads use what stands above
};

}  // namespace bulkhead
