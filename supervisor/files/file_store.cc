#include "supervisor/files/file_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>
#include <utility>
#include <vector>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/files/file_name.h"

namespace bulkhead {
namespace {

constexpr char kFresh[] = ".new";
constexpr auto kIdlePoll = std::chrono::milliseconds(5);

// For a module: what it may know of an error of the disk. The folder's path stands in the log.
absl::Status DiskError(int error, const char* what, const std::string& module) {
  if (error == ENOSPC || error == EDQUOT || error == EFBIG)
    return Error("DISK_FULL", "The disk that the supervisor keeps files on is full; what was stored before is still there.");
  LogError("files", "a file of a module can't be worked on", {{"module", module}, {"step", what}, {"reason", strerror(error)}});
  return Error("INTERNAL", std::string("The supervisor could not ") + what + ": " + strerror(error) + ".");
}

absl::Status NotFound(const std::string& name) { return Error("FILE_NOT_FOUND", "The module has no file \"" + name + "\" on this node."); }

WallTime ModifiedOf(const struct stat& info) {
  return WallTime(std::chrono::duration_cast<WallTime::duration>(std::chrono::seconds(info.st_mtim.tv_sec) + std::chrono::nanoseconds(info.st_mtim.tv_nsec)));
}

std::vector<std::string> NamesIn(int folder) {
  std::vector<std::string> names;
  DIR* const stream = fdopendir(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (stream == nullptr) return names;
  while (const dirent* entry = readdir(stream)) {
    if (std::string_view(entry->d_name) != "." && std::string_view(entry->d_name) != "..") names.emplace_back(entry->d_name);
  }
  closedir(stream);
  return names;
}

UniqueFd OpenFolder(int parent, const std::string& name) {
  return UniqueFd(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

class FileReader final : public HostFiles::Reader {
 public:
  FileReader(UniqueFd fd, StoredFile file, std::string module, int64_t offset, int64_t end)
      : fd_(std::move(fd)), file_(std::move(file)), module_(std::move(module)), at_(offset), end_(end) {}
  const StoredFile& file() const override { return file_; }
  int64_t left() const override { return end_ - at_; }
  absl::StatusOr<std::string> Read(size_t most) override {
    std::string bytes(std::min<size_t>(most, static_cast<size_t>(left())), '\0');
    if (bytes.empty()) return bytes;
    ssize_t n;
    do {
      n = pread(fd_.get(), bytes.data(), bytes.size(), at_);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return DiskError(errno, "read the file", module_);
    if (n == 0) return DiskError(EIO, "read the file to its end", module_);  // somebody else has cut it
    bytes.resize(static_cast<size_t>(n));
    at_ += n;
    return bytes;
  }

 private:
  const UniqueFd fd_;
  const StoredFile file_;
  const std::string module_;
  int64_t at_;
  const int64_t end_;
};

}  // namespace

class FileWriter final : public HostFiles::Writer {
 public:
  FileWriter(FileStore& store, FileStore::TenantPtr tenant, std::string name, FileLedger::Put put)
      : store_(store), tenant_(std::move(tenant)), name_(std::move(name)), put_(put), temporary_(std::to_string(put)) {}
  ~FileWriter() override {
    if (temporary_.empty()) return;
    if (fd_) unlinkat(store_.fresh_.get(), temporary_.c_str(), 0);
    tenant_->account.With([&](auto& account) { account.ledger.Abort(put_); });
  }

  absl::Status Begin(int64_t expected) {
    RETURN_IF_ERROR(Counted([&](FileLedger& ledger) { return ledger.Begin(put_, name_); }));
    RETURN_IF_ERROR(Reserve(expected));
    fd_.Reset(openat(store_.fresh_.get(), temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    return fd_ ? absl::OkStatus() : Failed("make the file");
  }

  absl::Status Write(std::string_view bytes) override {
    if (const int64_t all = written_ + static_cast<int64_t>(bytes.size()); all > reserved_) RETURN_IF_ERROR(Reserve(all - reserved_));
    while (!bytes.empty()) {
      const ssize_t n = write(fd_.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Failed("write the file");
      bytes.remove_prefix(static_cast<size_t>(n));
      written_ += n;
    }
    return absl::OkStatus();
  }
  int64_t written() const override { return written_; }

  absl::StatusOr<StoredFile> Commit() override {
    struct stat info;
    if (fsync(fd_.get()) != 0 || fstat(fd_.get(), &info) != 0) return Failed("keep the file");
    {
      std::lock_guard lock(tenant_->changing);
      if (tenant_->account.With([](auto& account) { return account.purged; })) return Error("MODULE_NOT_FOUND", "The module has been deleted with its data.");
      RETURN_IF_ERROR(store_.MakeFolder(*tenant_).status());
      if (renameat(store_.fresh_.get(), temporary_.c_str(), tenant_->folder, NameOnDisk(name_).c_str()) != 0) return Failed("name the file");
      tenant_->account.With([&](auto& account) { account.ledger.Commit(put_, written_, ModifiedOf(info)); });
      temporary_.clear();
    }
    if (fsync(tenant_->folder) != 0) return Failed("keep the file's name");
    return StoredFile{name_, written_, ModifiedOf(info)};
  }

 private:
  template <typename F>
  absl::Status Counted(F change) {
    return tenant_->account.With([&](auto& account) -> absl::Status {
      absl::Status admitted = change(account.ledger);
      if (!admitted.ok()) ++account.refused_by_quota;
      return admitted;
    });
  }
  absl::Status Reserve(int64_t bytes) {
    RETURN_IF_ERROR(Counted([&](FileLedger& ledger) { return ledger.Grow(put_, bytes); }));
    reserved_ += bytes;
    return absl::OkStatus();
  }
  absl::Status Failed(const char* what) {
    absl::Status status = DiskError(errno, what, tenant_->module);
    if (ErrorCode(status) == "DISK_FULL") ++tenant_->refused_by_disk;
    return status;
  }

  FileStore& store_;
  const FileStore::TenantPtr tenant_;
  const std::string name_;
  const FileLedger::Put put_;
  std::string temporary_;  // empty once it has its name
  UniqueFd fd_;
  int64_t reserved_ = 0, written_ = 0;
};

FileStore::FileStore(UniqueFd folder, UniqueFd fresh, std::string path, int64_t most_bytes)
    : folder_(std::move(folder)), fresh_(std::move(fresh)), path_(std::move(path)), most_bytes_(most_bytes) {}

FileStore::~FileStore() { Close(); }

absl::StatusOr<std::unique_ptr<FileStore>> FileStore::Open(const std::string& path, int64_t most_bytes) {
  const auto unusable = [&](const char* what) { return Error("DATA_UNUSABLE", path + ": " + what + ": " + strerror(errno)); };
  UniqueFd folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!folder) return unusable("the folder of the modules' files can't be opened");
  if (mkdirat(folder.get(), kFresh, 0700) != 0 && errno != EEXIST) return unusable("can't be written");
  UniqueFd fresh = OpenFolder(folder.get(), kFresh);
  if (!fresh) return unusable("its folder .new can't be opened");
  for (const std::string& name : NamesIn(fresh.get())) {
    if (unlinkat(fresh.get(), name.c_str(), 0) != 0) return unusable("what a crash has left in .new can't be removed");
  }
  auto store = std::unique_ptr<FileStore>(new FileStore(std::move(folder), std::move(fresh), path, most_bytes));
  RETURN_IF_ERROR(store->CountAll());
  return store;
}

absl::Status FileStore::CountAll() {
  for (const std::string& module : NamesIn(folder_.get())) {
    if (module == kFresh) continue;
    UniqueFd folder = OpenFolder(folder_.get(), module);
    if (!folder) continue;  // nothing of ours
    const TenantPtr tenant = Of(module);
    for (const std::string& on_disk : NamesIn(folder.get())) {
      struct stat info;
      const auto name = NameFromDisk(on_disk);
      const bool file = fstatat(folder.get(), on_disk.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode);
      if (!name || !file) {
        LogWarn("files", "this is no file of a module and is left alone", {{"path", path_ + "/" + module + "/" + on_disk}});
        continue;
      }
      tenant->account.With([&](auto& account) { account.ledger.Restore(*name, info.st_size, ModifiedOf(info)); });
    }
    tenant->folder = folder.Release();
  }
  return absl::OkStatus();
}

FileStore::TenantPtr FileStore::Of(const std::string& module) {
  return tenants_.With([&](auto& tenants) {
    TenantPtr& tenant = tenants[module];
    if (!tenant) tenant = std::make_shared<Tenant>(module);
    return tenant;
  });
}

absl::StatusOr<int> FileStore::MakeFolder(Tenant& tenant) {
  if (tenant.folder >= 0) return tenant.folder.load();
  if (mkdirat(folder_.get(), tenant.module.c_str(), 0700) != 0 && errno != EEXIST) return DiskError(errno, "make the module's folder", tenant.module);
  UniqueFd folder = OpenFolder(folder_.get(), tenant.module);
  if (!folder || fsync(folder_.get()) != 0) return DiskError(errno, "make the module's folder", tenant.module);
  tenant.folder = folder.Release();
  return tenant.folder.load();
}

void FileStore::SetInstance(const std::string& token, const std::string& module, const FileQuota& asked, bool present) {
  Of(module)->account.With([&](auto& account) {
    if (present) {
      account.asked[token] = asked;
    } else {
      account.asked.erase(token);
    }
    FileQuota largest;
    for (const auto& [each, quota] : account.asked) largest = {std::max(largest.bytes, quota.bytes), std::max(largest.files, quota.files)};
    if (!account.asked.empty()) account.ledger.SetQuota(Capped(largest));
  });
}

absl::Status FileStore::Purge(const std::string& module) {
  const TenantPtr tenant = tenants_.With([&](auto& tenants) {
    const auto found = tenants.find(module);
    if (found == tenants.end()) return TenantPtr();
    TenantPtr gone = found->second;
    tenants.erase(found);
    return gone;
  });
  if (!tenant) return absl::OkStatus();
  std::lock_guard lock(tenant->changing);
  tenant->account.With([](auto& account) { account.purged = true; });
  std::error_code error;
  std::filesystem::remove_all(path_ + "/" + module, error);
  if (error) return Error("INTERNAL", path_ + "/" + module + ": " + error.message());
  fsync(folder_.get());
  return absl::OkStatus();
}

void FileStore::Close() {
  pool_.Shutdown();
  while (!pool_.Idle()) std::this_thread::sleep_for(kIdlePoll);
}

absl::StatusOr<std::unique_ptr<HostFiles::Writer>> FileStore::Create(const std::string& module, const std::string& name, int64_t expected) {
  RETURN_IF_ERROR(CheckFileName(name));
  if (expected < 0) return Error("INVALID_ARGUMENT", "A file has no negative number of bytes.");
  auto writer = std::make_unique<FileWriter>(*this, Of(module), name, next_.fetch_add(1));
  RETURN_IF_ERROR(writer->Begin(expected));
  return writer;
}

absl::StatusOr<std::unique_ptr<HostFiles::Reader>> FileStore::Open(const std::string& module, const std::string& name, int64_t offset, int64_t length) {
  RETURN_IF_ERROR(CheckFileName(name));
  if (offset < 0) return Error("INVALID_ARGUMENT", "A range begins at 0 or behind it.");
  const TenantPtr tenant = Of(module);
  if (tenant->folder < 0) return NotFound(name);
  UniqueFd opened(openat(tenant->folder, NameOnDisk(name).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!opened && errno == ENOENT) return NotFound(name);
  struct stat info;
  if (!opened || fstat(opened.get(), &info) != 0) return DiskError(errno, "open the file", module);
  if (!S_ISREG(info.st_mode)) return NotFound(name);
  const int64_t begin = std::min<int64_t>(offset, info.st_size);
  const int64_t end = length < 0 ? info.st_size : begin + std::min<int64_t>(length, info.st_size - begin);
  return std::make_unique<FileReader>(std::move(opened), StoredFile{name, info.st_size, ModifiedOf(info)}, module, begin, end);
}

absl::StatusOr<StoredFile> FileStore::Stat(const std::string& module, const std::string& name) {
  ASSIGN_OR_RETURN(const auto reader, Open(module, name, 0, 0));
  return reader->file();
}

absl::StatusOr<bool> FileStore::Remove(const std::string& module, const std::string& name) {
  RETURN_IF_ERROR(CheckFileName(name));
  const TenantPtr tenant = Of(module);
  std::lock_guard lock(tenant->changing);
  if (tenant->folder < 0) return false;
  const bool removed = unlinkat(tenant->folder, NameOnDisk(name).c_str(), 0) == 0;
  if (!removed && errno != ENOENT) return DiskError(errno, "remove the file", module);
  tenant->account.With([&](auto& account) { account.ledger.Remove(name); });
  if (removed && fsync(tenant->folder) != 0) return DiskError(errno, "remove the file for good", module);
  return removed;
}

absl::Status FileStore::Rename(const std::string& module, const std::string& from, const std::string& to) {
  RETURN_IF_ERROR(CheckFileName(from));
  RETURN_IF_ERROR(CheckFileName(to));
  const TenantPtr tenant = Of(module);
  std::lock_guard lock(tenant->changing);
  const int folder = tenant->folder;
  std::optional<StoredFile> replaced;
  const absl::Status admitted = tenant->account.With([&](auto& account) -> absl::Status {
    if (folder < 0 || !account.ledger.Find(from)) return NotFound(from);
    replaced = account.ledger.Find(to);
    const absl::Status fits = account.ledger.Rename(from, to);
    if (!fits.ok()) ++account.refused_by_quota;
    return fits;
  });
  RETURN_IF_ERROR(admitted);
  if (renameat(folder, NameOnDisk(from).c_str(), folder, NameOnDisk(to).c_str()) != 0) {
    const int error = errno;
    tenant->account.With([&](auto& account) { account.ledger.TakeBack(from, to, replaced); });
    return error == ENOENT ? NotFound(from) : DiskError(error, "rename the file", module);
  }
  if (fsync(folder) != 0) return DiskError(errno, "rename the file for good", module);
  return absl::OkStatus();
}

HostFiles::Page FileStore::List(const std::string& module, const std::string& prefix, const std::string& after, size_t limit) {
  return Of(module)->account.With([&](auto& account) { return account.ledger.List(prefix, after, limit); });
}

size_t FileStore::Count(const std::string& module, const std::string& prefix) {
  return Of(module)->account.With([&](auto& account) { return account.ledger.Count(prefix); });
}

FileUsage FileStore::Usage(const std::string& module, const FileQuota& asked) {
  const TenantPtr tenant = tenants_.With([&](auto& tenants) {
    const auto found = tenants.find(module);
    return found == tenants.end() ? TenantPtr() : found->second;
  });
  FileUsage usage{.quota = Capped(asked)};
  if (!tenant) return usage;
  tenant->account.With([&](auto& account) {
    usage.bytes = account.ledger.bytes();
    usage.files = account.ledger.files();
    if (!account.asked.empty()) usage.quota = account.ledger.quota();
    usage.refused_by_quota = account.refused_by_quota;
  });
  usage.refused_by_disk = tenant->refused_by_disk;
  return usage;
}

}  // namespace bulkhead
