// The supervisor's structured log: one line per event on stderr, as text for people or JSON for machines. Thread-safe.
// Secrets are the caller's business: never pass one.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"

namespace bulkhead {

enum class LogLevel { kDebug, kInfo, kWarn, kError };
enum class LogFormat { kText, kJson };

using LogField = std::pair<std::string_view, std::string>;

// Thread-safe. Until the first call: info, text.
void ConfigureLog(LogLevel level, LogFormat format);
bool ParseLogLevel(std::string_view text, LogLevel& level);  // debug, info, warn, error
std::string_view LogLevelName(LogLevel level);               // the same

// `component` is the room ("lifecycle", "gateway"), or "module/<name>" for a line of a module.
// Control characters in message and values are escaped, so that one event stays one line.
void Log(LogLevel level, std::string_view component, std::string_view message, std::initializer_list<LogField> fields = {});
inline void LogDebug(std::string_view c, std::string_view m, std::initializer_list<LogField> f = {}) { Log(LogLevel::kDebug, c, m, f); }
inline void LogInfo(std::string_view c, std::string_view m, std::initializer_list<LogField> f = {}) { Log(LogLevel::kInfo, c, m, f); }
inline void LogWarn(std::string_view c, std::string_view m, std::initializer_list<LogField> f = {}) { Log(LogLevel::kWarn, c, m, f); }
inline void LogError(std::string_view c, std::string_view m, std::initializer_list<LogField> f = {}) { Log(LogLevel::kError, c, m, f); }
// The same with fields that are only known at run time.
void LogLine(LogLevel level, std::string_view component, std::string_view message, const LogField* fields, size_t count);

// Ends the process after a line that says why. For bugs, in production too.
[[noreturn]] void Fatal(const char* file, int line, std::string_view message);
#define BULKHEAD_CHECK(condition)                                          \
  do {                                                                     \
    if (!(condition)) [[unlikely]] ::bulkhead::Fatal(__FILE__, __LINE__, "check failed: " #condition); \
  } while (false)

}  // namespace bulkhead
