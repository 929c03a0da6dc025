#include "supervisor/auth/authenticator.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

constexpr size_t kAdminSecretBytes = 32;  // as 64 hex digits in the file
constexpr size_t kTokenSecretBytes = 24;  // as 48 hex digits after the prefix
constexpr std::string_view kTokenPrefix = "bhk_";
constexpr size_t kMaxTokenName = 64;
constexpr size_t kMaxSubject = 128;
constexpr size_t kMaxTokenPermissions = 64;
constexpr std::string_view kAdminSubject = "admin";

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string FromHex(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string raw;
  raw.reserve(hex.size() / 2);
  for (size_t i = 0; i + 1 < hex.size(); i += 2) raw += static_cast<char>(digit(hex[i]) << 4 | digit(hex[i + 1]));
  return raw;
}

bool KebabCase(std::string_view name) {
  if (name.empty() || name.front() == '-' || name.back() == '-' || name.find("--") != std::string_view::npos) return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

// A subject travels to modules in the header x-bulkhead-subject, so it holds nothing that a header can't.
bool ValidSubject(std::string_view subject) {
  if (subject.empty() || subject.size() > kMaxSubject) return false;
  return std::all_of(subject.begin(), subject.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._@:/+-").find(c) != std::string_view::npos;
  });
}

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

absl::Status CheckNewToken(const std::string& name, const std::string& subject, const std::vector<std::string>& permissions,
                           std::optional<WallTime> expires_at, WallTime now) {
  std::vector<ErrorDetail> wrong;
  const auto add = [&](std::string path, std::string message) {
    wrong.push_back({std::move(path), "INVALID_ARGUMENT", std::move(message)});
  };
  if (!KebabCase(name) || name.size() > kMaxTokenName)
    add("/name", "The name must be kebab-case (a-z, 0-9, single dashes between), at most 64 characters.");
  if (!ValidSubject(subject)) add("/subject", "The subject must be 1 to 128 of the characters A-Z a-z 0-9 . _ @ : / + -.");
  if (subject == kAdminSubject)
    add(name == kAdminSubject ? "/name" : "/subject", "The subject \"admin\" belongs to the admin token.");
  if (permissions.empty()) add("/permissions", "At least one permission is needed, such as \"modules:read\".");
  if (permissions.size() > kMaxTokenPermissions) add("/permissions", "At most 64 permissions are possible.");
  for (size_t i = 0; i < permissions.size(); ++i) {
    if (!ValidPermission(permissions[i])) {
      add("/permissions/" + std::to_string(i),
          "A permission looks like \"modules:read\", \"consumption:*\" or \"*\", at most 128 characters.");
    }
  }
  if (expires_at && *expires_at <= now) add("/expiresAt", "The expiry lies in the past.");
  if (wrong.empty()) return absl::OkStatus();
  const std::string message = "The token cannot be made: " + wrong.front().message;
  return Error("INVALID_ARGUMENT", message, std::move(wrong));
}

}  // namespace

Authenticator::Authenticator(const Clock& clock, Registry& registry) : clock_(clock), registry_(registry) {
  state_.With([](State& state) {
    state.table = std::make_shared<const TokenTable>(std::unordered_map<std::string, TokenTable::Entry>{});
  });
}

absl::Status Authenticator::LoadAdminToken(const std::string& path) {
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
  state_.With([&](State& state) {
    state.admin_sha256 = Sha256(secret);
    Rebuild(state);
  });
  return absl::OkStatus();
}

absl::Status Authenticator::Reload() {
  // Reading and publishing are one step: of two reloads the later read must win, or a deleted token would come back.
  std::lock_guard lock(registry_mutex_);
  ASSIGN_OR_RETURN(auto rows, registry_.Tokens());
  state_.With([&](State& state) {
    state.rows = std::move(rows);
    Rebuild(state);
  });
  return absl::OkStatus();
}

void Authenticator::Rebuild(State& state) {
  std::unordered_map<std::string, TokenTable::Entry> entries;
  for (const TokenRow& row : state.rows) {
    if (row.secret_sha256.size() != 64 || !IsHex(row.secret_sha256)) {
      LogError("auth", "ignored an API token whose stored hash is not one", {{"token", row.name}});
      continue;
    }
    auto identity = std::make_shared<const Identity>(Identity{row.subject, {}, row.permissions});
    entries[FromHex(row.secret_sha256)] = {std::move(identity), row.expires_at};
  }
  if (!state.admin_sha256.empty()) {
    entries[state.admin_sha256] = {std::make_shared<const Identity>(Identity{std::string(kAdminSubject), {"admin"}, {"*"}}),
                                   std::nullopt};
  }
  state.table = std::make_shared<const TokenTable>(std::move(entries));
  version_.fetch_add(1, std::memory_order_release);
}

std::shared_ptr<const Identity> Authenticator::Authenticate(std::string_view secret) const {
  return Table()->Find(secret, clock_.Wall());
}

std::shared_ptr<const TokenTable> Authenticator::Table() const {
  return state_.With([](const State& state) { return state.table; });
}

absl::StatusOr<Authenticator::NewToken> Authenticator::Create(const Identity& caller, const std::string& name,
                                                              const std::string& subject,
                                                              const std::vector<std::string>& permissions,
                                                              std::optional<WallTime> expires_at) {
  NewToken made;
  made.row.name = name;
  made.row.subject = subject.empty() ? name : subject;
  made.row.permissions = permissions;
  made.row.created_at = clock_.Wall();
  made.row.expires_at = expires_at;
  RETURN_IF_ERROR(CheckNewToken(name, made.row.subject, permissions, expires_at, made.row.created_at));
  for (const std::string& permission : permissions) {
    if (!caller.Allows(permission)) {
      return Error("FORBIDDEN", "A token cannot hold the permission \"" + permission + "\", because its maker \"" +
                                    caller.subject + "\" does not hold it.");
    }
  }
  made.secret = std::string(kTokenPrefix) + RandomHex(kTokenSecretBytes);
  made.row.secret_sha256 = Sha256Hex(made.secret);
  std::lock_guard lock(registry_mutex_);
  RETURN_IF_ERROR(registry_.InsertToken(made.row));
  state_.With([&](State& state) {
    state.rows.push_back(made.row);
    Rebuild(state);
  });
  return made;
}

absl::StatusOr<std::vector<TokenRow>> Authenticator::List() { return registry_.Tokens(); }

absl::Status Authenticator::Delete(const std::string& name) {
  std::lock_guard lock(registry_mutex_);
  const absl::Status deleted = registry_.DeleteToken(name);
  // Deleted through another node: it must end here, too.
  if (deleted.ok() || ErrorCode(deleted) == "TOKEN_NOT_FOUND") {
    state_.With([&](State& state) {
      if (std::erase_if(state.rows, [&](const TokenRow& row) { return row.name == name; }) > 0) Rebuild(state);
    });
  }
  return deleted;
}

}  // namespace bulkhead
