#include "supervisor/store/module_migrations.h"

#include "supervisor/base/status.h"

namespace bulkhead {

absl::StatusOr<std::vector<MigrationFile>> ModuleMigrations::Files(const MigratedModule& module) const {
  if (module.folder.empty()) return std::vector<MigrationFile>();
  return ReadMigrations(data_dir_ + "/" + module.folder);
}

absl::StatusOr<MigrationOverview> ModuleMigrations::Inspect(const MigratedModule& module) {
  ASSIGN_OR_RETURN(const auto files, Files(module));
  return InspectMigrations(database_, module.name, files);
}

absl::StatusOr<MigrationOverview> ModuleMigrations::InspectOwn() { return InspectMigrations(database_, "bulkhead", OwnMigrations()); }

// Another supervisor may have enabled it, which this one does not know yet.
absl::Status ModuleMigrations::CheckNotEnabled(const std::string& module) {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run("SELECT FROM bulkhead_internal.modules WHERE name = $1 AND status = 'ENABLED'", {module}));
  if (rows.size() == 0) return absl::OkStatus();
  return Error("MODULE_ENABLED", "module " + module + " is enabled; disable it first");
}

absl::StatusOr<MigrationReport> ModuleMigrations::Up(const MigratedModule& module, const AuditRecord* audit) {
  ASSIGN_OR_RETURN(const auto files, Files(module));
  if (module.folder.empty()) return MigrationReport();
  RETURN_IF_ERROR(CheckNotEnabled(module.name));
  ASSIGN_OR_RETURN(const ModuleSchema schema, registry_.EnsureSchema(module.name, module.connections, module.extensions));
  return Migrate(database_, module.name, schema.conninfo, files, limits_, audit);
}

absl::StatusOr<MigrationReport> ModuleMigrations::Down(const MigratedModule& module, std::optional<int> to, const AuditRecord* audit) {
  ASSIGN_OR_RETURN(const auto files, Files(module));
  RETURN_IF_ERROR(CheckNotEnabled(module.name));
  // Asked first, so that a refusal makes no schema.
  ASSIGN_OR_RETURN(const MigrationOverview overview, InspectMigrations(database_, module.name, files));
  ASSIGN_OR_RETURN(const auto plan, PlanRollback(overview, module.name, to));
  if (plan.empty()) return MigrationReport();
  ASSIGN_OR_RETURN(const ModuleSchema schema, registry_.EnsureSchema(module.name, module.connections, module.extensions));
  return Rollback(database_, module.name, schema.conninfo, files, to, limits_, audit);
}

}  // namespace bulkhead
