// One line, one write: lines of several threads never mix.
#include "bulkhead/log.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

#include "json_text.h"

namespace bulkhead::sdk {
namespace {

constexpr size_t kMaxLine = 16 * 1024 - 1;  // what the supervisor keeps of a line
constexpr size_t kMaxMessage = 4 * 1024;
std::mutex line_mutex;  // process-wide, as stdout is

void WriteAll(std::string_view text) {
  std::lock_guard lock(line_mutex);
  while (!text.empty()) {
    ssize_t n = write(STDOUT_FILENO, text.data(), text.size());
    if (n > 0) {
      text.remove_prefix(size_t(n));
    } else if (n < 0 && errno == EAGAIN) {
      pollfd wait{STDOUT_FILENO, POLLOUT, 0};
      poll(&wait, 1, -1);
    } else if (n < 0 && errno != EINTR) {
      return;  // nobody reads: the supervisor is gone, and fd 3 says so too
    }
  }
}

std::string Line(std::string_view level, std::string_view message, const Json& fields) {
  Json line = fields.is_object() ? fields : Json::object();
  line["level"] = level;
  line["message"] = message;
  return Dump(line);
}

}  // namespace

void Logger::Write(std::string_view level, std::string_view message, const Json& fields) const {
  std::string line = Line(level, message, fields);
  if (line.size() > kMaxLine) line = Line(level, message.substr(0, kMaxMessage), {{"truncated", true}});
  if (line.size() > kMaxLine) line = Line(level, "a line too long to log", {{"truncated", true}});
  line += '\n';
  WriteAll(line);
}

}  // namespace bulkhead::sdk
