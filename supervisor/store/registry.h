// The rows of the registry: modules, their versions, exits. Blocking; thread-safe. Lifecycle owns the meaning, this only keeps it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/guarded.h"
#include "supervisor/store/audit.h"
#include "supervisor/store/database.h"
#include "supervisor/store/extensions.h"

namespace bulkhead {

enum class RegistryStatus { kRegistered, kInstalling, kEnabled, kDisabled, kUpdating, kRemoving };
std::string_view RegistryStatusName(RegistryStatus status);  // "REGISTERED", …
std::optional<RegistryStatus> ParseRegistryStatus(std::string_view name);

struct ModuleRow {
  std::string id;             // UUID
  std::string name;
  std::string version;
  std::string manifest_json;  // as registered
  std::string config_json;    // an object; what the operator set, without the manifest's defaults
  int64_t config_revision = 1;
  std::string path;           // folder it was registered from; may be empty
  std::string package;        // <data>-relative folder of the installed copy, "versions/x/1.0.0-ab12cd34"; empty before install
  std::string package_sha;    // SHA-256 of the installed copy
  RegistryStatus status = RegistryStatus::kRegistered;
  int64_t generation = 1;     // of the desired state
  std::optional<int> workers;  // instead of the manifest's number
  int32_t uid_slot = 0;       // stable, never reused: the module's uid is isolation.uids' first + this
  std::optional<WallTime> enabled_at;
  WallTime created_at, updated_at;
  RegistryStatus updating_from = RegistryStatus::kRegistered;  // while UPDATING: what it was, and will be again
  std::string last_upgrade_json;  // {from, to, outcome, reason, at}; empty: there was none
  std::string previous_json;      // {version, path, package, sha, manifest}: what a rollback goes back to; empty: nothing
};

// Whether it is to run; of one that is UPDATING, whether it was.
inline bool IsEnabled(const ModuleRow& row) {
  return row.status == RegistryStatus::kEnabled || (row.status == RegistryStatus::kUpdating && row.updating_from == RegistryStatus::kEnabled);
}

struct ExitRow {
  std::string cause;
  int signal = 0;
  int exit_code = 0;
  WallTime at;
  int64_t ran_ms = 0;
  std::string output;
  std::string message;        // a sentence that names the cause
};

// What a module's database access looks like from the supervisor.
struct ModuleSchema {
  std::string role;      // bh_<8 hex of the database's id>_<name>
  std::string schema;
  std::string conninfo;  // password included: give it to the module alone
  std::string password = {};  // the same once more, to be hidden where it would be shown
};

class Registry {
 public:
  // `master_key` (32 bytes) makes the modules' database passwords. `extensions` are those that modules may ask for.
  Registry(Database& database, std::string master_key, std::vector<std::string> extensions = DefaultExtensions());

  // After the supervisor's own migrations. Refuses (MASTER_KEY_MISMATCH) a database that another master key has been used on.
  absl::Status Open();

  absl::StatusOr<std::vector<ModuleRow>> Modules();
  absl::StatusOr<ModuleRow> Module(const std::string& name);  // MODULE_NOT_FOUND
  // All that change a row take what the audit is told of it: the row of the audit is written in the same transaction, with what the
  // change made different. `nullptr`: a step of something larger, which tells the audit itself.
  // MODULE_EXISTS. id, uid_slot, generation and times are made by the database.
  absl::StatusOr<ModuleRow> Insert(const ModuleRow& row, const AuditRecord* audit = nullptr);
  // Writes version, manifest, path, package, package_sha and status; bumps updated_at, and generation when the status changes.
  absl::StatusOr<ModuleRow> SetPackage(const ModuleRow& row, const AuditRecord* audit = nullptr);
  // Compares and sets: with `if_generation` other than the row's it answers GENERATION_CHANGED. Bumps generation; sets enabled_at
  // when it becomes ENABLED.
  absl::StatusOr<ModuleRow> SetStatus(const std::string& name, RegistryStatus status, std::optional<int64_t> if_generation,
                                      const AuditRecord* audit = nullptr);
  // On the way to another state, or back from there: INSTALLING, REMOVING. What is wanted has not changed, so neither does the generation.
  absl::StatusOr<ModuleRow> MarkStatus(const std::string& name, RegistryStatus status);
  // UPDATING, with what it is now and what is to be known of the upgrade should the supervisor end before SetVersion().
  absl::StatusOr<ModuleRow> BeginUpdate(const std::string& name, const std::string& last_upgrade_json);
  // The end of that: writes version, manifest, path, package, package_sha, status, last_upgrade and previous; bumps generation when the
  // version or the package is another one than before.
  absl::StatusOr<ModuleRow> SetVersion(const ModuleRow& row, const AuditRecord* audit = nullptr);
  // Compares and sets as above; bumps generation and config_revision. The audit's `before` and `after` are the caller's: only the
  // manifest says what is secret.
  absl::StatusOr<ModuleRow> SetConfig(const std::string& name, const std::string& config_json, std::optional<int64_t> if_generation,
                                      const AuditRecord* audit = nullptr);
  // How many workers it has instead of its manifest's number; compares and sets as above; bumps generation. Its role, when it has one, may
  // have `connections` from the same moment on.
  absl::StatusOr<ModuleRow> SetWorkers(const std::string& name, std::optional<int> workers, std::optional<int64_t> if_generation, int connections,
                                       const AuditRecord* audit = nullptr);
  // Nothing for a module that has no role.
  absl::Status SetConnectionLimit(const std::string& module, int connections);
  // The same configuration in another form (its secrets sealed anew): no revision, no generation.
  absl::StatusOr<ModuleRow> ResealConfig(const std::string& name, const std::string& config_json, const AuditRecord* audit = nullptr);
  // The row; the data stays, or goes in the same transaction.
  absl::Status Delete(const std::string& name, const AuditRecord* audit = nullptr, bool purge = false);

  // EXTENSION_NOT_ALLOWED for those beyond the allowed ones, a detail for each. Asks nobody.
  // Those that modules may ask for from now on. Thread-safe.
  void AllowExtensions(std::vector<std::string> extensions);
  absl::Status CheckExtensions(const std::string& module, const std::vector<std::string>& extensions) const;
  // Role (LOGIN, connection limit, timeouts, SCRAM verifier made here), schema owned by it, search_path; idempotent.
  // `connections` is workers × limits::kConnectionsPerWorker. `extensions` are made where they are missing: EXTENSION_NOT_ALLOWED for those
  // beyond the allowed ones, EXTENSION_UNAVAILABLE when the server lacks one or does not let us make it.
  absl::StatusOr<ModuleSchema> EnsureSchema(const std::string& module, int connections, const std::vector<std::string>& extensions);
  // Drops schema and role with all data, and the module's history of migrations and runs. Within a transaction.
  static absl::Status DropSchema(Connection& c, const std::string& module);

  absl::Status AddExit(const std::string& module, const std::string& node, const ExitRow& exit);  // keeps the newest limits::kMaxExits
  absl::StatusOr<std::vector<ExitRow>> Exits(const std::string& module);                          // newest first
  using ExitCounts = std::map<std::string, int64_t>;  // by cause
  absl::StatusOr<std::map<std::string, ExitCounts>> AllExitCounts();  // by module; of all nodes, since it was registered
  // Mirror of what this node observes (decision 2).
  absl::Status ReportObserved(const std::string& node, const std::string& module, const std::string& observed,
                              const std::string& reason_code, const std::string& reason_message, int64_t generation);

 private:
  // Locks the row, lets `update` (an UPDATE … RETURNING) change it, and tells the audit what is different.
  absl::StatusOr<ModuleRow> Change(const std::string& name, std::optional<int64_t> if_generation, const std::string& update,
                                   std::vector<SqlParam> params, const AuditRecord* audit);

  Database& database_;
  const std::string master_key_;
  Guarded<std::vector<std::string>> allowed_extensions_;
  std::string role_prefix_;  // set by Open
};

}  // namespace bulkhead
