// The logs of this node's modules: the last lines of each in memory, older ones in files, both to be asked for and followed. Thread-safe; no
// call blocks but the constructor, which looks for the last line of each log, and Close(). Lines of one module keep the order in which they
// are appended.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/base/limits.h"
#include "supervisor/logs/log_ring.h"
#include "supervisor/logs/log_writer.h"
#include "supervisor/logs/module_line.h"

namespace bulkhead {

class LogFollower;

struct LogQuery {
  std::string module;
  LogFilter filter;
  int count = limits::kLogTail;     // the last so many that match; behind `after` the first
  std::optional<LogCursor> before;  // only lines before it
  std::optional<LogCursor> after;   // only lines behind it
};

struct LogPage {
  std::vector<RecordPtr> lines;  // in the order of time
  bool more = false;             // further ones match, on the side where the page was cut
  LogCursor end;                 // behind the last line of the log when it was looked at
};

struct LogFollow {
  std::string module;
  LogFilter filter;
  int tail = limits::kLogTail;     // so many to begin with
  std::optional<LogCursor> after;  // instead of these: everything behind that place
};

class ModuleLogs {
 public:
  struct Options {
    std::string folder;    // <data>/logs; a folder for each module below
    LogFileLimits files;
  };
  ModuleLogs(const Clock& clock, Options options);
  ~ModuleLogs();

  struct Source {
    std::string_view module, instance;
    int slot = 0;
  };
  void Append(const Source& source, LogStream stream, ModuleLine line);
  // OVERLOADED when too many requests read; `done` on a thread of the logs, or at once.
  void Find(LogQuery query, std::function<void(absl::StatusOr<LogPage>)> done);
  std::shared_ptr<LogFollower> Follow(LogFollow what, std::function<void()> wake);
  // The module is deleted: who follows it is told so. `purge`: its lines go, too, and `done` is called when its files are gone.
  void Deleted(const std::string& module, bool purge, std::function<void(absl::Status)> done);
  // Writes what waits for its file. Nothing is appended, found or followed afterwards.
  void Close();

 private:
  friend class LogFollower;
  struct Log {
    LogRing ring;
    std::vector<std::weak_ptr<LogFollower>> followers;
  };
  // What memory has behind a place, for a follower.
  struct InMemory {
    bool behind = false;  // there may be older ones in the files, up to the id `older`
    int64_t older = 0;
    std::vector<RecordPtr> records;
  };
  InMemory After(LogFollower& follower, int64_t id);
  LogPage FindNow(const LogQuery& query);
  LogCursor EndOf(const std::string& module);  // behind its last line
  bool OnPool(std::function<void()> work) { return readers_.Submit(std::move(work)); }
  std::string FolderOf(const std::string& module) const { return options_.folder + "/" + module; }
  void Deliver();

  const Clock& clock_;
  const Options options_;
  std::mutex mutex_;
  std::condition_variable news_;
  std::map<std::string, Log, std::less<>> logs_;  // under mutex_, as what follows
  std::set<std::string> dirty_;                   // with lines that followers have not been woken for
  bool closing_ = false;
  LogWriter writer_;
  BlockingPool readers_;
  std::thread deliverer_;  // last
};

}  // namespace bulkhead
