// What answers requests that are not for a module: the admin API and the probes. The gateway knows only this.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace bulkhead {

// A whole request; the body is complete (at most limits::kAdminBodyLimit, beyond it the gateway has answered 413).
struct LocalRequest {
  std::string method;         // never HEAD: that comes as GET, and its answer leaves without the body
  std::string path;           // decoded once, without query
  std::string query;          // raw, without '?'
  std::string authorization;  // value of the header, "" when absent
  std::string content_type;
  std::string if_match;
  std::string idempotency_key;
  std::string last_event_id;
  std::string body;
  std::string remote_address;  // "127.0.0.1:51234"
  std::string request_id;
};

using HeaderList = std::vector<std::pair<std::string, std::string>>;

// An answer that goes on. Thread-safe, one call at a time; none blocks. Dropping it before End() breaks the answer off, so that the client sees
// that it is not whole.
class LocalStream {
 public:
  virtual ~LocalStream() = default;
  // Bytes for the client. `then` is called once he has taken so many that at most limits::kStreamRoom are unsent: who writes only then keeps
  // no more than that for one who does not read. Not called when he is gone.
  virtual void Write(std::string bytes, std::function<void()> then) = 0;
  virtual void End() = 0;
};

// The answer to one LocalRequest. Thread-safe; may outlive the connection (then it does nothing). Dropping it unanswered answers 500.
class LocalResponder {
 public:
  virtual ~LocalResponder() = default;
  // A whole answer; ends the exchange.
  virtual void Respond(int status, HeaderList headers, std::string body) = 0;
  // Begins an answer that goes on, instead: of unknown length, or of as many bytes as the header content-length says, which then all are written
  // before End(). `idle` is sent whenever nothing else was for limits::kStreamHeartbeat. `gone` is called once,
  // from any thread, when nobody takes the rest: the client has left, asked with HEAD, or the gateway ends; not after End(). It must not block.
  virtual std::unique_ptr<LocalStream> Stream(int status, HeaderList headers, std::string idle, std::function<void()> gone) = 0;
};

class LocalService {
 public:
  virtual ~LocalService() = default;
  // How many bytes of body it takes from somebody without a token, for a login; 0: none. `path` is raw. On a gateway thread.
  virtual int64_t AnonymousBody(std::string_view method, std::string_view path) const { return 0; }
  // The pattern of the path, "/api/v1/modules/:name", for metrics; "" for none. Its text stays as long as the service. On a gateway thread.
  virtual std::string_view RouteOf(std::string_view method, std::string_view path) const { return {}; }
  // On a gateway thread; must not block.
  virtual void Handle(LocalRequest request, std::unique_ptr<LocalResponder> responder) = 0;
};

// `{"success":false,"error":{code,message,details,requestId}}`, the one shape of every error body.
std::string ErrorBody(const absl::Status& status, std::string_view request_id);

}  // namespace bulkhead
