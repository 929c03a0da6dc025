// The files of modules on this node, below one folder that belongs to the supervisor: `<folder>/<module>/<name on disk>`, each the bytes and nothing else.
//
// A file on its way in is written to `<folder>/.new`, synced, and then renamed to its name, and the folder is synced before that is answered. So a crash
// leaves the old content or the new one, and in `.new` what Open() removes. What there is is counted by Open(); the quota is kept by a ledger in memory.
#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "supervisor/base/blocking_pool.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/guarded.h"
#include "supervisor/files/file_ledger.h"
#include "supervisor/worker/host_files.h"

namespace bulkhead {

namespace limits {
inline constexpr int kFileThreads = 4;               // that work on files of modules at a time
inline constexpr size_t kMaxQueuedFileWork = 4'096;  // beyond: UNAVAILABLE
}  // namespace limits

// Thread-safe.
class FileStore final : public HostFiles {
 public:
  // `most_bytes` is what a module gets at most, whatever its manifest says. DATA_UNUSABLE. Blocks.
  static absl::StatusOr<std::unique_ptr<FileStore>> Open(const std::string& folder, int64_t most_bytes);
  ~FileStore() override;

  // A process has been started with this token and a manifest that asks for `asked`, or is gone. While there are several the largest holds, so that an
  // upgrade takes nothing from the version that still serves.
  void SetInstance(const std::string& token, const std::string& module, const FileQuota& asked, bool present);
  // Everything of a module that has no process any more. Blocks.
  absl::Status Purge(const std::string& module);
  // Takes no more work, and waits for what is under way.
  void Close();

  bool Run(std::function<void()> work) override { return pool_.Submit(std::move(work)); }
  absl::StatusOr<std::unique_ptr<Writer>> Create(const std::string& module, const std::string& name, int64_t expected) override;
  absl::StatusOr<std::unique_ptr<Reader>> Open(const std::string& module, const std::string& name, int64_t offset, int64_t length) override;
  absl::StatusOr<StoredFile> Stat(const std::string& module, const std::string& name) override;
  absl::StatusOr<bool> Remove(const std::string& module, const std::string& name) override;
  absl::Status Rename(const std::string& module, const std::string& from, const std::string& to) override;
  Page List(const std::string& module, const std::string& prefix, const std::string& after, size_t limit) override;
  size_t Count(const std::string& module, const std::string& prefix) override;
  FileUsage Usage(const std::string& module, const FileQuota& asked) override;

 private:
  friend class FileWriter;
  struct Account {
    FileLedger ledger;
    std::map<std::string, FileQuota> asked;  // by the token of each process
    int64_t refused_by_quota = 0;
    bool purged = false;  // who still has it may keep nothing any more
  };
  // What is on the disk and what the ledger says of it change together under `changing`, which is held while the disk works; the ledger's own lock never
  // is, so whoever asks it for figures waits for no disk.
  struct Tenant {
    explicit Tenant(std::string module_name) : module(std::move(module_name)) {}
    ~Tenant() { UniqueFd(folder.load()); }
    const std::string module;
    std::mutex changing;
    std::atomic<int> folder{-1};  // made with the first file, under `changing`; then it stays
    Guarded<Account> account;
    std::atomic<int64_t> refused_by_disk{0};
  };
  using TenantPtr = std::shared_ptr<Tenant>;

  FileStore(UniqueFd folder, UniqueFd fresh, std::string path, int64_t most_bytes);
  absl::Status CountAll();
  TenantPtr Of(const std::string& module);
  absl::StatusOr<int> MakeFolder(Tenant& tenant);  // under `changing`
  FileQuota Capped(const FileQuota& asked) const { return {std::min(asked.bytes, most_bytes_), asked.files}; }

  const UniqueFd folder_, fresh_;  // the whole, and `.new`
  const std::string path_;
  const int64_t most_bytes_;
  std::atomic<uint64_t> next_{1};
  Guarded<std::map<std::string, TenantPtr>> tenants_;
  BlockingPool pool_{limits::kFileThreads, limits::kMaxQueuedFileWork};  // last: its threads use what stands above
};

}  // namespace bulkhead
