// The files of modules behind the service Files of the host API, as the host server asks for them. Another room keeps them (files/).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

struct StoredFile {
  std::string name;
  int64_t bytes = 0;
  WallTime modified;
};

struct FileQuota {
  int64_t bytes = 0, files = 0;
};

// What a module has on this node.
struct FileUsage {
  int64_t bytes = 0, files = 0;                       // stored, without what is on its way
  FileQuota quota;                                    // that holds now
  int64_t refused_by_quota = 0, refused_by_disk = 0;  // since the supervisor started
};

// Thread-safe. Calls block for the disk, but for List, Count and Usage, so others make them on the threads behind Run(). Errors:
// INVALID_ARGUMENT, FILE_NOT_FOUND, QUOTA_EXCEEDED, DISK_FULL, INTERNAL. A module sees what is its own and nothing else.
class HostFiles {
 public:
  // A file on its way in; one thread at a time. What is not committed leaves nothing behind when the Writer goes, which blocks, too. After an error it is
  // of no use any more.
  class Writer {
   public:
    virtual ~Writer() = default;
    virtual absl::Status Write(std::string_view bytes) = 0;
    virtual int64_t written() const = 0;
    // It is on the disk, and has its name.
    virtual absl::StatusOr<StoredFile> Commit() = 0;
  };
  // One on its way out, as it was when it was opened; one thread at a time.
  class Reader {
   public:
    virtual ~Reader() = default;
    virtual const StoredFile& file() const = 0;  // the whole one, whatever the range
    virtual absl::StatusOr<std::string> Read(size_t most) = 0;  // empty: the end
    virtual int64_t left() const = 0;                           // bytes of the range
  };
  struct Page {
    std::vector<StoredFile> files;
    bool more = false;
  };

  virtual ~HostFiles() = default;
  // On a thread that may block. False: too many wait, or the supervisor stops; `work` is not called.
  [[nodiscard]] virtual bool Run(std::function<void()> work) = 0;
  // `expected` bytes are reserved at once; 0: not known.
  virtual absl::StatusOr<std::unique_ptr<Writer>> Create(const std::string& module, const std::string& name, int64_t expected) = 0;
  // `length` below 0: to the end.
  virtual absl::StatusOr<std::unique_ptr<Reader>> Open(const std::string& module, const std::string& name, int64_t offset, int64_t length) = 0;
  virtual absl::StatusOr<StoredFile> Stat(const std::string& module, const std::string& name) = 0;
  virtual absl::StatusOr<bool> Remove(const std::string& module, const std::string& name) = 0;  // false: there was none
  virtual absl::Status Rename(const std::string& module, const std::string& from, const std::string& to) = 0;
  // By the bytes of the names, those behind `after`.
  virtual Page List(const std::string& module, const std::string& prefix, const std::string& after, size_t limit) = 0;
  virtual size_t Count(const std::string& module, const std::string& prefix) = 0;
  // `asked` is what the manifest says, for a module of which no process runs.
  virtual FileUsage Usage(const std::string& module, const FileQuota& asked) = 0;
};

}  // namespace bulkhead
