#include "handshake.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>

#include "json_text.h"

namespace bulkhead::sdk {
namespace {

constexpr size_t kMaxHandshake = 64 * 1024;
constexpr auto kTimeout = std::chrono::seconds(10);

std::string ReadLine() {
  std::string line;
  auto until = std::chrono::steady_clock::now() + kTimeout;
  for (;;) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    if (left <= 0) throw std::runtime_error("the supervisor's handshake did not come within 10 s");
    pollfd wait{kHandshakeFd, POLLIN, 0};
    if (poll(&wait, 1, int(left)) <= 0) continue;
    // Byte by byte is no loss for one line, and takes nothing of what may follow it.
    char c;
    ssize_t n = read(kHandshakeFd, &c, 1);
    if (n == 0) throw std::runtime_error("the supervisor closed the handshake");
    if (n < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      throw std::runtime_error(std::string("the handshake can't be read: ") + strerror(errno));
    }
    if (c == '\n') return line;
    line += c;
    if (line.size() > kMaxHandshake) throw std::runtime_error("the supervisor's handshake is longer than 64 KiB");
  }
}

void WriteLine(const Json& json) {
  std::string line = Dump(json) + "\n";
  std::string_view rest = line;
  while (!rest.empty()) {
    ssize_t n = send(kHandshakeFd, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // the supervisor has gone; EOF says so to whoever watches
    rest.remove_prefix(size_t(n));
  }
}

std::string Field(const Json& line, const char* name) {
  auto found = line.find(name);
  if (found == line.end() || !found->is_string() || found->get_ref<const std::string&>().empty()) {
    throw std::runtime_error(std::string("the handshake lacks ") + name);
  }
  return found->get<std::string>();
}

}  // namespace

bool StartedBySupervisor() {
  struct stat info;
  return fstat(kHandshakeFd, &info) == 0 && S_ISSOCK(info.st_mode);
}

Handshake ReadHandshake() {
  fcntl(kHandshakeFd, F_SETFD, FD_CLOEXEC);
  Json line = Json::parse(ReadLine(), nullptr, /*allow_exceptions=*/false);
  if (!line.is_object()) throw std::runtime_error("the handshake is not a JSON object");
  auto number = [&](const char* name) {
    auto found = line.find(name);
    if (found == line.end() || !found->is_number_integer()) throw std::runtime_error(std::string("the handshake lacks ") + name);
    return found->get<int>();
  };
  int min = number("protocolMin"), max = number("protocolMax");
  if (kProtocol < min || kProtocol > max) {
    throw std::runtime_error("this module speaks protocol " + std::to_string(kProtocol) + " (SDK " + kSdkName +
                             "), the supervisor speaks " + std::to_string(min) + " to " + std::to_string(max));
  }
  if (std::string transport = line.value("transport", "link"); transport != "link") {
    throw std::runtime_error("this module's SDK serves the transport \"link\", the manifest says \"" + transport + "\"");
  }
  Handshake out;
  out.module = Field(line, "module");
  out.instance = Field(line, "instance");
  out.token = Field(line, "token");
  out.control_socket = Field(line, "controlSocket");
  out.data_socket = Field(line, "dataSocket");
  out.host_socket = Field(line, "hostSocket");
  out.call_socket = line.value("callSocket", "");  // an earlier supervisor has none
  return out;
}

void AnswerHandshake() { WriteLine({{"protocol", kProtocol}, {"sdk", kSdkName}}); }
void AnswerHandshakeError(const std::string& sentence) { WriteLine({{"error", sentence}}); }

}  // namespace bulkhead::sdk
