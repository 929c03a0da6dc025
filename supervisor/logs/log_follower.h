// One reader who follows a module's log: from its files where he is behind what memory has, else from memory, without a line twice or left
// out. It is asked, and never pushes: who takes nothing holds nothing but a few lines.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "supervisor/logs/log_files.h"
#include "supervisor/logs/module_logs.h"

namespace bulkhead {

// Thread-safe, but for Next(), which one thread calls at a time.
class LogFollower : public std::enable_shared_from_this<LogFollower> {
 public:
  struct Event {
    enum class Kind { kNothing, kLine, kMissed, kEnded };
    Kind kind = Kind::kNothing;
    RecordPtr line;
    int64_t missed = 0;    // lines that are nowhere any more, or were never written to a file
    LogCursor cursor;      // the place behind it
    absl::Status status;   // kEnded: MODULE_NOT_FOUND, OVERLOADED
  };
  // What comes next. kNothing: `wake` is called when there may be something, from any thread.
  Event Next();

 private:
  friend class ModuleLogs;
  LogFollower(ModuleLogs& logs, LogFollow what, std::function<void()> wake);
  void Begin();
  void Read();               // a piece of the files, on the logs' pool
  void Found(LogPage page);  // the lines to begin with
  void End(absl::Status why);
  void Wake();
  std::optional<Event> FromBacklog();

  ModuleLogs& logs_;
  const LogFollow what_;
  const std::function<void()> wake_;
  std::mutex mutex_;
  std::deque<RecordPtr> backlog_;  // read and not given yet; under mutex_, as what follows
  LogCursor at_;                   // behind what was given or passed over
  std::optional<LogCursor> horizon_;  // once the backlog is given: everything up to there has been looked for
  bool selected_ = false;          // the backlog has lines that were selected: none is missing between them
  int64_t older_ = 0;              // up to which id the files are read
  bool reading_ = false;
  std::unique_ptr<LogFileReader> files_;
  std::optional<absl::Status> ended_;
  bool waiting_ = false;           // under the mutex of the logs: Next() has found nothing
};

}  // namespace bulkhead
