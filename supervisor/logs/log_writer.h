// Writes lines to the files of their modules, on a thread of its own. Thread-safe; nothing here blocks the caller but Close() and AwaitWritten(). Lines that it
// can't write, or for which it is too slow, are left out of the files and counted, which the supervisor's log says once.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "supervisor/logs/log_files.h"

namespace bulkhead {

class LogWriter {
 public:
  // <folder>/<module>/ for each; with limits.files 0 nothing is ever written.
  LogWriter(const Clock& clock, std::string folder, LogFileLimits limits);
  ~LogWriter();  // Close()
  void Add(const std::string& module, RecordPtr record);
  // Removes the module's files, behind what was added before. `done` on the thread, or at once after Close().
  void Remove(const std::string& module, std::function<void(absl::Status)> done);
  // Blocks until what has been added by now is in the files, or is lost; at most limits::kLogWriteWait. For who reads them.
  void AwaitWritten();
  // Writes what waits, and ends the thread. What is added afterwards is dropped.
  void Close();

 private:
  struct Item {
    std::string module;
    RecordPtr record;                          // null: remove
    std::function<void(absl::Status)> removed;
  };
  struct Target {
    explicit Target(LogFileWriter w) : files(std::move(w)) {}
    LogFileWriter files;
    bool failing = false;
    Instant retry_at{};
  };
  void Work();
  void WriteBatch(std::deque<Item> batch, size_t overflowed);
  void Write(const std::string& module, const std::vector<RecordPtr>& records);
  void Failed(const std::string& module, Target& target, const absl::Status& why);

  const Clock& clock_;
  const std::string folder_;
  const LogFileLimits limits_;
  std::mutex mutex_;
  std::condition_variable wake_, written_;
  std::deque<Item> queue_;      // under mutex_, as what follows
  size_t queued_bytes_ = 0;
  size_t overflowed_ = 0;       // lines that found no room
  uint64_t added_ = 0, done_ = 0;  // items
  bool closing_ = false;
  std::map<std::string, Target> targets_;  // the thread's, as what follows
  size_t failing_ = 0;          // targets that are
  uint64_t lost_ = 0;           // lines, since the first of them failed
  std::thread thread_;          // last
};

}  // namespace bulkhead
