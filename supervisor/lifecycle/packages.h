// Modules on disk: a folder with a manifest, and its immutable copy under <data>/versions. Blocking.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {

struct Package {
  std::string folder;         // where it is read, perhaps through an opened descriptor
  std::string display;        // the same for people
  Manifest manifest;
  std::vector<Finding> warnings;
};

// Reads and checks the manifest of a folder (manifest.json, module.yaml or module.json; two of them: MANIFEST_AMBIGUOUS, none:
// MANIFEST_MISSING, wrong: MANIFEST_INVALID with every finding).
absl::StatusOr<Package> ReadPackage(const std::string& folder, const std::string& display);

// Names of the folders of a modules directory that look like packages (not dot files), sorted. An error when it can't be read.
absl::StatusOr<std::vector<std::string>> ListPackages(const std::string& modules_dir);

// SHA-256 over the paths, modes and contents of a package's files, hex. PACKAGE_INVALID for symbolic links and special files,
// for more than kMaxPackageFiles files or kMaxPackageBytes bytes.
absl::StatusOr<std::string> HashPackage(const std::string& folder, const std::string& display);

struct InstalledPackage {
  std::string relative;       // "versions/<name>/<version>-<sha8>"
  std::string sha256;
};
// What would keep it from being installed, of what can be told without reading its files; changes nothing.
absl::Status CheckPackage(const Package& package);
// Copies it to <data>/versions, read-only, by a temporary folder and a rename; an equal copy that is there is used. PACKAGE_INVALID
// when the entry is missing or not executable.
absl::StatusOr<InstalledPackage> InstallPackage(const Package& package, const std::string& data_dir);
// The copy of that version that was installed last, relative to `data_dir`; empty: there is none.
std::string FindInstalled(const std::string& data_dir, const std::string& name, const std::string& version);
// Removes copies of a module but for `kept` (relative), and for so many of the others that kMaxKeptVersions are left, the newest.
void PrunePackages(const std::string& data_dir, const std::string& name, const std::vector<std::string>& kept);
// Removes all installed copies of a module.
void RemovePackages(const std::string& data_dir, const std::string& name);
// Removes copies that were being made when an earlier supervisor was killed. While nothing is installed.
void RemoveUnfinished(const std::string& data_dir);

inline constexpr size_t kMaxKeptVersions = 5;  // copies of one module, the one in force and the one before it included
inline constexpr size_t kMaxPackageFiles = 10'000;
inline constexpr int64_t kMaxPackageBytes = int64_t{1} << 30;

}  // namespace bulkhead
