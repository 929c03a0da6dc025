#include "supervisor/data_folder.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "supervisor/auth/identity.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/process/folders.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

// The longest names below the run folder: "/w/<8 hex>/control" and "/pg/.s.PGSQL.5432.lock".
constexpr size_t kLongestBelowRun = 24;

absl::Status Unusable(const std::string& path, const std::string& what) {
  return Error("DATA_UNUSABLE", "data folder " + path + ": " + what);
}

// Makes the folder `name` in `parent` and sets its mode and owner. By descriptors and without following a link: from the second
// start on what is above belongs to the user `bulkhead`, and this may run as root.
absl::StatusOr<UniqueFd> MakeFolder(const UniqueFd& parent, const std::string& name, const std::string& path, mode_t mode,
                                    const DataFolder& folder, bool stays_ours = false) {
  if (mkdirat(parent.get(), name.c_str(), 0700) != 0 && errno != EEXIST)
    return Unusable(path, std::string(strerror(errno)) + "; choose another one with --data");
  UniqueFd made(openat(parent.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!made) return Unusable(path, errno == ENOTDIR || errno == ELOOP ? "is not a folder" : strerror(errno));
  struct stat info;
  if (fstat(made.get(), &info) != 0) return Unusable(path, strerror(errno));
  bool ours = info.st_uid == geteuid() || info.st_uid == folder.uid;
  if (!ours)
    return Unusable(path, "belongs to another user (uid " + std::to_string(info.st_uid) + "); choose another one with --data");
  const uid_t uid = stays_ours ? geteuid() : folder.uid;
  const gid_t gid = stays_ours ? getegid() : folder.gid;
  if (folder.privileged && fchown(made.get(), uid, gid) != 0) return Unusable(path, strerror(errno));
  if (fchmod(made.get(), mode) != 0) return Unusable(path, strerror(errno));
  return made;
}

// The same for a folder whose parent is not ours to guard; what is missing above it is made too.
absl::StatusOr<UniqueFd> MakeTopFolder(const std::string& path, mode_t mode, const DataFolder& folder) {
  const fs::path parent = fs::path(path).parent_path();
  std::error_code error;
  fs::create_directories(parent, error);
  UniqueFd opened(open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!opened) return Unusable(path, (error ? error.message() : strerror(errno)) + "; choose another one with --data");
  return MakeFolder(opened, fs::path(path).filename(), path, mode, folder);
}

absl::Status CheckTraversable(const std::string& path) {
  fs::path so_far;
  for (const fs::path& part : fs::path(path)) {
    so_far /= part;
    struct stat info;
    if (stat(so_far.c_str(), &info) != 0) break;  // made by us, with a mode that lets them pass
    if ((info.st_mode & 0001) == 0) {
      return Unusable(
          path,
          so_far.string() + " can't be entered by the modules' users; choose a folder that can, e.g. --data /var/lib/bulkhead");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DataFolder> OpenDataFolder(const std::string& path) {
  DataFolder folder;
  folder.path = path;
  folder.hash = Sha256Hex(path).substr(0, 8);
  folder.privileged = geteuid() == 0;
  folder.uid = geteuid();
  folder.gid = getegid();
  if (folder.privileged) {
    passwd* user = getpwnam("bulkhead");
    if (!user)
      return Error("DATA_UNUSABLE", "started as root, but there is no user `bulkhead` to drop to: run sh deploy/packages.sh");
    folder.uid = user->pw_uid;
    folder.gid = user->pw_gid;
    RETURN_IF_ERROR(CheckTraversable(path));
  }
  ASSIGN_OR_RETURN(const UniqueFd top, MakeTopFolder(path, 0711, folder));
  folder.lock.Reset(openat(top.get(), "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!folder.lock)
    return Unusable(path, std::string("can't be written: ") + strerror(errno) + "; choose another one with --data");
  if (flock(folder.lock.get(), LOCK_EX | LOCK_NB) != 0) {
    char pid[16] = {};
    (void)!read(folder.lock.get(), pid, sizeof pid - 1);
    return Error("DATA_IN_USE", "data folder " + path + " is held by another supervisor (pid " +
                                    std::string(pid, strcspn(pid, "\n")) + "); stop it, or choose another folder with --data");
  }
  std::string pid = std::to_string(getpid()) + "\n";
  if (ftruncate(folder.lock.get(), 0) != 0 || pwrite(folder.lock.get(), pid.data(), pid.size(), 0) < 0)
    return Unusable(path, strerror(errno));

  for (auto [name, mode] : {std::pair<const char*, mode_t>{"secrets", 0700}, {"versions", 0755}, {"modules", 0711}, {"logs", 0700}, {"files", 0700}}) {
    RETURN_IF_ERROR(MakeFolder(top, name, path + "/" + name, mode, folder).status());
  }
  folder.instances = path + "/instances";
  RETURN_IF_ERROR(MakeFolder(top, "instances", folder.instances, 0700, folder, true).status());
  UniqueFd run;
  folder.run = path + "/run";
  if (folder.run.size() + kLongestBelowRun <= kMaxSocketPath) {
    ASSIGN_OR_RETURN(run, MakeFolder(top, "run", folder.run, 0711, folder));
  } else {
    folder.run =
        folder.privileged ? "/run/bulkhead/" + folder.hash : "/tmp/bulkhead-" + std::to_string(getuid()) + "-" + folder.hash;
    // Only that folder is shared with others: it must be ours before anything is put below.
    if (folder.privileged) {
      std::error_code ignored;
      fs::create_directories("/run/bulkhead", ignored);
      chmod("/run/bulkhead", 0711);
    }
    ASSIGN_OR_RETURN(run, MakeTopFolder(folder.run, 0711, folder));
  }
  // Left over when everything was killed at once.
  if (auto removed = folders::Remove({fs::path(folder.run).parent_path()}, folder.run + "/w"); !removed.ok())
    return Unusable(folder.run + "/w", std::string(removed.message()));
  RETURN_IF_ERROR(MakeFolder(run, "w", folder.run + "/w", 0711, folder).status());
  return folder;
}

absl::Status DropPrivileges(const DataFolder& folder) {
  if (!folder.privileged) return absl::OkStatus();
  if (setgroups(0, nullptr) != 0 || setresgid(folder.gid, folder.gid, folder.gid) != 0 ||
      setresuid(folder.uid, folder.uid, folder.uid) != 0) {
    return ErrnoStatus(errno, "dropping root");
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return ErrnoStatus(errno, "no_new_privs");
  return absl::OkStatus();
}

std::string NodeName(const DataFolder& folder) {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  return std::string(host) + "/" + folder.hash;
}

absl::StatusOr<std::string> MasterKey(const std::string& path) {
  auto existing = ReadFile(path);
  if (existing.ok() && existing->size() >= 64) return existing->substr(0, 64);
  if (existing.ok() || existing.status().code() != absl::StatusCode::kNotFound) {
    return Error("DATA_UNUSABLE", path + " is not a master key of this supervisor");
  }
  std::string key = RandomHex(32);
  RETURN_IF_ERROR(WriteFileAtomically(path, key + "\n", 0600));
  return key;
}

}  // namespace bulkhead
