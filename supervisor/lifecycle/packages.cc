#include "supervisor/lifecycle/packages.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "supervisor/base/fd.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxManifest = 1 << 20;
constexpr char kUnfinished[] = ".tmp-";  // how the names of copies begin that are being made

class Sha {
 public:
  Sha() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void Add(const void* data, size_t size) { EVP_DigestUpdate(context_.get(), data, size); }
  // With its length in front, so that two fields never run together.
  void AddField(std::string_view field) {
    std::string length = std::to_string(field.size()) + ":";
    Add(length.data(), length.size());
    Add(field.data(), field.size());
  }
  std::string Hex() {
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), raw, &size);
    std::string hex;
    for (unsigned i = 0; i < size; ++i) {
      hex += "0123456789abcdef"[raw[i] >> 4];
      hex += "0123456789abcdef"[raw[i] & 15];
    }
    return hex;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

struct Entry {
  std::string path;  // relative, '/'-separated
  bool is_folder = false;
  bool executable = false;
  int64_t size = 0;
};

// Everything below `folder`, sorted by path, so that the hash does not depend on the order of the directory.
absl::StatusOr<std::vector<Entry>> Walk(const std::string& folder, const std::string& display) {
  std::vector<Entry> entries;
  int64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder + "/", error), end; !error && it != end; it.increment(error)) {
    struct stat info;
    if (lstat(it->path().c_str(), &info) != 0) return Error("PACKAGE_INVALID", display + ": " + strerror(errno));
    std::string relative = it->path().lexically_relative(folder + "/").string();
    if (S_ISDIR(info.st_mode)) {
      entries.push_back({relative, true});
    } else if (S_ISREG(info.st_mode)) {
      entries.push_back({relative, false, (info.st_mode & 0111) != 0, info.st_size});
      bytes += info.st_size;
    } else {
      return Error("PACKAGE_INVALID", display + "/" + relative + " is neither a file nor a folder; a package holds nothing else");
    }
    if (entries.size() > kMaxPackageFiles || bytes > kMaxPackageBytes) {
      return Error("PACKAGE_INVALID", display + " is larger than a package may be (10,000 files, 1 GiB)");
    }
  }
  if (error) return Error("PACKAGE_INVALID", display + ": " + error.message());
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.path < b.path; });
  return entries;
}

// Hashes a file and copies it to `target` when that is not empty.
absl::Status HashFile(const std::string& source, const std::string& target, mode_t mode, Sha& sha) {
  UniqueFd in(open(source.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!in) return ErrnoStatus(errno, source);
  UniqueFd out;
  if (!target.empty()) {
    out.Reset(open(target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!out) return ErrnoStatus(errno, target);
  }
  std::vector<char> buffer(256 * 1024);
  for (;;) {
    ssize_t n = read(in.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, source);
    if (n == 0) break;
    sha.Add(buffer.data(), static_cast<size_t>(n));
    for (ssize_t done = 0; out && done < n;) {
      ssize_t written = write(out.get(), buffer.data() + done, static_cast<size_t>(n - done));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return ErrnoStatus(errno, target);
      done += written;
    }
  }
  if (out && fchmod(out.get(), mode) != 0) return ErrnoStatus(errno, target);
  return absl::OkStatus();
}

absl::StatusOr<std::string> HashOrCopy(const std::string& folder, const std::string& display, const std::string& target) {
  ASSIGN_OR_RETURN(std::vector<Entry> entries, Walk(folder, display));
  Sha all;
  for (const Entry& entry : entries) {
    all.AddField(entry.path);
    all.AddField(entry.is_folder ? "d" : entry.executable ? "x" : "f");
    if (entry.is_folder) {
      if (!target.empty() && mkdir((target + "/" + entry.path).c_str(), 0755) != 0)
        return ErrnoStatus(errno, target + "/" + entry.path);
      continue;
    }
    Sha one;
    RETURN_IF_ERROR(HashFile(folder + "/" + entry.path, target.empty() ? "" : target + "/" + entry.path,
                             entry.executable ? 0555 : 0444, one));
    all.AddField(one.Hex());
  }
  return all.Hex();
}

absl::Status CheckEntry(const Package& package) {
  const std::string entry = package.folder + "/" + package.manifest.entry;
  struct stat info;
  if (stat(entry.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return Error("PACKAGE_INVALID",
                 package.display + "/" + package.manifest.entry + " is missing: build the module, or name its executable in `entry`");
  }
  if ((info.st_mode & 0111) == 0)
    return Error("PACKAGE_INVALID", package.display + "/" + package.manifest.entry + " is not executable: chmod +x it");
  return absl::OkStatus();
}

void RemoveTree(const fs::path& path) {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

}  // namespace

absl::StatusOr<Package> ReadPackage(const std::string& folder, const std::string& display) {
  std::vector<std::string> found;
  for (const char* name : {"manifest.json", "module.yaml", "module.json"}) {
    if (access((folder + "/" + name).c_str(), F_OK) == 0) found.push_back(name);
  }
  if (found.empty()) return Error("MANIFEST_MISSING", display + " has no manifest.json, module.yaml or module.json");
  if (found.size() > 1) return Error("MANIFEST_AMBIGUOUS", display + " has both " + found[0] + " and " + found[1] + ": keep one");
  auto text = ReadFile(folder + "/" + found[0], kMaxManifest);
  if (!text.ok())
    return Error("MANIFEST_INVALID", display + "/" + found[0] + " can't be read: " + std::string(text.status().message()));
  ManifestResult result = ParseManifest(*text, found[0] == "module.yaml");
  if (!result.manifest) {
    std::vector<ErrorDetail> details;
    for (const Finding& f : result.errors) details.push_back({f.path, f.code, f.message, f.line});
    std::string first = result.errors.empty() ? "" : ": " + result.errors[0].path + ": " + result.errors[0].message;
    if (!result.errors.empty() && result.errors[0].line > 0) first = ":" + std::to_string(result.errors[0].line) + first;
    return Error("MANIFEST_INVALID", display + "/" + found[0] + first, std::move(details));
  }
  Package package{folder, display, std::move(*result.manifest), std::move(result.warnings)};
  std::error_code ignored;
  if (!package.manifest.has_database) {
    for (const auto& file : fs::directory_iterator(folder + "/" + package.manifest.migrations_dir, ignored)) {
      if (file.path().extension() == ".sql") package.manifest.has_database = true;
    }
  }
  return package;
}

absl::StatusOr<std::vector<std::string>> ListPackages(const std::string& modules_dir) {
  std::vector<std::string> names;
  std::error_code error, ignored;
  fs::directory_iterator entry(modules_dir + "/", error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (entry->is_directory(ignored) && !name.empty() && name[0] != '.') names.push_back(name);
  }
  if (error) return ErrnoStatus(error.value(), modules_dir);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<std::string> HashPackage(const std::string& folder, const std::string& display) {
  return HashOrCopy(folder, display, "");
}

absl::Status CheckPackage(const Package& package) {
  RETURN_IF_ERROR(CheckEntry(package));
  return Walk(package.folder, package.display).status();
}

absl::StatusOr<InstalledPackage> InstallPackage(const Package& package, const std::string& data_dir) {
  RETURN_IF_ERROR(CheckEntry(package));
  const Manifest& manifest = package.manifest;
  std::string base = data_dir + "/versions/" + manifest.name;
  std::error_code error;
  fs::create_directories(base, error);
  if (error) return Error("DATA_UNUSABLE", base + ": " + error.message());
  std::string temporary = base + "/" + kUnfinished + RandomHex(6);
  if (mkdir(temporary.c_str(), 0755) != 0) return ErrnoStatus(errno, temporary);
  auto sha = HashOrCopy(package.folder, package.display, temporary);
  if (!sha.ok()) {
    RemoveTree(temporary);
    return sha.status();
  }
  InstalledPackage installed{"versions/" + manifest.name + "/" + manifest.version + "-" + sha->substr(0, 8), *sha};
  std::string target = data_dir + "/" + installed.relative;
  if (rename(temporary.c_str(), target.c_str()) != 0) {
    int failed = errno;
    RemoveTree(temporary);
    // The same content is there already; anything else in the way is an error.
    if (failed != EEXIST && failed != ENOTEMPTY) return ErrnoStatus(failed, target);
  }
  return installed;
}

namespace {

// Installed copies of a module, the newest first, relative to `data_dir`.
std::vector<std::string> InstalledCopies(const std::string& data_dir, const std::string& name) {
  std::vector<std::pair<fs::file_time_type, std::string>> copies;
  std::error_code ignored;
  for (const auto& copy : fs::directory_iterator(fs::path(data_dir) / "versions" / name, ignored)) {
    std::string folder = copy.path().filename().string();
    if (!folder.starts_with(kUnfinished)) copies.emplace_back(copy.last_write_time(ignored), "versions/" + name + "/" + folder);
  }
  std::sort(copies.rbegin(), copies.rend());
  std::vector<std::string> folders;
  for (auto& [at, folder] : copies) folders.push_back(std::move(folder));
  return folders;
}

}  // namespace

std::string FindInstalled(const std::string& data_dir, const std::string& name, const std::string& version) {
  // "<version>-<sha8>": a version may have hyphens, too.
  constexpr size_t kHash = 8;
  for (const std::string& folder : InstalledCopies(data_dir, name)) {
    const std::string copy = folder.substr(folder.rfind('/') + 1);
    if (copy.size() == version.size() + 1 + kHash && copy.starts_with(version + "-")) return folder;
  }
  return "";
}

void PrunePackages(const std::string& data_dir, const std::string& name, const std::vector<std::string>& kept) {
  size_t left = kMaxKeptVersions - std::min(kMaxKeptVersions, kept.size());
  for (const std::string& folder : InstalledCopies(data_dir, name)) {
    if (std::find(kept.begin(), kept.end(), folder) != kept.end()) continue;
    if (left > 0) {
      --left;
    } else {
      RemoveTree(fs::path(data_dir) / folder);
    }
  }
}

void RemovePackages(const std::string& data_dir, const std::string& name) { RemoveTree(fs::path(data_dir) / "versions" / name); }

void RemoveUnfinished(const std::string& data_dir) {
  std::error_code ignored;
  std::vector<fs::path> unfinished;
  for (const auto& module : fs::directory_iterator(fs::path(data_dir) / "versions", ignored)) {
    for (const auto& copy : fs::directory_iterator(module.path(), ignored)) {
      if (copy.path().filename().string().starts_with(kUnfinished)) unfinished.push_back(copy.path());
    }
  }
  for (const fs::path& copy : unfinished) RemoveTree(copy);
}

}  // namespace bulkhead
