// Lines from a child's stdout or stderr: bounded, rate-limited, with the last bytes kept for a crash report.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "supervisor/base/fd.h"
#include "supervisor/base/loop.h"

namespace bulkhead {

// The tail that stdout and stderr of one child share, at most limits::kExitOutput bytes. Control loop only.
class OutputTail {
 public:
  void Append(std::string_view line);
  std::string Text() const;  // valid UTF-8: other bytes are replaced

 private:
  std::string text_;
};

// What stdout and stderr of one child may say together: limits::kLogLinesPerSecond lines, of kLogBytesPerSecond, in a second. Control loop
// only.
class LogRate {
 public:
  using DroppedFn = std::function<void(uint64_t lines, std::string_view notice)>;
  // `dropped` gets the number for each second in which lines were dropped, and a line for the log that says it.
  LogRate(Loop& loop, DroppedFn dropped);
  LogRate(const LogRate&) = delete;
  ~LogRate();
  // Counts one line of so many bytes; false: drop it.
  bool Admit(size_t bytes);
  // Says now what was dropped so far: no further second may come.
  void Flush();

 private:
  Loop& loop_;
  DroppedFn dropped_fn_;
  int lines_in_window_ = 0;
  size_t bytes_in_window_ = 0;
  uint64_t dropped_ = 0;
  Loop::TimerId window_ = 0;
};

// Reads `read_end` on the loop until EOF. Splits at '\n'; a line over limits::kMaxLogLine is cut and marked; what `rate` does not
// admit is dropped (and still kept in the tail). A stream that never ends a line holds kMaxLogLine at most.
class LogPipe {
 public:
  using LineFn = std::function<void(std::string_view line)>;
  LogPipe(Loop& loop, UniqueFd read_end, std::shared_ptr<OutputTail> tail, std::shared_ptr<LogRate> rate, LineFn line);
  ~LogPipe();
  // Reads what is there now, and takes an unfinished last line for a whole one; before a crash report is made.
  void Drain();

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with a call that is on its way: `line` may destroy the pipe
};

}  // namespace bulkhead
