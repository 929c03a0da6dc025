// The migrations of installed modules, from their package to their schema: reads the files, makes role and schema, runs. Blocking;
// thread-safe. For whoever commands them by name; the enabling of a module has its own way (lifecycle/reconciler.cc).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/store/migrations.h"
#include "supervisor/store/registry.h"

namespace bulkhead {

// A module as its migrations see it.
struct MigratedModule {
  std::string name;
  std::string folder;  // of the files, below the data folder; empty: the module has no database
  int connections = 0;
  std::vector<std::string> extensions;
};

class ModuleMigrations {
 public:
  ModuleMigrations(Database& database, Registry& registry, std::string data_dir, MigrationLimits limits)
      : database_(database), registry_(registry), data_dir_(std::move(data_dir)), limits_(limits) {}

  absl::StatusOr<MigrationOverview> Inspect(const MigratedModule& module);
  absl::StatusOr<MigrationOverview> InspectOwn();  // of the supervisor's own tables
  // The module must not run meanwhile, on this node or another: MODULE_ENABLED. Each file has its
  // row of the audit.
  absl::StatusOr<MigrationReport> Up(const MigratedModule& module, const AuditRecord* audit = nullptr);
  absl::StatusOr<MigrationReport> Down(const MigratedModule& module, std::optional<int> to, const AuditRecord* audit = nullptr);

 private:
  absl::Status CheckNotEnabled(const std::string& module);
  absl::StatusOr<std::vector<MigrationFile>> Files(const MigratedModule& module) const;

  Database& database_;
  Registry& registry_;
  const std::string data_dir_;
  const MigrationLimits limits_;
};

}  // namespace bulkhead
