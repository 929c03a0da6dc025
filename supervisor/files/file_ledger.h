// What the files of one module take of its quota, those on their way included. Pure; not thread-safe.
//
// A name counts as the larger of what it holds and of all that is on its way to it. So a file may be replaced by one of its size in a quota that is nearly
// used up, no commit can fail for want of room, and what lies on the disk is at most twice the quota, whatever happens at once. Only what makes
// the module grow is looked at: one that has more than its quota, because that became less, may remove and shrink.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "supervisor/worker/host_files.h"

namespace bulkhead {

class FileLedger {
 public:
  using Put = uint64_t;

  void SetQuota(const FileQuota& quota) { quota_ = quota; }
  // Found on the disk, whatever the quota.
  void Restore(const std::string& name, int64_t bytes, WallTime modified);

  // A file is on its way to `name`. QUOTA_EXCEEDED when that would be one file too many.
  absl::Status Begin(Put put, const std::string& name);
  // It gets longer. QUOTA_EXCEEDED: it is over, and nothing of it counts any more, so of two that together are too much the other one goes on.
  absl::Status Grow(Put put, int64_t bytes);
  // It has become the file, with `bytes`, of which at most those that it has grown to.
  void Commit(Put put, int64_t bytes, WallTime modified);
  void Abort(Put put);  // also of one that is over
  void Remove(const std::string& name);
  // QUOTA_EXCEEDED only because of what is on its way to the two. `from` is there.
  absl::Status Rename(const std::string& from, const std::string& to);
  // The same without a look at the quota, to take one back whose rename failed; `replaced` is what `to` was before.
  std::optional<StoredFile> Find(const std::string& name) const;
  void TakeBack(const std::string& from, const std::string& to, const std::optional<StoredFile>& replaced);

  HostFiles::Page List(std::string_view prefix, std::string_view after, size_t limit) const;
  size_t Count(std::string_view prefix) const;
  const FileQuota& quota() const { return quota_; }
  int64_t bytes() const { return stored_.bytes; }  // stored
  int64_t files() const { return stored_.files; }
  int64_t counted_bytes() const { return counted_bytes_; }  // with what is on its way
  int64_t counted_files() const { return static_cast<int64_t>(names_.size()); }

 private:
  struct Stored {
    int64_t bytes = 0;
    WallTime modified;
  };
  struct Name {
    std::optional<Stored> stored;
    int64_t coming = 0;  // of all puts to it
    int puts = 0;
  };
  struct Coming {
    std::string name;
    int64_t bytes = 0;
  };
  static int64_t Counted(const Name& name);
  // The only door to names_ that changes something.
  template <typename F>
  void Change(const std::string& name, F change);
  // Of a change that has been made: whether what grew is within the quota. `bytes` and `files` are what was counted before.
  absl::Status Admit(int64_t bytes, int64_t files) const;

  FileQuota quota_, stored_;
  int64_t counted_bytes_ = 0;
  std::map<std::string, Name, std::less<>> names_;  // each has something stored or a put
  std::map<Put, Coming> puts_;
};

}  // namespace bulkhead
