// The supervisor's side, as small as a test needs it: a module process with fd 3, its gRPC stub, and a link connection.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bulkhead/link/frame.h"
#include "bulkhead/module/v1/module.grpc.pb.h"

namespace bulkhead::sdk_test {

namespace pb = ::bulkhead::module::v1;
using Json = nlohmann::json;

inline constexpr const char* kToken = "0123456789abcdef0123456789abcdef";

struct Frame {
  link::Header header;
  std::string payload;
  std::string_view head() const { return std::string_view(payload).substr(0, header.head_length); }
  std::string_view body() const { return std::string_view(payload).substr(header.head_length); }
  bool end() const { return header.flags & link::kEnd; }
};

// As the link carries headers and trailers; the last of a name counts.
std::map<std::string, std::string> Fields(std::string_view encoded);

struct Answer {
  int status = 0;
  std::map<std::string, std::string> headers, trailers;
  std::string body;
  int cancel_code = 0;  // when the stream ended with CANCEL
  Json json() const { return Json::parse(body); }
};

using Pairs = std::vector<std::pair<std::string, std::string>>;

// The gateway's end of one link. Not thread-safe.
class Link {
 public:
  explicit Link(const std::string& socket, std::string_view token = kToken, uint32_t window = link::kWindow,
                uint32_t max_frame = link::kMaxFrame);
  Link(const Link&) = delete;
  ~Link();
  // Opens the next stream.
  uint32_t Send(const std::string& method, const std::string& target, const Pairs& headers = {}, std::string_view body = {},
                bool end = true);
  // A request for a WebSocket, with the key of RFC 6455 1.3 and version 13 unless `headers` has them.
  uint32_t Upgrade(const std::string& target, Pairs headers = {});
  void Data(uint32_t stream, std::string_view data, bool end);
  void Trailers(uint32_t stream, const Pairs& trailers);  // with END
  void Window(uint32_t stream, uint32_t credit);
  void Cancel(uint32_t stream, link::CancelCode code = link::CancelCode::kClientGone);
  void Raw(std::string_view bytes);
  // The next frame; nullopt when the module has closed. Fails the test after 5 s.
  std::optional<Frame> Next();
  // True when the module closes the connection within 5 s; other frames are dropped.
  bool Closes();
  bool Readable(std::chrono::milliseconds within);
  // The next frame of that stream; those of others are kept for theirs. nullopt when the module has closed.
  std::optional<Frame> NextOf(uint32_t stream);
  // Collects one stream's answer, giving credit as it goes; frames of other streams are kept for theirs.
  Answer Await(uint32_t stream);
  Answer Ask(const std::string& method, const std::string& target, const Pairs& headers = {}, std::string_view body = {});

 private:
  uint32_t SendRequest(const std::string& method, const std::string& target, const Pairs& headers, std::string_view body,
                       uint8_t flags);
  int fd_;
  const uint32_t max_frame_;  // what this end takes; Next() holds the module to it
  uint32_t next_stream_ = 1;
  std::vector<Frame> kept_;
};

std::string TestModulePath();

class ModuleProcess {
 public:
  struct Options {
    Json config = Json::object();
    Json handshake = Json::object();  // overrides fields of the handshake's line
    bool initialize = true, start = true;
    std::string conninfo, schema;
    std::string program = TestModulePath();
    std::function<void(pb::InitializeRequest&)> prepare;  // changes what Initialize asks
  };
  ModuleProcess();  // handshake, Initialize and Start, as with Options{}
  explicit ModuleProcess(Options options);
  ModuleProcess(const ModuleProcess&) = delete;
  ~ModuleProcess();  // kills what is still there

  Json answer;  // what the module said on fd 3
  grpc::Status Initialize(const Options& options);
  grpc::Status Start();
  grpc::Status Stop(int64_t deadline_ms = 5'000);
  pb::Module::Stub& stub() { return *stub_; }
  std::unique_ptr<grpc::ClientContext> Call(std::chrono::milliseconds timeout = std::chrono::seconds(10),
                                            const char* token = kToken);
  std::string data_socket() const { return folder_ + "/data.sock"; }
  std::string control_socket() const { return folder_ + "/control.sock"; }
  void CloseHandshake();  // EOF on the module's fd 3
  void Signal(int signal);
  // Exit code, or 1000 + signal; fails the test when the process does not end in time.
  int AwaitExit(std::chrono::milliseconds within = std::chrono::seconds(10));
  std::string Log() const;  // stdout and stderr so far
  // Waits until the log holds `text`.
  bool Logged(std::string_view text, std::chrono::milliseconds within = std::chrono::seconds(5)) const;

 private:
  void Spawn(std::string program);
  std::string folder_;
  int pid_ = -1, pidfd_ = -1, handshake_ = -1;
  std::unique_ptr<pb::Module::Stub> stub_;
};

// Calls `condition` until it is true; false after `within`.
template <typename F>
bool Eventually(F condition, std::chrono::milliseconds within = std::chrono::seconds(5)) {
  auto until = std::chrono::steady_clock::now() + within;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
  }
  return true;
}

}  // namespace bulkhead::sdk_test
