#include "supervisor/auth/admin_token.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "supervisor/auth/identity.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr size_t kAdminSecretBytes = 32;  // as 64 hex digits in the file

absl::Status Unusable(const std::string& path, int error, const std::string& doing) {
  return Error("DATA_UNUSABLE",
               "The admin token " + path + " cannot be used: " + std::string(ErrnoStatus(error, doing).message()) + ".");
}

absl::StatusOr<std::string> ReadSecret(int fd, const std::string& path) {
  struct stat info;
  if (fstat(fd, &info) != 0) return Unusable(path, errno, "fstat");
  if (!S_ISREG(info.st_mode))
    return Error("DATA_UNUSABLE",
                 "The admin token " + path + " is not a regular file. Remove it; a new one is made at the next start.");
  if ((info.st_mode & 077) != 0) {
    return Error("DATA_UNUSABLE", "The admin token " + path +
                                      " can be read or written by group or others. If nobody has seen it, run chmod 600 " + path +
                                      "; otherwise remove it, and a new one is made at the next start.");
  }
  char buffer[2 * kAdminSecretBytes + 2];
  size_t size = 0;
  while (size < sizeof buffer) {
    const ssize_t n = read(fd, buffer + size, sizeof buffer - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Unusable(path, errno, "read");
    if (n == 0) break;
    size += static_cast<size_t>(n);
  }
  std::string_view text(buffer, size);
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.size() != 2 * kAdminSecretBytes || !IsHex(text)) {
    return Error("DATA_UNUSABLE",
                 "The admin token " + path +
                     " does not hold 64 hexadecimal digits and a newline. Remove it; a new one is made at the next start.");
  }
  return std::string(text);
}

absl::Status WriteAll(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Unusable(path, errno, "write");
    text.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

// The file appears whole or not at all: written beside its place, then linked there, which fails when one exists.
absl::StatusOr<std::string> MakeSecret(const std::string& path) {
  const std::string secret = RandomHex(kAdminSecretBytes);
  const std::string temporary = path + ".new";
  if (unlink(temporary.c_str()) != 0 && errno != ENOENT) return Unusable(path, errno, "unlink " + temporary);
  UniqueFd file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return Unusable(path, errno, "create " + temporary);
  absl::Status written = WriteAll(file.get(), secret + "\n", path);
  if (written.ok() && fsync(file.get()) != 0) written = Unusable(path, errno, "fsync");
  if (written.ok() && link(temporary.c_str(), path.c_str()) != 0) written = Unusable(path, errno, "link");
  unlink(temporary.c_str());
  RETURN_IF_ERROR(written);
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  UniqueFd parent(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent) return Unusable(path, errno, "open " + folder);
  if (fsync(parent.get()) != 0) return Unusable(path, errno, "fsync " + folder);
  return secret;
}

}  // namespace

absl::StatusOr<std::string> ReadOrMakeAdminToken(const std::string& path) {
  std::string secret;
  UniqueFd file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (file) {
    ASSIGN_OR_RETURN(secret, ReadSecret(file.get(), path));
  } else if (errno == ENOENT) {
    ASSIGN_OR_RETURN(secret, MakeSecret(path));
    LogInfo("auth", "made the admin token", {{"path", path}});
  } else if (errno == ELOOP) {
    return Error("DATA_UNUSABLE",
                 "The admin token " + path +
                     " is a symbolic link, which is not followed. Remove it; a new one is made at the next start.");
  } else {
    return Unusable(path, errno, "open");
  }
  return secret;
}

}  // namespace bulkhead
