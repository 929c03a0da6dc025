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

absl::StatusOr<MigrationReport> ModuleMigrations::Up(const MigratedModule& module) {
  ASSIGN_OR_RETURN(const auto files, Files(module));
  if (module.folder.empty()) return MigrationReport();
  ASSIGN_OR_RETURN(const ModuleSchema schema, registry_.EnsureSchema(module.name, module.connections, module.extensions));
  return Migrate(database_, module.name, schema.conninfo, files, limits_);
}

absl::StatusOr<MigrationReport> ModuleMigrations::Down(const MigratedModule& module, std::optional<int> to) {
  ASSIGN_OR_RETURN(const auto files, Files(module));
  // Asked first, so that a refusal makes no schema.
  ASSIGN_OR_RETURN(const MigrationOverview overview, InspectMigrations(database_, module.name, files));
  ASSIGN_OR_RETURN(const auto plan, PlanRollback(overview, module.name, to));
  if (plan.empty()) return MigrationReport();
  ASSIGN_OR_RETURN(const ModuleSchema schema, registry_.EnsureSchema(module.name, module.connections, module.extensions));
  return Rollback(database_, module.name, schema.conninfo, files, to, limits_);
}

}  // namespace bulkhead
