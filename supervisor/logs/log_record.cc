#include "supervisor/logs/log_record.h"

#include <algorithm>
#include <charconv>

#include "nlohmann/json.hpp"

namespace bulkhead {
namespace {

using std::chrono::microseconds;

constexpr std::string_view kLineStart = "{\"id\":\"";

template <typename Number>
bool ReadWhole(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && number >= 0;
}

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool Contains(std::string_view text, std::string_view lower_needle) {
  return std::search(text.begin(), text.end(), lower_needle.begin(), lower_needle.end(),
                     [](char a, char b) { return Lower(a) == b; }) != text.end();
}

std::optional<LogStream> ParseStream(std::string_view name) {
  for (LogStream stream : {LogStream::kStdout, LogStream::kStderr, LogStream::kSupervisor}) {
    if (LogStreamName(stream) == name) return stream;
  }
  return std::nullopt;
}

}  // namespace

std::string LogCursor::Text() const { return std::to_string(id) + "-" + std::to_string(number); }

std::optional<LogCursor> LogCursor::Parse(std::string_view text) {
  const size_t dash = text.find('-');
  LogCursor cursor;
  if (dash == std::string_view::npos || !ReadWhole(text.substr(0, dash), cursor.id) || !ReadWhole(text.substr(dash + 1), cursor.number))
    return std::nullopt;
  return cursor;
}

std::string_view LogStreamName(LogStream stream) {
  switch (stream) {
    case LogStream::kStdout: return "stdout";
    case LogStream::kStderr: return "stderr";
    case LogStream::kSupervisor: return "supervisor";
  }
  return "";
}

std::string ToFileLine(const LogRecord& record) {
  const auto text = [](std::string_view value) { return nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace); };
  std::string line(kLineStart);
  line.append(record.at.Text()).append("\",\"time\":");
  line += std::to_string(std::chrono::duration_cast<microseconds>(record.time.time_since_epoch()).count());
  line.append(",\"slot\":").append(std::to_string(record.slot));
  line.append(",\"instance\":").append(text(record.instance));
  line.append(",\"stream\":\"").append(LogStreamName(record.stream));
  line.append("\",\"level\":\"").append(LogLevelName(record.level));
  line.append("\",\"structured\":").append(record.structured ? "true" : "false");
  line.append(",\"message\":").append(text(record.message));
  if (!record.fields.empty()) line.append(",\"fields\":").append(record.fields);
  return line += "}\n";
}

std::optional<int64_t> IdOfFileLine(std::string_view line) {
  if (!line.starts_with(kLineStart)) return std::nullopt;
  line.remove_prefix(kLineStart.size());
  int64_t id = 0;
  const size_t dash = line.find('-');
  if (dash == std::string_view::npos || !ReadWhole(line.substr(0, dash), id)) return std::nullopt;
  return id;
}

std::optional<LogRecord> FromFileLine(std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  LogRecord record;
  const auto text = [&](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  const auto cursor = LogCursor::Parse(text("id"));
  const auto stream = ParseStream(text("stream"));
  if (!cursor || !stream || !ParseLogLevel(text("level"), record.level)) return std::nullopt;
  record.at = *cursor;
  record.stream = *stream;
  if (const auto time = json.find("time"); time != json.end() && time->is_number_integer())
    record.time = WallTime(microseconds(time->get<int64_t>()));
  if (const auto slot = json.find("slot"); slot != json.end() && slot->is_number_integer()) record.slot = slot->get<int>();
  record.instance = text("instance");
  if (const auto structured = json.find("structured"); structured != json.end() && structured->is_boolean())
    record.structured = structured->get<bool>();
  record.message = text("message");
  if (const auto fields = json.find("fields"); fields != json.end() && fields->is_object())
    record.fields = fields->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return record;
}

bool LogFilter::Matches(const LogRecord& record) const {
  if (record.level < level) return false;
  if (slot && record.slot != *slot) return false;
  if (since && record.time < *since) return false;
  if (until && record.time >= *until) return false;
  return search.empty() || Contains(record.message, search) || Contains(record.fields, search);
}

}  // namespace bulkhead
