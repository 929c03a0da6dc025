// The module's files: kept by the supervisor, shared by all workers of the module on this node, and there after restarts, upgrades and while it is disabled.
//
//   context.files().Put("reports/2026-11.csv", csv);
//   std::optional<std::string> csv = context.files().Get("reports/2026-11.csv");
//
// A name is 1 to 240 bytes of UTF-8, parts separated by "/", none of them empty, "." or "..", without control characters and "\". A file is replaced whole:
// readers see what was there before or after, never a mixture, and what Put, Commit, Remove or Rename has done when it returns survives a loss of power.
// Each node has files of its own. The manifest says how much there may be (`limits.storage`, 64 MiB; `limits.files`, 10,000).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/errors.h"

namespace bulkhead::sdk {

inline constexpr size_t kMaxFileName = 240;  // bytes

struct FileInfo {
  std::string name;
  int64_t bytes = 0;
  std::chrono::system_clock::time_point modified;  // in milliseconds
};

struct FileRange {
  int64_t offset = 0;
  std::optional<int64_t> length;  // none: to the end. What lies beyond the end is left out
};

struct FileList {
  std::vector<FileInfo> files;  // in the order of the names' bytes
  bool more = false;            // others follow: ask again, after the last one
};

// What the module has on this node, and may have.
struct FileSpace {
  int64_t bytes = 0, files = 0;
  int64_t max_bytes = 0, max_files = 0;
};

// There is no room: code "QUOTA_EXCEEDED" where the module's own quota is used up, "DISK_FULL" where the disk is. What was there before is there still. What
// a handler lets pass becomes 507.
class NoRoom : public HttpError {
 public:
  NoRoom(std::string_view code, const std::string& message) : HttpError(507, code, message) {}
};

// A file on its way in, part by part. One thread at a time. One that goes without Commit leaves nothing behind.
class FileWriter {
 public:
  virtual ~FileWriter() = default;
  // Blocks while the supervisor is slower.
  virtual void Write(std::string_view bytes) = 0;
  // It has its name, and is on the disk.
  virtual FileInfo Commit() = 0;
};

// Any thread. Each call is one to the supervisor and blocks: for 30 s at most, but where the bytes of a file are moved, which may take an hour. Throws NoRoom,
// std::invalid_argument for a name or a range that is none, HostError for everything else; a transient one may pass.
class Files {
 public:
  virtual ~Files() = default;

  // Stores `bytes` under that name; the last of several at once counts.
  virtual FileInfo Put(std::string_view name, std::string_view bytes) = 0;
  // The same part by part; with `bytes`, how many will come, room is reserved at once, else as they come.
  virtual std::unique_ptr<FileWriter> Create(std::string_view name, int64_t bytes = 0) = 0;

  // nullopt: there is none.
  virtual std::optional<std::string> Get(std::string_view name, const FileRange& range = {}) = 0;
  // The same part by part, of at most 256 KiB, as the file was at the beginning; `part` says whether it wants more.
  using Part = std::function<bool(std::string_view bytes)>;
  virtual std::optional<FileInfo> Read(std::string_view name, const FileRange& range, const Part& part) = 0;
  virtual std::optional<FileInfo> Stat(std::string_view name) = 0;

  // Those whose names begin with `prefix` and stand behind `after`, at most `limit` (1 to 1,000).
  virtual FileList List(std::string_view prefix = {}, std::string_view after = {}, int limit = 1'000) = 0;
  virtual FileSpace Space() = 0;

  virtual bool Remove(std::string_view name) = 0;                            // false: there was none
  virtual bool Rename(std::string_view from, std::string_view to) = 0;  // replaces `to`; false: there is no `from`
};

}  // namespace bulkhead::sdk
