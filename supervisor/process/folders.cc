#include "supervisor/process/folders.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <deque>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "supervisor/base/fd.h"

namespace bulkhead::folders {
namespace {

constexpr int kRemovePasses = 1'000'000;  // each takes a level off every tree in it; more only when somebody keeps adding

// The parent of a path, opened, and the last name.
struct Place {
  UniqueFd parent;
  std::string name;
};

absl::StatusOr<Place> Open(const std::vector<std::string>& roots, const std::string& path) {
  size_t slash = path.rfind('/');
  if (path.empty() || path[0] != '/' || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("'" + path + "' is no absolute path");
  }
  Place place{UniqueFd(), path.substr(slash + 1)};
  if (place.name.empty() || place.name == "." || place.name == "..") {
    return absl::InvalidArgumentError("'" + path + "' does not end in the name of a folder");
  }
  std::string parent = slash == 0 ? "/" : path.substr(0, slash);
  if (roots.empty()) {
    place.parent.Reset(open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!place.parent) return ErrnoStatus(errno, parent);
    return place;
  }
  for (const std::string& root : roots) {
    if (parent != root && parent.rfind(root + "/", 0) != 0) continue;
    UniqueFd top(open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!top) return ErrnoStatus(errno, root);
    std::string below = parent == root ? "." : parent.substr(root.size() + 1);
    open_how how{};
    how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    place.parent.Reset(static_cast<int>(syscall(SYS_openat2, top.get(), below.c_str(), &how, sizeof how)));
    if (!place.parent) return ErrnoStatus(errno, parent);
    return place;
  }
  return absl::PermissionDeniedError(path + " is in none of the folders that the spawner may change");
}

bool IsDots(const char* name) { return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0)); }

// Calls fn(name) for each entry of `folder`, until it returns false.
template <typename F>
void ForEach(int folder, F fn) {
  int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return;
  std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(copy), closedir);
  while (dirent* entry = readdir(entries.get())) {
    if (!IsDots(entry->d_name) && !fn(entry->d_name)) return;
  }
}

// Removes trees of any depth with two open folders: what a folder inside the top one still holds in folders is moved up
// into the top one, whose next pass removes it. So neither the stack nor the descriptors run out on a hostile tree.
class Remover {
 public:
  explicit Remover(int top) : top_(top) {}

  // 0 when the top folder is empty, else an errno.
  int Empty() {
    for (int pass = 0; pass < kRemovePasses; ++pass) {
      bool found = false;
      int error = 0;
      ForEach(top_, [&](const char* name) {
        found = true;
        error = RemoveOne(top_, name);
        if (error == ENOTEMPTY || error == EEXIST) error = EmptyInto(name);
        return error == 0;
      });
      if (error != 0) return error;
      if (!found) return 0;
    }
    return ENOTEMPTY;
  }

 private:
  // A file, link or empty folder. Not as root, the owner may have taken the write bit from the folder it is in: given back.
  int RemoveOne(int folder, const char* name) {
    for (bool retried = false;; retried = true) {
      if (unlinkat(folder, name, 0) == 0) return 0;
      if (errno == EISDIR || errno == EPERM) {
        if (unlinkat(folder, name, AT_REMOVEDIR) == 0) return 0;
      }
      if (errno != EACCES || retried || fchmod(folder, 0700) != 0) return errno;
    }
  }

  UniqueFd OpenFolder(const char* name) {
    constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    UniqueFd folder(openat(top_, name, kFlags));
    // fchmodat follows links, but only what is no link gets here: O_NOFOLLOW gives ELOOP or ENOTDIR for one, not EACCES.
    if (!folder && errno == EACCES && fchmodat(top_, name, 0700, 0) == 0) folder.Reset(openat(top_, name, kFlags));
    return folder;
  }

  int EmptyInto(const char* name) {
    UniqueFd folder = OpenFolder(name);
    if (!folder) return errno;
    int error = 0;
    ForEach(folder.get(), [&](const char* inner) {
      error = RemoveOne(folder.get(), inner);
      if (error == ENOTEMPTY || error == EEXIST) error = MoveUp(folder.get(), inner);
      return error == 0;
    });
    return error;  // the folder itself goes in the next pass
  }

  int MoveUp(int folder, const char* name) {
    for (;;) {
      char moved[48];
      snprintf(moved, sizeof moved, ".removing-%llu", static_cast<unsigned long long>(next_++));
      if (syscall(SYS_renameat2, folder, name, top_, moved, kNoReplace) == 0) return 0;
      if (errno == EACCES && fchmodat(folder, name, 0700, AT_SYMLINK_NOFOLLOW) == 0 &&
          syscall(SYS_renameat2, folder, name, top_, moved, kNoReplace) == 0) {
        return 0;
      }
      if (errno != EEXIST) return errno;
    }
  }

  static constexpr unsigned kNoReplace = 1;  // RENAME_NOREPLACE
  int top_;
  uint64_t next_ = 0;
};

// A folder at or below `root`, reached through no link.
UniqueFd OpenBelow(int root, const std::string& path) {
  open_how how{};
  how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  return UniqueFd(static_cast<int>(syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
}

// One file, link or folder, by a descriptor: what is looked at is what is changed. Says whether it is a folder.
absl::StatusOr<bool> ChangeOwnerOf(int folder, const char* name, uid_t owner, const std::function<bool(id_t)>& theirs) {
  UniqueFd entry(openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat info;
  if (!entry || fstat(entry.get(), &info) != 0) return ErrnoStatus(errno, name);
  constexpr id_t kKeep = static_cast<id_t>(-1);
  const uid_t uid = theirs(info.st_uid) ? owner : kKeep;
  const gid_t gid = theirs(info.st_gid) ? static_cast<gid_t>(owner) : kKeep;
  if ((uid != kKeep || gid != kKeep) && fchownat(entry.get(), "", uid, gid, AT_EMPTY_PATH) != 0) return ErrnoStatus(errno, name);
  return S_ISDIR(info.st_mode);
}

}  // namespace

std::vector<std::string> Names(int folder) {
  std::vector<std::string> names;
  ForEach(folder, [&](const char* name) {
    names.emplace_back(name);
    return true;
  });
  return names;
}

absl::Status ChangeOwner(int parent, const std::string& name, uid_t owner, const std::function<bool(id_t)>& theirs) {
  UniqueFd top(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!top) return ErrnoStatus(errno, name);
  absl::Status status;
  // A queue of paths: neither the stack nor the descriptors run out, and where a path becomes too long it is told.
  for (std::deque<std::string> folders{"."}; !folders.empty(); folders.pop_front()) {
    UniqueFd folder = OpenBelow(top.get(), folders.front());
    if (!folder) {
      status.Update(ErrnoStatus(errno, folders.front().substr(0, 256)));
      continue;
    }
    ForEach(folder.get(), [&](const char* entry) {
      auto is_folder = ChangeOwnerOf(folder.get(), entry, owner, theirs);
      if (!is_folder.ok()) status.Update(is_folder.status());
      else if (*is_folder) folders.push_back(folders.front() + "/" + entry);
      return true;
    });
  }
  status.Update(ChangeOwnerOf(parent, name.c_str(), owner, theirs).status());
  return status;
}

absl::Status Make(const std::vector<std::string>& roots, const std::string& path, uid_t uid, gid_t gid, mode_t mode) {
  auto place = Open(roots, path);
  if (!place.ok()) return place.status();
  if (mkdirat(place->parent.get(), place->name.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(errno, "mkdir " + path);
  UniqueFd folder(openat(place->parent.get(), place->name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) return ErrnoStatus(errno, path);
  struct stat info;
  if (fstat(folder.get(), &info) != 0) return ErrnoStatus(errno, path);
  if ((info.st_uid != uid || info.st_gid != gid) && fchown(folder.get(), uid, gid) != 0) return ErrnoStatus(errno, "chown " + path);
  // After chown, which may clear the setgid bit, and by fchmod, which no umask cuts.
  if (fchmod(folder.get(), mode & 07777) != 0) return ErrnoStatus(errno, "chmod " + path);
  return absl::OkStatus();
}

absl::Status Remove(const std::vector<std::string>& roots, const std::string& path) {
  auto place = Open(roots, path);
  if (absl::IsNotFound(place.status())) return absl::OkStatus();
  if (!place.ok()) return place.status();
  const char* name = place->name.c_str();
  if (unlinkat(place->parent.get(), name, AT_REMOVEDIR) == 0 || errno == ENOENT) return absl::OkStatus();
  struct stat info;
  if (errno == ENOTDIR && fstatat(place->parent.get(), name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode)) {
    return unlinkat(place->parent.get(), name, 0) == 0 ? absl::OkStatus() : ErrnoStatus(errno, path);
  }
  UniqueFd folder(openat(place->parent.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder && errno == EACCES && fchmodat(place->parent.get(), name, 0700, 0) == 0) {
    folder.Reset(openat(place->parent.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  }
  if (!folder) return ErrnoStatus(errno, path);
  if (int error = Remover(folder.get()).Empty(); error != 0) return ErrnoStatus(error, "removing what is in " + path);
  if (unlinkat(place->parent.get(), name, AT_REMOVEDIR) != 0 && errno != ENOENT) return ErrnoStatus(errno, "rmdir " + path);
  return absl::OkStatus();
}

}  // namespace bulkhead::folders
