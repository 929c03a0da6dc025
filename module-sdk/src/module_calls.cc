#include "module_calls.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "call_response.h"
#include "current_work.h"
#include "json_text.h"

namespace bulkhead::sdk {
namespace {

using CallClock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kSlice{100};            // how late a call notices that nobody waits for it any more
constexpr milliseconds kTrusted{1'000};        // a connection that was used a shorter time ago is not looked at before
constexpr size_t kSendPiece = 64 * 1024;       // between two looks whether the answer is there before its time
constexpr size_t kReadPiece = 64 * 1024;
constexpr int kTransientStatus[] = {429, 502, 503, 504};

bool IsSafe(std::string_view method) { return method == "GET" || method == "HEAD" || method == "OPTIONS"; }

milliseconds Left(CallClock::time_point deadline) { return std::chrono::ceil<milliseconds>(deadline - CallClock::now()); }

void ThrowIfCancelled() {
  if (const CurrentWork* work = CurrentWork::Get(); work != nullptr && work->cancelled()) work->ThrowCancelled();
}

// Throws when the call is over whatever the other end does.
void CheckTime(CallClock::time_point deadline, const std::string& module) {
  ThrowIfCancelled();
  if (CallClock::now() >= deadline) throw ModuleCallError("the module " + module + " has not answered in time", true);
}

bool Visible(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > ' ' && c != 0x7f; });
}

bool Reserved(std::string_view name) {
  constexpr std::string_view kOurs[] = {"host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te", "trailer", "keep-alive"};
  return name.starts_with("x-bulkhead-") || std::find(std::begin(kOurs), std::end(kOurs), name) != std::end(kOurs);
}

void AppendHeader(std::string& head, std::string_view name, std::string_view value) {
  head.append(name).append(": ").append(value).append("\r\n");
}

}  // namespace

// Closed unless it is released.
struct ModuleCalls::Connection {
  int fd = -1;
  bool kept = false;  // was used before
  Connection() = default;
  Connection(int fd, bool kept) : fd(fd), kept(kept) {}
  Connection(Connection&& other) noexcept : fd(std::exchange(other.fd, -1)), kept(other.kept) {}
  ~Connection() {
    if (fd >= 0) close(fd);
  }
  int Release() { return std::exchange(fd, -1); }
};

// One of the kMaxCalls that may go on at a time.
class ModuleCalls::Turn {
 public:
  Turn(ModuleCalls& calls, CallClock::time_point deadline, const std::string& module) : calls_(calls) {
    std::unique_lock lock(calls_.mutex_);
    while (calls_.running_ >= kMaxCalls) {
      calls_.room_.wait_until(lock, std::min(deadline, CallClock::now() + kSlice));
      if (calls_.running_ >= kMaxCalls) CheckTime(deadline, module);
    }
    ++calls_.running_;
  }
  ~Turn() {
    {
      std::lock_guard lock(calls_.mutex_);
      --calls_.running_;
    }
    calls_.room_.notify_one();
  }

 private:
  ModuleCalls& calls_;
};

ModuleCalls::~ModuleCalls() {
  for (const Kept& one : idle_) close(one.fd);
}

ModuleCalls::Connection ModuleCalls::Take(bool fresh, CallClock::time_point deadline) {
  while (!fresh) {
    Kept last;
    {
      std::lock_guard lock(mutex_);
      if (idle_.empty()) break;
      last = idle_.back();
      idle_.pop_back();
    }
    Connection connection(last.fd, true);
    const auto age = CallClock::now() - last.since;
    if (age >= kMaxCallIdle) continue;
    char byte;
    if (age < kTrusted || (recv(last.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))) return connection;
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_.size() >= sizeof address.sun_path) throw ModuleCallError("the supervisor's socket for calls has too long a path", false);
  memcpy(address.sun_path, socket_.data(), socket_.size());
  Connection connection(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), false);
  const timeval slice{0, std::chrono::microseconds(kSlice).count()};
  if (connection.fd >= 0) {
    setsockopt(connection.fd, SOL_SOCKET, SO_RCVTIMEO, &slice, sizeof slice);
    setsockopt(connection.fd, SOL_SOCKET, SO_SNDTIMEO, &slice, sizeof slice);
    // A backlog that is full holds connect() up.
    do {
      if (connect(connection.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return connection;
    } while ((errno == EAGAIN || errno == EINTR) && CallClock::now() < deadline);
  }
  throw ModuleCallError(std::string("the supervisor's socket for calls can't be reached: ") + strerror(errno), true);
}

void ModuleCalls::Keep(int fd) {
  int oldest = -1;
  {
    std::lock_guard lock(mutex_);
    if (idle_.size() >= kMaxIdleCalls) {
      oldest = idle_.front().fd;
      idle_.erase(idle_.begin());
    }
    idle_.push_back({fd, CallClock::now()});
  }
  if (oldest >= 0) close(oldest);
}

std::string ModuleCalls::Head(const std::string& module, std::string_view method, std::string_view path, size_t body, const CallOptions& options,
                              milliseconds left) const {
  std::string head;
  head.reserve(512);
  head.append(method).append(" /api/v1/m/").append(module).append(path).append(" HTTP/1.1\r\n");
  AppendHeader(head, "host", module);
  AppendHeader(head, "x-bulkhead-token", token_);
  AppendHeader(head, "x-bulkhead-timeout-ms", std::to_string(left.count()));
  if (body > 0 || !IsSafe(method)) AppendHeader(head, "content-length", std::to_string(body));
  bool has_trace = false, has_id = false;
  for (const auto& [given, value] : options.headers) {
    std::string name = given;
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? char(c + 32) : c;
    if (!Visible(name) || name.find(':') != std::string::npos || Reserved(name) || value.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos) {
      throw std::invalid_argument("the header " + given + " can't be sent with a call of a module");
    }
    has_trace |= name == "traceparent";
    has_id |= name == "x-request-id";
    AppendHeader(head, name, value);
  }
  if (!has_trace) {
    for (const auto& [name, value] : CurrentTrace::Get().Headers()) AppendHeader(head, name, value);
  }
  const CurrentWork* const work = CurrentWork::Get();
  if (const Request* request = work ? work->request() : nullptr) {
    if (!has_id && !request->request_id().empty()) AppendHeader(head, "x-request-id", request->request_id());
    if (auto hops = request->header("x-bulkhead-hops")) AppendHeader(head, "x-bulkhead-hops", *hops);
  }
  head += "\r\n";
  return head;
}

namespace {

enum class Sent { kWhole, kAnsweredBefore, kLost, kNothing };

// Head and body; stops when the answer comes before all of them have been sent.
Sent SendCall(int fd, std::string_view bytes, bool begins, CallClock::time_point deadline, const std::string& module) {
  bool begun = !begins;
  while (!bytes.empty()) {
    pollfd answer{fd, POLLIN, 0};
    if (begun && poll(&answer, 1, 0) > 0) return Sent::kAnsweredBefore;
    const ssize_t n = send(fd, bytes.data(), std::min(bytes.size(), kSendPiece), MSG_NOSIGNAL);
    if (n > 0) bytes.remove_prefix(size_t(n));
    else if (errno == EAGAIN || errno == EWOULDBLOCK) CheckTime(deadline, module);
    else if (errno != EINTR) return begun ? Sent::kLost : Sent::kNothing;
    begun = begun || n > 0;
  }
  return Sent::kWhole;
}

// What has come; 0 at the end.
size_t ReceiveAnswer(int fd, char* buffer, CallClock::time_point deadline, const std::string& module) {
  for (;;) {
    if (const milliseconds left = Left(deadline); left < kSlice) {
      pollfd answer{fd, POLLIN, 0};
      if (poll(&answer, 1, int(std::max<int64_t>(left.count(), 0))) == 0) CheckTime(deadline, module);
    }
    const ssize_t n = recv(fd, buffer, kReadPiece, 0);
    if (n >= 0) return size_t(n);
    if (errno == EAGAIN || errno == EWOULDBLOCK) CheckTime(deadline, module);
    else if (errno != EINTR) return 0;
  }
}

}  // namespace

CallAnswer ModuleCalls::Call(const std::string& module, std::string_view method, std::string_view path, std::string_view body, const CallOptions& options) {
  if (socket_.empty()) throw ModuleCallError("this supervisor has no socket for calls of modules", false);
  if (!path.starts_with('/') || !Visible(path) || path.find('#') != std::string_view::npos || !Visible(module) || module.find('/') != std::string::npos ||
      !Visible(method)) {
    throw std::invalid_argument("a call of a module needs a method, its name, and a path that begins with / and is percent-encoded");
  }
  ThrowIfCancelled();
  CallClock::time_point deadline = CallClock::now() + options.timeout;
  const CurrentWork* const work = CurrentWork::Get();
  if (const auto end = work ? work->deadline() : std::nullopt) deadline = std::min(deadline, *end);
  const Turn turn(*this, deadline, module);
  thread_local std::vector<char> buffer(kReadPiece);
  for (bool fresh = false;; fresh = true) {
    CheckTime(deadline, module);
    std::string request = Head(module, method, path, body.size(), options, Left(deadline));
    Connection connection = Take(fresh, deadline);
    const bool together = request.size() + body.size() <= kSendPiece;
    if (together) request.append(body);
    Sent sent = SendCall(connection.fd, request, true, deadline, module);
    if (sent == Sent::kWhole && !together) sent = SendCall(connection.fd, body, false, deadline, module);

    CallAnswer answer;
    ResponseReader reader(method == "HEAD");
    bool too_long = false;
    const auto take_body = [&](std::string_view piece) {
      if (options.on_body && reader.status() >= 200 && reader.status() <= 299) return options.on_body(piece);
      too_long = answer.body.size() + piece.size() > options.max_body;
      if (!too_long) answer.body.append(piece);
      return !too_long;
    };
    auto progress = ResponseReader::Progress::kMore;
    while (progress == ResponseReader::Progress::kMore) {
      const size_t n = ReceiveAnswer(connection.fd, buffer.data(), deadline, module);
      progress = n > 0 ? reader.Take({buffer.data(), n}, take_body) : reader.End();
    }
    // It had been closed, or was just then.
    if (!reader.begun() && connection.kept && !fresh && (IsSafe(method) || sent == Sent::kNothing)) continue;
    if (progress == ResponseReader::Progress::kMalformed) {
      const char* what = reader.begun() ? "the answer of the module " : "the connection to the module ";
      throw ModuleCallError(what + module + (reader.begun() ? " broke off" : " was lost"), true);
    }
    answer.status = reader.status();
    answer.headers = std::move(reader.headers());
    if (too_long) throw ModuleCallError("the answer of the module " + module + " is longer than max_body", false, answer.status);
    if (progress == ResponseReader::Progress::kDone && reader.keeps_alive() && sent == Sent::kWhole) Keep(connection.Release());
    return answer;
  }
}

CallAnswer ModuleClient::Call(std::string_view method, std::string_view path, std::string_view body, const CallOptions& options) const {
  return calls_->Call(module_, method, path, body, options);
}

CallAnswer ModuleClient::CallJson(std::string_view method, std::string_view path, const Json& body, const CallOptions& options) const {
  const bool named = std::any_of(options.headers.begin(), options.headers.end(), [](const auto& header) { return header.first == "content-type"; });
  if (named) return Call(method, path, Dump(body), options);
  CallOptions typed = options;
  typed.headers.emplace_back("content-type", "application/json");
  return Call(method, path, Dump(body), typed);
}

std::optional<std::string_view> CallAnswer::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return std::nullopt;
}

Json CallAnswer::json() const {
  Json document = Json::parse(body, nullptr, false);
  if (document.is_discarded()) throw ModuleCallError("the answer (" + std::to_string(status) + ") is no JSON", false, status);
  return document;
}

Json CallAnswer::data() const {
  if (ok()) {
    const Json document = status == 204 ? Json::object() : json();
    const auto data = document.is_object() ? document.find("data") : document.end();
    return data != document.end() ? *data : Json();
  }
  const Json document = Json::parse(body, nullptr, false);
  std::string code, message = "the module answered " + std::to_string(status);
  if (document.is_object() && document.contains("error") && document["error"].is_object()) {
    const Json& error = document["error"];
    if (error.contains("code") && error["code"].is_string()) code = error["code"].get<std::string>();
    if (error.contains("message") && error["message"].is_string()) message += ": " + error["message"].get<std::string>();
  }
  const bool transient = std::find(std::begin(kTransientStatus), std::end(kTransientStatus), status) != std::end(kTransientStatus);
  throw ModuleCallError(message, transient, status, code);
}

}  // namespace bulkhead::sdk
