#include "supervisor/base/log.h"

#include <atomic>
#include <cstdlib>

#include "nlohmann/json.hpp"
#include "spdlog/sinks/stdout_color_sinks.h"
#include "spdlog/spdlog.h"
#include "supervisor/base/clock.h"

namespace bulkhead {
namespace {

// Text: "12:00:01.123 INFO  gateway  message  key=value". Escapes what would break the line or a terminal.
void AppendEscaped(std::string& out, std::string_view text) {
  for (unsigned char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (c < 0x20 || c == 0x7f) {
      char hex[5];
      snprintf(hex, sizeof hex, "\\x%02x", c);
      out += hex;
    } else {
      out += static_cast<char>(c);
    }
  }
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarn: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
  }
  return spdlog::level::err;
}

constexpr char kTextPattern[] = "%Y-%m-%dT%H:%M:%S.%e %^%-5l%$ %v";

struct Sink {
  Sink() : logger(std::make_shared<spdlog::logger>("bulkhead", std::make_shared<spdlog::sinks::stderr_color_sink_mt>())) {
    logger->set_pattern(kTextPattern);
  }
  const std::shared_ptr<spdlog::logger> logger;
  std::atomic<LogFormat> format{LogFormat::kText};
};

Sink& TheSink() {
  static Sink sink;
  return sink;
}

}  // namespace

void ConfigureLog(LogLevel level, LogFormat format) {
  Sink& sink = TheSink();
  sink.format = format;
  sink.logger->set_level(ToSpdlog(level));
  sink.logger->set_pattern(format == LogFormat::kJson ? "%v" : kTextPattern);
}

std::string_view LogLevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return "debug";
    case LogLevel::kInfo: return "info";
    case LogLevel::kWarn: return "warn";
    case LogLevel::kError: return "error";
  }
  return "error";
}

bool ParseLogLevel(std::string_view text, LogLevel& level) {
  for (LogLevel candidate : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarn, LogLevel::kError}) {
    if (text == LogLevelName(candidate)) {
      level = candidate;
      return true;
    }
  }
  return false;
}

void LogLine(LogLevel level, std::string_view component, std::string_view message, const LogField* fields, size_t count) {
  Sink& sink = TheSink();
  if (!sink.logger->should_log(ToSpdlog(level))) return;
  std::string line;
  if (sink.format == LogFormat::kJson) {
    nlohmann::ordered_json object = {
        {"time", FormatWall(Clock::Real().Wall())}, {"level", LogLevelName(level)}, {"component", component}, {"message", message}};
    for (size_t i = 0; i < count; ++i) object[std::string(fields[i].first)] = fields[i].second;
    line = object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  } else {
    line.append(component).append("  ");
    AppendEscaped(line, message);
    for (size_t i = 0; i < count; ++i) {
      line.append("  ").append(fields[i].first).append("=");
      AppendEscaped(line, fields[i].second);
    }
  }
  sink.logger->log(ToSpdlog(level), "{}", line);
}

void Log(LogLevel level, std::string_view component, std::string_view message, std::initializer_list<LogField> fields) {
  LogLine(level, component, message, fields.begin(), fields.size());
}

void Fatal(const char* file, int line, std::string_view message) {
  LogError("fatal", message, {{"file", file}, {"line", std::to_string(line)}});
  TheSink().logger->flush();
  std::abort();
}

}  // namespace bulkhead
