// A line of a module's log as it is kept, its place in the log, and what selects lines. Values; pure.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "supervisor/base/clock.h"
#include "supervisor/base/log.h"

namespace bulkhead {

// A place in the log of one module: behind the line that has it. `id` grows from line to line, over restarts of the daemon too, because it
// is the line's time in microseconds since 1970, or one more than the line before when that is greater. `number` counts the lines, so that
// from two places one can tell how many are missing between them; 0: not known.
struct LogCursor {
  int64_t id = 0;
  int64_t number = 0;
  std::string Text() const;  // "1767225600123456-4711"; opaque to clients
  static std::optional<LogCursor> Parse(std::string_view text);
  bool operator==(const LogCursor&) const = default;
};

enum class LogStream : uint8_t { kStdout, kStderr, kSupervisor };  // the last: a line that tells what was dropped
std::string_view LogStreamName(LogStream stream);

struct LogRecord {
  LogCursor at;
  WallTime time{};
  int slot = 0;
  std::string instance;
  LogStream stream = LogStream::kStdout;
  LogLevel level = LogLevel::kInfo;
  bool structured = false;
  std::string message;  // valid UTF-8, as all texts here
  std::string fields;   // a JSON object; empty: none
  // What it costs in memory, about.
  size_t Bytes() const { return sizeof *this + instance.size() + message.size() + fields.size(); }
};
using RecordPtr = std::shared_ptr<const LogRecord>;

// One line of a file, with its newline. It begins with the id, so that a search for a place needs to parse no JSON.
std::string ToFileLine(const LogRecord& record);
std::optional<LogRecord> FromFileLine(std::string_view line);
// The id alone; nullopt for what is no line of ours.
std::optional<int64_t> IdOfFileLine(std::string_view line);

struct LogFilter {
  LogLevel level = LogLevel::kDebug;  // and above
  std::optional<WallTime> since, until;  // from then on; before then
  std::optional<int> slot;
  std::string search;  // lower case; somewhere in message or fields, ASCII case ignored; empty: all
  bool Matches(const LogRecord& record) const;
};

}  // namespace bulkhead
