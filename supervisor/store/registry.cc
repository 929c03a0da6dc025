// Rows of the registry. registry_roles.cc has the other half: roles and schemas of the modules.
#include "supervisor/store/registry.h"

#include <array>
#include <tuple>

#include "nlohmann/json.hpp"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr std::array<std::string_view, 6> kStatusNames = {"REGISTERED", "INSTALLING", "ENABLED", "DISABLED", "UPDATING", "REMOVING"};

constexpr char kModuleColumns[] =
    "id, name, version, manifest, config, config_revision, path, package, package_sha, status, generation, workers, uid_slot, "
    "enabled_at, created_at, updated_at, updating_from, last_upgrade, previous";

std::string Columns(const std::string& sql) { return sql + kModuleColumns; }

ModuleRow ModuleOf(const Rows& rows, int r) {
  ModuleRow row;
  row.id = rows.Text(r, "id");
  row.name = rows.Text(r, "name");
  row.version = rows.Text(r, "version");
  row.manifest_json = rows.Text(r, "manifest");
  row.config_json = rows.Text(r, "config");
  row.config_revision = rows.Int(r, "config_revision");
  row.path = rows.Text(r, "path");
  row.package = rows.Text(r, "package");
  row.package_sha = rows.Text(r, "package_sha");
  const auto status = ParseRegistryStatus(rows.Text(r, "status"));
  BULKHEAD_CHECK(status.has_value());  // the table's own CHECK
  row.status = *status;
  row.generation = rows.Int(r, "generation");
  if (!rows.Null(r, "workers")) row.workers = static_cast<int>(rows.Int(r, "workers"));
  row.uid_slot = static_cast<int32_t>(rows.Int(r, "uid_slot"));
  row.enabled_at = rows.Time(r, "enabled_at");
  row.created_at = rows.Time(r, "created_at").value_or(WallTime());
  row.updated_at = rows.Time(r, "updated_at").value_or(WallTime());
  row.updating_from = ParseRegistryStatus(rows.Text(r, "updating_from")).value_or(row.status);
  row.last_upgrade_json = rows.Text(r, "last_upgrade");
  row.previous_json = rows.Text(r, "previous");
  return row;
}

absl::Status ModuleNotFound(const std::string& name) {
  return Error("MODULE_NOT_FOUND", "no module \"" + name + "\" is registered");
}

// What the audit shows of a module: no configuration, of which only the manifest says what is secret.
std::string Summary(const ModuleRow& row) {
  return nlohmann::json{{"version", row.version},
                        {"status", RegistryStatusName(row.status)},
                        {"generation", row.generation},
                        {"configRevision", row.config_revision},
                        {"workers", row.workers ? nlohmann::json(*row.workers) : nlohmann::json()},
                        {"path", row.path},
                        {"package", row.package}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The record with what is different, unless its maker has said that already.
AuditRecord Filled(AuditRecord record, const std::string& module, const std::string& before, const std::string& after) {
  if (record.module.empty()) record.module = module;
  if (record.target.empty()) record.target = module;
  if (record.before_json.empty() && record.after_json.empty()) {
    std::tie(record.before_json, record.after_json) = Changed(before, after);
  }
  return record;
}

// PostgreSQL's text holds every character but NUL, and a parameter would end there.
std::string WithoutNul(std::string text) {
  for (size_t at = 0; (at = text.find('\0', at)) != std::string::npos;) text.replace(at, 1, "\uFFFD");
  return text;
}

}  // namespace

std::string_view RegistryStatusName(RegistryStatus status) { return kStatusNames.at(static_cast<size_t>(status)); }

std::optional<RegistryStatus> ParseRegistryStatus(std::string_view name) {
  for (size_t i = 0; i < kStatusNames.size(); ++i) {
    if (kStatusNames[i] == name) return static_cast<RegistryStatus>(i);
  }
  return std::nullopt;
}

Registry::Registry(Database& database, std::string master_key, std::vector<std::string> extensions)
    : database_(database), master_key_(std::move(master_key)), allowed_extensions_(std::move(extensions)) {}

void Registry::AllowExtensions(std::vector<std::string> extensions) {
  allowed_extensions_.With([&](auto& allowed) { allowed = std::move(extensions); });
}

absl::StatusOr<std::vector<ModuleRow>> Registry::Modules() {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run(Columns("SELECT ") + " FROM bulkhead_internal.modules ORDER BY name"));
  std::vector<ModuleRow> modules;
  modules.reserve(rows.size());
  for (int r = 0; r < rows.size(); ++r) modules.push_back(ModuleOf(rows, r));
  return modules;
}

absl::StatusOr<ModuleRow> Registry::Module(const std::string& name) {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run(Columns("SELECT ") + " FROM bulkhead_internal.modules WHERE name = $1", {name}));
  if (rows.size() == 0) return ModuleNotFound(name);
  return ModuleOf(rows, 0);
}

absl::StatusOr<ModuleRow> Registry::Insert(const ModuleRow& row, const AuditRecord* audit) {
  ModuleRow inserted;
  absl::Status status = database_.Transaction([&](Connection& c) -> absl::Status {
    // Looked up first: a conflict would burn a number, and the range of uids is finite.
    RETURN_IF_ERROR(c.Run("INSERT INTO bulkhead_internal.uid_slots (module) SELECT $1 WHERE NOT EXISTS "
                          "(SELECT FROM bulkhead_internal.uid_slots WHERE module = $1) ON CONFLICT (module) DO NOTHING", {row.name}).status());
    ASSIGN_OR_RETURN(const Rows rows, c.Run(Columns(
        "INSERT INTO bulkhead_internal.modules (name, version, manifest, config, config_revision, path, package, package_sha, status, "
        "enabled_at, uid_slot) "
        "SELECT $1, $2, $3::json, $4::jsonb, $5::bigint, $6, $7, $8, $9, CASE WHEN $9 = 'ENABLED' THEN now() END, slot "
        "FROM bulkhead_internal.uid_slots WHERE module = $1 RETURNING "),
        {row.name, row.version, row.manifest_json, row.config_json.empty() ? "{}" : row.config_json, std::to_string(row.config_revision),
         row.path, row.package, row.package_sha, std::string(RegistryStatusName(row.status))}));
    inserted = ModuleOf(rows, 0);
    return audit == nullptr ? absl::OkStatus() : AppendAudit(c, Filled(*audit, row.name, "", Summary(inserted)));
  });
  if (ErrorCode(status) == "UNIQUE_VIOLATION") return Error("MODULE_EXISTS", "a module \"" + row.name + "\" is registered already");
  if (!status.ok()) return status;
  if (audit != nullptr) Recorded(*audit);
  return inserted;
}

absl::StatusOr<ModuleRow> Registry::Change(const std::string& name, std::optional<int64_t> if_generation, const std::string& update,
                                           std::vector<SqlParam> params, const AuditRecord* audit) {
  params.insert(params.begin(), name);
  ModuleRow after;
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows found,
                     c.Run(Columns("SELECT ") + " FROM bulkhead_internal.modules WHERE name = $1 FOR UPDATE", {name}));
    if (found.size() == 0) return ModuleNotFound(name);
    const ModuleRow before = ModuleOf(found, 0);
    if (if_generation && *if_generation != before.generation) {
      return Error("GENERATION_CHANGED", "module \"" + name + "\" was changed meanwhile: its generation is " +
                                             std::to_string(before.generation) + ", not " + std::to_string(*if_generation));
    }
    ASSIGN_OR_RETURN(const Rows rows, c.Run(Columns("UPDATE bulkhead_internal.modules SET " + update +
                                                    ", updated_at = now() WHERE name = $1 RETURNING "), params));
    after = ModuleOf(rows, 0);
    return audit == nullptr ? absl::OkStatus() : AppendAudit(c, Filled(*audit, name, Summary(before), Summary(after)));
  }));
  if (audit != nullptr) Recorded(*audit);
  return after;
}

absl::StatusOr<ModuleRow> Registry::SetPackage(const ModuleRow& row, const AuditRecord* audit) {
  return Change(row.name, std::nullopt,
                "version = $2, manifest = $3::json, path = $4, package = $5, package_sha = $6, status = $7, "
                "generation = generation + CASE WHEN status <> $7 THEN 1 ELSE 0 END",
                {row.version, row.manifest_json, row.path, row.package, row.package_sha, std::string(RegistryStatusName(row.status))},
                audit);
}

absl::StatusOr<ModuleRow> Registry::SetStatus(const std::string& name, RegistryStatus status, std::optional<int64_t> if_generation,
                                              const AuditRecord* audit) {
  return Change(name, if_generation,
                "status = $2, generation = generation + 1, "
                "enabled_at = CASE WHEN $2 = 'ENABLED' AND status <> 'ENABLED' THEN now() ELSE enabled_at END",
                {std::string(RegistryStatusName(status))}, audit);
}

absl::StatusOr<ModuleRow> Registry::MarkStatus(const std::string& name, RegistryStatus status) {
  return Change(name, std::nullopt, "status = $2", {std::string(RegistryStatusName(status))}, nullptr);
}

absl::StatusOr<ModuleRow> Registry::BeginUpdate(const std::string& name, const std::string& last_upgrade_json) {
  return Change(name, std::nullopt, "status = 'UPDATING', updating_from = status, last_upgrade = $2::jsonb", {last_upgrade_json}, nullptr);
}

absl::StatusOr<ModuleRow> Registry::SetVersion(const ModuleRow& row, const AuditRecord* audit) {
  return Change(row.name, std::nullopt,
                "generation = generation + CASE WHEN version <> $2 OR package <> $5 THEN 1 ELSE 0 END, "
                "version = $2, manifest = $3::json, path = $4, package = $5, package_sha = $6, status = $7, updating_from = NULL, "
                "last_upgrade = nullif($8, '')::jsonb, previous = nullif($9, '')::jsonb",
                {row.version, row.manifest_json, row.path, row.package, row.package_sha, std::string(RegistryStatusName(row.status)),
                 row.last_upgrade_json, row.previous_json},
                audit);
}

absl::StatusOr<ModuleRow> Registry::SetConfig(const std::string& name, const std::string& config_json,
                                              std::optional<int64_t> if_generation, const AuditRecord* audit) {
  return Change(name, if_generation, "config = $2::jsonb, config_revision = config_revision + 1, generation = generation + 1",
                {config_json}, audit);
}

absl::StatusOr<ModuleRow> Registry::SetWorkers(const std::string& name, std::optional<int> workers, std::optional<int64_t> if_generation,
                                               int connections, const AuditRecord* audit) {
  RETURN_IF_ERROR(SetConnectionLimit(name, connections));
  return Change(name, if_generation, "workers = $2::int, generation = generation + 1",
                {workers ? SqlParam(std::to_string(*workers)) : std::nullopt}, audit);
}

absl::StatusOr<ModuleRow> Registry::ResealConfig(const std::string& name, const std::string& config_json, const AuditRecord* audit) {
  return Change(name, std::nullopt, "config = $2::jsonb", {config_json}, audit);
}

absl::Status Registry::Delete(const std::string& name, const AuditRecord* audit, bool purge) {
  RETURN_IF_ERROR(database_.Transaction([&](Connection& c) -> absl::Status {
    if (purge) RETURN_IF_ERROR(DropSchema(c, name));
    ASSIGN_OR_RETURN(const Rows rows, c.Run(Columns("DELETE FROM bulkhead_internal.modules WHERE name = $1 RETURNING "), {name}));
    if (rows.size() == 0) return ModuleNotFound(name);
    return audit == nullptr ? absl::OkStatus() : AppendAudit(c, Filled(*audit, name, Summary(ModuleOf(rows, 0)), ""));
  }));
  if (audit != nullptr) Recorded(*audit);
  return absl::OkStatus();
}

absl::Status Registry::AddExit(const std::string& module, const std::string& node, const ExitRow& exit) {
  // The statement does not see the row it adds: the oldest ones go from place kMaxExits on. No row for a module deleted meanwhile.
  return database_.Run(
      "WITH added AS (INSERT INTO bulkhead_internal.module_exits (module, node, cause, signal, exit_code, at, ran_ms, output, message) "
      "  SELECT name, $2, $3, $4::int, $5::int, $6::timestamptz, $7::bigint, $8, $10 FROM bulkhead_internal.modules WHERE name = $1 "
      "  RETURNING module, cause), "
      "counted AS (INSERT INTO bulkhead_internal.module_exit_counts AS c (module, cause, count) SELECT module, cause, 1 FROM added "
      "  ON CONFLICT (module, cause) DO UPDATE SET count = c.count + 1) "
      "DELETE FROM bulkhead_internal.module_exits WHERE module = $1 AND id <= (SELECT id FROM bulkhead_internal.module_exits "
      "  WHERE module = $1 ORDER BY id DESC OFFSET $9::int - 1 LIMIT 1)",
      {module, node, WithoutNul(exit.cause), std::to_string(exit.signal), std::to_string(exit.exit_code), FormatWall(exit.at),
       std::to_string(exit.ran_ms), WithoutNul(exit.output), std::to_string(limits::kMaxExits), WithoutNul(exit.message)}).status();
}

absl::StatusOr<std::vector<ExitRow>> Registry::Exits(const std::string& module) {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run(
      "SELECT cause, signal, exit_code, at, ran_ms, output, message FROM bulkhead_internal.module_exits WHERE module = $1 ORDER BY id DESC LIMIT $2::int",
      {module, std::to_string(limits::kMaxExits)}));
  std::vector<ExitRow> exits;
  for (int r = 0; r < rows.size(); ++r) {
    exits.push_back({.cause = rows.Text(r, "cause"), .signal = static_cast<int>(rows.Int(r, "signal")),
                     .exit_code = static_cast<int>(rows.Int(r, "exit_code")), .at = rows.Time(r, "at").value_or(WallTime()),
                     .ran_ms = rows.Int(r, "ran_ms"), .output = rows.Text(r, "output"), .message = rows.Text(r, "message")});
  }
  return exits;
}

absl::StatusOr<std::map<std::string, Registry::ExitCounts>> Registry::AllExitCounts() {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run("SELECT module, cause, count FROM bulkhead_internal.module_exit_counts"));
  std::map<std::string, ExitCounts> counts;
  for (int r = 0; r < rows.size(); ++r) counts[rows.Text(r, "module")][rows.Text(r, "cause")] = rows.Int(r, "count");
  return counts;
}

absl::Status Registry::ReportObserved(const std::string& node, const std::string& module, const std::string& observed,
                                      const std::string& reason_code, const std::string& reason_message, int64_t generation) {
  return database_.Run(
      "INSERT INTO bulkhead_internal.node_modules AS n (node, module, observed, reason_code, reason_message, generation) "
      "SELECT $1, name, $3, $4, $5, $6::bigint FROM bulkhead_internal.modules WHERE name = $2 "
      "ON CONFLICT (node, module) DO UPDATE SET observed = excluded.observed, reason_code = excluded.reason_code, "
      "reason_message = excluded.reason_message, generation = excluded.generation, at = now()",
      {node, module, observed, reason_code, WithoutNul(reason_message), std::to_string(generation)}).status();
}

}  // namespace bulkhead
