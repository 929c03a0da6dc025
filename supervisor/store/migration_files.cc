// Migration files: from a folder, and compiled in.
#include <algorithm>
#include <filesystem>
#include <map>

#include "supervisor/base/digest.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/store/migrations.h"
#include "supervisor/store/own_migrations.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFile = 4 << 20;    // bytes of one file; beyond: MIGRATION_INVALID
constexpr size_t kMinDigits = 3, kMaxDigits = 6;
constexpr std::string_view kNoTransaction = "-- bulkhead: no-transaction";

absl::Status Invalid(std::string_view file, const std::string& why) {
  return Error("MIGRATION_INVALID", "migration " + std::string(file) + ": " + why, {{.path = std::string(file), .message = why}});
}

// NNN of NNN_x.sql, 0 when the name is not of that form.
int NumberOf(std::string_view name) {
  size_t digits = 0;
  int number = 0;
  for (; digits < name.size() && name[digits] >= '0' && name[digits] <= '9' && digits <= kMaxDigits; ++digits) {
    number = number * 10 + (name[digits] - '0');
  }
  const bool formed = digits >= kMinDigits && digits <= kMaxDigits && name.size() > digits + 1 + 4 && name[digits] == '_' &&
                      name.ends_with(".sql");
  return formed ? number : 0;
}

constexpr std::string_view kDown = ".down.sql";

// "002_a.sql" of "002_a.down.sql".
std::string ForwardOf(const std::string& down) { return down.substr(0, down.size() - kDown.size()) + ".sql"; }

bool StartsWithNoTransaction(std::string_view sql) {
  std::string_view line = sql.substr(0, sql.find('\n'));
  while (!line.empty() && (line.back() == ' ' || line.back() == '\r' || line.back() == '\t')) line.remove_suffix(1);
  return line == kNoTransaction;
}

absl::Status SortAndCheck(std::vector<MigrationFile>& files) {
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return std::tie(a.number, a.name) < std::tie(b.number, b.name); });
  for (size_t i = 1; i < files.size(); ++i) {
    if (files[i].number == files[i - 1].number) {
      return Invalid(files[i].name, "it has the same number as " + files[i - 1].name);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MigrationFile> MakeMigration(std::string_view file_name, std::string sql) {
  MigrationFile file;
  file.number = NumberOf(file_name);
  file.name = file_name;
  if (file.number == 0) return Invalid(file_name, "the name must be NNN_name.sql with a number of 3 to 6 digits above 0");
  if (sql.find('\0') != std::string::npos) return Invalid(file_name, "it contains a NUL byte");
  file.checksum = DigestHex(sql);
  file.transactional = !StartsWithNoTransaction(sql);
  file.sql = std::move(sql);
  return file;
}

absl::Status AddDown(MigrationFile& file, std::string sql) {
  file.down_name = file.name.substr(0, file.name.size() - 4) + std::string(kDown);
  if (sql.find('\0') != std::string::npos) return Invalid(file.down_name, "it contains a NUL byte");
  if (StartsWithNoTransaction(sql)) {
    return Invalid(file.down_name, "a down file is always one transaction, together with the removal of its history");
  }
  file.down_checksum = DigestHex(sql);
  file.down_sql = std::move(sql);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<MigrationFile>> ReadMigrations(const std::string& folder) {
  std::vector<MigrationFile> files;
  std::map<std::string, std::string> downs;  // text by the name of the forward file
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  if (error == std::errc::no_such_file_or_directory) return files;
  if (error) return Error("MIGRATION_INVALID", "the migrations folder " + folder + " can't be read: " + error.message());
  for (const fs::directory_entry& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".sql")) continue;  // a README is welcome
    if (!entry.is_regular_file(error)) return Invalid(name, "it is not a regular file");
    auto sql = ReadFile(entry.path().string(), kMaxFile);
    if (!sql.ok()) return Invalid(name, "it can't be read: " + std::string(sql.status().message()));
    if (name.ends_with(kDown) && NumberOf(name) != 0) {
      downs[ForwardOf(name)] = *std::move(sql);
      continue;
    }
    ASSIGN_OR_RETURN(MigrationFile file, MakeMigration(name, *std::move(sql)));
    files.push_back(std::move(file));
  }
  RETURN_IF_ERROR(SortAndCheck(files));
  for (MigrationFile& file : files) {
    const auto down = downs.find(file.name);
    if (down == downs.end()) continue;
    RETURN_IF_ERROR(AddDown(file, std::move(down->second)));
    downs.erase(down);
  }
  if (!downs.empty()) {
    const std::string& forward = downs.begin()->first;
    return Invalid(forward.substr(0, forward.size() - 4) + std::string(kDown), "there is no " + forward + " that it takes back");
  }
  return files;
}

std::vector<MigrationFile> OwnMigrations() {
  std::vector<MigrationFile> files;
  for (size_t i = 0; i < kOwnMigrationCount; ++i) {
    auto file = MakeMigration(kOwnMigrations[i].name, std::string(kOwnMigrations[i].text));
    BULKHEAD_CHECK(file.ok());
    files.push_back(*std::move(file));
  }
  BULKHEAD_CHECK(SortAndCheck(files).ok());
  return files;
}

}  // namespace bulkhead
